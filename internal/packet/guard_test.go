package packet

import (
	"bytes"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// tables are as /proc/net/tcp and tcp6 show them: a listener, an SSH client, a visitor, one that leaves.
const (
	table4 = `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0 100 0 0 10 0
   1: 016433C6:0016 097100CB:D431 01 00000000:00000000 02:000A7C66 00000000     0        0 2 4 0 24 4 1 10 -1
   2: 016433C6:01BB 070200C0:D431 01 00000000:00000000 02:000A7C66 00000000     0        0 3 4 0 24 4 1 10 -1
   3: 016433C6:0016 080200C0:D431 06 00000000:00000000 02:000A7C66 00000000     0        0 4 4 0 24 4 1 10 -1
`
	table6 = `  sl  local_address                         remote_address                        st
   0: B80D0120000000000000000001000000:0016 B80D0120000000000000000002000000:D431 01 00000000:00000000
   1: 0000000000000000FFFF0000016433C6:0016 0000000000000000FFFF00000A7100CB:D431 01 00000000:00000000
`
)

func TestWhoIsConnectedToAManagementPortIsFound(t *testing.T) {
	dir := t.TempDir()
	for name, s := range map[string]string{"tcp": table4, "tcp6": table6} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(s), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	g := &guard{ports: []uint16{22}, root: dir}
	now := time.Now()
	if !g.look(now) {
		t.Fatal("nobody was found")
	}
	want := []netip.Addr{netip.MustParseAddr("203.0.113.9"), netip.MustParseAddr("203.0.113.10"), netip.MustParseAddr("2001:db8::2")}
	if !slices.Equal(g.live, want) {
		t.Errorf("found %v, want %v", g.live, want)
	}
	if _, hit := g.hit(pfx("203.0.113.0/24")); !hit {
		t.Error("the network of who is connected may be denied")
	}
	if _, hit := g.hit(pfx("192.0.2.7/32")); hit {
		t.Error("a visitor may not be denied")
	}
	if g.look(now.Add(lookEvery / 2)) {
		t.Error("looked again too soon")
	}
	_ = os.Remove(filepath.Join(dir, "tcp"))
	if !g.look(now.Add(time.Minute)) || len(g.live) != 2 {
		t.Errorf("after who was connected has gone: %v", g.live)
	}
}

func TestTheResolversOfThisMachineAreProtected(t *testing.T) {
	got := resolvers(strings.NewReader("# a comment\nnameserver 192.0.2.53\nsearch example.com\nnameserver fe80::1%eth0\nnameserver\nnameserver x\n" + strings.Repeat("nameserver 192.0.2.54\n", 100)))
	if len(got) != 8 || got[0] != netip.MustParseAddr("192.0.2.53") || got[1] != netip.MustParseAddr("fe80::1") {
		t.Errorf("found %v", got)
	}
}

func FuzzSocketTable(f *testing.F) {
	f.Add([]byte(table4))
	f.Add([]byte(table6))
	f.Add([]byte("x: 016433C6:0016 01:0 01\n 1: :0016 : 01"))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, a := range peers(bytes.NewReader(b), []uint16{22}, nil) {
			if !a.IsValid() || a.IsLoopback() || a.Is4In6() {
				t.Errorf("found %v", a)
			}
		}
	})
}
