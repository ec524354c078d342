package origin

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"syscall"
)

// sources are the addresses from which an origin is dialled, by family. None means that the system chooses.
type sources struct {
	v4, v6 []netip.Addr
}

func newSources(list []string) (s sources, err error) {
	for _, text := range list {
		a, err := netip.ParseAddr(text)
		if err != nil {
			return s, fmt.Errorf("connection.sourceAddresses: %q is not an address", text)
		}
		if a = a.Unmap(); a.Is4() {
			s.v4 = append(s.v4, a)
		} else {
			s.v6 = append(s.v6, a)
		}
	}
	return s, nil
}

// choose takes one of the family at random; an invalid one when the system shall choose.
func (s *sources) choose(is4 bool) (netip.Addr, error) {
	list := s.v6
	if is4 {
		list = s.v4
	}
	switch {
	case len(s.v4)+len(s.v6) == 0:
		return netip.Addr{}, nil
	case len(list) == 0:
		return netip.Addr{}, errNoSource
	}
	return list[rand.IntN(len(list))], nil
}

// control is net.Dialer's ControlContext: it is asked with each address that is connected to, when
// names are resolved and nothing was sent yet.
func (e *endpoint) control(ctx context.Context, network, address string, raw syscall.RawConn) error {
	if err := e.guard.control(ctx, network, address, raw); err != nil {
		return err
	}
	from, err := e.source.choose(strings.HasSuffix(network, "4"))
	if err != nil || !from.IsValid() {
		return err
	}
	if cerr := raw.Control(func(fd uintptr) { err = bind(fd, from) }); cerr != nil {
		return cerr
	}
	if err != nil {
		return fmt.Errorf("connection.sourceAddresses: %s: %w; is it an address of this machine?", from, err)
	}
	return nil
}
