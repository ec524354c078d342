package flood

import (
	"math"
	"sync/atomic"
	"time"
)

// tickEvery is how often a detector looks at what came.
const tickEvery = 500 * time.Millisecond

// robust follows the middle of a value and how far it strays, and is not moved by what strays far.
type robust struct{ Mean, Dev, Seen float64 }

// settled is after how many values a robust is cut off from what strays.
const settled = 20

// learn takes a value; half is after how many values half of what is known is of later ones.
func (r *robust) learn(v, half float64) {
	if r.Seen >= settled {
		far := 4*r.Dev + math.Abs(r.Mean)/20
		v = min(max(v, r.Mean-far), r.Mean+far)
	}
	r.Seen++
	k := max(1/r.Seen, 1-math.Exp2(-1/half))
	r.Dev += k * (math.Abs(v-r.Mean) - r.Dev)
	if r.Seen == 1 {
		r.Dev = 0
	}
	r.Mean += k * (v - r.Mean)
}

// high is what a value does not exceed as long as all is as usual.
func (r *robust) high() float64 { return r.Mean + 4*r.Dev }

// mixture counts requests in cells along the dimensions, the older the less.
type mixture struct {
	cell [dimensions][cells]float32
	all  [dimensions]float64
}

// add takes a window's counts after what was there before has faded.
func (m *mixture) add(w *counts, keep float64) {
	for d := range m.cell {
		sum := 0.0
		for i := range m.cell[d] {
			v := m.cell[d][i]*float32(keep) + float32(w[d][i])
			if v < 1e-3 {
				v = 0
			}
			m.cell[d][i] = v
			sum += float64(v)
		}
		m.all[d] = sum
	}
}

// share is a cell's part of its dimension.
func (m *mixture) share(d, i int) float64 {
	if m.all[d] == 0 {
		return 0
	}
	return float64(m.cell[d][i]) / m.all[d]
}

// counts are what came in one window.
type counts [dimensions][cells]uint32

// window counts while requests are served.
type window [dimensions][cells]atomic.Uint32

// take empties the window into c.
func (w *window) take(c *counts) {
	for d := range w {
		for i := range w[d] {
			c[d][i] = 0
			if w[d][i].Load() != 0 {
				c[d][i] = w[d][i].Swap(0)
			}
		}
	}
}

const (
	// recentKeep is what is left of the mix of now after a tick: half after two seconds.
	recentKeep = 0.84
	// leastRecent requests are needed to say how the mix is, and leastLearned to have learned one.
	leastRecent, leastLearned = 40, 1000
	// usualHalf is how many ticks the usual distance reaches back: ten minutes.
	usualHalf = 1200
	// rateHalf is the same for the rate: five minutes.
	rateHalf = 600
	// faint is what counts as nothing of a distance beside what is usual: sampling alone.
	faint = 0.03
	// epsilon is the share that a cell is given which nobody was seen in, besides that of doubt requests.
	epsilon, doubt = 0.0005, 2.0
)

// baseline is what is known of a site in calm.
type baseline struct {
	mix     mixture
	usual   [dimensions]robust // distance of a calm tick's mix
	rate    robust             // requests a second
	pages   robust             // the same, but for files
	season  [7 * 24]float32    // requests a second, by the hour of the week (UTC); 0 for not known
	latency robust             // of origins, in seconds
	ticks   float64            // calm ones that were learned
}

// learn takes a calm tick.
func (b *baseline) learn(c *counts, distance *[dimensions]float64, rate, pages, latency float64, now time.Time) {
	b.ticks++
	// Half of what is known is of the last half hour; at first, of all there is.
	b.mix.add(c, math.Exp2(-1/3600.0))
	for d := range distance {
		if distance[d] >= 0 {
			b.usual[d].learn(distance[d], usualHalf)
		}
	}
	b.rate.learn(rate, rateHalf)
	b.pages.learn(pages, rateHalf)
	if latency > 0 {
		b.latency.learn(latency, rateHalf)
	}
	h := &b.season[hourOfWeek(now)]
	if *h == 0 {
		*h = float32(rate)
	}
	*h += (float32(rate) - *h) / 7200 // an hour's ticks
}

func hourOfWeek(t time.Time) int {
	t = t.UTC()
	return int(t.Weekday())*24 + t.Hour()
}

// expected is how many requests a second are no surprise now: what came lately, or at this hour of the week.
func (b *baseline) expected(now time.Time) float64 {
	return max(b.rate.Mean+2*b.rate.Dev, float64(b.season[hourOfWeek(now)]))
}

// more says whether more comes than is expected: of all requests, or of those that are no files.
func (b *baseline) more(rate, pages float64, now time.Time) bool {
	return rate >= moreThanExpected*b.expected(now) || pages >= moreThanExpected*b.pages.Mean+2*b.pages.Dev
}

// rates are how many requests come a second, as a mean over some seconds: all, and those that are no files.
func (m *mixture) rates() (all, pages float64) {
	const perSecond = (1 - recentKeep) / (float64(tickEvery) / float64(time.Second))
	for i := 0; i < cells; i += 2 { // the last bit says file
		pages += float64(m.cell[onStanding][i])
	}
	return m.all[onTarget] * perSecond, pages * perSecond
}

// knows says whether there is enough to compare with.
func (b *baseline) knows(warmUp time.Duration) bool {
	return b.mix.all[onTarget] >= leastLearned && b.ticks*tickEvery.Seconds() >= warmUp.Seconds()
}

// distances are how far the mix of now is from the learned one along each dimension: the share of requests
// in cells beyond their learned share (total variation). It is -1 where too few came to say.
func (b *baseline) distances(now *mixture) (out [dimensions]float64) {
	for d := range out {
		if now.all[d] < leastRecent || b.mix.all[d] < leastRecent {
			out[d] = -1
			continue
		}
		for i := range cells {
			if suspicious(d, i) {
				out[d] += max(0, now.share(d, i)-b.mix.share(d, i))
			}
		}
	}
	return out
}

// excess is what of a distance is more than is usual for the site.
func (b *baseline) excess(d int, distance float64) float64 {
	if distance < 0 {
		return 0
	}
	return max(0, distance-b.usual[d].high()-faint)
}

// scores are how much a cell speaks for an attack, in sixteenths of a bit: the logarithm of its share now
// over its learned share.
type scores [scored][cells]int8

const (
	bit      = 16
	mostBits = 4
	lessBits = -5
)

// scores makes the table for the mix of now. A dimension in which nothing is unusual says nothing.
func (b *baseline) scores(now *mixture, excess *[dimensions]float64) *scores {
	s := new(scores)
	for d := range s {
		if excess[d] <= faint {
			continue
		}
		e := epsilon + doubt/max(min(now.all[d], b.mix.all[d]), 1)
		for i := range cells {
			v := math.Log2((now.share(d, i) + e) / (b.mix.share(d, i) + e))
			v = min(max(v, lessBits), mostBits)
			if !suspicious(d, i) {
				v = min(v, 0)
			}
			s[d][i] = int8(math.Round(v * bit))
		}
	}
	return s
}

// of is the score of a request. What is asked for and the names of its parameters go together, a search and its q: where
// both say the same only the one that says more counts, as it would be counted twice.
func (s *scores) of(t *traits) int {
	n := 0
	for d := range s {
		n += int(s[d][t.cell[d]])
	}
	target, query := int(s[onTarget][t.cell[onTarget]]), int(s[onQuery][t.cell[onQuery]])
	switch {
	case target > 0 && query > 0:
		n -= min(target, query)
	case target < 0 && query < 0:
		n -= max(target, query)
	}
	return n
}
