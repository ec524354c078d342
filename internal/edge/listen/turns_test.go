package listen

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/relais-edge/relais/internal/observe"
)

func turnsOf(n int) *turns {
	return newTurns(n, observe.New().Counters("waited_total", "", 1).With())
}

func TestNoMoreTurnsAreGivenThanThereAre(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ts := turnsOf(2)
		var mu sync.Mutex
		working, most, done := 0, 0, 0
		for range 50 {
			go func() {
				if !ts.take(false, nil) {
					t.Error("no turn")
				}
				mu.Lock()
				working++
				most = max(most, working)
				mu.Unlock()
				time.Sleep(time.Millisecond)
				mu.Lock()
				working--
				done++
				mu.Unlock()
				ts.give()
			}()
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if most != 2 || done != 50 || ts.free != 2 {
			t.Errorf("%d at once, %d done, %d free", most, done, ts.free)
		}
	})
}

func TestWhoWaitsInVainHasNoTurnAndLeavesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ts := turnsOf(1)
		_ = ts.take(false, nil)
		over := make(chan struct{})
		got := make(chan bool)
		go func() { got <- ts.take(true, over) }()
		synctest.Wait()
		close(over)
		if <-got || ts.lanes[1].Len() != 0 {
			t.Error("a turn after the end, or a place in the line")
		}
		if ts.give(); ts.free != 1 {
			t.Errorf("%d free", ts.free)
		}
	})
}

func TestACrowdOfOneNetworkWaitsBehindOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ts := turnsOf(1)
		_ = ts.take(false, nil)
		crowd := netip.MustParseAddr("192.0.2.1")
		var order []bool
		wait := func(c *turnConn) {
			go func() {
				_ = c.work()
				order = append(order, c.behind)
				time.Sleep(time.Millisecond)
				c.rest()
				c.end()
			}()
			synctest.Wait()
		}
		var all []*turnConn
		for i := range crowdOfOne + 10 {
			c := ts.begin(nil, crowd, nil)
			if c.behind != (i >= crowdOfOne) {
				t.Fatalf("handshake %d: behind %v", i, c.behind)
			}
			all = append(all, c)
		}
		for _, c := range all[crowdOfOne:] {
			wait(c)
		}
		for range 10 {
			wait(ts.begin(nil, netip.MustParseAddr("198.51.100.7"), nil))
		}
		ts.give()
		time.Sleep(time.Second)
		synctest.Wait()
		behind := 0
		for _, b := range order[:10] {
			if b {
				behind++
			}
		}
		if len(order) != 20 || behind != 1 {
			t.Errorf("%v: %d of the first ten turns went to the crowd, want one in %d", order, behind, backShare)
		}
		for _, c := range all[:crowdOfOne] {
			c.end()
		}
		if len(ts.source) != 0 || ts.free != 1 {
			t.Errorf("%d networks are left, %d free", len(ts.source), ts.free)
		}
	})
}

// A client that says nothing more in the middle of its handshake holds up nobody.
func TestAHandshakeThatWaitsForItsClientHasNoTurn(t *testing.T) {
	cert := newIssuer(t, "turns").leaf(func(c *x509.Certificate) { c.DNSNames = []string{"a.example"} })
	ts := turnsOf(1)
	shake := func(client func(net.Conn)) error {
		near, far := net.Pipe()
		defer func() { _ = far.Close() }()
		c := ts.begin(near, netip.MustParseAddr("127.0.0.1"), t.Context().Done())
		defer c.end()
		go client(far)
		return tls.Server(c, &tls.Config{Certificates: []tls.Certificate{*cert}}).HandshakeContext(t.Context())
	}
	half := make(chan error, 1)
	begun, stop := make(chan struct{}), make(chan struct{})
	go func() {
		half <- shake(func(nc net.Conn) {
			_ = tls.Client(&halting{nc, 1, begun, stop}, &tls.Config{InsecureSkipVerify: true}).Handshake()
			_ = nc.Close()
		})
	}()
	<-begun
	for range 3 {
		if err := shake(func(nc net.Conn) {
			_ = tls.Client(nc, &tls.Config{InsecureSkipVerify: true}).Handshake()
			_, _ = nc.Read(make([]byte, 1))
		}); err != nil {
			t.Fatalf("beside one that waits: %v", err)
		}
	}
	close(stop)
	if <-half == nil {
		t.Error("half a handshake was a whole one")
	}
	if ts.free != 1 {
		t.Errorf("%d turns are free, want 1", ts.free)
	}
}

// halting is a connection that waits before it is written to once more.
type halting struct {
	net.Conn
	writes      int
	begun, stop chan struct{}
}

func (c *halting) Write(b []byte) (int, error) {
	if c.writes--; c.writes < 0 {
		if c.begun != nil {
			close(c.begun)
			c.begun = nil
		}
		<-c.stop
		return 0, net.ErrClosed
	}
	return c.Conn.Write(b)
}
