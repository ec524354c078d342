//go:build !race

// The world has one goroutine, in which there is no race to be found; with the detector it takes ten times as long.

package balance

import (
	"testing"

	v1 "github.com/relais-edge/relais/api/v1"
)

// drill runs a scene and holds what must be true of every one: no order is lost, nobody with a basket is refused.
func drill(t *testing.T, s scene) *world {
	t.Helper()
	t.Parallel()
	w := newWorld(s)
	w.run()
	f := w.figures()
	lost, missing, open, repeated := s.book.verdict()
	seconds := float64(s.to-s.warm) / 1e9
	total, answered := 0, 0
	for _, r := range w.samples {
		if r.at >= s.warm && r.at < s.to {
			if total++; r.ok {
				answered++
			}
		}
	}
	rate := float64(total) / seconds
	t.Logf("\n| fault | virtual s | requests/s | orders | confirmed | worked on twice | lost | not once in the ledger | open | baskets refused | answered %% | p99 ms |\n"+
		"|---|---|---|---|---|---|---|---|---|---|---|---|\n| %s | %.0f | %.0f | %d | %d | %d | %d | %d | %d | %d | %.3f | %.0f |",
		s.name, float64(s.end)/1e9, rate, s.book.opened, s.book.confirmed, repeated, lost, missing, open, f.refused, 100*float64(answered)/float64(max(1, total)), f.p99)
	if lost > 0 || missing > 0 || open > 0 || f.lost > 0 {
		t.Errorf("%d orders lost, %d confirmed ones not once in the ledger, %d open", lost, missing, open)
	}
	if f.refused > 0 {
		t.Errorf("%d baskets refused", f.refused)
	}
	if float64(answered) < 0.999*float64(total) {
		t.Errorf("%d of %d answered", answered, total)
	}
	if rate < 0.98*drillRate || float64(s.book.opened) < 0.98*drillOrders*float64(s.to)/1e9 {
		t.Errorf("%.0f requests a second and %d orders are not the drill", rate, s.book.opened)
	}
	return w
}

func TestDrillSpike(t *testing.T) {
	s := drillScene("spike: twice the rate")
	s.spikeTo(2)
	if w := drill(t, s); w.sentOn == 0 {
		t.Error("nothing went to the overflow: the test proves nothing")
	}
}

func TestDrillBrownOut(t *testing.T) {
	s := drillScene("brown-out: half of home 10 x slower")
	s.events = []simEvent{{s.from, func(w *world) { w.slow(0, 0, 5, 10) }}, {s.to, func(w *world) { w.slow(0, 0, 5, 1) }}}
	if w := drill(t, s); w.sentOn == 0 {
		t.Error("nothing went to the overflow: the test proves nothing")
	}
}

func TestDrillTierLoss(t *testing.T) {
	s := drillScene("tier loss: all of home dies, and comes back")
	s.events = []simEvent{{s.from, func(w *world) { w.kill(0, 0, 10) }}, {(s.from + s.to) / 2, func(w *world) { w.revive(0, 0, 10) }}}
	if w := drill(t, s); w.sentOn == 0 {
		t.Error("nothing went to the overflow: the test proves nothing")
	}
}

func TestDrillEdgeLoss(t *testing.T) {
	s := drillScene("edge loss: one of four dies with what it has in flight, and comes back, eight times")
	broken := 0
	const times = 8 // few of the requests in flight are orders
	for i := range int64(times) {
		at, half := s.from+(s.to-s.from)*i/times, (s.to-s.from)/times/2
		s.events = append(s.events, simEvent{at, func(w *world) { broken += w.lose(1) }}, simEvent{at + half, func(w *world) { w.restart(1) }})
	}
	drill(t, s)
	t.Logf("%d requests were in flight at the edge that died", broken)
	if _, _, _, repeated := s.book.verdict(); broken < 20 || repeated == 0 {
		t.Errorf("%d requests broken, %d orders sent again: the test proves nothing", broken, repeated)
	}
}

func TestDrillReload(t *testing.T) {
	s := drillScene("reload: a changed document each half second")
	turns := 0
	for at := s.from; at < s.to; at += second / 2 {
		s.events = append(s.events, simEvent{at, func(w *world) {
			w.reload(turns)
			turns++
		}})
	}
	w := drill(t, s)
	if got := w.edges[0].spec.Algorithm; turns < 4 || got == v1.LeastRequest && turns%4 != 0 {
		t.Errorf("%d reloads, algorithm %s", turns, got)
	}
}
