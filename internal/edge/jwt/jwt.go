package jwt

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"reflect"
	"syscall"
	"time"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/bundle"
	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/observe"
	"github.com/relais-edge/relais/internal/snapshot"
	"github.com/relais-edge/relais/internal/stage"
)

// maxSeries bounds the series of the stage's counter.
const maxSeries = 60_000

// Control says whether a connection may be opened, as net.Dialer's ControlContext.
type Control = func(ctx context.Context, network, address string, c syscall.RawConn) error

// Config is what does not depend on a site. Zero fields have defaults.
type Config struct {
	Slot stage.Slot
	// Guard makes the rule by which addresses key sets may be fetched from, out of public and allow of a
	// document.
	Guard func(public bool, allow []string) (Control, error)
	// Tokens that are remembered; 0 means 16,384. Bytes of them; 0 means 32 MiB.
	Tokens int
	Bytes  int64
	// Recorded says that requests are recorded ones, whose tokens are hidden: one that is there counts as good, says nothing
	// of whom it names, and no keys are fetched.
	Recorded bool
	// Report is told when keys can no longer be fetched; nil for nobody.
	Report func(msg string, args ...any)
	// fetch stands in for the network in tests.
	fetch func(ctx context.Context, r *remote) ([]byte, error)
}

// Stage is the jwt stage.
type Stage struct {
	cfg      Config
	counter  *observe.Family[observe.Counter]
	checks   observe.Counter
	known    *memory
	refusals [len(reasons)]*stage.Error
	keys     *fetcher
}

// New returns the stage. Its metrics are relais_jwt_requests_total by site and outcome (pass, deny, would-deny,
// missing), relais_jwt_checks_total, the signatures that were checked, and relais_jwt_keys_fetches_total by result.
func New(cfg Config, r *observe.Registry) *Stage {
	if cfg.Tokens <= 0 {
		cfg.Tokens = 1 << 14
	}
	if cfg.Bytes <= 0 {
		cfg.Bytes = 32 << 20
	}
	if cfg.Report == nil {
		cfg.Report = func(string, ...any) {}
	}
	s := &Stage{
		cfg: cfg,
		counter: r.Counters("relais_jwt_requests_total",
			"Requests under a JwtPolicy, by what became of them.", maxSeries, "site", "outcome"),
		checks: r.Counters("relais_jwt_checks_total", "Tokens whose signature was checked.", 1).With(),
		known:  newMemory(cfg.Tokens, cfg.Bytes),
		keys: newFetcher(cfg, r.Counters("relais_jwt_keys_fetches_total",
			"Fetches of key sets, by result: good, unchanged or failed.", 4, "result")),
	}
	for i := range s.refusals {
		s.refusals[i] = reasons[i].refusal()
	}
	return s
}

// Name implements stage.Stage.
func (s *Stage) Name() string { return "jwt" }

// Run keeps key sets fresh until ctx ends.
func (s *Stage) Run(ctx context.Context) error { return s.keys.run(ctx) }

// Prepare begins to fetch the key sets that b names. Call it before b is served. A set that cannot be kept is told
// when its site is compiled, so that it is in the way of no other site.
func (s *Stage) Prepare(b *bundle.Bundle) {
	if s.cfg.Recorded {
		return
	}
	for org, k := range keySets(b) {
		_, _ = s.keys.of(org, k)
	}
}

// Sweep forgets the key sets that b does not name. Call it once b is served, or served again: who is served with a
// set that was forgotten would never see its new keys.
func (s *Stage) Sweep(b *bundle.Bundle) {
	keep := map[string]bool{}
	for org, k := range keySets(b) {
		keep[remoteID(org, k)] = true
	}
	s.keys.keep(keep)
}

// keySets are the key sets behind addresses that the policies in use of a bundle name, with their organizations.
func keySets(b *bundle.Bundle) iter.Seq2[string, *v1.JwtKeys] {
	return func(yield func(string, *v1.JwtKeys) bool) {
		for _, site := range b.Sites {
			org, _ := site.Key.Split()
			for _, spec := range site.JWT {
				for i := range spec.Issuers {
					k := spec.Issuers[i].JWKS
					if k != nil && k.URL != "" && spec.Mode != v1.ModeOff && !yield(org, k) {
						return
					}
				}
			}
		}
	}
}

// part is what the stage made of a site: the policy of each route, nil where there is none.
type part struct {
	routes  []*policy
	named   map[string]*policy
	metrics [len(outcomes)]observe.Counter
}

const (
	pass = iota
	deny
	wouldDeny
	missing
)

var outcomes = [...]string{"pass", "deny", "would-deny", "missing"}

// Compile implements stage.Compiler. A policy that did not change is taken from old, so that its tokens stay known.
func (s *Stage) Compile(site *snapshot.Site, old stage.Part) (stage.Part, error) {
	before, _ := old.(*part)
	now := &part{}
	var err error
	now.routes, now.named, err = stage.Policies(site, v1.KindJwtPolicy, func(r *v1.Route) string { return r.JWT }, site.Spec.JWT,
		func(name string, spec *v1.JwtPolicySpec) (*policy, error) {
			if before != nil && before.named[name] != nil && reflect.DeepEqual(before.named[name].spec, spec) {
				return before.named[name], nil
			}
			return compile(site.Key, name, spec, s.keys)
		})
	if err != nil {
		return nil, fmt.Errorf("jwt: %w", err)
	}
	used := len(now.named) > 0
	stage.Series(s.counter, site, outcomes[:], now.metrics[:], used, before != nil)
	if !used {
		return nil, nil
	}
	return now, nil
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
	p.strip(&x.In.Fields)
	if mode == v1.ModeOff {
		return next.Serve(ctx, x)
	}
	text, err := p.find(x)
	if err == nil && text == nil && p.mayMiss {
		pt.metrics[missing].Inc()
		x.MarkDetail("jwt", "missing", p.without)
		return next.Serve(ctx, x)
	}
	if s.cfg.Recorded && text != nil {
		x.MarkDetail("jwt", "recorded", "a hidden token counts as good")
		return next.Serve(ctx, x)
	}
	var g *good
	why, detail := reasonMissing, ""
	switch {
	case err != nil:
		why = reasonSeveral
	case text != nil:
		g, why, detail = s.judge(ctx, p, x, text, mode)
		if g != nil && !g.comesBound(x) {
			g, why = nil, reasonBinding
		}
	}
	if g != nil {
		pt.metrics[pass].Inc()
		for i := range g.fields {
			x.In.SetLine(g.fields[i].name, g.fields[i].value)
		}
		x.MarkDetail("jwt", "pass", g.issuer.shown)
		return next.Serve(ctx, x)
	}
	if err := ctx.Err(); err != nil && why == reasonNoKeys {
		return nil, err
	}
	outcome := deny
	if mode == v1.ModeShadow {
		outcome = wouldDeny
	}
	pt.metrics[outcome].Inc()
	x.MarkDetail("jwt", outcomes[outcome], reasons[why].say(p.name, detail))
	if outcome == wouldDeny {
		return next.Serve(ctx, x)
	}
	return nil, s.refusals[why]
}

// judge finds out whether a token is good: g is nil when it is not. In shadow no request waits for keys.
func (s *Stage) judge(ctx context.Context, p *policy, x *stage.Exchange, text []byte, mode v1.Mode) (g *good, why reason, detail string) {
	if len(text) > p.maxToken {
		return nil, reasonLong, ""
	}
	now := x.Now()
	if g = s.known.find(p, text, now); g != nil && g.keys == g.issuer.keys() {
		if why = g.holds(now); why != reasonGood {
			return nil, why, ""
		}
		return g, reasonGood, ""
	}
	x.MayBlock()
	s.checks.Inc()
	g, why, detail = p.check(ctx, string(text), now, mode != v1.ModeShadow)
	x.Lap()
	if g != nil {
		s.known.put(g, now)
	}
	return g, why, detail
}

// reason is why a token, or its absence, is refused.
type reason uint8

const (
	reasonGood reason = iota
	reasonMissing
	reasonSeveral
	reasonLong
	reasonMalformed
	reasonAlgorithm
	reasonIssuer
	reasonKey
	reasonSignature
	reasonExpired
	reasonEarly
	reasonNoExpiry
	reasonAudience
	reasonClaim
	reasonUnbound
	reasonBinding
	reasonNoKeys
)

// why is what is said of a reason: to the client (RFC 6750 section 3), and to who operates the site.
type why struct {
	status        int
	code          string // of RFC 6750 section 3.1
	client, owner string
}

var reasons = [...]why{
	reasonGood:      {401, "", "", ""},
	reasonMissing:   {401, "", "", "there is no token; the client must send one where the policy's sources say, or write missing: pass"},
	reasonSeveral:   {400, "invalid_request", "the request carries several tokens", "the request carries several different tokens, of which the origin might read another than the edge; the client must send one"},
	reasonLong:      {401, "invalid_token", "the token is too long", "the token is longer than tokenBytes; raise it if the issuer makes such tokens"},
	reasonMalformed: {401, "invalid_token", "the token is malformed", "the token cannot be read"},
	reasonAlgorithm: {401, "invalid_token", "the token's algorithm is not taken", "the token is signed with an algorithm that the issuer's algorithms do not list"},
	reasonIssuer:    {401, "invalid_token", "the token's issuer is not known", "the token's iss claim is none of the policy's issuers"},
	reasonKey:       {401, "invalid_token", "the token's key is not known", "the token names a key that the issuer's key set does not hold, also after it was fetched anew; is it of another environment?"},
	reasonSignature: {401, "invalid_token", "the token's signature is not valid", "the signature is not by a key of the issuer: the token was changed, or made by somebody else"},
	reasonExpired:   {401, "invalid_token", "the token has expired", "the token has expired; the client must get a new one, or raise clockSkew if clocks differ"},
	reasonEarly:     {401, "invalid_token", "the token is not valid yet", "the token's nbf claim is in the future; raise clockSkew if clocks differ"},
	reasonNoExpiry:  {401, "invalid_token", "the token does not say when it expires", "the token has no exp claim; the issuer should write one, or write expiry: optional"},
	reasonAudience:  {401, "invalid_token", "the token is for another audience", "the token's aud claim holds none of the issuer's audiences"},
	reasonClaim:     {403, "insufficient_scope", "the token does not allow this", "the token lacks a claim that the policy asks for"},
	reasonUnbound:   {401, "invalid_token", "the token is not bound to a certificate", "the token is bound to no certificate (cnf with x5t#S256); the issuer should bind it, or write binding: check"},
	reasonBinding:   {401, "invalid_token", "the token is bound to another certificate", "the token is bound to a certificate that did not come with the request; is it used by somebody else, or does the listener not ask for certificates (tls.clientAuth)?"},
	reasonNoKeys:    {503, "", "", "the issuer's keys could not be fetched yet; relais_jwt_keys_fetches_total and the log say why"},
}

// refusal makes the error of a reason.
func (w why) refusal() *stage.Error {
	e := &stage.Error{Code: "http_request_denied", Side: stage.SideTenant, Status: w.status, Err: errors.New(w.owner)}
	if w.status == 503 {
		e.Code, e.Side, e.RetryAfter = "jwt_keys_unavailable", stage.SideEdge, time.Second
		return e
	}
	challenge := `Bearer realm="site"` // at least one parameter: RFC 6750 section 3
	if w.code != "" {
		challenge += `, error="` + w.code + `", error_description="` + w.client + `"`
	}
	e.Fields = &message.Fields{}
	e.Fields.AddLine([]byte("WWW-Authenticate"), []byte(challenge))
	return e
}

// say writes a reason for the trail.
func (w why) say(policy, detail string) string {
	if detail != "" {
		detail = ": " + detail
	}
	return "JwtPolicy " + policy + ": " + w.owner + detail
}
