package balance

import (
	"testing"
	"time"

	"github.com/relais-edge/relais/internal/stage"
)

// spend sends so many requests of a class, each in flight for a tick and a half, and looks at the pool meanwhile.
func (b *bed) spend(t testing.TB, class stage.Class, n int) {
	t.Helper()
	for i := range n {
		s, err := b.pick(Visitor{Class: class, Key: uint64(i + 1)})
		if err != nil {
			t.Fatal(err)
		}
		s.count(b.view.Load())
		b.look25(1)
		s.paced(b.now.Load())
		s.Release(Succeeded)
		b.look25(1)
	}
}

// look25 lets so many ticks pass.
func (b *bed) look25(n int) {
	for range n {
		b.pass(tick)
		b.observe(b.now.Load(), b.now.Load())
	}
}

func TestHistoryHasTheMinutesOfTheLastHour(t *testing.T) {
	b := newBed(t, poolSpec("least-request", tierSpec("home", 2, 0, 0), tierSpec("overflow", 2, 0, 0)))
	b.observe(b.now.Load(), b.now.Load())
	for m := range 70 {
		b.look25(1) // which begins the minute
		b.spend(t, stage.Anonymous, m+1)
		b.spend(t, stage.Known, 2)
		b.spend(t, stage.Protected, 3)
		b.history.away[stage.Anonymous].Add(5)
		left := int64(time.Minute) - b.now.Load()%int64(time.Minute)
		b.look25(int(left/int64(tick)) - 1)
		b.pass(tick)
	}
	l, ok := b.load(b.now.Load())
	if !ok || len(l.Minutes) != historyMinutes+1 {
		t.Fatalf("%d minutes, %v", len(l.Minutes), ok)
	}
	last := l.Minutes[historyMinutes-1]
	home := last.Tiers[0]
	if want := (ByClass{70, 2, 3}); home.Requests != want || last.Refused.Anonymous != 5 || last.Seconds != 60 || home.Name != "home" {
		t.Errorf("%+v", last)
	}
	// 75 requests of a tick in a minute.
	if want := 75 * tick.Seconds() / 60; home.InFlight < 0.9*want || home.InFlight > 1.1*want || home.Most != 1 {
		t.Errorf("in flight %v, want %v; most %v", home.InFlight, want, home.Most)
	}
	if home.P50 < 22 || home.P50 > 28 || home.P95 < home.P50 {
		t.Errorf("percentiles %v and %v of 25 ms", home.P50, home.P95)
	}
	if n := len(b.history.kept); n != historyMinutes {
		t.Errorf("%d are kept", n)
	}
}

func TestHistorySaysWhatSpilled(t *testing.T) {
	b := newBed(t, poolSpec("least-request", tierSpec("home", 1, 2, 0), tierSpec("overflow", 1, 0, 0)))
	b.observe(b.now.Load(), b.now.Load())
	for i := range 5 {
		s := b.must(t, Visitor{Class: stage.Known, Key: uint64(i)})
		s.count(b.view.Load())
	}
	l, _ := b.load(b.now.Load() + int64(time.Second))
	over := l.Minutes[0].Tiers[1]
	if over.Requests.Known != 3 || over.Spills != (Spills{Hard: 3}) || l.Minutes[0].Tiers[0].Spills.All() != 0 {
		t.Errorf("%+v", over)
	}
}

func TestAMinuteAtRestIsNotThere(t *testing.T) {
	b := newBed(t, poolSpec("least-request", tierSpec("home", 1, 0, 0)))
	b.observe(b.now.Load(), b.now.Load())
	b.spend(t, stage.Anonymous, 3)
	b.pass(10 * time.Minute) // nobody looks at a pool that rests
	l, _ := b.load(b.now.Load())
	if len(l.Minutes) != 2 || l.Minutes[0].Tiers[0].Requests.Anonymous != 3 || l.Minutes[1].Tiers[0].Requests.All() != 0 {
		t.Errorf("%+v", l.Minutes)
	}
	b.pass(2 * time.Hour)
	if l, _ = b.load(b.now.Load()); len(l.Minutes) != 1 {
		t.Errorf("%+v", l.Minutes)
	}
}

func TestHistoriesAreBounded(t *testing.T) {
	b := newBed(t, poolSpec("least-request", tierSpec("home", 1, 0, 0), tierSpec("overflow", 1, 0, 0)))
	b.metrics.places.taken = maxHistories - 1
	b.observe(b.now.Load(), b.now.Load())
	if _, ok := b.load(b.now.Load()); ok || b.metrics.places.taken != maxHistories-1 {
		t.Errorf("it has a history beyond the limit, %d are taken", b.metrics.places.taken)
	}
	b.metrics.places.taken = 0
	b.pass(time.Minute) // it asks again
	b.observe(b.now.Load(), b.now.Load())
	if _, ok := b.load(b.now.Load()); !ok || b.metrics.places.taken != 2 {
		t.Errorf("there is room, and %d are taken", b.metrics.places.taken)
	}
	b.close(b.checks)
	if b.observe(b.now.Load()+int64(time.Minute), b.now.Load()+int64(time.Minute)); b.metrics.places.taken != 0 {
		t.Errorf("a pool that is gone keeps %d", b.metrics.places.taken)
	}
}
