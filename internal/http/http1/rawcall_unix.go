//go:build unix && (!linux || 386 || s390x)

package http1

import (
	"errors"
	"syscall"
)

func rawRead(fd uintptr, b []byte) (int, error)  { return syscall.Read(int(fd), b) }
func rawWrite(fd uintptr, b []byte) (int, error) { return syscall.Write(int(fd), b) }

// rawVectors says that a vector can be sent by a raw call.
const rawVectors = false

type vector struct{}

func (*vector) send(uintptr, *[3][]byte) (int, error) { return 0, errors.ErrUnsupported }
