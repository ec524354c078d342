package listen

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	v1 "github.com/relais-edge/relais/api/v1"
)

func withH3(s *v1.ListenerSpec) { s.Protocols = []v1.Protocol{v1.ProtocolH3} }

// ask3 asks over a connection of its own, which stays open.
func (r *rig) ask3(addr string) error {
	r.t.Helper()
	t := &http3.Transport{TLSClientConfig: r.roots()}
	r.t.Cleanup(func() { _ = t.Close() })
	c := &http.Client{Transport: t, Timeout: 10 * time.Second}
	resp, err := c.Get("https://" + addr)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, err = io.ReadAll(resp.Body)
	return err
}

func TestQUICConnectionsAreLimited(t *testing.T) {
	for _, engine := range []func(*v1.ListenerSpec){func(*v1.ListenerSpec) {}, withStd} {
		for _, tc := range []struct {
			reason string
			change func(*v1.ListenerSpec)
			early  bool // it is refused before its handshake
		}{
			{"connections", func(s *v1.ListenerSpec) { s.Limits.Connections = 2 }, true},
			{"connections_per_address", func(s *v1.ListenerSpec) { s.Limits.ConnectionsPerAddress = 2 }, false},
		} {
			r := newRig(t)
			r.apply(listener("a", withTLS, withH3, engine, tc.change))
			for range 2 {
				if err := r.ask3(r.addr("a")); err != nil {
					t.Fatal(err)
				}
			}
			err := r.ask3(r.addr("a"))
			var te *quic.TransportError
			if err == nil || (errors.As(err, &te) && te.ErrorCode == quic.ConnectionRefused) != tc.early {
				t.Errorf("%s: a third connection: %v", tc.reason, err)
			}
			if got := r.metric(`relais_listener_connections_refused_total{listener="demo/a",reason="` + tc.reason + `"}`); got != "1" && (!tc.early || got == "" || got == "0") { // the client may try again
				t.Errorf("%s: counted %q", tc.reason, got)
			}
			if got := r.metric(`relais_listener_connections{listener="demo/a"}`); got != "2" {
				t.Errorf("%s: %q connections are counted open", tc.reason, got)
			}
		}
	}
}

// When a listener is full, clients must prove their addresses, and then an idle connection makes room.
func TestAnIdleHTTP3ConnectionMakesRoom(t *testing.T) {
	r := newRig(t)
	r.apply(listener("a", withTLS, withH3, func(s *v1.ListenerSpec) { s.Limits.Connections = 2 }))
	for range 2 {
		if err := r.ask3(r.addr("a")); err != nil {
			t.Fatal(err)
		}
	}
	var err error
	for range 3 { // the first is refused: its address could be made up
		if err = r.ask3(r.addr("a")); err == nil {
			break
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	if got := r.metric(`relais_listener_connections_shed_total{listener="demo/a",state="idle"}`); got != "1" {
		t.Errorf("counted %q", got)
	}
}

func TestPlacesOfQUICConnectionsAreGivenBack(t *testing.T) {
	r := newRig(t)
	r.apply(listener("a", withTLS, withH3, func(s *v1.ListenerSpec) { s.Limits.Connections, s.Limits.ConnectionsPerAddress = 1, 1 }))
	for range 5 {
		wait(t, func() bool {
			tr := &http3.Transport{TLSClientConfig: r.roots()}
			defer tr.Close()
			resp, err := (&http.Client{Transport: tr, Timeout: 10 * time.Second}).Get("https://" + r.addr("a"))
			if err == nil {
				resp.Body.Close()
			}
			return err == nil
		})
	}
	st := r.m.Listener("demo/a").state
	wait(t, func() bool {
		st.mu.Lock()
		defer st.mu.Unlock()
		return st.open.Load() == 0 && len(st.from) == 0
	})
}

func TestWhatGoesWrongInHTTP3IsCounted(t *testing.T) {
	r := newRig(t)
	r.apply(listener("a", withTLS, withH3))
	dial := func(protocol string) (*quic.Conn, error) {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		return quic.DialAddr(ctx, r.addr("a"), &tls.Config{InsecureSkipVerify: true, NextProtos: []string{protocol}}, nil)
	}
	if _, err := dial("x"); err == nil {
		t.Fatal("an unknown protocol was taken")
	}
	wait(t, func() bool {
		return r.metric(`relais_listener_quic_handshake_failures_total{listener="demo/a",reason="protocol"}`) == "1"
	})
	qc, err := dial("h3")
	if err != nil {
		t.Fatal(err)
	}
	defer qc.CloseWithError(0x100, "")
	str, err := qc.OpenStream()
	if err != nil {
		t.Fatal(err)
	}
	_, _ = str.Write([]byte("\x00\x01x")) // DATA before HEADERS
	<-qc.Context().Done()
	wait(t, func() bool {
		return r.metric(`relais_listener_http3_events_total{event="protocol_error",listener="demo/a"}`) == "1"
	})
}

func TestEarlyDataIsOffUnlessTheListenerSaysSo(t *testing.T) {
	r := newRig(t)
	r.apply(listener("off", withTLS), listener("on", withTLS, func(s *v1.ListenerSpec) { s.TLS.EarlyData = true }))
	if r.m.Listener("demo/off").settings.EarlyData || !r.m.Listener("demo/on").settings.EarlyData {
		t.Error("earlyData is not what the listener says")
	}
}
