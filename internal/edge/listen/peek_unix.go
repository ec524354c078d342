//go:build unix

package listen

import (
	"io"
	"net"
	"syscall"
)

// peek looks at the first bytes of a connection until enough says so or buf is full, and
// leaves them there: what is behind gets the plain TCP connection, which it can read with
// no layer in between. The connection to go on with is returned.
func peek(nc net.Conn, buf []byte, enough func([]byte) bool) ([]byte, net.Conn, error) {
	tc, ok := nc.(*net.TCPConn)
	if !ok {
		return peekAny(nc, buf, enough)
	}
	raw, err := tc.SyscallConn()
	if err != nil {
		return nil, nc, err
	}
	n := 0
	var failed error
	err = raw.Read(func(fd uintptr) bool {
		for {
			m, _, err := syscall.Recvfrom(int(fd), buf, syscall.MSG_PEEK)
			switch {
			case err == syscall.EINTR:
				continue
			case err == syscall.EAGAIN:
				return false
			case err != nil:
				failed = err
			case m <= 0:
				failed = io.EOF
			default:
				n = m
				return n == len(buf) || enough(buf[:n])
			}
			return true
		}
	})
	if err == nil {
		err = failed
	}
	return buf[:n], nc, err
}
