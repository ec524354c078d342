package balance

import (
	"net/netip"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/bundle"
	"github.com/relais-edge/relais/internal/stage"
)

// This file is what connections that are not HTTP need of a pool. They are in flight from the dial
// to their end, and have a client address in place of a visitor.

// Pool finds or makes the pool of a service and has it do what spec says.
func (s *Stage) Pool(key bundle.Key, spec *v1.OriginPoolSpec) (*Pool, error) {
	return s.pool(key, spec)
}

// Place takes a place for a connection of a client, at an origin that is not in tried. Like Pick it
// neither blocks nor allocates; it counts the try, and the reasons, as for a request.
func (p *Pool) Place(client netip.Addr, tried *Tried) (Slot, error) {
	h := clientHash(client)
	s, err := p.Pick(Visitor{Class: stage.Anonymous, Key: h, Hash: h, Now: p.clock()}, tried)
	if err != nil {
		if err == ErrFull {
			p.counters.refused.Inc()
		}
		return s, err
	}
	s.begin() // its time says nothing
	s.count(p.view.Load())
	s.tier.counters.tries.Inc()
	return s, nil
}

// Attempts is how many tries after the first the pool allows.
func (p *Pool) Attempts() int { return v1.Value(p.view.Load().spec.Retries.Attempts) }

// Retry takes from the budget of retries under way, and says whether there was any left. EndRetry
// gives it back.
func (p *Pool) Retry() bool {
	if !p.mayRetry() {
		p.counters.denied.Inc()
		return false
	}
	p.counters.retries.Inc()
	return true
}

// EndRetry gives back what Retry took.
func (p *Pool) EndRetry() { p.retries.under.Add(-1) }

// Target is where the slot's origin is reached.
func (s *Slot) Target() stage.Target { return s.origin.target() }

// Reached notes that the origin took the connection, long before its end.
func (s *Slot) Reached() {
	if s.timed || s.counts {
		s.answered(s.pool.clock())
	}
	s.served()
	s.pool.judge(s.tier, s.origin, Succeeded)
}

// Add notes that the slot's origin failed.
func (t *Tried) Add(s *Slot) { t.add(s.origin) }

// clientHash hashes an IPv4 address or an IPv6 /64, the same on every edge and after every start.
func clientHash(a netip.Addr) uint64 {
	switch a = a.Unmap(); {
	case a.Is4():
		b := a.As4()
		return hashBytes(b[:])
	case a.Is6():
		b := a.As16()
		return hashBytes(b[:8])
	}
	return 0
}
