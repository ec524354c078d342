package api_test

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"
)

// idp is an OpenID provider of a test; whoever comes is sam.
type idp struct {
	t      *testing.T
	server *httptest.Server
	clock  func() time.Time
	key    *rsa.PrivateKey

	mu    sync.Mutex
	codes map[string]url.Values
}

func newIDP(t *testing.T, clock func() time.Time) *idp {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	p := &idp{t: t, clock: clock, key: key, codes: map[string]url.Values{}}
	p.server = httptest.NewServer(p)
	t.Cleanup(p.server.Close)
	return p
}

func raw64(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

func (p *idp) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	at := p.server.URL
	var v any
	switch r.URL.Path {
	case "/.well-known/openid-configuration":
		v = map[string]any{
			"issuer": at, "authorization_endpoint": at + "/authorize", "token_endpoint": at + "/token", "jwks_uri": at + "/keys",
			"id_token_signing_alg_values_supported": []string{"RS256"},
		}
	case "/keys":
		v = map[string]any{"keys": []any{map[string]string{
			"kty": "RSA", "kid": "one", "use": "sig", "alg": "RS256", "n": raw64(p.key.N.Bytes()), "e": raw64(big.NewInt(int64(p.key.E)).Bytes()),
		}}}
	case "/token":
		p.mu.Lock()
		q := p.codes[r.PostFormValue("code")]
		delete(p.codes, r.PostFormValue("code"))
		p.mu.Unlock()
		if q == nil || q.Get("redirect_uri") != r.PostFormValue("redirect_uri") {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		v = map[string]any{"access_token": "a", "token_type": "Bearer", "id_token": p.idToken(q.Get("nonce"))}
	default:
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) // the client may have gone
}

func (p *idp) idToken(nonce string) string {
	claims, err := json.Marshal(map[string]any{
		"iss": p.server.URL, "aud": "relais", "sub": "subject-1", "nonce": nonce, "iat": p.clock().Unix(), "exp": p.clock().Add(5 * time.Minute).Unix(),
		"email": "sam@example.com", "email_verified": true, "preferred_username": "sam",
	})
	if err != nil {
		p.t.Error(err)
	}
	text := raw64([]byte(`{"alg":"RS256","kid":"one","typ":"JWT"}`)) + "." + raw64(claims)
	sum := sha256.Sum256([]byte(text))
	sig, err := rsa.SignPKCS1v15(rand.Reader, p.key, crypto.SHA256, sum[:])
	if err != nil {
		p.t.Error(err)
	}
	return text + "." + raw64(sig)
}

// visit is somebody who lets himself be known at the provider; it gives the query with which he comes back.
func (p *idp) visit(to string) url.Values {
	p.t.Helper()
	u, err := url.Parse(to)
	if err != nil {
		p.t.Fatal(err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	code := fmt.Sprint("code", len(p.codes))
	p.codes[code] = u.Query()
	return url.Values{"code": {code}, "state": {u.Query().Get("state")}, "session_state": {"of the provider"}}
}

// cookies gives what a browser would send of what it was told, and the whole lines.
func cookies(r reply) (pairs, lines map[string]string) {
	pairs, lines = map[string]string{}, map[string]string{}
	for _, line := range r.header.Values("Set-Cookie") {
		pair, _, _ := strings.Cut(line, ";")
		name, _, _ := strings.Cut(pair, "=")
		pairs[name], lines[name] = pair, line
	}
	return pairs, lines
}

// browse is ask as a browser does that is sent elsewhere: it does not follow.
func (b *bed) browse(path string, cookie string) reply {
	b.t.Helper()
	req, err := http.NewRequestWithContext(b.t.Context(), "GET", b.url+path, nil)
	b.must(err)
	if cookie != "" {
		req.Header.Set("Cookie", cookie)
	}
	req.Header.Set("User-Agent", "a browser")
	resp, err := http.DefaultTransport.RoundTrip(req)
	b.must(err)
	defer resp.Body.Close()
	var body strings.Builder
	var buf [4096]byte
	for {
		n, err := resp.Body.Read(buf[:])
		body.Write(buf[:n])
		if err != nil {
			break
		}
	}
	return reply{resp.StatusCode, resp.Header, body.String()}
}

// TestALoginByAProvider begins at a shop with the provider of the reseller above it, and comes back with other states, to
// other browsers, twice, and as it should be.
func TestALoginByAProvider(t *testing.T) {
	b := setup(t)
	p := newIDP(t, b.clock)
	at := "/v1/organizations/east/providers/idp"
	if r := b.ask(b.tokens["east"], "PUT", at, `{"title":"Staff","issuer":"`+p.server.URL+`","clientId":"relais","clientSecret":"s","createUsers":true}`); r.status != 204 {
		t.Fatalf("%d %s", r.status, r.body)
	}
	if r := b.browse("/v1/login/shop", ""); r.status != 200 || !strings.Contains(r.body, `"/v1/login/shop/idp"`) || strings.Contains(r.body, p.server.URL) {
		t.Errorf("%d %s", r.status, r.body)
	}
	begin := func() (url.Values, string) {
		t.Helper()
		r := b.browse("/v1/login/shop/idp", "")
		pairs, lines := cookies(r)
		cookie := lines["__Host-relais-login"]
		for _, want := range []string{"Secure", "HttpOnly", "SameSite=Lax", "Path=/", "Max-Age=600"} {
			if !strings.Contains(cookie, want) {
				t.Errorf("the cookie %q has no %s", cookie, want)
			}
		}
		to, err := url.Parse(r.header.Get("Location"))
		if err != nil || r.status != 303 || to.Query().Get("redirect_uri") != "https://control.example.com/v1/login/east/idp/callback" {
			t.Fatalf("%d %v %s", r.status, r.header, r.body)
		}
		return p.visit(to.String()), pairs["__Host-relais-login"]
	}
	back := "/v1/login/east/idp/callback?"
	query, cookie := begin()
	_, another := begin()
	for name, c := range map[string]string{"no cookie": "", "another's cookie": another} {
		r := b.browse(back+query.Encode(), c)
		if pr := r.problem(t); pr.Status != 409 || pr.Type != "urn:relais:problem:login-state" {
			t.Errorf("%s: %+v", name, pr)
		}
		if pairs, _ := cookies(r); len(pairs) > 0 {
			t.Errorf("%s: %q", name, pairs)
		}
	}
	r := b.browse(back+query.Encode(), cookie)
	pairs, lines := cookies(r)
	if r.status != 303 || r.header.Get("Location") != "https://control.example.com/" || !strings.Contains(lines["__Host-relais"], "SameSite=Strict") || !strings.Contains(lines["__Host-relais-login"], "Max-Age=0") {
		t.Fatalf("%d %v %s", r.status, r.header, r.body)
	}
	who := b.browse("/v1/session", pairs["__Host-relais"])
	if who.status != 200 || !strings.Contains(who.body, `"organization":"shop"`) || !strings.Contains(who.body, `"login":"sam`) {
		t.Errorf("%d %s", who.status, who.body)
	}
	if pr := b.browse(back+query.Encode(), cookie).problem(t); pr.Status != 409 {
		t.Errorf("twice: %+v", pr)
	}
	refusal, cookie := begin()
	refusal.Set("error", "access_denied")
	if pr := b.browse(back+refusal.Encode(), cookie).problem(t); pr.Status != 403 || pr.Type != "urn:relais:problem:login-refused" {
		t.Errorf("%+v", pr)
	}
	if pr := b.browse("/v1/login/shop/none", "").problem(t); pr.Status != 404 {
		t.Errorf("%+v", pr)
	}
	if r := b.ask(b.tokens["east"], "DELETE", at, ""); r.status != 204 {
		t.Errorf("%d %s", r.status, r.body)
	}
	if r := b.browse("/v1/session", pairs["__Host-relais"]); r.status != 401 {
		t.Errorf("the session outlived its provider: %d %s", r.status, r.body)
	}
}

// TestALoginIsLinked has somebody who has a password log in by a provider from then on, as the same user.
func TestALoginIsLinked(t *testing.T) {
	b := setup(t)
	p := newIDP(t, b.clock)
	if r := b.ask(b.tokens["shop"], "PUT", "/v1/organizations/shop/providers/idp", `{"issuer":"`+p.server.URL+`","clientId":"relais"}`); r.status != 204 {
		t.Fatalf("%d %s", r.status, r.body)
	}
	if r := b.ask(b.tokens["shop"], "POST", "/v1/session/providers/idp", ""); r.status != 403 {
		t.Errorf("a token is linked: %d %s", r.status, r.body)
	}
	come := func(to, cookie string) reply {
		return b.browse("/v1/login/shop/idp/callback?"+p.visit(to).Encode(), cookie)
	}
	begun := b.browse("/v1/login/shop/idp", "")
	pairs, _ := cookies(begun)
	if pr := come(begun.header.Get("Location"), pairs["__Host-relais-login"]).problem(t); pr.Status != 403 || pr.Type != "urn:relais:problem:no-way-in" {
		t.Errorf("a stranger: %+v", pr)
	}
	r := b.ask(b.in("shop", "admin-shop", password), "POST", "/v1/session/providers/idp", "")
	var to struct{ URL string }
	b.must(json.Unmarshal([]byte(r.body), &to))
	pairs, _ = cookies(r)
	if r := come(to.URL, pairs["__Host-relais-login"]); r.status != 303 {
		t.Fatalf("%d %s", r.status, r.body)
	}
	begun = b.browse("/v1/login/shop/idp", "")
	pairs, _ = cookies(begun)
	pairs, _ = cookies(come(begun.header.Get("Location"), pairs["__Host-relais-login"]))
	if who := b.browse("/v1/session", pairs["__Host-relais"]); !strings.Contains(who.body, `"admin-shop"`) {
		t.Errorf("%d %s", who.status, who.body)
	}
}

// TestAProviderThatIsDown tells strangers so, and nothing of our network.
func TestAProviderThatIsDown(t *testing.T) {
	b := setup(t)
	p := newIDP(t, b.clock)
	if r := b.ask(b.tokens["shop"], "PUT", "/v1/organizations/shop/providers/idp", `{"issuer":"`+p.server.URL+`","clientId":"relais"}`); r.status != 204 {
		t.Fatalf("%d %s", r.status, r.body)
	}
	p.server.Close()
	if pr := b.browse("/v1/login/shop/idp", "").problem(t); pr.Status != 502 || strings.Contains(pr.Detail, "127.0.0.1") || strings.Contains(pr.Detail, "dial") {
		t.Errorf("%+v", pr)
	}
}

// TestBrandsOverHTTP writes one, sees it below, and takes it away.
func TestBrandsOverHTTP(t *testing.T) {
	b := setup(t)
	for _, s := range []struct {
		token, method, path, body string
		status                    int
		has                       string
	}{
		{"east", "PUT", "/v1/organizations/east/brand", `{"title":"East Edge","support":{"mail":"help@east.example"},"pages":{"en":{},"fr":{}}}`, 204, ""},
		{"shop", "GET", "/v1/organizations/shop/brand", "", 200, `"of":"east"`},
		{"shop", "GET", "/v1/organizations/west/brand", "", 403, ""},
		{"", "GET", "/v1/brand", "", 200, `"Relais"`},
		{"east", "PUT", "/v1/organizations/east/brand", `{"title":"","support":{},"pages":{"en":{},"fr":{}}}`, 422, "title"},
		{"east", "DELETE", "/v1/organizations/east/brand", "", 204, ""},
		{"shop", "GET", "/v1/organizations/shop/brand", "", 200, `"Relais"`},
	} {
		if r := b.ask(b.tokens[s.token], s.method, s.path, s.body); r.status != s.status || !strings.Contains(r.body, s.has) {
			t.Errorf("%s %s: %d %s", s.method, s.path, r.status, r.body)
		}
	}
}
