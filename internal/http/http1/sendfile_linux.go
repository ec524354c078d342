//go:build amd64 || arm64 || riscv64 || loong64 || ppc64le

package http1

import (
	"syscall"
	"unsafe"
)

// kernelFiles says that sendFile works here.
const kernelFiles = true

// sendFile sends up to n bytes of a file from off on to a socket that does not block. What is not in
// the page cache is read, and the scheduler is told that this may take long.
func sendFile(sock, file uintptr, off, n int64) (int, error) {
	var sent uintptr
	var e syscall.Errno
	if cached(file, off, n) {
		sent, _, e = syscall.RawSyscall6(syscall.SYS_SENDFILE, sock, file, uintptr(unsafe.Pointer(&off)), uintptr(n), 0, 0)
	} else {
		sent, _, e = syscall.Syscall6(syscall.SYS_SENDFILE, sock, file, uintptr(unsafe.Pointer(&off)), uintptr(n), 0, 0)
	}
	if e != 0 {
		return 0, e
	}
	return int(sent), nil
}

// sysCachestat has the same number everywhere; Linux 6.5 and later.
const sysCachestat = 451

// cached says that a file's bytes are in the page cache, as far as is known.
func cached(file uintptr, off, n int64) bool {
	const page = 4 << 10 // where pages are larger there are fewer of them, and the scheduler is told
	span := [2]uint64{uint64(off), uint64(n)}
	var stat [5]uint64 // cached, dirty, being written, evicted, evicted recently
	_, _, e := syscall.RawSyscall6(sysCachestat, file, uintptr(unsafe.Pointer(&span)), uintptr(unsafe.Pointer(&stat)), 0, 0, 0)
	return e == 0 && stat[0] >= uint64((off+n-1)/page-off/page+1)
}

// readFile reads from a file as io.ReaderAt does, but for the error at its end.
func readFile(file uintptr, p []byte, off int64) (int, error) {
	for {
		n, err := syscall.Pread(int(file), p, off)
		if err != syscall.EINTR {
			return n, err
		}
	}
}
