package l4

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// pipe copies both ways until both sides have ended, one has failed, or nothing passes for the idle
// time. The end of one side is passed on and the other goes on (half-close). Between two TCP
// connections the system moves the bytes (splice) and says when there were some.
func (c *connection) pipe(ctx context.Context, first []byte) {
	client, origin := c.client, c.link.Conn
	stop := context.AfterFunc(ctx, func() { c.end("drain") })
	defer stop()
	var w watch
	fromClient, plain1 := client.(*net.TCPConn)
	fromOrigin, plain2 := origin.(*net.TCPConn)
	if plain1 && plain2 && canSee(fromClient) {
		w.quiet = func() time.Duration { return min(sinceReceived(fromClient), sinceReceived(fromOrigin)) }
	} else {
		w.active.Store(time.Now().UnixNano())
		w.quiet = func() time.Duration { return time.Since(time.Unix(0, w.active.Load())) }
		w.counts = true
	}
	idle := w.start(c.set.spec.Idle.Std(), func() { c.end("idle") })
	defer idle.Stop()

	n, err := origin.Write(first)
	c.Received = int64(n)
	if err != nil {
		c.broke("origin", err)
		return
	}
	var down sync.WaitGroup
	down.Go(func() {
		n, err := w.copy(client, origin)
		c.Sent += n
		if err != nil {
			c.broke("", err)
			return
		}
		_ = closeWrite(client)
	})
	m, err := w.copy(origin, client)
	c.Received += m
	if err != nil {
		c.broke("", err)
	} else {
		_ = closeWrite(origin)
	}
	down.Wait()
}

// broke ends both sides, because one of them failed. A reset is how many clients say goodbye.
func (c *connection) broke(side string, err error) {
	code := "connection_reset"
	switch {
	case side != "":
		code = "connection_terminated"
	case errors.Is(err, net.ErrClosed):
		code = ""
	case !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, syscall.EPIPE):
		code = "connection_terminated"
	}
	c.end(code)
}

// closeWrite passes on that nothing more will be sent.
func closeWrite(nc net.Conn) error {
	if h, ok := nc.(interface{ CloseWrite() error }); ok {
		return h.CloseWrite()
	}
	return nc.Close()
}

// watch finds out when nothing passes any more.
type watch struct {
	quiet  func() time.Duration // how long nothing has come from either side
	counts bool                 // copy tells active
	active atomic.Int64
}

// idleTimer calls once when it has been quiet for long enough.
type idleTimer struct {
	mu      sync.Mutex
	stopped bool
	timer   *time.Timer
}

func (w *watch) start(limit time.Duration, end func()) *idleTimer {
	t := &idleTimer{}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.timer = time.AfterFunc(limit, func() {
		left := limit - w.quiet()
		if left <= 0 {
			end()
			return
		}
		t.mu.Lock()
		defer t.mu.Unlock()
		if !t.stopped {
			t.timer.Reset(max(left, time.Millisecond))
		}
	})
	return t
}

// Stop ends the watch.
func (t *idleTimer) Stop() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.stopped = true
	t.timer.Stop()
}

const copyBuffer = 16 << 10

// copy moves bytes until src ends; its error is nil then.
func (w *watch) copy(dst, src net.Conn) (n int64, err error) {
	if !w.counts {
		return dst.(*net.TCPConn).ReadFrom(src)
	}
	buf := make([]byte, copyBuffer)
	for {
		m, rerr := src.Read(buf)
		if m > 0 {
			w.active.Store(time.Now().UnixNano())
			k, werr := dst.Write(buf[:m])
			n += int64(k)
			if werr != nil {
				return n, werr
			}
			w.active.Store(time.Now().UnixNano())
		}
		if errors.Is(rerr, io.EOF) {
			return n, nil
		}
		if rerr != nil {
			return n, rerr
		}
	}
}
