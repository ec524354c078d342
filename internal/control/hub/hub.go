// Package hub is the control plane's side of the fleet: the bus with its server, the platform's identities, how PoPs join,
// and the rollouts. It joins rooms and decides nothing itself.
package hub

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/relais-edge/relais/internal/bus"
	"github.com/relais-edge/relais/internal/bus/nats"
	"github.com/relais-edge/relais/internal/control/change"
	"github.com/relais-edge/relais/internal/control/enrol"
	"github.com/relais-edge/relais/internal/control/purge"
	"github.com/relais-edge/relais/internal/control/rollout"
	"github.com/relais-edge/relais/internal/control/store"
	"github.com/relais-edge/relais/internal/control/tenant/secret"
	"github.com/relais-edge/relais/internal/control/usage"
	"github.com/relais-edge/relais/internal/identity"
	"github.com/relais-edge/relais/internal/manifest"
	"github.com/relais-edge/relais/internal/observe"
)

// Config of a Hub.
type Config struct {
	Store  *store.Store // opened with rollout.Schema
	Vault  *secret.Vault
	Change *change.Service
	Wire   Wire
	// Usage takes in what PoPs count.
	Usage usage.Ingester
	// Domain is the trust domain of all certificates: a host name of the operator's.
	Domain string
	// Name of this control plane, for people and its certificate.
	Name string
	// BusListen is host:port for PoPs; empty: only those of this process. BusAddresses are what PoPs are told.
	BusListen    string
	BusAddresses []string
	// EnrolURLs are what stands in join tokens: where Enrol is served.
	EnrolURLs []string
	Logger    *slog.Logger
	Metrics   *observe.Registry
}

// Hub is the control plane's side of the fleet.
type Hub struct {
	cfg         Config
	keys        *keys
	credentials *identity.Credentials
	server      *nats.Server
	end         *nats.End
	conductor   *rollout.Conductor
	purges      *purge.Service
	intake      *usage.Intake
	tokens      *enrol.Service
	enrolment   *identity.Enrolment
}

const (
	// ownLife is that of the control plane's own certificate, which it makes anew at half of it.
	ownLife = 24 * time.Hour
	// revokedEvery is how often it is asked whether another control plane revoked something.
	revokedEvery = 10 * time.Second
)

// Open makes a hub. The bus listens from now on; Run does the rest. Close it.
func Open(ctx context.Context, c Config) (*Hub, error) {
	now := time.Now()
	k, err := openKeys(ctx, c.Store, c.Vault, c.Domain, now)
	if err != nil {
		return nil, err
	}
	trust, err := identity.NewTrust(c.Domain, k.Root.Certificate, nil)
	if err != nil {
		return nil, err
	}
	h := &Hub{cfg: c, keys: k, credentials: identity.NewCredentials(trust), tokens: enrol.New(c.Store)}
	if err := h.renewOwn(); err != nil {
		return nil, err
	}
	h.enrolment = &identity.Enrolment{CA: h.ca, Trust: trust, Tokens: h.tokens, Welcome: h.welcome}
	if h.server, err = nats.NewServer(nats.ServerOptions{Listen: c.BusListen, Credentials: h.credentials, Log: c.Logger}); err != nil {
		return nil, err
	}
	if h.end, err = nats.Dial(nats.DialOptions{InProcess: h.server, Rights: bus.ControlRights(), Name: c.Name, Log: c.Logger}); err != nil {
		return nil, errors.Join(err, h.server.Close())
	}
	h.purges = purge.New(purge.Config{Store: c.Store, Bus: h.end, Name: c.Name, Logger: c.Logger, Metrics: c.Metrics})
	if c.Usage != nil {
		h.intake = usage.NewIntake(usage.IntakeConfig{Bus: h.end, Service: c.Usage, Logger: c.Logger, Metrics: c.Metrics})
	}
	h.conductor = rollout.New(rollout.Config{
		Store: c.Store, Bus: h.end, Compiler: &compiler{served: c.Change, wire: c.Wire}, Rules: rules{}, Sealer: sealed{c.Vault},
		Purges: h.purges, Sign: k.Signer.Sign, Name: c.Name, Logger: c.Logger, Metrics: c.Metrics,
	})
	return h, nil
}

// ca opens the issuer. It was checked when it was made.
func (h *Hub) ca() *identity.CA {
	ca, err := identity.OpenCA(h.cfg.Domain, h.keys.Issuer, nil)
	if err != nil {
		h.cfg.Logger.Error("the issuer of certificates cannot be used", "err", err)
		return nil
	}
	return ca
}

// renewOwn makes this control plane's own certificate.
func (h *Hub) renewOwn() error {
	ca, err := identity.OpenCA(h.cfg.Domain, h.keys.Issuer, nil)
	if err != nil {
		return err
	}
	key, csr, err := identity.NewRequest()
	if err != nil {
		return err
	}
	issued, err := ca.Issue(csr, identity.Identity{Domain: h.cfg.Domain, Kind: identity.Control, Name: h.cfg.Name}, ownLife)
	if err != nil {
		return err
	}
	return h.credentials.Set(issued.Chain, key)
}

// welcome is what a PoP is told besides its certificate.
func (h *Hub) welcome(ctx context.Context, _ string) (identity.Welcome, error) {
	public := h.keys.Signer.Public()
	w := identity.Welcome{Addresses: h.Addresses(), Keys: map[string][]byte{manifest.KeyID(public): public}, Shared: h.keys.Shared}
	err := h.cfg.Store.View(ctx, func(r *store.Reader) (err error) {
		w.Platform, err = platform(ctx, r)
		return err
	})
	return w, err
}

// Addresses are those of the bus, as PoPs are told.
func (h *Hub) Addresses() []string {
	if len(h.cfg.BusAddresses) > 0 {
		return h.cfg.BusAddresses
	}
	if a := h.server.Addr(); a != nil {
		return []string{a.String()}
	}
	return nil
}

// Bus gives an end of the bus for something else in this process.
func (h *Hub) Bus(rights bus.Rights, name string) (*nats.End, error) {
	return nats.Dial(nats.DialOptions{InProcess: h.server, Rights: rights, Name: name, Log: h.cfg.Logger})
}

// Enrol answers machines that join, on a listener, until ctx ends.
func (h *Hub) Enrol(ctx context.Context, l net.Listener) error {
	s := &http.Server{Handler: h.enrolment, ReadHeaderTimeout: 10 * time.Second, ReadTimeout: 30 * time.Second, WriteTimeout: 30 * time.Second, MaxHeaderBytes: 16 << 10}
	failed := make(chan error, 1)
	go func() { failed <- s.Serve(tls.NewListener(l, h.credentials.EnrolTLS())) }()
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	err := s.Close()
	<-failed
	return err
}

// NewToken makes a token with which one machine becomes a PoP.
func (h *Hub) NewToken(ctx context.Context, author, pop string, life time.Duration) (identity.Token, error) {
	roots, err := identity.ParseCertificates(h.keys.Root.Certificate)
	if err != nil {
		return identity.Token{}, err
	}
	pin, err := identity.Pin(roots[0].PublicKey)
	if err != nil {
		return identity.Token{}, err
	}
	return h.tokens.NewToken(ctx, author, pop, life, h.cfg.EnrolURLs, pin)
}

// Revoke ends a PoP's certificates; its connections are closed.
func (h *Hub) Revoke(ctx context.Context, author, pop, reason string) error {
	if err := h.tokens.Revoke(ctx, author, pop, reason); err != nil {
		return err
	}
	return h.applyRevoked(ctx)
}

// applyRevoked has what was revoked, here or at another control plane, hold.
func (h *Hub) applyRevoked(ctx context.Context) error {
	number, list, err := h.tokens.Revoked(ctx)
	if err != nil || number == 0 {
		return err
	}
	ca := h.ca()
	if ca == nil {
		return errors.New("hub: there is no issuer")
	}
	signed, err := ca.RevokedList(number, list)
	if err == nil {
		err = h.credentials.Trust().SetRevoked(signed)
	}
	if errors.Is(err, identity.ErrOlder) {
		return nil
	}
	return err
}

// Run conducts rollouts, renews certificates and keeps revocations, until ctx ends.
func (h *Hub) Run(ctx context.Context) error {
	renewal := &identity.Renewal{CA: h.ca, Trust: h.credentials.Trust(), Record: h.tokens.Record, Welcome: h.welcome}
	sub, err := h.end.Subscribe(bus.Up("*", bus.Renew), bus.Control, 1024, renewal.Handle)
	if err != nil {
		return fmt.Errorf("hub: %w", err)
	}
	defer func() { _ = sub.Close() }()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return h.conductor.Run(ctx) })
	g.Go(func() error { return h.purges.Run(ctx) })
	if h.intake != nil {
		g.Go(func() error { return h.intake.Run(ctx) })
	}
	g.Go(func() error { return h.keepOwn(ctx) })
	return g.Wait()
}

// keepOwn renews the own certificate at half of its life, and looks for revocations of others.
func (h *Hub) keepOwn(ctx context.Context) error {
	renew, look := time.NewTicker(ownLife/2), time.NewTicker(revokedEvery)
	defer renew.Stop()
	defer look.Stop()
	for {
		if err := h.applyRevoked(ctx); err != nil && ctx.Err() == nil {
			h.cfg.Logger.Error("what was revoked cannot be read", "err", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-renew.C:
			if err := h.renewOwn(); err != nil {
				h.cfg.Logger.Error("the control plane's own certificate cannot be renewed", "err", err)
			}
		case <-look.C:
		}
	}
}

// Close ends the bus.
func (h *Hub) Close() error { return errors.Join(h.end.Close(), h.server.Close()) }

// Keys are those that a PoP in this process trusts.
func (h *Hub) Keys() manifest.KeySet {
	return manifest.KeySet{Number: 1, Keys: []manifest.Key{{Public: slices.Clone(h.keys.Signer.Public())}}}
}
