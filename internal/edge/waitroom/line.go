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
	claimWindow = 1 << 20 // numbers of which it is known whether they came
	samples     = 128     // seconds that are remembered of how the line moved
	arrivals    = 2048    // times of coming that are remembered, ten seconds each
	leastRate   = 0.5     // visitors a second, however full the tiers are
	lag         = 6       // seconds that those at the front take to come
	leastShow   = 0.02    // of those called, who come
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
	claimed []uint64
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

// claim notes that a number that was called came; false when it did before, or is too old to say.
func (l *line) claim(number uint64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if number+claimWindow <= l.called.Load() {
		return false // nobody knows any more
	}
	if l.claimed == nil {
		l.claimed = make([]uint64, claimWindow/64)
	}
	w, bit := &l.claimed[number%claimWindow/64], uint64(1)<<(number%64)
	if *w&bit != 0 {
		return false
	}
	*w |= bit
	l.came.Add(1)
	return true
}

// call lets the next n in, and forgets whether those a window before them came. The lock is held.
func (l *line) call(n uint64) {
	from := l.called.Load()
	n = min(n, max(l.issued.Load(), from)-from)
	if l.claimed != nil {
		for i := from + 1; i <= from+min(n, claimWindow); i++ {
			l.claimed[i%claimWindow/64] &^= 1 << (i % 64)
		}
	}
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
