package balance

import (
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	v1 "github.com/relais-edge/relais/api/v1"
)

var onlyScene = flag.String("scene", "", "run the scenes with this in their name")

var sceneSeed = flag.Uint64("seed", 11, "of the scenes")

var allScenes = flag.Bool("scenes", false, "run every scene at full length and print the table")

// outcome is what a run came to.
type figures struct {
	answered                float64 // of the requests in the trouble, percent
	orders, lost            int
	baskets, refused, moved int
	p50, p99, calm99        float64 // ms; calm99 before the trouble
	used, healthyUsed       float64 // home, percent
	waste, early, after     float64 // percent
	slow                    float64 // origins that count as slow, percent of their time
}

func (w *world) figures() (f figures) {
	var calm, hot []int64
	n, ok := 0, 0
	for _, s := range w.samples {
		switch {
		case s.at >= w.warm && s.at < w.from:
			calm = append(calm, s.took)
		case s.at >= w.from && s.at < w.to:
			n++
			if s.ok {
				ok++
			}
			if s.at >= w.from+3*second {
				hot = append(hot, s.took)
			}
		}
	}
	slices.Sort(calm)
	slices.Sort(hot)
	at := func(l []int64, p float64) float64 {
		if len(l) == 0 {
			return 0
		}
		return float64(l[int(p*float64(len(l)-1))]) / 1e6
	}
	per := func(a, b int64) float64 { return 100 * float64(a) / float64(max(1, b)) }
	f.answered = per(int64(ok), int64(n+w.refusedAll))
	f.p50, f.p99, f.calm99 = at(hot, .5), at(hot, .99), at(calm, .99)
	f.used, f.healthyUsed = per(w.busy[0], w.live[0]), per(w.healthy, w.hSlots)
	f.waste, f.early = per(int64(w.wasted), int64(w.sentOn)), per(int64(w.spilledEarly), int64(w.early))
	f.after = per(int64(w.afterOn), int64(w.after))
	f.slow = per(int64(w.slowFound), int64(w.looked))
	f.orders, f.lost, f.baskets, f.refused, f.moved = w.orders, w.lost, w.baskets, w.refusedBaskets, w.basketMoved
	return f
}

const figuresHead = "| scene | answered % | orders | lost | basket requests | refused | moved | p50 ms | p99 ms | calm p99 | home used % | healthy % | waste % | early % | after % | slow % |\n"

func (f *figures) row(name string) string {
	return fmt.Sprintf("| %s | %.2f | %d | %d | %d | %d | %d | %.0f | %.0f | %.0f | %.1f | %.1f | %.2f | %.3f | %.1f | %.2f |\n", name, f.answered, f.orders, f.lost, f.baskets,
		f.refused, f.moved, f.p50, f.p99, f.calm99, f.used, f.healthyUsed, f.waste, f.early, f.after, f.slow)
}

func exponential(r *rand.Rand) float64 { return r.ExpFloat64() * 20 * float64(ms) }

// lognormal has the mean of exponential and a heavier tail.
func lognormal(r *rand.Rand) float64 {
	const sigma = 1.2
	return math.Exp(r.NormFloat64()*sigma-sigma*sigma/2) * 20 * float64(ms)
}

func exact(inFlight int64, slots int) (Load, bool) { return Load{inFlight, int64(slots), -1}, true }

func utilization(inFlight int64, slots int) (Load, bool) {
	return Load{-1, -1, float64(inFlight) / float64(slots)}, true
}

// slowPage takes 300 ms, half of it always.
func slowPage(r *rand.Rand) float64 {
	return min(150+150*r.ExpFloat64(), 1200) * float64(ms)
}

func even(r *rand.Rand) float64 { return (18 + 4*r.Float64()) * float64(ms) }

// homeAndOverflow: 10 servers of 20 slots and 20 ms are 10,000 requests a second; overflow has twice that.
func homeAndOverflow() []simTier {
	return []simTier{{"home", 10, 20, 5 * ms}, {"overflow", 20, 20, 30 * ms}}
}

const homeRate = 10_000

func step(base, high float64, from, to int64) func(int64) float64 {
	return func(t int64) float64 {
		if t >= from && t < to {
			return high * homeRate
		}
		return base * homeRate
	}
}

// scenes are the trials; scale shortens them.
func scenes(long bool) []scene {
	from, to, end := 5*second, 12*second, 16*second
	if long {
		from, to, end = 20*second, 60*second, 90*second
	}
	third := from + (to-from)/4
	back := from + (to-from)*5/8
	base := scene{tiers: homeAndOverflow(), service: exponential, seed: *sceneSeed, warm: 2 * second, from: from, to: to, end: end, peak: 15_000, rate: step(.6, 1.5, from, to)}
	with := func(name string, change func(*scene)) scene {
		s := base
		s.name = name
		if change != nil {
			change(&s)
		}
		return s
	}
	calm := func(s *scene) { s.rate, s.peak = step(.6, .6, 0, 0), 6000 }
	list := []scene{
		with("spike 1.5", nil),
		with("spike 2.5", func(s *scene) { s.rate, s.peak = step(.6, 2.5, from, to), 25_000 }),
		with("stays at 2", func(s *scene) {
			s.to = end
			s.rate, s.peak = step(.6, 2, from, end+second), 20_000
		}),
		with("spike, a third of home lost and back", func(s *scene) {
			s.events = []simEvent{{third, func(w *world) { w.kill(0, 0, 3) }}, {back, func(w *world) { w.revive(0, 0, 3) }}}
		}),
		with("brown-out of half of home", func(s *scene) {
			calm(s)
			s.events = []simEvent{{from, func(w *world) { w.slow(0, 0, 5, 10) }}, {to, func(w *world) { w.slow(0, 0, 5, 1) }}}
		}),
		with("all of home 3 x slower", func(s *scene) {
			calm(s)
			s.events = []simEvent{{from, func(w *world) { w.slow(0, 0, 10, 3) }}, {to, func(w *world) { w.slow(0, 0, 10, 1) }}}
		}),
		with("all of home 10 x slower", func(s *scene) {
			calm(s)
			s.events = []simEvent{{from, func(w *world) { w.slow(0, 0, 10, 10) }}, {to, func(w *world) { w.slow(0, 0, 10, 1) }}}
		}),
		with("home lost and back", func(s *scene) {
			calm(s)
			s.events = []simEvent{{from, func(w *world) { w.kill(0, 0, 10) }}, {from + (to-from)/2, func(w *world) { w.revive(0, 0, 10) }}}
		}),
		with("an edge lost and back in the spike", func(s *scene) {
			s.events = []simEvent{{third, func(w *world) { w.edges[1].alive = false }}, {back, func(w *world) { w.restart(1) }}}
		}),
		with("spike, clocks apart", func(s *scene) { s.clocks = 3 * second }),
		with("spike, lognormal", func(s *scene) { s.service = lognormal }),
		with("spike, even service", func(s *scene) { s.service = even }),
		with("spike, a small home", func(s *scene) {
			s.tiers = []simTier{{"home", 2, 8, 5 * ms}, {"overflow", 4, 8, 30 * ms}}
			s.peak, s.rate = 1200, step(.048, .12, from, to)
		}),
		with("spike, origins report", func(s *scene) { s.reports = exact }),
		with("spike 2.5, origins report", func(s *scene) {
			s.rate, s.peak, s.reports = step(.6, 2.5, from, to), 25_000, exact
		}),
		with("spike, origins report utilization", func(s *scene) { s.reports = utilization }),
		with("spike, origins lie that they are idle", func(s *scene) {
			s.reports = func(int64, int) (Load, bool) { return Load{0, 10_000_000, 0}, true }
		}),
		with("spike, home tells a third of its slots", func(s *scene) {
			s.reports = func(n int64, slots int) (Load, bool) { return Load{n, int64(slots) / 3, -1}, true }
		}),
		with("reload in the spike", func(s *scene) {
			for i := range int64(8) {
				s.events = append(s.events, simEvent{from + (to-from)*(i+1)/9, func(w *world) {
					for _, e := range w.edges {
						spec := w.spec()
						spec.Retries.Attempts = new(int(3 + i))
						if err := e.update(spec, e.checks); err != nil {
							panic(err)
						}
					}
				}})
			}
		}),
	}
	if long {
		slow := func(name string, service func(*rand.Rand) float64, times, pages float64) scene {
			return with(name, func(s *scene) {
				s.tiers = []simTier{{"home", 6, 10, ms}, {"overflow", 12, 10, ms}}
				s.service, s.patience, s.peak = service, 20*second, times*200*pages
				s.rate = step(.012*pages, .02*pages*times, from, to)
			})
		}
		list = append(list, slow("spike, pages of 300 ms", slowPage, 1.5, 1), slow("spike 2.5, pages of 300 ms", slowPage, 2.5, 1),
			with("stays at 2 for ten minutes", func(s *scene) {
				s.end = 620 * second
				s.to = s.end
				s.rate, s.peak = step(.6, 2, from, s.end+second), 20_000
			}))
	}
	return append(list, mixedScenes(base)...)
}

// mixedScenes are of pages of 300 ms and files of next to no time, as many to a page as told; like the live drill, and always
// at full length.
func mixedScenes(base scene) []scene {
	const pages = 200 // a second, that home can do
	base.from, base.to, base.end = 20*second, 60*second, 90*second
	base.tiers, base.service, base.patience = []simTier{{"home", 6, 10, ms}, {"overflow", 12, 10, ms}}, slowPage, 20*second
	constant := func(files float64) func(int64) float64 { return func(int64) float64 { return files } }
	change := func(before, after float64, at int64) func(int64) float64 {
		return func(t int64) float64 {
			if t < at {
				return before
			}
			return after
		}
	}
	mixed := func(name string, times float64, perPage func(t int64) float64) scene {
		s := base
		s.name = name
		s.files = func(t int64) float64 { return perPage(t) / (1 + perPage(t)) }
		s.peak = times * pages * (1 + max(perPage(0), perPage(s.end)))
		s.rate = func(t int64) float64 { return step(.6, times, s.from, s.to)(t) / homeRate * pages * (1 + perPage(t)) }
		return s
	}
	told := mixed("files, told", 1.5, constant(3))
	told.shares = []float64{1}
	told.mend = func(p *v1.OriginPoolSpec) {
		p.Tiers[0].Capacity.InFlight, p.Tiers[0].Capacity.SoftMark = new(60), new(v1.Percent(95))
	}
	pages15, pages25 := mixed("spike 1.5, told", 1.5, constant(0)), mixed("spike 2.5, told", 2.5, constant(0))
	pages15.shares, pages15.mend, pages25.shares, pages25.mend = told.shares, told.mend, told.shares, told.mend
	half := func(name string, like scene) scene {
		s := like
		requests := pages * (1 + like.files(0)/(1-like.files(0)))
		s.name, s.peak, s.rate = name, requests, step(.6*requests/homeRate, .6*requests/homeRate, 0, 0)
		s.events = []simEvent{{s.from, func(w *world) { w.slow(0, 0, 3, 10) }}, {s.to, func(w *world) { w.slow(0, 0, 3, 1) }}}
		return s
	}
	stays := mixed("stays at 2 for three minutes, pages of 300 ms", 2, constant(0))
	stays.to, stays.end = 200*second, 200*second
	stays.rate = step(.6*pages/homeRate, 2.0*pages/homeRate, stays.from, stays.end+second)
	return []scene{
		pages15, pages25, stays,
		half("half of home 10 x slower, pages of 300 ms", mixed("", 1, constant(0))), half("half of home 10 x slower, told", pages15),
		half("half of home 10 x slower, files", mixed("", 1, constant(3))), half("half of home 10 x slower, files, told", told),
		mixed("files", 1.5, constant(3)), mixed("files, 2.5", 2.5, constant(3)), told,
		mixed("files, three a page become one in the spike", 1.5, change(3, 1, base.from)),
		mixed("files, one a page becomes three in the spike", 1.5, change(1, 3, base.from)),
		mixed("files, three a page become one, then the spike", 1.5, change(3, 1, base.from/2)),
		mixed("files, one a page becomes three, then the spike", 1.5, change(1, 3, base.from/2)),
	}
}

// restart gives an edge that was gone an empty memory.
func (w *world) restart(i int) {
	old := w.edges[i]
	w.addEdge()
	e := w.edges[len(w.edges)-1]
	w.edges = w.edges[:len(w.edges)-1]
	e.idle = old.idle
	w.edges[i] = e
}

// goals are what a scene must come to. Those of the issue are met with a margin, which seeds do not use up.
type goals struct {
	p99    float64 // ms
	used   float64 // home, or what is quick of it
	waste  float64
	early  float64
	moved  float64 // percent of the requests with a basket that went elsewhere
	slow   float64 // percent of the time of origins that counted as slow, though none was; 0 is any
	health bool    // used is that of the servers that are quick
}

func goalsOf(name string) goals {
	spike := goals{p99: 1.3 * 97, used: 85, waste: 2, early: 0.5, moved: 1}
	if strings.HasPrefix(name, "files") && name != "files, told" {
		spike.p99, spike.moved, spike.slow = 1.3*630, 2, 0.05
		if strings.Contains(name, "become one") {
			spike.p99 = 1.3 * 730
		}
		return spike
	}
	switch name {
	case "spike 1.5, told", "spike 2.5, told":
		return goals{p99: 1.1 * 820, used: 96, waste: 1, early: 0.1, moved: 0.5}
	case "files, told":
		return goals{p99: 1.1 * 630, used: 96, waste: 1, early: 0.1, moved: 0.5}
	case "stays at 2 for three minutes, pages of 300 ms":
		spike.p99, spike.moved = 1.6*830, 2 // 950 usually
	case "half of home 10 x slower, pages of 300 ms":
		return goals{p99: 820 + 600, used: 80, waste: 100, early: 0.5, moved: 2, health: true} // 1070 usually: of 28 visitors it takes 44
	case "half of home 10 x slower, told", "half of home 10 x slower, files", "half of home 10 x slower, files, told":
		return goals{p99: 820 + 200, used: 80, waste: 1, early: 0.5, moved: 2, health: true}
	case "brown-out of half of home":
		return goals{p99: 97 + 200, used: 80, waste: 2, early: 0.5, moved: 2, health: true}
	case "all of home 3 x slower":
		return goals{p99: 3*92 + 5 + 80, used: 75, waste: 100, early: 0.5, moved: 2}
	case "all of home 10 x slower":
		return goals{p99: 1000, used: 60, waste: 100, early: 0.5, moved: 10}
	case "home lost and back":
		return goals{p99: 1.3 * 97, waste: 100, early: 0.5, moved: 10}
	case "an edge lost and back in the spike":
		spike.p99 = 1.4 * 97
	case "spike, lognormal":
		spike.p99 = 1.3 * 165
	case "spike, pages of 300 ms", "spike 2.5, pages of 300 ms":
		spike.p99, spike.moved = 1.3*870, 2
	case "spike, a small home":
		spike.p99 = 1.5 * 97 // of 16 places, so that each draw shows
		spike.early = 4
		spike.waste = 5
	case "spike, origins lie that they are idle":
		spike.moved = 5
	case "spike, origins report utilization":
		spike.used, spike.waste = 75, 20
	case "spike, home tells a third of its slots":
		return goals{p99: 1.4 * 97, used: 25, waste: 100, early: 100, moved: 2}
	}
	return spike
}

// TestScenes holds the goals: no order is lost, nobody with a basket is refused, and home is neither left empty nor
// made to queue.
func TestScenes(t *testing.T) {
	var mu sync.Mutex
	var table strings.Builder
	table.WriteString("\n" + figuresHead)
	t.Cleanup(func() { t.Log(table.String()) })
	for i, s := range scenes(*allScenes) {
		if !strings.Contains(s.name, *onlyScene) || raceDetector && i > 0 {
			continue
		}
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(s)
			w.run()
			f, g := w.figures(), goalsOf(s.name)
			mu.Lock()
			table.WriteString(f.row(s.name))
			mu.Unlock()
			used := f.used
			if g.health {
				used = f.healthyUsed
			}
			if f.lost > 0 || f.refused > 0 || f.orders < 100 || f.answered < 99.9 {
				t.Errorf("%d of %d orders lost, %d baskets refused, %.2f %% answered", f.lost, f.orders, f.refused, f.answered)
			}
			if f.p99 > g.p99 || used < g.used || f.waste > g.waste || f.early > g.early || float64(f.moved) > g.moved/100*float64(f.baskets) || g.slow > 0 && f.slow > g.slow {
				t.Errorf("missed %+v:\n%s%s", g, figuresHead, f.row(s.name))
			}
		})
	}
}
