package fleet

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/relais-edge/relais/internal/bundle"
	"github.com/relais-edge/relais/internal/bus"
	"github.com/relais-edge/relais/internal/bus/nats"
	"github.com/relais-edge/relais/internal/control"
	"github.com/relais-edge/relais/internal/control/change"
	"github.com/relais-edge/relais/internal/control/hub"
	"github.com/relais-edge/relais/internal/control/store"
	"github.com/relais-edge/relais/internal/control/tenant"
	"github.com/relais-edge/relais/internal/document"
	"github.com/relais-edge/relais/internal/identity"
	"github.com/relais-edge/relais/internal/manifest"
	"github.com/relais-edge/relais/internal/observe"
	"github.com/relais-edge/relais/internal/pop"
)

const patience = time.Minute

func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %s: %s", patience, what)
		}
	}
}

// plain is a wire form of one part: JSON as it is.
type plain struct{}

func (plain) Encode(b *bundle.Bundle, _ []byte) (index []byte, parts [][]byte, err error) {
	part, err := json.Marshal(b)
	if err != nil {
		return nil, nil, err
	}
	index, err = json.Marshal([]manifest.Ref{{Digest: manifest.Of(part), Size: int64(len(part))}})
	return index, [][]byte{part}, err
}

func (plain) Parts(index []byte) (refs []manifest.Ref, err error) {
	return refs, json.Unmarshal(index, &refs)
}

// place is the edge of a PoP, as far as it is of interest here: what it was told to serve.
type place struct {
	plain
	mu    sync.Mutex
	sites map[string][]string // host names by organization
}

func (*place) Decode(_ string, _ []byte, parts [][]byte) (*bundle.Bundle, error) {
	b := &bundle.Bundle{}
	return b, json.Unmarshal(parts[0], b)
}

func (p *place) ApplyTenants(_ context.Context, changed map[string]*bundle.Bundle) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	for org, b := range changed {
		p.sites[org] = nil
		if b == nil {
			continue
		}
		for _, s := range b.Sites {
			p.sites[org] = append(p.sites[org], s.Hostnames...)
		}
	}
	return nil
}

func (*place) Purge(context.Context, [][]byte) error { return nil }
func (*place) PurgeAll(context.Context) error        { return nil }
func (p *place) serves(org string, hosts ...string) func() bool {
	return func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		return slices.Equal(p.sites[org], hosts)
	}
}

// operator is a control plane with its hub, over one folder.
type operator struct {
	t     *testing.T
	dir   string
	root  tenant.Actor
	bus   string // address, the same over restarts
	enrol string
	*control.Control
	hub  *hub.Hub
	stop func()
}

func newOperator(t *testing.T) *operator {
	o := &operator{t: t, dir: t.TempDir(), bus: "127.0.0.1:0", enrol: "127.0.0.1:0"}
	o.start()
	var err error
	if o.root, err = o.Tenant.Setup(t.Context(), "acme", "root", "correct horse battery"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { o.stop() })
	return o
}

func (o *operator) start() {
	o.t.Helper()
	k, err := control.Open(context.Background(), control.Config{Data: o.dir})
	if err != nil {
		o.t.Fatal(err)
	}
	l, err := net.Listen("tcp", o.enrol)
	if err != nil {
		o.t.Fatal(err)
	}
	o.enrol = l.Addr().String()
	h, err := hub.Open(context.Background(), hub.Config{
		Store: k.Store(), Vault: k.Vault, Change: k.Change, Wire: plain{}, Domain: "acme.example", Name: "c1", BusListen: o.bus,
		EnrolURLs: []string{"https://" + o.enrol}, Logger: slog.New(slog.DiscardHandler), Metrics: observe.New(),
	})
	if err != nil {
		o.t.Fatal(err)
	}
	o.bus = h.Addresses()[0]
	o.Control, o.hub = k, h
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	run := func(what string, f func() error) {
		wg.Go(func() {
			if err := f(); err != nil && ctx.Err() == nil {
				o.t.Errorf("%s: %v", what, err)
			}
		})
	}
	run("hub", func() error { return h.Run(ctx) })
	run("enrol", func() error { return h.Enrol(ctx, l) })
	o.stop = sync.OnceFunc(func() {
		cancel()
		wg.Wait()
		if err := errors.Join(h.Close(), k.Close()); err != nil {
			o.t.Errorf("close: %v", err)
		}
	})
}

// apply writes documents of an organization.
func (o *operator) apply(org, text string) *change.Result {
	o.t.Helper()
	r, err := o.Change.Apply(o.t.Context(), o.root, org, []document.File{{Name: "test.yaml", Text: []byte(text)}}, change.Options{Reason: "test"})
	if err != nil {
		o.t.Fatal(err)
	}
	return r
}

// agent is a PoP that joined by a token.
type agent struct {
	*pop.Agent
	place *place
	end   *nats.End
	dir   string
	stop  func()
}

func (o *operator) join(name string) *agent {
	o.t.Helper()
	token, err := o.hub.NewToken(o.t.Context(), "root", name, time.Hour)
	if err != nil {
		o.t.Fatal(err)
	}
	a := &agent{dir: o.t.TempDir()}
	if _, err := identity.Join(o.t.Context(), token.String(), a.dir, nil); err != nil {
		o.t.Fatal(err)
	}
	o.boot(a, name)
	return a
}

// boot starts a PoP of what is in its folder alone.
func (o *operator) boot(a *agent, name string) {
	o.t.Helper()
	state, err := identity.Load(a.dir)
	if err != nil {
		o.t.Fatal(err)
	}
	credentials, err := state.Open(nil)
	if err != nil {
		o.t.Fatal(err)
	}
	set := manifest.KeySet{}
	for _, k := range state.Keys {
		set.Keys = append(set.Keys, manifest.Key{Public: k})
	}
	a.end, err = nats.Dial(nats.DialOptions{Addresses: state.Addresses, TLS: credentials.TLS(identity.Any(identity.Control)), Rights: bus.PopRights(name), Name: name, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		o.t.Fatal(err)
	}
	a.place = &place{sites: map[string][]string{}}
	a.Agent, err = pop.NewAgent(pop.AgentConfig{
		Pop: name, Dir: filepath.Join(a.dir, "pop"), Keys: set, Bus: a.end, Loader: a.place, Purger: a.place, Version: "test",
		Settle: 100 * time.Millisecond, Logger: slog.New(slog.DiscardHandler), Metrics: observe.New(),
	})
	if err != nil {
		o.t.Fatal(err)
	}
	if err := a.Boot(o.t.Context()); err != nil && !errors.Is(err, pop.ErrNothing) {
		o.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	a.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			o.t.Errorf("agent %s: %v", name, err)
		}
		_ = a.end.Close()
	})
	o.t.Cleanup(a.stop)
}

const listener = `
apiVersion: relais/v1
kind: Listener
metadata: {name: http}
spec: {address: ":8080"}
---
apiVersion: relais/v1
kind: RolloutPolicy
metadata: {name: at-once}
spec: {rings: [{share: 100%, wait: 0s}]}
`

func popDocument(name string) string {
	return fmt.Sprintf("---\napiVersion: relais/v1\nkind: Pop\nmetadata: {name: %s}\nspec: {region: eu}\n", name)
}

func site(name string, hosts ...string) string {
	return fmt.Sprintf("---\napiVersion: relais/v1\nkind: Site\nmetadata: {name: %s}\nspec:\n  hostnames: [%s]\n  routes: [{respond: {body: hello}}]\n", name, strings.Join(hosts, ", "))
}

func TestADocumentReachesPoPsThatJoined(t *testing.T) {
	o := newOperator(t)
	o.apply("acme", listener+popDocument("fra1")+popDocument("ams1"))
	fra, ams := o.join("fra1"), o.join("ams1")
	o.apply("acme", site("shop", "shop.example"))
	until(t, "the site at fra1", fra.place.serves("acme", "shop.example"))
	until(t, "the site at ams1", ams.place.serves("acme", "shop.example"))

	o.apply("acme", site("shop", "new.example"))
	until(t, "the change at fra1", fra.place.serves("acme", "new.example"))

	fra.stop() // and comes again, while the control plane is away
	o.stop()
	o.boot(fra, "fra1")
	if !fra.place.serves("acme", "new.example")() {
		t.Error("a PoP does not serve without a control plane")
	}
	o.start()
	o.apply("acme", site("shop", "third.example"))
	until(t, "what changed after both came back, at fra1", fra.place.serves("acme", "third.example"))
	until(t, "and at ams1, which was there all the while", ams.place.serves("acme", "third.example"))
}

func TestTheWayBack(t *testing.T) {
	o := newOperator(t)
	good := o.apply("acme", listener+popDocument("fra1")+site("shop", "shop.example"))
	fra := o.join("fra1")
	until(t, "the site", fra.place.serves("acme", "shop.example"))
	o.apply("acme", site("shop", "wrong.example"))
	until(t, "the mistake", fra.place.serves("acme", "wrong.example"))
	if _, err := o.Change.Rollback(t.Context(), o.root, "acme", good.Revision, change.Options{Reason: "a mistake"}); err != nil {
		t.Fatal(err)
	}
	until(t, "what was before", fra.place.serves("acme", "shop.example"))
}

func TestARevokedPoPIsShutOut(t *testing.T) {
	o := newOperator(t)
	o.apply("acme", listener+popDocument("fra1")+site("shop", "shop.example"))
	fra := o.join("fra1")
	until(t, "the site", fra.place.serves("acme", "shop.example"))
	if err := o.hub.Revoke(t.Context(), "root", "fra1", "stolen"); err != nil {
		t.Fatal(err)
	}
	until(t, "its connection ends", func() bool {
		up, _ := fra.end.Connected()
		select {
		case <-up:
			return false
		default:
			return true
		}
	})
	o.apply("acme", site("shop", "secret.example"))
	until(t, "the change is out", func() bool {
		var moving bool
		err := o.Store().View(t.Context(), func(r *store.Reader) error {
			text, err := status(t.Context(), r)
			moving = strings.Contains(text, "acme")
			return err
		})
		return err == nil && moving
	})
	if fra.place.serves("acme", "secret.example")() {
		t.Error("a PoP that was revoked is told of changes")
	}
}

// TestATokenIsGoodOnce: also by way of the real server.
func TestATokenIsGoodOnce(t *testing.T) {
	o := newOperator(t)
	token, err := o.hub.NewToken(t.Context(), "root", "fra1", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := identity.Join(t.Context(), token.String(), t.TempDir(), nil); err != nil {
		t.Fatal(err)
	}
	if _, err := identity.Join(t.Context(), token.String(), t.TempDir(), nil); !errors.Is(err, identity.ErrToken) {
		t.Errorf("for another machine: %v", err)
	}
	token.Pin = sha256.Sum256([]byte("another root"))
	if _, err := identity.Join(t.Context(), token.String(), t.TempDir(), nil); !errors.Is(err, identity.ErrPin) {
		t.Errorf("another root: %v", err)
	}
}

// TestNothingOfATenantLiesOpenInTheDatabase: bundles hold secrets.
func TestNothingOfATenantLiesOpenInTheDatabase(t *testing.T) {
	o := newOperator(t)
	o.apply("acme", listener+popDocument("fra1")+site("shop", "shop.example")+`
---
apiVersion: relais/v1
kind: CachePolicy
metadata: {name: images}
spec: {purge: {tokens: [a-very-secret-token-of-the-shop]}}
`+"---\n"+strings.Replace(site("img", "img.example"), "respond: {body: hello}", "respond: {body: hello}, cache: images", 1))
	fra := o.join("fra1")
	until(t, "the site", fra.place.serves("acme", "img.example", "shop.example"))
	r, w := io.Pipe()
	go func() { _ = w.CloseWithError(o.Store().Backup(t.Context(), w)) }()
	zip, err := gunzip(r)
	if err != nil {
		t.Fatal(err)
	}
	if holds(zip, "a-very-secret-token-of-the-shop") {
		t.Error("a secret lies open in a backup")
	}
	if !holds(zip, "shop.example") {
		t.Error("this test looks at nothing")
	}
}
