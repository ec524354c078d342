package nats_test

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	natsio "github.com/nats-io/nats.go"
	"go.uber.org/goleak"

	"github.com/relais-edge/relais/internal/bus"
	"github.com/relais-edge/relais/internal/bus/bustest"
	"github.com/relais-edge/relais/internal/bus/nats"
	"github.com/relais-edge/relais/internal/identity"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const domain = "relais.test"

// authority is a CA and whom it certified.
type authority struct {
	ca    *identity.CA
	trust *identity.Trust
}

func newAuthority(t *testing.T) authority {
	t.Helper()
	root, err := identity.NewRoot(domain, time.Now(), identity.RootLife)
	if err != nil {
		t.Fatal(err)
	}
	issuer, err := identity.NewIssuer(domain, root, time.Now(), identity.IssuerLife)
	if err != nil {
		t.Fatal(err)
	}
	ca, err := identity.OpenCA(domain, issuer, nil)
	if err != nil {
		t.Fatal(err)
	}
	trust, err := identity.NewTrust(domain, root.Certificate, nil)
	if err != nil {
		t.Fatal(err)
	}
	return authority{ca, trust}
}

func (a authority) credentials(t *testing.T, kind identity.Kind, name string, life time.Duration) (*identity.Credentials, identity.Issued) {
	t.Helper()
	key, csr, err := identity.NewRequest()
	if err != nil {
		t.Fatal(err)
	}
	issued, err := a.ca.Issue(csr, identity.Identity{Domain: domain, Kind: kind, Name: name}, life)
	if err != nil {
		t.Fatal(err)
	}
	c := identity.NewCredentials(a.trust)
	if err := c.Set(issued.Chain, key); err != nil {
		t.Fatal(err)
	}
	return c, issued
}

// site is one or more servers that may be ended and started again at their addresses.
type site struct {
	t    *testing.T
	auth authority

	dialed int

	mu      sync.Mutex
	options []nats.ServerOptions
	servers []*nats.Server
}

func quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

func newSite(t *testing.T, n int) *site {
	s := &site{t: t, auth: newAuthority(t)}
	for i := range n {
		c, _ := s.auth.credentials(t, identity.Control, fmt.Sprint("c", i), 0)
		o := nats.ServerOptions{Listen: "127.0.0.1:0", Credentials: c, Log: quiet()}
		if n > 1 {
			o.Cluster = &nats.Cluster{Name: fmt.Sprint("c", i), Listen: "127.0.0.1:0"}
			if i > 0 {
				o.Cluster.Peers = []string{s.servers[0].ClusterAddr().String()}
			}
		}
		s.options, s.servers = append(s.options, o), append(s.servers, nil)
		s.start(i)
	}
	s.whole()
	t.Cleanup(s.stopAll)
	return s
}

func (s *site) start(i int) {
	bustest.Until(s.t, "the server starts", func() bool { // its port may be in use by a connection that is ending
		srv, err := nats.NewServer(s.options[i])
		if err != nil {
			s.t.Log(err)
			return false
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		s.servers[i] = srv
		s.options[i].Listen = srv.Addr().String()
		if c := s.options[i].Cluster; c != nil {
			c.Listen = srv.ClusterAddr().String()
		}
		return true
	})
}

// whole waits until each server of a cluster is connected with all others.
func (s *site) whole() {
	bustest.Until(s.t, "the cluster is whole", func() bool {
		return !slices.ContainsFunc(s.servers, func(srv *nats.Server) bool { return srv.Routes() < len(s.servers)-1 })
	})
}

func (s *site) stop(i int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.servers[i] != nil {
		_ = s.servers[i].Close()
		s.servers[i] = nil
	}
}

func (s *site) stopAll() {
	for i := range s.servers {
		s.stop(i)
	}
}

func (s *site) startAll() {
	for i := range s.servers {
		s.start(i)
	}
	s.whole()
}

func (s *site) addresses() (out []string) {
	for _, o := range s.options {
		out = append(out, o.Listen)
	}
	return out
}

func (s *site) dial(t *testing.T, r bus.Rights, addresses ...string) *nats.End {
	t.Helper()
	s.dialed++ // control planes have names of their own: an identity has few connections
	kind, name := identity.Control, fmt.Sprint("end", s.dialed)
	if pop, ok := strings.CutPrefix(r.Inbox, bus.Inboxes+".pop."); ok {
		kind, name = identity.Pop, pop
	}
	c, _ := s.auth.credentials(t, kind, name, 0)
	return dial(t, nats.DialOptions{Addresses: addresses, TLS: c.TLS(identity.Any(identity.Control)), Rights: r, Name: name, Log: quiet()})
}

func dial(t *testing.T, o nats.DialOptions) *nats.End {
	t.Helper()
	e, err := nats.Dial(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = e.Close() })
	return e
}

func TestNATSIsABus(t *testing.T) {
	bustest.Run(t, func(t *testing.T) bustest.Bed {
		s := newSite(t, 1)
		return bustest.Bed{
			Join: func(t *testing.T, r bus.Rights) bus.Bus {
				return s.dial(t, r, s.addresses()...)
			},
			Break: func(*testing.T) { s.stopAll() },
			Mend:  func(*testing.T) { s.startAll() },
		}
	})
}

// TestAClusterIsABus puts each end at the next server.
func TestAClusterIsABus(t *testing.T) {
	bustest.Run(t, func(t *testing.T) bustest.Bed {
		s := newSite(t, 3)
		n := 0
		return bustest.Bed{
			Join: func(t *testing.T, r bus.Rights) bus.Bus {
				n++
				return s.dial(t, r, s.addresses()[n%3])
			},
			Break: func(*testing.T) { s.stopAll() },
			Mend:  func(*testing.T) { s.startAll() },
		}
	})
}

func TestTheServersProcessNeedsNoSocket(t *testing.T) {
	srv, err := nats.NewServer(nats.ServerOptions{Log: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = srv.Close() })
	if srv.Addr() != nil || srv.ClusterAddr() != nil {
		t.Error("it listens")
	}
	a := dial(t, nats.DialOptions{InProcess: srv, Rights: bus.ControlRights(), Log: quiet()})
	b := dial(t, nats.DialOptions{InProcess: srv, Rights: bus.ControlRights(), Log: quiet()})
	bustest.Up(t, a)
	bustest.Up(t, b)
	ear := bustest.Listen(t, b, "all.purge", "")
	bustest.Reach(t, a, "all.purge", ear)
	if _, err := b.Subscribe("down.x.order", "", 10, func(m bus.Message) { _ = m.Respond([]byte("ok")) }); err != nil {
		t.Fatal(err)
	}
	if got, err := a.Request(t.Context(), "down.x.order", nil); err != nil || string(got) != "ok" {
		t.Errorf("%q, %v", got, err)
	}
	_, down := a.Connected()
	if err := srv.Close(); err != nil {
		t.Error(err)
	}
	<-down
}

func TestOneOfThreeIsKilled(t *testing.T) {
	s := newSite(t, 3)
	a := s.dial(t, bus.ControlRights(), s.addresses()[0])
	b := s.dial(t, bus.PopRights("paris"), s.addresses()...) // at any
	c := s.dial(t, bus.PopRights("rome"), s.addresses()[2])
	for _, e := range []bus.Bus{a, b, c} {
		bustest.Up(t, e)
	}
	ears := []*bustest.Ear{bustest.Listen(t, b, "all.purge", ""), bustest.Listen(t, c, "all.purge", "")}
	bustest.Reach(t, a, "all.purge", ears...)
	for round, victim := range []int{1, 2, 1} {
		s.stop(victim)
		alive := ears
		if victim == 2 {
			alive = ears[:1]
		}
		bustest.Reach(t, a, "all.purge", alive...)
		if err := a.Publish("all.purge", fmt.Append(nil, round)); err != nil {
			t.Fatal(err)
		}
		for _, e := range alive {
			bustest.Until(t, "the message arrives", func() bool { return slices.Contains(e.Texts(), fmt.Sprint(round)) })
		}
		s.start(victim)
		s.whole()
		bustest.Reach(t, a, "all.purge", ears...)
	}
}

// TestTheServerRefusesWhatACertificateMayNot speaks to the server without our own checks.
func TestTheServerRefusesWhatACertificateMayNot(t *testing.T) {
	s := newSite(t, 1)
	creds, _ := s.auth.credentials(t, identity.Pop, "paris", 0)
	denied := make(chan error, 100)
	raw, err := natsio.Connect("nats://"+s.addresses()[0], natsio.Secure(creds.TLS(identity.Any(identity.Control))), natsio.CustomInboxPrefix("_INBOX.pop.paris"),
		natsio.ErrorHandler(func(_ *natsio.Conn, _ *natsio.Subscription, err error) { denied <- err }))
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	control := s.dial(t, bus.ControlRights(), s.addresses()...)
	bustest.Up(t, control)
	everything := bustest.Listen(t, control, ">", "")
	for _, subject := range []string{"up.rome.beat", "down.paris.head", "all.purge", "peer.rome.limits", "_INBOX.control.x"} {
		if err := errors.Join(raw.Publish(subject, []byte("forged")), raw.Flush()); err != nil {
			t.Fatal(err)
		}
		if err := <-denied; !errors.Is(err, natsio.ErrPermissionViolation) {
			t.Errorf("publish to %s: %v", subject, err)
		}
	}
	for _, subject := range []string{">", "up.>", "down.rome.head", "_INBOX.>", "_INBOX.pop.rome.>", "*.>", "$SYS.>"} {
		if _, err := raw.SubscribeSync(subject); err != nil {
			t.Fatal(err)
		}
		if err := raw.Flush(); err != nil {
			t.Fatal(err)
		}
		if err := <-denied; !errors.Is(err, natsio.ErrPermissionViolation) {
			t.Errorf("subscribe to %s: %v", subject, err)
		}
	}
	// An answer may go where it is waited for, and only there.
	if _, err := raw.Subscribe("down.paris.order", func(m *natsio.Msg) { _ = m.Respond([]byte("done")) }); err != nil {
		t.Fatal(err)
	}
	if err := raw.Flush(); err != nil {
		t.Fatal(err)
	}
	if got, err := control.Request(t.Context(), "down.paris.order", nil); err != nil || string(got) != "done" {
		t.Errorf("%q, %v", got, err)
	}
	if err := raw.Publish("up.paris.beat", []byte("mine")); err != nil {
		t.Fatal(err)
	}
	everything.Await(t, 1)
	if slices.Contains(everything.Texts(), "forged") {
		t.Error("what was forged arrived")
	}
}

// TestAnAnswerIsNotSentInAnothersName has a PoP ask for an answer on a subject that it may not use itself.
func TestAnAnswerIsNotSentInAnothersName(t *testing.T) {
	s := newSite(t, 1)
	creds, _ := s.auth.credentials(t, identity.Pop, "paris", 0)
	raw, err := natsio.Connect("nats://"+s.addresses()[0], natsio.Secure(creds.TLS(identity.Any(identity.Control))))
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	control := s.dial(t, bus.ControlRights(), s.addresses()...)
	bustest.Up(t, control)
	got := make(chan bool, 10)
	if _, err := control.Subscribe("up.*.table", bus.Control, 10, func(m bus.Message) { got <- m.Respond != nil }); err != nil {
		t.Fatal(err)
	}
	if err := raw.PublishRequest("up.paris.table", "all.purge", nil); err != nil {
		t.Fatal(err)
	}
	if err := raw.PublishRequest("up.paris.table", "_INBOX.pop.paris.x", nil); err != nil {
		t.Fatal(err)
	}
	if <-got {
		t.Error("an answer would go to all.purge")
	}
	if !<-got {
		t.Error("an answer to its own inbox is refused")
	}
}

func TestWhoHasNoCertificateOfOursIsRefused(t *testing.T) {
	s, others := newSite(t, 1), newAuthority(t)
	stranger, _ := others.credentials(t, identity.Control, "c1", 0)
	key, csr, err := identity.NewRequest()
	if err != nil {
		t.Fatal(err)
	}
	issued, err := s.auth.ca.Issue(csr, identity.Identity{Domain: domain, Kind: identity.Connector, Organization: "acme", Name: "x"}, 0)
	if err != nil {
		t.Fatal(err)
	}
	connector := identity.NewCredentials(s.auth.trust)
	if err := connector.Set(issued.Chain, key); err != nil {
		t.Fatal(err)
	}
	anybody := identity.Any(identity.Control)
	for name, c := range map[string]*identity.Credentials{"of another authority": stranger, "a connector": connector, "without": identity.NewCredentials(s.auth.trust)} {
		config := c.TLS(anybody)
		config.VerifyConnection = nil // it would refuse the server
		if nc, err := natsio.Connect("nats://"+s.addresses()[0], natsio.Secure(config)); err == nil {
			t.Errorf("%s: let in", name)
			nc.Close()
		}
	}
	if nc, err := natsio.Connect("nats://" + s.addresses()[0]); err == nil {
		t.Error("without TLS: let in")
		nc.Close()
	}
	// A PoP is no part of the cluster, and takes no PoP for a server.
	pop, _ := s.auth.credentials(t, identity.Pop, "paris", 0)
	if err := pop.TLS(anybody).VerifyConnection(stateOf(t, pop)); err == nil {
		t.Error("a PoP passes for a server")
	}
}

func TestWhoIsRevokedIsCutOff(t *testing.T) {
	s := newSite(t, 1)
	bad, issued := s.auth.credentials(t, identity.Pop, "rome", 0)
	anybody := identity.Any(identity.Control)
	b := dial(t, nats.DialOptions{Addresses: s.addresses(), TLS: bad.TLS(anybody), Rights: bus.PopRights("rome"), Log: quiet()})
	a, p := s.dial(t, bus.ControlRights(), s.addresses()...), s.dial(t, bus.PopRights("paris"), s.addresses()...)
	for _, e := range []bus.Bus{a, b, p} {
		bustest.Up(t, e)
	}
	_, down := b.Connected()
	_, stays := p.Connected()
	list, err := s.auth.ca.RevokedList(1, []identity.Revoked{{Serial: issued.Serial, Until: issued.NotAfter}})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.auth.trust.SetRevoked(list); err != nil {
		t.Fatal(err)
	}
	<-down
	config := bad.TLS(anybody)
	if nc, err := natsio.Connect("nats://"+s.addresses()[0], natsio.Secure(config)); err == nil {
		t.Error("a revoked certificate is let in")
		nc.Close()
	}
	select {
	case <-stays:
		t.Error("another PoP was cut off too")
	default:
	}
	// With a new certificate it comes again by itself.
	good, csr, err := identity.NewRequest()
	if err != nil {
		t.Fatal(err)
	}
	again, err := s.auth.ca.Issue(csr, issued.Identity, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := bad.Set(again.Chain, good); err != nil {
		t.Fatal(err)
	}
	bustest.Up(t, b)
}

func TestAnIdentityHasFewConnectionsAndTheNewestStay(t *testing.T) {
	s := newSite(t, 1)
	creds, _ := s.auth.credentials(t, identity.Pop, "paris", 0)
	var all []*natsio.Conn
	for range 8 {
		nc, err := natsio.Connect("nats://"+s.addresses()[0], natsio.Secure(creds.TLS(identity.Any(identity.Control))), natsio.NoReconnect())
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		all = append(all, nc)
	}
	bustest.Until(t, "the oldest are closed", func() bool { return all[0].IsClosed() && all[1].IsClosed() && all[2].IsClosed() && all[3].IsClosed() })
	bustest.Until(t, "the server counts four", func() bool { return s.servers[0].Connections() == 4 })
	if all[7].IsClosed() || all[4].IsClosed() {
		t.Error("one of the newest four was closed")
	}
}

// TestASilentDeathIsNoticed puts a link between, which stops to carry anything and closes nothing.
func TestASilentDeathIsNoticed(t *testing.T) {
	s := newSite(t, 1)
	l := newLink(t, s.addresses()[0])
	b := s.dial(t, bus.PopRights("paris"), l.addr, s.addresses()[0])
	c := s.dial(t, bus.PopRights("rome"), l.addr)
	bustest.Up(t, b)
	bustest.Up(t, c)
	_, down := c.Connected()
	l.freeze()
	<-down
	if err := c.Publish("up.rome.beat", nil); !errors.Is(err, bus.ErrAway) {
		t.Errorf("%v", err)
	}
	l.thaw()
	bustest.Up(t, c)
	bustest.Up(t, b)
}

func TestBadOptionsAreToldAtOnce(t *testing.T) {
	s := newSite(t, 1)
	creds, _ := s.auth.credentials(t, identity.Control, "c1", 0)
	for name, o := range map[string]nats.ServerOptions{
		"no credentials":   {Listen: "127.0.0.1:0"},
		"no port":          {Listen: "127.0.0.1", Credentials: creds},
		"port in use":      {Listen: s.addresses()[0], Credentials: creds, Log: quiet()},
		"cluster no name":  {Listen: "127.0.0.1:0", Credentials: creds, Cluster: &nats.Cluster{Listen: "127.0.0.1:0"}},
		"cluster bad peer": {Listen: "127.0.0.1:0", Credentials: creds, Cluster: &nats.Cluster{Name: "a", Listen: "127.0.0.1:0", Peers: []string{"x"}}},
	} {
		if srv, err := nats.NewServer(o); err == nil {
			t.Errorf("%s: it starts", name)
			_ = srv.Close()
		} else if !strings.HasPrefix(err.Error(), "bus: ") {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, o := range map[string]nats.DialOptions{
		"no address": {Rights: bus.PopRights("a")},
		"in clear":   {Rights: bus.PopRights("a"), Addresses: s.addresses()},
		"no rights":  {TLS: creds.TLS(identity.Any(identity.Control)), Addresses: s.addresses()},
		"no port":    {TLS: creds.TLS(identity.Any(identity.Control)), Addresses: []string{"bus.example"}, Rights: bus.PopRights("a")},
	} {
		if e, err := nats.Dial(o); err == nil {
			t.Errorf("%s: it dials", name)
			_ = e.Close()
		}
	}
}

func TestAnEndIsClosedWhileItTries(t *testing.T) {
	a := newAuthority(t)
	creds, _ := a.credentials(t, identity.Pop, "paris", 0)
	l, err := net.Listen("tcp", "127.0.0.1:0") // accepts, and never says anything
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	e := dial(t, nats.DialOptions{Addresses: []string{l.Addr().String()}, TLS: creds.TLS(identity.Any(identity.Control)), Rights: bus.PopRights("paris"), Log: quiet()})
	if err := e.Publish("up.paris.beat", nil); !errors.Is(err, bus.ErrAway) {
		t.Errorf("%v", err)
	}
	if _, err := e.Subscribe("all.purge", "", 1, func(bus.Message) {}); err != nil {
		t.Error(err)
	}
	if err := e.Close(); err != nil {
		t.Error(err)
	}
}
