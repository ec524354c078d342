package netlab

import (
	"hash/fnv"
	"math/rand/v2"
	"time"
)

// link is one direction of a link. It knows no clock: times are nanoseconds since the lab began.
type link struct {
	profile Profile
	key     uint64
	loss    *rand.Rand // one number a packet, so that who is lost depends on nothing but its place in the row
	fate    *rand.Rand // two numbers a packet: its detour, its double
	burst   bool       // in a burst of losses
	busy    int64      // when the last byte that waits for the rate has left
	inside  int        // packets on the way, doubles included
	limit   int        // of inside
	entered uint64
	left    uint64 // the highest place in the row of those that arrived
	counted Counters
}

func newLink(seed uint64, name string, limit int, p Profile) *link {
	h := fnv.New64a()
	_, _ = h.Write([]byte(name))
	key := h.Sum64()
	return &link{
		profile: p, key: seed ^ key, limit: limit,
		loss: rand.New(rand.NewPCG(seed, key)),
		fate: rand.New(rand.NewPCG(seed, ^key)),
	}
}

// set gives the link another profile, as if another line had been laid: what is on the old one arrives as it would
// have, and may be overtaken.
func (l *link) set(p Profile) {
	if p.Rate != l.profile.Rate {
		l.busy = 0
	}
	l.profile = p
}

// admit takes a packet in, or not. It says when the packet is due at the other end and whether it is doubled.
func (l *link) admit(now int64, size int, cut bool) (due int64, twice, ok bool) {
	p := &l.profile
	l.counted.Packets++
	l.counted.Bytes += uint64(size)
	lost := l.loses()
	detour := l.fate.Float64() < p.Reorder
	twice = l.fate.Float64() < p.Duplicate
	if cut {
		l.counted.Cut++
		return 0, false, false
	}
	if l.inside >= l.limit {
		l.counted.Full++
		return 0, false, false
	}
	due = now
	if p.Rate > 0 {
		start := max(now, l.busy)
		if waiting := float64(start-now) * float64(p.Rate) / 8e9; int(waiting)+size > p.queue() {
			l.counted.Full++
			return 0, false, false
		}
		l.busy = start + int64(size)*8*int64(time.Second)/p.Rate
		due = l.busy
	}
	if lost { // after the queue: a packet that gets lost on the wire was sent
		l.counted.Lost++
		return 0, false, false
	}
	due += int64(p.Delay)
	if p.Jitter > 0 {
		due += l.drift(due)
	}
	if detour {
		due += int64(p.detour())
	}
	return due, twice, true
}

// loses says whether the next packet of the row is lost, by Gilbert's model: the good state loses none, the bad one all.
func (l *link) loses() bool {
	p, r := &l.profile, l.loss.Float64()
	switch {
	case p.Loss >= 1:
		return true
	case p.Burst <= 1 || p.Loss == 0:
		l.burst = false
		return r < p.Loss
	case l.burst:
		l.burst = r >= 1/p.Burst
	default:
		l.burst = r < p.Loss/(p.Burst*(1-p.Loss))
	}
	return l.burst
}

// drift is the jitter at a moment: a line between random points. It falls by a quarter of the time that passes at most,
// so that no packet overtakes another by it.
func (l *link) drift(at int64) int64 {
	jitter := int64(l.profile.Jitter)
	period := max(4*jitter, int64(10*time.Millisecond))
	k, in := at/period, at%period
	a, b := l.point(uint64(k)), l.point(uint64(k)+1)
	share := float64(in) / float64(period)
	return int64((a + (b-a)*share) * float64(jitter))
}

func (l *link) point(k uint64) float64 {
	var g rand.PCG
	g.Seed(l.key, k)
	return float64(g.Uint64()>>11) / (1 << 53)
}

// enter gives a packet its place in the row.
func (l *link) enter() (place uint64) {
	l.inside++
	l.entered++
	return l.entered
}

// leave counts a packet as reordered when one that came after it left before (RFC 4737 section 3.2).
func (l *link) leave(place uint64) {
	l.inside--
	if place < l.left {
		l.counted.Reordered++
		return
	}
	l.left = place
}
