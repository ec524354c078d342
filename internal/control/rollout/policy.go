package rollout

import (
	"fmt"
	"slices"
	"time"

	v1 "github.com/relais-edge/relais/api/v1"
)

// Policy is how an organization's changes move.
type Policy struct {
	Rings []Ring
	Gate  Gate
	// Patience is how long a PoP may take to confirm a bundle until it counts as stuck, or, where nothing is heard of it, as away.
	Patience time.Duration
	Freezes  []Freeze
	Replay   ReplayGate
	// Hurry bounds a ring's wait in the emergency lane, and for an organization's first bundle.
	Hurry time.Duration
	// Hold keeps what does not pass a gate where it is, for a person to decide, in place of taking it back.
	Hold bool
	// FrozenToo holds what is urgent in a freeze, too.
	FrozenToo bool
}

// Ring is a part of the PoPs, counted with all rings before it. After the last one come all PoPs.
type Ring struct {
	Pops   int               // at least so many,
	Share  float64           // or at least this share of those that serve the organization,
	Labels map[string]string // or all that have these labels
	Wait   time.Duration     // after all have confirmed
}

// Gate is by how much visitors may fare worse, and how loaded a PoP may be. Shares are of 1.
type Gate struct {
	Errors   float64 // more errors, share of requests
	Blocked  float64 // more of the visitors known to be good who are blocked, share of those visitors' requests
	Slow     float64 // the 99th percentile of latency, times what it was
	Misses   float64 // more misses of the cache, share of requests that ask it
	CPU      float64 // of the processors that may be in use
	Memory   float64 // of the memory that may be in use
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
	// From, To are a time that is once, or zero.
	From, To time.Time
	// Weekdays, in Location, from Start to End since midnight; an End that is not later is of the next day.
	Weekdays   []time.Weekday
	Start, End time.Duration
	Location   *time.Location
	Why        string
}

// patience is long enough for a heartbeat, a few blobs over a bad link and a start of the sites in use.
const patience = 30 * time.Second

// PolicyOf is the policy that a document states, with its defaults filled in.
func PolicyOf(s *v1.RolloutPolicySpec) Policy {
	g := &s.Gates
	p := Policy{
		Gate: Gate{
			Errors: fraction(g.ErrorRatio), Blocked: fraction(g.BlockedGood), Slow: float64(g.LatencyP99) / 100, Misses: fraction(g.HitRatioDrop),
			CPU: fraction(g.CPU), Memory: fraction(g.Memory), Requests: int64(v1.Value(g.MinRequests)),
		},
		Patience: patience, Hurry: time.Duration(v1.Value(s.Emergency.Wait)),
		Hold: !v1.Value(s.Undo), FrozenToo: !v1.Value(s.Emergency.Frozen),
	}
	for i := range s.Rings {
		r := &s.Rings[i]
		p.Rings = append(p.Rings, Ring{Pops: r.Pops, Share: fraction(r.Share), Labels: r.Labels, Wait: time.Duration(v1.Value(r.Wait))})
	}
	for i := range s.Freeze {
		p.Freezes = append(p.Freezes, freezeOf(&s.Freeze[i]))
	}
	return p
}

// DefaultPolicy is what holds where nobody wrote another.
func DefaultPolicy() Policy {
	d := &v1.RolloutPolicy{}
	v1.Default(d)
	return PolicyOf(&d.Spec)
}

func fraction(p *v1.Percent) float64 { return float64(v1.Value(p)) / 100 }

func freezeOf(w *v1.FreezeWindow) Freeze {
	f := Freeze{Why: w.Name}
	if w.Start != nil && w.End != nil {
		f.From, f.To = w.Start.Time, w.End.Time
		return f
	}
	f.Location, _ = time.LoadLocation(w.TimeZone) // was checked; nil is UTC
	f.Start, f.End = clock(w.From), clock(w.To)
	days := []string{"sun", "mon", "tue", "wed", "thu", "fri", "sat"}
	for i, d := range days {
		if len(w.Weekdays) == 0 || slices.Contains(w.Weekdays, d) {
			f.Weekdays = append(f.Weekdays, time.Weekday(i))
		}
	}
	return f
}

// clock is a time of day since midnight.
func clock(text string) time.Duration {
	t, err := time.Parse("15:04", text)
	if err != nil {
		return 0 // was checked
	}
	return time.Duration(t.Hour())*time.Hour + time.Duration(t.Minute())*time.Minute
}

// wait is how long a ring is watched.
func (p *Policy) wait(ring int, urgent bool) time.Duration {
	if ring >= len(p.Rings) {
		return 0
	}
	w := p.Rings[ring].Wait
	if urgent {
		w = min(w, p.Hurry)
	}
	return w
}

// size is how many of n PoPs have a bundle in a ring that counts them.
func (r *Ring) size(n int) int {
	share := int(r.Share * float64(n))
	if float64(share) < r.Share*float64(n) {
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
		return !now.Before(f.From) && now.Before(f.To)
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
