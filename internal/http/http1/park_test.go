//go:build linux

package http1

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/relais-edge/relais/internal/http/deadline"

	"github.com/relais-edge/relais/internal/http/message"
)

// bed serves connections that may park.
type bed struct {
	t      testing.TB
	s      *Server
	addr   string
	cancel context.CancelFunc // of the connections
	stop   func()             // ends Run
	closed atomic.Int64
	woken  atomic.Int64
}

// guest is the Keeper of one connection.
type guest struct {
	b    *bed
	ctx  context.Context
	over atomic.Bool
}

func (g *guest) Resume(serve func(context.Context)) {
	g.b.woken.Add(1)
	go serve(g.ctx)
}

func (g *guest) Closed() {
	if g.over.Swap(true) {
		g.b.t.Error("a connection has ended twice")
	}
	g.b.closed.Add(1)
}

func newBed(t testing.TB, cfg ServerConfig, h Handler) *bed {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b := &bed{t: t, s: NewServer(cfg, h), addr: l.Addr().String()}
	ctx, cancel := context.WithCancel(context.Background())
	running, stop := context.WithCancel(context.Background())
	b.cancel = cancel
	ran, accepted := make(chan struct{}), make(chan struct{})
	b.stop = sync.OnceFunc(func() { stop(); <-ran })
	go func() { _ = b.s.Run(running); close(ran) }()
	var opened int64
	go func() {
		defer close(accepted)
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			opened++
			go b.s.Serve(ctx, nc, &message.Conn{}, &guest{b: b, ctx: ctx})
		}
	}()
	t.Cleanup(func() {
		_ = l.Close()
		cancel()
		<-accepted
		b.wait("the connections to end", func() bool { return b.closed.Load() == opened })
		b.stop()
		if n := b.s.Conns(); n != 0 {
			t.Errorf("%d connections are left", n)
		}
	})
	return b
}

func (b *bed) wait(what string, ok func() bool) {
	b.t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			b.t.Fatalf("waited in vain for %s", what)
		}
	}
}

// each calls do for all connections.
func (b *bed) each(do func(*serverConn)) { b.s.watch.Each(do) }

func (b *bed) parked() (n int) {
	b.each(func(c *serverConn) {
		if c.parked.Load() {
			n++
		}
	})
	return n
}

// ask has every connection that waits for a request park now.
func (b *bed) ask() {
	b.each(func(c *serverConn) {
		if p, at, over := c.rg.Look(); (p == phaseIdle || p == phaseFresh) && !over && !c.parked.Load() && b.s.parking.lot.Load() != nil {
			c.rg.Expire(p, at, c.ask)
		}
	})
}

// park waits until n connections are parked.
func (b *bed) park(n int) {
	b.t.Helper()
	b.wait(fmt.Sprintf("%d parked connections", n), func() bool { b.ask(); return b.parked() == n })
}

const hello = "GET /hello HTTP/1.1\r\nHost: h\r\n\r\n"

// get asks once on a connection that stays open.
func get(t testing.TB, nc net.Conn, r *bufio.Reader) {
	t.Helper()
	if _, err := io.WriteString(nc, hello); err != nil {
		t.Fatal(err)
	}
	answered(t, r)
}

func answered(t testing.TB, r *bufio.Reader) {
	t.Helper()
	b := make([]byte, len("HTTP/1.1 200 OK\r\n")+len("Date: Mon, 02 Jan 2006 15:04:05 GMT\r\n")+len("Content-Length: 11\r\n\r\nGET /hello "))
	if _, err := io.ReadFull(r, b); err != nil || !strings.HasSuffix(string(b), "\r\n\r\nGET /hello ") {
		t.Fatalf("%q, then %v", b, err)
	}
}

func TestAQuietConnectionIsParkedAndServedOn(t *testing.T) {
	b := newBed(t, ServerConfig{}, handlerFunc(echo))
	used, fresh := dial(t, b.addr), dial(t, b.addr)
	r := bufio.NewReader(used)
	get(t, used, r)
	b.wait("both to be parked by the sweeper", func() bool { return b.parked() == 2 })
	if n := b.s.Conns(); n != 2 {
		t.Errorf("%d connections are counted", n)
	}
	for range 3 {
		get(t, used, r)
		get(t, used, r)
		b.park(2)
	}
	get(t, fresh, bufio.NewReader(fresh))
	if b.closed.Load() != 0 {
		t.Error("a parked connection counts as closed")
	}
	_ = used.Close()
	b.wait("the end", func() bool { return b.closed.Load() == 1 && b.s.Conns() == 1 })
}

func TestAParkedConnectionHoldsNoGoroutineAndLittleMemory(t *testing.T) {
	const n = 1000
	before := runtime.NumGoroutine()
	b := newBed(t, ServerConfig{}, handlerFunc(echo))
	conns, readers := make([]net.Conn, n), make([]*bufio.Reader, n)
	for i := range n {
		conns[i] = dial(t, b.addr)
		readers[i] = bufio.NewReaderSize(conns[i], 256)
		get(t, conns[i], readers[i])
	}
	b.wait("all to be parked by the sweeper", func() bool { return b.parked() == n })
	b.wait("their goroutines to end", func() bool { return runtime.NumGoroutine() < before+20 })
	b.each(func(c *serverConn) {
		if !c.parked.CompareAndSwap(true, false) { // it is ours while we look
			t.Error("a connection was woken")
		}
		if c.gear != nil || c.x != nil || c.cancel != nil {
			t.Errorf("a parked connection keeps %v %v", c.gear, c.x)
		}
		c.parked.Store(true)
	})
	var wg sync.WaitGroup
	for i := range n { // all at once
		wg.Go(func() {
			if _, err := io.WriteString(conns[i], hello); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for i := range n {
		answered(t, readers[i])
	}
}

func TestAParkedConnectionEnds(t *testing.T) {
	for name, tc := range map[string]struct {
		cfg  ServerConfig
		end  func(*testing.T, *bed, *net.TCPConn)
		want error // of reading; nil means any
	}{
		"when it is idle for too long": {ServerConfig{IdleTimeout: time.Second}, func(*testing.T, *bed, *net.TCPConn) {}, io.EOF},
		"by Drain":                     {ServerConfig{}, func(_ *testing.T, b *bed, _ *net.TCPConn) { b.s.Drain() }, io.EOF},
		"by Shed": {ServerConfig{}, func(t *testing.T, b *bed, _ *net.TCPConn) {
			if got := b.s.Shed(); got != deadline.ShedIdle {
				t.Errorf("Shed: %d", got)
			}
		}, io.EOF},
		"with its context":                {ServerConfig{}, func(_ *testing.T, b *bed, _ *net.TCPConn) { b.cancel() }, nil},
		"with its context, without Run":   {ServerConfig{}, func(_ *testing.T, b *bed, _ *net.TCPConn) { b.stop(); b.cancel() }, nil},
		"when its client has ended":       {ServerConfig{}, func(_ *testing.T, _ *bed, nc *net.TCPConn) { _ = nc.CloseWrite() }, io.EOF},
		"when its client has reset it":    {ServerConfig{}, func(_ *testing.T, _ *bed, nc *net.TCPConn) { _ = nc.SetLinger(0); _ = nc.Close() }, nil},
		"when its client is gone at once": {ServerConfig{}, func(_ *testing.T, _ *bed, nc *net.TCPConn) { _ = nc.Close() }, nil},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBed(t, tc.cfg, handlerFunc(echo))
			nc := dial(t, b.addr)
			r := bufio.NewReader(nc)
			get(t, nc, r)
			b.park(1)
			tc.end(t, b, nc.(*net.TCPConn))
			if _, err := r.ReadByte(); err == nil || tc.want != nil && err != tc.want {
				t.Errorf("the client reads %v, want %v", err, tc.want)
			}
			b.wait("the end", func() bool { return b.closed.Load() == 1 && b.s.Conns() == 0 })
			if got := b.s.Stats().Slow; got != 0 {
				t.Errorf("%d are counted slow", got)
			}
		})
	}
}

func TestAParkedConnectionIsServedOnByRetireAndAfterRun(t *testing.T) {
	b := newBed(t, ServerConfig{}, handlerFunc(echo))
	nc, last := dial(t, b.addr), dial(t, b.addr)
	r := bufio.NewReader(nc)
	get(t, nc, r)
	get(t, last, bufio.NewReader(last))
	b.park(2)
	b.stop() // nobody is left to wake it
	get(t, nc, r)
	if b.parked() != 0 {
		t.Error("a connection is parked without Run")
	}
	b.s.Retire()
	_, _ = io.WriteString(last, hello)
	got, _ := io.ReadAll(last)
	if !strings.HasPrefix(string(got), "HTTP/1.1 200 ") || !strings.Contains(string(got), "Connection: close\r\n") {
		t.Errorf("%q", got)
	}
}

// A request that comes as its connection is parked, woken, shed or drained is answered.
func TestNoRequestIsLostAtTheMomentOfParking(t *testing.T) {
	const clients, rounds = 64, 100
	b := newBed(t, ServerConfig{}, handlerFunc(echo))
	done := make(chan struct{})
	var asking, wg sync.WaitGroup
	asking.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
				b.ask()
				runtime.Gosched()
			}
		}
	})
	for range clients {
		nc := dial(t, b.addr)
		_ = nc.SetDeadline(time.Now().Add(time.Minute))
		wg.Go(func() {
			r := bufio.NewReader(nc)
			for range rounds {
				n := 1 + rand.IntN(3)
				all := strings.Repeat(hello, n)
				cut := rand.IntN(len(all)) // in two pieces, often in the middle of a head
				_, _ = io.WriteString(nc, all[:cut])
				time.Sleep(time.Duration(rand.IntN(300)) * time.Microsecond)
				_, _ = io.WriteString(nc, all[cut:])
				for range n {
					b := make([]byte, len("HTTP/1.1 200 OK\r\n")+len("Date: Mon, 02 Jan 2006 15:04:05 GMT\r\n")+len("Content-Length: 11\r\n\r\nGET /hello "))
					if _, err := io.ReadFull(r, b); err != nil || !strings.HasSuffix(string(b), "GET /hello ") {
						t.Errorf("%q, then %v", b, err)
						return
					}
				}
				time.Sleep(time.Duration(rand.IntN(600)) * time.Microsecond)
			}
		})
	}
	wg.Wait()
	close(done)
	asking.Wait()
	if b.woken.Load() == 0 {
		t.Error("no connection was parked")
	}
}

// Shed and the end of a limit meet a request that is on its way: the answer, or the end without
// a word, but never half of one.
func TestARequestThatMeetsTheEndOfAParkedConnection(t *testing.T) {
	b := newBed(t, ServerConfig{}, handlerFunc(echo))
	lost := 0
	for range 60 {
		nc := dial(t, b.addr)
		r := bufio.NewReader(nc)
		get(t, nc, r)
		b.park(1)
		_, _ = io.WriteString(nc, hello) // has come before the connection is told to go
		if b.s.Shed() == deadline.ShedNothing {
			answered(t, r) // it was read before
		} else if got, _ := io.ReadAll(r); !strings.HasSuffix(string(got), "GET /hello ") {
			lost++
		}
		_ = nc.Close()
		b.wait("the end", func() bool { return b.s.Conns() == 0 })
	}
	if lost > 0 {
		t.Errorf("%d requests of 60 were lost", lost)
	}
}

func TestManyComeBackSoonMakeParkingCalm(t *testing.T) {
	var k parking
	for now := int64(100); now < 1000; now += 100 {
		k.parks.Add(400)
		k.begin(now)
		k.waiting = parkCrowd + 1
		if got := k.after(); got != parkSoon.Milliseconds() {
			t.Fatalf("after %d ms in a crowd", got)
		}
	}
	k.regrets.Add(1000)
	k.begin(1000)
	k.waiting = parkCrowd + 1
	if got := k.after(); got != parkAfter.Milliseconds() {
		t.Errorf("after %d ms, though many come back", got)
	}
	k.parks.Store(0)
	k.regrets.Store(0)
	k.begin(1000 + parkCalm.Milliseconds())
	k.waiting = parkCrowd + 1
	if got := k.after(); got != parkSoon.Milliseconds() {
		t.Errorf("after %d ms once it is over", got)
	}
}
