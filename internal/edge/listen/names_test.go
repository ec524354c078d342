package listen

import (
	"crypto/tls"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/bundle"
)

// names are the host names of the sites.
type names []string

func (n names) Serves(host, _ string) (sure, any bool) {
	for _, name := range n {
		if name == host {
			return true, true
		}
	}
	return false, false
}

// blamed collects who was complained of.
type blamed struct {
	mu   sync.Mutex
	list []netip.Addr
}

func (b *blamed) add(a netip.Addr) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.list = append(b.list, a)
}

func (b *blamed) count() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.list)
}

func TestANameThatNoSiteHasIsRefusedBeforeACertificateIsLookedFor(t *testing.T) {
	r := newRig(t)
	var told blamed
	r.m.cfg.Sites, r.m.cfg.Abuse = names{"a.example"}, told.add
	if err := r.m.Apply([]bundle.Listener{
		listener("strict", withTLS, func(s *v1.ListenerSpec) { s.TLS.UnknownNames = "refuse" }), listener("open", withTLS),
	}, nil); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		listener, name string
		ok             bool
	}{
		{"strict", "a.example", true}, {"strict", "A.Example.", true}, {"strict", "b.example", false}, {"strict", "", true}, {"open", "b.example", true},
	} {
		nc, err := tls.Dial("tcp", r.m.Addrs()["demo/"+c.listener].String(), &tls.Config{InsecureSkipVerify: true, ServerName: c.name})
		if (err == nil) != c.ok {
			t.Errorf("%s, %q: %v", c.listener, c.name, err)
		}
		if err == nil {
			_ = nc.Close()
		}
	}
	wait(t, func() bool {
		return r.metric(`relais_listener_handshake_failures_total{listener="demo/strict",reason="unknown_name"}`) == "1"
	})
	if told.count() != 0 {
		t.Error("a client was complained of for a name that is gone: it may be an old link")
	}
}

func TestAClientWhoseHandshakeFailsByItsOwnDoingIsToldOf(t *testing.T) {
	r := newRig(t)
	var told blamed
	r.m.cfg.Abuse = told.add
	if err := r.m.Apply([]bundle.Listener{listener("a", withTLS, func(s *v1.ListenerSpec) { s.Timeouts.Handshake = v1.Duration(50 * time.Millisecond) })}, nil); err != nil {
		t.Fatal(err)
	}
	nc, err := net.Dial("tcp", r.m.Addrs()["demo/a"].String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = nc.Close() }()
	wait(t, func() bool { return told.count() == 1 })
	if told.list[0] != netip.MustParseAddr("127.0.0.1") {
		t.Errorf("%v", told.list)
	}
}
