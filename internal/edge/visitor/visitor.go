package visitor

import (
	"context"
	"errors"
	"time"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/edge/budget"
	"github.com/relais-edge/relais/internal/edge/cookie"
	"github.com/relais-edge/relais/internal/edge/seal"
	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/observe"
	"github.com/relais-edge/relais/internal/stage"
)

// Secrets keeps secrets that the edge makes for itself; seal.Dir does.
type Secrets interface {
	// Secrets returns the secrets of that name, at least 16 bytes each, of which the first signs.
	Secrets(name string) ([][]byte, error)
}

// Config is what does not depend on a site. Its zero value is that of an edge.
type Config struct {
	// Clock tells the time at which the stage begins; time.Now by default.
	Clock func() time.Time
	// Presume says who a visitor was that brings a token of ours, in a stage that serves recorded requests:
	// they do not hold the token. Nil otherwise.
	Presume func(x *stage.Exchange) stage.Visitor
}

// Stage is the visitor stage.
type Stage struct {
	slot    stage.Slot
	secrets Secrets
	counter *observe.Family[observe.Counter]
	mint    *budget.Table
	orders  *budget.Table // tokens whose order has given credit
	uses    *uses
	clock   *seal.Clock
	bodies  bodies
	presume func(*stage.Exchange) stage.Visitor
}

const (
	// maxSeries bounds the series of the stage's counter: one for each outcome of a site.
	maxSeries = 100_000
	// mintSets is the size of the table of sources: 416 KiB.
	mintSets = 1 << 12
	// orderSets is the size of the table of orders: 416 KiB.
	orderSets = 1 << 12
	// maxCredit is how many baskets a source may have in store from its orders.
	maxCredit = 5000
)

// New returns the stage. Secrets may be nil; then every document must give its secret. Its
// metric is relais_visitor_total by site and outcome.
func New(slot stage.Slot, cfg Config, secrets Secrets, r *observe.Registry) *Stage {
	if cfg.Clock == nil {
		cfg.Clock = time.Now
	}
	return &Stage{
		slot:    slot,
		secrets: secrets,
		counter: r.Counters("relais_visitor_total",
			"Visitor tokens that were read and written, by what became of them.", maxSeries, "site", "outcome"),
		mint: budget.NewAt(mintSets, cfg.Clock()), orders: budget.NewAt(orderSets, cfg.Clock()), uses: newUses(), clock: seal.NewClock(nil),
		bodies: bodies{limit: bodyMemory}, presume: cfg.Presume,
	}
}

// Name implements stage.Stage.
func (s *Stage) Name() string { return "visitor" }

// What is counted.
const (
	readProtected = iota
	readKnown
	invalid
	expired
	shared
	callbackSeen
	callbackBad
	protect
	confirm
	capped
	renew
	move
	end
	withheld
	unproven
)

var outcomes = [...]string{
	"protected", "known", "invalid", "expired", "shared", "callback", "callback-bad",
	"protect", "confirm", "capped", "renew", "move", "end", "withheld", "unproven",
}

// What a token that comes from elsewhere than where it was given adds to the score: a telephone changes its
// network every minute, and a browser its name with each update.
const (
	scoreMoved  = 5
	scoreClient = 20
	scoreShared = 60
)

// local is the memory of the stage in an exchange.
type local struct{ buf []byte }

func (s *Stage) memory(x *stage.Exchange) *local {
	m, _ := x.Local[s.slot].(*local)
	if m == nil {
		m = &local{}
		x.Local[s.slot] = m
	}
	return m
}

// Serve implements stage.Stage.
func (s *Stage) Serve(ctx context.Context, x *stage.Exchange, next stage.Handler) (*message.Response, error) {
	x.Visitor = stranger(x)
	pt, _ := x.Site.Parts[s.slot].(*part)
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
	step := p.step(x)
	if mode == v1.ModeShadow {
		return p.shadow(ctx, x, next, step)
	}
	for i := range p.callbacks {
		if c := &p.callbacks[i]; c.scope.Holds(x) {
			if done, err := s.callback(ctx, x, pt, c); err != nil {
				return nil, err
			} else if done {
				return next.Serve(ctx, x)
			}
		}
	}
	var in token
	asked := false
	if s.presume != nil {
		in, asked = s.recorded(x, p)
	} else if in, asked = p.read(x, s.clock.Expiry(x.Start), &pt.metrics); in.id != 0 {
		s.know(x, pt, p, &in)
	}
	x.Visitor.Step = step
	r, err := next.Serve(ctx, x)
	if r != nil {
		s.answer(x, answer{pt: pt, p: p, t: in, r: r, step: step, asked: asked})
	}
	return r, err
}

// recorded makes the visitor of x, which is replayed, whom its record says, if it brings a token of ours. What the
// record does not say of the token is what changes least: it is new, and its basket is of the pool that is asked.
func (s *Stage) recorded(x *stage.Exchange, p *policy) (t token, asked bool) {
	asked = p.header != "" && x.In.Lookup(p.header) != nil
	if c := cookie.Read(&x.In.Fields, p.cookie); !asked && c.Next() == nil {
		return token{}, false
	}
	v := s.presume(x)
	if v.Class == stage.Anonymous {
		return token{}, asked
	}
	now := uint32(x.Start.Unix())
	t = token{class: v.Class, id: max(v.Key, 1), tier: hashName(v.Tier), issued: now, expires: now + uint32(p.lifetime)}
	if t.class == stage.Protected {
		t.reached = stage.StepBasket
	}
	p.admit(x, &t)
	x.Mark("visitor", t.class.String())
	return t, asked
}

// admit makes the visitor of x whom a token says.
func (p *policy) admit(x *stage.Exchange, t *token) {
	x.Visitor.Class, x.Visitor.Key, x.Visitor.Tier = t.class, t.id, p.tierName(t.tier)
	x.Visitor.Reached, x.Visitor.Confirmed = t.reached, t.confirmed
}

// shadow says what would have been.
func (p *policy) shadow(ctx context.Context, x *stage.Exchange, next stage.Handler, step stage.Step) (*message.Response, error) {
	r, err := next.Serve(ctx, x)
	if step != stage.StepBrowse && success(r) {
		code := "would-protect"
		if step == stage.StepOrder {
			code = "would-end"
		}
		x.Mark("visitor", code)
	}
	return r, err
}

// know makes the visitor of x whom its token says, as far as the token is used as one person uses it. Who comes
// from another network or with another program keeps the basket's protection; it is only scored.
func (s *Stage) know(x *stage.Exchange, pt *part, p *policy, t *token) {
	p.admit(x, t)
	network := networkOf(x, t.id)
	if network != t.network {
		x.Visitor.Score += scoreMoved
		x.MarkDetail("visitor", "moved", "the token was given to another network: score 5")
	}
	if clientOf(x, t.id) != t.client {
		x.Visitor.Score += scoreClient
		x.MarkDetail("visitor", "other-client", "the token was given to another User-Agent: score 20")
	}
	if t.class == stage.Protected {
		if many, fast := s.uses.look(t.id, network, x.Start); many || fast {
			x.Visitor.Class = stage.Known
			x.Visitor.Score += scoreShared
			pt.metrics[shared].Inc()
			if many {
				x.MarkDetail("visitor", "shared", "the token is used from some 30 networks within ten minutes: score 60, no protection")
			} else {
				x.MarkDetail("visitor", "shared", "the token is used for more than 50 requests a second: score 60, no protection")
			}
			return
		}
	}
	x.Mark("visitor", t.class.String())
}

// read finds a token that verifies; none has the id 0. Asked says that the visitor wants a field and no cookie.
func (p *policy) read(x *stage.Exchange, now int64, metrics *[len(outcomes)]observe.Counter) (t token, asked bool) {
	f := &x.In.Fields
	if v := f.Lookup(p.header); p.header != "" && v != nil {
		if len(v) == textLen && p.verify(&t, v, now, metrics) {
			return t, true
		}
		asked = true
	}
	c := cookie.Read(f, p.cookie)
	for v := c.Next(); v != nil; v = c.Next() {
		if p.verify(&t, v, now, metrics) {
			return t, asked
		}
	}
	return token{}, asked
}

// verify reads one token and counts it.
func (p *policy) verify(t *token, text []byte, now int64, metrics *[len(outcomes)]observe.Counter) bool {
	var err error
	*t, err = p.codec.parse(text, now)
	switch {
	case err == nil && t.class == stage.Protected:
		metrics[readProtected].Inc()
	case err == nil:
		metrics[readKnown].Inc()
	case errors.Is(err, errExpired):
		metrics[expired].Inc()
	default:
		metrics[invalid].Inc()
	}
	return err == nil
}

// write adds the Set-Cookie line (RFC 6265 section 4.1), or the field for programs.
func (s *Stage) write(x *stage.Exchange, a *answer, maxAge int64) {
	m, p := s.memory(x), a.p
	m.buf = p.codec.append(m.buf[:0], &a.t)
	f := &a.r.Fields
	if a.asked {
		f.SetLine(p.header, m.buf)
		return
	}
	cookie.Set(f, p.cookie, m.buf, maxAge, x.In.Secure)
}

// Strip removes the tokens of x's site that this stage writes from the fields f of a request.
// What sends a request to an origin calls it on x.Out, which was copied from x.In.
func (s *Stage) Strip(x *stage.Exchange, f *message.Fields) {
	pt, _ := x.Site.Parts[s.slot].(*part)
	if pt == nil {
		return
	}
	for _, h := range pt.headers {
		f.DelLine(h)
	}
	if f.Has(message.Cookie) {
		m := s.memory(x)
		m.buf = cookie.Strip(m.buf, f, pt.names)
	}
}
