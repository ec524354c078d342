package v1

import (
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

func (c *checker) certificate(s *CertificateSpec) {
	n := 0
	for _, given := range []bool{s.Internal != nil, s.Files != nil, s.Inline != nil, s.ACME != nil} {
		if given {
			n++
		}
	}
	if n != 1 {
		c.add("", "gives "+strconv.Itoa(n)+" sources of the certificate", "give exactly one of internal, files, inline and acme")
	}
	if s.Internal != nil {
		c.certificateNames("internal.hostnames", s.Internal.Hostnames)
	}
	if s.Inline != nil {
		c.within("inline", func() { c.inline(s.Inline) })
	}
	if s.ACME != nil {
		c.within("acme", func() { c.acme(s.ACME) })
	}
}

func (c *checker) certificateNames(field string, names []string) {
	c.distinct(field, names)
	for i, h := range names {
		if h == "*" {
			c.add(field+"["+strconv.Itoa(i)+"]", "no certificate is valid for every host", "write the names, or *.example.com")
		}
	}
}

// inline looks at the form only, because there may be very many: what is inside is parsed when it
// is first used, and by relais validate.
func (c *checker) inline(s *CertificateInline) {
	const fix = "give PEM: the chain with the leaf first, and the leaf's key"
	if s.Certificate != "" {
		if b, _ := pem.Decode([]byte(s.Certificate)); b == nil || b.Type != "CERTIFICATE" {
			c.add("certificate", "does not begin with a certificate in PEM", fix)
		}
	}
	if s.Key != "" {
		if b, _ := pem.Decode([]byte(s.Key)); b == nil || !strings.HasSuffix(b.Type, "KEY") && b.Type != "EC PARAMETERS" {
			c.add("key", "does not begin with a key in PEM", fix)
		}
	}
}

// The challenges of RFC 8555 section 8 and RFC 8737.
const (
	ChallengeHTTP01    = "http-01"
	ChallengeTLSALPN01 = "tls-alpn-01"
	ChallengeDNS01     = "dns-01"
)

// Allowed are the challenges that may be used: those given, or what fits the rest.
func (s *ACMECertificate) Allowed() []string {
	switch {
	case len(s.Challenges) > 0:
		return s.Challenges
	case s.DNS != nil:
		return []string{ChallengeDNS01}
	}
	return []string{ChallengeTLSALPN01, ChallengeHTTP01}
}

func (c *checker) acme(s *ACMECertificate) {
	c.certificateNames("hostnames", s.Hostnames)
	c.distinct("challenges", s.Challenges)
	c.webAddress("directory", s.Directory, "https")
	allowed := s.Allowed()
	if slices.Contains(allowed, ChallengeDNS01) && s.DNS == nil {
		c.add("challenges", "has dns-01, and nothing can change DNS", "give dns.exec or dns.webhook, or remove dns-01")
	}
	if s.DNS != nil {
		if !slices.Contains(allowed, ChallengeDNS01) {
			c.add("dns", "has no effect without dns-01", "add dns-01 to challenges, or remove dns")
		}
		if (len(s.DNS.Exec) > 0) == (s.DNS.Webhook != "") {
			c.add("dns", "needs one way to change DNS", "give exactly one of exec and webhook")
		}
		c.webAddress("dns.webhook", s.DNS.Webhook, "http", "https")
	}
	for i, h := range s.Hostnames {
		at := "hostnames[" + strconv.Itoa(i) + "]"
		if p := UnfitForACME(h, s); p != "" {
			c.add(at, p, "see the challenges that acme allows")
		}
	}
	if s.CA != "" {
		c.authorities("ca", s.CA)
	}
	if s.Email != "" && (strings.Count(s.Email, "@") != 1 || strings.ContainsAny(s.Email, " ,:<>\t\r\n")) {
		c.add("email", quote(s.Email)+" is not an address for mail", "write one such as admin@example.com")
	}
	if e := s.ExternalAccount; e != nil {
		if _, err := base64.RawURLEncoding.DecodeString(e.HMAC); err != nil {
			c.add("externalAccount.hmac", "is not base64url", "copy the key as the authority shows it")
		}
	}
	if o := s.OnDemand; o != nil {
		c.webAddress("onDemand.ask", o.Ask, "http", "https")
	}
}

// UnfitForACME says why no authority will give a certificate for a host name under s; empty when
// it may. A wildcard needs dns-01 (RFC 8555 section 8.4 and the CA/Browser Forum's rules).
func UnfitForACME(host string, s *ACMECertificate) string {
	switch {
	case host == "*":
		return "no certificate is valid for every host"
	case strings.HasPrefix(host, "*.") && !slices.Contains(s.Allowed(), ChallengeDNS01):
		return fmt.Sprintf("%q is a wildcard, which needs the challenge dns-01", host)
	}
	return ""
}

// webAddress checks an absolute address; the empty one is another rule's.
func (c *checker) webAddress(field, text string, schemes ...string) {
	if text == "" {
		return
	}
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || !slices.Contains(schemes, u.Scheme) || u.User != nil || u.Fragment != "" {
		c.add(field, quote(text)+" is not an address", "write "+strings.Join(schemes, ":// or ")+"://, a host and a path")
	}
}
