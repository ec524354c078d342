package jwt

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"time"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/bundle"
	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/stage"
	"github.com/relais-edge/relais/internal/token"
)

// policy is a compiled JwtPolicy. It does not change.
type policy struct {
	name     string
	spec     *v1.JwtPolicySpec
	gate     stage.Gate
	sources  []v1.JwtSource
	mayMiss  bool
	without  string
	maxToken int
	issuers  []issuer
	owned    []string // fields that only the policy fills
}

// issuer is one of a policy.
type issuer struct {
	spec       *v1.JwtIssuer
	algorithms []token.Algorithm
	skew       time.Duration
	fixed      *token.Keys // of inline keys and secrets
	remote     *remote     // of a URL
	shown      string
}

// keys are those that hold now; nil when there are none yet.
func (i *issuer) keys() *token.Keys {
	if i.remote != nil {
		return i.remote.keys.Load()
	}
	return i.fixed
}

func compile(site bundle.Key, name string, spec *v1.JwtPolicySpec, f *fetcher) (*policy, error) {
	org, _ := site.Split()
	p := &policy{
		name: name, spec: spec, gate: stage.NewGate(spec.Protection), sources: spec.Sources,
		mayMiss: spec.Missing == "pass", without: "JwtPolicy " + name + " lets requests without a token pass",
		maxToken: int(spec.TokenBytes), issuers: make([]issuer, len(spec.Issuers)),
	}
	if len(p.sources) == 0 {
		p.sources = []v1.JwtSource{{Header: "Authorization", Prefix: "Bearer"}}
	}
	for i := range spec.Issuers {
		s := &spec.Issuers[i]
		c := issuer{spec: s, skew: v1.Value(s.ClockSkew).Std(), shown: "JwtPolicy " + name}
		if s.Issuer != "" {
			c.shown += ", issuer " + s.Issuer
		}
		for _, a := range s.Algorithms {
			c.algorithms = append(c.algorithms, token.Algorithm(a))
		}
		switch {
		case s.Secret != "":
			c.fixed = token.Secret(s.Secret)
			if len(c.algorithms) == 0 {
				c.algorithms = token.Hashed()
			}
		case spec.Mode == v1.ModeOff: // no token is looked at, so no keys are fetched
		case s.JWKS == nil:
			return nil, errors.New("an issuer has no keys; give jwks or secret")
		case s.JWKS.Inline != "":
			var err error
			if c.fixed, err = token.ParseKeys([]byte(s.JWKS.Inline)); err != nil {
				return nil, err
			}
		default:
			var err error
			if c.remote, err = f.of(org, s.JWKS); err != nil {
				return nil, err
			}
		}
		if len(c.algorithms) == 0 {
			c.algorithms = token.Asymmetric()
		}
		for _, w := range s.Forward {
			p.owned = append(p.owned, w.Header)
		}
		p.issuers[i] = c
	}
	return p, nil
}

// strip removes the fields that only the policy fills, also those with an underscore for a hyphen: origins of the CGI
// family read both as one (RFC 3875 section 4.1.18).
func (p *policy) strip(f *message.Fields) {
	for i := f.Len() - 1; i >= 0 && len(p.owned) > 0; i-- {
		if _, name, _ := f.At(i); p.owns(name) {
			f.DelAt(i)
		}
	}
}

func (p *policy) owns(name []byte) bool {
	for _, o := range p.owned {
		if len(o) != len(name) {
			continue
		}
		same := true
		for i := 0; same && i < len(o); i++ {
			same = plain(o[i]) == plain(name[i])
		}
		if same {
			return true
		}
	}
	return false
}

// plain is a byte of a field's name as CGI has it.
func plain(c byte) byte {
	switch {
	case c >= 'A' && c <= 'Z':
		return c | 0x20
	case c == '_':
		return '-'
	}
	return c
}

var errSeveral = errors.New("several tokens")

// find looks for the token in the policy's sources; nil when there is none.
func (p *policy) find(x *stage.Exchange) (text []byte, err error) {
	one := func(found []byte) error {
		if text != nil && !bytes.Equal(text, found) {
			return errSeveral
		}
		text = found
		return nil
	}
	for i := range p.sources {
		s := &p.sources[i]
		switch {
		case s.Header != "":
			err = inHeader(&x.In.Fields, s, one)
		case s.Cookie != "":
			err = inCookies(&x.In.Fields, s.Cookie, one)
		default:
			err = inQuery(x.In.Query(), s.Query, one)
		}
		if err != nil {
			return nil, err
		}
	}
	return text, nil
}

// inHeader finds the tokens of a field. A value with another prefix is something else, such as Basic.
func inHeader(f *message.Fields, s *v1.JwtSource, found func([]byte) error) error {
	for i := range f.Len() {
		_, name, v := f.At(i)
		if !message.EqualFold(name, s.Header) {
			continue
		}
		v = bytes.Trim(v, " \t")
		if n := len(s.Prefix); n > 0 {
			if len(v) <= n || v[n] != ' ' || !message.EqualFold(v[:n], s.Prefix) {
				continue
			}
			v = bytes.TrimLeft(v[n:], " ")
		}
		if len(v) > 0 {
			if err := found(v); err != nil {
				return err
			}
		}
	}
	return nil
}

// inCookies finds the tokens of cookies with a name (RFC 6265 section 4.2).
func inCookies(f *message.Fields, cookie string, found func([]byte) error) error {
	for i := f.Next(message.Cookie, 0); i >= 0; i = f.Next(message.Cookie, i+1) {
		_, _, line := f.At(i)
		for len(line) > 0 {
			var pair []byte
			pair, line, _ = bytes.Cut(line, []byte{';'})
			name, v, ok := bytes.Cut(bytes.Trim(pair, " \t"), []byte{'='})
			if !ok || string(name) != cookie {
				continue
			}
			if v = bytes.Trim(v, `"`); len(v) > 0 {
				if err := found(v); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// inQuery finds the tokens of query parameters with a name. A token has no byte that needs to be encoded.
func inQuery(query []byte, parameter string, found func([]byte) error) error {
	for len(query) > 0 {
		var pair []byte
		pair, query, _ = bytes.Cut(query, []byte{'&'})
		name, v, _ := bytes.Cut(pair, []byte{'='})
		if len(v) == 0 || !named(name, parameter) {
			continue
		}
		if err := found(v); err != nil {
			return err
		}
	}
	return nil
}

// named says whether a name of a query, which may be percent-encoded, is the one: the origin decodes it.
func named(name []byte, want string) bool {
	for i := 0; i < len(want); i++ {
		if len(name) == 0 {
			return false
		}
		c := name[0]
		name = name[1:]
		if c == '%' && len(name) >= 2 {
			high, low := digit(name[0]), digit(name[1])
			if high < 16 && low < 16 {
				c, name = high<<4|low, name[2:]
			}
		}
		if c != want[i] {
			return false
		}
	}
	return len(name) == 0
}

// digit is the value of a hexadecimal digit; 16 when it is none.
func digit(c byte) byte {
	switch {
	case c >= '0' && c <= '9':
		return c - '0'
	case c|0x20 >= 'a' && c|0x20 <= 'f':
		return c | 0x20 - 'a' + 10
	}
	return 16
}

// good is a token that was found good.
type good struct {
	policy *policy
	text   string
	hash   uint64
	issuer *issuer
	keys   *token.Keys // that it was checked with
	// from and until are when it holds, the skew included; zero without such a claim.
	from, until time.Time
	fields      []field
	bound       string // digest of the certificate that must come with it; empty for none
}

type field struct {
	name  string
	value []byte
}

// holds says whether the token holds at a time: reasonGood when it does.
func (g *good) holds(now time.Time) reason {
	switch {
	case !g.until.IsZero() && !now.Before(g.until):
		return reasonExpired
	case !g.from.IsZero() && now.Before(g.from):
		return reasonEarly
	}
	return reasonGood
}

// comesBound says whether the request comes with the certificate that the token is bound to (RFC 8705 section 3).
func (g *good) comesBound(x *stage.Exchange) bool {
	if g.bound == "" {
		return true
	}
	c := x.In.Conn
	return c != nil && c.TLS != nil && c.TLS.Identity != nil && c.TLS.Identity.Fingerprint == g.bound
}

// check reads a token, checks it and gives what is remembered of it; nil with the reason when it is not good. Wait
// says that it may wait for keys that are fetched.
func (p *policy) check(ctx context.Context, text string, now time.Time, wait bool) (*good, reason, string) {
	t, err := token.Parse(text)
	switch {
	case errors.Is(err, token.ErrAlgorithm):
		return nil, reasonAlgorithm, ""
	case err != nil:
		return nil, reasonMalformed, "it " + token.Describe(err)
	}
	i := p.issuerOf(t)
	if i == nil {
		return nil, reasonIssuer, ""
	}
	claims, keys, why := i.verify(ctx, t, wait)
	if why != reasonGood {
		return nil, why, ""
	}
	g := &good{policy: p, text: text, issuer: i, keys: keys}
	if why, detail := g.read(claims, now); why != reasonGood {
		return nil, why, detail
	}
	return g, reasonGood, ""
}

func (p *policy) issuerOf(t *token.Token) *issuer {
	if len(p.issuers) == 1 && p.issuers[0].spec.Issuer == "" {
		return &p.issuers[0]
	}
	iss := t.Issuer()
	for i := range p.issuers {
		if p.issuers[i].spec.Issuer == iss && iss != "" {
			return &p.issuers[i]
		}
	}
	return nil
}

// verify checks the signature, with keys that are fetched anew when they do not hold the one that the token names.
func (i *issuer) verify(ctx context.Context, t *token.Token, wait bool) (token.Claims, *token.Keys, reason) {
	keys := i.keys()
	if i.remote != nil && (keys == nil || t.KeyID != "" && !keys.Has(t.KeyID)) {
		i.remote.ask(ctx, wait)
		if keys = i.keys(); keys == nil {
			return token.Claims{}, nil, reasonNoKeys
		}
	}
	claims, err := t.Verify(keys, i.algorithms)
	switch {
	case err == nil:
		return claims, keys, reasonGood
	case errors.Is(err, token.ErrAlgorithm):
		return claims, nil, reasonAlgorithm
	case errors.Is(err, token.ErrUnknown):
		return claims, nil, reasonKey
	case errors.Is(err, token.ErrClaims):
		return claims, nil, reasonMalformed
	}
	return claims, nil, reasonSignature
}

// read holds the claims against the issuer's rules.
func (g *good) read(c token.Claims, now time.Time) (reason, string) {
	s := g.issuer.spec
	until, there, ok := c.Time("exp")
	switch {
	case !ok:
		return reasonMalformed, "its exp claim is no date"
	case !there && s.Expiry != "optional":
		return reasonNoExpiry, ""
	case there:
		g.until = until.Add(g.issuer.skew)
	}
	from, there, ok := c.Time("nbf")
	switch {
	case !ok:
		return reasonMalformed, "its nbf claim is no date"
	case there:
		g.from = from.Add(-g.issuer.skew)
	}
	if why := g.holds(now); why != reasonGood {
		return why, ""
	}
	if s.Issuer != "" && c.Text("iss") != s.Issuer {
		return reasonIssuer, ""
	}
	if s.Binding == "check" || s.Binding == "require" {
		digest, there, ok := c.Certificate()
		switch {
		case !ok:
			return reasonMalformed, "its cnf claim is no confirmation by a certificate"
		case !there && s.Binding == "require":
			return reasonUnbound, ""
		}
		g.bound = digest
	}
	if len(s.Audiences) > 0 {
		if have, _ := c.Values("aud"); !holds(have, s.Audiences, false) {
			return reasonAudience, ""
		}
	}
	for i := range s.Claims {
		want := &s.Claims[i]
		have, there := c.Values(want.Name)
		switch {
		case !there:
			return reasonClaim, want.Name + " is not there"
		case len(want.Values) > 0 && !holds(have, want.Values, want.Match == "all"):
			return reasonClaim, want.Name + " does not hold " + want.Match + " of " + strings.Join(want.Values, ", ")
		}
	}
	for _, w := range s.Forward {
		if v, ok := c.Field(w.Claim); ok {
			g.fields = append(g.fields, field{w.Header, []byte(v)})
		}
	}
	return reasonGood, ""
}

// holds says whether a list holds any, or all, of some words.
func holds(have, want []string, all bool) bool {
	for _, w := range want {
		found := false
		for _, h := range have {
			found = found || h == w
		}
		if found != all {
			return found
		}
	}
	return all
}
