package balance

import v1 "github.com/relais-edge/relais/api/v1"

// This file lends the world of sim_test.go to the trials of the forecast, as what then really happens.

// RaceDetector says that all is ten times slower.
const RaceDetector = raceDetector

// Truth is a day in the world: one edge, home and an overflow.
type Truth struct {
	Seed uint64
	// Home and Overflow are servers of 20 slots and 20 ms.
	Home, Overflow int
	// Rate is requests a second, before and after the trouble.
	Before, After float64
	// Kill so many servers of home in the trouble.
	Kill int
	// Told are the slots of the tiers that the documents tell; 0 is not told.
	ToldHome, ToldOverflow int
}

// Spec is the pool's.
func (c *Truth) Spec() *v1.OriginPoolSpec { return newWorld(c.scene()).spec() }

const truthTrouble = 118 * second

func (c *Truth) scene() scene {
	return scene{
		tiers:   []simTier{{"home", c.Home, 20, 5 * ms}, {"overflow", c.Overflow, 20, 30 * ms}},
		service: exponential, seed: c.Seed, shares: []float64{1}, warm: 2 * second, from: truthTrouble, to: 178 * second, end: 178 * second,
		peak: max(c.Before, c.After),
		rate: func(t int64) float64 {
			if t < truthTrouble {
				return c.Before
			}
			return c.After
		},
		mend: func(p *v1.OriginPoolSpec) {
			p.Health.Path = "/healthz"
			for i, n := range []int{c.ToldHome, c.ToldOverflow} {
				if n > 0 {
					p.Tiers[i].Capacity.InFlight = new(n)
				}
			}
		},
		events: []simEvent{{truthTrouble, func(w *world) { w.kill(0, 0, c.Kill) }}},
	}
}

// Run returns what was recorded in the minutes before the trouble, and what then came.
func (c *Truth) Run() (before, after PoolLoad) {
	s := c.scene()
	var first PoolLoad
	s.events = append([]simEvent{{117 * second, func(w *world) { first, _ = w.edges[0].load(w.now) }}}, s.events...)
	w := newWorld(s)
	w.run()
	last, _ := w.edges[0].load(w.now)
	return first, last
}
