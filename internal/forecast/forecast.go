// Package forecast says where traffic would go, tier by tier, if something failed or more came: it runs
// the balancer's own code in virtual time on the load that was recorded. It needs no edge.
package forecast

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/bundle"
	"github.com/relais-edge/relais/internal/edge/balance"
)

// Question is what a forecast is made of.
type Question struct {
	Pools  map[bundle.Key]*v1.OriginPoolSpec
	Loads  []balance.PoolLoad
	WhatIf WhatIf
	Window Window
	Where  balance.Where
	Seed   uint64
	// Progress is told the share that is done; nil for nobody.
	Progress func(share float64)
}

// ErrNoLoad says that there is nothing to begin with.
var ErrNoLoad = errors.New("no load is recorded for any pool of the documents in that time; " +
	"ask an edge that has served them (--data), name access logs (--access-log), or widen --window")

// maxRequests bounds the requests that are simulated: of all pools together, and of one. A pool that has more is
// made smaller, its tiers with it.
const (
	maxAllRequests  = 12_000_000
	maxPoolRequests = 3_000_000
	minPoolRequests = 20_000
)

// Run makes the forecast. An error says what is wrong with the question; it is ctx's when that ends.
func Run(ctx context.Context, q *Question) (*Forecast, error) {
	aimed, err := q.WhatIf.resolve(q.Pools)
	if err != nil {
		return nil, err
	}
	var bases []*base
	total := 0.0
	unknown := []string{}
	for i := range q.Loads {
		l := &q.Loads[i]
		if q.Pools[l.Key] == nil {
			unknown = append(unknown, string(l.Key))
			continue
		}
		if b, ok := newBase(l, q.Window, balance.Waterfall(q.Pools[l.Key], q.Where)); ok {
			bases = append(bases, b)
			total += b.rate.All()
		}
	}
	if len(bases) == 0 {
		return nil, ErrNoLoad
	}
	slices.SortFunc(bases, func(a, b *base) int { return cmp.Compare(a.key, b.key) })
	factor := 1.0
	switch r := q.WhatIf.Rate; {
	case r.Factor > 0:
		factor = r.Factor
	case r.PerSecond > 0:
		factor = r.PerSecond / total
	}
	f := &Forecast{Simulation: true, How: simulated, WhatIf: q.WhatIf.say(), Factor: factor}
	budget := max(minPoolRequests, min(maxPoolRequests, maxAllRequests/float64(len(bases))))
	for i, b := range bases {
		t := &trial{base: b, spec: q.Pools[b.key], aims: aimed[b.key], factor: factor, budget: budget, where: q.Where, seed: q.Seed + uint64(i)}
		t.progress = func(share float64) {
			if q.Progress != nil {
				q.Progress((float64(i) + share) / float64(len(bases)))
			}
		}
		p, err := t.run(ctx)
		if err != nil {
			return nil, err
		}
		p.From = b.say(q.Window.Mean)
		f.Pools = append(f.Pools, *p)
	}
	f.warn(q, bases, unknown)
	f.judge()
	return f, nil
}

// simulated labels every forecast.
const simulated = "simulation: the balancer's own code in virtual time, on recorded load; not a measurement"

// say repeats the question.
func (q *WhatIf) say() string {
	var parts []string
	if len(q.Fail) > 0 {
		parts = append(parts, strings.Join(q.Fail, ", ")+" fails")
	}
	switch {
	case q.Rate.Factor > 0:
		parts = append(parts, fmt.Sprintf("rate x%g", q.Rate.Factor))
	case q.Rate.PerSecond > 0:
		parts = append(parts, fmt.Sprintf("rate %g/s", q.Rate.PerSecond))
	}
	for _, c := range q.Capacity {
		parts = append(parts, fmt.Sprintf("%s takes %d at once", c.Tier, c.Count))
	}
	if len(parts) == 0 {
		return "nothing changes"
	}
	return strings.Join(parts, "; ")
}

// warn says what lies outside of each pool.
func (f *Forecast) warn(q *Question, bases []*base, unknown []string) {
	if len(unknown) > 0 {
		slices.Sort(unknown)
		if n := len(unknown); n > listed {
			unknown = append(unknown[:listed], fmt.Sprintf("%d more", n-listed))
		}
		f.Warnings = append(f.Warnings, "load of pools that are not in the documents is left out: "+strings.Join(unknown, ", "))
	}
	if n := len(q.Pools) - len(bases); n > 0 {
		f.Warnings = append(f.Warnings, fmt.Sprintf("%d pool(s) of the documents have no recorded load and are left out", n))
	}
	for _, b := range bases {
		if b.late > 0 {
			f.Warnings = append(f.Warnings, fmt.Sprintf("%s: the record has nothing of the first %.0f minutes of that time", b.key, b.late/60))
		}
		for _, name := range slices.Sorted(maps.Keys(b.tiers)) {
			if !slices.Contains(balance.Waterfall(q.Pools[b.key], q.Where), name) {
				f.Warnings = append(f.Warnings, fmt.Sprintf("%s: tier %s was recorded and is not in the documents; its traffic goes to the others", b.key, name))
			}
		}
	}
	used := map[string]bundle.Key{}
	var shared []string
	for _, b := range bases {
		spec := q.Pools[b.key]
		for i := range spec.Tiers {
			for j := range spec.Tiers[i].Origins {
				a := address(&spec.Tiers[i].Origins[j])
				if other, ok := used[a]; ok && other != b.key {
					shared = append(shared, a)
				}
				used[a] = b.key
			}
		}
	}
	if len(shared) > 0 {
		slices.Sort(shared)
		f.Warnings = append(f.Warnings, fmt.Sprintf("%s stands in more than one pool, and each pool is forecast as if it had it alone", some(setOf(slices.Compact(shared)))))
	}
}

func setOf(list []string) map[string]bool {
	return maps.Collect(func(yield func(string, bool) bool) {
		for _, s := range list {
			if !yield(s, true) {
				return
			}
		}
	})
}

// earlyShare is which share of the requests may be lost while a change begins: of an origin that fails some always are.
const earlyShare = 0.001

// judge makes the verdict from the pools.
func (f *Forecast) judge() {
	var asked, lost balance.ByClass
	var early, begun float64
	words := "refused"
	for i := range f.Pools {
		p := &f.Pools[i]
		l := p.Lost.all()
		for _, s := range []struct{ to, from *balance.ByClass }{{&asked, &p.Asked}, {&lost, &l}} {
			s.to.Anonymous += s.from.Anonymous
			s.to.Known += s.from.Known
			s.to.Basket += s.from.Basket
		}
		early += p.Transition.Lost.All()
		begun += p.Asked.All() * p.Transition.Seconds
		if p.Lost.Failed.All()+p.Lost.Late.All() > 0 {
			words = "not answered"
		}
		f.OrdersLost = f.OrdersLost || l.Basket > 0 || p.Transition.Lost.Basket > 0
	}
	f.Fits = lost.All() == 0 && !f.OrdersLost && early <= earlyShare*begun
	var parts []string
	if asked.Basket == 0 {
		parts = append(parts, "orders kept: not known, as no visitor with a basket was recorded")
	} else if f.OrdersLost {
		parts = append(parts, "orders kept: no")
	} else {
		parts = append(parts, "orders kept: yes")
	}
	for _, c := range []struct {
		name        string
		lost, asked float64
	}{{"anonymous", lost.Anonymous, asked.Anonymous}, {"known", lost.Known, asked.Known}, {"with a basket", lost.Basket, asked.Basket}} {
		if c.lost > 0 {
			parts = append(parts, c.name+" "+words+" "+percent(c.lost/max(c.asked, c.lost)))
		}
	}
	if lost.All() == 0 {
		parts = append(parts, "nobody refused")
	}
	if early > 0 {
		parts = append(parts, fmt.Sprintf("while it begins %.0f requests lost", early))
	}
	f.Verdict = strings.Join(parts, "; ")
}

// percent writes a share so that what is little is not written as nothing.
func percent(share float64) string {
	switch p := share * 100; {
	case p > 0 && p < 0.01:
		return "under 0.01 %"
	case p < 0.1:
		return fmt.Sprintf("%.2f %%", p)
	default:
		return fmt.Sprintf("%.1f %%", p)
	}
}

// round keeps what a simulation can tell: four digits.
func round(v float64) float64 {
	if v == 0 || math.IsInf(v, 0) || math.IsNaN(v) {
		return 0
	}
	scale := math.Pow(10, 3-math.Floor(math.Log10(math.Abs(v))))
	return math.Round(v*scale) / scale
}

// Check says what is wrong with what the question names, before any load is known.
func (q *Question) Check() error {
	_, err := q.WhatIf.resolve(q.Pools)
	return err
}

// Read takes in how reading access logs went; nil is that none was read.
func (f *Forecast) Read(s *LogStats) {
	if f.Log = s; s == nil {
		return
	}
	say := func(n float64, format string) {
		if n > 0 {
			f.Warnings = append(f.Warnings, fmt.Sprintf(format, n))
		}
	}
	say(s.Unreadable, "%.0f lines of the access log are unreadable")
	say(s.Unplaced, "%.0f refused requests are left out, as their sites have several pools and the log does not say which")
	say(s.LeftOut, "%.0f lines of the access log are left out, as they are of more minutes, pools or tiers than are kept")
	if s.Sampled {
		f.Warnings = append(f.Warnings, fmt.Sprintf("the access log is long: %.1f %% of it was read, evenly, and stands for the rest", 100*float64(s.BytesRead)/float64(max(s.Bytes, 1))))
	}
	f.Warnings = append(f.Warnings, "from an access log times are whole requests, the client's part included, and limits are estimates; an edge's own record knows more")
}
