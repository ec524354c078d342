package rollout

import (
	"fmt"
	"math"
)

// Buckets is how many classes of latency a Sample has: until 1 ms, 2 ms, 4 ms ... 16 s, and what is slower.
const Buckets = 16

// Sample is what a PoP counted of an organization over a time.
type Sample struct {
	Requests int64 `json:"requests"`
	Errors   int64 `json:"errors"`  // answered with a 5xx by the edge or an origin
	Known    int64 `json:"known"`   // requests of visitors known to be good
	Blocked  int64 `json:"blocked"` // of those, refused by a protection
	Lookups  int64 `json:"lookups"` // asked the cache
	Misses   int64 `json:"misses"`
	// Latency counts requests by their time until the answer began.
	Latency [Buckets]int64 `json:"latency"`
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

// tail is how many requests were slower than a bucket's bound.
func (s *Sample) tail(bucket int) (n int64) {
	for _, c := range s.Latency[bucket+1:] {
		n += c
	}
	return n
}

// p99 is the first bucket with at most one request in a hundred above it.
func (s *Sample) p99() int {
	for b := range Buckets - 1 {
		if 100*s.tail(b) <= s.Requests {
			return b
		}
	}
	return Buckets - 1
}

// compare says what visitors at the touched PoPs fare worse in than the others, and empty where it is nothing, or where
// either side has too few requests to say.
func (g *Gate) compare(touched, others Sample) string {
	if touched.Requests < g.Requests || others.Requests < g.Requests {
		return ""
	}
	if why := g.worse("errors", touched.Errors, touched.Requests, others.Errors, others.Requests, g.Errors); why != "" {
		return why
	}
	if why := g.worse("visitors known to be good who are blocked", touched.Blocked, touched.Known, others.Blocked, others.Known, g.Blocked); why != "" {
		return why
	}
	if b := others.p99(); b < Buckets-1 {
		if why := g.worse(fmt.Sprintf("requests slower than %d ms", 1<<b), touched.tail(b), touched.Requests, others.tail(b), others.Requests, g.Slow); why != "" {
			return why
		}
	}
	if others.Lookups >= g.Requests { // an empty cache misses everything, which says nothing of a change
		return g.worse("misses of the cache", touched.Misses, touched.Lookups, others.Misses, others.Lookups, g.Misses)
	}
	return ""
}

// certain is by how many deviations a share has to be larger than the other until it is no chance: three in ten thousand
// looks at equal shares go beyond it on this side.
const certain = 3.4

// worse holds two shares against each other: it is worse where the first is larger by more than most, and not by chance.
func (g *Gate) worse(what string, bad, of, otherBad, otherOf int64, most float64) string {
	if of == 0 || otherOf == 0 {
		return ""
	}
	share, other := float64(bad)/float64(of), float64(otherBad)/float64(otherOf)
	if share-other <= most {
		return ""
	}
	// Two proportions, pooled; half a request more on each side keeps it honest where there are few.
	n, m := float64(of), float64(otherOf)
	pooled := (float64(bad) + float64(otherBad) + 1) / (n + m + 2)
	if (share-other)/math.Sqrt(pooled*(1-pooled)*(1/n+1/m)) < certain {
		return ""
	}
	return fmt.Sprintf("%s: %.2f %% of %d, elsewhere or before %.2f %% of %d (%.2f %% more may be)", what, 100*share, of, 100*other, otherOf, 100*most)
}

// Gauges is how loaded a PoP is; shares of 1.
type Gauges struct {
	CPU    float64 `json:"cpu"`
	Memory float64 `json:"memory"`
}

// strained says by what a touched PoP is more loaded than before, beyond what the others are.
func (g *Gate) strained(now, before Gauges, others float64, othersMemory float64) string {
	switch {
	case now.CPU-before.CPU-others > g.CPU:
		return fmt.Sprintf("processors: %.0f %% busy, %.0f %% before the change (at the PoPs without it %+.0f %%)", 100*now.CPU, 100*before.CPU, 100*others)
	case now.Memory-before.Memory-othersMemory > g.Memory:
		return fmt.Sprintf("memory: %.0f %% used, %.0f %% before the change (at the PoPs without it %+.0f %%)", 100*now.Memory, 100*before.Memory, 100*othersMemory)
	}
	return ""
}
