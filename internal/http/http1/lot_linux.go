package http1

import (
	"os"
	"sync"
	"syscall"
)

// lot is where parked connections stand: an epoll instance, which itself waits in the
// runtime's poller, so that no thread is held.
type lot struct {
	file *os.File
	raw  syscall.RawConn
	fd   int

	mu    sync.Mutex
	conns []*serverConn // by descriptor
}

// lotBatch is how many connections are woken with one call.
const lotBatch = 128

func newLot() (*lot, error) {
	fd, err := syscall.EpollCreate1(syscall.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	if err := syscall.SetNonblock(fd, true); err != nil { // for the runtime's poller
		_ = syscall.Close(fd)
		return nil, os.NewSyscallError("fcntl", err)
	}
	l := &lot{file: os.NewFile(uintptr(fd), "epoll"), fd: fd}
	if l.raw, err = l.file.SyscallConn(); err != nil {
		_ = l.file.Close()
		return nil, err
	}
	return l, nil
}

// put has c woken when its descriptor is ready.
func (l *lot) put(fd int, c *serverConn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for fd >= len(l.conns) {
		l.conns = append(l.conns, nil)
	}
	l.conns[fd] = c
}

// remove forgets c; its descriptor is about to be closed.
func (l *lot) remove(fd int, c *serverConn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if fd < len(l.conns) && l.conns[fd] == c {
		l.conns[fd] = nil
	}
}

// watch has a socket watched until it is ready once. Known says that it was watched before.
func (l *lot) watch(raw syscall.RawConn, known bool) bool {
	ok := false
	// Both are held open by Control: a descriptor that is closed meanwhile may be another's.
	_ = l.raw.Control(func(epoll uintptr) {
		_ = raw.Control(func(fd uintptr) {
			op := syscall.EPOLL_CTL_ADD
			if known {
				op = syscall.EPOLL_CTL_MOD
			}
			ev := syscall.EpollEvent{Events: syscall.EPOLLIN | syscall.EPOLLRDHUP | syscall.EPOLLONESHOT, Fd: int32(fd)}
			err := syscall.EpollCtl(int(epoll), op, int(fd), &ev)
			if err == syscall.ENOENT || err == syscall.EEXIST {
				op ^= syscall.EPOLL_CTL_ADD ^ syscall.EPOLL_CTL_MOD
				err = syscall.EpollCtl(int(epoll), op, int(fd), &ev)
			}
			ok = err == nil
		})
	})
	return ok
}

// run wakes connections until the lot is closed.
func (l *lot) run() {
	var events [lotBatch]syscall.EpollEvent
	var ready [lotBatch]*serverConn
	for {
		n := 0
		err := l.raw.Read(func(fd uintptr) bool {
			for {
				var err error
				n, err = syscall.EpollWait(int(fd), events[:], 0)
				if err != syscall.EINTR {
					return n != 0
				}
			}
		})
		if err != nil || n < 0 {
			return
		}
		l.mu.Lock()
		for i, e := range events[:n] {
			// The descriptor may have been closed since and be another connection's: that is
			// woken for nothing, and parks again.
			if ready[i] = nil; int(e.Fd) < len(l.conns) {
				ready[i] = l.conns[e.Fd]
			}
		}
		l.mu.Unlock()
		for i, c := range ready[:n] {
			if c != nil {
				c.wake()
			}
			ready[i] = nil
		}
	}
}

// close ends run.
func (l *lot) close() { _ = l.file.Close() }
