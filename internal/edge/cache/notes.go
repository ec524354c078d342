package cache

import (
	"bytes"
	"slices"
	"time"

	"github.com/relais-edge/relais/internal/edge/cache/store"
	"github.com/relais-edge/relais/internal/stage"
)

// note is what is known of a key and is no answer. It does not change. Notes are on the heap, few, and gone with the
// process: each is a hint but for the rule of a path, without which nothing under it is found.
type note struct {
	// search is what is kept under a path.
	search *searchRule
	// passUntil says that answers under this key could not be stored, so that requests do not
	// wait for each other; in nanoseconds since 1970.
	passUntil int64
	// retryAt is when the origin may be asked again after it failed to validate the answer that came at failed, in
	// nanoseconds since 1970; full says that it did not fail, but that there was no room.
	retryAt, failed int64
	full            bool
	// variants are those stored of late, the newest first, for people.
	variants []variant
}

// variant names one.
type variant struct {
	hash               store.Hash
	route              string
	selector, selected []byte
}

// noteCost is what a note costs beside its key.
const noteCost = 112

func (n *note) cost() int64 {
	c := int64(noteCost)
	if n.search != nil {
		c += int64(len(n.search.text)) + 64*int64(len(n.search.Names))
	}
	for i := range n.variants {
		c += 96 + int64(len(n.variants[i].selector)+len(n.variants[i].selected))
	}
	return c
}

// noteThat changes the note of a key.
func (s *Stage) noteThat(h store.Hash, key []byte, change func(n *note)) {
	s.notes.Update(h, key, func(old *note) (*note, int64) {
		n := &note{}
		if old != nil {
			*n = *old
		}
		change(n)
		if n.search == nil && n.passUntil == 0 && n.retryAt == 0 && len(n.variants) == 0 {
			return nil, 0
		}
		return n, n.cost()
	})
}

// passUntil is until when requests for a key do not wait for each other, or 0.
func (s *Stage) passUntil(h store.Hash, key []byte) int64 {
	if n := s.notes.Get(h, key); n != nil {
		return n.passUntil
	}
	return 0
}

// endPass takes markPass back, so that the next request fetches for all.
func (s *Stage) endPass(h store.Hash, key []byte) {
	if s.passUntil(h, key) != 0 {
		s.noteThat(h, key, func(n *note) { n.passUntil = 0 })
	}
}

// markPass notes that answers under the key cannot be stored.
func (s *Stage) markPass(h store.Hash, key []byte) {
	until := s.cfg.Clock().Add(passFor).UnixNano()
	s.noteThat(h, key, func(n *note) { n.passUntil = until })
}

// failed notes that the origin could not be asked about o; full, that this was for want of room.
func (s *Stage) failed(key []byte, o *object, now time.Time, full bool) {
	if o.hold == nil {
		return
	}
	s.noteThat(o.hold.hash, key, func(n *note) {
		n.retryAt, n.failed, n.full = now.Add(retryAfter).UnixNano(), o.Came, full
	})
}

// resting says whether the origin of o failed only just now, and whether that was for want of room.
func (s *Stage) resting(key []byte, o *object, now time.Time) (rests, full bool) {
	if o.hold == nil {
		return false, false
	}
	n := s.notes.Get(o.hold.hash, key)
	if n == nil || n.failed != o.Came || now.UnixNano() >= n.retryAt {
		return false, false
	}
	return true, n.full
}

// learn notes the rule of x's path.
func (s *Stage) learn(x *stage.Exchange, r *searchRule) {
	key := appendPath(nil, x, x.In.Path())
	h := s.tiers.HashOf(key)
	if n := s.notes.Get(h, key); n == nil || n.search != r {
		s.noteThat(h, key, func(n *note) { n.search = r })
	}
	s.searches.Store(true)
}

// noteVariant notes what was stored under a key; one that is for all requests is alone.
func (s *Stage) noteVariant(h store.Hash, key []byte, o *object, generation uint64, varies bool) {
	n := s.notes.Get(h, key)
	if !varies {
		if n != nil && len(n.variants) > 0 {
			s.noteThat(h, key, func(n *note) { n.variants = nil })
		}
		return
	}
	v := variant{s.tiers.Derive(h, variantID(nil, generation, o.route, o.selector, o.selected)), o.route, o.selector, o.selected}
	if n != nil && len(n.variants) > 0 && n.variants[0].hash == v.hash {
		return
	}
	v.selector, v.selected = bytes.Clone(v.selector), bytes.Clone(v.selected)
	s.noteThat(h, key, func(n *note) {
		list := append(make([]variant, 0, min(len(n.variants)+1, maxVariants)), v)
		for _, w := range n.variants {
			if w.hash != v.hash && len(list) < maxVariants {
				list = append(list, w)
			}
		}
		n.variants = slices.Clip(list)
	})
}
