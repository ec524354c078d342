package listen

import (
	"os"
	"syscall"
)

// tcpNotsentLowat is TCP_NOTSENT_LOWAT, which package syscall does not name.
const tcpNotsentLowat = 25

// unsent is how much of an answer the kernel takes beyond what it can send now, until a client has
// shown that it reads (deadline.Room). Without it each slow reader may hold megabytes of kernel memory, and ten
// thousand of them all that the system has for TCP, which slows everybody: with 64 KiB they held 1.7 GB, and
// an ordinary client's p99 was 3.7 s; with 16 KiB 0.2 s.
const unsent = 16 << 10

// boundUnsent sets it on a listening socket, from which connections inherit it.
func boundUnsent(c syscall.RawConn) error {
	var failed error
	err := c.Control(func(fd uintptr) {
		failed = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, tcpNotsentLowat, unsent)
	})
	if err == nil && failed != nil {
		err = os.NewSyscallError("setsockopt", failed)
	}
	return err
}
