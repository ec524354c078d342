package cache

import (
	"github.com/relais-edge/relais/internal/edge/cache/purge"
	"github.com/relais-edge/relais/internal/edge/cache/store"
	"github.com/relais-edge/relais/internal/stage"
)

// storage is all that the stage needs of where answers are kept; this file holds everything that
// writes to it. DESIGN.md says how a tier that is not in Go's heap comes behind it.
type storage interface {
	// HashOf hashes a key; a hash is good for this storage only.
	HashOf(key []byte) store.Hash
	// Get finds what is stored under a key, or nil, and notes that it was asked for. It allocates nothing.
	Get(h store.Hash, key []byte) *variants
	// Update puts change(old) in the place of what is stored under a key, in one step; nil removes it.
	// Cost is its memory in bytes, key and entry left out.
	Update(h store.Hash, key []byte, change func(old *variants) (v *variants, cost int64))
	// MaxCost is the largest cost that is taken.
	MaxCost() int64
	Stats() store.Stats
}

var _ storage = (*store.Store[variants])(nil)

// keep stores an object as the newest under its key.
func (s *Stage) keep(h store.Hash, key []byte, o *object) {
	s.store.Update(h, key, func(old *variants) (*variants, int64) {
		v := old.with(o, maxVariants)
		return v, v.cost
	})
}

// settle stores an object where it belongs, and in no other place.
func (s *Stage) settle(x *stage.Exchange, was store.Hash, key []byte, to *home, o *object) {
	if to.rule != nil {
		s.learn(x, to.rule)
	}
	s.keep(to.hash, to.key, o)
	if to.hash != was {
		s.clear(was, key, false)
	}
}

// forget removes an object that the origin no longer stands by.
func (s *Stage) forget(h store.Hash, key []byte, o *object) {
	s.store.Update(h, key, func(old *variants) (*variants, int64) {
		v := old.without(o, maxVariants)
		if v == nil {
			return nil, 0
		}
		return v, v.cost
	})
}

// endPass takes markPass back, so that the next request fetches for all.
func (s *Stage) endPass(h store.Hash, key []byte) {
	s.store.Update(h, key, func(old *variants) (*variants, int64) {
		if old == nil || old.newest == nil {
			return nil, 0
		}
		v := *old
		v.passUntil = 0
		return &v, v.cost
	})
}

// markPass notes that answers under the key cannot be stored.
func (s *Stage) markPass(h store.Hash, key []byte) {
	until := s.cfg.Clock().Add(passFor).UnixNano()
	s.store.Update(h, key, func(old *variants) (*variants, int64) {
		v := &variants{cost: setCost}
		if old != nil {
			*v = *old
		}
		v.passUntil = until
		return v, v.cost
	})
}

// clear forgets all that is stored under a key; changed says that it is no longer true.
func (s *Stage) clear(h store.Hash, key []byte, changed bool) {
	s.store.Update(h, key, func(old *variants) (*variants, int64) {
		if old != nil && changed {
			s.m.invalid.Inc()
		}
		return nil, 0
	})
}

// keepPart stores a part: with those of the same representation that are stored, where a strong
// validator says that they are (RFC 9111 section 3.4), else in the place of what is stored. What is
// put together, at most limit bytes, is so outside of the store's lock, and anew when somebody else was faster.
func (s *Stage) keepPart(m *purge.Mark, to *home, o *object, limit int64) {
	h, key := to.hash, to.key
	for try := 0; ; try++ {
		v := s.store.Get(h, key)
		n := withPart(v, o, limit, m.Last())
		if n == nil {
			return
		}
		lost := false
		s.store.Update(h, key, func(old *variants) (*variants, int64) {
			if lost = old != v && try < 3; lost {
				if old == nil {
					return nil, 0
				}
				return old, old.cost
			}
			w := old.with(n, maxVariants)
			return w, w.cost
		})
		if !lost {
			s.m.parts.Inc()
			return
		}
	}
}

// learn notes the rule of x's path.
func (s *Stage) learn(x *stage.Exchange, r *searchRule) {
	key := appendPath(nil, x, x.In.Path())
	h := s.store.HashOf(key)
	s.store.Update(h, key, func(old *variants) (*variants, int64) {
		if old != nil && old.search != nil && old.search.text == r.text {
			return old, old.cost
		}
		v := &variants{search: r, cost: setCost + int64(len(r.text)) + 64*int64(len(r.Names))}
		return v, v.cost
	})
	s.searches.Store(true)
}
