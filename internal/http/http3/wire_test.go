package http3

import (
	"net"
	"os"
	"sync"
	"time"
)

// wire is one end of a network that loses nothing and takes no time: what is written at one end is read at
// the other, in order.
type wire struct {
	name net.Addr
	in   <-chan []byte
	out  chan<- []byte
	end  chan struct{} // closed: nobody reads here any more
	over chan struct{} // closed: nobody reads there any more
	once sync.Once
}

// wires are both ends of a network.
func wires() (a, b *wire) {
	ab, ba := make(chan []byte, 256), make(chan []byte, 256)
	enda, endb := make(chan struct{}), make(chan struct{})
	a = &wire{name: &net.UDPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 1}, in: ba, out: ab, end: enda, over: endb}
	b = &wire{name: &net.UDPAddr{IP: net.IPv4(192, 0, 2, 2), Port: 2}, in: ab, out: ba, end: endb, over: enda}
	return a, b
}

func (w *wire) peer() net.Addr {
	if w.name.(*net.UDPAddr).Port == 1 {
		return &net.UDPAddr{IP: net.IPv4(192, 0, 2, 2), Port: 2}
	}
	return &net.UDPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 1}
}

func (w *wire) ReadFrom(p []byte) (int, net.Addr, error) {
	select {
	case <-w.end:
		return 0, nil, os.ErrClosed
	case b := <-w.in:
		return copy(p, b), w.peer(), nil
	}
}

func (w *wire) WriteTo(p []byte, _ net.Addr) (int, error) {
	select {
	case <-w.over:
	case w.out <- append([]byte(nil), p...):
	}
	return len(p), nil
}

func (w *wire) Close() error {
	w.once.Do(func() { close(w.end) })
	return nil
}

func (w *wire) LocalAddr() net.Addr { return w.name }

// SetReadDeadline is how a quic.Transport ends its reading.
func (w *wire) SetReadDeadline(t time.Time) error {
	if !t.IsZero() {
		_ = w.Close()
	}
	return nil
}

func (w *wire) SetDeadline(t time.Time) error    { return w.SetReadDeadline(t) }
func (w *wire) SetWriteDeadline(time.Time) error { return nil }
