package listen

import (
	"context"
	"errors"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	v1 "github.com/relais-edge/relais/api/v1"

	"github.com/relais-edge/relais/internal/http/http3"
)

// place is what an endpoint is bound to. Listeners with port 0 do not share it: key is
// theirs then, and empty for others.
type place struct{ network, address, key string }

// endpoint is one socket. The settings of its listener change under it.
type endpoint struct {
	m     *Manager
	place place
	tcp   *net.TCPListener // or
	udp   *net.UDPConn
	quic  *http3.Listener // on udp
	// inherited says that another process opened the socket.
	inherited bool
	current   atomic.Pointer[Active]

	leaving atomic.Bool
	conns   sync.WaitGroup
	over    chan struct{} // closed when nothing more is accepted
	gone    chan struct{} // closed when the drain is over
	aborted chan struct{} // closed to cut the drain short
	once    sync.Once     // of aborted

	// Set by start, guarded by m.mu.
	cancel context.CancelFunc // ends connections at once
	hush   context.CancelFunc // ends those that have not said anything yet
	resume func(*visit, func(context.Context))
}

func (e *endpoint) addr() net.Addr {
	if e.tcp != nil {
		return e.tcp.Addr()
	}
	return e.udp.LocalAddr()
}

// start begins to accept; m.mu is held.
func (e *endpoint) start(ctx context.Context) {
	if e.cancel != nil {
		return
	}
	ctx, e.cancel = context.WithCancel(ctx)
	quiet, hush := context.WithCancel(ctx)
	e.hush = hush
	e.resume = func(v *visit, serve func(context.Context)) {
		go func() {
			defer v.rescue()
			serve(ctx)
		}()
	}
	e.m.wg.Go(func() {
		defer e.conns.Wait()
		defer close(e.over)
		if e.tcp != nil {
			e.accept(ctx, quiet)
			return
		}
		stop := context.AfterFunc(ctx, func() { _ = e.quic.Close() })
		defer stop()
		if err := e.quic.Serve(ctx); err != nil && ctx.Err() == nil {
			e.m.cfg.Logger.Error("HTTP/3 has stopped on an address", "address", e.place.address, "err", err)
		}
	})
}

// close gives the socket up.
func (e *endpoint) close() {
	if e.tcp != nil {
		_ = e.tcp.Close()
		return
	}
	_ = e.quic.Close()
}

// abort cuts a drain short.
func (e *endpoint) abort() { e.once.Do(func() { close(e.aborted) }) }

// enter counts a connection in with the current settings.
func (e *endpoint) enter() *Active {
	for {
		if a := e.current.Load(); a.enter() {
			return a
		}
	}
}

// backlog is how long connections that the system has accepted already are still taken
// over when a listener leaves.
const backlog = 20 * time.Millisecond

// shut stops accepting over TCP and frees the address. What the system has accepted already is
// taken over, unless another process has the socket and so takes that; m.mu is held.
func (e *endpoint) shut() {
	if e.tcp == nil {
		return
	}
	if e.cancel != nil {
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

// leave lets what is under way end, for at most the drain timeout, after shut. Over UDP the
// socket is closed after that, because the connections need it. Handed says that another
// process accepts in its place.
func (e *endpoint) leave(cancel, hush context.CancelFunc, handed bool) {
	defer close(e.gone)
	if cancel == nil {
		e.close()
		return
	}
	defer cancel()
	done := make(chan struct{})
	if e.tcp == nil {
		e.quic.Drain()
	}
	go func() {
		<-e.over
		e.conns.Wait()
		close(done)
	}()
	drain := v1.Value(e.current.Load().Spec.Timeouts.Drain).Std()
	limit := time.NewTimer(drain)
	defer limit.Stop()
	if e.tcp != nil {
		grace := stopGrace
		if handed {
			grace = idleGrace
		}
		e.all((*Active).retire)
		waitFor(done, e.aborted, min(grace, drain/2))
		hush()
		e.all((*Active).drain)
	}
	select {
	case <-done:
	case <-limit.C:
		e.m.cfg.Logger.Warn("the drain timeout is over; what was under way is cut off", "listener", e.current.Load().Key, "address", e.place.address)
	case <-e.aborted:
	}
	cancel()
	<-done
	e.close()
}

// waitFor waits until done or aborted, and no longer than most.
func waitFor(done, aborted <-chan struct{}, most time.Duration) {
	t := time.NewTimer(most)
	defer t.Stop()
	select {
	case <-done:
	case <-aborted:
	case <-t.C:
	}
}

// all calls do for the settings of all connections that came in here.
func (e *endpoint) all(do func(*Active)) {
	e.m.mu.Lock()
	defer e.m.mu.Unlock()
	for _, a := range e.m.actives {
		if a.place("tcp") == e.place {
			do(a)
		}
	}
}

const (
	firstPause = 5 * time.Millisecond
	lastPause  = time.Second
)

// accept takes connections until the socket is closed or the endpoint leaves.
func (e *endpoint) accept(ctx, quiet context.Context) {
	pause, said := time.Duration(0), time.Time{}
	for {
		nc, err := e.tcp.AcceptTCP()
		if err != nil {
			if errors.Is(err, net.ErrClosed) || ctx.Err() != nil || e.leaving.Load() && errors.Is(err, os.ErrDeadlineExceeded) {
				return
			}
			// Most likely there is no descriptor left: wait for connections to end.
			a := e.current.Load()
			a.series.refused[refuseFiles].Inc()
			if now := time.Now(); now.Sub(said) > 10*time.Second {
				said = now
				e.m.cfg.Logger.Error("connections cannot be accepted; raise the limit of open files (ulimit -n, LimitNOFILE) if it is reached",
					"listener", a.Key, "err", err)
			}
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
		a := e.enter()
		if refused := a.enterTCP(); refused != "" {
			a.refuse(nc, refused)
			a.exit()
			continue
		}
		e.conns.Add(1)
		v := &visit{e: e, a: a, nc: nc}
		go v.serve(ctx, quiet)
	}
}

// refuse closes a connection without a word, and without leaving anything in the system.
func (a *Active) refuse(nc *net.TCPConn, reason string) {
	a.series.refused[reason].Inc()
	_ = nc.SetLinger(0)
	_ = nc.Close()
}
