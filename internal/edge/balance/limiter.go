package balance

import (
	"math"
	"time"
)

// limiter finds how many requests a tier takes at once when nobody tells it, from how long the
// tier's answers take. DESIGN.md says why it is made so; the law in short:
//
//   - wait is how much longer the quicker four fifths of the answers took than they do when the
//     tier is at ease; the own share of the queue is the wait times the own rate (Little's law).
//   - As long as the wait is below its bound there is no limit at all. Beyond it the limit is
//     what was in flight less the own share of the queue that is too much.
//   - The bound of the wait is larger for an edge that must send more of its visitors away, so
//     that edges that know nothing of each other come to share a tier by need.
//   - A cut that does not make answers quicker shows that it was no queue. The limit then takes
//     the time as the tier's own.
//
// All methods but those of hist are called with the pool's lock held.
type limiter struct {
	hist latencies
	last [buckets]uint32 // of hist, when the window began

	began         int64 // the window, by the pool's clock; 0 is before the first
	resume        int64 // no window before this
	sent, refused uint64
	inFlight      int64
	size          float64 // the limit; +Inf is none
	seen          float64 // answers since ever, as far as they matter
	base          float64 // ns: the quicker answers at ease
	smooth        float64 // ns: the same lately
	tail          float64 // the 95th percentile over base
	occupied      float64 // ns: a place at ease
	calm          float64 // in flight at ease
	extra         float64 // ns: by how much requests of late usually take longer than those of the last minute
	shift         float64 // ns: by how much times count as longer on average
	hunger        float64 // asked for over admitted, lately
	rate, wait    float64 // of the last window: answers a ns, and ns

	row row

	ebb  float64 // the limit while edges ebb together; 0 is no ebb
	deep bool    // this ebb
}

// The constants of the law. DESIGN.md shows what others do.
const (
	tick        = 25 * time.Millisecond // between two looks
	leastWindow = 2 * tick
	enough      = 48              // answers make a window
	few         = 10              // answers make a window that has been open for long
	longWindow  = 2 * time.Second // is the longest window
	reach       = 1000            // answers that the average of answers at ease reaches back
	acquainted  = 200             // answers after which those that wait are no longer taken for ease
	// costShare is the wait that a limit aims at, as a share of the 95th percentile at ease.
	costShare = 0.12
	// maxHunger bounds how much longer a wait an edge bears for those that it sends away.
	maxHunger = 2.0
	leastSize = 4.0
	// leastAim is a wait, in ns, that hurts nobody: a busy machine makes as much by itself.
	leastAim    = float64(4 * time.Millisecond)
	gain        = 0.5             // of what is too much in the queue is cut
	growth      = 0.15            // the most that a limit grows in a window
	unusedRate  = 0.10            // a limit that nobody meets grows by so much a second
	openAt      = 4.0             // times what is in flight, where it ends
	riseSeconds = 20.0            // in which base follows answers that grew slower at ease
	rowTime     = 2 * time.Second // of cuts, after which they must have helped
	floorShare  = 0.5             // of what is in flight at ease is kept
	rebaseAt    = 2.5             // times the bound of the wait, above which a tier may count as slower
	// Edges ebb together, by the clock on the wall, for ebbTime in each ebbEvery: all let their part of
	// the queue drain, so that what a tier at ease is like can be seen while it never is. Both are
	// doubled while answers take longer than ebbFor, 16 times at most.
	ebbEvery = 8 * time.Second
	ebbTime  = 200 * time.Millisecond
	ebbFor   = float64(80 * time.Millisecond)
	deepEbb  = 4 // each so many ebbs
)

func newLimiter() limiter { return limiter{size: math.Inf(1), hunger: 1} }

// open says that no limit is known to be needed.
func (l *limiter) open() bool { return math.IsInf(l.size, 1) }

// scale follows a change of the tier: part of its origins went or came.
func (l *limiter) scale(by float64) {
	if !l.open() {
		l.size = max(leastSize, l.size*by)
	}
	l.calm *= by
}

// comeBack is for a tier that was gone. What it takes now nobody knows, so a limit stands at what it had in
// flight at ease and half more, for the slow return to be measured by.
func (l *limiter) comeBack() {
	if l.open() && l.calm > 0 {
		l.size = max(leastSize, 1.5*l.calm)
	}
}

// load is what a tier counted since ever, and what it has in flight.
type load struct {
	sent, refused uint64
	inFlight      int64
}

// step looks at what came since the last window and sets size. Wall is the time of day in ns, which
// edges share. It says whether what limit returns changed.
func (l *limiter) step(now, wall int64, c load) bool {
	before := l.limit()
	slow := l.slowness()
	every := slow * int64(ebbEvery)
	ebbing := wall%every < slow*int64(ebbTime)
	switch {
	case ebbing && l.ebb == 0 && !l.open() && l.rate > 0:
		l.begin(now, wall/every%deepEbb == 0, c)
		return true
	case !ebbing && l.ebb > 0:
		if w := l.hist.since(&l.last); w.n >= enough/2 && l.began > 0 {
			l.learn(&w)
		}
		l.ebb = 0
		l.restart(now, c)
		return true
	case now < l.resume:
		return false
	case l.began == 0:
		l.restart(now, c)
		return false
	case l.ebb > 0 || now-l.began < int64(leastWindow):
		return false
	}
	w := l.hist.since(&l.last)
	if w.n < enough && now-l.began < int64(longWindow) || w.n < few {
		if now-l.began > 4*int64(longWindow) {
			l.idle(now, c)
		}
		return l.limit() != before
	}
	l.decide(now, &w, c)
	if now >= l.resume {
		l.restart(now, c)
	}
	return l.limit() != before
}

// slowness is by how much ebbs are longer and rarer than for a quick tier: a power of two, so that edges that
// differ in it meet in the rarer ones.
func (l *limiter) slowness() int64 {
	by := int64(1)
	for l.base > float64(by)*ebbFor && by < 16 {
		by *= 2
	}
	return by
}

// decide is the law, once a window.
func (l *limiter) decide(now int64, w *window, c load) {
	took := float64(now - l.began)
	sent, refused := float64(c.sent-l.sent), float64(c.refused-l.refused)
	l.rate = max(0, sent-float64(c.inFlight-l.inFlight)) / took
	doubt := w.spread / math.Sqrt(w.n)
	if l.seen < reach && (l.seen < acquainted || w.low-2*doubt < l.base+l.plainAim()) {
		l.meet(w, c.inFlight)
	}
	keep := math.Exp(-took / float64(time.Second))
	l.hunger = keep*l.hunger + (1-keep)*min((sent+refused)/max(sent, 1), 100)
	aim := l.aim()
	if w.low+2*doubt < l.base {
		l.base += w.n / (w.n + reach) * (w.low - l.base)
	}
	l.wait = max(0, w.low-l.base)
	switch {
	case l.wait-2*doubt > aim:
		l.cut(now, w, l.wait-aim-doubt, c.inFlight)
	case refused > 0:
		if l.wait < aim {
			l.row = row{}
		}
		if l.wait < aim && !l.open() {
			l.size += max(1, growth*l.size*(aim-l.wait)/aim)
		}
	default:
		l.ease(w, took, c.inFlight)
	}
}

// meet takes the first answers of all as those of a tier at ease, but none that are far above the first of them: with few
// visitors a spike may come before there were many. An ebb mends that when it is wrong.
func (l *limiter) meet(w *window, inFlight int64) {
	a := w.n / (l.seen + w.n)
	l.seen += w.n
	l.smooth += a * (w.low - l.smooth)
	l.tail += a * (w.tail/w.low - l.tail)
	l.occupied += a * (max(w.low-l.shift, 0) - l.occupied)
	l.calm += a * (float64(inFlight) - l.calm)
	l.base = l.smooth
}

// limit is how many the tier takes; +Inf is any number.
func (l *limiter) limit() float64 {
	if l.ebb > 0 {
		return l.ebb
	}
	return l.size
}

// begin begins an ebb: the own part of the queue is let drain, as far as it is known. A deep ebb goes further, to
// what was in flight at ease, lest a base that is too high hides the queue that it causes.
func (l *limiter) begin(now int64, deep bool, c load) {
	n := float64(c.inFlight)
	if l.deep = deep; deep {
		l.ebb = max(leastSize, min(0.9*n, max(0.5*n, l.calm)))
	} else {
		l.ebb = max(leastSize, min(0.95*n, max(0.7*n, n-l.rate*l.wait)))
	}
	l.pause(now, l.base+l.wait)
	l.sent, l.refused, l.inFlight = c.sent, c.refused, c.inFlight
}

// learn takes what an ebb showed for the tier at ease. It is believed at once when it is quicker, and
// in part when a deep one was slower: others may not have ebbed.
func (l *limiter) learn(w *window) {
	switch {
	case w.low < l.base:
		l.base += 0.7 * (w.low - l.base)
	case l.deep:
		l.base += 0.4 * (w.low - l.base)
	}
	l.smooth = l.base
}

// aim is the wait that is borne, in ns.
func (l *limiter) aim() float64 {
	return l.plainAim() * min(math.Sqrt(max(1, l.hunger)), maxHunger)
}

// plainAim is the same for an edge that sends nobody away.
func (l *limiter) plainAim() float64 {
	return max(min(max(costShare*l.tail, 0.1), 1)*l.base, leastAim)
}

// cut takes what is too much of the queue away. It keeps a part of what was in flight at ease: a tier
// that became slow has its places all the same.
func (l *limiter) cut(now int64, w *window, excess float64, inFlight int64) {
	if l.row.began == 0 {
		l.row = row{began: now, size: max(l.calm, min(l.size, float64(inFlight)))}
	}
	least := max(int64(rowTime), int64(8*w.low))
	if now-l.row.began < least/2 {
		l.row.early.add(w)
	} else {
		l.row.late.add(w)
	}
	if l.open() {
		l.size = l.rate * (max(l.occupied+l.extra, l.occupied/4) + l.aim())
	} else {
		l.size -= min(gain*l.rate*excess, l.size/2)
	}
	l.size = max(l.size, l.floor())
	l.pause(now, w.low)
	if now-l.row.began >= least && l.row.late.n > 0 {
		l.judge()
	}
}

// floor is the least that cuts leave.
func (l *limiter) floor() float64 { return max(leastSize, floorShare*l.calm) }

// judge asks, after a row of cuts down to the floor, whether they helped. A queue would have become shorter. If
// the answers are still far too slow the tier has become slower, and its time is what it is now.
//
// It is a guess, as others may keep the queue up, and a wrong one makes this edge the next who does so.
// Therefore it needs much; what is in between is for the ebb to find.
func (l *limiter) judge() {
	early, late := l.row.early.mean(), l.row.late.mean()
	bound := l.base + rebaseAt*l.plainAim()
	if late > bound && early-late < 0.3*(early-l.base) && l.size <= 1.1*l.floor() {
		l.occupied *= late / l.base
		l.base, l.smooth = late, late
		l.size = min(l.row.size, 2*l.size)
	}
	l.row = row{}
}

// row is a row of cuts, each window's wait above its bound.
type row struct {
	began       int64   // 0 is no row
	size        float64 // the limit before, or what was in flight
	early, late average // of low
}

type average struct{ n, sum float64 }

func (a *average) add(w *window) { a.n, a.sum = a.n+w.n, a.sum+w.n*w.low }

func (a *average) mean() float64 { return a.sum / max(a.n, 1) }

// pause has the next window begin when answers of requests sent from now on come as they do
// in a steady state: the first ones are the quick ones.
func (l *limiter) pause(now int64, low float64) {
	l.began, l.resume = 0, now+int64(2*low)
	l.hist.from.Store(now)
}

// ease learns what the tier is like when it has room for all, and lets go of a limit that
// nobody meets.
func (l *limiter) ease(w *window, took float64, inFlight int64) {
	l.row = row{}
	a := w.n / (w.n + reach)
	l.smooth += a * (w.low - l.smooth)
	if l.smooth < l.base {
		l.base = l.smooth
	} else {
		l.base += (l.smooth - l.base) * min(1, took/(riseSeconds*1e9))
	}
	l.tail += a * (w.tail/w.low - l.tail)
	l.calm += a * (float64(inFlight) - l.calm)
	if l.rate > 0 {
		l.occupied += a * (float64(inFlight)/l.rate - l.occupied)
	}
	if !l.open() {
		l.size *= 1 + unusedRate*took/1e9
		if l.size > openAt*float64(inFlight+8) {
			l.size = math.Inf(1)
		}
	}
}

// calmly says that answers hardly wait, so that what they take is their own time.
func (l *limiter) calmly() bool { return l.wait <= l.plainAim()/2 }

// moved has all times count as longer by so many ns.
func (l *limiter) moved(by float64) {
	if l.seen == 0 {
		return
	}
	tail := l.tail * l.base
	l.base, l.smooth = max(l.base+by, 1), max(l.smooth+by, 1)
	l.tail = max(1, (tail+by)/l.base)
	if math.Abs(by) > l.plainAim()/2 {
		l.row, l.began = row{}, 0
	}
}

// idle is for a tier that next to nobody asks.
func (l *limiter) idle(now int64, c load) {
	l.wait = 0
	if c.inFlight < int64(leastSize) {
		l.size = math.Inf(1)
	}
	l.restart(now, c)
}

// restart begins a window.
func (l *limiter) restart(now int64, c load) {
	l.began, l.sent, l.refused, l.inFlight = now, c.sent, c.refused, c.inFlight
	l.hist.copy(&l.last)
}
