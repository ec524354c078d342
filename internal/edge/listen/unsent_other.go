//go:build !linux

package listen

import "syscall"

func boundUnsent(syscall.RawConn) error { return nil }
