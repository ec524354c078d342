package listen

import (
	"cmp"
	"fmt"
	"net"
	"slices"
	"time"

	"github.com/relais-edge/relais/internal/handover"
	"github.com/relais-edge/relais/internal/http/http3"
)

// inherit takes the endpoint's socket from those that were passed to this process.
func (e *endpoint) inherit() (bool, error) {
	in := e.m.cfg.Inherited
	if e.place.network == "udp" {
		d, err := in.Datagrams(e.place.address, e.place.key)
		if d == nil || err != nil {
			return false, err
		}
		e.udp, e.inherited = d.Conn, true
		var past []http3.Past
		for _, w := range d.Past {
			past = append(past, http3.Past{Mark: w.Mark, Conn: w.Conn})
		}
		e.quic = http3.NewListener(e.udp, past, e)
		return true, nil
	}
	ln, err := in.Listener(e.place.network, e.place.address, e.place.key)
	if ln == nil || err != nil {
		return false, err
	}
	tcp, ok := ln.(*net.TCPListener)
	if !ok {
		_ = ln.Close()
		return false, fmt.Errorf("the socket that was passed on for %s is not TCP", e.place.address)
	}
	e.tcp, e.inherited = tcp, true
	raw, err := tcp.SyscallConn()
	if err == nil {
		err = boundUnsent(raw)
	}
	return true, err
}

// Sockets are those that the next process takes over, in a fixed order.
func (m *Manager) Sockets() []handover.Socket {
	m.mu.Lock()
	defer m.mu.Unlock()
	var all []handover.Socket
	for _, e := range m.sorted() {
		s := handover.Socket{Network: e.place.network, Address: e.place.address, Key: e.place.key}
		if e.tcp != nil {
			s.Conn = e.tcp
		} else {
			s.Conn, s.Mark = e.udp, e.quic.Mark()
			for _, p := range e.quic.Past() {
				s.Past = append(s.Past, handover.Way{Mark: p.Mark, Conn: p.Conn})
			}
		}
		all = append(all, s)
	}
	return all
}

// sorted are the endpoints in a fixed order; m.mu is held.
func (m *Manager) sorted() []*endpoint {
	all := make([]*endpoint, 0, len(m.endpoints))
	for _, e := range m.endpoints {
		all = append(all, e)
	}
	slices.SortFunc(all, func(a, b *endpoint) int {
		return cmp.Or(cmp.Compare(a.place.network, b.place.network), cmp.Compare(a.place.address, b.place.address), cmp.Compare(a.place.key, b.place.key))
	})
	return all
}

// idleGrace is how long idle connections are kept after a handover: the next request on one is
// answered and the client told to close, so that none is on its way when a connection ends.
const idleGrace = 5 * time.Second

// stopGrace is the same when nobody takes over, so that busy clients go first.
const stopGrace = time.Second

// HandOver says that the next process has taken the sockets: datagrams of connections that
// are open here come back through relays, which are by network and address. Nothing can be
// applied any more; Drain comes next.
func (m *Manager) HandOver(relays func(network, address, key string) *net.UnixConn) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.draining, m.handed = true, true
	for _, e := range m.sorted() {
		if e.quic == nil {
			continue
		}
		if c := relays(e.place.network, e.place.address, e.place.key); c != nil {
			e.quic.Follow(c)
		}
	}
}
