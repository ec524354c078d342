package cache

import (
	"errors"

	"github.com/relais-edge/relais/internal/edge/cache/purge"
	"github.com/relais-edge/relais/internal/edge/cache/store"
	"github.com/relais-edge/relais/internal/stage"
)

// keep stores an object as the newest for its requests, if it is still current when that takes effect.
func (s *Stage) keep(h store.Hash, key []byte, o *object, current func() bool) {
	if unkept(s.shelve(h, key, o, current)) {
		s.m.unstored.Inc()
	}
	s.endPass(h, key)
	s.stores.move(h)
}

// settle stores an object where it belongs, and in no other place.
func (s *Stage) settle(x *stage.Exchange, was store.Hash, key []byte, to *home, o *object, current func() bool) {
	if to.rule != nil {
		s.learn(x, to.rule)
	}
	s.keep(to.hash, to.key, o, current)
	if to.hash != was {
		s.clear(was, key, false)
	}
}

// forget removes an object that the origin no longer stands by.
func (s *Stage) forget(key []byte, o *object) {
	if o.hold != nil {
		s.tiers.Delete(o.hold.hash, key, s.cfg.Clock().UnixNano())
	}
}

// clear forgets all that is stored under a key; changed says that it is no longer true.
func (s *Stage) clear(h store.Hash, key []byte, changed bool) {
	mu := s.pointing(h)
	mu.Lock()
	had := s.tiers.Delete(h, key, s.cfg.Clock().UnixNano())
	mu.Unlock()
	if s.notes.Get(h, key) != nil {
		s.noteThat(h, key, func(n *note) { *n = note{search: n.search} })
	}
	if had && changed {
		s.m.invalid.Inc()
	}
}

// keepPart stores a part: with those of the same representation that are stored, where a strong
// validator says that they are (RFC 9111 section 3.4), else in the place of what is stored. What is
// put together, at most limit bytes, is so outside of the store's locks, and anew when somebody else was faster.
func (s *Stage) keepPart(m *purge.Mark, to *home, o *object, limit int64, current func() bool) {
	for try := 0; ; try++ {
		old := s.same(to.hash, to.key, o)
		n := withPart(old, o, limit, m.Last())
		var was store.Hash
		var id uint64
		if old != nil {
			was, id = old.hold.hash, old.id
			old.hold.release()
		}
		if n == nil {
			return
		}
		lost := false
		err := s.shelve(to.hash, to.key, n, func() bool {
			if id != 0 && try < 3 {
				var r store.Ref
				defer r.Release()
				if lost = !s.tiers.Peek(was, to.key, &r) || headID(r.Head()) != id; lost {
					return false
				}
			}
			return current()
		})
		if lost {
			continue
		}
		if err == nil {
			s.m.parts.Inc()
		} else if !errors.Is(err, store.ErrOutdated) {
			s.m.unstored.Inc()
		}
		s.endPass(to.hash, to.key)
		s.stores.move(to.hash)
		return
	}
}
