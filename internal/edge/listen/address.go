package listen

import (
	"bytes"
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/http/syntax"
)

// ranges are sorted, disjoint ranges of addresses.
type ranges []addrRange

type addrRange struct{ first, last netip.Addr }

// newRanges makes ranges of prefixes; a plain address is a prefix too.
func newRanges(prefixes []string) (ranges, error) {
	var rs ranges
	for _, s := range prefixes {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			a, aerr := netip.ParseAddr(s)
			if aerr != nil {
				return nil, fmt.Errorf("%q is not a network; write it as 10.0.0.0/8 or 2001:db8::/32", s)
			}
			p = netip.PrefixFrom(a, a.BitLen())
		}
		if p.Addr().Is4In6() && p.Bits() >= 96 {
			p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
		}
		p = p.Masked()
		rs = append(rs, addrRange{p.Addr(), lastOf(p)})
	}
	slices.SortFunc(rs, func(a, b addrRange) int {
		return cmp.Or(a.first.Compare(b.first), b.last.Compare(a.last))
	})
	// Prefixes are nested or disjoint, so what is inside the last one kept can go.
	keep := rs[:0]
	for _, r := range rs {
		if n := len(keep); n == 0 || keep[n-1].last.Compare(r.last) < 0 {
			keep = append(keep, r)
		}
	}
	return keep, nil
}

func lastOf(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for i := range b {
		switch n := p.Bits() - 8*i; {
		case n <= 0:
			b[i] = 0xff
		case n < 8:
			b[i] |= 0xff >> n
		}
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

// contains says whether a is in one of the ranges. A must be unmapped.
func (rs ranges) contains(a netip.Addr) bool {
	lo, hi := 0, len(rs)
	for lo < hi {
		mid := int(uint(lo+hi) >> 1)
		if rs[mid].first.Compare(a) <= 0 {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return lo > 0 && a.Compare(rs[lo-1].last) <= 0 && a.BitLen() == rs[lo-1].last.BitLen()
}

// source is the request field that a trusted proxy fills.
type source uint8

const (
	fromForwardedFor source = iota
	fromRealIP
	fromForwarded
	fromSingle // another field that holds one address
)

func sourceOf(field string) source {
	switch {
	case strings.EqualFold(field, "X-Real-IP"):
		return fromRealIP
	case strings.EqualFold(field, "Forwarded"):
		return fromForwarded
	case field == "" || strings.EqualFold(field, "X-Forwarded-For"):
		return fromForwardedFor
	}
	return fromSingle
}

// maxHops bounds how many proxies a field may name.
const maxHops = 64

// Client is the visitor's address: the connection's, or, when that is a trusted proxy's,
// what the proxy said in the field that the listener reads. Of a list, the last address
// that is not a trusted proxy's counts: what is before it, the visitor may have made up.
// A field that is absent or malformed leaves the connection's address.
func (a *Active) Client(req *message.Request) netip.Addr {
	conn := req.Conn.Client
	if len(a.trusted) == 0 || !a.trusted.contains(conn) {
		return conn
	}
	found, ok := netip.Addr{}, false
	switch a.source {
	case fromRealIP:
		if req.Count(message.XRealIP) == 1 {
			found, ok = parseHop(syntax.Trim(req.Get(message.XRealIP)))
		}
	case fromForwardedFor:
		found, ok = a.walk(req, message.XForwardedFor, parseHop)
	case fromForwarded:
		found, ok = a.walk(req, message.Forwarded, parseForwarded)
	case fromSingle:
		var value []byte
		if value, ok = single(req, a.Spec.ClientAddress.Field); ok {
			found, ok = parseHop(syntax.Trim(value))
		}
	}
	if !ok {
		return conn
	}
	return found
}

// Trusts says whether the connection is from a trusted proxy.
func (a *Active) Trusts(conn *message.Conn) bool {
	return len(a.trusted) > 0 && a.trusted.contains(conn.Client)
}

// single lends the value of a field that stands once.
func single(req *message.Request, name string) (value []byte, ok bool) {
	for i := range req.Len() {
		if _, n, v := req.At(i); message.EqualFold(n, name) {
			if ok {
				return nil, false
			}
			value, ok = v, true
		}
	}
	return value, ok
}

// Field is the request field of the visitor's address, when it is one of the listener's own choice; empty
// for those that everybody knows.
func (a *Active) Field() string {
	if a.source == fromSingle {
		return a.Spec.ClientAddress.Field
	}
	return ""
}

// walk goes through the elements of a list field from its end.
func (a *Active) walk(req *message.Request, id message.ID, parse func([]byte) (netip.Addr, bool)) (last netip.Addr, ok bool) {
	hops := 0
	for i := req.Len() - 1; i >= 0; i-- {
		fid, _, list := req.At(i)
		if fid != id {
			continue
		}
		for more := true; more; hops++ {
			if hops == maxHops {
				return netip.Addr{}, false
			}
			var item []byte
			item, list, more = cutLast(list)
			addr, good := parse(item)
			if !good {
				return netip.Addr{}, false
			}
			if last, ok = addr, true; !a.trusted.contains(addr) {
				return last, true
			}
		}
	}
	return last, ok
}

// cutLast cuts the last element off a comma-separated list. A comma in a quoted string
// would split it, and then neither part is an address, which is what it deserves.
func cutLast(list []byte) (item, rest []byte, more bool) {
	i := bytes.LastIndexByte(list, ',')
	return syntax.Trim(list[i+1:]), list[:max(i, 0)], i >= 0
}

// parseForwarded finds the for parameter of an element of Forwarded (RFC 7239 section 4).
func parseForwarded(element []byte) (netip.Addr, bool) {
	for len(element) > 0 {
		pair := element
		if i := bytes.IndexByte(element, ';'); i >= 0 {
			pair, element = element[:i], element[i+1:]
		} else {
			element = nil
		}
		pair = syntax.Trim(pair)
		if len(pair) < 4 || !message.EqualFold(pair[:4], "for=") {
			continue
		}
		node := pair[4:]
		if n := len(node); n >= 2 && node[0] == '"' && node[n-1] == '"' {
			node = node[1 : n-1]
		}
		return parseHop(node)
	}
	return netip.Addr{}, false
}

// parseHop reads an address, with or without a port: 192.0.2.1, 192.0.2.1:80, 2001:db8::1,
// [2001:db8::1]:80. An IPv4 address in an IPv6 one is unmapped.
func parseHop(b []byte) (netip.Addr, bool) {
	if len(b) > 0 && b[0] == '[' {
		end := bytes.IndexByte(b, ']')
		if end < 0 || end+1 < len(b) && !isPort(b[end+1:]) {
			return netip.Addr{}, false
		}
		a, ok := parseIPv6(b[1:end])
		return a.Unmap(), ok
	}
	if i := bytes.IndexByte(b, ':'); i >= 0 && bytes.IndexByte(b, '.') >= 0 && bytes.LastIndexByte(b, ':') == i {
		if !isPort(b[i:]) {
			return netip.Addr{}, false
		}
		b = b[:i]
	}
	return parseIP(b)
}

func isPort(b []byte) bool {
	if len(b) < 2 || len(b) > 6 || b[0] != ':' {
		return false
	}
	for _, c := range b[1:] {
		if c < '0' || c > '9' {
			return false
		}
	}
	return true
}

// parseIP is netip.ParseAddr for bytes, without zones, unmapped; it allocates nothing.
func parseIP(b []byte) (netip.Addr, bool) {
	if bytes.IndexByte(b, ':') >= 0 {
		a, ok := parseIPv6(b)
		return a.Unmap(), ok
	}
	v4, ok := parseIPv4(b)
	return netip.AddrFrom4(v4), ok
}

func parseIPv4(b []byte) (a [4]byte, ok bool) {
	for i := range a {
		n, digits := 0, 0
		for len(b) > 0 && b[0] >= '0' && b[0] <= '9' {
			if digits++; digits > 3 || digits == 2 && n == 0 {
				return a, false
			}
			n = n*10 + int(b[0]-'0')
			b = b[1:]
		}
		if digits == 0 || n > 255 {
			return a, false
		}
		a[i] = byte(n)
		if i < 3 {
			if len(b) == 0 || b[0] != '.' {
				return a, false
			}
			b = b[1:]
		}
	}
	return a, len(b) == 0
}

func parseIPv6(b []byte) (netip.Addr, bool) {
	var a [16]byte
	n, gap := 0, -1
	if len(b) >= 2 && b[0] == ':' && b[1] == ':' {
		gap, b = 0, b[2:]
	}
	for len(b) > 0 {
		if n == 16 {
			return netip.Addr{}, false
		}
		group, digits := uint(0), 0
		for digits < len(b) {
			d, ok := syntax.Unhex(b[digits])
			if !ok {
				break
			}
			if digits++; digits > 4 {
				return netip.Addr{}, false
			}
			group = group<<4 | uint(d)
		}
		if digits < len(b) && b[digits] == '.' {
			v4, ok := parseIPv4(b)
			if !ok || n > 12 || gap < 0 && n != 12 {
				return netip.Addr{}, false
			}
			n += copy(a[n:], v4[:])
			break
		}
		if digits == 0 {
			return netip.Addr{}, false
		}
		a[n], a[n+1] = byte(group>>8), byte(group)
		n += 2
		if b = b[digits:]; len(b) == 0 {
			break
		}
		if b[0] != ':' || len(b) == 1 {
			return netip.Addr{}, false
		}
		if b = b[1:]; b[0] == ':' {
			if gap >= 0 {
				return netip.Addr{}, false
			}
			gap, b = n, b[1:]
		}
	}
	if (n < 16) != (gap >= 0) {
		return netip.Addr{}, false
	}
	if gap >= 0 {
		copy(a[16-(n-gap):], a[gap:n])
		clear(a[gap : 16-(n-gap)])
	}
	return netip.AddrFrom16(a), true
}
