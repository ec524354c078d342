package fleet

import "math"

// Buckets is how many classes of latency a Sample has: until 1 ms, then each until a fifth more than the one before, until
// 16 s; the last has no bound.
const Buckets = 55

// ratio of a bucket's bound to the one before.
const ratio = 1.2

// Bound of a bucket in milliseconds.
func Bound(bucket int) float64 { return math.Pow(ratio, float64(bucket)) }

// Bucket of a latency in milliseconds.
func Bucket(ms float64) int {
	if !(ms > 1) {
		return 0
	}
	return min(Buckets-1, int(math.Ceil(math.Log(ms)/math.Log(ratio)-1e-9)))
}

// Add gives the sum.
func (s Sample) Add(o Sample) Sample { return s.with(o, 1) }

// Sub gives what came after o. A PoP that began anew counts from 0: then what it has is what came.
func (s Sample) Sub(o Sample) Sample {
	d := s.with(o, -1)
	if d.Requests < 0 || d.Errors < 0 || d.Known < 0 || d.Blocked < 0 || d.Lookups < 0 || d.Misses < 0 {
		return s
	}
	return d
}

func (s Sample) with(o Sample, sign int64) Sample {
	s.Requests += sign * o.Requests
	s.Errors += sign * o.Errors
	s.Known += sign * o.Known
	s.Blocked += sign * o.Blocked
	s.Lookups += sign * o.Lookups
	s.Misses += sign * o.Misses
	for i := range s.Latency {
		s.Latency[i] += sign * o.Latency[i]
	}
	return s
}

// Tail is how many requests were slower than a bucket's bound.
func (s *Sample) Tail(bucket int) (n int64) {
	for _, c := range s.Latency[bucket+1:] {
		n += c
	}
	return n
}

// P99 is the first bucket with at most one request in a hundred above it.
func (s *Sample) P99() int {
	for b := range Buckets - 1 {
		if 100*s.Tail(b) <= s.Requests {
			return b
		}
	}
	return Buckets - 1
}
