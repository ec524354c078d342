package handover

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// child is the variable that makes this test's program the next process, which does what it says.
const child = "HANDOVER_TEST_CHILD"

func TestMain(m *testing.M) {
	if what := os.Getenv(child); what != "" {
		succeed(what)
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// succeed is the next process: it answers one connection, or one datagram by the way back.
func succeed(what string) {
	address := os.Getenv("HANDOVER_TEST_ADDRESS")
	in, err := Receive()
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	switch what {
	case "dies":
		os.Exit(3)
	case "fails":
		in.Failed("no documents")
		os.Exit(2)
	case "hangs":
		time.Sleep(time.Minute)
	case "tcp":
		ln, err := in.Listener("tcp", address, "key")
		if ln == nil || err != nil {
			in.Failed(fmt.Sprint("no listener ", err))
			os.Exit(1)
		}
		in.Ready()
		c, err := ln.Accept()
		if err == nil {
			_, _ = io.WriteString(c, "from the next")
			_ = c.Close()
		}
	case "udp":
		d, err := in.Datagrams(address, "")
		if d == nil || err != nil || len(d.Past) != 1 || d.Past[0].Mark != "mark" {
			in.Failed(fmt.Sprint("no datagrams ", err))
			os.Exit(1)
		}
		in.Ready()
		b := make([]byte, 100)
		n, _, err := d.Conn.ReadFrom(b)
		if err == nil {
			_, _ = d.Past[0].Conn.Write(b[:n])
		}
	case "systemd":
		ln, err := in.Listener("tcp", address, "")
		if ln == nil || err != nil {
			os.Exit(1)
		}
		fmt.Print(len(in.Ready()), os.Getenv("LISTEN_FDS"))
	}
}

func plan(t *testing.T, what, address string, sockets ...Socket) Plan {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	out, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = out.Close() })
	return Plan{
		Path: self, Args: []string{self}, Sockets: sockets, Within: 20 * time.Second, Stdout: out, Stderr: out,
		Env: append(os.Environ(), child+"="+what, "HANDOVER_TEST_ADDRESS="+address),
	}
}

func TestTheNextProcessAcceptsOnTheSameSocket(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	next, err := Start(t.Context(), plan(t, "tcp", ":80", Socket{Network: "tcp", Address: ":80", Key: "key", Conn: ln.(*net.TCPListener)}))
	if err != nil {
		t.Fatal(err)
	}
	addr := ln.Addr().String()
	// This process must still be able to wait for a connection with a deadline.
	_ = ln.(*net.TCPListener).SetDeadline(time.Now().Add(10 * time.Millisecond))
	if c, err := ln.Accept(); err == nil {
		t.Error("a connection from nowhere", c.RemoteAddr())
	}
	_ = ln.Close()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if b, err := io.ReadAll(c); string(b) != "from the next" || next.Pid == os.Getpid() {
		t.Errorf("%q, %v", b, err)
	}
}

func TestDatagramsComeBackToTheProcessBefore(t *testing.T) {
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer pc.Close()
	next, err := Start(t.Context(), plan(t, "udp", ":443", Socket{Network: "udp", Address: ":443", Mark: "mark", Conn: pc.(*net.UDPConn)}))
	if err != nil {
		t.Fatal(err)
	}
	defer next.Relays[0].Close()
	c, err := net.Dial("udp", pc.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, _ = io.WriteString(c, "for the old one")
	b := make([]byte, 100)
	_ = next.Relays[0].SetReadDeadline(time.Now().Add(10 * time.Second))
	if n, err := next.Relays[0].Read(b); string(b[:n]) != "for the old one" {
		t.Errorf("%q, %v", b[:n], err)
	}
}

func TestWhyTheNextProcessCannotServeIsSaid(t *testing.T) {
	for what, want := range map[string]string{"dies": "exit status 3", "fails": "no documents", "hangs": "not ready within"} {
		t.Run(what, func(t *testing.T) {
			p := plan(t, what, "")
			if what == "hangs" {
				p.Within = 100 * time.Millisecond
			}
			if _, err := Start(t.Context(), p); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%v, want %q", err, want)
			}
		})
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Start(ctx, plan(t, "hangs", "")); err == nil {
		t.Error("a process that ends starts another")
	}
	p := plan(t, "tcp", "")
	p.Path += ".none"
	if _, err := Start(t.Context(), p); err == nil || !strings.Contains(err.Error(), "cannot be started") {
		t.Errorf("no program: %v", err)
	}
}

func TestSocketsOfSystemdAreFoundByTheirAddress(t *testing.T) {
	v6 := &item{Network: "tcp"}
	for address, want := range map[string]bool{":8080": false, "127.0.0.1:8080": true, "127.0.0.1:8081": false, "127.0.0.2:8080": false, "nonsense": false} {
		v6.local = mustAddrPort("127.0.0.1:8080")
		if got := v6.matches(address, ""); got != want {
			t.Errorf("%s: %v", address, got)
		}
	}
	for address, want := range map[string]bool{":8080": true, "0.0.0.0:8080": true, "[::]:8080": true, "127.0.0.1:8080": false} {
		v6.local = mustAddrPort("[::]:8080")
		if got := v6.matches(address, ""); got != want {
			t.Errorf("%s on every address: %v", address, got)
		}
	}
}

func TestSocketActivation(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	other, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	p := plan(t, "systemd", ln.Addr().String())
	out := run(t, p, "LISTEN_FDS=2 LISTEN_PID=$$ exec "+p.Path, ln.(*net.TCPListener), other.(*net.TCPListener))
	if out != "1" { // one is not used, and nothing is left in the environment
		t.Errorf("%q", out)
	}
}

func TestNothingWasPassed(t *testing.T) {
	in, err := Receive()
	if in != nil || err != nil {
		t.Fatal(in, err)
	}
	if ln, err := in.Listener("tcp", ":80", ""); ln != nil || err != nil {
		t.Error(ln, err)
	}
	if d, err := in.Datagrams(":80", ""); d != nil || err != nil {
		t.Error(d, err)
	}
	in.Failed("nobody hears it")
	if in.Ready() != nil {
		t.Error("sockets from nowhere")
	}
	for _, bad := range []string{"{", `{"ready":1}`, `{"ready":3,"sockets":[{"network":"tcp","fd":99}]}`} {
		t.Setenv(variable, bad)
		if in, err := Receive(); in != nil || err == nil {
			t.Errorf("%s: %v %v", bad, in, err)
		}
	}
}

func TestNotifyTellsTheServiceManager(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "")
	if err := Notify(StateReady); err != nil {
		t.Error("without one:", err)
	}
	path := filepath.Join(t.TempDir(), "notify")
	t.Setenv("NOTIFY_SOCKET", path)
	if err := Notify(StateReady); err == nil {
		t.Error("a socket that is not there")
	}
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := Notify(StateMainPID(7)); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 100)
	if n, err := c.Read(b); string(b[:n]) != "MAINPID=7" {
		t.Errorf("%q %v", b[:n], err)
	}
}
