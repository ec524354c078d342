package balance

import (
	"math/bits"
	"slices"
)

// hashTable leads from a hash to members, in an order of their own for each hash: one of the two. It does
// not change.
type hashTable struct {
	maglev *maglev
	ring   *ring
}

// begin is the place of a hash, next the place after one that led to member i.
func (t *hashTable) begin(hash uint64) uint64 {
	if h := mix(hash); t.ring == nil {
		return h
	} else {
		return uint64(t.ring.find(h))
	}
}

func (t *hashTable) next(at uint64, i int) uint64 {
	if t.ring == nil {
		return mix(at)
	}
	return uint64(t.ring.after(int(at), i))
}

func (t *hashTable) member(at uint64) int {
	if t.ring == nil {
		place, _ := bits.Mul64(at, uint64(len(t.maglev.places)))
		return int(t.maglev.places[place])
	}
	return t.ring.points[at].member()
}

const (
	// ringPoints is how many points the heaviest member has.
	ringPoints = 160
	// maxRing bounds the points of a ring.
	maxRing = 1 << 20
)

// ring is consistent hashing as Karger and others made it (STOC 1997): each member has points on a circle
// by its weight, and a hash leads to the next point. A member that comes or goes moves its own keys and no
// others. It is made of addresses, so that every edge has the same.
type ring struct {
	points []point
	first  []uint32 // by the upper bits of a hash: the first point that may be at or after it
	shift  uint
	per    int64 // points of the heaviest member
	heavy  int64 // its weight
}

// point is a place on the circle, in the upper 48 bits, and the member there: in a word, so that a ring stays
// in the processor's cache.
type point uint64

const pointMember = 1<<16 - 1

func (p point) member() int { return int(p & pointMember) }

func newRing(members []member, old *ring, before []member) *ring {
	if len(members) == 0 {
		return nil
	}
	r := &ring{}
	for _, m := range members {
		r.heavy = max(r.heavy, m.weight)
	}
	r.per = min(ringPoints, max(1, maxRing/int64(len(members))))
	if old == nil || old.per != r.per || old.heavy != r.heavy || !r.change(members, old, before) {
		for i := range members {
			r.points = r.add(r.points, &members[i], i)
		}
		slices.Sort(r.points)
	}
	r.index()
	return r
}

// add appends the points of member i.
func (r *ring) add(to []point, m *member, i int) []point {
	h := hashString(m.o.address)
	n := max(1, m.weight*r.per/r.heavy)
	for k := range n {
		to = append(to, point(mix(h+uint64(k)*0x9e3779b97f4a7c15)&^pointMember|uint64(i)))
	}
	return to
}

// change makes the ring of the one before, when few members came or went: their points are merged in, and
// nothing is sorted but these. False when it is no less work to begin anew.
func (r *ring) change(members []member, old *ring, before []member) bool {
	was := make(map[*origin]int, len(before))
	for i, m := range before {
		was[m.o] = i
	}
	number := make([]int, len(before)) // of a member before: its number now, and one; 0 when it is gone
	var fresh []point
	came := 0
	for i := range members {
		m := &members[i]
		if j, ok := was[m.o]; ok && before[j].weight == m.weight {
			number[j] = i + 1
			continue
		}
		came++
		if came > len(members)/8+1 {
			return false
		}
		fresh = r.add(fresh, m, i)
	}
	slices.Sort(fresh)
	r.points = make([]point, 0, len(old.points)+len(fresh))
	for _, p := range old.points {
		n := number[p.member()]
		if n == 0 {
			continue
		}
		p = p&^pointMember | point(n-1)
		for len(fresh) > 0 && fresh[0] < p {
			r.points, fresh = append(r.points, fresh[0]), fresh[1:]
		}
		r.points = append(r.points, p)
	}
	r.points = append(r.points, fresh...)
	return true
}

// index makes the way to a point short: one or two points for each value of the upper bits.
func (r *ring) index() {
	n := max(1, bits.Len(uint(len(r.points)))-1)
	r.shift = uint(64 - n)
	r.first = make([]uint32, 1<<n)
	i := 0
	for b := range r.first {
		for i < len(r.points) && uint64(r.points[i])>>r.shift < uint64(b) {
			i++
		}
		r.first[b] = uint32(i)
	}
}

// find returns the first point at or after a hash.
func (r *ring) find(h uint64) int {
	i := int(r.first[h>>r.shift])
	for least := point(h &^ pointMember); i < len(r.points) && r.points[i] < least; {
		i++
	}
	if i == len(r.points) {
		return 0
	}
	return i
}

// after returns the next point of another member than i; at itself when there is no other near.
func (r *ring) after(at, i int) int {
	for range ringPoints {
		if at++; at == len(r.points) {
			at = 0
		}
		if r.points[at].member() != i {
			break
		}
	}
	return at
}
