package rollout

import (
	"fmt"
	"math"

	"github.com/relais-edge/relais/internal/fleet"
)

// compare says what visitors at the touched PoPs fare worse in than the others, and empty where it is nothing, or where
// either side has too few requests to say.
func (g *Gate) compare(touched, others fleet.Sample) string {
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
func (g *Gate) slower(touched, others fleet.Sample) string {
	b, o := touched.P99(), others.P99()
	if o >= fleet.Buckets-1 || fleet.Bound(b) <= g.Slow*fleet.Bound(o) || !surely(touched.Tail(o), touched.Requests, others.Tail(o), others.Requests) {
		return ""
	}
	return fmt.Sprintf("latency: 99 of 100 within %.0f ms, elsewhere or before within %.0f ms (%.1f times as much may be)", fleet.Bound(b), fleet.Bound(o), g.Slow)
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

// more is by how much a PoP is busier than before, beyond what the others are, when it is the change that counts.
const more = .05

// strained says of what a touched PoP uses more than it may, where it did not before and the others do not: others is by
// how much these use more than they did.
func (g *Gate) strained(now, before, others fleet.Gauges) string {
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
