package replay

import (
	"context"
	"errors"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/relais-edge/relais/internal/edge/record"
	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/stage"
)

// origin stands in for all origins: it answers at once what was recorded of the request under way.
type origin struct {
	clock *clock
	known func(*record.Request) *record.Request

	current *record.Request

	mu      sync.Mutex // fetches of the cache have goroutines of their own
	sent    string
	fields  []string
	assumed bool
}

// begin makes q the request under way.
func (o *origin) begin(q *record.Request) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.current, o.sent, o.fields, o.assumed = q, "", nil, false
}

// tell adds to a result what the origin was asked.
func (o *origin) tell(r *Result) {
	o.mu.Lock()
	defer o.mu.Unlock()
	r.Sent, r.SentFields, r.Assumed = o.sent, o.fields, o.assumed
}

var errRecorded = errors.New("the origin failed when this was recorded")

// Serve implements stage.Handler.
func (o *origin) Serve(ctx context.Context, x *stage.Exchange) (*message.Response, error) {
	o.mu.Lock()
	q := o.current
	if o.sent == "" {
		out := &x.Out
		o.sent = string(out.MethodName()) + " " + string(out.Authority()) + string(out.Path())
		if out.HasQuery() {
			o.sent += "?" + string(out.Query())
		}
		o.fields = lines(&out.Fields, sentVolatile)
	}
	o.mu.Unlock()
	if b := x.Out.Body; b != nil { // as an origin would
		for {
			if _, err := b.Next(ctx); err == io.EOF {
				break
			} else if err != nil {
				return nil, err
			}
		}
	}
	x.Sent = true
	from := q
	if q.Answer.Made || q.Answer.Status == 0 {
		if q.Outcome.Side == stage.SideOrigin.String() && q.Outcome.Code != "" {
			return nil, &stage.Error{Code: q.Outcome.Code, Side: stage.SideOrigin, Status: q.Answer.Status, Retry: q.Outcome.Tries > 1, Err: errRecorded}
		}
		if from = nil; o.known != nil {
			from = o.known(q)
		}
	}
	resp := &message.Response{}
	if from == nil {
		o.mu.Lock()
		o.assumed = true
		o.mu.Unlock()
		resp.Status = 200
		resp.AddString(message.ContentType, "text/html")
		resp.AddString(message.CacheControl, "no-store")
		resp.SetBytes(nil)
		return resp, nil
	}
	o.answer(x, from, resp)
	return resp, nil
}

// answer makes the origin's answer of what the visitor was given.
func (o *origin) answer(x *stage.Exchange, q *record.Request, resp *message.Response) {
	now := o.clock.Now()
	resp.Status = q.Answer.Status
	tag, part := "", false
	encoded := slices.ContainsFunc(q.Outcome.Marks, func(m [2]string) bool {
		return m[0] == "encode" && m[1] != "busy" && m[1] != "range" && m[1] != "no-range"
	})
	date := dateOf(q)
	for _, f := range q.Answer.Fields {
		if !plainField(f) {
			continue
		}
		switch name := strings.ToLower(f[0]); name {
		case "age", "date", "content-length", "transfer-encoding", "connection", "cache-status":
			continue
		case "content-encoding":
			if encoded || strings.Contains(tagOf(q), "~") {
				continue
			}
		case "content-range":
			if part = x.Out.Has(message.Range); !part {
				continue
			}
		case "expires":
			if t, err := http.ParseTime(f[1]); err == nil && !date.IsZero() {
				f[1] = now.Add(t.Sub(date)).UTC().Format(http.TimeFormat)
			}
		case "etag":
			f[1] = plainTag(f[1])
			tag = f[1]
		}
		resp.AddLine([]byte(f[0]), []byte(f[1]))
	}
	resp.AddString(message.Date, now.UTC().Format(http.TimeFormat))
	switch {
	case resp.Status == 206 && !part, resp.Status == 304:
		resp.Status = 200
	}
	if resp.Status == 200 && tag != "" && x.Out.Has(message.IfNoneMatch) && strings.Contains(string(x.Out.Get(message.IfNoneMatch)), strings.TrimPrefix(tag, "W/")) {
		resp.Status = 304
	}
	if message.NoBody(x.Out.Method, resp.Status) {
		return
	}
	if n := min(max(0, q.Answer.Bytes), maxBody); n > 0 {
		resp.ContentLength = n
		resp.Body = &zeros{left: n}
	}
}

// maxBody bounds the body of an answer.
const maxBody = 64 << 20

func tagOf(q *record.Request) string {
	for _, f := range q.Answer.Fields {
		if strings.EqualFold(f[0], "etag") {
			return f[1]
		}
	}
	return ""
}

// plainTag takes off what encoding at the edge adds to a tag: W/"tag~coding".
func plainTag(tag string) string {
	at := strings.LastIndexByte(tag, '~')
	if at < 0 || !strings.HasPrefix(tag, `W/"`) || !strings.HasSuffix(tag, `"`) {
		return tag
	}
	switch tag[at+1 : len(tag)-1] {
	case "zstd", "br", "gzip":
		return tag[:at] + `"`
	}
	return tag
}

// dateOf is when the recorded answer was made.
func dateOf(q *record.Request) time.Time {
	for _, f := range q.Answer.Fields {
		if strings.EqualFold(f[0], "date") {
			t, _ := http.ParseTime(f[1])
			return t
		}
	}
	return time.Time{}
}

// content is a body in memory.
type content struct{ data []byte }

// Next implements message.Body.
func (c *content) Next(context.Context) ([]byte, error) {
	b := c.data
	c.data = nil
	return b, io.EOF
}

// Close implements message.Body.
func (c *content) Close(error) {}

// zeros is a body of which only the length is known.
type zeros struct{ left int64 }

// Next implements message.Body.
func (z *zeros) Next(context.Context) ([]byte, error) {
	n := min(z.left, int64(len(nothing)))
	if z.left -= n; z.left == 0 {
		return nothing[:n], io.EOF
	}
	return nothing[:n], nil
}

// Close implements message.Body.
func (z *zeros) Close(error) {}

var nothing = make([]byte, 32<<10)

// sentVolatile and answerVolatile are fields that differ each time, and say nothing of a revision.
var (
	sentVolatile   = []string{"x-request-id", "cookie", "if-none-match", "if-modified-since"}
	answerVolatile = []string{
		"x-request-id", "age", "date", "expires", "cache-status", "content-length", "server-timing", "ratelimit",
		"ratelimit-policy", "retry-after", "proxy-status", "etag", "content-encoding", "vary",
	}
)

// lines lists fields that are not volatile, in order of their names. Of a cookie that is set only the name counts.
func lines(f *message.Fields, volatile []string) []string {
	out := make([]string, 0, f.Len())
	for i := range f.Len() {
		_, name, value := f.At(i)
		n := strings.ToLower(string(name))
		if slices.Contains(volatile, n) {
			continue
		}
		v := string(value)
		if n == "set-cookie" {
			v, _, _ = strings.Cut(v, "=")
		}
		out = append(out, n+": "+v)
	}
	slices.Sort(out)
	return out
}

// ttlText writes a TTL.
func ttlText(n int) string {
	if n < 0 {
		return "none"
	}
	return strconv.Itoa(n) + " s"
}
