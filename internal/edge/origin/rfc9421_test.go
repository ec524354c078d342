package origin

import (
	"bytes"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"strings"
	"testing"
	"time"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/http/message"
)

// signatureBase is what RFC 9421 section 2.5 makes of a request and a member of Signature-Input,
// whatever components it names. It shares nothing with the signer; the RFC's vectors prove it.
func signatureBase(req *message.Request, secure bool, member string) (string, error) {
	list, _, ok := strings.Cut(strings.TrimPrefix(member, "("), ")")
	if !ok || member[0] != '(' {
		return "", fmt.Errorf("%q is no inner list", member)
	}
	var b strings.Builder
	for _, c := range strings.Fields(list) {
		name := strings.Trim(c, `"`)
		value := ""
		switch name {
		case "@method":
			value = string(req.MethodName())
		case "@authority": // section 2.2.3
			value = strings.ToLower(string(req.Authority()))
			if secure {
				value = strings.TrimSuffix(value, ":443")
			} else {
				value = strings.TrimSuffix(value, ":80")
			}
		case "@path":
			value = string(req.Path())
		case "@query":
			value = "?" + string(req.Query())
		default: // section 2.1: values of all lines, without white space around, joined
			var values []string
			for i := range req.Len() {
				if _, n, v := req.At(i); strings.EqualFold(string(n), name) {
					values = append(values, strings.TrimSpace(string(v)))
				}
			}
			if len(values) == 0 {
				return "", fmt.Errorf("the request has no %s", name)
			}
			value = strings.Join(values, ", ")
		}
		b.WriteString(c + ": " + value + "\n")
	}
	return b.String() + `"@signature-params": ` + member, nil
}

// member finds label in a dictionary of one member, as RFC 9421 section 4 has them.
func member(t *testing.T, field []byte, label string) string {
	t.Helper()
	v, ok := strings.CutPrefix(string(field), label+"=")
	if !ok {
		t.Fatalf("%q has no %s", field, label)
	}
	return v
}

// bytesOf reads a byte sequence of RFC 8941 section 3.3.5.
func bytesOf(t *testing.T, s string) []byte {
	t.Helper()
	b, err := base64.StdEncoding.DecodeString(strings.Trim(s, ":"))
	if err != nil || len(s) < 2 || s[0] != ':' || s[len(s)-1] != ':' {
		t.Fatalf("%q: %v", s, err)
	}
	return b
}

// specimen is the request of RFC 9421 appendix B.2.
func specimen() *message.Request {
	req := &message.Request{Secure: true}
	req.SetMethod([]byte("POST"))
	req.SetAuthority([]byte("example.com"))
	req.SetPath([]byte("/foo"))
	req.SetQuery([]byte("param=Value&Pet=dog"))
	for _, l := range [][2]string{
		{"Date", "Tue, 20 Apr 2021 02:07:55 GMT"},
		{"Content-Type", "application/json"},
		{"Content-Digest", "sha-512=:WZDPaVn/7XgHaAy8pmojAkGWoRx2UFChF41A2svX+TaPm+AbwAgBWnrIiYllu7BNNyealdVLvRwEmTHWXvJwew==:"},
		{"Content-Length", "18"},
	} {
		req.AddLine([]byte(l[0]), []byte(l[1]))
	}
	return req
}

// The keys and signatures of RFC 9421 appendix B.
const (
	sharedSecret = "uzvJfB4u3N0Jy4T7NZ75MDVcr8zSTInedJtkgcu46YW4XByzNJjxBdtjUkdJPBtbmHhIDi6pcl8jsasjlTMtDQ==" // B.1.5
	edwardsKey   = "MCowBQYDK2VwAyEAJrQLj5P/89iXES9+vFgrIy29clF9CC/oPPsw3c5D0bs="                             // B.1.4

	input25     = `("date" "@authority" "content-type");created=1618884473;keyid="test-shared-secret"`
	signature25 = ":pxcQw6G3AjtMBQjwo8XzkZf/bws5LelbaMk5rGIGtE8=:"
	input26     = `("date" "@method" "@path" "@authority" "content-type" "content-length");created=1618884473;keyid="test-key-ed25519"`
	signature26 = ":wqcAqbmYJ2ji2glfAMaRy4gruYYnx2nEFN2HN6jrnDnQCK1u02Gb04v9EDgwUPiu4A0w6vuQv5lIp5WPpBKRCw==:"
)

func rfcSecret(t *testing.T) []byte {
	t.Helper()
	return bytesOf(t, ":"+sharedSecret+":")
}

func TestRFC9421AppendixB25HMACSHA256(t *testing.T) {
	base, err := signatureBase(specimen(), true, input25)
	if err != nil {
		t.Fatal(err)
	}
	const want = "\"date\": Tue, 20 Apr 2021 02:07:55 GMT\n\"@authority\": example.com\n\"content-type\": application/json\n\"@signature-params\": " + input25
	if base != want {
		t.Errorf("the base is %q", base)
	}
	// The signer's own key and algorithm give the RFC's signature of that base.
	st := newSigner(&v1.OriginSignature{KeyID: "test-shared-secret", Secret: string(rfcSecret(t))}).states.Get().(*signState)
	st.mac.Write([]byte(base))
	if got := st.mac.Sum(nil); !bytes.Equal(got, bytesOf(t, signature25)) {
		t.Errorf("the signature is %s", base64.StdEncoding.EncodeToString(got))
	}
}

func TestRFC9421AppendixB26Ed25519(t *testing.T) {
	base, err := signatureBase(specimen(), true, input26)
	if err != nil {
		t.Fatal(err)
	}
	key, err := x509.ParsePKIXPublicKey(bytesOf(t, ":"+edwardsKey+":"))
	if err != nil {
		t.Fatal(err)
	}
	if !ed25519.Verify(key.(ed25519.PublicKey), []byte(base), bytesOf(t, signature26)) {
		t.Errorf("the signature does not fit to %q", base)
	}
	other := specimen()
	other.SetPath([]byte("/bar"))
	if base, _ := signatureBase(other, true, input26); ed25519.Verify(key.(ed25519.PublicKey), []byte(base), bytesOf(t, signature26)) {
		t.Error("it fits to another path")
	}
}

// TestRFC9421Section32WhatIsSignedVerifies verifies what the signer writes with the reading of the
// RFC that its vectors have proved above.
func TestRFC9421Section32WhatIsSignedVerifies(t *testing.T) {
	secret := rfcSecret(t)
	s := newSigner(&v1.OriginSignature{KeyID: "test-shared-secret", Secret: string(secret)})
	for _, tc := range []struct {
		name   string
		secure bool
		change func(*message.Request)
	}{
		{"the specimen", true, func(*message.Request) {}},
		{"in clear", false, func(*message.Request) {}},
		{"no query", true, func(r *message.Request) { r.ClearQuery() }},
		{"an empty query", true, func(r *message.Request) { r.SetQuery(nil) }},
		{"the scheme's port", true, func(r *message.Request) { r.SetAuthority([]byte("Example.COM:443")) }},
		{"another port", false, func(r *message.Request) { r.SetAuthority([]byte("example.com:443")) }},
		{"an encoded path", true, func(r *message.Request) { r.SetPath([]byte("/a%2Fb/%C3%A9")) }},
		{"an unknown method", true, func(r *message.Request) { r.SetMethod([]byte("PURGE")) }},
	} {
		req := specimen()
		req.AddString(message.XRequestId, " id-1 ")
		tc.change(req)
		s.sign(req, tc.secure, time.Unix(1618884473, 0))
		input := member(t, req.Lookup("Signature-Input"), "relais")
		if !strings.Contains(input, `;created=1618884473;keyid="test-shared-secret";alg="hmac-sha256"`) {
			t.Errorf("%s: %q", tc.name, input)
		}
		base, err := signatureBase(req, tc.secure, input)
		if err != nil {
			t.Fatal(err)
		}
		mac := hmac.New(sha256.New, secret)
		mac.Write([]byte(base))
		if !bytes.Equal(mac.Sum(nil), bytesOf(t, member(t, req.Lookup("Signature"), "relais"))) {
			t.Errorf("%s: the signature does not fit to %q", tc.name, base)
		}
	}
}
