//go:build unix

package origin

import (
	"net/netip"
	"runtime"
	"syscall"
)

// bindNoPort (IP_BIND_ADDRESS_NO_PORT of Linux) leaves the port to connect, so that it need only be
// free for this origin.
const bindNoPort = 24

func bind(fd uintptr, from netip.Addr) error {
	if runtime.GOOS == "linux" {
		_ = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_IP, bindNoPort, 1)
	}
	if from.Is4() {
		return syscall.Bind(int(fd), &syscall.SockaddrInet4{Addr: from.As4()})
	}
	return syscall.Bind(int(fd), &syscall.SockaddrInet6{Addr: from.As16()})
}
