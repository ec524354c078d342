package listen

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	v1 "github.com/relais-edge/relais/api/v1"
)

// metric reads a series as the registry shows it.
func (r *rig) metric(series string) string {
	w := httptest.NewRecorder()
	r.reg.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	for line := range strings.Lines(w.Body.String()) {
		if v, ok := strings.CutPrefix(line, series+" "); ok {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

// closedUnserved says whether a connection is closed without an answer.
func closedUnserved(t *testing.T, nc net.Conn) bool {
	t.Helper()
	_ = nc.SetDeadline(time.Now().Add(5 * time.Second))
	_, _ = io.WriteString(nc, request)
	n, err := nc.Read(make([]byte, 1))
	ne, timeout := err.(net.Error)
	return n == 0 && err != nil && !(timeout && ne.Timeout())
}

func TestConnectionsAreLimited(t *testing.T) {
	for _, tc := range []struct {
		reason string
		change func(*v1.ListenerSpec)
	}{
		{"connections", func(s *v1.ListenerSpec) { s.Limits.Connections = 2 }},
		{"connections_per_address", func(s *v1.ListenerSpec) { s.Limits.ConnectionsPerAddress = 2 }},
	} {
		r := newRig(t)
		r.h.in, r.h.gate = make(chan struct{}), make(chan struct{})
		t.Cleanup(func() { close(r.h.gate) }) // before the rig's
		r.apply(listener("a", tc.change))
		for range 2 {
			nc := r.dial(r.addr("a"))
			defer nc.Close()
			if got := ask(t, nc, bufio.NewReader(nc)); got != "200 OK" {
				t.Fatal(got)
			}
			_, _ = io.WriteString(nc, "POST /wait HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n") // so that it is not shed
			<-r.h.in
		}
		if third, err := net.Dial("tcp", r.addr("a")); err == nil { // it may be reset before Dial returns
			defer third.Close()
			if !closedUnserved(t, third) {
				t.Errorf("%s: a third connection is served", tc.reason)
			}
		}
		if got := r.metric(`relais_listener_connections_refused_total{listener="demo/a",reason="` + tc.reason + `"}`); got != "1" {
			t.Errorf("%s: counted %q", tc.reason, got)
		}
		if got := r.metric(`relais_listener_connections{listener="demo/a"}`); got != "2" {
			t.Errorf("%s: %q connections are counted open", tc.reason, got)
		}
	}
}

func TestPlacesAreGivenBack(t *testing.T) {
	r := newRig(t)
	r.apply(listener("a", func(s *v1.ListenerSpec) { s.Limits.Connections, s.Limits.ConnectionsPerAddress = 1, 1 }))
	for i := range 20 {
		var got string
		wait(t, func() bool {
			got = r.raw(r.addr("a"), "GET /a HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
			return strings.HasPrefix(got, "HTTP/1.1 200 ")
		})
		if i == 19 {
			wait(t, func() bool { return r.metric(`relais_listener_connections{listener="demo/a"}`) == "0" })
		}
	}
	st := r.m.Listener("demo/a").state
	wait(t, func() bool {
		st.mu.Lock()
		defer st.mu.Unlock()
		return st.open.Load() == 0 && len(st.from) == 0
	})
}

func TestProxyProtocol(t *testing.T) {
	r := newRig(t)
	mode := func(m string, trusted ...string) func(*v1.ListenerSpec) {
		return func(s *v1.ListenerSpec) { s.ClientAddress.ProxyProtocol, s.ClientAddress.TrustedProxies = m, trusted }
	}
	r.apply(
		listener("off", mode("off", "127.0.0.0/8")),
		listener("optional", mode("optional", "127.0.0.0/8")),
		listener("required", mode("required", "127.0.0.0/8")),
		listener("untrusted", mode("optional", "10.0.0.0/8")),
		listener("required-untrusted", mode("required", "10.0.0.0/8")),
		listener("std", mode("required", "127.0.0.0/8"), withStd),
	)
	const get = "GET /client HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
	const one = "PROXY TCP4 192.0.2.1 192.0.2.2 56324 443\r\n"
	two := v2(0x21, 0x11, 192, 0, 2, 9, 192, 0, 2, 2, 0, 80, 1, 0xbb, 4, 0, 1, 9)
	for _, tc := range []struct{ name, send, want string }{
		{"off", get, "127.0.0.1"},
		{"off", one + get, "400 "},
		{"optional", get, "127.0.0.1"},
		{"optional", one + get, "192.0.2.1"},
		{"optional", two + get, "192.0.2.9"},
		{"optional", "PROXY TCP4 nonsense\r\n" + get, ""},
		{"required", get, ""},
		{"required", two + get, "192.0.2.9"},
		{"required", v2(0x20, 0) + get, "127.0.0.1"},
		{"std", one + get, "192.0.2.1"},
		{"untrusted", one + get, "400 "},
		{"untrusted", get, "127.0.0.1"},
		{"required-untrusted", one + get, ""},
	} {
		got := r.raw(r.addr(tc.name), tc.send)
		switch {
		case tc.want == "":
			if strings.HasPrefix(got, "HTTP/") {
				t.Errorf("%s: %q was served: %q", tc.name, tc.send, got)
			}
		case tc.want == "400 ":
			if !strings.HasPrefix(got, "HTTP/1.1 400 ") {
				t.Errorf("%s: %q: %q", tc.name, tc.send, got)
			}
		case !strings.HasSuffix(got, "\r\n\r\n"+tc.want):
			t.Errorf("%s: %q: got %q, want %s", tc.name, tc.send, got, tc.want)
		}
	}
}

// TestProxyHeaderInPieces sends the header and the request byte by byte.
func TestProxyHeaderInPieces(t *testing.T) {
	r := newRig(t)
	r.apply(listener("a", func(s *v1.ListenerSpec) {
		s.ClientAddress.ProxyProtocol, s.ClientAddress.TrustedProxies = "required", []string{"127.0.0.1"}
	}))
	nc := r.dial(r.addr("a"))
	defer nc.Close()
	for _, b := range []byte("PROXY TCP4 192.0.2.1 192.0.2.2 56324 443\r\nGET /client HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n") {
		if _, err := nc.Write([]byte{b}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Millisecond / 2)
	}
	_ = nc.SetReadDeadline(time.Now().Add(5 * time.Second))
	if got, _ := io.ReadAll(nc); !strings.HasSuffix(string(got), "192.0.2.1") {
		t.Errorf("got %q", got)
	}
}

func TestAPrefaceInPiecesAndWhatOnlyBeginsLikeOne(t *testing.T) {
	r := newRig(t)
	r.apply(listener("a"))
	nc := r.dial(r.addr("a"))
	defer nc.Close()
	for _, b := range []byte(preface + "\x00\x00\x00\x04\x00\x00\x00\x00\x00") {
		_, _ = nc.Write([]byte{b})
		time.Sleep(time.Millisecond / 2)
	}
	b := make([]byte, 9)
	_ = nc.SetReadDeadline(time.Now().Add(5 * time.Second))
	if _, err := io.ReadFull(nc, b); err != nil || b[3] != 4 {
		t.Errorf("no SETTINGS frame: %x %v", b, err)
	}
	if got := r.raw(r.addr("a"), "PRI * HTTP/2.0\r\n\r\nNO\r\n\r\n"); !strings.HasPrefix(got, "HTTP/1.1 ") {
		t.Errorf("got %q", got)
	}
	if got := r.raw(r.addr("a"), "P /a HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"); !strings.HasPrefix(got, "HTTP/1.1 200 ") {
		t.Errorf("got %q", got)
	}
}

func TestASilentConnectionIsClosedAfterTheIdleTimeout(t *testing.T) {
	for name, change := range map[string]func(*v1.ListenerSpec){"sniffed": func(*v1.ListenerSpec) {}, "std": withStd} {
		r := newRig(t)
		r.apply(listener("a", change, func(s *v1.ListenerSpec) {
			s.Timeouts.Idle, s.Timeouts.Header = v1.Duration(200*time.Millisecond), v1.Duration(200*time.Millisecond)
		}))
		nc := r.dial(r.addr("a"))
		defer nc.Close()
		_ = nc.SetReadDeadline(time.Now().Add(5 * time.Second))
		if _, err := nc.Read(make([]byte, 1)); err != io.EOF && !isReset(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestListenerLookupAllocatesNothing(t *testing.T) {
	r := newRig(t)
	r.apply(listener("a"))
	q := newFrom("192.0.2.1")
	q.Conn.Listener = "demo/a"
	if n := testing.AllocsPerRun(100, func() { r.m.Listener(q.Conn.Listener).Client(q) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkClientWithoutTrustedProxies(b *testing.B) {
	r := newRig(b)
	r.apply(listener("a"))
	q := newFrom("192.0.2.1")
	q.Conn.Listener = "demo/a"
	for b.Loop() {
		r.m.Listener(q.Conn.Listener).Client(q)
	}
}

// TestAcceptGoesOnAfterItFailed makes accepting fail as a lack of descriptors does: for a
// while, with an error that is not the end.
func TestAcceptGoesOnAfterItFailed(t *testing.T) {
	r := newRig(t)
	r.apply(listener("a"))
	r.m.mu.Lock()
	var e *endpoint
	for _, e = range r.m.endpoints {
	}
	r.m.mu.Unlock()
	_ = e.tcp.SetDeadline(time.Unix(1, 0))
	wait(t, func() bool {
		return r.metric(`relais_listener_connections_refused_total{listener="demo/a",reason="files"}`) > "0"
	})
	_ = e.tcp.SetDeadline(time.Time{})
	if got := r.raw(r.addr("a"), "GET /a HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"); !strings.HasPrefix(got, "HTTP/1.1 200 ") {
		t.Errorf("got %q", got)
	}
}

// v2 writes a PROXY header of version 2.
func v2(cmd, fam byte, body ...byte) string {
	return "\r\n\r\n\x00\r\nQUIT\n" + string([]byte{cmd, fam, byte(len(body) >> 8), byte(len(body))}) + string(body)
}

// date asks once and returns the answer's Date.
func date(t *testing.T, nc net.Conn, b *bufio.Reader) string {
	t.Helper()
	_ = nc.SetDeadline(time.Now().Add(10 * time.Second))
	_, _ = io.WriteString(nc, request)
	resp, err := http.ReadResponse(b, nil)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, resp.Body)
	return resp.Header.Get("Date")
}

// A full listener ends the connection that has been idle longest, and serves who comes.
func TestAnIdleConnectionMakesRoom(t *testing.T) {
	r := newRig(t)
	r.apply(listener("a", func(s *v1.ListenerSpec) { s.Limits.Connections = 3 }))
	open := func() (net.Conn, *bufio.Reader) {
		nc := r.dial(r.addr("a"))
		t.Cleanup(func() { _ = nc.Close() })
		b := bufio.NewReader(nc)
		if got := ask(t, nc, b); got != "200 OK" {
			t.Fatal(got)
		}
		return nc, b
	}
	first, firstReader := open()
	second, secondReader := open()
	// The clock of idle connections is coarse, and it is Date's: when that moves, the second has
	// been idle for less.
	before := date(t, first, firstReader)
	wait(t, func() bool { return date(t, second, secondReader) != before })
	open()
	open() // the fourth
	_ = first.SetReadDeadline(time.Now().Add(5 * time.Second))
	if _, err := firstReader.ReadByte(); err != io.EOF {
		t.Errorf("the connection that was idle longest: %v, want its end", err)
	}
	if got := ask(t, second, secondReader); got != "200 OK" {
		t.Errorf("the other: %s", got)
	}
	if got := r.metric(`relais_listener_connections_shed_total{listener="demo/a",state="idle"}`); got != "1" {
		t.Errorf("counted %q", got)
	}
}

// A client that is slow to send its first head makes room too, where nobody is idle.
func TestASilentConnectionMakesRoom(t *testing.T) {
	r := newRig(t)
	r.apply(listener("a", func(s *v1.ListenerSpec) {
		s.Limits.Connections, s.Protocols = 2, []v1.Protocol{v1.ProtocolHTTP1}
	}))
	for range 2 {
		nc := r.dial(r.addr("a"))
		defer nc.Close()
		_, _ = io.WriteString(nc, "GET / HTTP/1.1\r\nX-")
	}
	// Young ones are spared, and who comes is refused.
	wait(t, func() bool {
		nc, err := net.Dial("tcp", r.addr("a"))
		if err != nil {
			return false
		}
		defer nc.Close()
		_ = nc.SetDeadline(time.Now().Add(5 * time.Second))
		_, _ = io.WriteString(nc, request)
		line, err := bufio.NewReader(nc).ReadString('\n')
		return err == nil && strings.HasPrefix(line, "HTTP/1.1 200 ")
	})
	if got := r.metric(`relais_listener_connections_shed_total{listener="demo/a",state="silent"}`); got != "1" {
		t.Errorf("counted %q", got)
	}
}

// It does so with connections of HTTP/2 too.
func TestAnIdleConnectionOfHTTP2MakesRoom(t *testing.T) {
	r := newRig(t)
	r.apply(listener("a", func(s *v1.ListenerSpec) {
		s.Limits.Connections, s.Protocols = 1, []v1.Protocol{v1.ProtocolHTTP1, v1.ProtocolH2C}
	}))
	resp, err := r.client("h2c").Get("http://" + r.addr("a") + "/")
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, resp.Body)
	_ = resp.Body.Close()
	for end := time.Now().Add(10 * time.Second); ; { // until the server too knows that it is idle
		nc := r.dial(r.addr("a"))
		got := ask(t, nc, bufio.NewReader(nc))
		_ = nc.Close()
		if got == "200 OK" {
			break
		}
		if time.Now().After(end) {
			t.Fatal(got)
		}
		time.Sleep(time.Millisecond)
	}
	if got := r.metric(`relais_listener_connections_shed_total{listener="demo/a",state="idle"}`); got != "1" {
		t.Errorf("counted %q", got)
	}
}

func TestNoAddressTakesThePlacesOfTheOthers(t *testing.T) {
	r := newRig(t)
	r.apply(listener("a", func(s *v1.ListenerSpec) { s.Limits.Connections = 320 }))
	a := r.m.Listener("demo/a")
	take := func(from string) string {
		if refused := a.enterTCP(); refused != "" {
			return refused
		}
		_, refused := a.admit(netip.MustParseAddr(from))
		if refused != "" {
			a.leaveTCP()
		}
		return refused
	}
	for i := range 240 { // as many as it likes, while there is room
		if got := take("192.0.2.1"); got != "" {
			t.Fatalf("connection %d: %s", i, got)
		}
	}
	if got := take("192.0.2.1"); got != refuseShare {
		t.Errorf("%q beyond its share", got)
	}
	for i := range 20 { // a sixteenth
		if got := take("2001:db8::" + strconv.Itoa(i+1)); got != "" {
			t.Fatalf("another client, connection %d: %s", i, got)
		}
	}
	if got := take("2001:db8::1"); got != refuseShare {
		t.Errorf("%q: a /64 is one address", got)
	}
}

func TestConnectionsAreBoundByDescriptors(t *testing.T) {
	r := newRig(t)
	r.m.cfg.Files = 2
	r.apply(listener("a"), listener("b"))
	a, b := r.m.Listener("demo/a"), r.m.Listener("demo/b")
	if got := a.enterTCP() + b.enterTCP(); got != "" {
		t.Fatal(got)
	}
	if got := a.enterTCP(); got != refuseFiles {
		t.Errorf("%q", got)
	}
	b.leaveTCP()
	if got := a.enterTCP(); got != "" {
		t.Errorf("when there is room again: %q", got)
	}
}

// A WebSocket in which neither side says anything ends after the listener's limit.
func TestASilentTunnelIsClosed(t *testing.T) {
	for name, change := range map[string]func(*v1.ListenerSpec){"relais": func(*v1.ListenerSpec) {}, "std": withStd} {
		r := newRig(t)
		r.h.far = make(chan net.Conn, 1)
		r.m.tunnel = 300 * time.Millisecond
		r.apply(listener("a", change))
		nc := r.dial(r.addr("a"))
		defer nc.Close()
		_ = nc.SetDeadline(time.Now().Add(10 * time.Second))
		_, _ = io.WriteString(nc, "GET /tunnel HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n")
		b := bufio.NewReader(nc)
		if line, err := b.ReadString('\n'); !strings.HasPrefix(line, "HTTP/1.1 101 ") {
			t.Fatalf("%s: %q %v", name, line, err)
		}
		if _, err := io.Copy(io.Discard, b); err != nil && !isReset(err) {
			t.Errorf("%s: the client's side: %v", name, err)
		}
		far := <-r.h.far
		_ = far.SetDeadline(time.Now().Add(10 * time.Second))
		if _, err := far.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("%s: the origin's side: %v", name, err)
		}
	}
}
