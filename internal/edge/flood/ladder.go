package flood

// Step is a measure. Each holds the ones before it.
type Step uint8

// The steps, the least harmful first.
const (
	Calm      Step = iota // nothing is done
	Stale                 // stored answers are used stale rather than asked for anew
	Cache                 // parameters that nobody knows do not make another page
	Challenge             // suspects show that a browser is there
	Limit                 // suspects are limited by address, network and browser
	Drop                  // suspects are refused
	steps
)

// String returns the step as documents and people write it.
func (s Step) String() string {
	return [...]string{"calm", "stale", "cache", "challenge", "limit", "drop"}[s]
}

// stepOf finds a step by its name.
func stepOf(name string) (Step, bool) {
	for s := Stale; s < steps; s++ {
		if s.String() == name {
			return s, true
		}
	}
	return Calm, false
}

// Times of the ladder, in ticks.
const (
	confirm     = 2       // ticks in a row before a first step
	settle      = 1       // a step has before the next one is taken
	easeIn      = 2       // quiet ticks before fewer requests are suspects
	relapseIn   = 30      // saturation so soon after a step was left was because of that
	longestHold = 2 * 600 // ten minutes
	banFor      = 2 * 300 // how long a step stays away that did harm
	firstBits   = 3       // score of a suspect, in bits
	easyBits    = 5       // the same while that suffices
	leastBits   = 1       // the same when the last step does not suffice
	bonusBits   = 3       // what speaks for a known visitor
	patience    = 4       // times hold, before a step is left while what comes is still strange
)

// ladder goes up and down the steps.
type ladder struct {
	allowed [steps]bool
	banned  [steps]uint32 // until this tick
	hold    uint32        // quiet ticks before a step is left, as the policy says
	most    Step          // as far as the detector may go while it is warming up

	step     Step
	theta    int // score of a suspect, in sixteenths of a bit
	since    uint32
	leftAt   uint32 // tick at which a step was left last; 0 for never
	holding  uint32 // hold as it is now, doubled after each relapse
	pressed  uint32 // ticks in a row
	quiet    uint32
	familiar uint32 // ticks in a row in which nothing was strange
}

// turn takes one tick. It returns whether the step changed. A siege leaves no time: one tick tells it, and the
// measures before the first that may harm somebody are taken together.
func (l *ladder) turn(tick uint32, pressed, strange, siege bool) bool {
	before := l.step
	if l.holding < l.hold {
		l.holding = l.hold
	}
	count(&l.pressed, pressed && strange)
	count(&l.quiet, !pressed)
	count(&l.familiar, !strange)
	switch {
	case l.step == Calm:
		if l.pressed >= confirm || siege && l.pressed > 0 {
			l.up(tick)
		}
		if siege && l.step == Stale && l.may(Cache, tick) {
			l.up(tick)
		}
	case !l.may(l.step, tick):
		l.down(tick)
	case l.pressed >= settle && tick-l.since >= settle:
		l.up(tick)
	case l.quiet >= easeIn && l.quiet < l.holding && l.theta < easyBits*bit:
		l.theta = min(l.theta+bit/2, easyBits*bit) // as few suspects as suffice
	case l.quiet >= l.holding && l.familiar > 0, l.quiet >= patience*l.holding, l.familiar >= l.hold:
		l.down(tick)
	}
	return l.step != before
}

func count(n *uint32, more bool) {
	if more {
		*n++
	} else {
		*n = 0
	}
}

func (l *ladder) may(s Step, tick uint32) bool {
	return l.allowed[s] && s <= l.most && tick >= l.banned[s]
}

// up takes the next step that may be taken; at the last one, more requests become suspects.
func (l *ladder) up(tick uint32) {
	if l.leftAt != 0 && tick-l.leftAt < relapseIn {
		l.holding = min(max(l.holding, l.hold)*2, max(longestHold, l.hold))
		l.leftAt = 0
	}
	for s := l.step + 1; s < steps; s++ {
		if l.may(s, tick) {
			l.enter(s, tick)
			return
		}
	}
	if l.step != Calm {
		l.theta = max(l.theta-bit/2, leastBits*bit)
		l.since = tick
	}
}

// down leaves a step for the one before.
func (l *ladder) down(tick uint32) {
	s := l.step
	for s > Calm {
		if s--; s == Calm || l.may(s, tick) {
			break
		}
	}
	l.enter(s, tick)
	l.leftAt = tick
	if s == Calm {
		l.holding = l.hold
	}
}

func (l *ladder) enter(s Step, tick uint32) {
	l.step, l.since, l.quiet, l.familiar, l.theta = s, tick, 0, 0, firstBits*bit
}

// ban keeps away from a step that did harm.
func (l *ladder) ban(s Step, tick uint32) { l.banned[s] = tick + banFor }
