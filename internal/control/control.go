// Package control joins the rooms of the control plane: the store, who may what, documents, and the API; and runs what is
// done in the background by the one process that leads.
package control

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/control/api"
	"github.com/relais-edge/relais/internal/control/change"
	"github.com/relais-edge/relais/internal/control/hub"
	"github.com/relais-edge/relais/internal/control/purge"
	"github.com/relais-edge/relais/internal/control/rollout"
	"github.com/relais-edge/relais/internal/control/store"
	"github.com/relais-edge/relais/internal/control/tenant"
	"github.com/relais-edge/relais/internal/control/tenant/auth"
	"github.com/relais-edge/relais/internal/control/tenant/brand"
	"github.com/relais-edge/relais/internal/control/tenant/claim"
	"github.com/relais-edge/relais/internal/control/tenant/oidc"
	"github.com/relais-edge/relais/internal/control/tenant/secret"
	"github.com/relais-edge/relais/internal/control/usage"
	"github.com/relais-edge/relais/internal/observe"
)

const (
	databaseFile = "control.db"
	vaultFile    = "vault.key"
	leaderName   = "control"
	hashesAtOnce = 4
	stopTime     = 15 * time.Second // for requests that are under way
	tellEvery    = 10 * time.Minute
	again        = 5 * time.Second // before a worker that failed is run again
)

// Config is what a control plane is made of.
type Config struct {
	Data     string // folder of the database, the keys and the certificate
	Postgres string // connection string; empty: SQLite in Data
	Version  string
	URL      string       // own address, such as https://control.example.com: what identity providers send back to
	Holder   string       // name of this process, for people; empty: the host's
	Fleet    *FleetConfig // nil: no PoPs follow this control plane
	Logger   *slog.Logger
	Metrics  *observe.Registry // nil: a registry that nobody asks
}

// FleetConfig is how PoPs reach a control plane.
type FleetConfig struct {
	Domain       string   // trust domain of all certificates
	Bus          string   // host:port that PoPs connect to
	BusAddresses []string // what they are told; absent: Bus
	Enrol        string   // host:port that machines join at
	EnrolURLs    []string // what stands in join tokens; absent: https://Enrol
}

// Worker does background work until ctx ends. It runs in the process that leads, and is run anew where it fails; its
// writes under the lease are refused once another leads.
type Worker func(ctx context.Context, lease *store.Lease) error

// Control is a control plane.
type Control struct {
	config Config
	store  *store.Store
	logger *slog.Logger

	Marked *api.Marking // what services write to
	Vault  *secret.Vault
	Tenant *tenant.Service
	Claims *claim.Service
	Change *change.Service
	API    *api.API
	Usage  *usage.Service
	Hub    *hub.Hub // nil without a fleet
	enrol  net.Listener

	mu      sync.Mutex
	workers map[string]Worker
}

// Open opens the database and makes the services. The vault's key is made where there is none; whoever has it and the
// database has every secret, so it is kept apart in backups.
func Open(ctx context.Context, c Config) (*Control, error) {
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if u, err := url.Parse(c.URL); c.URL != "" && (err != nil || u.Scheme != "https" || u.Host == "" || strings.Trim(u.Path, "/") != "" || u.RawQuery != "") {
		return nil, fmt.Errorf("control: --url %q is no address of this control plane; write one such as https://control.example.com, without a path", c.URL)
	}
	if c.Holder == "" {
		c.Holder, _ = os.Hostname()
	}
	if err := os.MkdirAll(c.Data, 0o700); err != nil {
		return nil, fmt.Errorf("control: %w; --data names the folder", err)
	}
	vault, err := openVault(filepath.Join(c.Data, vaultFile), c.Postgres != "")
	if err != nil {
		return nil, err
	}
	var s *store.Store
	if c.Postgres != "" {
		s, err = store.OpenPostgres(ctx, c.Postgres, options())
	} else {
		s, err = store.OpenSQLite(ctx, filepath.Join(c.Data, databaseFile), options())
	}
	if err != nil {
		return nil, err
	}
	k := &Control{config: c, store: s, logger: c.Logger, Vault: vault, Marked: api.NewMarking(s), workers: map[string]Worker{}}
	k.Tenant = tenant.New(tenant.Config{Store: k.Marked, Vault: vault, Hasher: auth.NewHasher(auth.Cost{}, hashesAtOnce), Issuer: "Relais"})
	k.Claims = claim.New(claim.Config{Store: k.Marked, Tenant: k.Tenant, DNS: net.DefaultResolver, Web: claim.NewWeb(nil)})
	k.Change = change.New(change.Config{Store: k.Marked, Tenant: k.Tenant, Vault: vault, Unserved: map[v1.Kind]string{
		v1.KindKillSwitch: "write mode: off in the policy instead, and hurry it on with relais rollout expedite",
	}})
	if err := k.openFleet(ctx); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	cfg := api.Config{
		Store: k.Marked, Pruner: s, Vault: vault, Tenant: k.Tenant, Claims: k.Claims, Change: k.Change,
		OIDC: oidc.New(oidc.Config{Store: k.Marked, Tenant: k.Tenant}), Brand: brand.New(brand.Config{Store: k.Marked, Tenant: k.Tenant}), URL: c.URL,
		Logger: c.Logger, Version: c.Version,
	}
	if k.Hub != nil {
		cfg.Fleet = k.Hub.Fleet()
	}
	k.API = api.New(cfg)
	k.Add("tokens", k.every(time.Hour, func(ctx context.Context, l *store.Lease) error {
		_, err := k.Tenant.ExpireTokens(ctx, l)
		return err
	}))
	k.Add("idempotency", k.every(time.Hour, func(ctx context.Context, l *store.Lease) error {
		_, err := k.API.SweepKeys(ctx, l)
		return err
	}))
	k.Add("expiry", k.every(time.Minute, func(ctx context.Context, _ *store.Lease) error {
		_, err := s.Expire(ctx)
		return err
	}))
	k.Add("outbox", k.every(time.Minute, func(ctx context.Context, _ *store.Lease) error {
		_, err := s.Sweep(ctx)
		return err
	}))
	k.Add("claims", k.recheck)
	return k, nil
}

// options have the tables of all rooms.
func options() store.Options {
	return store.Options{Schemas: []store.Schema{rollout.Schema(), purge.Schema(), usage.Schema()}}
}

// openVault reads the keys, and makes the first one. Several control planes must have the same, so beside a database that
// they share none is made.
func openVault(file string, several bool) (*secret.Vault, error) {
	text, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) && !several {
		private, public, e := secret.NewKey()
		if e != nil {
			return nil, e
		}
		text = []byte("# public key: " + public + "\n" + private + "\n")
		err = os.WriteFile(file, text, 0o600)
	}
	if err != nil {
		return nil, fmt.Errorf("control: the vault's key: %w; control planes that share a database share this file", err)
	}
	return secret.NewVault(string(text))
}

// Close ends the control plane. Call it after Run.
func (k *Control) Close() error {
	var err error
	if k.Hub != nil {
		err = errors.Join(k.Hub.Close(), k.enrol.Close())
		if errors.Is(err, net.ErrClosed) {
			err = nil
		}
	}
	return errors.Join(err, k.store.Close())
}

// Store is the database, for consumers of the outbox.
func (k *Control) Store() *store.Store { return k.store }

// Add makes a worker known; before Run.
func (k *Control) Add(name string, w Worker) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.workers[name] = w
}

// every makes a worker of what is done now and then.
func (k *Control) every(d time.Duration, do func(context.Context, *store.Lease) error) Worker {
	return func(ctx context.Context, l *store.Lease) error {
		tick := time.NewTicker(d)
		defer tick.Stop()
		for {
			if err := do(ctx, l); err != nil {
				return err
			}
			select {
			case <-tick.C:
			case <-ctx.Done():
				return nil
			}
		}
	}
}

// recheck looks at the claims whose turn it is.
func (k *Control) recheck(ctx context.Context, l *store.Lease) error {
	from := time.Now()
	return k.every(10*time.Minute, func(ctx context.Context, l *store.Lease) error {
		to := time.Now()
		err := k.Claims.Sweep(ctx, l, from, to)
		if err == nil {
			from = to
		}
		return err
	})(ctx, l)
}

// Run answers requests on a listener, over TLS, and leads where nobody else does, until ctx ends. Ready is called once
// requests are answered.
func (k *Control) Run(ctx context.Context, l net.Listener, cert tls.Certificate, ready func()) error {
	server := k.API.Server()
	server.TLSConfig = &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{cert}}
	life, end := context.WithCancel(ctx)
	defer end()
	server.BaseContext = func(net.Listener) context.Context { return life }
	var wg sync.WaitGroup
	wg.Go(func() { k.lead(life) })
	if k.Hub != nil {
		wg.Go(func() { k.keep(life, "fleet", k.Hub.Run) })
		wg.Go(func() { k.keep(life, "joining", func(ctx context.Context) error { return k.Hub.Enrol(ctx, k.enrol) }) })
	}
	wg.Go(func() { k.tellDenials(life) })
	failed := make(chan error, 1)
	wg.Go(func() { failed <- server.ServeTLS(l, "", "") })
	if ready != nil {
		ready()
	}
	var err error
	select {
	case err = <-failed:
	case <-ctx.Done():
		end() // watchers go at once; what is under way has its time
		stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTime)
		err = server.Shutdown(stop)
		cancel()
	}
	end()
	wg.Wait()
	k.Tenant.TellDenials(context.WithoutCancel(ctx), true) // what is not told now is lost
	if errors.Is(err, http.ErrServerClosed) {
		err = nil
	}
	return err
}

// tellDenials has attempts that were denied told in time. Each process does it: the counts are its own.
func (k *Control) tellDenials(ctx context.Context) {
	for ctx.Err() == nil {
		pause(ctx, tellEvery)
		k.Tenant.TellDenials(ctx, false)
	}
}

// lead runs the workers whenever this process leads.
func (k *Control) lead(ctx context.Context) {
	for ctx.Err() == nil {
		lease, err := k.store.Lead(ctx, leaderName, k.config.Holder)
		if err != nil {
			if ctx.Err() == nil {
				k.logger.Error("cannot lead", "err", err)
				pause(ctx, again)
			}
			continue
		}
		k.logger.Info("leads", "term", lease.Term())
		k.work(ctx, lease)
		lease.Close()
	}
}

func (k *Control) work(ctx context.Context, lease *store.Lease) {
	life, end := context.WithCancel(ctx)
	defer end()
	var wg sync.WaitGroup
	k.mu.Lock()
	for name, w := range k.workers {
		wg.Go(func() {
			for life.Err() == nil {
				err := w(life, lease)
				if errors.Is(err, store.ErrFenced) {
					end()
					return
				}
				if err != nil && life.Err() == nil {
					k.logger.Error("background work failed", "work", name, "err", err)
				}
				pause(life, again)
			}
		})
	}
	k.mu.Unlock()
	select {
	case <-lease.Done():
	case <-life.Done():
	}
	end()
	wg.Wait()
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
