package e2e

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// An upgrade hands over the sockets of services too: no port is in the new process's way, what is
// under way goes on in the old one, and the new one serves who comes, also over UDP.
func TestAnUpgradeHandsOverServices(t *testing.T) {
	addr, dir := ports(t, 4), t.TempDir()
	data, pidFile := filepath.Join(dir, "data"), filepath.Join(dir, "pid")
	web := origin(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "web") })
	first, log := start(t, addr[0], []string{
		"LISTEN_TCP=" + addr[0], "LISTEN_UDP=" + addr[1], "LISTEN_TLS=" + addr[2], "LISTEN=" + addr[3], "ORIGIN=" + web,
		"ORIGIN_TCP=" + tcpServer(t, "tcp", "127.0.0.1:0", greeter("mail", true)), "ORIGIN_UDP=" + udpServer(t, "dns"), "RELAIS_DATA=" + data,
	}, "serve", "-f", "../../examples/services.yaml", "--pid-file", pidFile)

	long, _ := line(t, addr[0])
	_ = long.SetDeadline(time.Now().Add(20 * time.Second))
	echoed := bufio.NewReader(long)
	uc, err := net.Dial("udp", addr[1])
	if err != nil {
		t.Fatal(err)
	}
	defer uc.Close()
	ask := func() string {
		buf := make([]byte, 100)
		_ = uc.SetDeadline(time.Now().Add(5 * time.Second))
		_, _ = io.WriteString(uc, "who?")
		n, _ := uc.Read(buf)
		return string(buf[:n])
	}
	for i := range 3 {
		if i > 0 {
			if code, out := run(t, nil, "upgrade", "--data", data); code != 0 || !strings.Contains(out, "serves") {
				t.Fatalf("upgrade %d: %d %s", i, code, out)
			}
		}
		if got := ask(); got != "dns who?" {
			t.Errorf("udp after %d upgrades: %q", i, got)
		}
		nc, got := line(t, addr[0])
		if !strings.HasPrefix(got, "mail ") {
			t.Errorf("tcp after %d upgrades: %q", i, got)
		}
		_ = nc.Close()
		if _, body := get(t, "http://"+addr[3]+"/"); body != "web" {
			t.Errorf("http after %d upgrades: %q", i, body)
		}
		_, _ = io.WriteString(long, "still\n")
		if got, err := echoed.ReadString('\n'); got != "still\n" {
			t.Errorf("the connection of the first process after %d upgrades: %q %v", i, got, err)
		}
	}
	if gone(first.Pid()) {
		t.Error("the first process has ended before its connection")
	}
	_ = long.Close()
	eventually(t, "the first process ends", func() bool { return gone(first.Pid()) })
	if got := ask(); got != "dns who?" {
		t.Errorf("udp in the end: %q", got)
	}
	if logHas(t, log, "is not used, and closed") {
		t.Error("a socket was handed over that nobody wanted")
	}
}
