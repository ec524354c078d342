package ratelimit

import (
	"math"
	"math/bits"
	"time"
)

// stamp is a time in nanoseconds and a fraction of one, in parts of the limit's requests.
type stamp struct {
	ns   int64
	frac uint32
}

func (s stamp) after(o stamp) bool { return s.ns > o.ns || s.ns == o.ns && s.frac > o.frac }

// far bounds the tolerance of a limit, so that no sum overflows: 73 years.
const far = math.MaxInt64 / 4

// rate is a limit as the algorithm needs it.
type rate struct {
	requests uint32
	burst    uint32
	step     stamp // between two requests
	slack    stamp // how far in the future the arrival time may lie: burst-1 steps
}

// newRate makes a rate. Requests and per are at least 1; burst 0 means requests.
func newRate(requests int, per time.Duration, burst int) rate {
	if burst == 0 {
		burst = requests
	}
	r := rate{requests: uint32(requests), burst: uint32(burst)}
	r.step = times(1, per, r.requests)
	r.slack = times(r.burst-1, per, r.requests)
	return r
}

// times is n·per/requests.
func times(n uint32, per time.Duration, requests uint32) stamp {
	hi, lo := bits.Mul64(uint64(n), uint64(per))
	if hi >= uint64(requests) {
		return stamp{ns: far}
	}
	q, rem := bits.Div64(hi, lo, uint64(requests))
	if q > far {
		return stamp{ns: far}
	}
	return stamp{int64(q), uint32(rem)}
}

// mul is n steps, n at most the burst.
func (r *rate) mul(n uint32) stamp {
	if n == 0 {
		return stamp{}
	}
	hi, lo := bits.Mul64(uint64(n), uint64(r.step.ns))
	fh, fl := bits.Mul64(uint64(n), uint64(r.step.frac))
	if hi != 0 || fh >= uint64(r.requests) {
		return stamp{ns: far}
	}
	q, rem := bits.Div64(fh, fl, uint64(r.requests))
	sum, carry := bits.Add64(lo, q, 0)
	if carry != 0 || sum > far {
		return stamp{ns: far}
	}
	return stamp{int64(sum), uint32(rem)}
}

// plus adds two stamps of this rate.
func (r *rate) plus(a, b stamp) stamp {
	s := stamp{a.ns + b.ns, 0}
	f := uint64(a.frac) + uint64(b.frac)
	if f >= uint64(r.requests) {
		f -= uint64(r.requests)
		s.ns++
	}
	s.frac = uint32(f)
	return s
}

// verdict is what a rate says of a request.
type verdict struct {
	ok    bool
	left  uint32        // requests that could come now, after this one
	reset time.Duration // until the whole burst is there again
	wait  time.Duration // until a request would be taken; 0 when this one was
}

// take asks for one request at now. Tat is the key's theoretical arrival time; the one to keep
// is returned, the same when the request is refused.
func (r *rate) take(tat stamp, now int64) (stamp, verdict) {
	at := stamp{ns: now}
	if at.after(tat) {
		tat = at
	}
	limit := r.plus(at, r.slack)
	if tat.after(limit) {
		wait := tat.ns - limit.ns
		if tat.frac > limit.frac {
			wait++
		}
		return tat, verdict{wait: time.Duration(wait), reset: time.Duration(tat.ns - now)}
	}
	tat = r.plus(tat, r.step)
	v := verdict{ok: true, reset: time.Duration(tat.ns - now)}
	if !tat.after(limit) {
		v.left = r.steps(limit, tat) + 1
	}
	return tat, v
}

// reserve asks for one request at now while open ones are under way, each of which may come to count. The arrival time
// stays as it is: what counts is known later.
func (r *rate) reserve(tat stamp, open uint32, now int64) verdict {
	at := stamp{ns: now}
	if at.after(tat) {
		tat = at
	}
	_, v := r.take(r.plus(tat, r.mul(min(open, r.burst))), now)
	if !v.ok && !tat.after(r.plus(at, r.slack)) {
		v.wait = 0 // for an answer, which nobody knows how long takes
	}
	return v
}

// keep counts a request that was reserved at a time.
func (r *rate) keep(tat stamp, at int64) stamp {
	if start := (stamp{ns: at}); start.after(tat) {
		tat = start
	}
	return r.plus(tat, r.step)
}

// steps is how many whole steps fit between b and a, a not before b; at most burst.
func (r *rate) steps(a, b stamp) uint32 {
	// (a-b)·requests/per without per: divide the parts of a nanosecond by the parts of a step.
	hi, lo := bits.Mul64(uint64(a.ns-b.ns), uint64(r.requests))
	lo, carry := bits.Add64(lo, uint64(a.frac), 0)
	hi += carry
	lo, borrow := bits.Sub64(lo, uint64(b.frac), 0)
	hi -= borrow
	sh, sl := bits.Mul64(uint64(r.step.ns), uint64(r.requests))
	step, c := bits.Add64(sl, uint64(r.step.frac), 0)
	if sh+c != 0 || hi >= step { // more than fits: the slack was cut
		return r.burst - 1
	}
	q, _ := bits.Div64(hi, lo, step)
	return uint32(min(q, uint64(r.burst-1)))
}
