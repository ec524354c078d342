package listen

import (
	"container/list"
	"net"
	"net/netip"
	"runtime"
	"sync"

	"github.com/relais-edge/relais/internal/observe"
)

// turns bound how many handshakes are computed at once, to one for each processor: thousands that came together
// would else stand between those who are connected already and the processors. Nobody is refused for it; a
// handshake waits for its turn, and has none while it waits for its client.
//
// Those of a network that has many under way wait behind the others, and get one turn in backShare.
type turns struct {
	waited observe.Counter

	mu     sync.Mutex
	free   int
	lanes  [2]list.List         // of chan struct{}, each closed when its turn has come
	given  int                  // turns that were given to who waited
	source map[netip.Prefix]int // handshakes under way, by network; as many as there are handshakes at most
}

// backShare is how many turns there are to one of those that wait behind.
const backShare = 8

// crowdOfOne is how many handshakes of a network (IPv4 /24, IPv6 /48) may be under way before further ones wait
// behind those of others.
const crowdOfOne = 16

func newTurns(n int, waited observe.Counter) *turns {
	return &turns{waited: waited, free: n, source: map[netip.Prefix]int{}}
}

// processors is how many handshakes may be computed at once.
func processors() int { return runtime.GOMAXPROCS(0) }

func networkOf(a netip.Addr) netip.Prefix {
	bits := 48
	if a = a.Unmap(); a.Is4() {
		bits = 24
	}
	p, _ := a.Prefix(bits) // no address is a network of its own
	return p
}

// begin returns a connection for a handshake with a client. It ends with end; done ends each wait for a turn.
func (t *turns) begin(nc net.Conn, client netip.Addr, done <-chan struct{}) *turnConn {
	c := &turnConn{Conn: nc, turns: t, done: done, network: networkOf(client)}
	t.mu.Lock()
	t.source[c.network]++
	c.behind = t.source[c.network] > crowdOfOne
	t.mu.Unlock()
	return c
}

// take waits for a turn; false when done was closed first.
func (t *turns) take(behind bool, done <-chan struct{}) bool {
	t.mu.Lock()
	if t.free > 0 {
		t.free--
		t.mu.Unlock()
		return true
	}
	turn, lane := make(chan struct{}), &t.lanes[0]
	if behind {
		lane = &t.lanes[1]
	}
	place := lane.PushBack(turn)
	t.mu.Unlock()
	t.waited.Inc()
	select {
	case <-turn:
		return true
	case <-done:
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	select {
	case <-turn: // both at once
		t.pass()
	default:
		lane.Remove(place)
	}
	return false
}

// give ends a turn.
func (t *turns) give() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.pass()
}

// pass gives a turn to the next one; t.mu is held.
func (t *turns) pass() {
	t.given++
	order := [2]int{0, 1}
	if t.given%backShare == 0 {
		order = [2]int{1, 0}
	}
	for _, i := range order {
		if w := t.lanes[i].Front(); w != nil {
			close(t.lanes[i].Remove(w).(chan struct{}))
			return
		}
	}
	t.free++
}

// turnConn is a connection in its handshake: whoever reads from it or writes to it has no turn meanwhile, and takes
// one with the bytes that came. After end it is the connection under it.
type turnConn struct {
	net.Conn
	turns   *turns
	done    <-chan struct{}
	network netip.Prefix
	behind  bool
	held    bool
	over    bool
	print   string // what the client's first words tell of its program
}

// Read implements net.Conn.
func (c *turnConn) Read(b []byte) (int, error) {
	if c.over {
		return c.Conn.Read(b)
	}
	c.rest()
	n, err := c.Conn.Read(b)
	if err == nil && !c.work() {
		return 0, net.ErrClosed
	}
	return n, err
}

// Write implements net.Conn.
func (c *turnConn) Write(b []byte) (int, error) {
	if !c.over {
		c.rest()
	}
	return c.Conn.Write(b)
}

// work takes a turn, and rest gives it back. They are called by the handshake's goroutine.
func (c *turnConn) work() bool {
	c.held = c.held || c.turns.take(c.behind, c.done)
	return c.held
}

func (c *turnConn) rest() {
	if c.held {
		c.held = false
		c.turns.give()
	}
}

// end says that the handshake is over.
func (c *turnConn) end() {
	c.rest()
	c.over = true
	t := c.turns
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.source[c.network]--; t.source[c.network] <= 0 {
		delete(t.source, c.network)
	}
}

// NetConn returns the socket: what asks for it must not take many steps down to it.
func (c *turnConn) NetConn() net.Conn {
	nc := c.Conn
	for {
		u, ok := nc.(interface{ NetConn() net.Conn })
		if !ok {
			return nc
		}
		nc = u.NetConn()
	}
}

// CloseWrite closes the sending side, where the connection can.
func (c *turnConn) CloseWrite() error {
	if h, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return h.CloseWrite()
	}
	return c.Conn.Close()
}

// pause lets others have the turn of a handshake while it waits for something else than its client.
func pause(nc net.Conn, wait func()) {
	c, ok := nc.(*turnConn)
	if !ok {
		wait()
		return
	}
	c.rest()
	wait()
	c.work() // in vain when the handshake's time is over, which its next step finds
}
