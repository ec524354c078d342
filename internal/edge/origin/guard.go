package origin

import (
	"context"
	"fmt"
	"net/netip"
	"syscall"

	v1 "github.com/relais-edge/relais/api/v1"
)

// guard decides to which addresses a connection may be opened. It is asked with the address that
// is connected to, after names were resolved, so that there is no moment in which a name can
// point elsewhere.
type guard struct {
	public bool
	allow  []netip.Prefix
}

func newGuard(public bool, allow []string) (guard, error) {
	g := guard{public: public}
	for _, s := range allow {
		p, err := netip.ParsePrefix(s)
		if a, aerr := netip.ParseAddr(s); aerr == nil {
			p, err = netip.PrefixFrom(a, a.BitLen()), nil
		}
		if err != nil {
			return g, fmt.Errorf("connection.allow: %q is not a network; write an address and a length, such as 10.1.0.0/16", s)
		}
		g.allow = append(g.allow, p.Masked())
	}
	return g, nil
}

// Guard makes the rule of a pool's connection.public and connection.allow for net.Dialer's ControlContext, for
// whoever else opens connections to addresses that a tenant names.
func Guard(public bool, allow []string) (func(ctx context.Context, network, address string, c syscall.RawConn) error, error) {
	g, err := newGuard(public, allow)
	if err != nil {
		return nil, err
	}
	return g.control, nil
}

// notPublic4 are the IPv4 networks that are not global (IANA IPv4 Special-Purpose Address
// Registry, RFC 6890), multicast, and the one public address that a cloud uses for its host.
var notPublic4 = [...]netip.Prefix{
	prefix4(0, 0, 0, 0, 8), prefix4(10, 0, 0, 0, 8), prefix4(100, 64, 0, 0, 10), prefix4(127, 0, 0, 0, 8),
	prefix4(169, 254, 0, 0, 16), prefix4(172, 16, 0, 0, 12), prefix4(192, 0, 0, 0, 24), prefix4(192, 0, 2, 0, 24),
	prefix4(192, 88, 99, 0, 24), prefix4(192, 168, 0, 0, 16), prefix4(198, 18, 0, 0, 15), prefix4(198, 51, 100, 0, 24),
	prefix4(203, 0, 113, 0, 24), prefix4(224, 0, 0, 0, 4), prefix4(240, 0, 0, 0, 4), prefix4(168, 63, 129, 16, 32),
}

func prefix4(a, b, c, d byte, bits int) netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{a, b, c, d}), bits)
}

// check returns an error when no connection may be opened to a.
func (g *guard) check(a netip.Addr) error {
	a = a.Unmap().WithZone("")
	switch {
	case g.allowed(a):
		return nil
	case !g.public && v1.IsMetadata(embedded(a)):
		return fmt.Errorf("%v: %w", a, errMetadata)
	case !g.public || isPublic(a) && !v1.IsMetadata(embedded(a)):
		return nil
	}
	return fmt.Errorf("%v: %w", a, errProhibited)
}

// allowed says whether the pool lists an address.
func (g *guard) allowed(a netip.Addr) bool {
	for _, p := range g.allow {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// isPublic says whether a, unmapped, is a global unicast address. Of IPv6 only 2000::/3 is, less
// what is set apart in it; an address that stands for an IPv4 one (NAT64, RFC 6052; 6to4, RFC
// 3056) is as public as that.
func isPublic(a netip.Addr) bool {
	if a.Is4() {
		for _, p := range notPublic4 {
			if p.Contains(a) {
				return false
			}
		}
		return true
	}
	b := a.As16()
	word := func(i int) uint16 { return uint16(b[i])<<8 | uint16(b[i+1]) }
	switch {
	case word(0) == 0x64 && word(2) == 0xff9b && word(4)|word(6)|word(8)|word(10) == 0: // 64:ff9b::/96
		return isPublic(netip.AddrFrom4([4]byte(b[12:])))
	case word(0) == 0x2002: // 6to4
		return isPublic(netip.AddrFrom4([4]byte(b[2:6])))
	case b[0]>>5 != 1: // not in 2000::/3
		return false
	case word(0) == 0x2001 && word(2) < 0x200: // 2001::/23, Teredo and others
		return false
	case word(0) == 0x2001 && word(2) == 0xdb8, word(0) == 0x3fff && b[2]>>4 == 0: // documentation
		return false
	}
	return true
}

// embedded is the IPv4 address that a stands for, as in isPublic, or else a.
func embedded(a netip.Addr) netip.Addr {
	if a.Is4() {
		return a
	}
	b := a.As16()
	if b[0] == 0 && b[1] == 0x64 && b[2] == 0xff && b[3] == 0x9b && b[4]|b[5]|b[6]|b[7]|b[8]|b[9]|b[10]|b[11] == 0 {
		return netip.AddrFrom4([4]byte(b[12:]))
	}
	if b[0] == 0x20 && b[1] == 0x02 {
		return netip.AddrFrom4([4]byte(b[2:6]))
	}
	return a
}

// control is net.Dialer's ControlContext: it is called with each address that is connected to.
func (g *guard) control(_ context.Context, _, address string, _ syscall.RawConn) error {
	ap, err := netip.ParseAddrPort(address)
	if err != nil {
		return fmt.Errorf("%s: %w", address, errProhibited)
	}
	return g.check(ap.Addr())
}
