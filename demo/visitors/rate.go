package visitors

import (
	"math/rand/v2"
	"time"
)

// Rate is how many visitors arrive per second, as a function of the time since the start of
// the run. It must be quick and never negative.
type Rate func(elapsed time.Duration) float64

// Constant is the same rate for ever.
func Constant(perSecond float64) Rate {
	return func(time.Duration) float64 { return perSecond }
}

// Spike is base visitors per second, and factor times as many from the time from until the
// time to.
func Spike(base, factor float64, from, to time.Duration) Rate {
	return func(elapsed time.Duration) float64 {
		if elapsed >= from && elapsed < to {
			return base * factor
		}
		return base
	}
}

// Ramp goes in a straight line from one rate to another and then stays there.
func Ramp(low, high float64, over time.Duration) Rate {
	return func(elapsed time.Duration) float64 {
		if elapsed >= over {
			return high
		}
		return low + (high-low)*float64(elapsed)/float64(over)
	}
}

// Limits of looking for the next arrival.
const (
	rateStep  = 10 * time.Millisecond // the rate is taken as constant for this long
	lookAhead = time.Second
)

// nextArrival returns when, after the time from, the next visitor arrives. arrives is false
// when nobody does within the look-ahead; then the search goes on from the returned time.
func (r Rate) nextArrival(from time.Duration, rng *rand.Rand) (at time.Duration, arrives bool) {
	// A Poisson process of changing rate: the integral of the rate up to the next arrival
	// is exponentially distributed with mean one. It has no memory, so one may start anew.
	need := rng.ExpFloat64()
	for at = from; at < from+lookAhead; at += rateStep {
		expected := r(at) * rateStep.Seconds()
		if expected >= need {
			return at + time.Duration(need/expected*float64(rateStep)), true
		}
		need -= expected
	}
	return at, false
}
