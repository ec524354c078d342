package http3

import (
	"bytes"
	"encoding/hex"
	"net"
	"os"
	"syscall"
	"testing"

	"golang.org/x/net/ipv4"
)

func TestRFC8999Section5_TheMarkIsFoundInBothHeaders(t *testing.T) {
	id := []byte("MARKrandom!!")
	long := append([]byte{0xc0, 0, 0, 0, 1, idLen}, id...)
	tests := map[string]struct {
		b  []byte
		ok bool
	}{
		"short":                    {append([]byte{0x40}, id...), true},
		"short, cut":               {append([]byte{0x40}, id[:11]...), false},
		"long":                     {long, true},
		"long, cut":                {long[:10], false},
		"long, an id of a client":  {append([]byte{0xc0, 0, 0, 0, 1, 8}, id...), false},
		"long, nothing but a byte": {[]byte{0xc0}, false},
		"nothing":                  {nil, false},
	}
	for name, tt := range tests {
		if m, ok := markOf(tt.b); ok != tt.ok || ok && string(m[:]) != "MARK" {
			t.Errorf("%s: %q %v", name, m, ok)
		}
	}
	c, err := mark([]byte("MARK")).GenerateConnectionID()
	if m, ok := markOf(append([]byte{0x40}, c.Bytes()...)); err != nil || !ok || string(m[:]) != "MARK" || c.Len() != mark(m).ConnectionIDLen() {
		t.Errorf("an id of our own: %v %v", c, err)
	}
}

// FuzzMarkOf: any datagram is looked at safely.
func FuzzMarkOf(f *testing.F) {
	f.Add([]byte{0x40, 1, 2, 3})
	f.Add(append([]byte{0xc0, 0, 0, 0, 1, idLen}, "MARKrandom!!"...))
	f.Fuzz(func(t *testing.T, b []byte) {
		if m, ok := markOf(b); ok && !bytes.Contains(b, m[:]) {
			t.Errorf("%x is not in %x", m, b)
		}
	})
}

func relayPair(t *testing.T) (a, b *net.UnixConn) {
	t.Helper()
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_DGRAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	var out [2]*net.UnixConn
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "pair")
		c, err := net.FileConn(f)
		_ = f.Close()
		if err != nil {
			t.Fatal(err)
		}
		out[i] = c.(*net.UnixConn)
		t.Cleanup(func() { _ = c.Close() })
	}
	return out[0], out[1]
}

// The next process keeps its own datagrams and those of new connections, in order, and passes
// the others back with their sender; the old one reads them there and no more from the socket.
func TestDatagramsGoToTheProcessWhoseTheyAre(t *testing.T) {
	shared := udp(t)
	ours, theirs := relayPair(t)
	old := newSocket(shared, nil)
	f, err := shared.File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	same, err := net.FilePacketConn(f) // as in another process: with deadlines of its own
	if err != nil {
		t.Fatal(err)
	}
	defer same.Close()
	next := newSocket(same.(*net.UDPConn), []Past{{hex.EncodeToString(old.mark[:]), theirs}})
	old.follow(ours)

	packet := func(m mark, text string) []byte {
		id, _ := m.GenerateConnectionID()
		return append(append([]byte{0x40}, id.Bytes()...), text...)
	}
	sent := [][]byte{packet(old.mark, "old 1"), packet(next.mark, "next 1"), packet(old.mark, "old 2"), packet(mark{1}, "unknown"), packet(next.mark, "next 2")}
	client := udp(t)
	for _, b := range sent {
		if _, err := client.WriteTo(b, shared.LocalAddr()); err != nil {
			t.Fatal(err)
		}
	}
	read := func(s *socket, want ...[]byte) {
		t.Helper()
		for len(want) > 0 {
			ms := make([]ipv4.Message, 8)
			for i := range ms {
				ms[i].Buffers, ms[i].OOB = [][]byte{make([]byte, 1500)}, make([]byte, 128)
			}
			n, err := s.ReadBatch(ms, 0)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range ms[:n] {
				if got := m.Buffers[0][:m.N]; !bytes.Equal(got, want[0]) || m.Addr.String() != client.LocalAddr().String() {
					t.Errorf("%q from %s, want %q", got, m.Addr, want[0])
				}
				want = want[1:]
			}
		}
	}
	read(next, sent[1], sent[3], sent[4])
	read(old, sent[0], sent[2])
	if err := old.Close(); err != nil {
		t.Error(err)
	}
	next.passBack(&(*next.past.Load())[0], &ipv4.Message{Buffers: [][]byte{sent[0]}, N: len(sent[0]), Addr: client.LocalAddr()})
	if next.past.Load() != nil {
		t.Error("the way back to a process that has ended is kept")
	}
}
