package pop

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"

	"github.com/relais-edge/relais/internal/bundle"
	"github.com/relais-edge/relais/internal/bundle/wire"
	"github.com/relais-edge/relais/internal/manifest"
	"github.com/relais-edge/relais/internal/observe"
)

// TenantsConfig of Tenants.
type TenantsConfig struct {
	// Platform is the organization whose listeners serve all.
	Platform string
	Edge     Applier
	Logger   *slog.Logger
	Metrics  *observe.Registry
}

// Tenants is the Loader of an edge: it keeps what each organization has in service and gives the edge what they make
// together.
type Tenants struct {
	cfg       TenantsConfig
	conflicts observe.Gauge

	reading sync.Mutex
	readers map[string]*wire.Reader // of organizations; they know the parts that were read last

	apply sync.Mutex
	set   *bundle.Set // in service; guarded by apply
	told  map[bundle.Conflict]bool
}

// NewTenants makes a loader that serves nobody.
func NewTenants(cfg TenantsConfig) *Tenants {
	return &Tenants{
		cfg: cfg, readers: map[string]*wire.Reader{}, set: bundle.NewSet(cfg.Platform),
		conflicts: cfg.Metrics.Gauges("relais_pop_hostname_conflicts", "Host names that two organizations want on one listener; at most 1,000 are counted.", 1).With(),
	}
}

// Parts implements Loader.
func (t *Tenants) Parts(index []byte) ([]manifest.Ref, error) { return wire.Parts(index) }

// Decode implements Loader. Parts that the organization's last bundle had too are not read again.
func (t *Tenants) Decode(organization string, index []byte, parts [][]byte) (*bundle.Bundle, error) {
	t.reading.Lock()
	defer t.reading.Unlock()
	r := t.readers[organization]
	if r == nil {
		r = wire.NewReader(organization)
	}
	b, err := r.Decode(index, parts)
	if err == nil {
		t.readers[organization] = r
	}
	return b, err
}

// ApplyTenants implements Loader. On error what is in service stays.
func (t *Tenants) ApplyTenants(ctx context.Context, changed map[string]*bundle.Bundle) error {
	t.apply.Lock()
	defer t.apply.Unlock()
	next := t.set.Clone()
	for _, org := range slices.Sorted(maps.Keys(changed)) {
		if err := next.Replace(org, changed[org]); err != nil {
			return fmt.Errorf("organization %s: %w", org, err)
		}
	}
	merged, conflicts := next.Merge()
	if err := t.cfg.Edge.Apply(ctx, merged); err != nil {
		return err
	}
	t.set = next
	t.tell(conflicts)
	t.forget(changed)
	return nil
}

// tell logs the conflicts that are new.
func (t *Tenants) tell(conflicts []bundle.Conflict) {
	told := make(map[bundle.Conflict]bool, len(conflicts))
	for _, c := range conflicts {
		if told[c] = true; !t.told[c] {
			t.cfg.Logger.Warn("a host name is served for the organization that had it first", "host", c.Hostname, "site", string(c.By), "without", string(c.Site))
		}
	}
	t.told = told
	t.conflicts.Set(float64(len(conflicts)))
}

// forget what was read of organizations that have nothing any more.
func (t *Tenants) forget(changed map[string]*bundle.Bundle) {
	t.reading.Lock()
	defer t.reading.Unlock()
	for org, b := range changed {
		if b == nil {
			delete(t.readers, org)
		}
	}
}
