// Package nats is the bus over NATS: a server within the control plane, three of them as a cluster, and ends that connect to
// these or to an operator's own NATS. Nothing is kept on a disk and nothing is sent again: see package bus.
package nats

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/relais-edge/relais/internal/bus"
	"github.com/relais-edge/relais/internal/identity"
)

// Bounds of a server.
const (
	// DefaultConnections is how many connections a server has at once.
	DefaultConnections = 4096
	// perPeer is how many connections one identity has at once: a new one closes its oldest.
	perPeer = 4
	// maxPending is how many bytes wait for one connection, beyond which it is closed.
	maxPending = 16 << 20

	handshakeTime  = 10 * time.Second
	writeTime      = 10 * time.Second
	serverPing     = 5 * time.Second
	serverPingsOut = 2
	routePing      = time.Second
	answerTime     = time.Minute // within which a PoP may answer what it was asked
	startTime      = 30 * time.Second
)

// ServerOptions are a server's.
type ServerOptions struct {
	Listen      string                // host:port for PoPs; port 0 chooses one; empty: only this process
	Credentials *identity.Credentials // of a control plane
	Connections int                   // at once; 0: DefaultConnections
	Cluster     *Cluster              // nil: alone
	Log         *slog.Logger          // nil: slog.Default
}

// Cluster joins servers of several control planes. What is published at one arrives at the ends of all.
type Cluster struct {
	Name   string   // of this server; each has its own
	Listen string   // host:port for the others
	Peers  []string // host:port of others; those that these know are found by themselves
}

// Server is a NATS server within this process. Who connects shows a certificate of our authority, and may use what goes
// with its identity.
type Server struct {
	opts  ServerOptions
	nats  *server.Server
	log   *slog.Logger
	token string // by which ends within this process are known

	stop    context.CancelFunc
	sweeper sync.WaitGroup

	mu    sync.Mutex
	peers map[uint64]peer // by the number of the connection
}

type peer struct {
	id    identity.Identity
	chain []*x509.Certificate
}

// NewServer starts a server. Close it.
func NewServer(o ServerOptions) (*Server, error) {
	if o.Log == nil {
		o.Log = slog.Default()
	}
	if o.Connections == 0 {
		o.Connections = DefaultConnections
	}
	s := &Server{opts: o, log: o.Log, token: rand.Text(), peers: map[uint64]peer{}}
	opts, err := s.options()
	if err != nil {
		return nil, err
	}
	if s.nats, err = server.NewServer(opts); err != nil {
		return nil, fmt.Errorf("bus: the NATS server: %w", err)
	}
	log := newServerLog(o.Log)
	s.nats.SetLogger(log, false, false)
	s.nats.Start()
	if err := s.await(log); err != nil {
		s.nats.Shutdown()
		s.nats.WaitForShutdown()
		return nil, err
	}
	ctx, stop := context.WithCancel(context.Background())
	s.stop = stop
	if o.Credentials != nil {
		s.sweeper.Go(func() { s.sweep(ctx) })
	}
	return s, nil
}

func (s *Server) await(log *serverLog) error {
	for late := time.Now().Add(startTime); ; {
		if s.nats.ReadyForConnections(20 * time.Millisecond) {
			return nil
		}
		select {
		case <-log.fatal:
			return fmt.Errorf("bus: the NATS server does not start: %s", log.why)
		default:
		}
		if time.Now().After(late) {
			return fmt.Errorf("bus: the NATS server is not ready after %s", startTime)
		}
	}
}

func (s *Server) options() (*server.Options, error) {
	o := &server.Options{
		ServerName: "relais", NoSigs: true, NoSystemAccount: true, DisableJetStreamBanner: true,
		MaxConn: s.opts.Connections, MaxSubs: bus.MaxSubscriptions + 8, MaxPayload: bus.MaxData, MaxPending: maxPending, MaxControlLine: 4096,
		MaxClosedClients: 16, PingInterval: serverPing, MaxPingsOut: serverPingsOut, WriteDeadline: writeTime,
		AuthTimeout: handshakeTime.Seconds(), TLSTimeout: handshakeTime.Seconds(),
		CustomClientAuthentication: doorkeeper(s.admit), CustomRouterAuthentication: doorkeeper(s.admitRoute),
		// An end that is slow is cut off; who publishes does not wait for it.
		NoFastProducerStall: true,
	}
	if s.opts.Listen == "" {
		o.DontListen = true
	} else {
		if s.opts.Credentials == nil {
			return nil, errors.New("bus: a server that listens needs credentials; there is no bus in clear")
		}
		var err error
		if o.Host, o.Port, err = hostPort(s.opts.Listen); err != nil {
			return nil, err
		}
		o.TLSConfig = s.opts.Credentials.TLS(identity.Any(identity.Pop, identity.Control))
		o.TLSVerify = true
	}
	if c := s.opts.Cluster; c != nil {
		return o, s.cluster(o, c)
	}
	return o, nil
}

func (s *Server) cluster(o *server.Options, c *Cluster) error {
	if c.Name == "" || s.opts.Credentials == nil {
		return errors.New("bus: a server of a cluster needs a name and credentials")
	}
	o.ServerName = c.Name
	o.Cluster = server.ClusterOpts{
		Name: "relais", TLSConfig: s.opts.Credentials.TLS(identity.Any(identity.Control)), TLSTimeout: handshakeTime.Seconds(),
		NoAdvertise: true, PoolSize: -1, ConnectRetries: 1 << 30, PingInterval: routePing, MaxPingsOut: 2, WriteDeadline: writeTime,
	}
	o.Cluster.Compression.Mode = server.CompressionOff
	var err error
	if o.Cluster.Host, o.Cluster.Port, err = hostPort(c.Listen); err != nil {
		return err
	}
	for _, p := range c.Peers {
		if _, _, err := hostPort(p); err != nil {
			return err
		}
		o.Routes = append(o.Routes, &url.URL{Scheme: "nats-route", Host: p})
	}
	return nil
}

func hostPort(address string) (host string, port int, err error) {
	host, text, err := net.SplitHostPort(address)
	if err == nil {
		port, err = strconv.Atoi(text)
	}
	if err != nil || port < 0 || port > 65535 {
		return "", 0, fmt.Errorf("bus: %q is no address; write host:port", address)
	}
	if port == 0 {
		port = server.RANDOM_PORT
	}
	return host, port, nil
}

// doorkeeper is an Authentication of NATS.
type doorkeeper func(server.ClientAuthentication) bool

// Check implements server.Authentication.
func (d doorkeeper) Check(c server.ClientAuthentication) bool { return d(c) }

// admit says who may connect, and gives him his rights.
func (s *Server) admit(c server.ClientAuthentication) bool {
	state := c.GetTLSConnectionState()
	if state == nil { // not from the network, where nothing comes this far without TLS
		known := subtle.ConstantTimeCompare([]byte(c.GetOpts().Token), []byte(s.token)) == 1
		if known {
			c.RegisterUser(&server.User{Username: "control", Permissions: permissions(bus.ControlRights())})
		}
		return known
	}
	if len(state.PeerCertificates) == 0 {
		return false
	}
	id, err := identity.Of(state.PeerCertificates[0])
	if err != nil {
		return false
	}
	// First it is among those that sweep looks at, then it is verified: so what is revoked in between is found by one of both.
	s.remember(c.GetID(), peer{id, state.PeerCertificates})
	if _, err := s.opts.Credentials.Trust().Verify(state.PeerCertificates); err != nil {
		s.log.Warn("bus: refused", "peer", id.String(), "address", address(c), "error", err)
		return false
	}
	rights := bus.ControlRights()
	if id.Kind == identity.Pop {
		rights = bus.PopRights(id.Name)
	}
	c.RegisterUser(&server.User{
		Username: string(id.Kind) + "/" + id.Name, Permissions: permissions(rights),
		ConnectionDeadline: state.PeerCertificates[0].NotAfter, // it comes again with what it renewed
	})
	return true
}

// admitRoute takes other control planes.
func (s *Server) admitRoute(c server.ClientAuthentication) bool {
	state := c.GetTLSConnectionState()
	if state == nil {
		return false
	}
	id, err := s.opts.Credentials.Trust().Verify(state.PeerCertificates)
	if err != nil || id.Kind != identity.Control {
		s.log.Warn("bus: refused in the cluster", "peer", id.String(), "address", address(c), "error", err)
		return false
	}
	return true
}

func address(c server.ClientAuthentication) string {
	if a := c.RemoteAddress(); a != nil {
		return a.String()
	}
	return ""
}

// permissions are rights in the words of NATS.
func permissions(r bus.Rights) *server.Permissions {
	return &server.Permissions{
		Publish:   &server.SubjectPermission{Allow: r.Publish},
		Subscribe: &server.SubjectPermission{Allow: append([]string{r.Inbox + ".>"}, r.Subscribe...)},
		Response:  &server.ResponsePermission{MaxMsgs: 1, Expires: answerTime},
	}
}

// remember adds a connection, forgets those that ended, and closes the oldest of one peer that has too many: a PoP whose
// machine lost its network comes in again while the server still believes in its former connections.
func (s *Server) remember(number uint64, p peer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.peers) >= 2*s.opts.Connections {
		s.forget()
	}
	s.peers[number] = p
	oldest, n := number, 0
	for k, o := range s.peers {
		if o.id != p.id {
			continue
		}
		if s.nats.GetClient(k) == nil {
			delete(s.peers, k)
			continue
		}
		n++
		oldest = min(oldest, k)
	}
	if n > perPeer {
		delete(s.peers, oldest)
		_ = s.nats.DisconnectClientByID(oldest) // it may be gone by itself
	}
}

func (s *Server) forget() {
	for k := range s.peers {
		if s.nats.GetClient(k) == nil {
			delete(s.peers, k)
		}
	}
}

// sweep closes connections that would not be let in any more, whenever roots or revocations change.
func (s *Server) sweep(ctx context.Context) {
	trust := s.opts.Credentials.Trust()
	for {
		changed := trust.Changed()
		s.mu.Lock()
		s.forget()
		for k, p := range s.peers {
			if _, err := trust.Verify(p.chain); err != nil {
				s.log.Warn("bus: closed", "peer", p.id.String(), "error", err)
				_ = s.nats.DisconnectClientByID(k) // it may be gone by itself
				delete(s.peers, k)
			}
		}
		s.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// Addr is where the server listens for PoPs; nil where it does not.
func (s *Server) Addr() net.Addr {
	if s.opts.Listen == "" {
		return nil
	}
	return s.nats.Addr()
}

// ClusterAddr is where it listens for the others of its cluster; nil where it does not.
func (s *Server) ClusterAddr() net.Addr {
	if s.opts.Cluster == nil {
		return nil
	}
	return s.nats.ClusterAddr()
}

// Connections is how many ends are connected to this server, those within this process too.
func (s *Server) Connections() int { return s.nats.NumClients() }

// Routes is how many other servers of the cluster this one is connected with.
func (s *Server) Routes() int { return s.nats.NumRoutes() }

// Close ends the server and all connections.
func (s *Server) Close() error {
	s.stop()
	s.sweeper.Wait()
	s.nats.Shutdown()
	s.nats.WaitForShutdown()
	return nil
}
