package rollout

import (
	"fmt"
	"slices"
	"time"
)

// Policy is how an organization's changes move.
type Policy struct {
	Rings []Ring
	Gate  Gate
	// Patience is how long a PoP may take to confirm a bundle until it counts as stuck, or, where nothing is heard of it, as away.
	Patience time.Duration
	Freezes  []Freeze
	Replay   ReplayGate
}

// Ring is a part of the PoPs, counted with all rings before it. The last ring of a policy is always all PoPs.
type Ring struct {
	Pops    int           // at least so many
	Percent float64       // and at least this share of those that serve the organization
	Wait    time.Duration // after all have confirmed
}

// Gate is by how much visitors may fare worse. Shares are of 1.
type Gate struct {
	Errors   float64 // more errors, share of requests
	Blocked  float64 // more of the visitors known to be good who are blocked, share of those visitors' requests
	Slow     float64 // more requests that are slower than 99 of 100 were, share of requests
	Misses   float64 // more misses of the cache, share of requests that ask it
	CPU      float64 // more of the processors, share of all
	Memory   float64 // more of the memory, share of what there is
	Requests int64   // fewer than so many say nothing
}

// ReplayGate is what a replay of recorded requests may show before a bundle begins.
type ReplayGate struct {
	On bool
	// Blocked, Failed: of the replayed requests, share that may be newly blocked and newly answered with an error.
	Blocked, Failed float64
	// Known is how many requests of visitors known to be good may be newly blocked.
	Known int64
}

// Freeze is a time in which nothing begins but what is urgent, or goes back.
type Freeze struct {
	// From, To are an absolute time, or zero.
	From, To time.Time
	// Weekdays, in Location, from Start to End since midnight; End before Start goes over midnight. Empty: none.
	Weekdays   []time.Weekday
	Start, End time.Duration
	Location   *time.Location
	Why        string
}

// DefaultPolicy is what holds where nobody wrote another.
func DefaultPolicy() Policy {
	return Policy{
		Rings:    []Ring{{Pops: 1, Wait: 10 * time.Second}, {Percent: .01, Wait: 10 * time.Second}, {Percent: .10, Wait: 10 * time.Second}, {Percent: 1}},
		Gate:     Gate{Errors: .01, Blocked: .001, Slow: .03, Misses: .20, CPU: .25, Memory: .20, Requests: 100},
		Patience: 15 * time.Second,
	}
}

// AtOnce is the policy of one ring that holds all PoPs.
func AtOnce() Policy {
	p := DefaultPolicy()
	p.Rings = []Ring{{Percent: 1}}
	return p
}

// hurry bounds the wait of a ring in the emergency lane: long enough for ten heartbeats.
const hurry = 2 * time.Second

// wait is how long a ring is watched.
func (p *Policy) wait(ring int, emergency bool) time.Duration {
	if ring >= len(p.Rings) {
		return 0
	}
	w := p.Rings[ring].Wait
	if emergency {
		w = min(w, hurry)
	}
	return w
}

// size is how many of n PoPs have a bundle in a ring.
func (p *Policy) size(ring, n int) int {
	if ring >= len(p.Rings)-1 {
		return n
	}
	r := p.Rings[ring]
	share := int(r.Percent * float64(n))
	if float64(share) < r.Percent*float64(n) {
		share++
	}
	return min(n, max(1, r.Pops, share))
}

// frozen says why nothing may begin at a time, and empty where it may.
func (p *Policy) frozen(now time.Time) string {
	for i := range p.Freezes {
		if f := &p.Freezes[i]; f.holds(now) {
			if f.Why != "" {
				return "frozen: " + f.Why
			}
			return "frozen"
		}
	}
	return ""
}

func (f *Freeze) holds(now time.Time) bool {
	if !f.From.IsZero() || !f.To.IsZero() {
		if now.Before(f.From) || !f.To.IsZero() && !now.Before(f.To) {
			return false
		}
		if len(f.Weekdays) == 0 {
			return true
		}
	}
	if len(f.Weekdays) == 0 {
		return false
	}
	where := f.Location
	if where == nil {
		where = time.UTC
	}
	local := now.In(where)
	// By the clock on the wall: a day with a change of summer time has no other midnight.
	since := time.Duration(local.Hour())*time.Hour + time.Duration(local.Minute())*time.Minute + time.Duration(local.Second())*time.Second
	today, yesterday := slices.Contains(f.Weekdays, local.Weekday()), slices.Contains(f.Weekdays, (local.Weekday()+6)%7)
	switch {
	case f.Start == f.End:
		return today
	case f.Start < f.End:
		return today && since >= f.Start && since < f.End
	default:
		return today && since >= f.Start || yesterday && since < f.End
	}
}

// refuses says why a replay's verdict stands against a bundle, and empty where it does not.
func (g *ReplayGate) refuses(v *Verdict) string {
	if v.Missing || v.Requests == 0 {
		return ""
	}
	share := func(n int64) float64 { return float64(n) / float64(v.Requests) }
	switch {
	case v.Known > g.Known:
		return fmt.Sprintf("replay: %d of %d recorded requests would be blocked that came from visitors known to be good (%d may)", v.Known, v.Requests, g.Known)
	case share(v.Blocked) > g.Blocked:
		return fmt.Sprintf("replay: %d of %d recorded requests would be blocked that were let in (%.2f %%, %.2f %% may)", v.Blocked, v.Requests, 100*share(v.Blocked), 100*g.Blocked)
	case share(v.Failed) > g.Failed:
		return fmt.Sprintf("replay: %d of %d recorded requests would fail that did not (%.2f %%, %.2f %% may)", v.Failed, v.Requests, 100*share(v.Failed), 100*g.Failed)
	}
	return ""
}
