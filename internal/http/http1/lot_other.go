//go:build !linux

package http1

import (
	"errors"
	"syscall"
)

// lot needs Linux; elsewhere each connection keeps its goroutine.
type lot struct{}

func newLot() (*lot, error) { return nil, errors.ErrUnsupported }

func (l *lot) put(int, *serverConn) {}

func (l *lot) remove(int, *serverConn) {}

func (l *lot) watch(syscall.RawConn, bool) bool { return false }

func (l *lot) run() {}

func (l *lot) close() {}
