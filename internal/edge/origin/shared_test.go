package origin

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/stage"
)

// h2origin serves do with net/http over HTTP/2, in clear unless secure is true, and counts
// its connections.
func h2origin(t *testing.T, secure bool, streams int, do http.HandlerFunc) (address string, conns *atomic.Int64) {
	t.Helper()
	conns = &atomic.Int64{}
	srv := httptest.NewUnstartedServer(do)
	srv.Config.HTTP2 = &http.HTTP2Config{MaxConcurrentStreams: streams}
	srv.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			conns.Add(1)
		}
	}
	if secure {
		srv.EnableHTTP2 = true
		srv.StartTLS()
	} else {
		p := new(http.Protocols)
		p.SetUnencryptedHTTP2(true)
		p.SetHTTP1(true)
		srv.Config.Protocols = p
		srv.Start()
	}
	t.Cleanup(srv.Close)
	return srv.Listener.Addr().String(), conns
}

func shared(p v1.OriginProtocol) *v1.ConnectionSpec {
	spec := connection()
	if spec.Protocol = p; p != v1.OriginH2C {
		spec.TLS = &v1.OriginTLS{InsecureSkipVerify: true}
	}
	return spec
}

// fetch sends a GET and returns the body.
func fetch(t *testing.T, h *Handler, e stage.Target, path string) (string, error) {
	t.Helper()
	x := request("GET", path, e)
	defer x.End(message.Outcome{})
	resp, err := h.Serve(t.Context(), x)
	if err != nil {
		return "", err
	}
	return read(t.Context(), resp)
}

func proto(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.Proto) }

func TestThePoolsProtocolIsSpoken(t *testing.T) {
	both, _ := h2origin(t, true, 0, proto)
	clear1, _ := h2origin(t, false, 0, proto)
	only1 := httptest.NewTLSServer(http.HandlerFunc(proto))
	t.Cleanup(only1.Close)
	for _, tc := range []struct {
		p             v1.OriginProtocol
		address, want string
	}{
		{v1.OriginHTTP1, both, "HTTP/1.1"},
		{v1.OriginH2, both, "HTTP/2.0"},
		{v1.OriginAuto, both, "HTTP/2.0"},
		{v1.OriginAuto, only1.Listener.Addr().String(), "HTTP/1.1"},
		{v1.OriginH2C, clear1, "HTTP/2.0"},
		{v1.OriginH2, only1.Listener.Addr().String(), "tls_protocol_error"},
	} {
		t.Run(string(tc.p)+" "+tc.want, func(t *testing.T) {
			h := newHandler(t)
			e := open(t, h, tc.address, shared(tc.p))
			for range 3 {
				got, err := fetch(t, h, e, "/")
				if err != nil {
					got = stage.AsError(err).Code
				}
				if got != tc.want {
					t.Errorf("%q, want %q (%v)", got, tc.want, err)
				}
			}
			if tc.p != v1.OriginHTTP1 && tc.want != "tls_protocol_error" {
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				if err := h.Probe(ctx, e, "shop.example", &v1.HealthSpec{Path: "/"}); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

func TestRequestsShareConnectionsAndOpenMoreWhenTheyAreFull(t *testing.T) {
	for _, p := range []v1.OriginProtocol{v1.OriginH2C, v1.OriginH2, v1.OriginAuto} {
		t.Run(string(p), func(t *testing.T) {
			var wg sync.WaitGroup
			gate := make(chan struct{})
			var here atomic.Int64
			address, conns := h2origin(t, p != v1.OriginH2C, 10, func(w http.ResponseWriter, r *http.Request) {
				here.Add(1)
				<-gate
				proto(w, r)
			})
			h := newHandler(t)
			spec := shared(p)
			spec.MaxPerOrigin = 4
			e := open(t, h, address, spec)
			var bad atomic.Int64
			for range 60 {
				wg.Go(func() {
					if got, err := fetch(t, h, e, "/"); got != "HTTP/2.0" {
						bad.Add(1)
						t.Error(got, err)
					}
				})
			}
			for end := time.Now().Add(5 * time.Second); here.Load() < 40 && time.Now().Before(end); {
				time.Sleep(time.Millisecond)
			}
			if n := here.Load(); n != 40 {
				t.Errorf("%d requests at once, 4 connections take 40", n)
			}
			close(gate)
			wg.Wait()
			if n := conns.Load(); n != 4 {
				t.Errorf("%d connections", n)
			}
		})
	}
}

func TestABurstOpensOneConnectionWhereOneIsEnough(t *testing.T) {
	for _, p := range []v1.OriginProtocol{v1.OriginH2C, v1.OriginH2, v1.OriginAuto} {
		address, conns := h2origin(t, p != v1.OriginH2C, 100, proto)
		h := newHandler(t)
		e := open(t, h, address, shared(p))
		var wg sync.WaitGroup
		for range 90 {
			wg.Go(func() {
				if got, err := fetch(t, h, e, "/"); got != "HTTP/2.0" {
					t.Error(got, err)
				}
			})
		}
		wg.Wait()
		if n := conns.Load(); n != 1 {
			t.Errorf("%s: %d connections", p, n)
		}
	}
}

func TestAFailureToConnectIsToldToAllWhoWait(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	_ = l.Close()
	h := newHandler(t)
	e := open(t, h, address, shared(v1.OriginH2C))
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			if _, err := fetch(t, h, e, "/"); stage.AsError(err).Code != "connection_refused" {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if e.open != 0 || len(e.dialing) != 0 {
		t.Errorf("%d places taken, %d being opened", e.open, len(e.dialing))
	}
}

func TestIdleSharedConnectionsAreClosed(t *testing.T) {
	address, _ := h2origin(t, false, 0, proto)
	h := newHandler(t)
	e := open(t, h, address, shared(v1.OriginH2C))
	if _, err := fetch(t, h, e, "/"); err != nil {
		t.Fatal(err)
	}
	e.expire(h.clock())
	if n := len(e.shared); n != 1 {
		t.Fatalf("%d connections", n)
	}
	e.expire(h.clock() + int64(time.Minute))
	e.mu.Lock()
	if len(e.shared) != 0 || e.open != 0 {
		t.Errorf("%d connections, %d places taken", len(e.shared), e.open)
	}
	e.mu.Unlock()
	if _, err := fetch(t, h, e, "/"); err != nil {
		t.Error(err)
	}
}

func TestAnOriginThatGoesAwayInGoodOrderLosesNothing(t *testing.T) {
	var n atomic.Int64
	address, conns := h2origin(t, false, 0, func(w http.ResponseWriter, r *http.Request) {
		if n.Add(1)%20 == 0 {
			w.Header().Set("Connection", "close") // GOAWAY
		}
		proto(w, r)
	})
	h := newHandler(t)
	e := open(t, h, address, shared(v1.OriginH2C))
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 50 {
				x := request("POST", "/", e)
				resp, err := h.Serve(t.Context(), x)
				if err != nil {
					t.Error(err)
				} else {
					_, err = read(t.Context(), resp)
					if err != nil {
						t.Error(err)
					}
				}
				x.End(message.Outcome{})
			}
		})
	}
	wg.Wait()
	if conns.Load() < 5 {
		t.Errorf("%d connections", conns.Load())
	}
}

func TestAnUpgradeFallsBackToHTTP1(t *testing.T) {
	for _, p := range []v1.OriginProtocol{v1.OriginH2C, v1.OriginAuto} {
		t.Run(string(p), func(t *testing.T) {
			address, _ := h2origin(t, p != v1.OriginH2C, 0, func(w http.ResponseWriter, r *http.Request) {
				if r.Header.Get("Upgrade") == "" {
					proto(w, r)
					return
				}
				nc, rw, err := http.NewResponseController(w).Hijack()
				if err != nil {
					t.Error(err)
					return
				}
				_, _ = fmt.Fprintf(rw, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\n", r.Header.Get("Upgrade"))
				_ = rw.Flush()
				_, _ = io.Copy(nc, rw)
				_ = nc.Close()
			})
			h := newHandler(t)
			e := open(t, h, address, shared(p))
			for _, what := range []string{"websocket", "other", "websocket"} {
				if got, err := fetch(t, h, e, "/"); got != "HTTP/2.0" {
					t.Error(got, err)
				}
				x := request("GET", "/", e)
				x.Out.AddString(message.Upgrade, what)
				resp, err := h.Serve(t.Context(), x)
				if err != nil {
					t.Fatal(err)
				}
				if resp.Status != 101 || resp.Upgrade == nil {
					t.Fatalf("%d", resp.Status)
				}
				_, _ = resp.Upgrade.Write([]byte("echo"))
				var b [4]byte
				if _, err := io.ReadFull(resp.Upgrade, b[:]); err != nil || string(b[:]) != "echo" {
					t.Errorf("%q %v", b, err)
				}
				_ = resp.Upgrade.Close()
				x.End(message.Outcome{})
			}
			if !e.noConnect.Load() {
				t.Error("that the origin takes no extended CONNECT was not noted")
			}
		})
	}
}

func TestATimeoutOfGRPCIsADeadline(t *testing.T) {
	address, _ := h2origin(t, false, 0, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	h := newHandler(t)
	e := open(t, h, address, shared(v1.OriginH2C))
	x := request("POST", "/pkg.Service/Method", e)
	x.Out.AddString(message.ContentType, "application/grpc")
	x.Out.AddLine([]byte("grpc-timeout"), []byte("50m"))
	x.Deadline = time.Now().Add(time.Hour)
	_, err := h.Serve(t.Context(), x)
	if f := stage.AsError(err); f.Status != 504 {
		t.Error(f)
	}
	x.End(message.Outcome{})
}

func TestAnOriginThatSpeaksHTTP1ToH2C(t *testing.T) {
	h := newHandler(t)
	e := open(t, h, listen(t, func(nc net.Conn, r *bufio.Reader) {
		_, _ = readHead(r)
		_, _ = io.WriteString(nc, "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
	}), shared(v1.OriginH2C))
	_, err := fetch(t, h, e, "/")
	if f := stage.AsError(err); f.Status != 502 || f.Code != "http_protocol_error" && f.Code != "connection_terminated" {
		t.Error(f)
	}
}

func TestSNIKeepsSharedConnectionsApart(t *testing.T) {
	names := make(chan string, 8)
	srv := httptest.NewUnstartedServer(http.HandlerFunc(proto))
	srv.EnableHTTP2 = true
	srv.TLS = &tls.Config{GetConfigForClient: func(c *tls.ClientHelloInfo) (*tls.Config, error) {
		names <- c.ServerName
		return nil, nil
	}}
	srv.StartTLS()
	t.Cleanup(srv.Close)
	h := newHandler(t)
	e := open(t, h, srv.Listener.Addr().String(), shared(v1.OriginH2))
	for _, host := range []string{"a.example", "b.example", "a.example"} {
		x := request("GET", "/", e)
		x.Out.SetAuthority([]byte(host + ":8443"))
		resp, err := h.Serve(t.Context(), x)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = read(t.Context(), resp)
		x.End(message.Outcome{})
	}
	close(names)
	var got []string
	for n := range names {
		got = append(got, n)
	}
	if strings.Join(got, " ") != "a.example b.example" {
		t.Error(got)
	}
}
