package visitor

import (
	"context"
	"errors"
	"math/rand/v2"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/observe"
	"github.com/relais-edge/relais/internal/stage"
)

// DefaultMintPerMinute is how many new protected cookies a source gets where a Config says
// nothing.
const DefaultMintPerMinute = 600

// Config is what does not depend on a site.
type Config struct {
	// MintPerMinute bounds the new protected cookies of a source for each site; 0 means
	// DefaultMintPerMinute, a negative number no bound.
	MintPerMinute int
}

// Stage is the visitor stage.
type Stage struct {
	slot    stage.Slot
	secrets Secrets
	counter *observe.Family[observe.Counter]
	mint    *mint
}

// maxSeries bounds the series of the stage's counter: one for each outcome of a site.
const maxSeries = 100_000

// New returns the stage. Secrets may be nil; then every document must give its secret. Its
// metric is relais_visitor_total by site and outcome.
func New(slot stage.Slot, cfg Config, secrets Secrets, r *observe.Registry) *Stage {
	if cfg.MintPerMinute == 0 {
		cfg.MintPerMinute = DefaultMintPerMinute
	}
	return &Stage{
		slot:    slot,
		secrets: secrets,
		counter: r.Counters("relais_visitor_total",
			"Visitor cookies that were read and written, by what became of them.", maxSeries, "site", "outcome"),
		mint: newMint(cfg.MintPerMinute),
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
	protect
	capped
	renew
	move
	end
	withheld
)

var outcomes = [...]string{"protected", "known", "invalid", "expired", "protect", "capped", "renew", "move", "end", "withheld"}

// maxTries bounds how many cookies of our name in one request are verified: a page of a
// neighbouring host can set more of them.
const maxTries = 4

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
	x.Visitor = stage.Visitor{Key: sourceKey(x.Client)}
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
		r, err := next.Serve(ctx, x)
		if step != stepNone && success(r) {
			x.Mark("visitor", [...]string{stepBasket: "would-protect", stepOrdered: "would-end"}[step])
		}
		return r, err
	}
	t, found := p.read(x, &pt.metrics)
	if found {
		x.Visitor = stage.Visitor{Class: t.class, Key: t.id, Tier: p.tierName(t.tier)}
		x.Mark("visitor", t.class.String())
	}
	x.Visitor.Step = stage.Step(step)
	r, err := next.Serve(ctx, x)
	if r != nil && (found || step != stepNone) {
		s.answer(x, pt, p, &t, r, step)
	}
	return r, err
}

// read finds a cookie that verifies.
func (p *policy) read(x *stage.Exchange, metrics *[len(outcomes)]observe.Counter) (t token, found bool) {
	f := &x.In.Fields
	tries := 0
	for i := f.Next(message.Cookie, 0); i >= 0; i = f.Next(message.Cookie, i+1) {
		_, _, line := f.At(i)
		for tries < maxTries {
			var v []byte
			if v, line = nextCookie(line, p.cookie); v == nil {
				break
			}
			tries++
			t, err := p.codec.parse(v, x.Start.Unix())
			switch {
			case err == nil && t.class == stage.Protected:
				metrics[readProtected].Inc()
				return t, true
			case err == nil:
				metrics[readKnown].Inc()
				return t, true
			case errors.Is(err, errExpired):
				metrics[expired].Inc()
			default:
				metrics[invalid].Inc()
			}
		}
	}
	return token{}, false
}

func success(r *message.Response) bool { return r != nil && r.Status >= 200 && r.Status < 400 }

// answer decides what an answer changes in the visitor's cookie, and writes it.
func (s *Stage) answer(x *stage.Exchange, pt *part, p *policy, t *token, r *message.Response, step int) {
	now := x.Start.Unix()
	was := *t
	outcome := p.change(x, t, r, step, now)
	if outcome < 0 {
		return
	}
	if x.Tries == 0 || x.In.Method.Safe() && shareable(&r.Fields) {
		pt.metrics[withheld].Inc()
		return
	}
	if outcome == protect && !s.mint.take(pt.hash, x.Client, x.Start) {
		outcome = capped
		if was.class != stage.Anonymous { // the cookie it has is as good
			pt.metrics[capped].Inc()
			x.Mark("visitor", outcomes[capped])
			return
		}
		t.class = stage.Known
	}
	pt.metrics[outcome].Inc()
	x.Mark("visitor", outcomes[outcome])
	s.write(x, p, t, r, max(0, int64(t.expires)-now))
}

// change makes t what it is after the answer. It returns the outcome, or -1 when t stays.
func (p *policy) change(x *stage.Exchange, t *token, r *message.Response, step int, now int64) int {
	ok := success(r)
	tier, pool := hashName(x.Tier), hashName(x.Pool)
	protected := t.class == stage.Protected
	switch {
	case step == stepOrdered && ok && protected && !t.final:
		t.final, t.issued, t.expires = true, uint32(now), uint32(now+p.grace)
		return end
	case step == stepBasket && ok && (!protected || t.final):
		if t.id == 0 {
			t.id = rand.Uint64() | 1 // names a visitor; the signature is what protects it
		}
		*t = token{class: stage.Protected, issued: uint32(now), expires: uint32(now + p.lifetime), id: t.id, pool: pool, tier: tier}
		return protect
	case !protected:
		return -1
	}
	outcome := -1
	if tier != 0 && (tier != t.tier || pool != t.pool) && (pool == t.pool || step == stepBasket && ok) {
		t.tier, t.pool = tier, pool
		outcome = move
	}
	if half := int64(t.issued) + (int64(t.expires)-int64(t.issued))/2; !t.final && now >= half {
		t.issued, t.expires = uint32(now), uint32(now+p.lifetime)
		outcome = max(outcome, renew)
	}
	return outcome
}

// shareable says whether a cache in front of the edge may keep an answer to a safe request for
// other visitors (RFC 9111 sections 3 and 4.2.2), on the side of caution.
func shareable(f *message.Fields) bool {
	if !f.Has(message.CacheControl) {
		return f.Has(message.Expires) || f.Has(message.LastModified)
	}
	for i := f.Next(message.CacheControl, 0); i >= 0; i = f.Next(message.CacheControl, i+1) {
		_, _, v := f.At(i)
		if hasDirective(v, "private") || hasDirective(v, "no-store") {
			return false
		}
	}
	return true
}

// hasDirective finds a directive without argument in a Cache-Control line.
func hasDirective(line []byte, name string) bool {
	for len(line) > 0 {
		n := 0
		for n < len(line) && line[n] != ',' {
			n++
		}
		d := line[:n]
		for len(d) > 0 && (d[0] == ' ' || d[0] == '\t') {
			d = d[1:]
		}
		for len(d) > 0 && (d[len(d)-1] == ' ' || d[len(d)-1] == '\t') {
			d = d[:len(d)-1]
		}
		if message.EqualFold(d, name) {
			return true
		}
		line = line[min(n+1, len(line)):]
	}
	return false
}

// write adds the Set-Cookie line (RFC 6265 section 4.1).
func (s *Stage) write(x *stage.Exchange, p *policy, t *token, r *message.Response, maxAge int64) {
	m := s.memory(x)
	m.buf = p.codec.append(m.buf[:0], t)
	f := &r.Fields
	f.Begin(message.SetCookie)
	f.Append(p.cookie)
	f.Append("=")
	f.AppendBytes(m.buf)
	f.Append("; Path=/; Max-Age=")
	f.AppendInt(maxAge)
	f.Append("; HttpOnly; SameSite=Lax")
	if x.In.Secure {
		f.Append("; Secure")
	}
	f.End()
}

// Strip removes the cookies of x's site that this stage writes from the fields f of a request.
// What sends a request to an origin calls it on x.Out, which was copied from x.In. It makes one
// Cookie line of several where it removes something, as RFC 9113 section 8.2.3 allows.
func (s *Stage) Strip(x *stage.Exchange, f *message.Fields) {
	pt, _ := x.Site.Parts[s.slot].(*part)
	if pt == nil || !f.Has(message.Cookie) {
		return
	}
	m := s.memory(x)
	var found bool
	if m.buf, found = strip(m.buf[:0], f, pt.names); !found {
		return
	}
	if len(m.buf) == 0 {
		f.Del(message.Cookie)
		return
	}
	f.Set(message.Cookie, m.buf)
}
