package http3

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/relais-edge/relais/internal/http/message"
)

// relay passes datagrams between one client and a server. It can give the client another port,
// and hold back what the client sends once the server has answered.
type relay struct {
	front, server *net.UDPConn // towards the client; server is the way out now
	to            *net.UDPAddr

	mu     sync.Mutex
	back   []*net.UDPConn
	client net.Addr
	hold   bool
	seen   bool // the server has answered
	held   [][]byte
	deaf   bool // the client gets nothing
	missed [][]byte
	wg     sync.WaitGroup
}

func newRelay(t *testing.T, server string) *relay {
	t.Helper()
	to, err := net.ResolveUDPAddr("udp", server)
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{front: udp(t), to: to}
	r.rebind(t)
	r.wg.Go(func() {
		b := make([]byte, 2048)
		for {
			n, from, err := r.front.ReadFrom(b)
			if err != nil {
				return
			}
			r.mu.Lock()
			r.client = from
			if r.hold && r.seen && !r.deaf { // who hears nothing sends nothing that ends a handshake
				r.held = append(r.held, append([]byte(nil), b[:n]...))
			} else {
				_, _ = r.server.WriteTo(b[:n], r.to)
			}
			r.mu.Unlock()
		}
	})
	t.Cleanup(func() {
		_ = r.front.Close()
		for _, c := range r.back {
			_ = c.Close()
		}
		r.wg.Wait()
	})
	return r
}

func udp(t *testing.T) *net.UDPConn {
	t.Helper()
	c, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// rebind has the client come from another port from now on, as a NAT does that has forgotten it.
func (r *relay) rebind(t *testing.T) netip.AddrPort {
	c := udp(t)
	r.mu.Lock()
	r.server = c
	r.back = append(r.back, c)
	r.mu.Unlock()
	r.wg.Go(func() {
		b := make([]byte, 2048)
		for {
			n, _, err := c.ReadFrom(b)
			if err != nil {
				return
			}
			r.mu.Lock()
			r.seen = r.seen || n > 1000 // a server hello, not only an acknowledgement
			switch {
			case r.client == nil || r.server != c: // the NAT passes nothing to the old port
			case r.deaf:
				r.missed = append(r.missed, append([]byte(nil), b[:n]...))
			default:
				_, _ = r.front.WriteTo(b[:n], r.client)
			}
			r.mu.Unlock()
		}
	})
	return c.LocalAddr().(*net.UDPAddr).AddrPort()
}

// holdBack keeps what the client sends from now on, once the server has answered.
func (r *relay) holdBack() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.hold = true
}

// listen lets the client hear what the server has said.
func (r *relay) listen() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.deaf = false
	for _, b := range r.missed {
		_, _ = r.front.WriteTo(b, r.client)
	}
	r.missed = nil
}

// release sends on what was held, and holds no more.
func (r *relay) release() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.hold = false
	for _, b := range r.held {
		_, _ = r.server.WriteTo(b, r.to)
	}
	r.held = nil
}

func TestRFC9000Section9AClientMayGoOnFromAnotherPort(t *testing.T) {
	next := make(chan string)
	var peers sync.Map
	_, addr := own(t, ServerConfig{}, &handler{serve: func(_ context.Context, r *message.Request) *message.Response {
		peers.Store(r.Conn.Peer, true)
		if string(r.Path()) == "/stream" {
			return &message.Response{Status: 200, ContentLength: -1, Body: &pieces{c: next}}
		}
		return text(200, "x")
	}})
	nat := newRelay(t, addr)
	first := nat.server.LocalAddr().(*net.UDPAddr).AddrPort()
	r := dialRaw(t, nat.front.LocalAddr().String(), settings)
	str := r.open(headers(":method", "GET", ":scheme", "https", ":authority", "a", ":path", "/stream"))
	_ = str.Close()
	next <- "a"
	for range 3 {
		nat.rebind(t)
		for range 3 {
			if got := r.ask(headers(get()...)); got != "200 x" {
				t.Fatal(got)
			}
		}
		next <- "b"
	}
	close(next)
	if got := answer(str); got != "200 a b b b" {
		t.Errorf("the answer under way: %q", got)
	}
	// What the limits are kept by is the address that the handshake has proved. A packet from
	// elsewhere, which anybody can forge, does not change it.
	peers.Range(func(peer, _ any) bool {
		if peer != first {
			t.Errorf("a request was put down to %v, the handshake came from %v", peer, first)
		}
		return true
	})
}

// early is a client that has been there before.
type early struct {
	t    *testing.T
	tls  *tls.Config
	quic *quic.Config
}

// meet connects once, so that the next time there is a ticket, and a token if tokens.
func meet(t *testing.T, addr string, tokens bool) *early {
	t.Helper()
	tickets, given := &noted{ClientSessionCache: tls.NewLRUClientSessionCache(10)}, &noted{TokenStore: quic.NewLRUTokenStore(10, 10)}
	e := &early{
		t:    t,
		tls:  &tls.Config{InsecureSkipVerify: true, ServerName: "a", NextProtos: []string{"h3"}, ClientSessionCache: sessions{tickets}},
		quic: &quic.Config{},
	}
	if tokens {
		e.quic.TokenStore = store{given}
	}
	r := e.dial(addr)
	if got := r.ask(headers(get()...)); !strings.HasPrefix(got, "200") {
		t.Fatal(got)
	}
	until(t, "no ticket came", func() bool { return tickets.n.Load() > 0 })
	until(t, "no token came", func() bool { return !tokens || given.n.Load() > 0 })
	_ = r.qc.CloseWithError(codeNone, "")
	return e
}

// noted counts what a server has given a client for its next visit.
type noted struct {
	tls.ClientSessionCache
	quic.TokenStore
	n atomic.Int64
}

type (
	sessions struct{ *noted }
	store    struct{ *noted }
)

func (s sessions) Get(key string) (*tls.ClientSessionState, bool) {
	return s.ClientSessionCache.Get(key)
}

func (s sessions) Put(key string, cs *tls.ClientSessionState) {
	s.ClientSessionCache.Put(key, cs)
	if cs != nil {
		s.n.Add(1)
	}
}

func (s store) Put(key string, token *quic.ClientToken) {
	s.TokenStore.Put(key, token)
	s.n.Add(1)
}

func (e *early) dial(addr string) *raw {
	e.t.Helper()
	pc := udp(e.t)
	to, _ := net.ResolveUDPAddr("udp", addr)
	tr := &quic.Transport{Conn: pc}
	qc, err := tr.DialEarly(e.t.Context(), to, e.tls, e.quic)
	if err != nil {
		e.t.Fatal(err)
	}
	e.t.Cleanup(func() {
		_ = qc.CloseWithError(codeNone, "")
		_ = tr.Close()
		_ = pc.Close()
	})
	r := &raw{t: e.t, qc: qc}
	r.control = r.uni(settings)
	return r
}

func TestRFC8470EarlyData(t *testing.T) {
	for _, tt := range []struct {
		name    string
		allowed bool
		token   bool
		request string
		before  bool // it is served before the end of the handshake
		want    string
	}{
		{"section 5.1: GET is served, and says so", true, true, headers(get()...), true, "200 GET a / Early-Data=1 length=0"},
		{"section 5.1: what the client says of it itself is not said twice", true, true, headers(get("early-data", "1")...), true, "200 GET a / Early-Data=1 length=0"},
		{"section 3: PUT without a body waits", true, true, headers(":method", "PUT", ":scheme", "https", ":authority", "a", ":path", "/"), false, "200 PUT a / length=0"},
		{"section 3: CONNECT waits", true, true, headers(":method", "CONNECT", ":authority", "a:443"), false, "200"},
		{"section 3: POST waits for the handshake", true, true, headers(post()...) + frame(frameData, "x"), false, "200 POST a / length=-1 body=x EOF"},
		{"section 3: a GET with a body waits", true, true, headers(get()...) + frame(frameData, "x"), false, "200 GET a / length=-1 body=x EOF"},
		{"GET from an address that nothing proves waits", true, false, headers(get()...), false, "200 GET a / length=0"},
		{"nothing is early where it is not allowed", false, true, headers(get()...), false, "200 GET a / length=0"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, addr := own(t, ServerConfig{}, &handler{serve: say}, func(a *acceptor) { a.set.EarlyData = tt.allowed })
			e := meet(t, addr, tt.token)
			nat := newRelay(t, addr)
			nat.holdBack()
			// The client of quic-go must not open streams while it takes the server's parameters.
			nat.mu.Lock()
			nat.deaf = tt.allowed
			nat.mu.Unlock()
			r := e.dial(nat.front.LocalAddr().String())
			str, err := r.qc.OpenStream()
			if err != nil {
				t.Fatal(err)
			}
			_ = str.SetDeadline(time.Now().Add(10 * time.Second))
			_, _ = io.WriteString(str, tt.request)
			_ = str.Close()
			if tt.before { // the client has heard nothing yet
				until(t, "it was not served early", func() bool { return s.Stats().Requests == 2 })
			}
			nat.listen()
			got := make(chan string, 1)
			go func() { got <- answer(str) }()
			if !tt.before {
				time.Sleep(100 * time.Millisecond)
				if n := s.Stats().Requests; n != 1 {
					t.Errorf("%d requests were served before the end of the handshake", n)
				}
			}
			nat.release()
			if a := <-got; a != tt.want && tt.allowed {
				t.Errorf("got %q, want %q", a, tt.want)
			}
			if n := s.Stats().Early; n != 1 && tt.before || n != 0 && !tt.before {
				t.Errorf("%d early requests were counted", n)
			}
		})
	}
}
