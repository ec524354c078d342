//go:build !linux

package deadline

import "syscall"

func takenBy(syscall.RawConn) (taken, bool) { return taken{}, false }

func moreUnsent(syscall.RawConn) {}
