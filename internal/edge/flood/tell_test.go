package flood

import (
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/demo/visitors"
)

// The event begins after a minute of calm and takes eventFor.
const (
	calmFor = 60 * time.Second
	base    = 2.0 // visitors a second
)

func short() v1.FloodPolicySpec {
	return v1.FloodPolicySpec{WarmUp: v1.Duration(40 * time.Second)}
}

// baseSlots is what the shop has: enough for twice the quiet visitors.
const baseSlots = 5

func TestARushOfFiveTimesAsManyVisitorsIsNoAttack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		w := newWorld(t, dir, baseSlots, short())
		w.from = calmFor
		report, verdict := w.run(dir, visitors.Spike(base, 5, calmFor, calmFor+eventFor), calmFor+eventFor, nil)
		t.Logf("distance %.2f at most; %d orders, %s; %d visitors gave up", w.distance, len(report.Orders), verdict, report.GaveUp)
		if w.top != Calm || w.peopleNo != 0 {
			t.Errorf("step %s was taken at %s, %d of %d requests refused", w.top, w.reached, w.peopleNo, w.people)
		}
		if report.HoldersRefused != 0 || !verdict.OK() || len(report.Orders) < 50 {
			t.Errorf("%d baskets refused, %d orders, %s", report.HoldersRefused, len(report.Orders), verdict)
		}
		if w.inFlight.Load() != 0 || len(verdict.Failed) > 0 {
			t.Errorf("%d orders failed", len(verdict.Failed))
		}
	})
}

func TestAnAttackOfTheSameSizeIsToldAndItsRequestsAlone(t *testing.T) {
	for _, c := range []struct {
		shape visitors.Shape
		bots  int
		every time.Duration
	}{
		{visitors.Swarm, 200, 1250 * time.Millisecond},
		{visitors.Farm, 32, 200 * time.Millisecond},
	}[:shapes] {
		t.Run(string(c.shape), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				dir := t.TempDir()
				w := newWorld(t, dir, baseSlots, short())
				w.from = calmFor + 10*time.Second
				bots := visitors.Bots(c.shape, c.bots, netip.MustParsePrefix("127.4.0.0/16"), "shop.example", false, 5)
				report, verdict := w.run(dir, visitors.Constant(base), calmFor+eventFor, func() { w.flood(bots, c.every, calmFor, calmFor+eventFor) })
				t.Logf("distance %.2f; %s after %s; of %d bots' requests %d refused, of %d visitors' %d; %d orders, %s, %d gave up",
					w.distance, w.top, w.reached-calmFor, w.bots, w.botsNo, w.people, w.peopleNo, len(report.Orders), verdict, report.GaveUp)
				if w.top < Limit || w.reached < calmFor || w.reached > calmFor+12*time.Second {
					t.Errorf("reached %s after %s", w.top, w.reached-calmFor)
				}
				if w.botsNo*100 < w.bots*90 || w.peopleNo*100 > w.people {
					t.Errorf("refused %d of %d bots' requests, and %d of %d visitors'", w.botsNo, w.bots, w.peopleNo, w.people)
				}
				if report.HoldersRefused != 0 || !verdict.OK() || len(verdict.Failed) > 0 {
					t.Errorf("%d baskets refused, %d orders failed, %s", report.HoldersRefused, len(verdict.Failed), verdict)
				}
			})
		})
	}
}
