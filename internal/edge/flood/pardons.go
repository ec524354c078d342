package flood

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/stage"
)

// pardons are addresses and networks that a person spared. It is a stage too, before all that judges visitors.
type pardons struct {
	some atomic.Bool
	mu   sync.RWMutex
	list []pardon
}

type pardon struct {
	network netip.Prefix
	until   time.Time
}

// maxPardons bounds the list, which is gone through for each request while it is not empty.
const maxPardons = 64

// Pardons is a step of its own, before all that judges or limits visitors: it says whom a person spared.
func (s *Stage) Pardons() stage.Stage { return &s.pardons }

// Name implements stage.Stage.
func (p *pardons) Name() string { return name }

// Serve implements stage.Stage.
func (p *pardons) Serve(ctx context.Context, x *stage.Exchange, next stage.Handler) (*message.Response, error) {
	if p.has(x.Client, x.Start) {
		x.Measures.Pardoned = true
		x.Mark(name, "unblocked")
	}
	return next.Serve(ctx, x)
}

// has says whether an address is spared.
func (p *pardons) has(a netip.Addr, now time.Time) bool {
	if !p.some.Load() {
		return false
	}
	p.mu.RLock()
	defer p.mu.RUnlock()
	a = a.Unmap()
	for i := range p.list {
		if p.list[i].network.Contains(a) && now.Before(p.list[i].until) {
			return true
		}
	}
	return false
}

// sweep forgets those whose time has passed.
func (p *pardons) sweep(now time.Time) {
	if !p.some.Load() {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.list = slices.DeleteFunc(p.list, func(o pardon) bool { return !now.Before(o.until) })
	p.some.Store(len(p.list) > 0)
}

// errPardons says that the list is full.
var errPardons = fmt.Errorf("%d addresses and networks are spared already; wait until one expires, or write them into the policy (trusted)", maxPardons)

func (p *pardons) add(network netip.Prefix, now, until time.Time) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.list = slices.DeleteFunc(p.list, func(o pardon) bool { return !now.Before(o.until) || o.network == network })
	if len(p.list) >= maxPardons {
		return errPardons
	}
	p.list = append(p.list, pardon{network, until})
	p.some.Store(true)
	return nil
}

// Unblock spares an address or a network from all limits of this edge, until a time, and forgets what was held
// against the address. What the packet filter drops of it because of a flood comes through again.
func (s *Stage) Unblock(network netip.Prefix, now, until time.Time) error {
	network = network.Masked()
	if err := s.pardons.add(network, now, until); err != nil {
		return err
	}
	s.denials.withdraw(s.cfg.Denier, func(d denial) bool { return d.prefix.Overlaps(network) })
	if network.IsSingleIP() {
		s.sources.forget(blameHash(s.seed, network.Addr()))
		s.sources.forget(s.denyHash(network.Addr()))
		for _, st := range s.all() {
			source, _ := addresses(s.seed, network.Addr(), st.hash)
			s.sources.forget(source)
			s.sources.forget(mix(source ^ addressSalt))
		}
	}
	return nil
}
