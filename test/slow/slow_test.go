package slow

import (
	"net"
	"strings"
	"testing"
	"time"
)

func TestConnectionsAreCountedAsTheKernelShowsThem(t *testing.T) {
	const table = `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 500 1 0000000000000000 100 0 0 10 0
   1: 0100007F:1F90 0100007F:C001 01 00000000:00000000 00:00000000 00000000     0        0 501 1 0000000000000000 20 4 30 10 -1
   2: 0100007F:1F90 0200007F:C001 01 00000000:00000000 00:00000000 00000000     0        0 502 1 0000000000000000 20 4 30 10 -1
   3: 0100007F:1F90 0100007F:C002 01 00000000:00000012 00:00000000 00000000     0        0 0 1 0000000000000000 20 4 30 10 -1
   4: 0100007F:1F90 0100007F:C003 06 00000000:00000000 03:00001770 00000000     0        0 0 3 0000000000000000
   5: 0100007F:C001 0100007F:1F90 01 00000000:00000000 00:00000000 00000000     0        0 503 1 0000000000000000 20 4 30 10 -1
`
	if accepted, waiting := held([]byte(table), 8080); accepted != 2 || waiting != 1 {
		t.Errorf("%d accepted, %d wait; want 2 and 1", accepted, waiting)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	port := l.Addr().(*net.TCPAddr).Port
	if accepted, waiting, err := Held(port); accepted != 0 || waiting != 1 || err != nil {
		t.Errorf("%d accepted, %d wait, %v; one waits", accepted, waiting, err)
	}
	nc, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	if accepted, waiting, err := Held(port); accepted != 1 || waiting != 0 || err != nil {
		t.Errorf("%d accepted, %d wait, %v; one is accepted", accepted, waiting, err)
	}
}

func TestEachModeHasItsOwnCommand(t *testing.T) {
	seen := map[string]bool{}
	for _, m := range Modes() {
		c := strings.Join(Command(Attack{Mode: m, Target: "127.0.0.1:1", Connections: 7}, time.Minute), " ")
		if seen[c] || !strings.Contains(c, "-c 7 ") || !strings.Contains(c, "-l 60 ") || !strings.Contains(c, "http://127.0.0.1:1/") {
			t.Errorf("%s: %s", m, c)
		}
		seen[c] = true
	}
}
