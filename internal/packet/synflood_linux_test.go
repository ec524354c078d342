//go:build 386 || amd64 || arm || arm64 || loong64 || mips64le || mipsle || ppc64le || riscv64

package packet

import (
	"encoding/binary"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// wire sends frames as they are, at the client's end of the veth.
type wire struct {
	fd int
	to unix.SockaddrLinklayer
}

func (p *pair) wire(t testing.TB) *wire {
	t.Helper()
	w := &wire{fd: -1}
	p.client.do(func() {
		var err error
		if w.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, 0); err != nil {
			t.Error(err)
		}
		w.to = unix.SockaddrLinklayer{Ifindex: index("v1"), Halen: 6}
	})
	t.Cleanup(func() { _ = unix.Close(w.fd) })
	return w
}

func (w *wire) send(b []byte) error { return unix.Sendto(w.fd, b, 0, &w.to) }

// mac is the hardware address of an interface in a namespace.
func (h *host) mac(name string) (a net.HardwareAddr) {
	h.do(func() {
		if i, err := net.InterfaceByName(name); err == nil {
			a = i.HardwareAddr
		}
	})
	return a
}

// synFlood sends SYNs with made-up sources until stop. It has no route back for them: the answers go
// nowhere, as those of a real flood do.
func (p *pair) synFlood(t testing.TB, perSecond int, stop *atomic.Bool, sent *atomic.Uint64) (done chan struct{}) {
	t.Helper()
	w := p.wire(t)
	b := frame{src: "203.0.113.1", dst: server4.String(), proto: 6, upper: tcp(4000, 443, syn)}.bytes()
	copy(b, p.server.mac("v0"))
	copy(b[6:], p.client.mac("v1"))
	p.server.ip("route add default via " + client4.String() + " dev v0")
	p.client.ip("route add blackhole 203.0.112.0/20")
	done = make(chan struct{})
	go func() {
		defer close(done)
		r := rand.New(rand.NewPCG(3, 4))
		began := time.Now()
		for n := 0; !stop.Load(); n++ {
			binary.BigEndian.PutUint32(b[26:], 203<<24|112<<8|r.Uint32N(4096))
			binary.BigEndian.PutUint16(b[34:], uint16(1024+r.Uint32N(60000)))
			binary.BigEndian.PutUint32(b[38:], r.Uint32())
			binary.BigEndian.PutUint16(b[24:], 0)
			binary.BigEndian.PutUint16(b[24:], ^sum16(b[14:34]))
			binary.BigEndian.PutUint16(b[50:], 0)
			pseudo := append(append([]byte{}, b[26:34]...), 0, 6, 0, byte(len(b)-34))
			binary.BigEndian.PutUint16(b[50:], ^sum16(append(pseudo, b[34:]...)))
			if w.send(b) == nil {
				sent.Add(1)
			}
			if ahead := time.Duration(n)*time.Second/time.Duration(perSecond) - time.Since(began); ahead > time.Millisecond {
				time.Sleep(ahead)
			}
		}
	}()
	return done
}

// buyers opens connections at the client, each with an answer, and says how many succeeded.
func (p *pair) buyers(workers, each int) (tried, succeeded uint64) {
	var ok, all atomic.Uint64
	var wg sync.WaitGroup
	for i := range workers {
		wg.Go(func() {
			from, to := client4, server4
			if i%2 == 1 {
				from, to = client6, server6
			}
			for range each {
				all.Add(1)
				if p.connect(from, to, 443, 5*time.Second) == nil {
					ok.Add(1)
				}
			}
		})
	}
	wg.Wait()
	return all.Load(), ok.Load()
}

func TestNewConnectionsSucceedInASYNFlood(t *testing.T) {
	filters(t, func(t *testing.T, m Mode) {
		p := newPair(t)
		p.echo(t, 443)
		policy := DefaultPolicy()
		policy.Listener = Rate{500, 100} // so that a flood that this machine can make is one
		f, _ := p.filter(t, Config{Mode: m, Policy: policy, Served: func() []uint16 { return []uint16{443} }})
		var stop atomic.Bool
		var sent atomic.Uint64
		done := p.synFlood(t, 20_000, &stop, &sent)
		until(t, "the flood is felt", func() bool { return sent.Load() > 5000 && (m != XDP || counted(f, cookieSent) > 0) })
		tried, succeeded := p.buyers(4, 50)
		stop.Store(true)
		<-done
		t.Logf("%s: %d SYNs of a flood, %d answered with cookies in XDP, %d of %d connections succeeded", m, sent.Load(), counted(f, cookieSent), succeeded, tried)
		if succeeded*100 < tried*99 {
			t.Errorf("%d of %d connections succeeded, want 99 of 100", succeeded, tried)
		}
	})
}

// A listener that gets few SYNs beside a flood of another still takes cookies: each has a share of its own.
func TestAConnectionByCookieCarriesItsBytes(t *testing.T) {
	if refusesBPF() {
		t.Log("this kernel takes no XDP program; its own cookies are its own matter")
		return
	}
	p := newPair(t)
	p.echo(t, 443)
	policy := DefaultPolicy()
	policy.Listener = Rate{10, 10}
	f, _ := p.filter(t, Config{Mode: XDP, Policy: policy, Served: func() []uint16 { return []uint16{443} }})
	until(t, "cookies are sent", func() bool {
		_ = p.connect(client4, server4, 443, patient)
		return counted(f, cookieSent) > 20
	})
	for _, c := range []struct{ from, to netip.Addr }{{client4, server4}, {client6, server6}} {
		for range 20 {
			if err := p.connect(c.from, c.to, 443, patient); err != nil {
				t.Error(err)
			}
		}
	}
}
