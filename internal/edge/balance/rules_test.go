package balance

import (
	"math"
	"strings"
	"testing"
)

// The rules that others use, to compare the product's with. Each has a limit for each edge, from
// the answers of a tenth of a second.

type edgeRule struct {
	limit, low, long float64
	sum, n, peak     float64
	quick            float64
	from             int64
}

type candidate struct {
	edges [8]edgeRule
	law   func(e *edgeRule, mean float64)
	start float64
}

func (c *candidate) answered(edge int, t *tier, start, now int64) {
	if t.name != "home" {
		return
	}
	e := &c.edges[edge]
	took := float64(now - start)
	e.sum, e.n = e.sum+took, e.n+1
	if e.quick == 0 || took < e.quick {
		e.quick = took
	}
	e.peak = max(e.peak, float64(t.inFlight.Load()))
}

func (c *candidate) tick(w *world, edge int, now int64) {
	e := &c.edges[edge]
	if e.limit == 0 {
		e.limit = c.start
	}
	if now-e.from >= 100*ms && e.n >= 10 {
		c.law(e, e.sum/e.n)
		e.sum, e.n, e.peak, e.quick, e.from = 0, 0, 0, 0, now
	}
	p := w.edges[edge]
	p.mu.Lock()
	t := &p.plan[0]
	t.state.limiter.size = e.limit
	t.mark()
	p.mu.Unlock()
}

func none(e *edgeRule, _ float64) { e.limit = math.Inf(1) }

// gradient cuts by the ratio of the least mean to the mean, and adds the root of the limit: the prototype's rule.
func gradient(e *edgeRule, mean float64) {
	if e.low == 0 || mean < e.low {
		e.low = mean
	}
	e.low *= 1.0002
	g := max(.5, min(1, 1.3*e.low/mean))
	l := e.limit*g + math.Sqrt(e.limit)/2
	if e.peak > e.limit/2 || l < e.limit {
		e.limit = max(4, .7*e.limit+.3*l)
	}
}

// gradient2 compares a short average with a long one.
func gradient2(e *edgeRule, mean float64) {
	if e.long == 0 {
		e.long = mean
	}
	e.long += (mean - e.long) / 60
	if e.long/mean > 2 {
		e.long *= .95
	}
	if e.peak < e.limit/2 {
		return
	}
	g := max(.5, min(1, 1.5*e.long/mean))
	e.limit = max(4, .8*e.limit+.2*(e.limit*g+4))
}

// vegas keeps between 3 and 6 times the logarithm of the limit in the queue, against the quickest answer.
func vegas(e *edgeRule, mean float64) {
	if e.low == 0 || mean < e.low {
		e.low = mean
	}
	queue := e.limit * (1 - e.low/mean)
	k := max(1, math.Log10(e.limit))
	switch {
	case e.peak < e.limit/2:
	case queue > 6*k:
		e.limit = max(4, e.limit-k)
	case queue < 3*k:
		e.limit += k
	}
}

// aimd cuts by a tenth when the mean is above a time that somebody must tell, twice the mean at ease.
func aimd(e *edgeRule, mean float64) {
	switch {
	case mean > 50*float64(ms):
		e.limit = max(4, e.limit*.9)
	case e.peak >= e.limit*.8:
		e.limit += 2
	}
}

// BenchmarkRules prints how other rules do; it judges none.
func BenchmarkRules(t *testing.B) {
	for _, r := range []struct {
		name string
		law  func(*edgeRule, float64)
	}{{"none", none}, {"gradient on the mean", gradient}, {"gradient2", gradient2}, {"vegas", vegas}, {"AIMD at 50 ms told", aimd}, {"ours", nil}} {
		var b strings.Builder
		b.WriteString("\n" + r.name + "\n" + figuresHead)
		for _, s := range scenes(false) {
			switch s.name {
			case "spike 1.5", "spike 2.5", "brown-out of half of home", "all of home 3 x slower", "spike, lognormal", "spike, a small home":
			default:
				continue
			}
			if r.law != nil {
				s.rule = &candidate{law: r.law, start: 20}
			}
			w := newWorld(s)
			w.run()
			f := w.figures()
			b.WriteString(f.row(s.name))
		}
		t.Log(b.String())
	}
}
