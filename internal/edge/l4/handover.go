package l4

import (
	"cmp"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/relais-edge/relais/internal/handover"
)

// inherit takes the endpoint's socket from those that were passed to this process.
func (e *endpoint) inherit() (bool, error) {
	in, p := e.m.cfg.Inherited, e.place
	if p.network == "udp" {
		d, err := in.Datagrams(p.address, p.owner())
		if d == nil || err != nil {
			return false, err
		}
		for _, w := range d.Past { // it was HTTP/3's, whose connections nobody serves any more
			_ = w.Conn.Close()
		}
		e.inherited = true
		e.receiveOn(d.Conn)
		return true, nil
	}
	ln, err := in.Listener(p.network, p.address, p.owner())
	if ln == nil || err != nil {
		return false, err
	}
	tcp, ok := ln.(*net.TCPListener)
	if !ok {
		_ = ln.Close()
		return false, fmt.Errorf("the socket that was passed on for %s is not TCP", p.address)
	}
	e.tcp, e.inherited = tcp, true
	return true, nil
}

// owner tells a service's port that the system chose from those of listeners.
func (p place) owner() string {
	if p.key == "" {
		return ""
	}
	return "service " + p.key
}

// receiveOn makes the endpoint one of UDP.
func (e *endpoint) receiveOn(c *net.UDPConn) {
	e.udp, e.sessions = c, map[netip.AddrPort]*session{}
	_ = c.SetReadBuffer(udpReadBuffer) // as far as the system allows
	e.oob = wantDestination(c)
}

// Sockets are those that the next process takes over, in a fixed order.
func (m *Manager) Sockets() []handover.Socket {
	m.mu.Lock()
	defer m.mu.Unlock()
	places := slices.SortedFunc(maps.Keys(m.endpoints), func(a, b place) int {
		return cmp.Or(cmp.Compare(a.network, b.network), cmp.Compare(a.address, b.address), cmp.Compare(a.key, b.key))
	})
	all := make([]handover.Socket, 0, len(places))
	for _, p := range places {
		s := handover.Socket{Network: p.network, Address: p.address, Key: p.owner()}
		if e := m.endpoints[p]; e.tcp != nil {
			s.Conn = e.tcp
		} else {
			s.Conn = e.udp
		}
		all = append(all, s)
	}
	return all
}

// HandOver says that the next process has taken the sockets. Datagrams are that one's at once, as
// sessions of its own; answers to the sessions here still go out. Nothing can be applied any more;
// Drain comes next.
func (m *Manager) HandOver() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.draining, m.handed = true, true
	for _, e := range m.endpoints {
		if e.udp != nil {
			e.handed.Store(true)
			_ = e.udp.SetReadDeadline(time.Unix(1, 0)) // wakes receive
		}
	}
}

// keepAlive finds out after a minute and a half that a client is gone without a word.
func keepAlive() net.KeepAliveConfig {
	return net.KeepAliveConfig{Enable: true, Idle: 30 * time.Second, Interval: 15 * time.Second, Count: 4}
}
