package oidc_test

import (
	"crypto"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"
)

// simulated is an OpenID provider of a test, written from the specifications apart from the room that it tests. Its fields
// are how it misbehaves.
type simulated struct {
	t      *testing.T
	server *httptest.Server
	clock  func() time.Time

	mu     sync.Mutex
	keys   map[string]*rsa.PrivateKey // published
	kid    string                     // signs
	signer *rsa.PrivateKey            // in place of the published one
	codes  map[string]url.Values      // what was asked for each
	asked  map[string]int             // by path

	down    bool
	hang    bool           // no answer until the client goes away
	pad     map[string]int // bytes before an answer, by path
	meta    map[string]any // over what it says of itself
	header  map[string]any // over the token's
	claims  map[string]any // over the token's; nil takes one away
	sign    func(text string) []byte
	another string // secret of the client that it wants
	moved   string // where it redirects to
}

const clientID, clientSecret = "relais-console", "the client's secret of the test"

func simulate(t *testing.T, clock func() time.Time) *simulated {
	t.Helper()
	p := &simulated{
		t: t, clock: clock, keys: map[string]*rsa.PrivateKey{}, codes: map[string]url.Values{}, asked: map[string]int{}, pad: map[string]int{},
		meta: map[string]any{}, header: map[string]any{}, claims: map[string]any{}, another: clientSecret,
	}
	p.rotate("one")
	p.server = httptest.NewServer(p)
	t.Cleanup(p.server.Close)
	return p
}

func (p *simulated) set(fn func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	fn()
}

func (p *simulated) count(path string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.asked[path]
}

// rotate publishes another key alone.
func (p *simulated) rotate(kid string) {
	k, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		p.t.Fatal(err)
	}
	p.set(func() { p.keys, p.kid, p.signer = map[string]*rsa.PrivateKey{kid: k}, kid, k })
}

func (p *simulated) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	p.asked[r.URL.Path]++
	down, hang, moved, pad := p.down, p.hang, p.moved, p.pad[r.URL.Path]
	p.mu.Unlock()
	switch {
	case hang:
		<-r.Context().Done()
		return
	case down:
		http.Error(w, "down", http.StatusServiceUnavailable)
		return
	case moved != "":
		http.Redirect(w, r, moved+r.URL.Path, http.StatusFound)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	if pad > 0 {
		_, _ = w.Write([]byte(strings.Repeat(" ", pad)))
	}
	switch r.URL.Path {
	case "/.well-known/openid-configuration":
		p.write(w, p.self())
	case "/keys":
		p.write(w, map[string]any{"keys": p.published()})
	case "/token":
		p.token(w, r)
	default:
		http.NotFound(w, r)
	}
}

func (p *simulated) write(w http.ResponseWriter, v any) {
	_ = json.NewEncoder(w).Encode(v) // the client may have gone
}

func (p *simulated) self() map[string]any {
	p.mu.Lock()
	defer p.mu.Unlock()
	m := map[string]any{
		"issuer": p.server.URL, "authorization_endpoint": p.server.URL + "/authorize", "token_endpoint": p.server.URL + "/token",
		"jwks_uri": p.server.URL + "/keys", "id_token_signing_alg_values_supported": []string{"RS256", "HS256", "none"},
	}
	maps.Copy(m, p.meta)
	return m
}

func b64(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

func (p *simulated) published() (list []any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for kid, k := range p.keys {
		list = append(list, map[string]string{"kty": "RSA", "kid": kid, "use": "sig", "alg": "RS256", "n": b64(k.N.Bytes()), "e": b64(big.NewInt(int64(k.E)).Bytes())})
	}
	return list
}

// visit is somebody who follows a URL to the provider and lets himself be known there: it gives the code and the state with
// which he comes back.
func (p *simulated) visit(to string) (code, state string) {
	p.t.Helper()
	u, err := url.Parse(to)
	if err != nil {
		p.t.Fatal(err)
	}
	q := u.Query()
	if u.Path != "/authorize" || q.Get("response_type") != "code" || q.Get("client_id") != clientID || q.Get("code_challenge_method") != "S256" ||
		len(q.Get("code_challenge")) != 43 || q.Get("nonce") == "" || q.Get("state") == "" || !strings.Contains(" "+q.Get("scope")+" ", " openid ") {
		p.t.Fatalf("sent to %s", to)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	code = fmt.Sprint("code", len(p.codes))
	p.codes[code] = q
	return code, q.Get("state")
}

func (p *simulated) token(w http.ResponseWriter, r *http.Request) {
	_ = r.ParseForm()
	refuse := func(why string) {
		w.WriteHeader(http.StatusBadRequest)
		p.write(w, map[string]string{"error": why})
	}
	p.mu.Lock()
	q, ok := p.codes[r.PostForm.Get("code")]
	delete(p.codes, r.PostForm.Get("code"))
	want := p.another
	p.mu.Unlock()
	id, secret, basic := r.BasicAuth()
	if !basic {
		id, secret = r.PostForm.Get("client_id"), r.PostForm.Get("client_secret")
	}
	escaped, _ := url.QueryUnescape(secret) // RFC 6749 section 2.3.1
	sum := sha256.Sum256([]byte(r.PostForm.Get("code_verifier")))
	switch {
	case id != clientID || escaped != want:
		refuse("invalid_client")
	case !ok || b64(sum[:]) != q.Get("code_challenge") || r.PostForm.Get("redirect_uri") != q.Get("redirect_uri"):
		refuse("invalid_grant")
	default:
		p.write(w, map[string]any{"access_token": "access", "token_type": "Bearer", "expires_in": 300, "id_token": p.idToken(q.Get("nonce"))})
	}
}

func (p *simulated) idToken(nonce string) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	header := map[string]any{"alg": "RS256", "kid": p.kid, "typ": "JWT"}
	maps.Copy(header, p.header)
	claims := map[string]any{
		"iss": p.server.URL, "aud": clientID, "sub": "subject-1", "nonce": nonce, "iat": p.clock().Unix(), "exp": p.clock().Add(5 * time.Minute).Unix(),
		"email": "sam@example.com", "email_verified": true, "preferred_username": "sam", "groups": []string{"staff"},
	}
	for k, v := range p.claims {
		if claims[k] = v; v == nil {
			delete(claims, k)
		}
	}
	h, err1 := json.Marshal(header)
	c, err2 := json.Marshal(claims)
	if err1 != nil || err2 != nil {
		p.t.Error(err1, err2)
	}
	text := b64(h) + "." + b64(c)
	if p.sign != nil {
		return text + "." + b64(p.sign(text))
	}
	sum := sha256.Sum256([]byte(text))
	sig, err := rsa.SignPKCS1v15(rand.Reader, p.signer, crypto.SHA256, sum[:])
	if err != nil {
		p.t.Error(err)
	}
	return text + "." + b64(sig)
}

// hs256 signs with a text that an attacker knows.
func hs256(key []byte) func(string) []byte {
	return func(text string) []byte {
		mac := hmac.New(sha256.New, key)
		mac.Write([]byte(text))
		return mac.Sum(nil)
	}
}
