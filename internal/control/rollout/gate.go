package rollout

import (
	"fmt"
	"math"
)

// Buckets is how many classes of latency a Sample has: until 1 ms, and each until a fifth more than the one before, until
// 16 s; the last has no bound.
const Buckets = 55

// step is the ratio of a bucket's bound to the one before.
const step = 1.2

// bound of a bucket in milliseconds.
func bound(bucket int) float64 { return math.Pow(step, float64(bucket)) }

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

// p99 is the first bucket with at most one request in a hundred above it. There is a last one, above which is nothing.
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
	if why := g.slower(touched, others); why != "" {
		return why
	}
	if others.Lookups >= g.Requests { // an empty cache misses everything, which says nothing of a change
		return g.worse("misses of the cache", touched.Misses, touched.Lookups, others.Misses, others.Lookups, g.Misses)
	}
	return ""
}

// slower holds the 99th percentiles against each other; that more are beyond the other's must be no chance either.
func (g *Gate) slower(touched, others Sample) string {
	b, o := touched.p99(), others.p99()
	if o >= Buckets-1 || bound(b) <= g.Slow*bound(o) || !surely(touched.tail(o), touched.Requests, others.tail(o), others.Requests) {
		return ""
	}
	return fmt.Sprintf("latency: 99 of 100 within %.0f ms, elsewhere or before within %.0f ms (%.1f times as much may be)", bound(b), bound(o), g.Slow)
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
	if !surely(bad, of, otherBad, otherOf) {
		return ""
	}
	return fmt.Sprintf("%s: %.2f %% of %d, elsewhere or before %.2f %% of %d (%.2f %% more may be)", what, 100*share, of, 100*other, otherOf, 100*most)
}

// surely says whether the first share is larger and it is no chance: two proportions, pooled; half a request more on each
// side keeps it honest where there are few.
func surely(bad, of, otherBad, otherOf int64) bool {
	n, m := float64(of), float64(otherOf)
	pooled := (float64(bad) + float64(otherBad) + 1) / (n + m + 2)
	return (float64(bad)/n-float64(otherBad)/m)/math.Sqrt(pooled*(1-pooled)*(1/n+1/m)) >= certain
}

// Gauges is how loaded a PoP is; shares of 1.
type Gauges struct {
	CPU    float64 `json:"cpu"`
	Memory float64 `json:"memory"`
}

// more is by how much a PoP is busier than before, beyond what the others are, when it is the change that counts.
const more = .05

// strained says of what a touched PoP uses more than it may, where it did not before and the others do not: others is by
// how much these use more than they did.
func (g *Gate) strained(now, before, others Gauges) string {
	for _, l := range [...]struct {
		what                    string
		now, before, other, may float64
	}{
		{"processors", now.CPU, before.CPU, others.CPU, g.CPU},
		{"memory", now.Memory, before.Memory, others.Memory, g.Memory},
	} {
		if l.now > l.may && l.now-l.before-l.other > more {
			return fmt.Sprintf("%s: %.0f %% in use, %.0f %% before the change (%.0f %% may be)", l.what, 100*l.now, 100*l.before, 100*l.may)
		}
	}
	return ""
}
