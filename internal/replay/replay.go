// Package replay serves recorded requests in process with compiled documents, in virtual time and with
// origins that answer what was recorded, and says what two revisions of the documents do differently.
package replay

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/relais-edge/relais/internal/bundle"
	"github.com/relais-edge/relais/internal/edge"
	"github.com/relais-edge/relais/internal/edge/record"
	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/stage"
)

// Config of a Runner. Zero fields have defaults.
type Config struct {
	// Start is the virtual time at which the edge begins: that of the first request.
	Start time.Time
	// Seed is what all chances follow from.
	Seed uint64
	// CacheBytes is the memory for stored answers; 256 MiB.
	CacheBytes int64
	// Zone and Number are those of the edge.
	Zone   string
	Number uint64
	// Known finds an answer of an origin for a request of which none was recorded; nil for none.
	Known func(*record.Request) *record.Request
}

// Result is what became of a request.
type Result struct {
	Site   string `json:"site,omitempty"`
	Route  string `json:"route,omitempty"`
	Status int    `json:"status"`
	// Code and Side are those of the error whose page was the answer.
	Code string `json:"code,omitempty"`
	Side string `json:"side,omitempty"`
	// Access, Visitor, Maintenance, Limit and WAF are the codes that the stages marked; empty when none judged.
	Access      string `json:"access,omitempty"`
	Visitor     string `json:"visitor,omitempty"`
	Maintenance string `json:"maintenance,omitempty"`
	Limit       string `json:"limit,omitempty"`
	WAF         string `json:"waf,omitempty"`
	// Detail is what the firewall says for a person.
	Detail string `json:"detail,omitempty"`
	// Verdict is what the engine found; nil when it was not asked.
	Verdict *stage.Verdict `json:"verdict,omitempty"`
	// Cache is what the cache did, Forward and Stored what Cache-Status says besides; TTL is -1 when there is none.
	Cache   string `json:"cache,omitempty"`
	Forward string `json:"fwd,omitempty"`
	Stored  bool   `json:"stored,omitempty"`
	TTL     int    `json:"ttl"`
	Pool    string `json:"pool,omitempty"`
	Tier    string `json:"tier,omitempty"`
	Origin  string `json:"origin,omitempty"`
	Tries   int    `json:"tries,omitempty"`
	Spill   string `json:"spill,omitempty"`
	Full    string `json:"full,omitempty"`
	// Sent is the request line that an origin got: method, authority, path and query.
	Sent string `json:"sent,omitempty"`
	// SentFields are what else it got, and AnswerFields what the visitor got, as "Name: value"; fields that
	// differ each time are left out.
	SentFields   []string `json:"-"`
	AnswerFields []string `json:"-"`
	// Assumed says that an origin was asked for which no answer was recorded, so that the answer is a guess:
	// 200 that may not be stored.
	Assumed bool `json:"assumed,omitempty"`
}

// Blocked says whether the edge refused the request by one of the site's rules.
func (r *Result) Blocked() bool {
	return r.Side == stage.SideTenant.String() && (r.Status == 403 || r.Status == 413 || r.Status == 429)
}

// Runner serves recorded requests with one revision of documents, one request at a time and in the order
// of their times. It opens no listener, asks no DNS and connects to nobody.
type Runner struct {
	edge    *edge.Replay
	clock   clock
	origin  origin
	request message.Request
	conn    message.Conn
	tls     message.TLS
	body    content
}

// New puts a bundle in service for replays. Close gives its memory and its temporary folder back.
func New(ctx context.Context, cfg Config, b *bundle.Bundle) (*Runner, error) {
	if cfg.CacheBytes <= 0 {
		cfg.CacheBytes = 256 << 20
	}
	if cfg.Start.IsZero() {
		return nil, errors.New("replay: the time of the first request is missing")
	}
	r := &Runner{}
	r.clock.begin(cfg.Start)
	r.origin.clock, r.origin.known = &r.clock, cfg.Known
	var err error
	r.edge, err = edge.NewReplay(ctx, edge.ReplayConfig{
		Time: &r.clock, Origin: &r.origin, Presume: r.presume,
		CacheBytes: cfg.CacheBytes, Zone: cfg.Zone, Number: cfg.Number, Seed: cfg.Seed,
	}, b)
	if err != nil {
		return nil, err
	}
	return r, nil
}

// Close ends the runner.
func (r *Runner) Close() error { return r.edge.Close() }

// presume says who the visitor of the request under way was.
func (r *Runner) presume(*stage.Exchange) stage.Visitor {
	q := r.origin.current
	v := stage.Visitor{Key: q.Visitor.Key, Tier: q.Visitor.Tier}
	switch q.Visitor.Class {
	case stage.Known.String():
		v.Class = stage.Known
	case stage.Protected.String():
		v.Class = stage.Protected
	}
	return v
}

// maxTook bounds how long a request of the record holds its place.
const maxTook = time.Hour

// Run has q served at its time, or now when that is over already. An error says what in q cannot be
// replayed; the runner goes on with the next one.
func (r *Runner) Run(ctx context.Context, q *record.Request) (Result, error) {
	if err := ctx.Err(); err != nil {
		return Result{}, err
	}
	a, err := r.asked(q)
	if err != nil {
		return Result{}, err
	}
	r.clock.advance(q.Time, r.edge.Advance)
	a.Start = r.clock.Now()
	took := min(max(0, time.Duration(q.Millis*float64(time.Millisecond))), maxTook)
	r.clock.setEnd(a.Start.Add(took))
	r.origin.begin(q)
	res := Result{TTL: -1}
	r.edge.Serve(ctx, a, func(x *stage.Exchange, resp *message.Response, _ int64) { res.take(x, resp) })
	r.origin.tell(&res)
	return res, nil
}

// asked makes a request of what was recorded.
func (r *Runner) asked(q *record.Request) (*edge.Asked, error) {
	id, ok := stage.ParseRequestID(q.ID)
	if !ok {
		return nil, fmt.Errorf("request %q has no id of 26 characters", q.ID)
	}
	if len(q.Fields) > maxFields {
		return nil, fmt.Errorf("request %s has %d fields; %d are read", q.ID, len(q.Fields), maxFields)
	}
	client, err := netip.ParseAddr(q.Client)
	if err != nil {
		client = netip.IPv4Unspecified()
	}
	in := &r.request
	in.Reset()
	in.SetMethod([]byte(q.Method))
	in.SetAuthority([]byte(q.Authority))
	in.SetPath([]byte(q.Path))
	if q.Query != nil {
		in.SetQuery([]byte(*q.Query))
	}
	in.Proto, in.Secure = protoOf(q.Proto), q.Secure
	upgrade := false
	for _, f := range q.Fields {
		if !plainField(f) {
			return nil, fmt.Errorf("request %s: the field %.40q is none of HTTP", q.ID, f[0])
		}
		in.AddLine([]byte(f[0]), []byte(f[1]))
		upgrade = upgrade || strings.EqualFold(f[0], "upgrade")
	}
	if b := replayable(q); len(b) > 0 && !upgrade {
		r.body = content{data: b}
		in.Body, in.ContentLength = &r.body, int64(len(b))
		if in.Has(message.ContentLength) {
			in.Set(message.ContentLength, fmt.Append(nil, len(b)))
		}
	} else {
		in.Del(message.ContentLength)
	}
	in.Del(message.Expect)
	r.conn = message.Conn{Listener: q.Listener, Peer: netip.AddrPortFrom(client, 0), Client: client}
	if q.Secure {
		r.tls = message.TLS{ServerName: q.ServerName}
		r.conn.TLS = &r.tls
	}
	in.Conn = &r.conn
	return &edge.Asked{ID: id, Request: in, Client: client, Trusted: q.Trusted}, nil
}

// maxFields bounds the fields of a request.
const maxFields = 1000

// plainField says whether a field could have come over HTTP.
func plainField(f record.Field) bool {
	return f[0] != "" && !strings.ContainsAny(f[0], " \t\r\n:\x00") && !strings.ContainsAny(f[1], "\r\n\x00")
}

// replayable is the body that is replayed: of one that was cut only what can be understood without its end.
func replayable(q *record.Request) []byte {
	if q.Body == nil || !q.Body.Cut {
		return q.Body.Bytes()
	}
	for _, f := range q.Fields {
		if strings.EqualFold(f[0], "content-type") && strings.HasPrefix(strings.ToLower(f[1]), "application/x-www-form-urlencoded") {
			return q.Body.Bytes()
		}
	}
	return nil
}

func protoOf(s string) message.Proto {
	for p := message.HTTP10; p <= message.HTTP3; p++ {
		if p.String() == s {
			return p
		}
	}
	return message.HTTP11
}

// take notes what became of a request.
func (res *Result) take(x *stage.Exchange, resp *message.Response) {
	if x.Site != nil {
		res.Site = string(x.Site.Key)
	}
	if x.Route != nil {
		res.Route = x.Route.Name
	}
	res.Status = resp.Status
	if e := x.Failure; e != nil {
		res.Code, res.Side = e.Code, e.Side.String()
	}
	for _, m := range x.Trail.Marks() {
		switch m.Stage {
		case "access":
			res.Access = m.Code
		case "visitor":
			res.Visitor = join(res.Visitor, m.Code)
		case "maintenance":
			res.Maintenance = m.Code
		case "ratelimit":
			if res.Limit == "" || m.Code != "pass" {
				res.Limit = m.Code
			}
		case "waf":
			res.WAF, res.Detail = m.Code, m.Detail
		}
	}
	res.Verdict = x.Verdict
	res.Cache, res.Pool, res.Tier, res.Origin = x.CacheStatus, x.Pool, x.Tier, x.Origin
	res.Tries, res.Spill, res.Full = x.Tries, x.Spill, x.Full
	res.cacheStatus(resp)
	res.AnswerFields = lines(&resp.Fields, answerVolatile)
}

func join(a, b string) string {
	if a == "" || b == "" {
		return a + b
	}
	return a + " " + b
}

// cacheStatus reads our member of Cache-Status (RFC 9211), which is the last.
func (res *Result) cacheStatus(resp *message.Response) {
	v := ""
	for i := range resp.Len() {
		if _, name, value := resp.At(i); message.EqualFold(name, "cache-status") {
			v = string(value)
		}
	}
	for p := range strings.SplitSeq(v[strings.LastIndex(v, ",")+1:], ";") {
		name, value, _ := strings.Cut(strings.TrimSpace(p), "=")
		switch name {
		case "fwd":
			res.Forward = value
		case "stored":
			res.Stored = true
		case "ttl":
			_, _ = fmt.Sscanf(value, "%d", &res.TTL)
		case "detail":
			res.Forward = join(res.Forward, value)
		}
	}
}
