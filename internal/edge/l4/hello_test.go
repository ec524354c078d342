package l4

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/relais-edge/relais/internal/bundle"
	"github.com/relais-edge/relais/internal/http/message"
)

// helloOf is what crypto/tls sends as a ClientHello.
func helloOf(t testing.TB, c *tls.Config) []byte {
	t.Helper()
	w := &wire{}
	c.InsecureSkipVerify = true
	_ = tls.Client(w, c).Handshake()
	if w.out.Len() == 0 {
		t.Fatal("no ClientHello")
	}
	return w.out.Bytes()
}

// wire is a connection on which in comes and out goes.
type wire struct {
	in  bytes.Reader
	out bytes.Buffer
}

func (w *wire) Read(b []byte) (int, error)       { return w.in.Read(b) }
func (w *wire) Write(b []byte) (int, error)      { return w.out.Write(b) }
func (w *wire) Close() error                     { return nil }
func (w *wire) LocalAddr() net.Addr              { return nil }
func (w *wire) RemoteAddr() net.Addr             { return nil }
func (w *wire) SetDeadline(time.Time) error      { return nil }
func (w *wire) SetReadDeadline(time.Time) error  { return nil }
func (w *wire) SetWriteDeadline(time.Time) error { return nil }

// twinHello is what crypto/tls reads.
func twinHello(b []byte) (h hello, ok bool) {
	w := &wire{}
	w.in.Reset(b)
	_ = tls.Server(w, &tls.Config{GetConfigForClient: func(info *tls.ClientHelloInfo) (*tls.Config, error) {
		h, ok = hello{serverName: strings.ToLower(info.ServerName), protocols: info.SupportedProtos}, true
		return nil, errors.New("that was all")
	}}).Handshake()
	return h, ok
}

// inRecords writes a ClientHello anew in records of at most n bytes.
func inRecords(b []byte, n int) []byte {
	var out []byte
	for part := range slices.Chunk(b[5:], n) {
		out = append(out, 22, 3, 1, byte(len(part)>>8), byte(len(part)))
		out = append(out, part...)
	}
	return out
}

func TestClientHelloIsReadInWhateverPieces(t *testing.T) {
	b := helloOf(t, &tls.Config{ServerName: "Shop.Example", NextProtos: []string{"h2", "http/1.1"}})
	for _, n := range []int{1, 3, 100, 1 << 14} {
		parts := inRecords(b, n)
		got, err := parseHello(append(slices.Clone(parts), "more"...))
		if err != nil || got.serverName != "shop.example" || !slices.Equal(got.protocols, []string{"h2", "http/1.1"}) {
			t.Errorf("records of %d: %+v %v", n, got, err)
		}
		var p helloParser
		for i := range parts {
			if _, err := p.feed(parts[:i]); !errors.Is(err, errHelloMore) {
				t.Fatalf("records of %d, %d bytes: %v", n, i, err)
			}
		}
		if again, err := p.feed(parts); err != nil || again.serverName != got.serverName {
			t.Errorf("records of %d, byte by byte: %+v %v", n, again, err)
		}
	}
}

func TestWhatIsNoClientHelloIsRefused(t *testing.T) {
	good := helloOf(t, &tls.Config{ServerName: "shop.example"})
	long := slices.Clone(good)
	long[6], long[7], long[8] = 1, 0, 0
	alert := slices.Clone(good)
	alert[0] = 21
	other := slices.Clone(good)
	other[5] = 2
	empty := append([]byte{22, 3, 1, 0, 0}, good...)
	twice := bytes.Replace(good, []byte("\x00\x0f\x00\x00\x0cshop.example"), []byte("\x00\x0f\x00\x00\x05shop.\x00\x00\x04exam"), 1)
	dot := bytes.Replace(good, []byte("shop.example"), []byte("shop.exampl."), 1)
	for name, tc := range map[string]struct {
		b    []byte
		want error
	}{
		"HTTP": {[]byte("GET / HTTP/1.1\r\n"), errNotTLS}, "too long": {long, errHelloLong}, "an alert": {alert, errNotTLS},
		"a ServerHello": {other, errNotTLS}, "an empty record": {empty, errHelloBad}, "two names": {twice, errHelloBad},
		"a name with a dot at its end": {dot, errHelloBad}, "SSL 2": {[]byte{0x80, 0x2e, 1, 3, 1}, errNotTLS},
	} {
		if h, err := parseHello(tc.b); !errors.Is(err, tc.want) {
			t.Errorf("%s: %+v %v, want %v", name, h, err, tc.want)
		}
	}
	if _, err := parseHello(nil); !errors.Is(err, errHelloMore) {
		t.Errorf("nothing: %v", err)
	}
}

func FuzzClientHello(f *testing.F) {
	for _, c := range []*tls.Config{
		{ServerName: "shop.example", NextProtos: []string{"h2", "http/1.1"}},
		{ServerName: "a.b", MaxVersion: tls.VersionTLS12},
		{},
	} {
		b := helloOf(f, c)
		f.Add(b)
		f.Add(inRecords(b, 100))
	}
	f.Add([]byte("GET / HTTP/1.1\r\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := parseHello(b)
		want, ok := twinHello(b)
		// crypto/tls also judges what we do not need, so it may refuse what we take; and it bears records
		// that the RFC forbids. What both take must be the same.
		strict := len(b) > 1 && (b[0] != recordHandshake || b[1] != 3) || errors.Is(err, errHelloLong)
		if ok && err != nil && !strict && !oddRecords(b) {
			t.Fatalf("crypto/tls reads %+v, we say %v", want, err)
		}
		if ok && err == nil {
			if len(want.protocols) > maxHelloNames {
				want.protocols = want.protocols[:maxHelloNames]
			}
			if len(want.serverName) <= 255 && (got.serverName != want.serverName || !slices.Equal(got.protocols, want.protocols)) {
				t.Fatalf("crypto/tls reads %+v, we %+v", want, got)
			}
		}
		// What the first bytes decide, more bytes do not change.
		if !errors.Is(err, errHelloMore) {
			more, again := parseHello(append(slices.Clone(b), 1, 2, 3))
			if !errors.Is(again, err) || more.serverName != got.serverName {
				t.Fatalf("%v, with more bytes %v", err, again)
			}
		}
	})
}

// oddRecords says whether there is an empty record, one of another type or of another version, which
// crypto/tls passes over.
func oddRecords(b []byte) bool {
	for len(b) >= 5 {
		n := int(b[3])<<8 | int(b[4])
		if n == 0 || b[0] != recordHandshake || b[1] != 3 {
			return true
		}
		b = b[min(len(b), 5+n):]
	}
	return len(b) > 0
}

// tlsOrigin is a TLS server that answers with its name and the client's.
func tlsOrigin(t *testing.T, name string) string {
	t.Helper()
	cert := selfSigned(t, name)
	return tcpOrigin(t, "tcp", "127.0.0.1:0", func(nc net.Conn) {
		tc := tls.Server(nc, &tls.Config{Certificates: []tls.Certificate{cert}})
		if tc.Handshake() != nil {
			return
		}
		_, _ = io.WriteString(tc, name+" for "+tc.ConnectionState().ServerName+"\n")
		_, _ = io.Copy(tc, tc)
	})
}

func TestTLSPassthroughChoosesByName(t *testing.T) {
	b := newBed(t)
	address := free(t, "tcp")
	one, two := tlsOrigin(t, "one"), tlsOrigin(t, "two")
	b.apply(
		serviceDoc("one", "tls-passthrough", address, one, hostnames("a.test")),
		serviceDoc("two", "tls-passthrough", address, two, hostnames("*.test", "*.deep.a.test")),
	)
	for i, tc := range [][2]string{{"a.test", "one"}, {"A.TEST", "one"}, {"b.test", "two"}, {"x.deep.a.test", "two"}, {"x.y.test", "two"}} {
		c, err := tls.Dial("tcp", address, &tls.Config{ServerName: tc[0], InsecureSkipVerify: true})
		if err != nil {
			t.Fatal(err)
		}
		_ = c.SetDeadline(time.Now().Add(10 * time.Second))
		want := tc[1] + " for " + tc[0] + "\nhello"
		ask(t, c, "hello", want)
		_ = c.Close()
		if e := b.last(i + 1); e.Host != strings.ToLower(tc[0]) || e.Proto != "tls" || e.Service != "default/"+tc[1] {
			t.Errorf("%+v", e)
		}
	}
	for _, name := range []string{"other.example", ""} {
		c, err := tls.Dial("tcp", address, &tls.Config{ServerName: name, InsecureSkipVerify: true})
		if err == nil {
			_ = c.Close()
		}
		var alert tls.AlertError
		if !errors.As(err, &alert) && !strings.Contains(err.Error(), "unrecognized name") {
			t.Errorf("%q: %v", name, err)
		}
	}
	b.apply(
		serviceDoc("one", "tls-passthrough", address, one, hostnames("a.test")),
		serviceDoc("two", "tls-passthrough", address, two, hostnames("*")),
	)
	c, err := tls.Dial("tcp", address, &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ask(t, c, "", "two for \n")
}

func TestAClientHelloThatDoesNotComeEndsTheConnection(t *testing.T) {
	b := newBed(t)
	s := serviceDoc("one", "tls-passthrough", "127.0.0.1:0", "127.0.0.1:1", hostnames("a.test"))
	s.Spec.Hello = 200_000_000
	b.apply(s)
	for _, send := range []string{"", "\x16\x03\x01\x02\x00\x01\x00", "GET / HTTP/1.1\r\n\r\n"} {
		if got := knock(b.address("tcp"), send); got != "" {
			t.Errorf("%q: got %q", send, got)
		}
	}
}

func TestForwardReturnsWhatIsNotAServicesWhole(t *testing.T) {
	b := newBed(t)
	s := serviceDoc("one", "tls-passthrough", "127.0.0.1:8443", tlsOrigin(t, "one"), hostnames("a.test"))
	if err := b.Apply([]bundle.Service{s}, map[string]bool{"127.0.0.1:8443": true}); err != nil {
		t.Fatal(err)
	}
	if n := len(b.Addrs()); n != 0 {
		t.Errorf("it receives on %d addresses that are the listener's", n)
	}
	facts := &message.Conn{Client: loopback, Peer: netip.MustParseAddrPort("127.0.0.1:9"), Local: netip.MustParseAddrPort("127.0.0.1:8443")}
	other := helloOf(t, &tls.Config{ServerName: "other.test"})
	for name, tc := range map[string]struct{ address, send string }{
		"another name": {"127.0.0.1:8443", string(other)}, "HTTP": {"127.0.0.1:8443", "GET / HTTP/1.1\r\n\r\n"},
		"another address": {"127.0.0.1:9443", string(helloOf(t, &tls.Config{ServerName: "a.test"}))}, "a part": {"127.0.0.1:8443", string(other[:50])},
	} {
		client, ours := tcpPair(t)
		_, _ = io.WriteString(client, tc.send)
		rest, taken := b.Forward(t.Context(), tc.address, ours, facts, 200*time.Millisecond)
		if taken {
			t.Fatalf("%s: taken", name)
		}
		if rest != ours {
			if u, ok := rest.(interface{ NetConn() net.Conn }); !ok || u.NetConn() != ours {
				t.Errorf("%s: who serves it cannot see its socket", name)
			}
		}
		_, _ = io.WriteString(client, "more")
		got := make([]byte, len(tc.send)+4)
		if _, err := io.ReadFull(rest, got); err != nil || string(got) != tc.send+"more" {
			t.Errorf("%s: %q %v", name, got, err)
		}
	}
	client, ours := tcpPair(t)
	done := make(chan bool, 1)
	go func() {
		_, taken := b.Forward(t.Context(), "127.0.0.1:8443", ours, facts, time.Second)
		done <- taken
	}()
	c := tls.Client(client, &tls.Config{ServerName: "a.test", InsecureSkipVerify: true})
	ask(t, c, "hello", "one for a.test\nhello")
	_ = c.Close()
	if !<-done {
		t.Error("a name of the service was not taken")
	}
	if e := b.last(1); e.Client != loopback || e.Host != "a.test" {
		t.Errorf("%+v", e)
	}
}
