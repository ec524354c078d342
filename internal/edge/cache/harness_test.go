package cache

import (
	"context"
	"errors"
	"io"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/bundle"
	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/snapshot"
	"github.com/relais-edge/relais/internal/stage"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// reply is what the origin of a test answers.
type reply struct {
	status  int
	headers []string // "Name: value"
	body    string
	chunked bool  // do not tell the length
	err     error // in place of an answer
	bodyErr error // after the body, in place of its end
	wait    <-chan struct{}
	slow    <-chan struct{} // before the second half of the body
	early   []string        // fields of a 103
	length  int64           // when not 0, the length told
}

// origin is the last handler: it gives the replies in order, the last one again and again.
type origin struct {
	mu      sync.Mutex
	replies []reply
	asked   []string // requests as "METHOD path|Name: value|…"
	clock   func() time.Time
	ranges  bool // answer a Range with the digits 2 to 5
}

func (o *origin) Serve(ctx context.Context, x *stage.Exchange) (*message.Response, error) {
	o.mu.Lock()
	var b strings.Builder
	b.Write(x.In.MethodName())
	b.WriteByte(' ')
	b.Write(x.In.Path())
	for i := range x.In.Len() {
		_, n, v := x.In.At(i)
		b.WriteString("|" + string(n) + ": " + string(v))
	}
	o.asked = append(o.asked, b.String())
	r := o.replies[0]
	if len(o.replies) > 1 {
		o.replies = o.replies[1:]
	}
	o.mu.Unlock()
	if r.early != nil {
		var f message.Fields
		addLines(&f, r.early, o.clock())
		x.Inform(103, &f)
	}
	if r.wait != nil {
		select {
		case <-r.wait:
		case <-ctx.Done():
			return nil, &stage.Error{Code: "gone", Side: stage.SideOrigin, Status: 502, Err: context.Cause(ctx)}
		}
	}
	if r.err != nil {
		return nil, r.err
	}
	x.Pool, x.Origin, x.Tries = "pool", "origin", 1
	x.Mark("origin", "sent")
	resp := &x.Response
	resp.Reset()
	resp.Status = r.status
	if r.status == 0 {
		resp.Status = 200
	}
	addLines(&resp.Fields, r.headers, o.clock())
	if o.ranges && x.In.Has(message.Range) {
		resp.Status = 206
		addLines(&resp.Fields, []string{"Content-Range: bytes 2-5/10"}, o.clock())
		resp.SetBytes([]byte(digits[2:6]))
		return resp, nil
	}
	if x.In.Method == message.HEAD {
		resp.ContentLength = int64(len(r.body))
		return resp, nil
	}
	resp.ContentLength = int64(len(r.body))
	if r.chunked {
		resp.ContentLength = -1
	}
	if r.length != 0 {
		resp.ContentLength = r.length
	}
	if r.body == "" {
		return resp, nil
	}
	resp.Body = &replyBody{r: r, rest: r.body}
	return resp, nil
}

type replyBody struct {
	r      reply
	rest   string
	n      int
	buf    []byte
	closed bool
}

func (b *replyBody) Next(ctx context.Context) ([]byte, error) {
	for i := range b.buf {
		b.buf[i] = '#' // what was lent is gone
	}
	if b.rest == "" {
		if b.r.bodyErr != nil {
			return nil, b.r.bodyErr
		}
		return nil, io.EOF
	}
	if b.n == 1 && b.r.slow != nil {
		select {
		case <-b.r.slow:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	b.n++
	n := min(max((len(b.r.body)+1)/2, 1), 32<<10, len(b.rest))
	b.buf = append(b.buf[:0], b.rest[:n]...)
	b.rest = b.rest[n:]
	return b.buf, nil
}

func (b *replyBody) Close(error) { b.closed = true }

// addLines adds "Name: value" lines. A value of @N is the date N seconds from now.
func addLines(f *message.Fields, lines []string, now time.Time) {
	for _, l := range lines {
		n, v, _ := strings.Cut(l, ": ")
		f.AddLine([]byte(n), []byte(dates(v, now)))
	}
}

func dates(v string, now time.Time) string {
	if !strings.HasPrefix(v, "@") {
		return v
	}
	d, err := time.ParseDuration(v[1:] + "s")
	if err != nil {
		panic(err)
	}
	return now.Add(d).UTC().Format("Mon, 02 Jan 2006 15:04:05 GMT")
}

// rig is a stage with one site, an origin and a clock.
type rig struct {
	t      testing.TB
	s      *Stage
	site   *snapshot.Site
	origin *origin
	chain  stage.Handler
	now    time.Time
	real   bool // the clock is time.Now, for synctest
}

func newRig(t testing.TB, spec v1.CachePolicySpec, replies ...reply) *rig {
	return newRigWith(t, Config{}, spec, replies...)
}

func newRigWith(t testing.TB, cfg Config, spec v1.CachePolicySpec, replies ...reply) *rig {
	t.Helper()
	r := &rig{t: t, now: time.Date(2030, 1, 1, 12, 0, 0, 0, time.UTC)}
	if cfg.Clock == nil {
		cfg.Clock = func() time.Time { return r.now }
	} else {
		r.real = true
	}
	r.origin = &origin{replies: replies, clock: cfg.Clock}
	cfg.Slot = 3
	r.s = newStage(t, cfg)
	r.site = newSite(t, r.s, "acme/shop", spec)
	r.chain = stage.Chain(r.origin, r.s, r.s.Watch())
	return r
}

// newStage makes a stage whose memory is given back at the end.
func newStage(t testing.TB, cfg Config) *Stage {
	t.Helper()
	if cfg.MaxBytes == 0 {
		cfg.MaxBytes = 16 << 20
	}
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for range 5000 {
			s.mu.Lock()
			n := len(s.running)
			s.mu.Unlock()
			if n == 0 {
				break
			}
			time.Sleep(time.Millisecond)
		}
		if err := s.tiers.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func newSite(t testing.TB, s *Stage, key bundle.Key, spec v1.CachePolicySpec) *snapshot.Site {
	t.Helper()
	site := &snapshot.Site{
		Key:  key,
		Spec: &bundle.Site{Caches: map[string]*v1.CachePolicySpec{"c": &spec}},
		Routes: []snapshot.Route{
			{Index: 0, Name: "cached", Spec: &v1.Route{Policies: v1.Policies{Cache: "c"}}},
			{Index: 1, Name: "plain", Spec: &v1.Route{}},
			{Index: 2, Name: "other", Spec: &v1.Route{Policies: v1.Policies{Cache: "c"}}},
		},
		Parts: make([]any, stage.Slots),
	}
	p, err := s.Compile(site, nil)
	if err != nil {
		t.Fatal(err)
	}
	site.Parts[3] = p
	return site
}

// exchange makes an exchange for "METHOD path?query".
func (r *rig) exchange(line string, headers ...string) *stage.Exchange {
	x := new(stage.Exchange)
	r.fill(x, line, headers...)
	return x
}

func (r *rig) fill(x *stage.Exchange, line string, headers ...string) {
	x.Reset()
	method, target, _ := strings.Cut(line, " ")
	in := &message.Request{Proto: message.HTTP11}
	in.SetMethod([]byte(method))
	path, query, has := strings.Cut(target, "?")
	in.SetAuthority([]byte("shop.example"))
	in.SetPath([]byte(path))
	if has {
		in.SetQuery([]byte(query))
	}
	addLines(&in.Fields, headers, r.s.cfg.Clock())
	x.In = in
	x.Start = r.s.cfg.Clock()
	x.SetHost([]byte("shop.example"))
	x.SetPath([]byte(path))
	x.Site, x.Route = r.site, &r.site.Routes[0]
}

// got is an answer as its client saw it.
type got struct {
	status int
	fields message.Fields
	body   string
	err    error // in place of the answer, or of the body's end
	cache  string
	x      *stage.Exchange
}

func (g *got) header(name string) string { return string(g.fields.Lookup(name)) }

func (r *rig) do(line string, headers ...string) *got {
	r.t.Helper()
	return r.send(context.Background(), r.exchange(line, headers...))
}

func (r *rig) send(ctx context.Context, x *stage.Exchange) *got {
	resp, err := r.chain.Serve(ctx, x)
	g := read(ctx, x, resp, err)
	if !r.real {
		r.settle()
	}
	return g
}

// read takes the whole answer in, as a protocol does.
func read(ctx context.Context, x *stage.Exchange, resp *message.Response, err error) *got {
	g := &got{x: x, err: err, cache: x.CacheStatus}
	if err != nil {
		x.End(message.Outcome{Err: err})
		return g
	}
	g.status = resp.Status
	g.fields.CopyFrom(&resp.Fields)
	n := int64(0)
	if !message.NoBody(x.In.Method, resp.Status) {
		b := string(resp.Bytes)
		for resp.Body != nil && g.err == nil {
			var chunk []byte
			chunk, g.err = resp.Body.Next(ctx)
			b += string(chunk)
		}
		if g.err == io.EOF {
			g.err = nil
		}
		g.body, n = b, int64(len(b))
		if g.err == nil && resp.ContentLength >= 0 && resp.ContentLength != n {
			g.err = errors.New("the length told is not that of the body")
		}
	}
	if resp.Body != nil {
		resp.Body.Close(g.err)
	}
	x.End(message.Outcome{Status: resp.Status, Body: n, Err: g.err})
	return g
}

// settle waits until no fetch runs.
func (r *rig) settle() {
	for i := 0; ; i++ {
		r.s.mu.Lock()
		n := len(r.s.running)
		r.s.mu.Unlock()
		if n == 0 {
			return
		}
		if i < 50 {
			runtime.Gosched() // nearly always it is about to end
			continue
		}
		if i > 5000 {
			r.t.Fatal("a fetch does not end")
		}
		time.Sleep(time.Millisecond)
	}
}

func (r *rig) pass(d time.Duration) { r.now = r.now.Add(d) }
