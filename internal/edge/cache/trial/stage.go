package trial

import (
	"bytes"
	"cmp"
	"context"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/observe"
	"github.com/relais-edge/relais/internal/snapshot"
	"github.com/relais-edge/relais/internal/stage"
)

// Config of a Stage. The zero value of a field but Slot means its default.
type Config struct {
	// Slot is the stage's place in sites and exchanges.
	Slot stage.Slot
	// Queue is how many pages wait at most to be compared, 32 by default.
	Queue int
	// Workers is how many are compared at once, 2 by default.
	Workers int
	// MaxBody is the largest page, 512 KiB by default.
	MaxBody int
	// Timeout is the time for one request, 15 s by default.
	Timeout time.Duration
	// NewID names a request.
	NewID func() stage.RequestID
}

// Field marks a request of the trial.
const Field = "Relais-Trial"

// mostFetches is how many requests one page may cost.
const mostFetches = 5

// Stage takes samples of pages on their way from the origin. It implements stage.Stage and stage.Compiler, and
// stands below what compresses.
type Stage struct {
	cfg   Config
	send  stage.Handler
	queue chan *sample

	mu    sync.Mutex
	sites map[string]*siteState

	compared, skipped, fetched, untried observe.Counter
}

var (
	_ stage.Stage    = (*Stage)(nil)
	_ stage.Compiler = (*Stage)(nil)
)

// siteState outlives changes of its site.
type siteState struct {
	*evidence
	mu   sync.Mutex
	next time.Time // when the rate allows the next sample
}

// maxSites bounds the sites with a trial.
const maxSites = 1024

// New returns a stage that asks with send. It starts nothing; Run asks.
func New(cfg Config, send stage.Handler, m *observe.Registry) *Stage {
	cfg.Queue = cmp.Or(cfg.Queue, 32)
	cfg.Workers = cmp.Or(cfg.Workers, 2)
	cfg.MaxBody = cmp.Or(cfg.MaxBody, 512<<10)
	cfg.Timeout = cmp.Or(cfg.Timeout, 15*time.Second)
	if cfg.NewID == nil {
		cfg.NewID = func() stage.RequestID { return stage.RequestID{} }
	}
	f := m.Counters("relais_cache_trial_total", "Pages of the trial of what could be cached, and requests for it; sites that are not tried, as too many are.", 4, "event")
	return &Stage{
		cfg: cfg, send: send, queue: make(chan *sample, cfg.Queue), sites: map[string]*siteState{},
		compared: f.With("compared"), skipped: f.With("skipped"), fetched: f.With("fetched"), untried: f.With("site_untried"),
	}
}

// Name implements stage.Stage.
func (s *Stage) Name() string { return "trial" }

// rule is a v1.CacheTrial as it runs.
type rule struct {
	share   float64
	rate    int
	keep    []string
	exclude []stage.Scope
	site    *siteState
}

type part struct{ routes []*rule }

// Compile implements stage.Compiler.
func (s *Stage) Compile(site *snapshot.Site, _ stage.Part) (stage.Part, error) {
	p, some := &part{make([]*rule, len(site.Routes))}, false
	for i := range site.Routes {
		spec := site.Spec.Caches[site.Routes[i].Spec.Cache]
		if spec == nil || spec.Trial == nil {
			continue
		}
		st := s.site(string(site.Key))
		if st == nil {
			s.untried.Inc()
			break
		}
		p.routes[i], some = newRule(spec.Trial, st), true
	}
	if !some {
		return nil, nil
	}
	return p, nil
}

func newRule(t *v1.CacheTrial, st *siteState) *rule {
	r := &rule{share: 0.01, rate: max(t.Rate, 1), keep: t.Keep, site: st}
	if t.Percent != nil {
		r.share = t.Percent.Fraction()
	}
	for _, p := range t.Exclude {
		r.exclude = append(r.exclude, stage.NewScope(p, nil))
	}
	return r
}

func (s *Stage) site(key string) *siteState {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.sites[key]
	if st == nil && len(s.sites) < maxSites {
		st = &siteState{evidence: newEvidence()}
		s.sites[key] = st
	}
	return st
}

// Report tells what was found for a site; false when it has no trial.
func (s *Stage) Report(site string) (Report, bool) {
	s.mu.Lock()
	st := s.sites[site]
	s.mu.Unlock()
	if st == nil {
		return Report{}, false
	}
	return st.report(site), true
}

// Serve implements stage.Stage.
func (s *Stage) Serve(ctx context.Context, x *stage.Exchange, next stage.Handler) (*message.Response, error) {
	p, _ := x.Site.Parts[s.cfg.Slot].(*part)
	if p == nil || p.routes[x.Route.Index] == nil || !p.routes[x.Route.Index].takes(x) {
		return next.Serve(ctx, x)
	}
	r := p.routes[x.Route.Index]
	c := s.begin(x, r)
	x.Out.Del(message.AcceptEncoding) // so that pages can be compared; what goes to the visitor is compressed here
	resp, err := next.Serve(ctx, x)
	if err != nil || c == nil {
		return resp, err
	}
	switch {
	case resp.Status != 200, !bytes.HasPrefix(bytes.ToLower(resp.Get(message.ContentType)), []byte("text/html")), resp.Has(message.ContentEncoding):
		return resp, nil
	case resp.ContentLength > int64(s.cfg.MaxBody):
		r.site.skip("too large")
		return resp, nil
	}
	x.OnEnd(c)
	x.Mark("trial", "sampled")
	if resp.Body == nil {
		c.body, c.whole = append(c.body, resp.Bytes...), true
		return resp, nil
	}
	c.inner, resp.Body = resp.Body, c
	return resp, nil
}

// takes says whether a request is one to compare.
func (r *rule) takes(x *stage.Exchange) bool {
	out := &x.Out
	if out.Method != message.GET || out.Body != nil || x.Visitor.Background || x.Replayed() || x.Visitor.Class == stage.Protected || x.Visitor.Step != stage.StepBrowse ||
		!strings.Contains(string(out.Get(message.Accept)), "text/html") || rand.Float64() >= r.share {
		return false
	}
	for _, id := range [...]message.ID{message.Authorization, message.Range, message.IfNoneMatch, message.IfModifiedSince, message.Upgrade} {
		if out.Has(id) {
			return false
		}
	}
	for i := range r.exclude {
		if r.exclude[i].Holds(x) {
			return false
		}
	}
	return !isAction(x.Path, out.Query()) && r.site.allowed(r.rate, time.Now())
}

// allowed takes the time of a whole comparison from the site's rate.
func (st *siteState) allowed(rate int, now time.Time) bool {
	st.mu.Lock()
	defer st.mu.Unlock()
	if now.Before(st.next) {
		return false
	}
	st.next = now.Add(mostFetches * time.Second / time.Duration(rate))
	return true
}

// sample is a page on its way, and then what is to be compared. It implements message.Body and message.Ender.
type sample struct {
	s     *Stage
	rule  *rule
	x     stage.Exchange // a copy of the request as it was sent
	id    string         // of the visitor's request
	paths string
	all   []cookie
	inner message.Body
	body  []byte
	whole bool
	large bool
}

// begin notes the request as it is sent; nil when it cannot be compared.
func (s *Stage) begin(x *stage.Exchange, r *rule) *sample {
	all, ok := cookiesOf(&x.Out.Fields)
	if !ok {
		r.site.skip("too many cookies")
		return nil
	}
	c := &sample{s: s, rule: r, id: x.ID.String(), paths: groupOf(x.Path), all: all}
	x.ForkInto(&c.x)
	c.x.Visitor = stage.Visitor{Background: true}
	c.x.Pool = x.Pool
	c.x.Out.CopyFrom(&x.Out)
	out := &c.x.Out
	out.Body, out.Trailer, out.Control = nil, nil, nil
	out.Del(message.Cookie)
	out.Del(message.AcceptEncoding)
	out.SetLine(Field, []byte("1"))
	return c
}

// Next implements message.Body.
func (c *sample) Next(ctx context.Context) ([]byte, error) {
	if c.inner == nil {
		return nil, io.ErrUnexpectedEOF
	}
	b, err := c.inner.Next(ctx)
	if !c.large && len(c.body)+len(b) <= c.s.cfg.MaxBody {
		c.body = append(c.body, b...)
	} else {
		c.large, c.body = true, nil
	}
	c.whole = c.whole || err == io.EOF
	return b, err
}

// Ready implements message.Prompt.
func (c *sample) Ready() bool {
	p, ok := c.inner.(message.Prompt)
	return ok && p.Ready()
}

// Close implements message.Body.
func (c *sample) Close(cause error) {
	if c.inner != nil {
		c.inner.Close(cause)
		c.inner = nil
	}
}

// End implements message.Ender: the visitor is served, now the page may be compared.
func (c *sample) End(message.Outcome) {
	switch {
	case c.large:
		c.rule.site.skip("too large")
	case !c.whole:
		c.rule.site.skip("not whole")
	default:
		select {
		case c.s.queue <- c:
			return
		default:
			c.rule.site.skip("too many wait")
		}
	}
	c.s.skipped.Inc()
}
