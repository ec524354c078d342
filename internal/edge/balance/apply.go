package balance

import (
	"math"
	"reflect"
	"slices"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/stage"
)

const (
	// largeTier is the number of origins, and largeSchedule the length of a schedule, from which a view is
	// made beside the requests and not by one of them.
	largeTier     = 256
	largeSchedule = 1024
	// rampSteps is in how many steps a slow start goes up; its first is one of them.
	rampSteps = 20
	// rampScale makes room below a weight of 1.
	rampScale = 100
)

// Where says which edge this is among others.
type Where struct {
	// Zone of the edge; empty is none.
	Zone string
	// Number of the edge among those that share origins, from 0.
	Number uint64
}

// seat is an origin as the spec, or DNS, names it.
type seat struct {
	address, host, zone string
	weight, limit       int64
}

// update makes spec what the pool does. Origins and tiers that stay keep their state, those
// that go finish what they have. An error leaves the pool as it was.
func (p *Pool) update(spec *v1.OriginPoolSpec, checks *checks) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.unused.Store(0)
	if p.spec == spec || p.spec != nil && reflect.DeepEqual(p.spec, spec) {
		return nil
	}
	return p.apply(spec, checks)
}

// found has the pool take what DNS says now.
func (p *Pool) found(checks *checks) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil
	}
	return p.apply(p.spec, checks)
}

// apply does the work of update. The lock is held.
func (p *Pool) apply(spec *v1.OriginPoolSpec, checks *checks) error {
	p.names.join(p, spec)
	seats := p.seats(spec)
	opened, err := p.openNew(spec, seats)
	if err != nil {
		p.names.leave(p, p.spec)
		return err
	}
	p.names.leave(p, spec)
	reopen := p.spec != nil && !reflect.DeepEqual(p.spec.Connection, spec.Connection)
	rejoin := p.spec == nil || reopen || !sameChecks(&p.spec.Health, &spec.Health)
	for _, o := range p.byAddr {
		o.marked = false
	}
	for address, t := range opened {
		o := p.byAddr[address]
		if o == nil {
			// All that a new pool has is as warm as the rest of it.
			o = &origin{address: address, was: p.spec == nil, since: math.MinInt64 / 2}
			o.most.Store(math.MaxInt64)
			p.byAddr[address] = o
		} else if reopen {
			p.origins.Close(o.target())
		}
		o.opened.Store(&t)
	}
	if p.spec = spec; rejoin {
		p.kind = checkKind(p)
	}
	renamed := p.makePlan(seats)
	for address, o := range p.byAddr {
		if !o.marked {
			checks.leave(o.check, p, o)
			p.origins.Close(o.target())
			o.report.forget(o.in.Swap(nil))
			delete(p.byAddr, address)
			continue
		}
		if rejoin || opened[address] != nil || renamed[o] {
			old := o.check
			o.check = checks.join(p, o)
			checks.leave(old, p, o)
		}
	}
	p.look(p.clock())
	return nil
}

// sameChecks says whether two specs make the same active checks.
func sameChecks(a, b *v1.HealthSpec) bool {
	x, y := *a, *b
	x.Passive, y.Passive = v1.PassiveHealth{}, v1.PassiveHealth{}
	return reflect.DeepEqual(x, y)
}

// seats lists the origins of spec's tiers: what DNS found in place of names, and of each tier the subset
// that is this edge's.
func (p *Pool) seats(spec *v1.OriginPoolSpec) [][]seat {
	list := make([][]seat, 0, min(len(spec.Tiers), maxTiers))
	for i := range spec.Tiers {
		if i == maxTiers {
			break
		}
		t := &spec.Tiers[i]
		seats := make([]seat, 0, len(t.Origins))
		for j := range t.Origins {
			so := &t.Origins[j]
			s := seat{so.Address, so.Address, so.Zone, int64(v1.Value(so.Weight)), int64(so.InFlight)}
			if !so.Expand && so.SRV == "" {
				seats = append(seats, s)
				continue
			}
			for _, f := range p.names.of(so, spec) {
				if slices.ContainsFunc(seats, func(o seat) bool { return o.address == f.Address }) {
					continue
				}
				s.address = f.Address
				if so.SRV != "" {
					s.host, s.weight = f.Address, max(1, int64(v1.Value(so.Weight))*int64(v1.Value(f.Weight)))
				}
				seats = append(seats, s)
			}
		}
		list = append(list, subset(seats, t.Subset, p.where.Number))
	}
	return list
}

// openNew opens targets for the origins that have none, or for all when the way to speak to them changed.
func (p *Pool) openNew(spec *v1.OriginPoolSpec, tiers [][]seat) (map[string]stage.Target, error) {
	all := p.spec == nil || p.spec != spec && !reflect.DeepEqual(p.spec.Connection, spec.Connection)
	opened := map[string]stage.Target{}
	for _, seats := range tiers {
		for _, s := range seats {
			if opened[s.address] != nil || !all && p.byAddr[s.address] != nil {
				continue
			}
			t, err := p.origins.Open(p.key, s.address, &spec.Connection)
			if err != nil {
				for _, t := range opened {
					p.origins.Close(t)
				}
				return nil, err
			}
			opened[s.address] = t
		}
	}
	return opened, nil
}

// makePlan builds the plan from the spec and marks the origins in use. It returns those whose checks ask
// for another host than before.
func (p *Pool) makePlan(tiers [][]seat) map[*origin]bool {
	used, before := map[string]*tier{}, p.plan
	renamed := map[*origin]bool{}
	p.plan = make([]plannedTier, 0, len(tiers))
	for i, at := range ranked(p.spec.Tiers[:len(tiers)], p.where.Zone) {
		st, seats := &p.spec.Tiers[at], tiers[at]
		name := TierName(p.spec, at)
		t := p.tiers[name]
		if t == nil || used[name] != nil {
			t = newTier(name, p.metrics.tier(p.key, name))
		}
		used[name] = t
		adaptive := st.Capacity.Adaptive == "on" ||
			st.Capacity.Adaptive != "off" && i < len(tiers)-1 && v1.Value(st.Capacity.InFlight) == 0
		reported := st.Capacity.Adaptive != "off" && i < len(tiers)-1 || adaptive
		pt := plannedTier{state: t, capacity: st.Capacity, adaptive: adaptive, reported: reported, rare: sentOnRare, members: make([]member, 0, len(seats))}
		if i == len(tiers)-1 {
			pt.rare = refusedRare
		}
		for _, s := range seats {
			o := p.byAddr[s.address]
			if o.in.Load() != t {
				o.report.forget(o.in.Swap(t))
			}
			if o.marked = true; o.host != s.host {
				o.host, renamed[o] = s.host, true
			}
			if o.zone = s.zone; s.weight > 0 {
				pt.members = append(pt.members, member{o, s.weight, s.limit})
			}
		}
		if p.spec.Algorithm == v1.ConsistentHash {
			pt.makeTable(p.spec.Hash.Table, before)
		}
		p.plan = append(p.plan, pt)
	}
	for name, t := range p.tiers {
		if used[name] != t {
			p.metrics.forgetTier(p.key, t)
		}
	}
	p.tiers = used
	return renamed
}

// makeTable makes the table of consistent-hash, of the one before where that saves work.
func (t *plannedTier) makeTable(kind string, plan []plannedTier) {
	var old plannedTier
	for i := range plan {
		if plan[i].state == t.state {
			old = plan[i]
		}
	}
	same := slices.EqualFunc(t.members, old.members, func(a, b member) bool { return a.o == b.o && a.weight == b.weight })
	switch {
	case kind == "ring" && same && old.table.ring != nil, kind != "ring" && same && old.table.maglev != nil:
		t.table = old.table
	case kind == "ring":
		t.table.ring = newRing(t.members, old.table.ring, old.members)
	default:
		t.table.maglev = newMaglev(t.members)
	}
}

// census looks at all origins: it notes who came back, when the next view is due, and says whether so few
// are well that all are used. The lock is held.
func (p *Pool) census(v *view, now int64) (panicked bool) {
	well, all, step := 0, 0, max(int64(p.spec.SlowStart)/rampSteps, 10e6)
	for i := range p.plan {
		for _, m := range p.plan[i].members {
			o := m.o
			all++
			if o.ejectedUntil > now {
				v.changeAt = min(v.changeAt, o.ejectedUntil)
			}
			is := o.well(now)
			if is && !o.was {
				o.since = now
			}
			if o.was = is; is {
				well++
			}
			if now-o.since < int64(p.spec.SlowStart) {
				v.changeAt = min(v.changeAt, now+step)
			}
		}
	}
	return well == 0 || float64(well) < p.spec.Health.Panic.Fraction()*float64(all)
}

// inUse lists the members of a tier that may be chosen, each with its weight as it is now, and adds up
// their weights, and those of all.
func (t *plannedTier) inUse(spec *v1.OriginPoolSpec, now int64, panicked bool) (members []member, part, all int64) {
	members = make([]member, 0, len(t.members))
	window := int64(spec.SlowStart)
	for _, m := range t.members {
		if window > 0 {
			m.weight *= rampScale
		}
		all += m.weight
		if !panicked && !m.o.well(now) {
			continue
		}
		if since := now - m.o.since; since < window {
			m.weight = max(1, m.weight/rampSteps, int64(float64(m.weight)*float64(since)/float64(window)))
		}
		part += m.weight
		members = append(members, m)
	}
	return members, part, all
}

// remake has a new view made: at once, or by another goroutine when that takes long.
func (p *Pool) remake(w *view, now int64) *view {
	if !w.large {
		return p.refresh(now)
	}
	if p.remade.CompareAndSwap(false, true) {
		go func() {
			defer p.remade.Store(false)
			p.refresh(now)
		}()
	}
	return w
}
