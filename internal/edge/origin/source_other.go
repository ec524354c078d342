//go:build !unix

package origin

import (
	"errors"
	"net/netip"
)

func bind(uintptr, netip.Addr) error {
	return errors.New("source addresses cannot be chosen on this system")
}
