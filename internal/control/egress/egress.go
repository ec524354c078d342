// Package egress asks servers whose names strangers gave: it reaches public addresses and nothing else, whatever a name
// resolves to, and reads no more than it was told.
package egress

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"syscall"
	"time"
)

// maxHead bounds the fields of an answer.
const maxHead = 16 << 10

// ErrAddress says that a name leads to an address that is not public.
var ErrAddress = errors.New("not a public address")

// ErrScheme says that a URL is not of a scheme that may be asked.
var ErrScheme = errors.New("not https")

// reserved are blocks that the standard library has no word for (RFC 6890): shared, benchmarks, documentation, 6to4,
// NAT64 and the like lead to somewhere else than they say.
func reserved() []string {
	return []string{
		"0.0.0.0/8", "100.64.0.0/10", "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24",
		"240.0.0.0/4", "64:ff9b::/96", "64:ff9b:1::/48", "100::/64", "2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20",
	}
}

// Public says whether an address is one of the public Internet.
func Public(a netip.Addr) bool {
	if !a.IsGlobalUnicast() || a.IsPrivate() {
		return false
	}
	for _, p := range reserved() {
		if netip.MustParsePrefix(p).Contains(a) {
			return false
		}
	}
	return true
}

// Transport makes a transport that dials public addresses, and those that allowed says; nil: none. It knows no proxy: that
// would resolve names by itself.
func Transport(allowed func(netip.Addr) bool, timeout time.Duration) *http.Transport {
	dialer := &net.Dialer{Timeout: timeout, Control: func(_, address string, _ syscall.RawConn) error {
		at, err := netip.ParseAddrPort(address)
		if err != nil {
			return fmt.Errorf("egress: %w", err)
		}
		// Asked after the name was resolved, of the very address that is dialled: a second answer of DNS changes nothing.
		if a := at.Addr().Unmap(); !Public(a) && (allowed == nil || !allowed(a)) {
			return fmt.Errorf("egress: %s is %w", a, ErrAddress)
		}
		return nil
	}}
	return &http.Transport{
		DialContext: dialer.DialContext, DisableKeepAlives: true, MaxResponseHeaderBytes: maxHead, ResponseHeaderTimeout: timeout,
		TLSHandshakeTimeout: timeout,
	}
}

// Secure lets https through to a transport, and plain http to loopback addresses where that is said; it follows what a
// request names and nothing else. Answers end with an error beyond most bytes.
func Secure(next http.RoundTripper, loopback bool, most int64) http.RoundTripper {
	return &secure{next, loopback, most}
}

type secure struct {
	next     http.RoundTripper
	loopback bool
	most     int64
}

// RoundTrip implements http.RoundTripper.
func (s *secure) RoundTrip(r *http.Request) (*http.Response, error) {
	if err := CheckURL(r.URL, s.loopback); err != nil {
		return nil, err
	}
	a, err := s.next.RoundTrip(r)
	if err == nil {
		a.Body = http.MaxBytesReader(nil, a.Body, s.most)
	}
	return a, err
}

// CheckURL takes https URLs of a host, and http ones of loopback addresses where that is said.
func CheckURL(u *url.URL, loopback bool) error {
	at, err := netip.ParseAddr(u.Hostname())
	local := loopback && err == nil && at.IsLoopback()
	if u.Host == "" || u.User != nil || u.Scheme != "https" && !(local && u.Scheme == "http") {
		return fmt.Errorf("egress: %s://%s is %w", u.Scheme, u.Host, ErrScheme)
	}
	return nil
}
