package netlab

import (
	"errors"
	"fmt"
)

// change does something to the fabric with hosts of this lab.
func (l *Lab) change(do func(f *fabric), hosts ...*Host) error {
	l.loop.mu.Lock()
	defer l.loop.mu.Unlock()
	if l.loop.closed {
		return errClosed
	}
	for _, h := range hosts {
		if h.lab != l {
			return fmt.Errorf("netlab: host %s is of another lab", h.name)
		}
		if h.node.gone {
			return fmt.Errorf("netlab: host %s is closed", h.name)
		}
	}
	if len(hosts) == 2 && hosts[0] == hosts[1] {
		return fmt.Errorf("netlab: host %s alone is no pair; its packets to itself never leave it", hosts[0].name)
	}
	do(l.loop.fabric)
	return nil
}

// Link lays a link of their own between two hosts, or changes it: the profile is that of each direction and stands in
// place of both access links, with their delays and rates.
func (l *Lab) Link(a, b *Host, p Profile) error {
	return errors.Join(l.LinkOneWay(a, b, p), l.LinkOneWay(b, a, p))
}

// LinkOneWay is Link in one direction.
func (l *Lab) LinkOneWay(from, to *Host, p Profile) error {
	if err := p.check(); err != nil {
		return err
	}
	return l.change(func(f *fabric) { f.lay(from.node, to.node, &p) }, from, to)
}

// Unlink takes the link of two hosts away: their packets go by the access links again.
func (l *Lab) Unlink(a, b *Host) error {
	return l.change(func(f *fabric) { f.lay(a.node, b.node, nil); f.lay(b.node, a.node, nil) }, a, b)
}

// Cut takes a host off the network: nothing comes or goes, and what is on the way is lost.
func (l *Lab) Cut(h *Host) error {
	return l.change(func(f *fabric) { f.cutHost(h.node, true) }, h)
}

// CutPair cuts between two hosts, in both directions. Both still reach all others.
func (l *Lab) CutPair(a, b *Host) error {
	return l.change(func(f *fabric) { f.cutPath(a.node, b.node, true); f.cutPath(b.node, a.node, true) }, a, b)
}

// CutOneWay cuts one direction: to no longer hears from, but from hears to.
func (l *Lab) CutOneWay(from, to *Host) error {
	return l.change(func(f *fabric) { f.cutPath(from.node, to.node, true) }, from, to)
}

// Heal mends what Cut cut.
func (l *Lab) Heal(h *Host) error {
	return l.change(func(f *fabric) { f.cutHost(h.node, false) }, h)
}

// HealPair mends what CutPair and CutOneWay cut.
func (l *Lab) HealPair(a, b *Host) error {
	return l.change(func(f *fabric) { f.cutPath(a.node, b.node, false); f.cutPath(b.node, a.node, false) }, a, b)
}

// HealAll mends all cuts.
func (l *Lab) HealAll() error { return l.change((*fabric).healAll) }

// Stats are the counters of all hosts and links that there are.
func (l *Lab) Stats() (Stats, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return Stats{}, errClosed
	}
	l.loop.mu.Lock()
	s := l.loop.fabric.stats()
	s.Stall = l.loop.stall
	l.loop.mu.Unlock()
	for _, h := range l.hosts {
		if h == nil {
			continue
		}
		lost, err := h.overrun()
		if err != nil {
			return Stats{}, fmt.Errorf("netlab: host %s: %w", h.name, err)
		}
		hs := s.Hosts[h.name]
		hs.Overrun = lost
		s.Hosts[h.name] = hs
	}
	return s, nil
}

func (f *fabric) stats() Stats {
	s := Stats{Hosts: map[string]HostStats{}, Pairs: map[Pair]Counters{}, Late: f.late, InFlight: f.packets.used()}
	for _, n := range f.nodes {
		if n == nil {
			continue
		}
		hs := n.counted
		hs.Up, hs.Down = n.up.now(), n.down.now()
		s.Hosts[n.name] = hs
		for number, way := range n.paths {
			if way != nil && way.link != nil {
				s.Pairs[Pair{n.name, f.nodes[number].name}] = way.link.now()
			}
		}
	}
	return s
}

func (l *link) now() Counters {
	c := l.counted
	c.Inside = l.inside
	return c
}
