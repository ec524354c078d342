package http3

import (
	"context"
	"crypto/tls"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
)

// try dials and returns how that failed.
func try(t *testing.T, addr string, c *tls.Config, limit time.Duration) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	pc := udp(t)
	defer pc.Close()
	tr := &quic.Transport{Conn: pc}
	defer tr.Close()
	to, _ := net.ResolveUDPAddr("udp", addr)
	qc, err := tr.Dial(ctx, to, c, &quic.Config{})
	if err == nil {
		_ = qc.CloseWithError(codeNone, "")
	}
	return err
}

func TestHandshakesThatFailAreCounted(t *testing.T) {
	for _, tt := range []struct {
		name string
		tls  *tls.Config
		mute bool // the client says no more after its first flight
		want Failure
	}{
		{"no common protocol", &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"x"}}, false, FailProtocol},
		{"a certificate that the client does not trust", &tls.Config{NextProtos: []string{"h3"}, ServerName: "a"}, false, FailTLS},
		{"a client that is gone", &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h3"}}, true, FailTimeout},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var a *acceptor
			_, addr := own(t, ServerConfig{}, &handler{serve: say}, func(x *acceptor) {
				a = x
				a.set.Handshake = 10 * time.Second // or a busy machine counts another reason
				if tt.mute {
					a.set.Handshake = 300 * time.Millisecond
				}
			})
			nat := newRelay(t, addr)
			if tt.mute {
				nat.holdBack()
			}
			if err := try(t, nat.front.LocalAddr().String(), tt.tls, 10*time.Second); err == nil && !tt.mute { // for the client it is over when the server has answered
				t.Fatal("the handshake succeeded")
			}
			until(t, "nothing was counted", func() bool { _, ok := a.failed.Load(string(tt.want)); return ok })
			until(t, "the connection's place was not given back", func() bool { return a.admitted.Load() == 0 })
			if a.total.Load() != 0 {
				t.Error("Accept was told of it")
			}
		})
	}
}

func TestAFullListenerRefusesBeforeTheHandshake(t *testing.T) {
	var a *acceptor
	_, addr := own(t, ServerConfig{}, &handler{serve: say}, func(x *acceptor) { a = x })
	a.full.Store(true)
	begin := time.Now()
	err := try(t, addr, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h3"}}, 5*time.Second)
	if te, ok := err.(*quic.TransportError); !ok || te.ErrorCode != quic.ConnectionRefused || time.Since(begin) > 2*time.Second {
		t.Errorf("%v after %v", err, time.Since(begin))
	}
	a.full.Store(false)
	if err := try(t, addr, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h3"}}, 5*time.Second); err != nil {
		t.Error(err)
	}
}

func TestRFC9000Section812ClientsProveTheirAddressWhenThereAreMany(t *testing.T) {
	for name, make := range map[string]func(*Listener){
		"connections": func(l *Listener) { l.n.Add(unverifiedConns); t.Cleanup(func() { l.n.Add(-unverifiedConns) }) },
		"handshakes":  func(l *Listener) { l.begun.Add(unverifiedHandshakes) },
		"refusals":    func(l *Listener) { l.full.Store(time.Now().Add(time.Hour).UnixNano()) }, // for as long as the test takes
	} {
		a := &acceptor{own: NewServer(ServerConfig{}, &handler{serve: say}), set: Settings{Streams: 10}}
		l, url := serve(t, a)
		addr := strings.Trim(strings.TrimPrefix(url, "https://"), "/")
		if got := dialRaw(t, addr, settings).ask(headers(get()...)); got != "200 GET a / length=0" || a.verified.Load() {
			t.Errorf("%s: with few %q, verified %v", name, got, a.verified.Load())
		}
		make(l)
		if got := dialRaw(t, addr, settings).ask(headers(get()...)); got != "200 GET a / length=0" || !a.verified.Load() {
			t.Errorf("%s: with many %q, verified %v", name, got, a.verified.Load())
		}
	}
}
