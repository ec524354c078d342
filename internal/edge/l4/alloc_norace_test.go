//go:build !race

package l4

import (
	"net"
	"testing"
)

// This counts allocations, and under the race detector sync.Pool drops values by chance: `make allocs`
// runs it without it.

func TestADatagramAndItsAnswerAllocateNothing(t *testing.T) {
	origin, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer origin.Close()
	go func() {
		buf := make([]byte, 100)
		for {
			n, from, err := origin.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			_, _ = origin.WriteToUDPAddrPort(buf[:n], from)
		}
	}()
	b := newBed(t)
	b.apply(serviceDoc("a", "udp", "127.0.0.1:0", origin.LocalAddr().String()))
	nc := dial(t, "udp", b.address("udp"))
	buf := make([]byte, 100)
	turn := func() {
		_, _ = nc.Write(buf)
		if _, err := nc.Read(buf); err != nil {
			t.Fatal(err)
		}
	}
	turn()
	if n := testing.AllocsPerRun(2000, turn); n >= 1 {
		t.Errorf("%v allocations", n)
	}
}
