package main

import (
	"context"
	"time"

	"github.com/relais-edge/relais/demo/visitors"
)

// The times of every scenario: quiet first, then what it is about, then quiet again.
const (
	quietFrom = 5 * time.Second // the first seconds fill the shop with visitors
	turn      = 20 * time.Second
	settle    = 3 * time.Second // after this the goals hold
	spike     = 40 * time.Second
	after     = 10 * time.Second
)

// event is something that happens to the clusters.
type event struct {
	at time.Duration
	do func(ctx context.Context, f *field) error
}

// scenario is one thing that a shop lives through.
type scenario struct {
	name   string
	length time.Duration
	end    time.Duration // of what it is about
	rate   func(base float64) visitors.Rate
	events []event
	slow   bool // half of home is slow
	full   bool // home has more than it can do, so that it should be used
}

// baseLoad is the share of home that is used on a quiet day.
const baseLoad = 0.6

func scenarios() []scenario {
	spiked := func(name string, times float64) scenario {
		return scenario{
			name: name, length: turn + spike + after, end: turn + spike, full: true,
			rate: func(base float64) visitors.Rate { return visitors.Spike(base, times/baseLoad, turn, turn+spike) },
		}
	}
	third := spiked("spike 1.5 x, a third of home dies and returns", 1.5)
	third.events = []event{{turn + 12*time.Second, someOf(3, (*origin).die)}, {turn + 26*time.Second, someOf(3, (*origin).start)}}
	stays := spiked("rise to 2 x that stays", 2)
	stays.length, stays.end = turn+spike, turn+spike
	return []scenario{
		spiked("spike 1.5 x", 1.5),
		spiked("spike 2.5 x", 2.5),
		stays,
		third,
		{
			name: "half of home 10 x slower", length: turn + spike + after, end: turn + spike, slow: true,
			rate:   func(base float64) visitors.Rate { return visitors.Constant(base) },
			events: []event{{turn, someOf(2, (*origin).slower)}, {turn + spike, someOf(2, (*origin).faster)}},
		},
	}
}

// someOf does a thing to the first of every so many parts of home.
func someOf(part int, do func(*origin, context.Context) error) func(context.Context, *field) error {
	return func(ctx context.Context, f *field) error {
		for _, o := range f.home.origins[:len(f.home.origins)/part] {
			if err := do(o, ctx); err != nil {
				return err
			}
		}
		return nil
	}
}

func (o *origin) die(context.Context) error {
	o.kill()
	return nil
}

// slowness is how much slower a slow origin is.
const slowness = 10

func (o *origin) slower(context.Context) error {
	o.mean.Store(o.mean.Load() * slowness)
	return nil
}

func (o *origin) faster(context.Context) error {
	o.mean.Store(o.mean.Load() / slowness)
	return nil
}

// happen lets the events happen at their times.
func (sc scenario) happen(ctx context.Context, f *field) {
	for _, e := range sc.events {
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Until(f.began.Add(e.at))):
		}
		if err := e.do(ctx, f); err != nil {
			f.fault(err)
			return
		}
	}
}
