//go:build !linux

package packet

import (
	"errors"
	"runtime"
)

func openNFTables(*Config, *guard) (kernel, error) {
	return nil, errors.New("nftables is Linux's; this is " + runtime.GOOS)
}
