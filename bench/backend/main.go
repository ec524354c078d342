// Command backend is a nearly free HTTP/1.1 origin for benchmarks: one thread,
// epoll, answers made before the first request. It serves GET only:
//
//	/hit/...    may be cached for an hour
//	/proxy/...  may not be cached
//	/count      the number of answers so far, itself not counted
//
// A target that contains "64k" gets 64 KiB, any other 1 KiB. Linux only.
package main

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"runtime/debug"
	"strings"
	"syscall"
	"time"
)

func main() {
	port := flag.Int("port", 9000, "listen on this port of 127.0.0.1")
	flag.Parse()
	// Everything is allocated once; a collection would only disturb.
	debug.SetGCPercent(-1)
	debug.SetMemoryLimit(512 << 20)
	if err := newServer().run(*port); err != nil {
		fmt.Fprintln(os.Stderr, "backend:", err)
		os.Exit(1)
	}
}

const (
	readSize = 64 << 10
	maxHead  = 16 << 10 // an unfinished head longer than this ends the connection
	epollET  = 1 << 31
)

// conn is a client connection. At most one answer waits to be written; while
// it does, no further request is read.
type conn struct {
	unread []byte // requests received but not answered
	unsent []byte // rest of the answer under way
}

type server struct {
	epoll  int
	conns  map[int]*conn
	buf    []byte
	hit    sizes
	proxy  sizes
	served int
}

// sizes are the answers of one area.
type sizes struct{ small, large []byte }

func newServer() *server {
	area := func(control string) sizes {
		return sizes{small: answer(control, strings.Repeat("x", 1<<10)), large: answer(control, strings.Repeat("x", 64<<10))}
	}
	return &server{conns: map[int]*conn{}, buf: make([]byte, readSize), hit: area("max-age=86400"), proxy: area("no-store")}
}

func answer(control, body string) []byte {
	// The date of the start is good enough: caches subtract it from the lifetime.
	return fmt.Appendf(nil, "HTTP/1.1 200 OK\r\nServer: backend\r\nDate: %s\r\n"+
		"Content-Type: text/plain\r\nCache-Control: %s\r\nContent-Length: %d\r\n\r\n%s",
		time.Now().UTC().Format("Mon, 02 Jan 2006 15:04:05 GMT"), control, len(body), body)
}

// run serves until a system call that cannot fail does.
func (s *server) run(port int) error {
	listener, err := listen(port)
	if err != nil {
		return err
	}
	if s.epoll, err = syscall.EpollCreate1(0); err != nil {
		return fmt.Errorf("epoll_create1: %w", err)
	}
	if err := s.watch(listener, syscall.EPOLLIN); err != nil {
		return err
	}
	events := make([]syscall.EpollEvent, 256)
	for {
		n, err := syscall.EpollWait(s.epoll, events, -1)
		if err != nil && err != syscall.EINTR {
			return fmt.Errorf("epoll_wait: %w", err)
		}
		for _, e := range events[:max(n, 0)] {
			if int(e.Fd) == listener {
				s.accept(listener)
				continue
			}
			s.ready(int(e.Fd))
		}
	}
}

func listen(port int) (int, error) {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, fmt.Errorf("socket: %w", err)
	}
	if err := syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1); err != nil {
		return 0, fmt.Errorf("SO_REUSEADDR: %w", err)
	}
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Port: port, Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		return 0, fmt.Errorf("bind 127.0.0.1:%d: %w", port, err)
	}
	if err := syscall.Listen(fd, 4096); err != nil {
		return 0, fmt.Errorf("listen: %w", err)
	}
	return fd, nil
}

func (s *server) watch(fd int, events uint32) error {
	e := syscall.EpollEvent{Events: events, Fd: int32(fd)}
	if err := syscall.EpollCtl(s.epoll, syscall.EPOLL_CTL_ADD, fd, &e); err != nil {
		return fmt.Errorf("epoll_ctl: %w", err)
	}
	return nil
}

func (s *server) accept(listener int) {
	for {
		fd, _, err := syscall.Accept4(listener, syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC)
		if err != nil {
			return
		}
		_ = syscall.SetsockoptInt(fd, syscall.IPPROTO_TCP, syscall.TCP_NODELAY, 1)
		if s.watch(fd, syscall.EPOLLIN|syscall.EPOLLOUT|syscall.EPOLLRDHUP|epollET) != nil {
			_ = syscall.Close(fd)
			continue
		}
		s.conns[fd] = &conn{}
	}
}

// ready goes on with a connection until its socket has no more to give or to take.
func (s *server) ready(fd int) {
	c := s.conns[fd]
	if c == nil {
		return
	}
	for {
		if !s.flush(fd, c) {
			return
		}
		if s.next(fd, c) {
			continue
		}
		n, errno := rawRead(fd, s.buf)
		switch {
		case errno == syscall.EAGAIN:
			return
		case errno == syscall.EINTR:
			continue
		case errno != 0 || n == 0 || len(c.unread)+n > maxHead+readSize:
			s.close(fd)
			return
		}
		c.unread = append(c.unread, s.buf[:n]...)
	}
}

// flush writes what is left of the answer under way and tells whether all is out.
func (s *server) flush(fd int, c *conn) bool {
	for len(c.unsent) > 0 {
		n, errno := rawWrite(fd, c.unsent)
		switch {
		case errno == syscall.EAGAIN:
			return false
		case errno == syscall.EINTR:
			continue
		case errno != 0:
			s.close(fd)
			return false
		}
		c.unsent = c.unsent[n:]
	}
	return true
}

// next takes one whole request and makes its answer the one under way.
func (s *server) next(fd int, c *conn) bool {
	end := bytes.Index(c.unread, []byte("\r\n\r\n"))
	if end < 0 {
		return false
	}
	c.unsent = s.route(c.unread[:end])
	c.unread = c.unread[:copy(c.unread, c.unread[end+4:])]
	return true
}

func (s *server) route(head []byte) []byte {
	line, _, _ := bytes.Cut(head, []byte("\r\n"))
	if !bytes.HasPrefix(line, []byte("GET ")) {
		return []byte("HTTP/1.1 501 Not Implemented\r\nContent-Length: 0\r\n\r\n")
	}
	target := line[len("GET "):]
	if bytes.HasPrefix(target, []byte("/count")) {
		return answer("no-store", fmt.Sprint(s.served))
	}
	s.served++
	area := &s.proxy
	if bytes.HasPrefix(target, []byte("/hit/")) {
		area = &s.hit
	}
	if bytes.Contains(target, []byte("64k")) {
		return area.large
	}
	return area.small
}

func (s *server) close(fd int) {
	delete(s.conns, fd)
	_ = syscall.Close(fd)
}
