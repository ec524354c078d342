package token

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"
)

func sign(t testing.TB, alg Algorithm, key any, kid string, claims any, with ...func(*jose.SignerOptions)) string {
	t.Helper()
	opt := (&jose.SignerOptions{}).WithType("JWT")
	if kid != "" {
		opt.WithHeader("kid", kid)
	}
	for _, f := range with {
		f(opt)
	}
	s, err := jose.NewSigner(jose.SigningKey{Algorithm: alg, Key: key}, opt)
	if err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(claims)
	if err != nil {
		t.Fatal(err)
	}
	o, err := s.Sign(b)
	if err != nil {
		t.Fatal(err)
	}
	text, err := o.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func set(t testing.TB, keys ...jose.JSONWebKey) []byte {
	t.Helper()
	b, err := json.Marshal(jose.JSONWebKeySet{Keys: keys})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func ec(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func rsaKey(t testing.TB, bits int) *rsa.PrivateKey {
	t.Helper()
	k, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func parsed(t testing.TB, text []byte) *Keys {
	t.Helper()
	k, err := ParseKeys(text)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// verdict reads and checks a token.
func verdict(text string, keys *Keys, algs []Algorithm) error {
	tok, err := Parse(text)
	if err != nil {
		return err
	}
	_, err = tok.Verify(keys, algs)
	return err
}

func segment(v string) string { return base64.RawURLEncoding.EncodeToString([]byte(v)) }

func TestRFC8725AttacksOnAlgorithmsAndKeysAreRefused(t *testing.T) {
	rk, ek := rsaKey(t, 2048), ec(t)
	_, ed, _ := ed25519.GenerateKey(rand.Reader)
	keys := parsed(t, set(t,
		jose.JSONWebKey{Key: rk.Public(), KeyID: "r", Use: "sig"},
		jose.JSONWebKey{Key: ek.Public(), KeyID: "e"},
		jose.JSONWebKey{Key: ed.Public(), KeyID: "d"}))
	claims := map[string]any{"sub": "1"}
	spki, _ := x509.MarshalPKIXPublicKey(rk.Public())
	embedded := func(o *jose.SignerOptions) { o.EmbedJWK = true }
	stranger := ec(t)
	good := sign(t, jose.ES256, ek, "e", claims)
	head, rest, _ := strings.Cut(good, ".")
	_, signature, _ := strings.Cut(rest, ".")
	for _, c := range []struct {
		name, token string
		want        error
	}{
		{"a good token", good, nil},
		{"a good RSA token", sign(t, jose.PS256, rk, "r", claims), nil},
		{"a good Ed25519 token", sign(t, jose.EdDSA, ed, "d", claims), nil},
		{"without kid", sign(t, jose.ES256, ek, "", claims), nil},
		{"alg none", segment(`{"alg":"none"}`) + "." + segment(`{"sub":"1"}`) + ".", ErrMalformed},
		{"alg none with a signature", segment(`{"alg":"none"}`) + "." + segment(`{"sub":"1"}`) + ".AA", ErrAlgorithm},
		{"alg None", segment(`{"alg":"None"}`) + "." + segment(`{"sub":"1"}`) + ".AA", ErrAlgorithm},
		{"HMAC with the public key as DER", sign(t, jose.HS256, spki, "r", claims), ErrAlgorithm},
		{"HMAC with the modulus", sign(t, jose.HS256, rk.N.Bytes(), "", claims), ErrAlgorithm},
		{"an algorithm that is not listed", sign(t, jose.RS512, rk, "r", claims), ErrAlgorithm},
		{"its own key in the header", sign(t, jose.ES256, stranger, "e", claims, embedded), ErrSignature},
		{"another's key without kid", sign(t, jose.ES256, stranger, "", claims), ErrSignature},
		{"a kid that is a path", sign(t, jose.ES256, stranger, "../../dev/null", claims), ErrUnknown},
		{"a kid that is SQL", sign(t, jose.ES256, stranger, "x' UNION SELECT 'key", claims), ErrUnknown},
		{"a kid of a key of another kind", sign(t, jose.ES256, ek, "r", claims), ErrUnknown},
		{"a critical header", sign(t, jose.ES256, ek, "e", claims, func(o *jose.SignerOptions) { o.WithHeader("crit", []string{"b64"}).WithHeader("b64", true) }), ErrCritical},
		{"a token for something else", sign(t, jose.ES256, ek, "e", claims, func(o *jose.SignerOptions) { o.WithType("logout+jwt") }), ErrType},
		{"changed claims", head + "." + segment(`{"sub":"2"}`) + "." + signature, ErrSignature},
		{"a payload that is a list", sign(t, jose.ES256, ek, "e", []int{1}), ErrClaims},
		{"five parts", good + ".AA.AA", ErrMalformed},
		{"nothing", "", ErrMalformed},
		{"JSON form", `{"payload":"","signatures":[]}`, ErrMalformed},
		{"white space", " " + good, ErrMalformed},
	} {
		if err := verdict(c.token, keys, Asymmetric()); !errors.Is(err, c.want) || (err == nil) != (c.want == nil) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
}

func TestASecretIsForHMACAlone(t *testing.T) {
	secret := strings.Repeat("s", 32)
	keys := Secret(secret)
	if err := verdict(sign(t, jose.HS256, []byte(secret), "", map[string]any{}), keys, Hashed()); err != nil {
		t.Error(err)
	}
	if err := verdict(sign(t, jose.ES256, ec(t), "", map[string]any{}), keys, append(Hashed(), Asymmetric()...)); !errors.Is(err, ErrUnknown) {
		t.Errorf("a token of a public key with a secret: %v", err)
	}
}

func TestAKeySetThatLiesIsBoundedAndItsBadKeysAreLeftOut(t *testing.T) {
	good := jose.JSONWebKey{Key: ec(t).Public(), KeyID: "good"}
	weak := jose.JSONWebKey{Key: &rsa.PublicKey{N: new(big.Int).SetBytes(bytes.Repeat([]byte{0xfd}, 128)), E: 65537}, KeyID: "weak"}
	private := jose.JSONWebKey{Key: ec(t), KeyID: "private"}
	enc := jose.JSONWebKey{Key: ec(t).Public(), KeyID: "enc", Use: "enc"}
	oct := jose.JSONWebKey{Key: []byte("12345678901234567890123456789012"), KeyID: "oct"}
	k, err := ParseKeys(set(t, weak, private, enc, oct, good))
	if err != nil {
		t.Fatal(err)
	}
	if k.Len() != 1 || !k.Has("good") || len(k.Ignored) != 4 {
		t.Errorf("%d keys, ignored %q", k.Len(), k.Ignored)
	}
	many := make([]jose.JSONWebKey, MaxKeys+1)
	for i := range many {
		many[i] = good
	}
	for name, text := range map[string][]byte{
		"too many":        set(t, many...),
		"too long":        []byte(`{"keys":[],"x":"` + strings.Repeat("a", MaxSetBytes) + `"}`),
		"none good":       set(t, oct),
		"empty":           []byte(`{"keys":[]}`),
		"a page":          []byte("<html>"),
		"keys no list":    []byte(`{"keys":{}}`),
		"not on curve":    []byte(`{"keys":[{"kty":"EC","crv":"P-256","x":"AQ","y":"AQ"}]}`),
		"keys are lists":  []byte(`{"keys":[[],1,"x",null]}`),
		"deep":            []byte(`{"keys":[` + strings.Repeat(`[`, 5000) + strings.Repeat(`]`, 5000) + `]}`),
		"exponent of one": fmt.Appendf(nil, `{"keys":[{"kty":"RSA","e":"AQ","n":"%s"}]}`, base64.RawURLEncoding.EncodeToString(rsaKey(t, 2048).N.Bytes())),
	} {
		if k, err := ParseKeys(text); err == nil {
			t.Errorf("%s: taken with %d keys", name, k.Len())
		}
	}
}

func TestClaimsAreFoundByNameAndByPath(t *testing.T) {
	c, err := parseClaims([]byte(`{"scope":"a b","aud":"x","roles":["r",1,true],"https://e.com/x.y":"ns","realm":{"roles":["deep"]},"exp":17e8,"nbf":"soon","o":{"a":1},"bad":"a\u0000b","commas":["a,b"],"sp":" x"}`))
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string][]string{
		"scope": {"a", "b"}, "aud": {"x"}, "roles": {"r", "1", "true"}, "https://e.com/x.y": {"ns"}, "realm.roles": {"deep"}, "o.a": {"1"},
	} {
		if got, ok := c.Values(name); !ok || !slices.Equal(got, want) {
			t.Errorf("%s is %q", name, got)
		}
	}
	if _, ok := c.Values("realm.none"); ok {
		t.Error("a claim that is not there is found")
	}
	if at, there, ok := c.Time("exp"); !there || !ok || at.Unix() != 1_700_000_000 {
		t.Errorf("exp is %v %v %v", at, there, ok)
	}
	if _, there, ok := c.Time("nbf"); !there || ok {
		t.Error("a text is taken for a date")
	}
	for name, want := range map[string]string{"roles": "r,1,true", "o": `{"a":1}`, "aud": "x"} {
		if v, ok := c.Field(name); !ok || v != want {
			t.Errorf("field of %s is %q", name, v)
		}
	}
	for _, name := range []string{"bad", "commas", "sp", "none"} {
		if v, ok := c.Field(name); ok {
			t.Errorf("%s becomes the field %q", name, v)
		}
	}
}

func FuzzParse(f *testing.F) {
	k := ec(f)
	keys := parsed(f, set(f, jose.JSONWebKey{Key: k.Public(), KeyID: "e"}))
	f.Add(sign(f, jose.ES256, k, "e", map[string]any{"sub": "1", "exp": 1e10}))
	f.Add(segment(`{"alg":"none"}`) + "." + segment(`{}`) + ".")
	f.Add(segment(`{"alg":"ES256","kid":"e","crit":["x"]}`) + "." + segment(`{"iss":[]}`) + ".AAAA")
	f.Add("ey.ey.ey")
	f.Fuzz(func(t *testing.T, text string) {
		tok, err := Parse(text)
		if err != nil {
			return
		}
		_ = tok.Issuer()
		c, err := tok.Verify(keys, Asymmetric())
		if err != nil {
			return
		}
		for _, name := range []string{"sub", "a.b", "exp", "scope"} {
			c.Values(name)
			c.Time(name)
			if v, ok := c.Field(name); ok && strings.ContainsAny(v, "\r\n\x00") {
				t.Fatalf("%q would stand in a field", v)
			}
		}
	})
}

func FuzzParseKeys(f *testing.F) {
	f.Add(set(f, jose.JSONWebKey{Key: ec(f).Public(), KeyID: "e"}))
	f.Add([]byte(`{"keys":[{"kty":"RSA","n":"AQAB","e":"AQAB"},{"kty":"OKP","crv":"Ed25519","x":"AA"}]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		k, err := ParseKeys(text)
		if err == nil && (k.Len() == 0 || k.Len() > MaxKeys) {
			t.Fatalf("%d keys", k.Len())
		}
	})
}
