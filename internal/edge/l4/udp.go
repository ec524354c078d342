package l4

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/relais-edge/relais/internal/edge/proxyproto"
)

const (
	// udpPerAddress bounds the sessions of one IPv4 address or IPv6 /64 when the document says nothing.
	udpPerAddress = 1000
	// udpUnanswered is the idle time of a session to which the origin has not answered yet: its client
	// may not exist.
	udpUnanswered = 10 * time.Second
	// udpQuiet is how long a session is silent before it counts as over when its service leaves.
	udpQuiet = time.Second
	// udpPending is how many datagrams wait while their session is opened.
	udpPending = 8
	// udpOpening bounds the sessions of an address that are being opened.
	udpOpening    = 1024
	udpReadBuffer = 1 << 20
	// maxDatagram is the largest payload of UDP over IPv4 and IPv6 without jumbograms.
	maxDatagram = 65535 - 8
	// maxPrefix is room for the PROXY protocol header in front of a datagram.
	maxPrefix = 128
	// oobSize is room for the control message that says where a datagram was sent to.
	oobSize = 64
)

// session is the datagrams of one client address and the origin that they go to. It keeps its origin
// until nothing passes for the idle time.
type session struct {
	connection
	e      *endpoint
	peer   netip.AddrPort
	oob    []byte // sends answers from the address that the client knows
	prefix []byte // in front of each datagram to the origin

	last           atomic.Int64 // the Manager's clock
	answered       atomic.Bool
	failed         atomic.Bool // the origin refuses datagrams
	received, sent atomic.Int64
	conn           atomic.Pointer[net.UDPConn]

	pending [][]byte // guarded by connection.mu, until conn is there
}

// receive takes datagrams until the socket is closed.
func (e *endpoint) receive(ctx context.Context) {
	stop := context.AfterFunc(ctx, func() { _ = e.udp.Close() })
	defer stop()
	buf, oob := make([]byte, maxPrefix+maxDatagram), make([]byte, oobSize)
	if !e.oob {
		oob = nil
	}
	for {
		n, oobn, _, from, err := e.udp.ReadMsgUDPAddrPort(buf[maxPrefix:], oob)
		if err != nil {
			if errors.Is(err, net.ErrClosed) || e.handed.Load() {
				return
			}
			select { // whatever it is, it must not make us spin
			case <-ctx.Done():
			case <-time.After(firstPause):
			}
			continue
		}
		e.mu.Lock()
		s := e.sessions[from]
		e.mu.Unlock()
		if s == nil {
			if s = e.begin(ctx, from, oob[:oobn]); s == nil {
				continue
			}
		}
		s.last.Store(e.m.clock())
		s.send(buf, n)
	}
}

// begin makes a session for a client, or says no by nil.
func (e *endpoint) begin(ctx context.Context, from netip.AddrPort, oob []byte) *session {
	svc := e.router.Load().plain
	if svc == nil || e.leaving.Load() {
		return nil
	}
	s := &session{e: e, peer: from}
	s.s, s.set = svc, svc.settings.Load()
	s.header = proxyproto.Header{
		Source:      netip.AddrPortFrom(from.Addr().Unmap().WithZone(""), from.Port()),
		Destination: destinationOf(oob, addrPortOf(e.udp.LocalAddr())), Datagram: true,
	}
	s.Ended = Ended{
		ID: newID(), Start: time.Now(), Client: s.header.Source.Addr(), Service: string(svc.key), Proto: "udp", Pool: s.set.poolName,
	}
	if s.set.prefixDatagrams {
		s.prefix = s.header.AppendV2(nil)
	}
	s.oob = answerFrom(oob)
	s.last.Store(e.m.clock())
	e.mu.Lock()
	if e.opening >= udpOpening {
		e.mu.Unlock()
		svc.series.refused[refuseOpening].Inc()
		return nil
	}
	if reason := svc.enter(&s.connection); reason != "" {
		e.mu.Unlock()
		svc.series.refused[reason].Inc()
		return nil
	}
	e.opening++
	e.sessions[from] = s
	e.mu.Unlock()
	e.m.wg.Go(func() { s.run(ctx) })
	return s
}

// run opens the way to an origin and carries its answers back, to the session's end.
func (s *session) run(ctx context.Context) {
	defer s.s.m.recover(s.s)
	defer s.finish()
	var l Link
	err := s.set.pool.Connect(ctx, "udp", &s.header, &l)
	s.e.mu.Lock()
	s.e.opening--
	s.e.mu.Unlock()
	if err != nil {
		s.attach(l)
		s.fail(err)
		s.s.series.refused[refuseOrigin].Inc()
		return
	}
	defer func() { l.Place.Release(s.failed.Load()) }()
	defer l.Conn.Close()
	conn, ok := l.Conn.(*net.UDPConn)
	if !ok || !s.attach(l) {
		return
	}
	s.s.series.total.Inc()
	s.flush(conn)
	r, err := newDatagramReader(conn, &s.s.m.datagrams)
	for err == nil {
		var n int
		if n, err = r.read(); err == nil {
			s.answer(r.buf[:n])
		}
		r.done()
	}
	if errors.Is(err, syscall.ECONNREFUSED) {
		s.refused()
	}
}

// answer sends a datagram of the origin to the client.
func (s *session) answer(b []byte) {
	s.answered.Store(true)
	s.last.Store(s.e.m.clock())
	s.sent.Add(int64(len(b)))
	_, _, _ = s.e.udp.WriteMsgUDPAddrPort(b, s.oob, s.peer)
}

// send sends a datagram of n bytes behind the room for a prefix in buf to the origin, or keeps it
// while the session is being opened.
func (s *session) send(buf []byte, n int) {
	conn := s.conn.Load()
	if conn == nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		if conn = s.conn.Load(); conn == nil {
			if len(s.pending) < udpPending && !s.closed {
				s.pending = append(s.pending, append(make([]byte, maxPrefix, maxPrefix+n), buf[maxPrefix:maxPrefix+n]...))
			} else {
				s.s.series.dropped.Inc()
			}
			return
		}
	}
	s.write(conn, buf[:maxPrefix+n])
}

// write sends the datagram at buf[maxPrefix:].
func (s *session) write(conn *net.UDPConn, buf []byte) {
	at := maxPrefix - copy(buf[maxPrefix-len(s.prefix):], s.prefix)
	s.received.Add(int64(len(buf) - maxPrefix))
	if _, err := conn.Write(buf[at:]); errors.Is(err, syscall.ECONNREFUSED) {
		s.refused()
	}
}

// flush sends what waited and lets the rest come directly.
func (s *session) flush(conn *net.UDPConn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, b := range s.pending {
		s.write(conn, b)
	}
	s.pending = nil
	s.conn.Store(conn)
}

// refused ends a session whose origin has nobody on the port; the client's next datagram begins
// another, at an origin that is well.
func (s *session) refused() {
	s.failed.Store(true)
	go s.end("") // the lock may be held
}

// finish gives back all that the session holds.
func (s *session) finish() {
	s.e.mu.Lock()
	if s.e.sessions[s.peer] == s {
		delete(s.e.sessions, s.peer)
	}
	s.e.mu.Unlock()
	s.mu.Lock()
	s.closed, s.pending = true, nil
	s.mu.Unlock()
	s.Received, s.Sent = s.received.Load(), s.sent.Load()
	if s.failed.Load() {
		s.Code = "connection_refused"
	}
	s.s.exit(&s.connection)
}

// sweep ends the sessions that are idle.
func (e *endpoint) sweep(now int64) { e.endQuiet(now, 24*time.Hour) }

// endQuiet ends the sessions on which nothing passed for their idle time, or for limit.
func (e *endpoint) endQuiet(now int64, limit time.Duration) (left int) {
	var over []*session
	e.mu.Lock()
	for _, s := range e.sessions {
		idle := min(s.set.spec.Idle.Std(), limit)
		if !s.answered.Load() {
			idle = min(idle, udpUnanswered)
		}
		if time.Duration(now-s.last.Load()) >= idle {
			over = append(over, s)
		}
	}
	left = len(e.sessions) - len(over)
	e.mu.Unlock()
	for _, s := range over {
		s.end("") // that a session falls silent is how it ends
	}
	return left
}

// leave takes no new sessions, lets those there are fall silent, and gives up the socket, unless a
// service wants it again meanwhile. The drain of the service cuts it short.
func (e *endpoint) leave() {
	tick := time.NewTicker(udpQuiet / 4)
	defer tick.Stop()
	over := e.over
	if e.handed.Load() { // over does not say then that the socket is closed
		over = nil
	}
	for e.leaving.Load() && e.endQuiet(e.m.clock(), udpQuiet) > 0 {
		select {
		case <-tick.C:
		case <-over:
			return
		}
	}
	e.m.mu.Lock()
	defer e.m.mu.Unlock()
	if e.leaving.Load() && e.m.resting[e.place] == e {
		delete(e.m.resting, e.place)
		e.close()
	}
}

// datagram is memory for one.
type datagram [maxDatagram]byte

// datagramReader reads from a connected socket. It holds memory for a datagram only while there is one.
type datagramReader struct {
	conn *net.UDPConn
	raw  syscall.RawConn
	pool *sync.Pool // of *datagram
	buf  *datagram

	// Of the last try.
	try func(fd uintptr) bool
	n   int
	err error
}

func newDatagramReader(c *net.UDPConn, pool *sync.Pool) (*datagramReader, error) {
	raw, err := c.SyscallConn()
	return &datagramReader{conn: c, raw: raw, pool: pool}, err
}

// take finds memory.
func (r *datagramReader) take() {
	if r.buf == nil {
		if r.buf, _ = r.pool.Get().(*datagram); r.buf == nil {
			r.buf = new(datagram)
		}
	}
}

// done gives the memory back.
func (r *datagramReader) done() {
	if r.buf != nil {
		r.pool.Put(r.buf)
		r.buf = nil
	}
}
