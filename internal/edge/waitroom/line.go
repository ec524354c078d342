package waitroom

import (
	"math/rand/v2"
	"sort"
	"sync"
	"sync/atomic"
	"time"
)

// Bounds of a line.
const (
	samples   = 128  // seconds that are remembered of how the line moved
	arrivals  = 2048 // times of coming that are remembered, ten seconds each
	leastRate = 0.5  // visitors a second, however full the tiers are
	lag       = 6    // seconds that those at the front take to come
	leastShow = 0.02 // of those called, who come
)

// line is the order of a room. All that is kept of those who wait is in it: its size does not depend on them.
type line struct {
	epoch  uint32
	issued atomic.Uint64 // the last number given
	called atomic.Uint64 // numbers up to it may go in
	came   atomic.Uint64 // visitors who went in
	full   atomic.Uint64 // who were called and found every tier full

	mu      sync.Mutex
	rate    float64 // visitors to let in, a second
	part    float64 // of the next number that was earned
	seconds [samples]sample
	n       int // seconds taken
	claims  claims
	history []arrival // oldest first
}

// sample is where the line was at one second.
type sample struct{ called, came uint64 }

// arrival is the last number given at a time.
type arrival struct {
	at     int64 // Unix seconds
	number uint64
}

func newLine() *line { return &line{epoch: rand.Uint32()} }

// open says whether somebody waits.
func (l *line) open() bool { return l.issued.Load() > l.called.Load() }

// waiting is how many wait.
func (l *line) waiting() uint64 {
	called := l.called.Load()
	return max(l.issued.Load(), called) - called
}

// take gives the next number.
func (l *line) take() uint64 { return l.issued.Add(1) }

// place finds a ticket's number in this line: its own, or of another edge's that of its time of coming. 0 means
// that it has none here.
func (l *line) place(t *ticket) uint64 {
	if t.epoch == l.epoch {
		return min(t.number, l.issued.Load())
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.history) == 0 || int64(t.arrived) < l.history[0].at {
		return 0
	}
	i := sort.Search(len(l.history), func(i int) bool { return l.history[i].at > int64(t.arrived) })
	return l.history[i-1].number
}

// admit asks whether number, which was called, lets one in whose hash is who.
func (l *line) admit(number uint64, who uint16, now int64) (ok, first bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.claims.admit(number, l.called.Load(), who, now)
}

// enter notes that a number was given a pass; false when it was before.
func (l *line) enter(number uint64, now int64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	first := l.claims.enter(number, l.called.Load(), now)
	if first {
		l.came.Add(1)
	}
	return first
}

// release takes back that a number came, as it found no room.
func (l *line) release(number uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.claims.release(number, l.called.Load())
}

// call lets the next n in, and forgets whether those a window before them came. The lock is held.
func (l *line) call(n uint64) {
	from := l.called.Load()
	n = min(n, max(l.issued.Load(), from)-from)
	l.claims.forget(from, from+n)
	l.called.Store(from + n)
}

// space is what the pools of a room can take.
type space struct {
	free  float64 // share of the places for those without a basket; 1 when there is no bound
	takes float64 // requests a second that the pools take now
}

// step moves the line on by the time since the last step, most visitors a second at most; 0 is no bound.
func (l *line) step(dt time.Duration, s space, most float64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	full := l.full.Swap(0)
	if !l.open() {
		l.part = 0
		if s.free > 0.5 && full == 0 {
			l.rate = 0 // the next rush begins anew
		}
		return
	}
	sec := dt.Seconds()
	if l.rate == 0 {
		l.rate = max(leastRate, s.takes/20)
	}
	switch {
	case full > 0 || s.free < 0.02:
		l.rate *= 1 - 0.2*sec
	case s.free < 0.1:
		l.rate *= 1 - 0.05*sec
	case s.free > 0.5:
		l.rate += (0.1*l.rate + 0.25) * sec
	case s.free > 0.2:
		l.rate += 0.03 * l.rate * sec
	}
	l.rate = max(l.rate, leastRate)
	if most > 0 {
		l.rate = min(l.rate, most)
	}
	l.part += l.rate / l.show() * sec
	whole := uint64(l.part)
	l.part -= float64(whole)
	l.call(whole)
}

// show is the share of those called who come, of the last minute. The lock is held.
func (l *line) show() float64 {
	if l.n == 0 {
		return 1
	}
	at := func(ago int) sample { return l.seconds[(l.n-1-min(ago, l.n-1, samples-1))%samples] }
	const prior = 10
	called := at(lag).called - at(lag+60).called
	came := at(0).came - at(60).came
	return min(1, max(leastShow, float64(came+prior)/float64(called+prior)))
}

// second takes a sample.
func (l *line) second(now int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.seconds[l.n%samples] = sample{l.called.Load(), l.came.Load()}
	l.n++
	for k := len(l.history); k > 0 && l.history[k-1].at > now; k-- { // the clock was set back
		l.history = l.history[:k-1]
	}
	if k := len(l.history); k == 0 || now-l.history[k-1].at >= 10 {
		if k == arrivals {
			l.history = append(l.history[:0], l.history[1:]...)
		}
		l.history = append(l.history, arrival{now, l.issued.Load()})
	}
}

// pace is how many numbers are called in a second, of the last half minute; 0 when nobody knows yet.
func (l *line) pace() float64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	ago := min(30, l.n-1)
	if ago < 3 {
		return 0
	}
	return float64(l.seconds[(l.n-1)%samples].called-l.seconds[(l.n-1-ago)%samples].called) / float64(ago)
}

// wait is about how long number has to wait; less than 0 when nobody knows.
func (l *line) wait(number uint64) time.Duration {
	called := l.called.Load()
	if number <= called {
		return 0
	}
	pace := l.pace()
	if pace <= 0 {
		return -1
	}
	return time.Duration(min(float64(number-called)/pace, 24*3600) * float64(time.Second))
}
