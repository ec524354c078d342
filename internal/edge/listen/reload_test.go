package listen

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/bundle"
)

const request = "GET /a HTTP/1.1\r\nHost: shop.example\r\n\r\n"

// ask sends a request on a connection that stays open and returns the status line.
func ask(t *testing.T, nc net.Conn, br *bufio.Reader) string {
	t.Helper()
	_ = nc.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.WriteString(nc, request); err != nil {
		return err.Error()
	}
	resp, err := http.ReadResponse(br, nil)
	if err != nil {
		return err.Error()
	}
	_, _ = io.Copy(io.Discard, resp.Body)
	return resp.Status
}

func TestReloadKeepsSocketsAndConnections(t *testing.T) {
	for _, engine := range []v1.Engine{v1.EngineRelais, v1.EngineStd} {
		t.Run(string(engine), func(t *testing.T) {
			r := newRig(t)
			with := func(s *v1.ListenerSpec) { s.Engine = engine }
			r.apply(listener("a", with))
			addr := r.addr("a")
			old := r.dial(addr)
			defer old.Close()
			br := bufio.NewReader(old)
			if got := ask(t, old, br); got != "200 OK" {
				t.Fatal(got)
			}
			before := r.m.Listener("demo/a")
			r.apply(listener("a", with))
			if r.m.Listener("demo/a") != before {
				t.Error("an unchanged listener was made anew")
			}
			r.apply(listener("a", with, func(s *v1.ListenerSpec) { s.Limits.TargetBytes = 256 }), listener("b", with))
			if got := r.addr("a"); got != addr {
				t.Errorf("the socket moved from %s to %s", addr, got)
			}
			if r.m.Listener("demo/a") == before {
				t.Error("the change was not taken up")
			}
			if got := ask(t, old, br); got != "200 OK" {
				t.Errorf("the old connection: %s", got)
			}
			long := "GET /" + strings.Repeat("a", 500) + " HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
			if got := r.raw(addr, long); !strings.HasPrefix(got, "HTTP/1.1 414 ") {
				t.Errorf("a new connection has the old limit: %q", got)
			}
		})
	}
}

func TestARemovedListenerIsDrained(t *testing.T) {
	r := newRig(t)
	r.h.gate, r.h.in = make(chan struct{}), make(chan struct{}, 1)
	r.apply(listener("a"), listener("b"))
	addr := r.addr("a")
	idle := r.dial(addr)
	defer idle.Close()
	answer := make(chan string)
	go func() { answer <- r.raw(addr, "GET /wait HTTP/1.1\r\nHost: a\r\n\r\n") }()
	<-r.h.in
	r.apply(listener("b"))
	if _, err := idle.Read(make([]byte, 1)); err != io.EOF && !isReset(err) {
		t.Errorf("the idle connection: %v", err)
	}
	if r.m.Listener("demo/a") == nil {
		t.Error("the listener is forgotten while it has a connection")
	}
	close(r.h.gate)
	if got := <-answer; !strings.HasPrefix(got, "HTTP/1.1 200 ") || !strings.Contains(strings.ToLower(got), "connection: close") {
		t.Errorf("the busy connection: %q", got)
	}
	wait(t, func() bool { return r.m.Listener("demo/a") == nil })
	if _, err := net.Dial("tcp", addr); err == nil {
		t.Error("the socket is still open")
	}
}

func TestAnAddressIsFreeAsSoonAsItsListenerIsRemoved(t *testing.T) {
	r := newRig(t)
	r.h.gate, r.h.in = make(chan struct{}), make(chan struct{}, 1)
	r.apply(listener("a"))
	addr := r.addr("a")
	at := func(s *v1.ListenerSpec) { s.Address = addr }
	answer := make(chan string)
	go func() { answer <- r.raw(addr, "GET /wait HTTP/1.1\r\nHost: a\r\n\r\n") }()
	<-r.h.in
	r.apply()
	r.apply(listener("b", at))
	r.apply(listener("c", at)) // and another takes the socket over
	if got := r.raw(addr, "GET /a HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"); !strings.HasPrefix(got, "HTTP/1.1 200 ") {
		t.Errorf("the new listener: %q", got)
	}
	close(r.h.gate)
	if got := <-answer; !strings.HasPrefix(got, "HTTP/1.1 200 ") {
		t.Errorf("the request of the old listener: %q", got)
	}
}

func isReset(err error) bool { var ne *net.OpError; return errors.As(err, &ne) }

// wait waits until something that happens in other goroutines has happened.
func wait(t *testing.T, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it does not happen")
		}
	}
}

func TestApplyErrorsNameWhatIsWrongAndChangeNothing(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	r := newRig(t)
	r.apply(listener("good"))
	addr := r.addr("good")
	at := func(address string) func(*v1.ListenerSpec) {
		return func(s *v1.ListenerSpec) { s.Address = address }
	}
	_, port, _ := net.SplitHostPort(taken.Addr().String())
	files := bundle.Certificate{
		Key:  "demo/c",
		Spec: v1.CertificateSpec{Files: &v1.CertificateFiles{Certificate: "/nowhere/c.pem", Key: "/nowhere/k.pem"}},
	}
	inline := bundle.Certificate{Key: "demo/c", Spec: v1.CertificateSpec{Inline: &v1.CertificateInline{Certificate: "x", Key: "y"}}}
	secure := listener("bad", withTLS)
	secure.Certificates = []bundle.Key{"demo/c"}
	for _, tc := range []struct {
		name      string
		listeners []bundle.Listener
		certs     []bundle.Certificate
		want      []string
	}{
		{
			"port in use",
			[]bundle.Listener{listener("new"), listener("bad", at(taken.Addr().String()))},
			nil,
			[]string{"listener demo/bad", taken.Addr().String(), "address already in use", "ss -lntp 'sport = :" + port + "'"},
		},
		{
			"address of another machine",
			[]bundle.Listener{listener("bad", at("192.0.2.1:0"))},
			nil,
			[]string{"listener demo/bad", "192.0.2.1:0", "this machine has no address 192.0.2.1"},
		},
		{
			"one address twice",
			[]bundle.Listener{listener("one", at("127.0.0.1:1")), listener("two", at("127.0.0.1:1"))},
			nil,
			[]string{"listener demo/two", "127.0.0.1:1", "also that of listener demo/one"},
		},
		{
			"no such certificate",
			[]bundle.Listener{secure},
			nil,
			[]string{"listener demo/bad", "certificate demo/c", "no such Certificate"},
		},
		{
			"missing file",
			[]bundle.Listener{secure},
			[]bundle.Certificate{files},
			[]string{"listener demo/bad", "certificate demo/c", "/nowhere/c.pem", "check the path"},
		},
		{
			"bad certificate",
			[]bundle.Listener{secure},
			[]bundle.Certificate{inline},
			[]string{"listener demo/bad", "certificate demo/c", "must be PEM"},
		},
		{
			"h2 in clear",
			[]bundle.Listener{listener("bad", func(s *v1.ListenerSpec) { s.Protocols = []v1.Protocol{v1.ProtocolH2} })},
			nil,
			[]string{"listener demo/bad", "write h2c"},
		},
		{
			"bad network",
			[]bundle.Listener{listener("bad", func(s *v1.ListenerSpec) { s.ClientAddress.TrustedProxies = []string{"10.0.0.0/33"} })},
			nil,
			[]string{"listener demo/bad", "10.0.0.0/33"},
		},
	} {
		err := r.m.Apply(tc.listeners, tc.certs)
		if err == nil {
			t.Errorf("%s: no error", tc.name)
			continue
		}
		for _, w := range tc.want {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("%s: %q does not say %q", tc.name, err, w)
			}
		}
		if len(r.m.Addrs()) != 1 || r.addr("good") != addr {
			t.Fatalf("%s: the listeners changed: %v", tc.name, r.m.Addrs())
		}
	}
	if got := r.raw(addr, "GET /a HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"); !strings.HasPrefix(got, "HTTP/1.1 200 ") {
		t.Errorf("the good listener: %q", got)
	}
}

// TestDrainUnderLoadLosesNoRequest has clients of every protocol order without pause while
// the listeners are drained. Every request that was accepted is answered whole.
func TestDrainUnderLoadLosesNoRequest(t *testing.T) {
	for _, w := range []struct {
		proto  string
		change []func(*v1.ListenerSpec)
	}{
		{"http1", nil},
		{"http1", []func(*v1.ListenerSpec){withTLS}},
		{"h2c", nil},
		{"h2", []func(*v1.ListenerSpec){withTLS}},
		{"h3", []func(*v1.ListenerSpec){withTLS}},
		{"http1", []func(*v1.ListenerSpec){withStd}},
	} {
		t.Run(fmt.Sprintf("%s %d", w.proto, len(w.change)), func(t *testing.T) {
			r := newRig(t)
			r.apply(listener("a", w.change...))
			scheme := "http://"
			if r.m.Listener("demo/a").Spec.TLS != nil {
				scheme = "https://"
			}
			url := scheme + r.addr("a") + "/p"
			var ok, lost atomic.Int64
			var wg sync.WaitGroup
			drained := make(chan struct{})
			for range 4 {
				c := r.client(w.proto)
				wg.Go(func() {
					for {
						resp, err := c.Post(url, "text/plain", strings.NewReader("order"))
						if err != nil {
							select {
							case <-drained:
							default:
								if !refusedUntouched(err) {
									lost.Add(1)
									t.Error(err)
								}
							}
							return
						}
						b, err := io.ReadAll(resp.Body)
						resp.Body.Close()
						if err != nil || !strings.Contains(string(b), "body=5 EOF") {
							lost.Add(1)
							t.Errorf("%q %v", b, err)
							return
						}
						ok.Add(1)
					}
				})
			}
			wait(t, func() bool { return ok.Load() > 100 })
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
			defer cancel()
			if err := r.m.Drain(ctx); err != nil {
				t.Error(err)
			}
			close(drained)
			wg.Wait()
			r.stop()
			<-r.done
			if served := r.h.ended("200 <nil>"); int64(served) != ok.Load() {
				t.Errorf("%d orders were served and %d acknowledged", served, ok.Load())
			}
			if err := r.m.Apply(nil, nil); !errors.Is(err, errDraining) {
				t.Errorf("Apply after Drain: %v", err)
			}
		})
	}
}

// refusedUntouched says whether a request did not reach a handler: there was no connection
// to be had any more.
func refusedUntouched(err error) bool {
	for _, s := range []string{"connection refused", "server sent GOAWAY", "server closed idle connection", "GOAWAY", "H3_REQUEST_REJECTED", "connection reset by peer", "CONNECTION_REFUSED"} {
		if strings.Contains(err.Error(), s) {
			return true
		}
	}
	return false
}

func TestDrainIsCutShortByItsTimeout(t *testing.T) {
	r := newRig(t)
	r.h.gate, r.h.in = make(chan struct{}), make(chan struct{}, 1)
	defer close(r.h.gate)
	r.apply(listener("a", func(s *v1.ListenerSpec) { s.Timeouts.Drain = new(v1.Duration(100 * time.Millisecond)) }))
	nc := r.dial(r.addr("a"))
	defer nc.Close()
	_, _ = io.WriteString(nc, "GET /wait HTTP/1.1\r\nHost: a\r\n\r\n")
	<-r.h.in
	go func() { time.Sleep(300 * time.Millisecond); r.h.gate <- struct{}{} }()
	if err := r.m.Drain(context.Background()); err != nil {
		t.Error(err)
	}
	_ = nc.SetReadDeadline(time.Now().Add(5 * time.Second))
	if b, err := io.ReadAll(nc); len(b) > 0 || err != nil && !isReset(err) {
		t.Errorf("an answer came after the drain timeout: %q %v", b, err)
	}
}

// TestReloadUnderLoadFailsNoRequest changes the settings of every listener again and again
// while clients order.
func TestReloadUnderLoadFailsNoRequest(t *testing.T) {
	r := newRig(t)
	with := func(n int) []bundle.Listener {
		streams := func(s *v1.ListenerSpec) { s.Limits.Streams = 100 + n%3 }
		return []bundle.Listener{listener("clear", streams), listener("secure", withTLS, streams), listener("std", withStd, streams)}
	}
	r.apply(with(0)...)
	var wg sync.WaitGroup
	stop := make(chan struct{})
	var ok atomic.Int64
	for proto, url := range map[string]string{
		"http1": "http://" + r.addr("clear"), "h2c": "http://" + r.addr("clear"),
		"h2": "https://" + r.addr("secure"), "h3": "https://" + r.addr("secure"), "http1 std": "http://" + r.addr("std"),
	} {
		proto, _, _ = strings.Cut(proto, " ")
		c := r.client(proto)
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				resp, err := c.Post(url+"/p", "text/plain", strings.NewReader("order"))
				if err != nil {
					t.Errorf("%s: %v", proto, err)
					return
				}
				b, err := io.ReadAll(resp.Body)
				resp.Body.Close()
				if err != nil || resp.StatusCode != 200 || !strings.Contains(string(b), "body=5 EOF") {
					t.Errorf("%s: %d %q %v", proto, resp.StatusCode, b, err)
					return
				}
				ok.Add(1)
			}
		})
	}
	for n := range 40 {
		before := ok.Load()
		r.apply(with(n)...)
		wait(t, func() bool { return ok.Load() > before+20 || t.Failed() })
	}
	close(stop)
	wg.Wait()
	r.m.mu.Lock()
	defer r.m.mu.Unlock()
	if n := len(r.m.actives); n > 3*(maxGenerations+4) {
		t.Errorf("%d settings are kept", n)
	}
}
