package l4

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// endpoint is one socket. Its router changes under it.
type endpoint struct {
	m     *Manager
	place place
	tcp   *net.TCPListener // or
	udp   *net.UDPConn
	oob   bool // datagrams come with the address that they were sent to
	// inherited says that another process opened the socket, handed that another reads it now.
	inherited bool
	handed    atomic.Bool // of UDP
	router    atomic.Pointer[router]
	leaving   atomic.Bool
	over      chan struct{} // closed when nothing more is accepted
	started   bool          // guarded by the Manager's lock

	mu       sync.Mutex
	sessions map[netip.AddrPort]*session
	opening  int
}

func (e *endpoint) addr() net.Addr {
	if e.tcp != nil {
		return e.tcp.Addr()
	}
	return e.udp.LocalAddr()
}

// start begins to receive; the Manager's lock is held.
func (e *endpoint) start(ctx context.Context) {
	if e.started {
		return
	}
	e.started = true
	e.m.wg.Go(func() {
		defer close(e.over)
		if e.tcp != nil {
			e.accept(ctx)
		} else {
			e.receive(ctx)
		}
	})
}

func (e *endpoint) close() {
	if e.tcp != nil {
		_ = e.tcp.Close()
		return
	}
	_ = e.udp.Close()
}

// backlog is how long connections that the system has accepted already are still taken over when a
// socket is given up.
const backlog = 20 * time.Millisecond

// shut stops accepting and frees the address. Connections go on. What the system has accepted
// already is another process's if that has the socket. The Manager's lock is held.
func (e *endpoint) shut() {
	if e.started {
		e.leaving.Store(true)
		until := time.Now()
		if !e.m.handed {
			until = until.Add(backlog)
		}
		_ = e.tcp.SetDeadline(until)
		<-e.over
	}
	_ = e.tcp.Close()
}

const (
	firstPause = 5 * time.Millisecond
	lastPause  = time.Second
)

// accept takes connections until the socket is closed or given up.
func (e *endpoint) accept(ctx context.Context) {
	pause := time.Duration(0)
	for {
		nc, err := e.tcp.AcceptTCP()
		r := e.router.Load()
		if err != nil {
			if errors.Is(err, net.ErrClosed) || ctx.Err() != nil || e.leaving.Load() && errors.Is(err, os.ErrDeadlineExceeded) {
				return
			}
			// Most likely there is no descriptor left: wait for connections to end.
			r.first.series.refused[refuseFiles].Inc()
			pause = min(max(firstPause, 2*pause), lastPause)
			select {
			case <-ctx.Done():
			case <-time.After(pause):
			}
			continue
		}
		pause = 0
		if e.inherited { // the listener does not set it, as one of our own does
			_ = nc.SetKeepAliveConfig(keepAlive())
		}
		e.m.wg.Go(func() { e.m.serve(ctx, r, nc) })
	}
}
