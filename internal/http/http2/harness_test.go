package http2

import (
	"bytes"
	"context"
	"crypto/sha1"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/relais-edge/relais/internal/http/hpack"
	"github.com/relais-edge/relais/internal/http/message"
)

// handlerFunc answers requests in a test.
type handlerFunc func(ctx context.Context, r *message.Request) *message.Response

func (f handlerFunc) Serve(ctx context.Context, r *message.Request) *message.Response {
	return f(ctx, r)
}

func (f handlerFunc) Refuse(_ context.Context, _ *message.Conn, status int, code, detail string) *message.Response {
	resp := &message.Response{Status: status}
	resp.AddString(message.ContentType, "text/plain")
	resp.SetBytes([]byte(code))
	return resp
}

// text is an answer in memory.
func text(s string) *message.Response {
	resp := &message.Response{Status: 200}
	resp.AddString(message.ContentType, "text/plain")
	resp.SetBytes([]byte(s))
	return resp
}

// pieces is a body that gives what its channel brings.
type pieces struct {
	ch     chan string
	end    error
	closed chan error
}

func newPieces(list ...string) *pieces {
	p := &pieces{ch: make(chan string, 100), end: io.EOF, closed: make(chan error, 1)}
	for _, s := range list {
		p.ch <- s
	}
	return p
}

func (p *pieces) Next(ctx context.Context) ([]byte, error) {
	select {
	case s, ok := <-p.ch:
		if !ok {
			return nil, p.end
		}
		return []byte(s), nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (p *pieces) Ready() bool { return len(p.ch) > 0 }

func (p *pieces) Close(err error) { p.closed <- err }

// outcomes gathers what Enders are told.
type outcomes chan message.Outcome

func (o outcomes) End(out message.Outcome) { o <- out }

// readAll reads a request's body.
func readAll(ctx context.Context, b message.Body) (string, error) {
	var s []byte
	for b != nil {
		p, err := b.Next(ctx)
		s = append(s, p...)
		if err == io.EOF {
			break
		}
		if err != nil {
			return string(s), err
		}
	}
	return string(s), nil
}

// serve runs a server on a free port until the test ends.
func serve(t testing.TB, cfg ServerConfig, h Handler, config *tls.Config) (*Server, string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := NewServer(cfg, h)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = s.Run(ctx) })
	wg.Go(func() {
		for {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				facts := &message.Conn{Peer: netip.MustParseAddrPort(nc.RemoteAddr().String())}
				if config != nil {
					tc := tls.Server(nc, config)
					if tc.Handshake() != nil {
						_ = nc.Close()
						return
					}
					state := tc.ConnectionState()
					facts.TLS = message.NewTLS(&state)
					nc = tc
				}
				s.ServeConn(ctx, nc, facts)
			})
		}
	})
	t.Cleanup(func() {
		_ = ln.Close()
		cancel()
		wg.Wait()
		if n := s.Conns(); n != 0 {
			t.Errorf("%d connections are left", n)
		}
	})
	return s, ln.Addr().String()
}

// stdClient is net/http's client with prior knowledge of HTTP/2.
func stdClient(t testing.TB) *http.Client {
	tr := &http.Transport{Protocols: new(http.Protocols), DisableCompression: true}
	tr.Protocols.SetUnencryptedHTTP2(true)
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: 10 * time.Second}
}

// peer is a client that sends what it is told to.
type peer struct {
	t   testing.TB
	nc  net.Conn
	out []byte
	in  []byte
	dec *hpack.Decoder
}

// dial connects and says hello.
func dial(t testing.TB, addr string, list ...setting) *peer {
	t.Helper()
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	return newPeer(t, nc, list...)
}

func newPeer(t testing.TB, nc net.Conn, list ...setting) *peer {
	p := &peer{t: t, nc: nc, dec: hpack.NewDecoder(4096)}
	t.Cleanup(func() { _ = nc.Close() })
	p.hello(list...)
	return p
}

// hello begins the connection; the server's SETTINGS are acknowledged ahead.
func (p *peer) hello(list ...setting) {
	p.t.Helper()
	p.out = appendSettings(append(p.out, preface...), list...)
	p.out = appendSettingsAck(p.out)
	p.send()
}

// send writes what was put into out.
func (p *peer) send() {
	p.t.Helper()
	if _, err := p.nc.Write(p.out); err != nil {
		p.t.Logf("write: %v", err)
	}
	p.out = p.out[:0]
}

// block makes a header block of names and values.
func block(pairs ...string) (b []byte) {
	for i := 0; i+1 < len(pairs); i += 2 {
		name := pairs[i]
		b = append(b, 0)
		b = append(hpack.AppendInt(b, 0, 7, uint64(len(name))), name...)
		b = append(hpack.AppendInt(b, 0, 7, uint64(len(pairs[i+1]))), pairs[i+1]...)
	}
	return b
}

// get is the block of a plain request.
func get(path string, more ...string) []byte {
	return block(append([]string{":method", "GET", ":scheme", "http", ":authority", "example.com", ":path", path}, more...)...)
}

// headers puts a HEADERS frame into out.
func (p *peer) headers(id uint32, end bool, b []byte) {
	at := len(p.out)
	p.out = endHeaders(append(beginHeaders(p.out), b...), at, id, end, minMaxFrame)
}

// frame reads the next frame; ok is false at the end of the connection.
func (p *peer) frame() (h frameHead, payload []byte, ok bool) {
	p.t.Helper()
	for {
		h, payload, n, _, flt := nextFrame(p.in, maxMaxFrame)
		if flt != nil {
			p.t.Fatalf("the server sent %+v: %v", h, flt)
		}
		if n > 0 {
			payload = bytes.Clone(payload)
			p.in = p.in[n:]
			return h, payload, true
		}
		var b [32 << 10]byte
		_ = p.nc.SetReadDeadline(time.Now().Add(10 * time.Second))
		m, err := p.nc.Read(b[:])
		if p.in = append(p.in, b[:m]...); err != nil && m == 0 {
			if errors.Is(err, context.DeadlineExceeded) {
				p.t.Fatal("the server sends nothing")
			}
			return frameHead{}, nil, false
		}
	}
}

// until reads frames until one of a type comes, acknowledging settings.
func (p *peer) until(typ frameType) (frameHead, []byte) {
	p.t.Helper()
	for {
		h, payload, ok := p.frame()
		if !ok {
			p.t.Fatalf("the connection ended before a frame of type %d", typ)
		}
		if h.typ == typ {
			return h, payload
		}
		if h.typ == typeGoAway || h.typ == typeReset {
			p.t.Fatalf("%s", show(h, payload))
		}
	}
}

func show(h frameHead, payload []byte) string {
	switch h.typ {
	case typeGoAway:
		last, c, debug := parseGoAway(payload)
		return fmt.Sprintf("GOAWAY %d %v %s", last, c, debug)
	case typeReset:
		return fmt.Sprintf("RST_STREAM %d %v", h.stream, code(payload))
	}
	return fmt.Sprintf("%+v %q", h, payload)
}

// goAway reads until GOAWAY and returns its code.
func (p *peer) goAway() ErrCode {
	p.t.Helper()
	for {
		h, payload, ok := p.frame()
		if !ok {
			p.t.Fatal("the connection ended without GOAWAY")
		}
		if h.typ == typeGoAway {
			_, c, _ := parseGoAway(payload)
			return c
		}
	}
}

// reset reads until RST_STREAM and returns its stream and code.
func (p *peer) reset() (uint32, ErrCode) {
	p.t.Helper()
	for {
		h, payload, ok := p.frame()
		if !ok || h.typ == typeGoAway {
			p.t.Fatalf("no RST_STREAM but %v %s", ok, show(h, payload))
		}
		if h.typ == typeReset {
			return h.stream, code(payload)
		}
	}
}

// answer is a response as a peer sees it.
type answer struct {
	fields map[string]string
	body   string
	trail  map[string]string
}

type collect map[string]string

func (c collect) Field(_ message.ID, name, value []byte, _ hpack.Traits) error {
	c[string(name)] = string(value)
	return nil
}

// responses reads until n streams have ended.
func (p *peer) responses(n int) map[uint32]*answer {
	p.t.Helper()
	all := map[uint32]*answer{}
	for n > 0 {
		h, payload, ok := p.frame()
		if !ok {
			p.t.Fatal("the connection ended before the answers")
		}
		switch h.typ {
		case typeHeaders:
			fields := collect{}
			if err := p.dec.Decode(payload, 1<<20, fields); err != nil {
				p.t.Fatal(err)
			}
			if a := all[h.stream]; a != nil {
				a.trail = fields
			} else if fields[":status"][0] != '1' {
				all[h.stream] = &answer{fields: fields}
			}
		case typeData:
			all[h.stream].body += string(payload)
		case typeReset, typeGoAway:
			p.t.Fatal(show(h, payload))
		default:
			continue
		}
		if h.has(flagEndStream) {
			n--
		}
	}
	return all
}

// webSocketAccept is Sec-WebSocket-Accept for a key (RFC 6455 section 4.2.2).
func webSocketAccept(key string) string {
	h := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	return base64.StdEncoding.EncodeToString(h[:])
}

// ender counts the ends of answers.
type ender struct{ n int }

// End implements message.Ender.
func (e *ender) End(message.Outcome) { e.n++ }
