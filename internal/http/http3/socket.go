package http3

import (
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"
	"golang.org/x/net/ipv4"
)

// When a process hands its UDP socket to the next, the datagrams of its connections reach
// that one. Connection ids say whose they are: they begin with a mark of their process. The
// new process reads the socket alone and passes those of the process before back to it; the
// old one reads what is passed back and goes on sending on the socket itself.

// Lengths of a connection id of ours and of the mark that it begins with.
const (
	idLen   = 12
	markLen = 4
)

type mark [markLen]byte

// GenerateConnectionID implements quic.ConnectionIDGenerator.
func (m mark) GenerateConnectionID() (quic.ConnectionID, error) {
	var b [idLen]byte
	copy(b[:], m[:])
	_, _ = rand.Read(b[markLen:]) // crypto/rand ends the process rather than fail
	return quic.ConnectionIDFromBytes(b[:]), nil
}

// ConnectionIDLen implements quic.ConnectionIDGenerator.
func (mark) ConnectionIDLen() int { return idLen }

// markOf is the mark of the connection id in a datagram's first packet (RFC 8999 section 5).
// False means that there is none: a client chose the id, or it is no QUIC.
func markOf(b []byte) (m mark, ok bool) {
	if len(b) < 1 {
		return m, false
	}
	id := b[1:]
	if b[0]&0x80 != 0 { // a long header: version, length of the id, id
		if len(b) < 6 || b[5] != idLen {
			return m, false
		}
		id = b[6:]
	}
	if len(id) < idLen {
		return m, false
	}
	copy(m[:], id)
	return m, true
}

// Past is a process that had the socket before and whose connections may still be open.
type Past struct {
	Mark string        // as its Server gave it
	Conn *net.UnixConn // leads to it
}

// earlier is a Past that was understood.
type earlier struct {
	Past
	mark mark
}

// socket is a UDP socket that knows whose datagrams are whose.
type socket struct {
	*net.UDPConn
	batch *ipv4.PacketConn
	mark  mark
	past  atomic.Pointer[[]earlier] // nil when there is none

	ahead  atomic.Pointer[net.UnixConn] // what the process after passes back; nil while this one reads the socket
	mu     sync.Mutex
	end    time.Time // the read deadline that was set last
	closed bool
	frame  []byte // one datagram on its way between processes
}

func newSocket(c *net.UDPConn, before []Past) *socket {
	s := &socket{UDPConn: c, batch: ipv4.NewPacketConn(c)}
	_, _ = rand.Read(s.mark[:])
	var all []earlier
	for _, p := range before {
		var m mark
		if n, err := hex.Decode(m[:], []byte(p.Mark)); err != nil || n != markLen || len(p.Mark) != 2*markLen {
			_ = p.Conn.Close()
			continue
		}
		all = append(all, earlier{p, m})
	}
	if len(all) > 0 {
		s.past.Store(&all)
	}
	return s
}

// alive are the processes before this one that may still have connections.
func (s *socket) alive() (all []Past) {
	if ps := s.past.Load(); ps != nil {
		for _, p := range *ps {
			all = append(all, p.Past)
		}
	}
	return all
}

// follow stops reading the socket; what the next process passes back is read instead.
func (s *socket) follow(c *net.UnixConn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		_ = c.Close()
		return
	}
	_ = c.SetReadDeadline(s.end)
	s.ahead.Store(c)
	_ = s.UDPConn.SetReadDeadline(time.Unix(1, 0)) // wakes ReadBatch
}

// SetReadDeadline implements net.PacketConn.
func (s *socket) SetReadDeadline(t time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.end = t
	if c := s.ahead.Load(); c != nil {
		return c.SetReadDeadline(t)
	}
	return s.UDPConn.SetReadDeadline(t)
}

// Close implements net.PacketConn.
func (s *socket) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	if c := s.ahead.Load(); c != nil {
		_ = c.Close()
	}
	for _, p := range s.alive() {
		_ = p.Conn.Close()
	}
	return s.UDPConn.Close()
}

// ReadBatch is what quic-go reads with. It keeps the datagrams that are this process's.
func (s *socket) ReadBatch(ms []ipv4.Message, flags int) (int, error) {
	for {
		n, err := 0, error(nil)
		if c := s.ahead.Load(); c != nil {
			n, err = s.readAhead(c, &ms[0])
		} else if n, err = s.batch.ReadBatch(ms, flags); err != nil && s.ahead.Load() != nil && errors.Is(err, os.ErrDeadlineExceeded) {
			continue // handed over just now
		}
		if s.past.Load() != nil && err == nil {
			if n = s.sort(ms[:n]); n == 0 {
				continue
			}
		}
		return n, err
	}
}

// sort passes the datagrams of processes before back to them, and says how many are left.
func (s *socket) sort(ms []ipv4.Message) int {
	keep := 0
	for i := range ms {
		m := &ms[i]
		if p := s.owner(m.Buffers[0][:m.N]); p != nil {
			s.passBack(p, m)
			continue
		}
		if keep != i { // buffers stay where they are: quic-go counts them by place
			to := &ms[keep]
			to.N = copy(to.Buffers[0], m.Buffers[0][:m.N])
			to.NN = copy(to.OOB, m.OOB[:m.NN])
			to.Addr, to.Flags = m.Addr, m.Flags
		}
		keep++
	}
	return keep
}

// owner is the process before this one whose datagram b is; nil when it is this one's.
func (s *socket) owner(b []byte) *earlier {
	m, ok := markOf(b)
	ps := s.past.Load()
	if !ok || m == s.mark || ps == nil {
		return nil
	}
	for i := range *ps {
		if (*ps)[i].mark == m {
			return &(*ps)[i]
		}
	}
	return nil
}

// A datagram between processes: length of the address, address and port, length of the
// control message, control message, datagram.
const (
	maxOOB   = 128
	maxFrame = 1 + 18 + 1 + maxOOB + 64<<10
)

// passBack sends a datagram to a process before; one that has no room is lost, as
// datagrams are.
func (s *socket) passBack(p *earlier, m *ipv4.Message) {
	from, ok := m.Addr.(*net.UDPAddr)
	if !ok || m.NN > maxOOB {
		return
	}
	ap := from.AddrPort()
	ip := ap.Addr().As16()
	b := append(s.frame[:0], ip[:]...)
	b = binary.BigEndian.AppendUint16(b, ap.Port())
	b = append(append(b, byte(m.NN)), m.OOB[:m.NN]...)
	b = append(b, m.Buffers[0][:m.N]...)
	s.frame = b
	_ = p.Conn.SetWriteDeadline(time.Now().Add(time.Millisecond))
	if _, err := p.Conn.Write(b); err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		s.bury(p) // it has ended, and its connections with it
	}
}

// bury forgets a process that has ended.
func (s *socket) bury(dead *earlier) {
	_ = dead.Conn.Close()
	var rest []earlier
	for _, p := range *s.past.Load() {
		if p.mark != dead.mark {
			rest = append(rest, p)
		}
	}
	if len(rest) == 0 {
		s.past.Store(nil)
		return
	}
	s.past.Store(&rest)
}

var errFrame = errors.New("http3: a datagram from the next process is malformed")

// readAhead reads a datagram that the process after has passed back.
func (s *socket) readAhead(c *net.UnixConn, m *ipv4.Message) (int, error) {
	if cap(s.frame) < maxFrame {
		s.frame = make([]byte, maxFrame)
	}
	n, err := c.Read(s.frame[:maxFrame])
	if err != nil {
		return 0, err
	}
	b := s.frame[:n]
	if n < 19 || n < 19+int(b[18]) {
		return 0, errFrame
	}
	ip := netip.AddrFrom16([16]byte(b[:16])).Unmap()
	m.Addr = net.UDPAddrFromAddrPort(netip.AddrPortFrom(ip, binary.BigEndian.Uint16(b[16:])))
	control := b[19 : 19+int(b[18])]
	m.NN = copy(m.OOB, control)
	m.N = copy(m.Buffers[0], b[19+len(control):])
	return 1, nil
}
