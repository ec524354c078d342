//go:build !linux || !(386 || amd64 || arm || arm64 || loong64 || mips64le || mipsle || ppc64le || riscv64)

package packet

import (
	"errors"
	"runtime"
)

func openXDP(*Config, *guard) (kernel, error) {
	return nil, errors.New("the XDP program is for little-endian Linux; this is " + runtime.GOOS + " on " + runtime.GOARCH)
}
