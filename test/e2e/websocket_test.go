package e2e

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	bigendian "encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/relais-edge/relais/test/proc"
)

// frame builds a frame of RFC 6455 section 5.2 from its first byte, with the shortest length.
func frame(first byte, masked bool, payload []byte) []byte {
	b := []byte{first}
	mask := byte(0)
	if masked {
		mask = 0x80
	}
	switch n := len(payload); {
	case n < 126:
		b = append(b, mask|byte(n))
	case n < 1<<16:
		b = bigendian.BigEndian.AppendUint16(append(b, mask|126), uint16(n))
	default:
		b = bigendian.BigEndian.AppendUint64(append(b, mask|127), uint64(n))
	}
	if !masked {
		return append(b, payload...)
	}
	key := [4]byte{0xde, 0xad, 0xbe, 0xef}
	b = append(b, key[:]...)
	for i, v := range payload {
		b = append(b, v^key[i%4])
	}
	return b
}

// frames are good and bad frames, one after the other: the edge reads none of them.
func frames(seed uint64, masked bool) []byte {
	r := rand.NewChaCha8([32]byte{byte(seed)})
	random := func(n int) []byte { b := make([]byte, n); _, _ = r.Read(b); return b }
	const fin = 0x80
	list := [][]byte{
		frame(fin|1, masked, []byte("hello")),
		frame(fin|2, masked, nil),                               // zero length
		frame(1, masked, nil), frame(0, masked, []byte("frag")), // fragments
		frame(fin|9, masked, []byte("ping")), frame(fin|10, masked, nil), // control frames between them
		frame(0, masked, random(70_000)), frame(fin, masked, []byte("end")),
		frame(fin|2, masked, random(125)), frame(fin|2, masked, random(126)), frame(fin|2, masked, random(65_535)), frame(fin|2, masked, random(65_536)),
		frame(fin|1, !masked, []byte("a mask where none belongs, or none where one does")),
		frame(fin|0x70|1, masked, []byte("reserved bits")), frame(fin|0x40|2, masked, random(300)),
		frame(fin|3, masked, []byte("opcode 3")), frame(fin|0xf, masked, random(9)), frame(9, masked, []byte("a fragmented ping")),
		frame(fin|9, masked, random(200)),                // a control frame over 125 bytes
		frame(fin, masked, []byte("nothing to go on")),   // a continuation of nothing
		{fin | 2, 126, 0, 5, 1, 2, 3, 4, 5},              // a length that is not the shortest
		{fin | 2, 127, 0xff, 0, 0, 0, 0, 0, 0, 1},        // a length with the highest bit
		{fin | 1, 0x85, 0, 0, 0, 0, 'h', 'e', 'l', 0xff}, // a mask of zeros, text that is not UTF-8, too short
		frame(fin|8, masked, []byte{3}),                  // a close of one byte
		frame(fin|8, masked, append([]byte{3, 0xe8}, "bye"...)),
		[]byte("GET /?q=1' UNION SELECT password FROM users-- HTTP/1.1\r\nHost: x\r\n\r\n<script>alert(1)</script>\r\n0\r\n\r\n"),
		[]byte("HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\nPRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
		frame(fin|2, masked, random(16<<20)),
		frame(fin|1, masked, []byte("after close")),
		random(1 << 20),
	}
	return bytes.Join(list, nil)
}

// inPieces writes b in pieces of many sizes, so that frames are cut anywhere.
func inPieces(w io.Writer, b []byte) error {
	for i := 0; len(b) > 0; i++ {
		n := min(len(b), [...]int{1, 2, 7, 125, 4096, 16_383, 65_537, 1 << 20}[i%8])
		if _, err := w.Write(b[:n]); err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}

// ended is what the origin saw of a tunnel.
type ended struct {
	n   int64
	sum [32]byte
	err error
}

// wsOrigin is an origin on bare TCP. Its paths are the ways in which an origin may behave.
type wsOrigin struct {
	addr string
	down []byte       // what it sends
	seen chan ended   // the end of a tunnel at /both, /half and /hang
	head chan string  // the head of a request to /fields
	out  atomic.Int64 // bytes that /push has got rid of
}

func newWSOrigin(t *testing.T, down []byte) *wsOrigin {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	o := &wsOrigin{addr: ln.Addr().String(), down: down, seen: make(chan ended, 100), head: make(chan string, 100)}
	go func() {
		for {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			go o.serve(nc.(*net.TCPConn))
		}
	}()
	return o
}

func (o *wsOrigin) serve(nc *net.TCPConn) {
	defer nc.Close()
	r := bufio.NewReader(nc)
	var head strings.Builder
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		if head.WriteString(line); line == "\r\n" {
			break
		}
	}
	req, err := http.ReadRequest(bufio.NewReader(strings.NewReader(head.String())))
	if err != nil {
		return
	}
	page := func(status string) {
		fmt.Fprintf(nc, "HTTP/1.1 %s\r\nContent-Type: text/plain\r\nContent-Length: 5\r\nConnection: close\r\n\r\nsorry", status)
	}
	accept := wsAccept(req.Header.Get("Sec-WebSocket-Key"))
	switch {
	case req.URL.Path == "/refused":
		page("403 Forbidden")
		return
	case req.Header.Get("Upgrade") != "websocket" || req.URL.Path == "/page":
		page("200 OK")
		return
	case req.URL.Path == "/wrong":
		accept = wsAccept("another")
	case req.URL.Path == "/fields":
		o.head <- head.String()
	}
	extra := ""
	for _, name := range []string{"Sec-WebSocket-Protocol", "Sec-WebSocket-Extensions"} {
		if v := req.Header.Get(name); v != "" {
			extra += name + ": " + v + "\r\n"
		}
	}
	fmt.Fprintf(nc, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nContent-Type: text/html\r\nCache-Control: max-age=60\r\n%sSec-WebSocket-Accept: %s\r\n\r\n", extra, accept)
	o.behave(req.URL.Path, nc, r)
}

func (o *wsOrigin) behave(path string, nc *net.TCPConn, r *bufio.Reader) {
	switch path {
	case "/both": // sends while it reads; after the client's end, tells what it got
		done := make(chan ended)
		go func() { done <- digest(r) }()
		_ = inPieces(nc, o.down)
		got := <-done
		_, _ = nc.Write(got.sum[:])
		o.seen <- got
	case "/half": // ends its way first
		_, _ = nc.Write([]byte("bye"))
		_ = nc.CloseWrite()
		o.seen <- digest(r)
	case "/abort":
		_, _ = r.ReadByte()
		reset(nc)
	case "/hang":
		_, _ = nc.Write([]byte("!"))
		o.seen <- digest(r)
	case "/push": // sends without end
		for b := make([]byte, 64<<10); ; {
			n, err := nc.Write(b)
			if o.out.Add(int64(n)); err != nil {
				return
			}
		}
	case "/deaf": // never reads; ends when the client is gone
		_, _ = nc.Write([]byte("!"))
		o.head <- path
		<-time.After(time.Minute)
	default:
		_, _ = io.Copy(nc, r)
	}
}

func digest(r io.Reader) ended {
	h := sha256.New()
	n, err := io.Copy(h, r)
	return ended{n, [32]byte(h.Sum(nil)), err}
}

// within waits for what must come.
func within[T any](t *testing.T, what string, c <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-c:
	case <-time.After(30 * time.Second):
		t.Fatal("still not: ", what)
	}
	return v
}

// wsEdge serves examples/full.yaml, with everything on, before o.
func wsEdge(t *testing.T, o *wsOrigin, change func(string) string) (p *proc.Process, protocols map[string]wsDialer, log string) {
	t.Helper()
	doc, err := os.ReadFile("../../examples/full.yaml")
	if err != nil {
		t.Fatal(err)
	}
	addr, dir := ports(t, 2), t.TempDir()
	file, log := filepath.Join(dir, "full.yaml"), filepath.Join(dir, "access.json")
	write(t, file, change(string(doc)))
	p, _ = start(t, addr[1], []string{"LISTEN=" + addr[0], "LISTEN_TLS=" + addr[1], "ORIGIN=" + o.addr, "ORIGIN_OVERFLOW=" + ports(t, 1)[0]},
		"serve", "-f", file, "--access-log", log)
	return p, wsProtocols(addr[0], addr[1]), log
}

func asItIs(doc string) string { return doc }

// RFC 6455, RFC 8441 and RFC 9220: after the handshake the edge is a tunnel, whatever the frames
// are, though firewall, cache, compression, rate limits and the log are all on.
func TestWebSocketIsATunnelOfBytesInEveryProtocol(t *testing.T) {
	up, down := frames(1, true), frames(2, false)
	o := newWSOrigin(t, down)
	_, protocols, log := wsEdge(t, o, asItIs)
	for name, open := range protocols {
		t.Run(name, func(t *testing.T) {
			if status, _, _ := open(t, "/both?q=1%27%20UNION%20SELECT%20password%20FROM%20users--"); status != 403 {
				t.Errorf("the firewall lets an attack pass: %d", status)
			}
			for range 2 { // what was stored of the first would show in the second
				bothWays(t, o, open, up, down)
			}
			fieldsOfTheHandshake(t, o, open)
			t.Run("half closed by the origin", func(t *testing.T) { halfClosedByTheOrigin(t, o, open) })
			t.Run("aborts", func(t *testing.T) { aborts(t, o, open) })
			t.Run("refused", func(t *testing.T) { refused(t, open, strings.HasPrefix(name, "http")) })
		})
	}
	eventually(t, "the log has the tunnels", func() bool { return logHas(t, log, `/both`) && logHas(t, log, "/half") })
}

func bothWays(t *testing.T, o *wsOrigin, open wsDialer, up, down []byte) {
	t.Helper()
	status, head, ws := open(t, "/both", "Accept-Encoding", "gzip, br, zstd")
	if status != 101 || head.Get("Content-Encoding") != "" {
		t.Fatal(status, head)
	}
	sent := make(chan error, 1)
	go func() { sent <- errors.Join(inPieces(ws, up), ws.half()) }()
	got := make([]byte, len(down)+sha256.Size)
	if n, err := io.ReadFull(ws, got); err != nil {
		t.Fatalf("after %d of %d bytes: %v", n, len(got), err)
	}
	if !bytes.Equal(got[:len(down)], down) {
		t.Error("the origin's bytes have changed")
	}
	if sum := sha256.Sum256(up); !bytes.Equal(got[len(down):], sum[:]) {
		t.Error("the client's bytes have changed")
	}
	if n, err := ws.Read(make([]byte, 1)); n > 0 || err != io.EOF {
		t.Errorf("after the end: %d, %v", n, err)
	}
	if err := within(t, "the client has sent all", sent); err != nil {
		t.Error(err)
	}
	if e := within(t, "the origin has seen the end", o.seen); e.n != int64(len(up)) || e.err != nil {
		t.Errorf("the origin read %d of %d bytes: %v", e.n, len(up), e.err)
	}
}

// fieldsOfTheHandshake says that subprotocol and extensions are the two ends' own affair.
func fieldsOfTheHandshake(t *testing.T, o *wsOrigin, open wsDialer) {
	t.Helper()
	const protocol, extensions = "chat, superchat", "permessage-deflate; client_max_window_bits, x-own"
	status, head, _ := open(t, "/fields", "Sec-WebSocket-Protocol", protocol, "Sec-WebSocket-Extensions", extensions)
	if status != 101 || head.Get("Sec-WebSocket-Protocol") != protocol || head.Get("Sec-WebSocket-Extensions") != extensions {
		t.Error("the client's head: ", status, head)
	}
	got := within(t, "the origin is asked", o.head)
	for _, want := range []string{"Sec-WebSocket-Protocol: " + protocol, "Sec-WebSocket-Extensions: " + extensions, "Sec-WebSocket-Version: 13", "Upgrade: websocket", "Connection: Upgrade"} {
		if !strings.Contains(strings.ToLower(got), strings.ToLower(want+"\r\n")) {
			t.Errorf("the origin's head has no %q:\n%s", want, got)
		}
	}
}

func halfClosedByTheOrigin(t *testing.T, o *wsOrigin, open wsDialer) {
	_, _, ws := open(t, "/half")
	if b, err := io.ReadAll(ws); string(b) != "bye" || err != nil {
		t.Fatalf("%q, %v", b, err)
	}
	last := bytes.Repeat([]byte("still here "), 50_000)
	if err := errors.Join(inPieces(ws, last), ws.half()); err != nil {
		t.Error(err)
	}
	if e := within(t, "the origin has seen the end", o.seen); e.sum != sha256.Sum256(last) || e.err != nil {
		t.Errorf("%d of %d bytes, %v", e.n, len(last), e.err)
	}
}

// aborts has one side die: the other must not wait for it.
func aborts(t *testing.T, o *wsOrigin, open wsDialer) {
	_, _, ws := open(t, "/abort")
	_, _ = ws.Write([]byte("x"))
	over := make(chan error, 1)
	go func() { _, err := io.Copy(io.Discard, ws); over <- err }()
	if err := within(t, "the client sees that the origin died", over); err == nil {
		t.Error("the origin's abort looks like an end in good order")
	}
	_, _, ws = open(t, "/hang")
	if _, err := io.ReadFull(ws, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	ws.abort()
	within(t, "the origin sees that the client died", o.seen)
}

func refused(t *testing.T, open wsDialer, http1 bool) {
	if status, _, _ := open(t, "/refused"); status != 403 {
		t.Errorf("the origin's 403 became %d", status)
	}
	// A 2xx to CONNECT would be a tunnel (RFC 8441 section 5).
	want := map[bool]int{true: 200, false: 502}[http1]
	if status, _, _ := open(t, "/page"); status != want {
		t.Errorf("the origin's 200 became %d, want %d", status, want)
	}
	// An origin that agrees to another handshake (RFC 6455 section 4.2.2).
	status, head, _ := open(t, "/wrong")
	if status != 502 || !strings.Contains(head.Get("Proxy-Status"), "error=http_upgrade_failed") {
		t.Errorf("a wrong Sec-WebSocket-Accept: %d, %v", status, head)
	}
}

// A reader that stops makes the writer stop: what lies between is bounded.
func TestAWebSocketHoldsBackWhoWritesToASlowReader(t *testing.T) {
	const bound = 32 << 20 // sockets of the kernel hold up to 6 MiB each, a client some MiB
	o := newWSOrigin(t, nil)
	_, protocols, _ := wsEdge(t, o, asItIs)
	for name, open := range protocols {
		t.Run(name, func(t *testing.T) {
			_, _, ws := open(t, "/deaf")
			within(t, "the tunnel is open", o.head)
			var sent atomic.Int64
			over := make(chan struct{})
			go func() {
				defer close(over)
				for b := make([]byte, 64<<10); sent.Load() < 2*bound; {
					n, err := ws.Write(b)
					if sent.Add(int64(n)); err != nil {
						return
					}
				}
			}()
			stalls(t, "client", &sent, bound)
			ws.abort()
			within(t, "the client's write ends", over)

			o.out.Store(0)
			_, _, ws = open(t, "/push")
			stalls(t, "origin", &o.out, bound)
			if _, err := io.CopyN(io.Discard, ws, 2*bound); err != nil {
				t.Errorf("the tunnel does not go on when its reader does: %v", err)
			}
			ws.abort()
		})
	}
}

// stalls waits until n has not moved for a while.
func stalls(t *testing.T, who string, n *atomic.Int64, bound int64) {
	t.Helper()
	eventually(t, "the "+who+" starts", func() bool { return n.Load() > 0 })
	last, since := n.Load(), time.Now()
	eventually(t, "the "+who+" is held back", func() bool {
		if now := n.Load(); now != last {
			last, since = now, time.Now()
		}
		return last > bound || time.Since(since) > 500*time.Millisecond
	})
	if last > bound {
		t.Errorf("the %s has written %d bytes that nobody reads", who, last)
	}
	t.Logf("the %s is held back after %d KiB", who, last>>10)
}

// A tunnel goes on while the process drains, and is cut off at `timeouts.drain`.
func TestWebSocketsGoOnWhileTheEdgeDrainsAndEndWithIt(t *testing.T) {
	o := newWSOrigin(t, nil)
	p, protocols, _ := wsEdge(t, o, func(doc string) string {
		for _, l := range []string{"protocols: [http1, h2c]", "protocols: [http1, h2, h3]"} {
			doc = strings.Replace(doc, l, l+"\n  timeouts: {drain: 5s}", 1)
		}
		return doc
	})
	open := map[string]*tunnel{}
	echo := func(name string) {
		t.Helper()
		ws := open[name]
		_, err := io.WriteString(ws, name)
		b := make([]byte, len(name))
		if _, e := io.ReadFull(ws, b); err != nil || e != nil || string(b) != name {
			t.Errorf("%s: %q, %v, %v", name, b, err, e)
		}
	}
	for name, dial := range protocols {
		_, _, open[name] = dial(t, "/echo")
		echo(name)
	}
	signal(t, p, syscall.SIGTERM)
	time.Sleep(500 * time.Millisecond)
	for name := range open {
		echo(name)
	}
	for name, ws := range open {
		over := make(chan struct{})
		go func() { _, _ = io.Copy(io.Discard, ws); close(over) }()
		within(t, name+" is cut off", over)
	}
}
