package learn

import (
	"math/bits"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Site is what is remembered of one site.
type Site struct {
	book   *Book
	active atomic.Int32 // demotions, so that requests need no lock where there are none

	mu       sync.Mutex
	findings map[Key]*finding
	visits   map[uint64]*visit
	orders   uint64
	gone     bool // the site is no longer served
}

// finding is a rule that hit visitors with a basket in one place.
type finding struct {
	key         Key
	first, last time.Time
	hits        uint64 // requests, of everybody since the finding was made
	denied      uint64 // of these, requests that the score refused, or would have
	score       int    // the most that the rule added
	// Visitors with a basket, in this window and the one before it.
	baskets, basketsBefore int
	turned                 time.Time
	buyers                 []buyer
	shapes                 []shape
	networks               sketch // of everybody who was hit
	// demoted is until when the rule only logs here; zero when it does not. Since is after when
	// buyers count for the next demotion, or for the renewal of the one in force.
	demoted, since time.Time
}

// shape is what values of the target looked like that the rule matched.
type shape struct {
	text   string
	hash   uint64
	buyers int       // who brought it and ordered
	last   time.Time // that it was brought
}

// buyer is a visitor who ordered after a hit.
type buyer struct {
	visitor, network, order uint64
	at                      time.Time
	denied                  bool
	shapes                  []uint64 // of what was hit; nil where something had none
}

// visit is a visitor with a basket who was hit and has not ordered yet.
type visit struct {
	last time.Time
	hits []visitHit
}

type visitHit struct {
	f      *finding
	denied bool
	bare   bool // a value had no shape, or there were too many
	at     time.Time
	shapes []uint64
}

// sketch counts distinct numbers roughly (linear counting); it is full at some 1,400.
type sketch [4]uint64

func (s *sketch) add(h uint64) { s[h>>6&3] |= 1 << (h & 63) }

// about is the estimate.
func (s *sketch) about() int {
	set := 0
	for _, w := range s {
		set += bits.OnesCount64(w)
	}
	return linearCount[set]
}

// linearCount is -256 ln(1 - n/256), rounded, for n bits set.
var linearCount = makeLinearCount()

// drop forgets all, for good.
func (s *Site) drop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.book.findings.Add(-int64(len(s.findings)))
	s.book.visits.Add(-int64(len(s.visits)))
	s.book.demoted.Add(-int64(s.active.Swap(0)))
	s.findings, s.visits, s.gone = map[Key]*finding{}, map[uint64]*visit{}, true
}

func (s *Site) empty() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.findings) == 0
}

// Hit remembers that rules hit a request of v at a place. Denied says that its score reached the
// threshold, also when it went on in shadow.
func (s *Site) Hit(now time.Time, v Visitor, at Place, denied bool, hits []Hit) {
	if len(hits) > MaxHits {
		hits = hits[:MaxHits]
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.gone {
		return
	}
	if !v.Basket {
		for _, h := range hits { // counts, and makes nothing
			if f := s.findings[at.key(&h)]; f != nil {
				f.hit(now, v, denied, h.Score)
			}
		}
		return
	}
	w := s.visit(now, v.ID)
	for _, h := range hits {
		if !usable(h.Target) {
			continue
		}
		f := s.finding(now, at.key(&h))
		if f == nil || w == nil {
			s.book.counters[evLost].Inc()
			continue
		}
		s.book.counters[evHit].Inc()
		f.hit(now, v, denied, h.Score)
		if i := w.add(now, v.ID, f, denied); i != nil {
			i.looked(now, h.Shapes)
		}
	}
}

func (f *finding) hit(now time.Time, v Visitor, denied bool, score int) {
	f.last = now
	f.hits++
	if denied {
		f.denied++
	}
	f.score = max(f.score, score)
	f.networks.add(v.Network)
}

// add notes a hit in a visit; nil when there is no room.
func (w *visit) add(now time.Time, id uint64, f *finding, denied bool) *visitHit {
	w.last = now
	for i := range w.hits {
		if h := &w.hits[i]; h.f == f {
			h.at, h.denied = now, h.denied || denied
			return h
		}
	}
	if len(w.hits) >= MaxHits {
		return nil
	}
	w.hits = append(w.hits, visitHit{f: f, denied: denied, at: now})
	if !slices.ContainsFunc(f.buyers, func(b buyer) bool { return b.visitor == id }) {
		f.turn(now)
		f.baskets++
	}
	return &w.hits[len(w.hits)-1]
}

// turn begins a new window of baskets, so that they are forgotten as buyers are.
func (f *finding) turn(now time.Time) {
	switch d := now.Sub(f.turned); {
	case d > 2*Window:
		f.baskets, f.basketsBefore, f.turned = 0, 0, now
	case d > Window:
		f.baskets, f.basketsBefore, f.turned = 0, f.baskets, f.turned.Add(Window)
	}
}

// visit finds or makes the visit of a visitor; nil when there is no room in the book.
func (s *Site) visit(now time.Time, id uint64) *visit {
	w := s.visits[id]
	if w != nil {
		if now.Sub(w.last) > Visit {
			w.hits = w.hits[:0]
		}
		return w
	}
	if len(s.visits) >= MaxVisits {
		s.dropVisit(now)
	}
	if s.book.visits.Add(1) > AllVisits {
		s.book.visits.Add(-1)
		return nil
	}
	w = &visit{last: now}
	s.visits[id] = w
	return w
}

// dropVisit makes room: those whose time is over go, else one by chance.
func (s *Site) dropVisit(now time.Time) {
	one, seen := uint64(0), 0
	for id, w := range s.visits { // in an order that nobody knows
		if one = id; now.Sub(w.last) > Visit {
			break
		}
		if seen++; seen >= 32 {
			s.book.counters[evLost].Inc()
			break
		}
	}
	delete(s.visits, one)
	s.book.visits.Add(-1)
}

// finding finds or makes a finding; nil when there is no room.
func (s *Site) finding(now time.Time, k Key) *finding {
	if f := s.findings[k]; f != nil {
		return f
	}
	if len(s.findings) >= MaxFindings && !s.dropFinding(now) {
		return nil
	}
	if s.book.findings.Add(1) > AllFindings {
		s.book.findings.Add(-1)
		return nil
	}
	f := &finding{key: k, first: now, turned: now}
	s.findings[k] = f
	return f
}

// dropFinding makes room: one without buyers, or of which nothing was heard for the window. It
// is the one heard of longest ago.
func (s *Site) dropFinding(now time.Time) bool {
	var old *finding
	for _, f := range s.findings {
		f.prune(now)
		if (len(f.buyers) == 0 || now.Sub(f.last) > Window) && f.demoted.IsZero() && (old == nil || f.last.Before(old.last)) {
			old = f
		}
	}
	if old == nil {
		return false
	}
	if now.Sub(old.last) <= Window {
		s.book.counters[evLost].Inc()
	}
	delete(s.findings, old.key)
	s.book.findings.Add(-1)
	return true
}

// prune forgets the buyers and baskets of long ago.
func (f *finding) prune(now time.Time) {
	f.turn(now)
	keep := f.buyers[:0]
	for _, b := range f.buyers {
		if now.Sub(b.at) <= Window {
			keep = append(keep, b)
		}
	}
	f.buyers = keep
	f.shapes = slices.DeleteFunc(f.shapes, func(s shape) bool { return now.Sub(s.last) > Window })
}

// Order remembers that v has ordered. Order is what the origin called it (Order), 0 when it was
// not asked to; without it nothing is demoted.
func (s *Site) Order(now time.Time, v Visitor, order uint64, t Terms) {
	if !v.Basket {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.orders++
	s.book.counters[evOrder].Inc()
	w := s.visits[v.ID]
	if w == nil {
		return
	}
	delete(s.visits, v.ID)
	s.book.visits.Add(-1)
	for _, h := range w.hits {
		if now.Sub(h.at) > Visit || s.findings[h.f.key] != h.f {
			continue
		}
		h.f.prune(now)
		b := buyer{visitor: v.ID, network: v.Network, order: order, at: now, denied: h.denied}
		if !h.bare {
			b.shapes = h.shapes
		}
		if h.f.bought(b) {
			h.f.bring(now, h.shapes)
			s.book.counters[evBuyer].Inc()
		}
		s.consider(now, h.f, order, t)
	}
}

// bought adds a buyer, if it is new in all that tells buyers apart.
func (f *finding) bought(b buyer) bool {
	for i := range f.buyers {
		o := &f.buyers[i]
		switch {
		case o.visitor == b.visitor && o.network == b.network:
			// The same one again: it is still about. An order that was told already is no order.
			if o.order != b.order || b.order == 0 {
				o.at, o.denied, o.order = b.at, o.denied || b.denied, b.order
			}
			return false
		case o.visitor == b.visitor, o.network == b.network, b.order != 0 && o.order == b.order:
			return false
		}
	}
	if len(f.buyers) >= MaxBuyers {
		f.buyers = append(f.buyers[:0], f.buyers[1:]...)
	}
	f.buyers = append(f.buyers, b)
	return true
}

// behind counts the buyers after an instant; refused are those whose request was denied, with an
// order that the origin named.
func (f *finding) behind(since time.Time) (all, refused int) {
	for i := range f.buyers {
		if b := &f.buyers[i]; b.at.After(since) {
			all++
			if b.denied && b.order != 0 {
				refused++
			}
		}
	}
	return all, refused
}

// share of the visitors with a basket who were hit and ordered.
func (f *finding) share() float64 {
	n := f.baskets + f.basketsBefore
	if n == 0 {
		return 0
	}
	return min(1, float64(len(f.buyers))/float64(n))
}
