package apiguard

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"sync"
	"time"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/edge/hold"
	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/observe"
	"github.com/relais-edge/relais/internal/openapi"
	"github.com/relais-edge/relais/internal/snapshot"
	"github.com/relais-edge/relais/internal/stage"
)

// maxSeries bounds the series of the stage's counter.
const maxSeries = 100_000

// Config is what does not depend on a site. Zero fields have defaults.
type Config struct {
	Slot stage.Slot
	// BodyMemory bounds the bytes of all bodies in memory; 0 means 128 MiB.
	BodyMemory int64
	// Report is told what of a document is not held against requests; nil for nobody.
	Report func(msg string, args ...any)
}

// The errors of the stage.
var (
	errInvalid    = &stage.Error{Code: "http_request_denied", Side: stage.SideTenant, Status: 400, Err: errors.New("the request differs from the OpenAPI document")}
	errCoding     = codingError()
	errMedia      = &stage.Error{Code: "http_request_denied", Side: stage.SideTenant, Status: 415, Err: errors.New("the OpenAPI document does not list the body's media type")}
	errTooLarge   = &stage.Error{Code: "http_request_denied", Side: stage.SideTenant, Status: 413, Err: errors.New("the body is longer than the ApiPolicy's bodyBytes")}
	errUnknown    = &stage.Error{Code: "http_request_denied", Side: stage.SideTenant, Status: 404, Err: errors.New("the endpoint is not in the OpenAPI document")}
	errNoMethod   = errors.New("the OpenAPI document does not list the method for this path")
	errOverloaded = &stage.Error{Code: "api_overloaded", Side: stage.SideEdge, Status: 503, RetryAfter: time.Second, Err: errors.New("no memory for another body")}
)

// Stage is the apiguard stage.
type Stage struct {
	cfg      Config
	counter  *observe.Family[observe.Counter]
	bodies   *hold.Bodies
	checkers sync.Pool

	mu     sync.Mutex
	tables map[string]*table // by site and policy; of sites that were asked for
}

// New returns the stage. Its metric is relais_api_requests_total by site and outcome: pass, unknown (passed),
// would-deny, basket (would have been refused but for its basket), deny, oversize (passed unchecked), overloaded.
func New(cfg Config, r *observe.Registry) *Stage {
	if cfg.BodyMemory <= 0 {
		cfg.BodyMemory = 128 << 20
	}
	if cfg.Report == nil {
		cfg.Report = func(string, ...any) {}
	}
	return &Stage{
		cfg: cfg,
		counter: r.Counters("relais_api_requests_total",
			"Requests under an ApiPolicy, by what became of them.", maxSeries, "site", "outcome"),
		bodies: hold.New(cfg.BodyMemory, r.Counters("relais_api_bodies_refused_total",
			"Bodies that were not kept whole, since all memory for them was used (memory), or an organization had its part of it (part).", 2, "why")),
		tables: map[string]*table{},
	}
}

// Name implements stage.Stage.
func (s *Stage) Name() string { return "api" }

// part is what the stage made of a site: the policy of each route, nil where there is none.
type part struct {
	routes  []*policy
	named   map[string]*policy
	metrics [len(outcomes)]observe.Counter
	bodies  *hold.Account
}

// policy is a compiled ApiPolicy. It does not change, but for its table.
type policy struct {
	name      string
	spec      *v1.ApiPolicySpec
	gate      stage.Gate
	api       *openapi.API // nil without a document
	table     *table       // nil without discovery
	rows      []*row       // of the operations
	bodyBytes int
	reject    bool
	spare     bool // baskets pass
	unknown   string
}

const (
	pass = iota
	unknown
	wouldDeny
	basket
	deny
	oversize
	overloaded
)

var outcomes = [...]string{"pass", "unknown", "would-deny", "basket", "deny", "oversize", "overloaded"}

// Compile implements stage.Compiler. A policy that did not change is taken from old.
func (s *Stage) Compile(site *snapshot.Site, old stage.Part) (stage.Part, error) {
	before, _ := old.(*part)
	organization, _ := site.Key.Split()
	now := &part{bodies: s.bodies.Account(organization)}
	var err error
	now.routes, now.named, err = stage.Policies(site, v1.KindApiPolicy, func(r *v1.Route) string { return r.API }, site.Spec.API,
		func(name string, spec *v1.ApiPolicySpec) (*policy, error) {
			if before != nil && before.named[name] != nil && reflect.DeepEqual(before.named[name].spec, spec) {
				return before.named[name], nil
			}
			return s.compile(string(site.Key), name, spec)
		})
	if err != nil {
		return nil, fmt.Errorf("api: %w", err)
	}
	s.keep(string(site.Key), now)
	used := len(now.named) > 0
	stage.Series(s.counter, site, outcomes[:], now.metrics[:], used, before != nil)
	if !used {
		return nil, nil
	}
	return now, nil
}

func (s *Stage) compile(site, name string, spec *v1.ApiPolicySpec) (*policy, error) {
	p := &policy{
		name: name, spec: spec, gate: stage.NewGate(v1.Protection{Mode: spec.Mode, Expires: spec.Expires}),
		bodyBytes: int(v1.Value(spec.BodyBytes)), reject: spec.Oversize == "reject", spare: spec.Baskets != "refuse",
		unknown: spec.Unknown,
	}
	if spec.Document != nil {
		var err error
		if p.api, err = openapi.Compile([]byte(spec.Document.Inline), spec.BasePath); err != nil {
			return nil, err
		}
		if len(p.api.Unchecked) > 0 {
			s.cfg.Report("parts of an OpenAPI document are not held against requests", "site", site, "policy", name, "parts", p.api.Unchecked)
		}
	}
	if spec.Discovery != "off" {
		p.table = s.table(site, name)
		p.rows = p.table.documented(p.api)
	}
	return p, nil
}

// Serve implements stage.Stage.
func (s *Stage) Serve(ctx context.Context, x *stage.Exchange, next stage.Handler) (*message.Response, error) {
	pt, _ := x.Site.Parts[s.cfg.Slot].(*part)
	if pt == nil {
		return next.Serve(ctx, x)
	}
	p := pt.routes[x.Route.Index]
	if p == nil {
		return next.Serve(ctx, x)
	}
	mode := p.gate.Mode(x)
	if mode == v1.ModeOff {
		return next.Serve(ctx, x)
	}
	found, err := s.judge(ctx, pt, p, x, mode)
	var resp *message.Response
	if err == nil {
		resp, err = next.Serve(ctx, x)
	}
	if p.table != nil {
		status := 0
		if err != nil {
			status = stage.AsError(err).Status
		} else {
			status = resp.Status
		}
		now := x.Now().Unix()
		if op := found.op; op != nil && p.rows != nil && op.Method == string(x.In.MethodName()) {
			p.rows[op.Index].count(status, now)
		} else {
			p.table.count(x.In.MethodName(), x.Path, found.template, hit{status, now})
		}
	}
	return resp, err
}

// work is the memory for one request.
type work struct {
	openapi.Checker
	match openapi.Match
}

func (s *Stage) checker() *work {
	if w, ok := s.checkers.Get().(*work); ok {
		return w
	}
	return &work{}
}

// release gives the memory back. Nobody holds it while a body is awaited, so that there is as much of it as requests
// are checked at once.
func (s *Stage) release(w *work) {
	w.Trim()
	s.checkers.Put(w)
}

// endpoint is what a request was found to ask for.
type endpoint struct {
	op              *openapi.Operation // nil when the document has none
	template, allow string             // of the path; the methods only where the document lacks this one
}

// head finds the endpoint and holds what stands before the body against it.
func (s *Stage) head(p *policy, x *stage.Exchange) (e endpoint, v *openapi.Violation) {
	c := s.checker()
	p.api.Find(methodOf(x.In), x.Path, &c.match)
	if m := x.Merged(); m != nil && c.match.Operation == nil && p.unknown != "refuse" {
		p.api.Find(methodOf(x.In), m, &c.match) // more slashes do not shed what the document asks
	}
	e = endpoint{c.match.Operation, c.match.Template, c.match.Allow}
	if e.op != nil {
		e.template = e.op.Template
		v = c.Head(&c.match, x.In)
	}
	s.release(c)
	return e, v
}

// judge holds the request against the document. An error refuses it, or is its body's own.
func (s *Stage) judge(ctx context.Context, pt *part, p *policy, x *stage.Exchange, mode v1.Mode) (endpoint, error) {
	if p.api == nil {
		return endpoint{}, nil
	}
	e, v := s.head(p, x)
	if e.op == nil {
		return e, s.stranger(pt, p, x, e, mode)
	}
	if v != nil {
		return e, s.refuse(pt, p, x, mode, e.op, v)
	}
	if p.bodyBytes > 0 && !tunnel(x.In) {
		wants, v := e.op.WantsBody(x.In)
		if v != nil {
			return e, s.refuse(pt, p, x, mode, e.op, v)
		}
		if wants {
			if done, err := s.body(ctx, pt, p, x, e.op, mode); done {
				return e, err
			}
		}
	}
	pt.metrics[pass].Inc()
	x.MarkDetail("api", "pass", e.template)
	return e, nil
}

// methodOf names the method without making a text of it where it is known.
func methodOf(in *message.Request) string {
	if in.Method != message.MethodOther {
		return in.Method.String()
	}
	return string(in.MethodName())
}

// tunnel says whether both sides talk at once, so that a body cannot be held. A request with Upgrade has none.
func tunnel(in *message.Request) bool {
	return in.Method == message.CONNECT || message.IsGRPC(&in.Fields) && in.Proto >= message.HTTP2
}

// body holds the body against its schema. Done says that the request was judged.
func (s *Stage) body(ctx context.Context, pt *part, p *policy, x *stage.Exchange, op *openapi.Operation, mode v1.Mode) (done bool, err error) {
	protected := x.Visitor.Class == stage.Protected
	long := func() (bool, error) {
		if !p.reject {
			pt.metrics[oversize].Inc()
			x.MarkDetail("api", "oversize", "the body is longer than bodyBytes and passes unchecked; raise bodyBytes to check it")
			return true, nil
		}
		return true, s.refuse(pt, p, x, mode, op, &openapi.Violation{Part: "body", What: "is longer than bodyBytes", Status: 413})
	}
	if x.In.ContentLength > int64(p.bodyBytes) {
		return long()
	}
	x.MayBlock()
	r, err := pt.bodies.Read(ctx, x.In.Body, p.bodyBytes, protected)
	if r == nil {
		return true, err
	}
	x.In.Body = r
	x.OnEnd(r)
	x.Lap()
	if err != nil { // no memory
		pt.metrics[overloaded].Inc()
		if mode == v1.ModeShadow {
			x.MarkDetail("api", "overloaded", err.Error()+"; the body passes unchecked")
			return true, nil
		}
		x.MarkDetail("api", "overloaded", err.Error())
		return true, errOverloaded
	}
	text, whole := r.Held()
	if !whole {
		return long()
	}
	c := s.checker()
	v := c.Body(op, x.In.Get(message.ContentType), text)
	s.release(c)
	if len(text) > 4<<10 {
		x.Lap()
	}
	if v != nil {
		return true, s.refuse(pt, p, x, mode, op, v)
	}
	return false, nil
}

// stranger judges a request for an endpoint that is not in the document. OPTIONS on a path that is there is how a
// browser asks for leave (CORS), whoever answers.
func (s *Stage) stranger(pt *part, p *policy, x *stage.Exchange, e endpoint, mode v1.Mode) error {
	if p.unknown == "pass" || e.template != "" && x.In.Method == message.OPTIONS {
		pt.metrics[unknown].Inc()
		x.Mark("api", "unknown")
		return nil
	}
	v := &openapi.Violation{Part: "path", What: "is not in the document", Status: 404}
	if e.template != "" {
		v = &openapi.Violation{Part: "method", What: "is not in the document for " + e.template, Status: 405}
	}
	if p.unknown != "refuse" {
		pt.metrics[unknown].Inc()
		x.MarkDetail("api", "unknown", "ApiPolicy "+p.name+": "+v.String()+"; relais api endpoints lists what is in use")
		return nil
	}
	err := s.refuse(pt, p, x, mode, nil, v)
	if err != nil && v.Status == 405 { // RFC 9110 section 15.5.6
		allow := &message.Fields{}
		allow.AddLine([]byte("Allow"), []byte(e.allow))
		err = &stage.Error{Code: "http_request_denied", Side: stage.SideTenant, Status: 405, Fields: allow, Err: errNoMethod}
	}
	return err
}

// refuse says what becomes of a request that differs from the document.
func (s *Stage) refuse(pt *part, p *policy, x *stage.Exchange, mode v1.Mode, op *openapi.Operation, v *openapi.Violation) error {
	where := ""
	if op != nil {
		where = op.Method + " " + op.Template + ": "
	}
	outcome, mend := deny, "; the client must send what the document says, or the document must allow it"
	switch {
	case mode == v1.ModeShadow:
		outcome = wouldDeny
	case p.spare && x.Visitor.Class == stage.Protected:
		outcome, mend = basket, "; it passes, as the visitor has a basket (baskets: refuse would refuse it)"
		x.Noted = true
	}
	pt.metrics[outcome].Inc()
	x.MarkDetail("api", outcomes[outcome], openapi.Shorten("ApiPolicy "+p.name+": "+where+v.String())+mend)
	if outcome != deny {
		return nil
	}
	switch v.Status {
	case 404, 405:
		return errUnknown
	case 413:
		return errTooLarge
	case 415:
		if v.Name == "Content-Encoding" {
			return errCoding
		}
		return errMedia
	}
	return errInvalid
}

// codingError says that bodies are taken as they are (RFC 9110 section 12.5.3).
func codingError() *stage.Error {
	f := &message.Fields{}
	f.AddLine([]byte("Accept-Encoding"), []byte("identity"))
	return &stage.Error{Code: "http_request_denied", Side: stage.SideTenant, Status: 415, Fields: f, Err: errors.New("the body is encoded, which the OpenAPI document does not list")}
}
