package balance

// This file is what goes wrong in the world of sim_test.go.

import "github.com/relais-edge/relais/internal/virtual"

// kill stops servers of a tier as a crash does.
func (w *world) kill(tier, from, to int) {
	for i := range w.servers {
		s := &w.servers[i]
		k := w.index(i)
		if s.tier != tier || k < from || k >= to || !s.up {
			continue
		}
		s.up = false
		s.epoch++
		w.nLive[tier] -= int64(w.tiers[tier].slots)
		w.nBusy[tier] -= int64(s.Busy)
		if tier == 0 && s.slow == 1 {
			w.nHB -= int64(s.Busy)
			w.nHS -= int64(w.tiers[tier].slots)
		}
		s.Clear()
		for id := range w.requests {
			r := &w.requests[id]
			if r.server == int32(i) && r.epoch == s.epoch-1 && r.refs > 0 {
				r.gen++
				r.epoch = -1
				w.q.Push(virtual.Event{At: w.now + w.tiers[tier].rtt/2, Kind: evRefused, ID: int32(id)})
			}
		}
	}
}

func (w *world) revive(tier, from, to int) {
	for i := range w.servers {
		s := &w.servers[i]
		if k := w.index(i); s.tier != tier || k < from || k >= to || s.up {
			continue
		}
		s.up, s.away = true, true
	}
}

// slow has servers take longer.
func (w *world) slow(tier, from, to int, factor float64) {
	for i := range w.servers {
		s := &w.servers[i]
		if k := w.index(i); s.tier != tier || k < from || k >= to {
			continue
		}
		if was := s.slow == 1; tier == 0 && was != (factor == 1) {
			d := int64(1)
			if was {
				d = -1
			}
			w.nHB += d * int64(s.Busy)
			w.nHS += d * int64(w.tiers[tier].slots)
		}
		s.slow = factor
	}
}

// index is the number of a server in its tier.
func (w *world) index(i int) int {
	for j := range w.servers {
		if w.servers[j].tier == w.servers[i].tier {
			return i - j
		}
	}
	return -1
}

// check is active health: a server that is down is found, and one that is up again, by the next
// look, a second apart. It ejects as a failed check does.
func (w *world) check() {
	for i := range w.servers {
		if s := &w.servers[i]; s.away {
			s.away = false
			w.nLive[s.tier] += int64(w.tiers[s.tier].slots)
			if s.tier == 0 && s.slow == 1 {
				w.nHS += int64(w.tiers[s.tier].slots)
			}
		}
	}
	for _, e := range w.edges {
		e.mu.Lock()
		changed := false
		for a, o := range e.byAddr {
			s := &w.servers[w.byAddress[a]]
			if !s.up && o.ejectedUntil < w.now+100*second {
				o.ejectedUntil = w.now + 1000*second
				changed = true
			}
			if s.up && o.ejectedUntil > w.now+100*second {
				o.ejectedUntil = w.now
				o.fails.Store(0)
				changed = true
			}
		}
		if changed {
			e.look(w.now)
		}
		e.mu.Unlock()
	}
}
