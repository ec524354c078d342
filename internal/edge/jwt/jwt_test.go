package jwt

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-jose/go-jose/v4"
	"go.uber.org/goleak"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/bundle"
	"github.com/relais-edge/relais/internal/edge/origin"
	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/observe"
	"github.com/relais-edge/relais/internal/snapshot"
	"github.com/relais-edge/relais/internal/stage"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type answer struct {
	r    message.Response
	seen func(*stage.Exchange)
}

func (a *answer) Serve(_ context.Context, x *stage.Exchange) (*message.Response, error) {
	if a.seen != nil {
		a.seen(x)
	}
	return &a.r, nil
}

const slot = 3

func newSite(spec *v1.JwtPolicySpec) *snapshot.Site {
	return &snapshot.Site{
		Key: "o/shop", Spec: &bundle.Site{Key: "o/shop", JWT: map[string]*v1.JwtPolicySpec{"p": spec}},
		Routes: []snapshot.Route{{Index: 0, Name: "a", Spec: &v1.Route{Policies: v1.Policies{JWT: "p"}}}},
		Parts:  make([]any, stage.Slots),
	}
}

// signer makes tokens of one key.
type signer struct {
	t   testing.TB
	key *ecdsa.PrivateKey
	kid string
}

func newSigner(t testing.TB, kid string) *signer {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return &signer{t, k, kid}
}

func (s *signer) sign(claims map[string]any) string {
	s.t.Helper()
	j, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: s.key}, (&jose.SignerOptions{}).WithHeader("kid", s.kid))
	if err != nil {
		s.t.Fatal(err)
	}
	b, _ := json.Marshal(claims)
	o, err := j.Sign(b)
	if err != nil {
		s.t.Fatal(err)
	}
	text, _ := o.CompactSerialize()
	return text
}

func keysOf(signers ...*signer) string {
	var set jose.JSONWebKeySet
	for _, s := range signers {
		set.Keys = append(set.Keys, jose.JSONWebKey{Key: s.key.Public(), KeyID: s.kid})
	}
	b, _ := json.Marshal(set)
	return string(b)
}

// policyOf fills in the defaults that a document would have.
func policyOf(i ...v1.JwtIssuer) *v1.JwtPolicySpec {
	p := &v1.JwtPolicySpec{Issuers: i, TokenBytes: 8 << 10}
	for k := range p.Issuers {
		if p.Issuers[k].ClockSkew == nil {
			skew := v1.Duration(time.Minute)
			p.Issuers[k].ClockSkew = &skew
		}
	}
	return p
}

type bed struct {
	*Stage
	site    *snapshot.Site
	metrics *observe.Registry
}

// checked is how many signatures were checked.
func (b *bed) checked() int {
	w := httptest.NewRecorder()
	b.metrics.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
	_, after, _ := strings.Cut(w.Body.String(), "\nrelais_jwt_checks_total ")
	n, _ := strconv.Atoi(strings.SplitN(after, "\n", 2)[0])
	return n
}

func newBed(t testing.TB, cfg Config, spec *v1.JwtPolicySpec) *bed {
	t.Helper()
	cfg.Slot = slot
	m := observe.New()
	b := &bed{New(cfg, m), newSite(spec), m}
	b.Prepare(&bundle.Bundle{Sites: []*bundle.Site{b.site.Spec}})
	p, err := b.Compile(b.site, nil)
	if err != nil {
		t.Fatal(err)
	}
	b.site.Parts[slot] = p
	return b
}

func (b *bed) exchange(target string, fields ...string) *stage.Exchange {
	r := &message.Request{}
	r.SetMethod([]byte("GET"))
	path, query, has := strings.Cut(target, "?")
	r.SetPath([]byte(path))
	if has {
		r.SetQuery([]byte(query))
	}
	for _, f := range fields {
		n, v, _ := strings.Cut(f, ": ")
		r.AddLine([]byte(n), []byte(v))
	}
	return &stage.Exchange{In: r, Path: r.Path(), Site: b.site, Route: &b.site.Routes[0], Start: time.Now()}
}

// ask gives the status, 200 for one that passed, and the mark.
func (b *bed) ask(x *stage.Exchange) (int, stage.Mark) {
	_, err := b.Serve(context.Background(), x, &answer{})
	marks := append(slices.Clone(x.Trail.Marks()), stage.Mark{})
	if err != nil {
		return stage.AsError(err).Status, marks[0]
	}
	return 200, marks[0]
}

func in(d time.Duration) int64 { return time.Now().Add(d).Unix() }

func TestTokensAreJudgedByTheirClaims(t *testing.T) {
	s, other := newSigner(t, "k"), newSigner(t, "k")
	iss := "https://auth.example"
	b := newBed(t, Config{}, policyOf(v1.JwtIssuer{
		Issuer: iss, Audiences: []string{"api", "web"}, JWKS: &v1.JwtKeys{Inline: keysOf(s)},
		Claims: []v1.JwtClaim{{Name: "scope", Values: []string{"read", "write"}, Match: "all"}, {Name: "realm.roles", Values: []string{"buyer"}, Match: "any"}},
	}))
	with := func(change map[string]any) map[string]any {
		c := map[string]any{"iss": iss, "aud": "api", "exp": in(time.Hour), "scope": "write read x", "realm": map[string]any{"roles": []string{"a", "buyer"}}}
		for k, v := range change {
			if c[k] = v; v == nil {
				delete(c, k)
			}
		}
		return c
	}
	for _, c := range []struct {
		name   string
		token  string
		status int
		says   string
	}{
		{"good", s.sign(with(nil)), 200, "issuer https://auth.example"},
		{"audience in a list", s.sign(with(map[string]any{"aud": []string{"x", "web"}})), 200, ""},
		{"expired within the skew", s.sign(with(map[string]any{"exp": in(-30 * time.Second)})), 200, ""},
		{"expired", s.sign(with(map[string]any{"exp": in(-2 * time.Minute)})), 401, "has expired"},
		{"not yet", s.sign(with(map[string]any{"nbf": in(2 * time.Minute)})), 401, "nbf"},
		{"without exp", s.sign(with(map[string]any{"exp": nil})), 401, "no exp"},
		{"exp as text", s.sign(with(map[string]any{"exp": "never"})), 401, "no date"},
		{"exp beyond all", s.sign(with(map[string]any{"exp": 1e300})), 401, "no date"},
		{"another audience", s.sign(with(map[string]any{"aud": "x"})), 401, "audiences"},
		{"no audience", s.sign(with(map[string]any{"aud": nil})), 401, "audiences"},
		{"another issuer", s.sign(with(map[string]any{"iss": "https://evil.example"})), 401, "none of the policy's issuers"},
		{"issuer as a list", s.sign(with(map[string]any{"iss": []string{iss}})), 401, "none of the policy's issuers"},
		{"a scope short", s.sign(with(map[string]any{"scope": "read"})), 403, "scope does not hold all of read, write"},
		{"no role", s.sign(with(map[string]any{"realm": nil})), 403, "realm.roles is not there"},
		{"somebody else's key", other.sign(with(nil)), 401, "signature"},
		{"no token at all", "abc", 401, "cannot be read"},
		{"too long", "ey" + strings.Repeat("a", 9<<10) + ".a.a", 401, "tokenBytes"},
	} {
		status, mark := b.ask(b.exchange("/", "Authorization: Bearer "+c.token))
		if status != c.status || !strings.Contains(mark.Detail, c.says) {
			t.Errorf("%s: %d %q, want %d %q", c.name, status, mark.Detail, c.status, c.says)
		}
	}
}

func TestTokensAreFoundWhereThePolicySays(t *testing.T) {
	s := newSigner(t, "k")
	spec := policyOf(v1.JwtIssuer{JWKS: &v1.JwtKeys{Inline: keysOf(s)}})
	spec.Sources = []v1.JwtSource{{Header: "Authorization", Prefix: "Bearer"}, {Header: "X-Token"}, {Cookie: "session"}, {Query: "access_token"}}
	b := newBed(t, Config{}, spec)
	one, two := s.sign(map[string]any{"exp": in(time.Hour), "n": 1}), s.sign(map[string]any{"exp": in(time.Hour), "n": 2})
	for _, c := range []struct {
		target string
		fields []string
		status int
	}{
		{"/", nil, 401},
		{"/", []string{"Authorization: Bearer " + one}, 200},
		{"/", []string{"authorization: bearer  " + one}, 200},
		{"/", []string{"Authorization: Basic YTpi"}, 401},
		{"/", []string{"Authorization: " + one}, 401},
		{"/", []string{"X-Token: " + one}, 200},
		{"/", []string{"Cookie: a=b; session=" + one}, 200},
		{"/", []string{"Cookie: xsession=" + one}, 401},
		{"/?access_token=" + one, nil, 200},
		{"/?a=1&access_token=" + one + "&b", nil, 200},
		{"/?access_token=" + one, []string{"Authorization: Bearer " + one}, 200},
		{"/?access_token=" + two, []string{"Authorization: Bearer " + one}, 400},
		{"/?%61ccess%5Ftoken=" + one, nil, 200},
		{"/?%61ccess_token=" + two, []string{"Authorization: Bearer " + one}, 400},
		{"/?access_token%=" + one + "&access_toke%zz=a&access_toke=a", nil, 401},
		{"/", []string{"Cookie: session=" + one + "; session=" + two}, 400},
		{"/", []string{"Authorization: Bearer " + one, "Authorization: Bearer forged"}, 400},
	} {
		if status, mark := b.ask(b.exchange(c.target, c.fields...)); status != c.status {
			t.Errorf("%.40s %.60q: %d %q, want %d", c.target, c.fields, status, mark.Detail, c.status)
		}
	}
}

func TestRFC6750Section3TheChallengeSaysWhatIsWrong(t *testing.T) {
	s := newSigner(t, "k")
	b := newBed(t, Config{}, policyOf(v1.JwtIssuer{JWKS: &v1.JwtKeys{Inline: keysOf(s)}, Claims: []v1.JwtClaim{{Name: "admin"}}}))
	for token, want := range map[string]string{
		"": `Bearer realm="site"`, s.sign(map[string]any{"exp": in(-time.Hour)}): `Bearer realm="site", error="invalid_token", error_description="the token has expired"`,
		s.sign(map[string]any{"exp": in(time.Hour)}): `Bearer realm="site", error="insufficient_scope", error_description="the token does not allow this"`,
	} {
		x := b.exchange("/")
		if token != "" {
			x = b.exchange("/", "Authorization: Bearer "+token)
		}
		_, err := b.Serve(t.Context(), x, &answer{})
		if got := string(stage.AsError(err).Fields.Lookup("WWW-Authenticate")); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

func TestClaimsBecomeFieldsAndAVisitorsOwnAreRemoved(t *testing.T) {
	s := newSigner(t, "k")
	for _, mode := range []v1.Mode{v1.ModeEnforce, v1.ModeShadow, v1.ModeOff} {
		spec := policyOf(v1.JwtIssuer{
			JWKS:    &v1.JwtKeys{Inline: keysOf(s)},
			Forward: []v1.JwtForward{{Claim: "sub", Header: "X-User"}, {Claim: "roles", Header: "X-Roles"}, {Claim: "bad", Header: "X-Bad"}},
		})
		spec.Mode, spec.Missing = mode, "pass"
		b := newBed(t, Config{}, spec)
		var seen string
		next := &answer{seen: func(x *stage.Exchange) {
			seen = fmt.Sprintf("%s|%s|%s%s%s", x.In.Lookup("X-User"), x.In.Lookup("X-Roles"), x.In.Lookup("X-Bad"), x.In.Lookup("X_User"), x.In.Lookup("X_Roles"))
		}}
		forged := []string{"X-User: root", "x-roles: admin", "X-User: root2", "X-Bad: 1", "x_user: root", "X_Roles: admin"}
		token := "Authorization: Bearer " + s.sign(map[string]any{"exp": in(time.Hour), "sub": "u1", "roles": []string{"a", "b"}, "bad": "a\r\nX-Admin: 1"})
		for range 2 { // checked, then remembered
			if _, err := b.Serve(t.Context(), b.exchange("/", append(slices.Clone(forged), token)...), next); err != nil {
				t.Fatal(err)
			}
			want := "u1|a,b|"
			if mode == v1.ModeOff {
				want = "||"
			}
			if seen != want {
				t.Errorf("%s: the origin sees %q, want %q", mode, seen, want)
			}
		}
		if _, err := b.Serve(t.Context(), b.exchange("/", forged...), next); err != nil || seen != "||" {
			t.Errorf("%s: without a token the origin sees %q, %v", mode, seen, err)
		}
	}
}

func TestRFC8705Section3ABoundTokenComesWithItsCertificate(t *testing.T) {
	s := newSigner(t, "k")
	sum := sha256.Sum256([]byte("a certificate"))
	bind := func(v any) string {
		c := map[string]any{"exp": in(time.Hour)}
		if v != nil {
			c["cnf"] = v
		}
		return s.sign(c)
	}
	bound := bind(map[string]any{"x5t#S256": base64.RawURLEncoding.EncodeToString(sum[:])})
	free, other, broken := bind(nil), bind(map[string]any{"jkt": "x"}), bind(map[string]any{"x5t#S256": "x"})
	own := hex.EncodeToString(sum[:])
	for _, c := range []struct {
		binding, token, certificate string
		status                      int
	}{
		{"ignore", bound, "", 200},
		{"check", bound, own, 200},
		{"check", bound, strings.Repeat("0", 64), 401},
		{"check", bound, "", 401},
		{"check", free, "", 200},
		{"check", other, "", 200},
		{"check", broken, own, 401},
		{"check", bind("x"), own, 401},
		{"require", bound, own, 200},
		{"require", free, own, 401},
		{"require", other, own, 401},
	} {
		b := newBed(t, Config{}, policyOf(v1.JwtIssuer{JWKS: &v1.JwtKeys{Inline: keysOf(s)}, Binding: c.binding}))
		for _, conn := range []*message.Conn{{TLS: &message.TLS{Identity: &message.Identity{Fingerprint: c.certificate}}}, {TLS: &message.TLS{}}, {}, nil} {
			want := c.status
			if (conn == nil || conn.TLS == nil || conn.TLS.Identity == nil) && c.certificate != "" {
				if want = 401; c.binding == "ignore" {
					want = 200
				}
			}
			for range 2 { // checked, then remembered
				x := b.exchange("/", "Authorization: Bearer "+c.token)
				x.In.Conn = conn
				if status, mark := b.ask(x); status != want {
					t.Errorf("%s with %q: %d %q, want %d", c.binding, c.certificate, status, mark.Detail, want)
				}
			}
		}
	}
}

func TestShadowRecordsAndLetsPass(t *testing.T) {
	spec := policyOf(v1.JwtIssuer{JWKS: &v1.JwtKeys{Inline: keysOf(newSigner(t, "k"))}})
	spec.Mode = v1.ModeShadow
	b := newBed(t, Config{}, spec)
	x := b.exchange("/")
	if status, mark := b.ask(x); status != 200 || mark.Code != "would-deny" || !x.Noted {
		t.Errorf("%d %+v", status, mark)
	}
}

func TestAVisitorWithABasketIsJudgedLikeAnybody(t *testing.T) {
	b := newBed(t, Config{}, policyOf(v1.JwtIssuer{JWKS: &v1.JwtKeys{Inline: keysOf(newSigner(t, "k"))}}))
	x := b.exchange("/")
	x.Visitor.Class = stage.Protected
	if status, _ := b.ask(x); status != 401 {
		t.Errorf("status %d", status)
	}
}

func TestARememberedTokenCostsNoCheckAndNoAllocationAndEndsWithItsTime(t *testing.T) {
	s := newSigner(t, "k")
	b := newBed(t, Config{}, policyOf(v1.JwtIssuer{
		Issuer: "i", JWKS: &v1.JwtKeys{Inline: keysOf(s)}, Forward: []v1.JwtForward{{Claim: "sub", Header: "X-User"}},
	}))
	text := s.sign(map[string]any{"iss": "i", "sub": "u", "exp": in(time.Hour)})
	x := b.exchange("/", "Authorization: Bearer "+text)
	next := &answer{}
	ask := func() error {
		x.Trail = stage.Trail{}
		_, err := b.Serve(context.Background(), x, next)
		return err
	}
	if err := ask(); err != nil || b.checked() != 1 {
		t.Fatalf("%v, %d checks", err, b.checked())
	}
	if n := testing.AllocsPerRun(200, func() {
		if ask() != nil {
			t.Fatal("refused")
		}
	}); n >= 1 && !race {
		t.Errorf("%v allocations", n)
	}
	if n := b.checked(); n != 1 {
		t.Errorf("%d checks", n)
	}
	late := b.exchange("/", "Authorization: Bearer "+text)
	late.Start = time.Now().Add(2 * time.Hour)
	if status, mark := b.ask(late); status != 401 || !strings.Contains(mark.Detail, "expired") || b.checked() != 1 {
		t.Errorf("after its time: %d %q, %d checks", status, mark.Detail, b.checked())
	}
	// A policy that did not change keeps what it knows; another knows nothing of it.
	again := *b.site.Spec.JWT["p"]
	site := newSite(&again)
	p, err := b.Compile(site, b.site.Parts[slot])
	if err != nil {
		t.Fatal(err)
	}
	site.Parts[slot] = p
	x.Site, x.Route = site, &site.Routes[0]
	if ask() != nil || b.checked() != 1 {
		t.Errorf("after a reload: %d checks", b.checked())
	}
}

func TestMemoryIsBoundedInTokensAndBytes(t *testing.T) {
	m := newMemory(64, 40<<10)
	p := &policy{}
	now := time.Now()
	for i := range 1000 {
		m.put(&good{policy: p, text: fmt.Sprintf("%d%s", i, strings.Repeat("a", 1000))}, now)
	}
	n := 0
	for i := range m.sets {
		for j := range m.sets[i].at {
			if m.sets[i].at[j].Load() != nil {
				n++
			}
		}
	}
	if n > 64 || m.bytes.Load() > 40<<10 || m.bytes.Load() < 0 || n == 0 {
		t.Errorf("%d tokens, %d bytes", n, m.bytes.Load())
	}
	if m.put(&good{policy: p, text: strings.Repeat("b", 64<<10)}, now); m.find(p, []byte(strings.Repeat("b", 64<<10)), now) != nil {
		t.Error("a token larger than its share is remembered")
	}
}

// issuerBed is a policy whose keys are fetched from what the test says.
type issuerBed struct {
	*bed
	fetches atomic.Int64
	text    atomic.Pointer[string] // nil: cannot be fetched
	cancel  func()
}

func newIssuerBed(t *testing.T) *issuerBed {
	ib := &issuerBed{}
	spec := policyOf(v1.JwtIssuer{JWKS: &v1.JwtKeys{URL: "https://auth.example/keys", Refresh: v1.Duration(10 * time.Minute)}})
	ib.bed = newBed(t, Config{fetch: func(context.Context, *remote) ([]byte, error) {
		ib.fetches.Add(1)
		if p := ib.text.Load(); p != nil {
			return []byte(*p), nil
		}
		return nil, errors.New("no route to host")
	}}, spec)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- ib.Run(ctx) }()
	ib.cancel = func() { cancel(); <-done }
	return ib
}

func (ib *issuerBed) publish(s string) { ib.text.Store(&s) }

func TestTheLastGoodKeysHoldWhateverIsFetched(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSigner(t, "k1")
		ib := newIssuerBed(t)
		defer ib.cancel()
		token := func() string { return "Authorization: Bearer " + s.sign(map[string]any{"exp": in(time.Hour)}) }
		synctest.Wait()
		if status, mark := ib.ask(ib.exchange("/", token())); status != 503 || !strings.Contains(mark.Detail, "could not be fetched") {
			t.Errorf("without keys: %d %q", status, mark.Detail)
		}
		ib.publish(keysOf(s))
		time.Sleep(time.Minute)
		synctest.Wait()
		if status, mark := ib.ask(ib.exchange("/", token())); status != 200 {
			t.Errorf("with keys: %d %q", status, mark.Detail)
		}
		for _, bad := range []string{`{"keys":[]}`, "<html>", `{"keys":[{"kty":"oct","k":"AAAA"}]}`, strings.Repeat("a", 300<<10)} {
			ib.publish(bad)
			time.Sleep(15 * time.Minute)
			synctest.Wait()
			if status, mark := ib.ask(ib.exchange("/", token())); status != 200 {
				t.Errorf("after %.20s: %d %q", bad, status, mark.Detail)
			}
		}
		ib.text.Store(nil)
		before := ib.fetches.Load()
		time.Sleep(time.Hour)
		synctest.Wait()
		if n := ib.fetches.Load() - before; n < 5 || n > 30 {
			t.Errorf("%d tries in an hour without an answer", n)
		}
	})
}

func TestANewKeyIsFetchedWhenATokenNamesItAndSeldomOtherwise(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s1, s2, evil := newSigner(t, "k1"), newSigner(t, "k2"), newSigner(t, "k3")
		ib := newIssuerBed(t)
		defer ib.cancel()
		ib.publish(keysOf(s1))
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		bearer := func(s *signer) string { return "Authorization: Bearer " + s.sign(map[string]any{"exp": in(time.Hour)}) }
		one := bearer(s1)
		if status, _ := ib.ask(ib.exchange("/", one)); status != 200 {
			t.Fatal("the first key is not good")
		}
		ib.publish(keysOf(s2)) // the issuer takes the first key back
		if status, mark := ib.ask(ib.exchange("/", bearer(s2))); status != 200 {
			t.Errorf("a token of the new key: %d %q", status, mark.Detail)
		}
		if status, mark := ib.ask(ib.exchange("/", one)); status != 401 {
			t.Errorf("a remembered token of a key that was taken back: %d %q", status, mark.Detail)
		}
		before := ib.fetches.Load()
		for i := range 200 {
			evil.kid = fmt.Sprintf("../../etc/passwd%d", i)
			if status, _ := ib.ask(ib.exchange("/", bearer(evil))); status != 401 {
				t.Fatalf("status %d", status)
			}
		}
		if n := ib.fetches.Load() - before; n > 1 {
			t.Errorf("invented key ids brought about %d fetches", n)
		}
	})
}

func TestKeySetsAreFetchedByTheRulesOfOrigins(t *testing.T) {
	s := newSigner(t, "k")
	var mode atomic.Pointer[string]
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch *mode.Load() {
		case "redirect":
			http.Redirect(w, r, "/keys2", http.StatusFound)
		case "long":
			w.Write([]byte(keysOf(s) + strings.Repeat(" ", 300<<10)))
		case "gzip":
			w.Header().Set("Content-Encoding", "gzip")
			w.Write([]byte("\x1f\x8b"))
		case "404":
			http.NotFound(w, r)
		default:
			w.Write([]byte(keysOf(s)))
		}
	}))
	defer srv.Close()
	for _, c := range []struct {
		mode string
		keys v1.JwtKeys
		ok   bool
	}{
		{"good", v1.JwtKeys{URL: srv.URL}, true},
		{"public", v1.JwtKeys{URL: srv.URL, Public: true}, false},
		{"public, allowed", v1.JwtKeys{URL: srv.URL, Public: true, Allow: []string{"127.0.0.0/8"}}, true},
		{"metadata", v1.JwtKeys{URL: "http://169.254.169.254/latest"}, false},
		{"metadata in IPv6", v1.JwtKeys{URL: "http://[::ffff:169.254.169.254]/latest"}, false},
		{"redirect", v1.JwtKeys{URL: srv.URL}, false},
		{"long", v1.JwtKeys{URL: srv.URL}, false},
		{"gzip", v1.JwtKeys{URL: srv.URL}, false},
		{"404", v1.JwtKeys{URL: srv.URL}, false},
	} {
		mode.Store(&c.mode)
		f := New(Config{Guard: origin.Guard}, observe.New()).keys
		r, err := f.of("o", &c.keys)
		if err != nil {
			t.Fatal(err)
		}
		if err := f.load(t.Context(), r); (err == nil) != c.ok {
			t.Errorf("%s: %v", c.mode, err)
		}
	}
}

func FuzzFind(f *testing.F) {
	p := &policy{sources: []v1.JwtSource{{Header: "Authorization", Prefix: "Bearer"}, {Cookie: "s"}, {Query: "t"}}}
	f.Add("Bearer a.b.c", "s=a.b.c; x=y", "t=a.b.c&u")
	f.Add("bearer  ", `s="";=;s`, "t&&t=")
	f.Fuzz(func(t *testing.T, auth, cookie, query string) {
		r := &message.Request{}
		r.AddLine([]byte("Authorization"), []byte(auth))
		r.AddLine([]byte("Cookie"), []byte(cookie))
		r.SetQuery([]byte(query))
		text, err := p.find(&stage.Exchange{In: r})
		if err != nil && text != nil || text != nil && len(text) == 0 {
			t.Fatalf("%q %v", text, err)
		}
		if s := string(text); s != "" && !strings.Contains(auth, s) && !strings.Contains(cookie, s) && !strings.Contains(query, s) {
			t.Fatalf("%q stands nowhere", s)
		}
	})
}

func TestAHiddenTokenOfARecordCountsAsGoodAndNoTokenDoesNot(t *testing.T) {
	b := newBed(t, Config{Recorded: true}, policyOf(v1.JwtIssuer{Issuer: "https://auth.example", JWKS: &v1.JwtKeys{URL: "https://auth.example/keys"}}))
	if status, m := b.ask(b.exchange("/", "Authorization: Bearer xxxxxxxx")); status != 200 || m.Code != "recorded" {
		t.Errorf("%d %v", status, m)
	}
	if status, m := b.ask(b.exchange("/")); status != 401 {
		t.Errorf("%d %v", status, m)
	}
}
