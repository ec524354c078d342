package forecast

import (
	"cmp"
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/relais-edge/relais/internal/bundle"
	"github.com/relais-edge/relais/internal/edge/balance"
)

// Access logs become cells: one for each minute, pool and tier. Bounds of what is kept:
const (
	maxCells = 50_000
	maxNames = 4096 // pools and sites, and tiers of each
)

// cell is what the log says of a tier in a minute, or, without a tier, of requests that none took.
type cell struct {
	requests balance.ByClass
	spills   balance.Spills
	millis   float64
	times    [logSteps]float32
}

// logSteps are four to each doubling, from 1/8 ms up to two minutes.
const (
	logSteps   = 80
	logPerStep = 4
)

func logStep(ms float64) int {
	return min(max(int(math.Ceil(logPerStep*math.Log2(max(ms, 0.125)*8))), 0), logSteps-1)
}

type cellKey struct {
	minute     int64
	pool, tier int32
}

// cells collects lines.
type cells struct {
	by       map[cellKey]*cell
	names    map[string]int32
	list     []string
	only     map[string]string // the pool of a site that has one only
	stats    LogStats
	last     *cell // that was used last
	lastKey  cellKey
	from, to int64 // minutes
	second   float64
}

func newCells(only map[string]string) *cells {
	return &cells{by: map[cellKey]*cell{}, names: map[string]int32{}, only: only, from: math.MaxInt64, to: math.MinInt64}
}

// name makes a number of a text; -1 when there are too many.
func (c *cells) name(s []byte) int32 {
	if i, ok := c.names[string(s)]; ok {
		return i
	}
	if len(c.list) >= maxNames {
		return -1
	}
	i := int32(len(c.list))
	c.list = append(c.list, string(s))
	c.names[c.list[i]] = i
	return i
}

// add counts a line that stands for so many.
func (c *cells) add(l *logLine, weight float64, key []byte) []byte {
	switch {
	case l.service:
		c.stats.Connections += weight
		return key
	case len(l.pool) > 0 && len(l.tier) > 0:
		org, _, _ := strings.Cut(string(l.site), "/")
		key = append(append(append(key[:0], org...), '/'), l.pool...)
	case string(l.code) == "destination_unavailable" && l.status == 503:
		pool := c.only[string(l.site)]
		if pool == "" {
			c.stats.Unplaced += weight
			return key
		}
		key, l.tier = append(key[:0], pool...), nil
	default:
		c.stats.Elsewhere += weight // a cache hit, a redirect, a block: no origin was asked
		return key
	}
	k := cellKey{l.minute, c.name(key), -1}
	if len(l.tier) > 0 {
		if k.tier = c.name(l.tier); k.tier < 0 {
			k.pool = -1
		}
	}
	if k.pool < 0 {
		c.stats.LeftOut += weight
		return key
	}
	e := c.cell(k)
	e.requests.Add(l.class, weight)
	if k.tier >= 0 {
		e.spills.Add(string(l.spill), weight)
		e.millis += weight * l.millis
		e.times[logStep(l.millis)] += float32(weight)
	}
	if l.minute > c.to || l.minute == c.to && l.seconds > c.second {
		c.to, c.second = l.minute, l.seconds
	}
	c.from = min(c.from, l.minute)
	return key
}

func (c *cells) cell(k cellKey) *cell {
	if c.last != nil && c.lastKey == k {
		return c.last
	}
	e := c.by[k]
	if e == nil {
		if len(c.by) >= maxCells {
			c.dropOldest()
		}
		e = &cell{}
		c.by[k] = e
	}
	c.last, c.lastKey = e, k
	return e
}

// dropOldest forgets a tenth of the cells: the oldest minutes.
func (c *cells) dropOldest() {
	minutes := slices.Sorted(func(yield func(int64) bool) {
		for k := range c.by {
			if !yield(k.minute) {
				return
			}
		}
	})
	until := minutes[len(minutes)/10]
	for k, e := range c.by {
		if k.minute <= until {
			c.stats.LeftOut += e.requests.All()
			delete(c.by, k)
		}
	}
	c.from, c.last = until+1, nil
}

// loads makes the recorded load of each pool of the cells.
func (c *cells) loads() []balance.PoolLoad {
	type minuteKey struct {
		pool   int32
		minute int64
	}
	minutes := map[minuteKey]*balance.Minute{}
	for k, e := range c.by {
		mk := minuteKey{k.pool, k.minute}
		m := minutes[mk]
		if m == nil {
			m = &balance.Minute{Start: k.minute * 60, Seconds: 60}
			if k.minute == c.to {
				m.Seconds = max(c.second+1, 1)
			}
			minutes[mk] = m
		}
		if k.tier < 0 {
			m.Refused = e.requests
			continue
		}
		t := balance.TierMinute{Name: c.list[k.tier], Requests: e.requests, Spills: e.spills, InFlight: e.millis / 1000 / m.Seconds}
		t.Most = t.InFlight
		t.P50, t.P95 = e.percentile(0.5), e.percentile(0.95)
		m.Tiers = append(m.Tiers, t)
	}
	pools := map[int32]*balance.PoolLoad{}
	for k, m := range minutes {
		p := pools[k.pool]
		if p == nil {
			p = &balance.PoolLoad{Key: bundle.Key(c.list[k.pool]), Since: float64(c.from * 60), Until: float64(c.to*60) + c.second + 1}
			pools[k.pool] = p
		}
		slices.SortFunc(m.Tiers, func(a, b balance.TierMinute) int { return strings.Compare(a.Name, b.Name) })
		p.Minutes = append(p.Minutes, *m)
	}
	out := make([]balance.PoolLoad, 0, len(pools))
	for _, k := range slices.Sorted(maps.Keys(pools)) {
		p := pools[k]
		slices.SortFunc(p.Minutes, func(a, b balance.Minute) int { return cmp.Compare(a.Start, b.Start) })
		out = append(out, *p)
	}
	return out
}

// percentile is the middle of the step that holds it, in ms.
func (e *cell) percentile(share float64) float64 {
	all, sum := float32(0), float32(0)
	for _, n := range e.times {
		all += n
	}
	for i, n := range e.times {
		if sum += n; n > 0 && float64(sum) >= share*float64(all) {
			return math.Exp2((float64(i)-0.5)/logPerStep) / 8
		}
	}
	return 0
}
