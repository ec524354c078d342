//go:build !386 && !s390x

package http1

import (
	"syscall"
	"unsafe"
)

// The calls below are for sockets that do not block, so the scheduler need not be told that a
// call begins and ends; that is worth a twentieth of a hit's cost. This file is the only one
// that makes raw calls.

func rawRead(fd uintptr, b []byte) (int, error) {
	n, _, e := syscall.RawSyscall6(syscall.SYS_RECVFROM, fd, uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)), 0, 0, 0)
	if e != 0 {
		return 0, e
	}
	return int(n), nil
}

func rawWrite(fd uintptr, b []byte) (int, error) {
	n, _, e := syscall.RawSyscall6(syscall.SYS_SENDTO, fd, uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)), syscall.MSG_NOSIGNAL, 0, 0)
	if e != 0 {
		return 0, e
	}
	return int(n), nil
}

// rawVectors says that a vector can be sent so.
const rawVectors = true

// vector is what the kernel is told of three pieces.
type vector struct {
	iov [3]syscall.Iovec
	msg syscall.Msghdr
}

// send writes some of the pieces to a socket that does not block.
func (v *vector) send(fd uintptr, pieces *[3][]byte) (int, error) {
	for i, p := range pieces {
		v.iov[i].Base = unsafe.SliceData(p)
		v.iov[i].SetLen(len(p))
	}
	v.msg.Iov, v.msg.Iovlen = &v.iov[0], 3
	n, _, e := syscall.RawSyscall(syscall.SYS_SENDMSG, fd, uintptr(unsafe.Pointer(&v.msg)), syscall.MSG_NOSIGNAL)
	v.iov = [3]syscall.Iovec{}
	if e != 0 {
		return 0, e
	}
	return int(n), nil
}
