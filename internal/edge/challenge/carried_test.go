package challenge

import (
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/relais-edge/relais/internal/edge/seal"
)

func TestOneProofServesNoSwarm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig(t)
		c := &client{g: g, agent: "b/1"}
		c.do("GET", "/", "application/json", "")
		if c.solve(c.told(), "/"); c.cookie == "" {
			t.Fatal("no proof")
		}
		in := 0
		for n := range 120 {
			copied := &client{g: g, agent: "b/1", addr: fmt.Sprintf("198.18.%d.7", n), cookie: c.cookie, blocked: true}
			if copied.do("GET", "/", "text/html", ""); copied.r.Status == 200 {
				in++
			}
		}
		if in > proofNetworks {
			t.Errorf("one proof served %d networks", in)
		}
		if got := g.counted("spread"); got < 100 {
			t.Errorf("counted %v", got)
		}
		// Who came first is never challenged again for it, nor who did the work.
		for _, addr := range []string{"198.18.0.9", "192.0.2.200"} {
			first := &client{g: g, agent: "b/1", addr: addr, cookie: c.cookie}
			if first.do("GET", "/", "text/html", ""); first.r.Status != 200 {
				t.Errorf("%s, which was among the first, gets %d", addr, first.r.Status)
			}
		}
		// A network that is refused can do the work itself.
		late := &client{g: g, agent: "b/1", addr: "198.18.119.7", cookie: c.cookie}
		late.do("GET", "/", "application/json", "")
		if late.solve(late.told(), "/"); late.r.Status != 303 {
			t.Fatalf("%d", late.r.Status)
		}
		if late.do("GET", "/", "text/html", ""); late.r.Status != 200 {
			t.Errorf("%d after its own work", late.r.Status)
		}
	})
}

func TestATelephoneThatMovesKeepsItsProof(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig(t)
		c := &client{g: g, agent: "b/1", blocked: true}
		c.do("GET", "/", "application/json", "")
		c.blocked = false
		c.solve(c.told(), "/")
		for n := range 9 {
			time.Sleep(3 * time.Minute)
			c.addr = fmt.Sprintf("198.18.%d.7", n)
			if c.do("GET", "/", "text/html", ""); c.r.Status != 200 {
				t.Errorf("%d in network %d", c.r.Status, n)
			}
		}
	})
}

func TestAJumpOfTheClockEndsNoProofAndNoPuzzle(t *testing.T) {
	const day = 24 * 3600
	for name, by := range map[string]int64{"forward": day, "back": -day} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := newRig(t)
				var step atomic.Int64
				g.st.clock = seal.NewClock(func(at time.Time) int64 { return at.Unix() + step.Load() })
				c, late := &client{g: g, agent: "b/1"}, &client{g: g, agent: "b/1", addr: "198.51.100.1"}
				c.do("GET", "/", "application/json", "")
				c.solve(c.told(), "/")
				late.do("GET", "/", "application/json", "")
				p := late.told()
				step.Store(by)
				c.addr = "192.0.3.1" // where only the proof speaks for it
				if c.do("GET", "/", "text/html", ""); c.r.Status != 200 {
					t.Errorf("a proof of before: %d", c.r.Status)
				}
				if late.solve(p, "/"); late.r.Status != 303 {
					t.Errorf("a puzzle of before: %d", late.r.Status)
				}
				fresh := &client{g: g, agent: "b/1", addr: "203.0.113.1"}
				fresh.do("GET", "/", "application/json", "")
				q := fresh.told()
				if fresh.solve(q, "/"); fresh.r.Status != 303 {
					t.Errorf("a puzzle of after: %d", fresh.r.Status)
				}
				if fresh.cookie = ""; fresh.solve(q, "/").r.Status != 403 {
					t.Error("a puzzle was good twice")
				}
				// What is signed after the jump ends as it says, if later by what was skipped.
				time.Sleep(25 * time.Hour)
				if c.do("GET", "/", "text/html", ""); by > 0 && c.r.Status == 200 {
					t.Error("a proof of before is good after a day")
				}
			})
		})
	}
}
