package v1

import (
	"encoding/json"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// minSecret is the least length of a secret that tokens are signed with, that of SHA-256 (RFC 7518
// section 3.2).
const minSecret = 32

func (c *checker) jwtPolicy(s *JwtPolicySpec) {
	c.each("issuers", len(s.Issuers), func(i int) {
		j := &s.Issuers[i]
		if j.Issuer == "" && len(s.Issuers) > 1 {
			c.add("issuer", "is required where there are several issuers", "write the iss claim of its tokens")
		}
		if slices.ContainsFunc(s.Issuers[:i], func(o JwtIssuer) bool { return o.Issuer == j.Issuer }) {
			c.add("issuer", quote(j.Issuer)+" stands twice", "join the two, or remove one")
		}
		c.jwtIssuer(j)
	})
	c.each("sources", len(s.Sources), func(i int) {
		o := &s.Sources[i]
		given := 0
		for _, v := range []string{o.Header, o.Cookie, o.Query} {
			if v != "" {
				given++
			}
		}
		if given != 1 {
			c.add("", "names "+strconv.Itoa(given)+" places", "give exactly one of header, cookie and query")
		}
		if o.Prefix != "" && o.Header == "" {
			c.add("prefix", "is for a header", "remove it")
		}
	})
}

func (c *checker) jwtIssuer(j *JwtIssuer) {
	switch {
	case j.JWKS == nil && j.Secret == "":
		c.add("", "has no keys", "give jwks or secret")
	case j.JWKS != nil && j.Secret != "":
		c.add("", "has jwks and secret at once", "give exactly one of them: a public key must never serve as a secret")
	}
	for i, a := range j.Algorithms {
		at := "algorithms[" + strconv.Itoa(i) + "]"
		if hmac := strings.HasPrefix(a, "HS"); hmac && j.Secret == "" {
			c.add(at, a+" needs a secret, and there are public keys", "remove it, or give secret in place of jwks")
		} else if !hmac && j.Secret != "" {
			c.add(at, a+" needs public keys, and there is a secret", "write HS256, HS384 or HS512, or give jwks in place of secret")
		}
	}
	c.distinct("algorithms", j.Algorithms)
	if n := len(j.Secret); n > 0 && n < minSecret {
		c.add("secret", "has only "+strconv.Itoa(n)+" bytes", "write at least 32 random bytes, such as openssl rand -hex 32 gives")
	}
	if k := j.JWKS; k != nil {
		c.within("jwks", func() { c.jwtKeys(k) })
	}
	c.each("claims", len(j.Claims), func(i int) {
		if k := &j.Claims[i]; k.Match == "all" && len(k.Values) == 0 {
			c.add("match", "has no effect without values", "give values, or remove it")
		}
	})
	c.each("forward", len(j.Forward), func(i int) {
		f := &j.Forward[i]
		c.framingField("header", f.Header)
		for _, owned := range []string{"authorization", "cookie", "client-cert", "client-cert-chain", "x-request-id"} {
			if strings.EqualFold(f.Header, owned) {
				c.add("header", quote(f.Header)+" has a meaning of its own", "choose another, such as X-User")
			}
		}
		if slices.ContainsFunc(j.Forward[:i], func(o JwtForward) bool { return strings.EqualFold(o.Header, f.Header) }) {
			c.add("header", quote(f.Header)+" stands twice", "give each claim a header of its own")
		}
	})
}

func (c *checker) jwtKeys(k *JwtKeys) {
	if (k.URL == "") == (k.Inline == "") {
		c.add("", "needs url or inline", "give exactly one of them")
	}
	if k.URL != "" {
		u, err := url.Parse(k.URL)
		if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.User != nil || u.Fragment != "" {
			c.add("url", quote(k.URL)+" is not the address of a key set", "write one such as https://auth.example.com/.well-known/jwks.json")
		}
	}
	if k.CA != "" {
		c.authorities("ca", k.CA)
	}
	if k.Inline != "" {
		var set struct {
			Keys []json.RawMessage `json:"keys"`
		}
		if err := json.Unmarshal([]byte(k.Inline), &set); err != nil || len(set.Keys) == 0 {
			c.add("inline", "is not a key set", `write JSON such as {"keys":[{"kty":"RSA","kid":"1","n":"…","e":"AQAB"}]}`)
		}
	}
}

func (c *checker) apiPolicy(s *ApiPolicySpec) {
	if d := s.Document; d != nil {
		if (d.File == "") == (d.Inline == "") {
			c.add("document", "needs file or inline", "give exactly one of them")
		}
		return
	}
	if s.Mode == ModeEnforce {
		c.add("mode", "is enforce, and there is no document to enforce", "give document, or write mode: shadow to find endpoints only")
	}
	if s.Unknown == "refuse" {
		c.add("unknown", "would refuse every request, as there is no document", "give document, or write unknown: report")
	}
	if s.Discovery == "off" {
		c.add("discovery", "is off, and there is no document, so that the policy does nothing", "give document, or write discovery: on")
	}
}

func (c *checker) clientCertificate(m *ClientCertificateMatch) {
	if len(m.DNSNames) == 0 && len(m.URIs) == 0 && len(m.Emails) == 0 && len(m.Subjects) == 0 && len(m.Issuers) == 0 && len(m.Fingerprints) == 0 && !m.Any {
		c.add("", "names nothing of a certificate", "give dnsNames, uris, emails, subjects, issuers or fingerprints, or any: true for every verified certificate")
	}
	for _, l := range []struct {
		name string
		list []string
	}{{"dnsNames", m.DNSNames}, {"uris", m.URIs}, {"emails", m.Emails}, {"subjects", m.Subjects}, {"issuers", m.Issuers}} {
		for i, p := range l.list {
			if strings.Count(p, "*") > 1 {
				c.add(l.name+"["+strconv.Itoa(i)+"]", quote(p)+" has more than one *", "write one * at most; it stands for any text")
			}
		}
	}
	for i, f := range m.Fingerprints {
		if len(f) != 64 || strings.Trim(strings.ToLower(f), "0123456789abcdef") != "" {
			c.add("fingerprints["+strconv.Itoa(i)+"]", quote(f)+" is not a SHA-256 fingerprint", "write 64 hexadecimal digits without colons, of the certificate in DER")
		}
	}
}
