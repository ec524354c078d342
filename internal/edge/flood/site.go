package flood

import (
	"fmt"
	"math"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/bundle"
	"github.com/relais-edge/relais/internal/snapshot"
)

// policy is a compiled FloodPolicy. It does not change.
type policy struct {
	mode     v1.Mode
	expires  time.Time // zero for never
	allowed  [steps]bool
	hold     uint32 // ticks
	warmUp   time.Duration
	strange  float64 // distance from which what comes is not what used to come
	harm     float64 // share of known visitors' requests that a step may harm
	narrow   *narrow
	trusted  *trusted
	addressR uint8 // fourths of a request a tick
	groupR   uint8
}

// verdicts is what requests are judged by until the next tick. It does not change.
type verdicts struct {
	step      Step
	hand      bool // a person's; it holds for every unknown visitor
	shadow    bool
	challenge bool // suspects are challenged
	early     bool // step drop acts before the cache, as the processors are saturated
	theta     int
	score     *scores
	fair      [cells]uint64 // of each cell of the browser, how much of 2^64 is let through in step limit
	why       string        // for explanations
}

// site is what is known of a site; it outlives a change of the documents.
type site struct {
	key  bundle.Key
	hash uint64
	now  window
	// Counters of what happened since the last tick.
	asked, full, good atomic.Uint64
	took              atomic.Uint64 // nanoseconds until the heads of asked
	suspects          atomic.Uint64
	harmed            [steps]atomic.Uint64
	verdict           atomic.Pointer[verdicts]
	last              atomic.Pointer[snapshot.Site]
	used              atomic.Uint32 // tick
	counters          siteCounters

	mu       sync.Mutex // what follows
	policy   *policy
	base     baseline
	recent   mixture
	ladder   ladder
	hand     hand
	report   report
	window   counts
	harm     [steps]harm
	goodSeen float64
	strange  bool
	frozen   uint32 // ticks in a row in which nothing was learned
}

// hand is what a person set.
type hand struct {
	set     bool
	step    Step // Calm keeps the detector's hands off
	expires time.Time
}

// harm is what a step did lately to known visitors, and since it was taken first.
type harm struct {
	recent float64
	total  uint64
}

// report is what was found at the last tick, for people.
type report struct {
	at       time.Time
	rate     float64 // requests a second
	pages    float64 // of them, those that are no files
	expected float64
	distance [dimensions]float64
	excess   [dimensions]float64
	strange  float64
	load     pressure
	suspects float64 // a second
	known    bool
	began    time.Time // of the attack; zero when there is none
}

// pressure is what saturates; each is 1 where it begins to.
type pressure struct {
	Tiers, Processor, Latency float64
	Full                      float64 // requests a second for which there was no room
}

// saturated says whether something is.
func (p *pressure) saturated() bool {
	return p.Tiers >= 1 || p.Processor >= 1 || p.Latency >= 1 || p.Full > 0
}

// String names what is saturated, in words.
func (p *pressure) String() string {
	var out []string
	if p.Full > 0 {
		out = append(out, fmt.Sprintf("no room for %.0f requests/s", p.Full))
	}
	for _, l := range []struct {
		name string
		v    float64
	}{{"tiers", p.Tiers}, {"processors", p.Processor}, {"answers of origins", p.Latency}} {
		if l.v >= 1 {
			out = append(out, fmt.Sprintf("%s at %.0f%% of where saturation begins", l.name, 100*l.v))
		}
	}
	if len(out) == 0 {
		return "nothing is saturated"
	}
	return strings.Join(out, ", ")
}

const (
	// slowerBy is how many times the usual time origins take when they count as saturated, and at least
	// slowerAtLeast seconds more.
	slowerBy      = 3
	slowerAtLeast = 0.05
	// learnAgain is after how many ticks without pressure what is strange is learned all the same: ten minutes.
	learnAgain = 1200
	// moreThanExpected is by what factor more must come than is expected.
	moreThanExpected = 1.3
	// siegeBy times as strange as an attack, with no room for half of what comes, is a siege.
	siegeBy = 4
	// harmKeep is what is left of the harm after a tick: half after ten seconds.
	harmKeep = 0.966
	// leastHarmed visitors must be harmed before a step is taken back.
	leastHarmed = 3
)

// tick looks at what came since the last one. Tiers and processor are 1 where saturation begins.
func (s *site) tick(now time.Time, n uint32, tiers, processor float64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.now.take(&s.window)
	s.recent.add(&s.window, recentKeep)
	rate, pages := s.recent.rates()
	asked, full := s.asked.Swap(0), s.full.Swap(0)
	latency := 0.0
	if took := s.took.Swap(0); asked > 0 {
		latency = float64(took) / float64(asked) / 1e9
	}
	r := &s.report
	r.at, r.rate, r.pages, r.expected = now, rate, pages, s.base.expected(now)
	r.suspects = float64(s.suspects.Swap(0)) / tickEvery.Seconds()
	r.load = pressure{Tiers: tiers, Processor: processor, Full: float64(full) / tickEvery.Seconds()}
	if usual := s.base.latency.high(); usual > 0 && asked >= 10 {
		r.load.Latency = latency / max(slowerBy*usual, usual+slowerAtLeast)
	}
	r.distance = s.base.distances(&s.recent)
	r.known = s.base.knows(s.policy.warmUp)
	r.strange = 0
	for d := range dimensions {
		r.excess[d] = s.base.excess(d, r.distance[d])
		r.strange += r.excess[d]
	}
	s.judge(now, n)
	s.learn(now, latency)
	s.publish(now, n)
}

// judge decides whether there is an attack, and takes the ladder a tick further.
func (s *site) judge(now time.Time, n uint32) {
	r := &s.report
	bound := s.policy.strange
	if s.ladder.step != Calm {
		bound /= 2 // what is being met has to go for good
	}
	more := s.base.more(r.rate, r.pages, now) || s.ladder.step != Calm
	s.strange = r.known && r.strange >= bound && more
	s.accountHarm(n)
	s.ladder.allowed, s.ladder.hold, s.ladder.most = s.policy.allowed, s.policy.hold, Drop
	if s.policy.off(now) || s.hand.holds(now) && s.hand.step == Calm {
		s.ladder, r.began = ladder{banned: s.ladder.banned}, time.Time{}
		return
	}
	siege := r.strange >= siegeBy*bound && r.load.Full >= r.rate/2
	if s.ladder.turn(n, r.load.saturated(), s.strange, siege) {
		switch {
		case s.ladder.step == Calm:
			r.began = time.Time{}
		case r.began.IsZero():
			r.began = now
		}
	}
}

// accountHarm counts what the steps did to known visitors, and takes back the one that did too much.
func (s *site) accountHarm(n uint32) {
	s.goodSeen = s.goodSeen*harmKeep + float64(s.good.Swap(0))
	for i := range s.harm {
		h := &s.harm[i]
		harmed := s.harmed[i].Swap(0)
		h.total += harmed
		h.recent = h.recent*harmKeep + float64(harmed)
		if h.recent >= leastHarmed && h.recent > s.policy.harm*s.goodSeen && n >= s.ladder.banned[i] {
			s.ladder.ban(Step(i), n)
			s.counters.takenBack.Inc()
			h.recent = 0
		}
	}
}

// learn takes the tick into the baseline, as long as it is like what came before or nothing shows that it
// does harm.
func (s *site) learn(now time.Time, latency float64) {
	r := &s.report
	calm := s.ladder.step == Calm && !(r.known && r.strange >= s.policy.strange)
	if !calm && (r.load.saturated() || s.ladder.step != Calm) {
		s.frozen = 0
		return
	}
	if !calm {
		if s.frozen++; s.frozen < learnAgain {
			return
		}
	} else {
		s.frozen = 0
	}
	if r.load.saturated() {
		latency = 0
	}
	s.base.learn(&s.window, &r.distance, r.rate, r.pages, latency, now)
}

// publish makes the verdicts until the next tick.
func (s *site) publish(now time.Time, n uint32) {
	v := &verdicts{shadow: s.policy.mode == v1.ModeShadow}
	switch {
	case s.policy.off(now):
	case s.hand.holds(now):
		v.step, v.hand = s.hand.step, s.hand.step != Calm
		v.why = "a person's hand, until " + s.hand.expires.UTC().Format(time.RFC3339) + "; undo: relais shield auto"
	case s.ladder.step != Calm:
		v.step, v.theta = s.ladder.step, s.ladder.theta
		v.why = fmt.Sprintf("attack since %s: %s; distance from the usual mix %.2f (bound %.2f), most by %s; undo: relais unblock ADDRESS, or relais shield off",
			s.report.began.UTC().Format("15:04:05"), s.report.load.String(), s.report.strange, s.policy.strange, s.report.most())
	}
	if v.step >= Challenge {
		v.challenge = s.ladder.may(Challenge, n) || v.hand && v.step == Challenge
		v.early = s.report.load.Processor >= 1 || v.hand
		v.score = s.base.scores(&s.recent, &s.report.excess)
		s.fairness(v)
	}
	s.counters.step.Set(float64(v.step))
	if old := s.verdict.Load(); old != nil && old.step == Calm && v.step == Calm {
		return
	}
	s.verdict.Store(v)
}

// fairness says how much of each browser's requests is let through: twice what it used to send, and no less
// than one a second.
func (s *site) fairness(v *verdicts) {
	for i := range cells {
		came := s.recent.share(onAgent, i) * s.report.rate
		may := max(1, 2*s.base.mix.share(onAgent, i)*s.base.rate.Mean)
		v.fair[i] = math.MaxUint64
		if v.hand || came <= may {
			continue
		}
		v.fair[i] = uint64(may / came * math.MaxUint64)
	}
}

// most names the dimension that is furthest from what it used to be.
func (r *report) most() string {
	best := 0
	for d := range dimensions {
		if r.excess[d] > r.excess[best] {
			best = d
		}
	}
	return dimensionNames[best]
}

func (p *policy) off(now time.Time) bool {
	return p.mode == v1.ModeOff || !p.expires.IsZero() && !now.Before(p.expires)
}

func (h *hand) holds(now time.Time) bool { return h.set && now.Before(h.expires) }
