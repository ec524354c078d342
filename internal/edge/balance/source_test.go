package balance

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/bundle"
	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/stage"
)

// shopOf is a pool of so many places, a fifth of them kept for baskets.
func shopOf(places int) map[string]*v1.OriginPoolSpec {
	p := poolSpec(v1.First, tierSpec("home", 1, places, 20))
	p.WhenFull = v1.WhenFullSpec{Wait: new(v1.Duration(3 * time.Second)), Waiting: new(100)}
	return map[string]*v1.OriginPoolSpec{"shop": p}
}

// at is a visitor with a basket from an address and a network.
func at(address, network, key uint64, step stage.Step) stage.Visitor {
	return stage.Visitor{Class: stage.Protected, Key: key, Source: address, Network: network, Step: step, Reached: stage.StepCheckout}
}

// stays sends a request and keeps its place for a while.
func (r *rig) stays(ctx context.Context, v stage.Visitor, d time.Duration) error {
	x, err := r.visit(ctx, v)
	if err == nil {
		time.Sleep(d)
	}
	x.End(message.Outcome{})
	return err
}

// siege is what befalls a full pool.
type siege struct {
	name   string
	farms  []source   // addresses from which farmed baskets come
	step   stage.Step // that they ask for
	hold   time.Duration
	buyers func(n uint64) source // where buyer n comes from
}

// endure has 150 farmed baskets ask without end while 75 orders come in 15 s. Refused is how many of those were.
func (s *siege) endure(t *testing.T, places int) (refused, farmed int64) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, shopOf(places))
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { _ = r.Run(ctx) })
		var lost, got atomic.Int64
		for i := range uint64(150) {
			wg.Go(func() {
				from := s.farms[i%uint64(len(s.farms))]
				for ctx.Err() == nil {
					if r.stays(ctx, at(from.address, from.network, 1000+i, s.step), s.hold) == nil {
						got.Add(1)
					}
					time.Sleep(250 * time.Millisecond)
				}
			})
		}
		for range 20 { // and visitors without a basket
			wg.Go(func() {
				for ctx.Err() == nil {
					_ = r.stays(ctx, stage.Visitor{Key: 3, Source: 6 << 40, Network: 6 << 50}, s.hold)
					time.Sleep(100 * time.Millisecond)
				}
			})
		}
		time.Sleep(5 * time.Second)
		rng := rand.New(rand.NewPCG(1, 2))
		var orders sync.WaitGroup
		for n := range uint64(75) {
			orders.Go(func() {
				from := s.buyers(n)
				if err := r.stays(ctx, at(from.address, from.network, n+1, stage.StepOrder), 300*time.Millisecond); err != nil {
					lost.Add(1)
				}
			})
			time.Sleep(100*time.Millisecond + time.Duration(rng.Int64N(int64(200*time.Millisecond))))
		}
		orders.Wait()
		cancel()
		wg.Wait()
		refused, farmed = lost.Load(), got.Load()
		r.idle(t)
		for _, p := range r.pools {
			if n := p.held(); n != 0 {
				t.Errorf("%d places and turns are still counted", n)
			}
		}
	})
	return refused, farmed
}

// held is the sum of what is counted.
func (p *Pool) held() (n int64) {
	if c := p.holdings.Load(); c != nil {
		for i := range c.rows {
			for k := range c.rows[i] {
				n += int64(c.rows[i][k].Load())
			}
		}
	}
	return n
}

func oneFarm() []source { return []source{{1 << 40, 1 << 50}} }

// fewFarms are five addresses, of which three are neighbours.
func fewFarms() []source {
	return []source{{1 << 40, 1 << 50}, {2 << 40, 1 << 50}, {3 << 40, 1 << 50}, {4 << 40, 2 << 50}, {5 << 40, 3 << 50}}
}

// Farmed baskets take what nobody else wants. Orders of others find a place all the same: those of buyers who are
// alone behind their addresses, and those of four in ten who are behind three.
func TestFarmedBasketsOfAFewSourcesKeepNoOrderOut(t *testing.T) {
	alone := func(n uint64) source { return source{n + 1, n/3 + 1} }
	shared := func(n uint64) source {
		if n%5 < 2 {
			return source{90_000 + n%3, 90_000}
		}
		return alone(n)
	}
	for _, s := range []siege{
		{"one address that looks", oneFarm(), stage.StepBrowse, 2 * time.Second, alone},
		{"one address that asks for the order's path", oneFarm(), stage.StepOrder, 2 * time.Second, alone},
		{"one address, buyers behind shared ones", oneFarm(), stage.StepOrder, 2 * time.Second, shared},
		{"one address with requests that last", oneFarm(), stage.StepOrder, 40 * time.Second, alone},
		{"a few addresses that ask for the order's path", fewFarms(), stage.StepOrder, 2 * time.Second, alone},
		{"a few addresses, buyers behind shared ones", fewFarms(), stage.StepOrder, 2 * time.Second, shared},
	} {
		t.Run(s.name, func(t *testing.T) {
			refused, farmed := s.endure(t, 40)
			if refused != 0 {
				t.Errorf("%d of 75 orders were refused", refused)
			}
			if farmed == 0 {
				t.Error("who yields got no place at all")
			}
		})
	}
}

// That the siege is one: where nobody knows the sources, it takes what is kept for orders.
func TestTheSiegeWouldTakeTheReserveIfSourcesWereNotKnown(t *testing.T) {
	s := siege{"", []source{{}}, stage.StepOrder, 2 * time.Second, func(uint64) source { return source{} }}
	if refused, _ := s.endure(t, 40); refused < 15 {
		t.Errorf("only %d of 75 orders were refused", refused)
	}
}

func TestWhoIsAloneHasAllPlaces(t *testing.T) {
	for _, wait := range []time.Duration{0, 3 * time.Second} {
		synctest.Test(t, func(t *testing.T) {
			spec := shopOf(20)
			spec["shop"].WhenFull.Wait = new(v1.Duration(wait))
			r := newRig(t, spec)
			var sitting []*stage.Exchange
			for i := range 20 {
				x, err := r.visit(t.Context(), at(7, 8, 1, stage.StepBrowse))
				if err != nil {
					t.Fatalf("request %d of the only source: %v", i, err)
				}
				sitting = append(sitting, x)
			}
			if _, err := r.visit(t.Context(), at(7, 8, 1, stage.StepBrowse)); !errors.Is(err, ErrFull) {
				t.Errorf("beyond the limit: %v", err)
			}
			for _, x := range sitting {
				x.End(message.Outcome{})
			}
			r.idle(t)
		})
	}
}

func TestOfTheReserveASourceLeavesPlacesToThoseWhoHaveLess(t *testing.T) {
	b := newBed(t, shopOf(20)["shop"]) // 16 for everybody, 4 kept
	rich, poor := Visitor{Class: stage.Protected, Source: 7, Network: 8}, Visitor{Class: stage.Protected, Source: 9, Network: 10}
	callback := Visitor{Class: stage.Protected}
	var held []Slot
	for range 18 {
		held = append(held, b.must(t, rich))
	}
	if _, err := b.pick(rich); !errors.Is(err, ErrFull) {
		t.Errorf("a source with 18 places takes one that others need: %v", err)
	}
	if n := b.tiers["home"].reserve.away.Load(); n != 0 {
		t.Errorf("%d who yielded are counted as a want of places", n)
	}
	held = append(held, b.must(t, poor), b.must(t, callback))
	if _, err := b.pick(callback); !errors.Is(err, ErrFull) {
		t.Errorf("beyond the limit: %v", err)
	}
	for i := range held {
		held[i].Release(Succeeded)
	}
	if n := b.held(); n != 0 {
		t.Errorf("%d are still counted", n)
	}
}

func TestRivalsAreThereForAMinute(t *testing.T) {
	var r rivals
	now := second
	for range 10 {
		if r.note(7, now); !r.none(now) {
			t.Fatal("one address is its own rival")
		}
		now += second
	}
	r.note(0, now) // nobody knows
	if r.note(8, now); r.none(now) {
		t.Error("two addresses are no rivals")
	}
	for range 59 {
		now += second
		if r.note(8, now); r.none(now) {
			t.Fatal("forgotten within a minute")
		}
	}
	if now += 2 * second; !r.none(now) {
		t.Error("alone for a minute, and still a rival")
	}
}

// A full line lets in who has less than its last.
func TestAFullLineGivesWayToWhoHasLess(t *testing.T) {
	var l line
	ask := func(lane int, rank uint32) *waiter {
		return &waiter{turn: make(chan struct{}, 1), lane: lane, rank: rank, held: int64(rank)}
	}
	first, second := ask(1, rankCount+rankPath), ask(1, 2*rankCount+rankPath)
	if !l.join(first, 2) || !l.join(second, 2) || l.join(ask(1, 2*rankCount+rankPath), 2) {
		t.Fatal("two of two did not join, or a third")
	}
	light := ask(1, rankPath)
	if !l.join(light, 2) || l.waiting.Load() != 2 {
		t.Fatal("who has less did not join")
	}
	if _, out := l.look(second, 100); !out {
		t.Error("the last is not out")
	}
	if len(second.turn) != 1 {
		t.Error("the last was not told")
	}
	order := ask(0, rankCount+rankOrder)
	if !l.join(order, 2) {
		t.Error("an order did not join")
	}
	for _, c := range []struct {
		room int64
		want *waiter
	}{{0, nil}, {int64(light.rank) + 1, light}, {100, light}} {
		if got := l.head(c.room); got != c.want {
			t.Errorf("with room for %d: %+v", c.room, got)
		}
	}
	for _, w := range []*waiter{light, order, first} { // an order before the basket of a source that has as much
		if next, _ := l.look(w, 100); !next {
			t.Errorf("not next: %+v", w)
		}
		l.leave(w)
	}
	if l.leave(second); l.waiting.Load() != 0 {
		t.Errorf("%d wait", l.waiting.Load())
	}
}

func TestOrdersComeBeforeConfirmedBasketsAndTheseBeforePaths(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, oneSeat(3*time.Second, 10))
		sitting, err := r.visit(t.Context(), anonymous)
		if err != nil {
			t.Fatal(err)
		}
		confirmed := at(3, 3, 3, stage.StepBrowse)
		confirmed.Confirmed = true
		came := make(chan string, 8)
		var wg sync.WaitGroup
		for _, w := range []struct {
			who string
			v   stage.Visitor
		}{
			{"a path", at(1, 1, 1, stage.StepBrowse)},
			{"nobody at the checkout", stage.Visitor{Class: stage.Known, Step: stage.StepOrder}},
			{"confirmed", confirmed},
			{"the checkout", at(4, 4, 4, stage.StepCheckout)},
			{"an order", at(5, 5, 5, stage.StepOrder)},
			{"a callback", stage.Visitor{Class: stage.Protected, Step: stage.StepOrder, Confirmed: true, Callback: true}},
		} {
			wg.Go(func() {
				if x, err := r.visit(t.Context(), w.v); err == nil {
					came <- w.who
					time.Sleep(100 * time.Millisecond)
					x.End(message.Outcome{})
				}
			})
			synctest.Wait()
		}
		sitting.End(message.Outcome{})
		wg.Wait()
		close(came)
		want := []string{"an order", "a callback", "confirmed", "the checkout", "a path"}
		i := 0
		for who := range came {
			if i >= len(want) || who != want[i] {
				t.Errorf("%d: %s, want the order %v", i, who, want)
			}
			i++
		}
		if i != len(want) {
			t.Errorf("%d came in, want %v", i, want)
		}
		r.idle(t)
	})
}

// A brief wait for the tier of the basket is not filled by one source either.
func TestABriefWaitGivesWayToWhoHasLess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, _, _ := brief(t, 8, 1)
		var sitting []*stage.Exchange
		for range 8 {
			v := <-r.come(t.Context(), at(7, 7, 1, stage.StepBrowse))
			sitting = append(sitting, v.x)
		}
		var farmed []<-chan visited
		for range basketWaits { // as many as may wait
			farmed = append(farmed, r.come(t.Context(), at(7, 7, 1, stage.StepBrowse)))
		}
		buyer := r.come(t.Context(), at(9, 9, 2, stage.StepOrder))
		sitting[0].End(message.Outcome{})
		got := <-buyer
		if got.err != nil || got.x.Tier != "home" {
			t.Errorf("a buyer: %v in %q", got.err, got.x.Tier)
		}
		for _, c := range farmed {
			if f := <-c; f.err != nil || f.x.Tier != "overflow" {
				t.Errorf("a farmed basket: %v in %q", f.err, f.x.Tier)
			} else {
				f.x.End(message.Outcome{})
			}
		}
		got.x.End(message.Outcome{})
		for _, x := range sitting[1:] {
			x.End(message.Outcome{})
		}
		r.idle(t)
		if n := r.pools[bundle.NewKey("org", "shop")].held(); n != 0 {
			t.Errorf("%d are still counted", n)
		}
	})
}
