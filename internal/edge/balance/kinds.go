package balance

import (
	"bytes"
	"slices"
	"sync/atomic"

	"github.com/relais-edge/relais/internal/stage"
)

// Requests are not alike: an image takes a millisecond where a page takes a second. Whoever compares the times of
// two origins, or of today and a moment ago, sees what was asked for and not how the origins are. So answers are told
// apart by the kind of their request, and only their difference from what is usual for the kind counts.
const (
	kindCount   = 32
	kindKnown   = 8     // answers without which nothing is said of a kind
	kindSettled = 48    // answers of the kind that others are shifted to, before limits are looked for
	settleLooks = 25    // looks with answers, after which that is no longer waited for
	kindReach   = 256   // answers that a kind's time reaches back
	shareReach  = 300.0 // looks that a kind's share of the answers reaches back: a minute
	mixReach    = 5.0   // looks that the present mix reaches back: a second
	// The kind that all times are shifted to is the slowest one, but for those that are a tenth of the answers
	// together. Towards a quicker one times would become negative, and nothing would be seen of their waiting.
	rareKinds = 0.10
	kindTime  = 1 << 35 // ns: what an answer may count at most where origins are compared
)

// kindOf is a number below kindCount for requests that are probably alike: of one route, all safe or none,
// and of one extension, or one first segment of the path.
func kindOf(x *stage.Exchange) uint8 {
	h := uint64(fnvOffset)
	if x.Route != nil {
		h = (h ^ uint64(x.Route.Index)) * fnvPrime
	}
	if x.Out.Method.Safe() {
		h = (h ^ 1) * fnvPrime
	}
	for _, c := range telling(x.Path) {
		h = (h ^ uint64(c)) * fnvPrime
	}
	return uint8(mix(h) >> 32 % kindCount)
}

// telling is the part of a path that says most of what kind it is.
func telling(path []byte) []byte {
	const longest = 6 // of an extension, with its dot
	if end := path[max(0, len(path)-longest):]; len(end) > 0 {
		if i := bytes.LastIndexByte(end, '.'); i >= 0 && bytes.IndexByte(end[i:], '/') < 0 {
			return end[i:]
		}
	}
	path = path[:min(len(path), 32)]
	if len(path) > 1 {
		if i := bytes.IndexByte(path[1:], '/'); i >= 0 {
			return path[:i+1]
		}
	}
	return path
}

// kind is what is known of the requests of one kind in a tier.
type kind struct {
	count, sum atomic.Uint64 // answers of origins that are not slow, and their time in ns
	usual      atomic.Int64  // ns; 0 while it is not known
	shift      atomic.Int64  // ns; makes its times comparable with those of the others
	_          [32]byte
}

// kinds are those of a tier. What is not atomic is guarded by Pool.mu.
type kinds struct {
	of    [kindCount]kind
	past  [kindCount]kindPast
	to    int     // the kind that the others are shifted to
	begun bool    // there is one
	seen  float64 // looks
	extra float64 // ns: by how much the present mix usually takes longer than that of the last minute
}

type kindPast struct {
	count, sum uint64  // at the last look
	n          float64 // answers in usual
	usual      float64 // ns, at ease
	share      float64 // of the answers of late
}

// answered takes in an answer of an origin that is not slow.
func (k *kind) answered(took int64) {
	k.count.Add(1)
	k.sum.Add(uint64(took))
}

// look takes in the answers since the last look. Calm says that they did not wait; otherwise they waited for so many ns,
// and only the time of new kinds is taken from them. Moved is by how much times count as longer on average from now on, though
// nothing takes longer: another kind is the one that they are shifted to, or more is known of what the kinds take.
func (k *kinds) look(calm bool, wait float64) (moved float64) {
	var n, mean [kindCount]float64
	total := 0.0
	for i := range k.of {
		p := &k.past[i]
		count, sum := k.of[i].count.Load(), k.of[i].sum.Load()
		if n[i] = float64(count - p.count); n[i] > 0 {
			mean[i] = float64(sum-p.sum) / n[i]
		}
		p.count, p.sum = count, sum
		total += n[i]
	}
	if total == 0 {
		return 0
	}
	k.seen = min(k.seen+1, shareReach)
	for i := range k.past {
		k.past[i].share += (n[i]/total - k.past[i].share) / k.seen
	}
	now, known, drift := 0.0, 0.0, 0.0
	for i := range k.past {
		p := &k.past[i]
		was, settled := p.usual, p.n >= kindKnown
		if n[i] == 0 {
			continue
		}
		switch {
		case calm:
			p.learn(n[i], mean[i])
		case p.n < kindKnown:
			p.learn(n[i], max(0, mean[i]-wait))
		}
		if by := p.usual - was; k.begun && settled {
			drift -= p.share * by
			if i == k.to {
				drift += by
			}
		}
		if p.n >= kindKnown {
			now, known = now+n[i]*p.usual, known+n[i]
		}
	}
	if known > 0 {
		k.extra += (now/known - k.mean() - k.extra) / min(k.seen, mixReach)
	}
	moved = k.choose()
	k.publish()
	return moved + drift
}

// settled says that enough is known of the kinds for times to be compared.
func (k *kinds) settled() bool { return k.begun && k.past[k.to].n >= kindSettled }

// mean is what requests of the last minute usually take, in ns.
func (k *kinds) mean() float64 {
	sum, share := 0.0, 0.0
	for i := range k.past {
		if p := &k.past[i]; p.n >= kindKnown {
			sum, share = sum+p.share*p.usual, share+p.share
		}
	}
	return sum / max(share, 1e-9)
}

// shifted is by how much times count as longer, on average, in ns.
func (k *kinds) shifted() float64 {
	if !k.begun {
		return 0
	}
	return max(0, k.past[k.to].usual-k.mean())
}

func (p *kindPast) learn(n, mean float64) {
	p.usual += n / (p.n + n) * (mean - p.usual)
	p.n = min(p.n+n, kindReach)
}

// choose finds the kind that the others are shifted to. It stays as long as it will do, as each change is a
// small doubt about all times.
func (k *kinds) choose() (moved float64) {
	var list [kindCount]int
	known := list[:0]
	for i := range k.past {
		if k.past[i].n >= kindKnown {
			known = append(known, i)
		}
	}
	slices.SortFunc(known, func(a, b int) int {
		if k.past[a].usual > k.past[b].usual {
			return -1
		}
		return 1
	})
	best, share, slower := k.to, 0.0, 0.0
	if len(known) == 0 {
		return 0
	}
	for _, i := range known {
		if share < rareKinds {
			best = i
		}
		share += k.past[i].share
		if i == k.to {
			slower = share
		}
	}
	if k.begun {
		was, is := k.past[k.to].usual, k.past[best].usual
		if is < 1.5*was && was < 1.5*is || slower > rareKinds/2 && slower < 2.5*rareKinds {
			return 0
		}
		moved = is - was
	}
	k.to, k.begun = best, true
	return moved
}

func (k *kinds) publish() {
	for i := range k.of {
		if p := &k.past[i]; p.n >= kindKnown {
			k.of[i].shift.Store(int64(k.past[k.to].usual - p.usual))
			k.of[i].usual.Store(max(1, int64(p.usual)))
		}
	}
}

// weigh adds an answer to what an origin's pace is made of: nothing of a kind of which not enough is known. Each counts by
// what is usual for it, so that files that wait for a moment in a queue do not hide how long pages take.
func (o *origin) weigh(took, usual int64) {
	if usual == 0 {
		return
	}
	took, usual = min(took, kindTime)>>weightUnit, min(usual, kindTime)
	o.took.Add(uint64(took) * uint64(usual>>weightUnit))
	o.due.Add(uint64(usual))
	o.squares.Add(uint64(usual>>weightUnit) * uint64(usual>>weightUnit))
}

// weightUnit is the unit of products and squares, in bits of a ns: small enough for files, and they do not overflow.
const weightUnit = 12
