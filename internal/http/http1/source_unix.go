//go:build unix

package http1

import (
	"io"
	"syscall"
)

// rawReads says that readStep works here.
const rawReads = true

// readStep reads once from a socket that does not block, into a buffer taken for it; false
// when the socket has nothing. Reading before waiting, each time, is what makes this safe
// when data and the end of the other side come together.
func (s *source) readStep(fd uintptr) bool {
	b := s.pool.get(s.size)
	for {
		n, err := rawRead(fd, b.b)
		switch {
		case err == syscall.EINTR:
			continue
		case err == syscall.EAGAIN:
			s.pool.put(b)
			return false
		case err != nil:
			s.pool.put(b)
			s.err = err
		case n <= 0:
			s.pool.put(b)
			s.err = io.EOF
		default:
			b.w = n
			s.in, s.n = b, n
		}
		return true
	}
}

// socketError returns and clears the error of a socket: that the other side has reset it,
// which a FIN alone does not.
func socketError(fd uintptr) bool {
	e, err := syscall.GetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_ERROR)
	return err == nil && e != 0
}

// nothingToRead says whether a socket that does not block is open and has nothing. A byte
// that was there is lost.
func nothingToRead(fd uintptr, one []byte) bool {
	for {
		_, err := rawRead(fd, one)
		if err != syscall.EINTR {
			return err == syscall.EAGAIN
		}
	}
}

// socketQuiet says whether a socket is open and has nothing. Nothing is lost.
func socketQuiet(fd uintptr) bool {
	var one [1]byte
	_, _, err := syscall.Recvfrom(int(fd), one[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
	return err == syscall.EAGAIN
}

// writeOnce writes to a socket that does not block; again says that it has no room.
func writeOnce(fd uintptr, b []byte) (n int, again bool, err error) {
	for {
		n, err := rawWrite(fd, b)
		switch err {
		case nil:
			return n, false, nil
		case syscall.EINTR:
			continue
		case syscall.EAGAIN:
			return 0, true, nil
		}
		return 0, false, err
	}
}
