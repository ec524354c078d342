package oidc_test

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/relais-edge/relais/internal/control/egress"
	"github.com/relais-edge/relais/internal/control/store"
	"github.com/relais-edge/relais/internal/control/tenant"
	"github.com/relais-edge/relais/internal/control/tenant/audit"
	"github.com/relais-edge/relais/internal/control/tenant/auth"
	"github.com/relais-edge/relais/internal/control/tenant/oidc"
	"github.com/relais-edge/relais/internal/control/tenant/secret"
	"github.com/relais-edge/relais/test/postgres"
)

const password = "correct horse battery"

var server = &postgres.Lazy{}

func TestMain(m *testing.M) { os.Exit(server.Main(m)) }

// bed is op ── east ── shop, cafe, and a provider of east.
type bed struct {
	*oidc.Service
	t        *testing.T
	store    *store.Store
	tenant   *tenant.Service
	vault    *secret.Vault
	provider *simulated
	op       tenant.Actor

	mu  sync.Mutex
	now time.Time
}

func (b *bed) clock() time.Time {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.now
}

func (b *bed) pass(d time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.now = b.now.Add(d)
}

func openStore(t *testing.T, o store.Options) *store.Store {
	t.Helper()
	var s *store.Store
	var err error
	if postgres.Wanted(t) {
		var dsn string
		if dsn, err = server.Database(t.Context()); err == nil {
			s, err = store.OpenPostgres(t.Context(), dsn, o)
		}
	} else {
		s, err = store.OpenSQLite(t.Context(), filepath.Join(t.TempDir(), "relais.db"), o)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func setup(t *testing.T) *bed {
	t.Helper()
	b := &bed{t: t, now: time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)}
	b.store = openStore(t, store.Options{Clock: b.clock})
	private, _, err := secret.NewKey()
	b.must(err)
	b.vault, err = secret.NewVault(private)
	b.must(err)
	b.tenant = tenant.New(tenant.Config{
		Store: b.store, Vault: b.vault, Hasher: auth.NewHasher(auth.Cost{Passes: 1, MemoryKiB: 64, Lanes: 1}, 2), Issuer: "Relais", Clock: b.clock, Loopback: true,
	})
	b.op, err = b.tenant.Setup(t.Context(), "op", "root", password)
	b.must(err)
	for _, o := range [][2]string{{"op", "east"}, {"east", "shop"}, {"east", "cafe"}} {
		b.must(b.tenant.CreateOrganization(t.Context(), b.op, o[0], o[1], ""))
	}
	b.provider = simulate(t, b.clock)
	b.serve(time.Minute)
	b.put(tenant.Provider{CreateUsers: true})
	return b
}

func (b *bed) serve(timeout time.Duration) {
	b.Service = oidc.New(oidc.Config{Store: b.store, Tenant: b.tenant, Clock: b.clock, Timeout: timeout, Loopback: true})
}

// put makes the provider of east, called idp.
func (b *bed) put(p tenant.Provider) {
	b.t.Helper()
	p.Issuer, p.ClientID = b.provider.server.URL, clientID
	b.must(b.tenant.PutProvider(b.t.Context(), b.op, "east", "idp", p, clientSecret))
}

func (b *bed) must(err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
}

func (b *bed) is(err, want error) {
	b.t.Helper()
	if !errors.Is(err, want) {
		b.t.Errorf("%v, not %v", err, want)
	}
}

const redirect = "https://console.example.com/login/east/idp/back"

func callback(code, state string) oidc.Callback {
	return oidc.Callback{Code: code, State: state, Redirect: redirect, Source: netip.MustParseAddr("192.0.2.1")}
}

// login goes the whole way.
func (b *bed) login(org string) (oidc.Login, error) {
	b.t.Helper()
	to, state, err := b.Begin(b.t.Context(), org, "idp", redirect)
	if err != nil {
		return oidc.Login{}, err
	}
	code, back := b.provider.visit(to)
	if back != state {
		b.t.Errorf("state %q and %q", back, state)
	}
	return b.Finish(b.t.Context(), callback(code, state))
}

func (b *bed) may(a tenant.Actor, org, project string) bool {
	b.t.Helper()
	err := b.store.View(b.t.Context(), func(r *store.Reader) error {
		return b.tenant.Authorize(b.t.Context(), r, a, tenant.Access{Verb: tenant.VerbWrite, Kind: "Site", Organization: org, Project: project})
	})
	if err != nil && !errors.Is(err, tenant.ErrDenied) {
		b.t.Fatal(err)
	}
	return err == nil
}

func TestSomebodyIsWhoTheProviderSays(t *testing.T) {
	b := setup(t)
	in, err := b.login("shop")
	b.must(err)
	if in.Organization != "shop" || in.Login != "sam@example.com" || in.Provider.String() != "east/idp" {
		t.Errorf("%+v", in)
	}
	// The address changes hands, the subject does not.
	b.provider.set(func() { b.provider.claims["email"], b.provider.claims["preferred_username"] = "new@example.com", "new" })
	again, err := b.login("shop")
	b.must(err)
	if again.Login != in.Login {
		t.Errorf("the same subject is %s", again.Login)
	}
	b.provider.set(func() { b.provider.claims = map[string]any{"sub": "subject-2"} })
	other, err := b.login("shop")
	b.must(err)
	if other.Login == in.Login || !strings.HasPrefix(other.Login, "sam@example.com-") {
		t.Errorf("another subject with the former address is %s", other.Login)
	}
	// Another organization of the same provider has users of its own.
	cafe, err := b.login("cafe")
	b.must(err)
	if cafe.Organization != "cafe" || b.may(cafe.Actor, "cafe", "") {
		t.Errorf("%+v", cafe)
	}
	// A local user of that name is nobody's whom a provider names, and a password that is none lets in nobody.
	b.must(b.tenant.CreateUser(t.Context(), b.op, "cafe", "max@example.com", password, false))
	b.provider.set(func() { b.provider.claims = map[string]any{"sub": "max", "email": "max@example.com"} })
	max, err := b.login("cafe")
	b.must(err)
	if max.Login == "max@example.com" {
		t.Error("linked by the address alone")
	}
	_, _, err = b.tenant.Login(t.Context(), tenant.Credentials{Organization: "shop", Login: "sam@example.com", Source: netip.MustParseAddr("192.0.2.9")})
	b.is(err, tenant.ErrLogin)
	if c := b.Counts(); c.Begun != 5 || c.In != 5 {
		t.Errorf("%+v", c)
	}
	for _, org := range []string{"op", "east", "shop", "cafe"} {
		if _, err := audit.Verify(t.Context(), b.store, org); err != nil {
			t.Error(err)
		}
	}
}

func TestWhatProvesNothing(t *testing.T) {
	b := setup(t)
	p := b.provider
	public, err := x509.MarshalPKIXPublicKey(&p.signer.PublicKey)
	b.must(err)
	stranger, err := rsa.GenerateKey(rand.Reader, 2048)
	b.must(err)
	at := func(d time.Duration) int64 { return b.clock().Add(d).Unix() }
	for name, harm := range map[string]func(){
		"another nonce":               func() { p.claims["nonce"] = "another" },
		"no nonce":                    func() { p.claims["nonce"] = nil },
		"another audience":            func() { p.claims["aud"] = "another-client" },
		"several audiences":           func() { p.claims["aud"] = []string{clientID, "another-client"} },
		"several, and another's":      func() { p.claims["aud"], p.claims["azp"] = []string{clientID, "x"}, "x" },
		"another's with our audience": func() { p.claims["azp"] = "another-client" },
		"no audience":                 func() { p.claims["aud"] = nil },
		"another issuer":              func() { p.claims["iss"] = "https://example.com" },
		"the issuer with a slash":     func() { p.claims["iss"] = p.server.URL + "/" },
		"expired":                     func() { p.claims["exp"] = at(-time.Second) },
		"expires now":                 func() { p.claims["exp"] = at(0) },
		"no expiry":                   func() { p.claims["exp"] = nil },
		"not yet valid":               func() { p.claims["nbf"] = at(time.Hour) },
		"from the future":             func() { p.claims["iat"] = at(time.Hour) },
		"from before the login":       func() { p.claims["iat"] = at(-time.Hour) },
		"another access token":        func() { p.claims["at_hash"] = "AAAAAAAAAAAAAAAAAAAAAA" },
		"alg none":                    func() { p.header["alg"], p.sign = "none", func(string) []byte { return nil } },
		"HS256 with the public key": func() {
			p.header["alg"], p.sign = "HS256", hs256(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public}))
		},
		"HS256 with the public key's bytes": func() { p.header["alg"], p.sign = "HS256", hs256(public) },
		"HS256 with the client's secret":    func() { p.header["alg"], p.sign = "HS256", hs256([]byte(clientSecret)) },
		"an unknown kid":                    func() { p.header["kid"] = "nobody's" },
		"another's key":                     func() { p.signer = stranger },
		"its own key in the token": func() {
			p.signer = stranger
			p.header["jwk"] = map[string]string{"kty": "RSA", "n": b64(stranger.N.Bytes()), "e": "AQAB"}
		},
		"RS512 that is RS256": func() { p.header["alg"] = "RS512" },
		"a critical field":    func() { p.header["crit"] = []string{"x"} },
		"a huge token":        func() { p.claims["x"] = strings.Repeat("x", 40<<10) },
		"no signature":        func() { p.sign = func(string) []byte { return nil } },
	} {
		own := p.signer
		p.set(harm)
		if in, err := b.login("shop"); !errors.Is(err, oidc.ErrProof) || in.Login != "" {
			t.Errorf("%s: %+v, %v", name, in, err)
		}
		p.set(func() { p.claims, p.header, p.sign, p.signer = map[string]any{}, map[string]any{}, nil, own })
	}
	p.set(func() { p.claims["sub"] = "" })
	_, err = b.login("shop")
	b.is(err, tenant.ErrFederated)
	p.set(func() { p.claims["sub"] = strings.Repeat("x", 256) })
	_, err = b.login("shop")
	b.is(err, tenant.ErrFederated)
	p.set(func() { p.claims = map[string]any{"aud": []string{clientID}, "azp": clientID} })
	_, err = b.login("shop")
	b.must(err)
	if users, _, err := b.tenant.Usage(t.Context(), b.op, "shop", tenant.MetricUsers); err != nil || users != 1 {
		t.Errorf("%d users were made, %v", users, err)
	}
}

func TestALoginIsFinishedOnceWhereItBegan(t *testing.T) {
	b := setup(t)
	ctx := t.Context()
	begin := func() (code, state string) {
		t.Helper()
		to, _, err := b.Begin(ctx, "shop", "idp", redirect)
		b.must(err)
		return b.provider.visit(to)
	}
	code, state := begin()
	results := make(chan error, 6)
	for range 6 {
		go func() {
			_, err := b.Finish(ctx, callback(code, state))
			results <- err
		}()
	}
	in := 0
	for range 6 {
		if err := <-results; err == nil {
			in++
		} else if !errors.Is(err, oidc.ErrState) {
			t.Error(err)
		}
	}
	if in != 1 {
		t.Errorf("one state let in %d times", in)
	}
	for _, s := range []string{"", "x", ".", "east.", "." + state, state + "x", "shop" + strings.TrimPrefix(state, "east"), strings.Repeat("x", 300), "east.\x00", "ea\nst.x"} {
		if _, err := b.Finish(ctx, callback("code0", s)); !errors.Is(err, oidc.ErrState) {
			t.Errorf("state %q: %v", s, err)
		}
	}
	code, state = begin()
	elsewhere := callback(code, state)
	elsewhere.Redirect = "https://console.example.com/login/shop/evil/back"
	_, err := b.Finish(ctx, elsewhere)
	b.is(err, oidc.ErrState)
	code, state = begin()
	other := callback(code, state)
	other.Issuer = "https://evil.example.com"
	_, err = b.Finish(ctx, other)
	b.is(err, oidc.ErrState)
	code, state = begin()
	b.pass(11 * time.Minute)
	_, err = b.Finish(ctx, callback(code, state))
	b.is(err, oidc.ErrState)
	code, state = begin()
	_, wrong := begin()
	_, err = b.Finish(ctx, callback(code, wrong)) // another's code: PKCE
	b.is(err, oidc.ErrRefused)
	_, err = b.Finish(ctx, callback("made-up", state))
	b.is(err, oidc.ErrRefused)
	code, state = begin()
	b.put(tenant.Provider{CreateUsers: true, Disabled: true})
	_, err = b.Finish(ctx, callback(code, state))
	b.is(err, oidc.ErrState)
	_, _, err = b.Begin(ctx, "shop", "idp", redirect)
	b.is(err, store.ErrNotFound)
	b.put(tenant.Provider{CreateUsers: true})
	_, state = begin()
	refused := callback("", state)
	refused.Refusal = "access_denied"
	_, err = b.Finish(ctx, refused)
	b.is(err, oidc.ErrRefused)
	for _, bad := range []string{
		"", "http://console.example.com/login/east/idp/back", "https://console.example.com/login/back", "https://u@console.example.com/east/idp/",
		redirect + "?x=1", redirect + "#x", "javascript:alert(1)/east/idp/", "https://console.example.com/east/idp2", "//console.example.com/east/idp/",
	} {
		if _, _, err := b.Begin(ctx, "shop", "idp", bad); !errors.Is(err, tenant.ErrInvalid) {
			t.Errorf("redirect %q: %v", bad, err)
		}
	}
	for _, org := range []string{"nowhere", "op", "~quota", ""} {
		if _, _, err := b.Begin(ctx, org, "idp", redirect); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("organization %q: %v", org, err)
		}
	}
}

// A provider that says that it names itself must do so (RFC 9207).
func TestAProviderThatNamesItselfMust(t *testing.T) {
	b := setup(t)
	b.provider.meta["authorization_response_iss_parameter_supported"] = true
	_, err := b.login("shop")
	b.is(err, oidc.ErrState)
	to, _, err := b.Begin(t.Context(), "shop", "idp", redirect)
	b.must(err)
	c := callback(b.provider.visit(to))
	c.Issuer = b.provider.server.URL
	_, err = b.Finish(t.Context(), c)
	b.must(err)
}

func TestLoginsThatBeganAreBounded(t *testing.T) {
	b := setup(t)
	ctx := t.Context()
	b.Service = oidc.New(oidc.Config{Store: b.store, Tenant: b.tenant, Clock: b.clock, Timeout: time.Minute, Loopback: true, Pending: 5})
	for range 5 {
		_, _, err := b.Begin(ctx, "shop", "idp", redirect)
		b.must(err)
	}
	_, _, err := b.Begin(ctx, "cafe", "idp", redirect) // of the same provider
	b.is(err, oidc.ErrBusy)
	_, _, err = b.Begin(ctx, "shop", "idp", redirect)
	b.is(err, oidc.ErrBusy)
	if b.Counts().Busy != 2 {
		t.Errorf("%+v", b.Counts())
	}
	b.pass(10 * time.Minute)
	_, err = b.login("shop")
	b.must(err)
}

func TestAProviderThatIsDownSlowOrHuge(t *testing.T) {
	b := setup(t)
	ctx, p := t.Context(), b.provider
	const discovery = "/.well-known/openid-configuration"
	p.set(func() { p.down = true })
	_, err := b.login("shop")
	b.is(err, oidc.ErrDown)
	n := p.count(discovery)
	_, err = b.login("shop")
	b.is(err, oidc.ErrDown)
	if p.count(discovery) != n {
		t.Error("it is asked again at once")
	}
	p.set(func() { p.down = false })
	b.pass(10 * time.Second)
	_, err = b.login("shop")
	b.must(err)
	// What is known serves while it is down, and it can still be asked for codes when it is back.
	b.pass(2 * time.Hour)
	p.set(func() { p.down = true })
	to, state, err := b.Begin(ctx, "shop", "idp", redirect)
	b.must(err)
	code, _ := p.visit(to)
	_, err = b.Finish(ctx, callback(code, state))
	b.is(err, oidc.ErrDown)
	b.pass(25 * time.Hour)
	_, _, err = b.Begin(ctx, "shop", "idp", redirect)
	b.is(err, oidc.ErrDown)
	p.set(func() { p.down = false })
	for _, path := range []string{discovery, "/keys", "/token"} {
		b.serve(time.Minute) // knows nothing yet
		p.set(func() { p.pad = map[string]int{path: 1 << 20} })
		if _, err := b.login("shop"); !errors.Is(err, oidc.ErrDown) {
			t.Errorf("a huge answer at %s: %v", path, err)
		}
	}
	p.set(func() { p.pad = map[string]int{} })
	for name, meta := range map[string]map[string]any{
		"another issuer":              {"issuer": "https://accounts.example.com"},
		"keys on a private network":   {"jwks_uri": "https://10.0.0.1/keys"},
		"keys of the cloud":           {"jwks_uri": "http://169.254.169.254/latest/meta-data"},
		"keys in a file":              {"jwks_uri": "file:///etc/passwd"},
		"a token endpoint in clear":   {"token_endpoint": "http://example.com/token"},
		"a token endpoint that hides": {"token_endpoint": "https://user:pass@example.com/token"},
		"a page that is a script":     {"authorization_endpoint": "javascript:alert(1)"},
		"no page":                     {"authorization_endpoint": ""},
	} {
		b.serve(time.Minute)
		p.set(func() { p.meta = meta })
		if _, err := b.login("shop"); !errors.Is(err, oidc.ErrDown) {
			t.Errorf("%s: %v", name, err)
		}
	}
	p.set(func() { p.meta = map[string]any{} })
	second := simulate(t, b.clock)
	p.set(func() { p.moved = second.server.URL })
	b.serve(time.Minute)
	_, err = b.login("shop")
	b.is(err, oidc.ErrDown)
	if second.count(discovery) != 0 {
		t.Error("a redirect was followed")
	}
	p.set(func() { p.moved, p.hang = "", true })
	b.serve(200 * time.Millisecond)
	_, err = b.login("shop")
	b.is(err, oidc.ErrDown)
}

// One provider that never answers keeps nobody from another.
func TestASlowProviderIsSlowForItselfAlone(t *testing.T) {
	b := setup(t)
	slow := simulate(t, b.clock)
	slow.set(func() { slow.hang = true })
	b.must(b.tenant.PutProvider(t.Context(), b.op, "cafe", "slow", tenant.Provider{Issuer: slow.server.URL, ClientID: "x"}, ""))
	b.serve(time.Hour)
	done := make(chan error, 20)
	for range 20 {
		go func() {
			_, _, err := b.Begin(t.Context(), "cafe", "slow", "https://console.example.com/login/cafe/slow/back")
			done <- err
		}()
	}
	for deadline := time.Now().Add(time.Minute); slow.count("/.well-known/openid-configuration") == 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("nobody asked it")
		}
	}
	_, err := b.login("shop")
	b.must(err)
	slow.server.CloseClientConnections()
	for range 20 {
		b.is(<-done, oidc.ErrDown)
	}
}

func TestKeysRotate(t *testing.T) {
	b := setup(t)
	_, err := b.login("shop")
	b.must(err)
	n := b.provider.count("/keys")
	_, err = b.login("shop")
	b.must(err)
	if b.provider.count("/keys") != n {
		t.Error("keys that are known are asked for again")
	}
	old := b.provider.signer
	b.provider.rotate("two")
	_, err = b.login("shop")
	b.must(err)
	b.provider.set(func() { b.provider.kid, b.provider.signer = "one", old })
	_, err = b.login("shop")
	b.is(err, oidc.ErrProof)
	// Where no token asks for a new key, one that was taken away is forgotten with the hour.
	b.provider.rotate("three")
	_, err = b.login("shop")
	b.must(err)
	third := b.provider.signer
	b.provider.rotate("four")
	b.pass(61 * time.Minute)
	b.provider.set(func() { b.provider.kid, b.provider.signer = "three", third })
	_, err = b.login("shop")
	b.is(err, oidc.ErrProof)
}

func TestIssuersThatMayNotBe(t *testing.T) {
	b := setup(t)
	ctx := t.Context()
	strict := tenant.New(tenant.Config{Store: b.store, Vault: b.vault, Clock: b.clock})
	for _, issuer := range []string{
		"", "http://example.com", "https://", "https://127.0.0.1", "https://[::1]:8443", "https://169.254.169.254", "https://localhost", "https://intranet",
		"https://user@example.com", "https://example.com?x=1", "https://example.com/#x", "file:///etc/passwd", "gopher://example.com", "example.com",
		"https://example.com/" + strings.Repeat("x", 512), "https:example.com", b.provider.server.URL, "https://0x7f.1", "https://2130706433", "https://[fe80::1%25eth0]",
	} {
		err := strict.PutProvider(ctx, b.op, "east", "bad", tenant.Provider{Issuer: issuer, ClientID: "x"}, "")
		if !errors.Is(err, tenant.ErrInvalid) && issuer != "https://0x7f.1" { // a name as any other, until it is dialled
			t.Errorf("%q: %v", issuer, err)
		}
	}
	// What has the form of a public name is held against its address when it is dialled.
	b.must(strict.PutProvider(ctx, b.op, "east", "inside", tenant.Provider{Issuer: "https://localhost.localdomain", ClientID: "x"}, ""))
	public := oidc.New(oidc.Config{Store: b.store, Tenant: strict, Clock: b.clock})
	_, _, err := public.Begin(ctx, "shop", "inside", "https://console.example.com/east/inside/")
	b.is(err, oidc.ErrDown)
	// This one resolves without DNS, and a store that was written by others does not help.
	_, _, err = public.Begin(ctx, "shop", "idp", redirect)
	b.is(err, oidc.ErrDown)
	if b.provider.count("/.well-known/openid-configuration") != 0 {
		t.Error("a loopback address was asked")
	}
	// With a certificate that is trusted, the address alone stands in the way.
	inside := httptest.NewTLSServer(b.provider)
	defer inside.Close()
	b.must(b.tenant.PutProvider(ctx, b.op, "east", "idp", tenant.Provider{Issuer: inside.URL, ClientID: clientID}, clientSecret))
	roots := x509.NewCertPool()
	roots.AddCert(inside.Certificate())
	b.provider.meta["issuer"] = inside.URL
	public = oidc.New(oidc.Config{Store: b.store, Tenant: b.tenant, Clock: b.clock, Roots: roots})
	_, _, err = public.Begin(ctx, "shop", "idp", redirect)
	if !errors.Is(err, oidc.ErrDown) || !errors.Is(err, egress.ErrAddress) {
		t.Error(err)
	}
	allowed := func(a netip.Addr) bool { return a.IsLoopback() }
	for _, at := range []string{"authorization_endpoint", "token_endpoint", "jwks_uri"} {
		b.provider.meta[at] = inside.URL + "/x"
	}
	public = oidc.New(oidc.Config{Store: b.store, Tenant: b.tenant, Clock: b.clock, Roots: roots, Allowed: allowed})
	_, _, err = public.Begin(ctx, "shop", "idp", redirect)
	b.must(err)
}
