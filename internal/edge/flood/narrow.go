package flood

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/relais-edge/relais/internal/stage"
)

// narrow leaves of queries the parameters that a site knows, below some paths.
type narrow struct {
	scopes     []stage.Scope
	parameters []string
}

// newNarrow compiles the policy's list; nil when it names no path.
func newNarrow(paths, parameters []string) *narrow {
	if len(paths) == 0 {
		return nil
	}
	n := &narrow{parameters: parameters}
	for _, p := range paths {
		n.scopes = append(n.scopes, stage.NewScope(p, []string{"GET", "HEAD"}))
	}
	return n
}

// apply narrows the query of x, if it has a parameter that nobody knows.
func (n *narrow) apply(x *stage.Exchange) bool {
	query := x.In.Query()
	if len(query) == 0 || !slices.ContainsFunc(n.scopes, func(s stage.Scope) bool { return s.Holds(x) }) {
		return false
	}
	kept := x.QueryMemory()
	for rest := query; len(rest) > 0; {
		end := 0
		for end < len(rest) && rest[end] != '&' {
			end++
		}
		if p := rest[:end]; n.knows(p) {
			if len(kept) > 0 {
				kept = append(kept, '&')
			}
			kept = append(kept, p...)
		}
		rest = rest[min(end+1, len(rest)):]
	}
	if len(kept) == len(query) {
		return false
	}
	x.Narrow(kept)
	return true
}

// knows says whether a parameter, name=value, is one of the site's. A name that is written with escapes is not.
func (n *narrow) knows(p []byte) bool {
	end := 0
	for end < len(p) && p[end] != '=' {
		end++
	}
	for _, name := range n.parameters {
		if prefix, ok := strings.CutSuffix(name, "*"); ok && end >= len(prefix) && string(p[:len(prefix)]) == prefix || string(p[:end]) == name {
			return true
		}
	}
	return false
}

// trusted are networks that are never judged, in order of their addresses and without overlap.
type trusted struct{ from, to []netip.Addr }

// newTrusted compiles networks; nil when there are none. What cannot be read is left out: documents are checked
// before.
func newTrusted(list []string) *trusted {
	var all []netip.Prefix
	for _, text := range list {
		p, err := netip.ParsePrefix(text)
		if a, bad := netip.ParseAddr(text); err != nil && bad == nil {
			p, err = netip.PrefixFrom(a, a.BitLen()), nil
		}
		if err == nil {
			all = append(all, p.Masked())
		}
	}
	if len(all) == 0 {
		return nil
	}
	slices.SortFunc(all, func(a, b netip.Prefix) int {
		if c := a.Addr().Compare(b.Addr()); c != 0 {
			return c
		}
		return a.Bits() - b.Bits()
	})
	t := &trusted{}
	for _, p := range all {
		if n := len(t.to); n > 0 && p.Addr().Compare(t.to[n-1]) <= 0 {
			continue
		}
		t.from, t.to = append(t.from, p.Addr()), append(t.to, last(p))
	}
	return t
}

// last is the last address of a network.
func last(p netip.Prefix) netip.Addr {
	b := p.Addr().As16()
	bits := p.Bits()
	if p.Addr().Is4() {
		bits += 96
	}
	for i := bits; i < 128; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	a := netip.AddrFrom16(b)
	if p.Addr().Is4() {
		return a.Unmap()
	}
	return a
}

// has says whether an address is in one of the networks.
func (t *trusted) has(a netip.Addr) bool {
	if t == nil {
		return false
	}
	i, found := slices.BinarySearchFunc(t.from, a.Unmap(), netip.Addr.Compare)
	if found {
		return true
	}
	return i > 0 && a.Unmap().Compare(t.to[i-1]) <= 0
}
