package waitroom

import (
	"encoding/binary"
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/edge/seal"
)

func alwaysSpec() *v1.WaitingRoomSpec {
	spec := roomSpec()
	spec.When, spec.TicketsPerMinute = "always", 100_000
	return spec
}

// counted is what the room's counter says of an outcome.
func (g *rig) counted(outcome string) string {
	w := httptest.NewRecorder()
	g.reg.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
	for l := range strings.Lines(w.Body.String()) {
		if v, ok := strings.CutPrefix(l, `relais_waiting_room_total{outcome="`+outcome+`",room="r",site="o/shop"} `); ok {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

// swarm are n clients of other networks with the same ticket; it says how many came in.
func (g *rig) swarm(n int, ticket, agent string) (in int) {
	for i := range n {
		if v := (&visitor{g: g, cookie: ticket, agent: agent, addr: fmt.Sprintf("198.18.%d.1", i)}); !v.get() {
			in++
		}
	}
	return in
}

func TestACopiedPlaceLetsOneIn(t *testing.T) {
	for _, when := range []string{"always", "overflow"} {
		t.Run(when, func(t *testing.T) {
			spec := alwaysSpec()
			spec.When = when
			g := newRig(t, spec, "")
			g.shop.full = when == "overflow"
			v, other := &visitor{g: g, agent: "b/1"}, &visitor{g: g, agent: "b/1"}
			v.get()
			other.get()
			g.shop.full = false
			place := v.cookie
			g.call(1)
			if v.get() {
				t.Fatal("who was called waits")
			}
			if in := g.swarm(200, place, "b/1"); in != 0 {
				t.Errorf("%d more came in with the place", in)
			}
			if got := g.counted("copied"); got != "200" {
				t.Errorf("counted %s of 200", got)
			}
			if v.get() {
				t.Error("the first waits again")
			}
			g.call(1)
			if in := g.swarm(200, other.cookie, "b/1"); in != 1 {
				t.Errorf("%d of a swarm came in with one place", in)
			}
		})
	}
}

func TestASwarmAtOnceIsOne(t *testing.T) {
	g := newRig(t, alwaysSpec(), "")
	v := &visitor{g: g}
	v.get()
	g.call(1)
	var in atomic.Int64
	var wg sync.WaitGroup
	for i := range 32 {
		wg.Go(func() {
			x := g.exchange(v.cookie, fmt.Sprintf("198.18.%d.1", i))
			if g.st.look(x, g.policy()).in {
				in.Add(1)
			}
		})
	}
	wg.Wait()
	if in.Load() != 1 {
		t.Errorf("%d came in with one place", in.Load())
	}
}

func TestWhoseAnswerWasLostComesOnceMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig(t, alwaysSpec(), "")
		v := &visitor{g: g, agent: "b/1"}
		v.get()
		place := v.cookie
		g.call(1)
		v.get()
		time.Sleep(time.Minute)
		if again := (&visitor{g: g, agent: "b/1", cookie: place}); again.get() {
			t.Error("the same client is not let in again after a minute")
		}
		if again := (&visitor{g: g, agent: "b/2", cookie: place}); !again.get() {
			t.Error("another client of the network is")
		}
		time.Sleep(5 * time.Minute)
		if again := (&visitor{g: g, agent: "b/1", cookie: place}); !again.get() {
			t.Error("the same client is after five minutes more")
		}
	})
}

func TestWhoGetsOnlyWhatIsSharedKeepsThePlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig(t, alwaysSpec(), "")
		g.shop.fields = "Cache-Control: max-age=60" // no pass can be given with it
		v := &visitor{g: g, agent: "b/1"}
		v.get()
		g.call(1)
		for range 10 {
			if v.get() {
				t.Fatal("waits again")
			}
			time.Sleep(4 * time.Minute)
		}
	})
}

func TestWhoFindsNoRoomMayComeFromAnotherNetwork(t *testing.T) {
	g := newRig(t, alwaysSpec(), "")
	v := &visitor{g: g, accept: asJSON, agent: "b/1"}
	v.get()
	g.call(1)
	g.shop.full = true
	if !v.get() || v.place(t) != 0 {
		t.Fatalf("%s", v.r.Bytes)
	}
	g.shop.full = false
	if v.addr = "203.0.113.9"; v.get() {
		t.Error("who found no room has lost the place")
	}
}

func TestAPassIsGoodForAPersonWhoMovesAndNotForASwarm(t *testing.T) {
	g := newRig(t, alwaysSpec(), "")
	v := &visitor{g: g, agent: "b/1"}
	v.get()
	g.call(1)
	v.get()
	if in := g.swarm(200, v.cookie, "b/1"); in > passPlaces {
		t.Errorf("a pass let %d networks in", in)
	}
	if in := g.swarm(200, v.cookie, "b/2"); in != 0 {
		t.Errorf("a pass let another program of %d other networks in", in)
	}
	if v.get() {
		t.Error("its owner waits")
	}
}

func TestPlacesOfAnotherEdgeAreOnePersonsEach(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, far := newRig(t, alwaysSpec(), ""), newRig(t, alwaysSpec(), "")
		for _, r := range []*rig{g, far} {
			r.line().second(time.Now().Unix())
			(&visitor{g: r}).get()
			time.Sleep(11 * time.Second)
			r.line().second(time.Now().Unix())
		}
		a, b := &visitor{g: far, agent: "b/1"}, &visitor{g: far, agent: "b/2"}
		a.get()
		b.get()
		a.g, b.g = g, g
		if !a.get() || !b.get() { // they have the place of the first here
			t.Fatal("they do not wait")
		}
		g.call(1)
		place := a.cookie
		if a.get() || b.get() {
			t.Error("two visitors of another edge are taken for one")
		}
		if in := g.swarm(100, place, "b/1"); in != 0 {
			t.Errorf("%d came in with a copied place of another edge", in)
		}
	})
}

func TestWhoCameIsKnownAfterARestart(t *testing.T) {
	dir := t.TempDir()
	g := newRig(t, alwaysSpec(), dir)
	v, w := &visitor{g: g, agent: "b/1"}, &visitor{g: g, agent: "b/1"}
	v.get()
	w.get()
	place, lost := v.cookie, *v
	g.call(2)
	v.get()
	if err := g.st.saveAll(true, true); err != nil {
		t.Fatal(err)
	}
	again := newRig(t, alwaysSpec(), dir)
	if in := again.swarm(100, place, "b/1"); in != 0 {
		t.Errorf("%d came in with a place that was used before the restart", in)
	}
	lost.g = again
	if lost.get() {
		t.Error("whose answer was lost by the restart is not let in again")
	}
	if w.g = again; w.get() {
		t.Error("who was called before the restart and comes after it waits")
	}
	v.g = again
	if v.get() {
		t.Error("a pass is worth nothing after the restart")
	}
}

func TestADamagedFileLetsBuyersInOnceMore(t *testing.T) {
	dir := t.TempDir()
	g := newRig(t, alwaysSpec(), dir)
	v := &visitor{g: g}
	v.get()
	place := v.cookie
	g.call(1)
	v.get()
	if err := g.st.saveAll(true, true); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(dir, "*"+claimsEnd))
	if err != nil || len(files) != 1 {
		t.Fatal(files, err)
	}
	good, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{
		"cut": good[:len(good)/2], "long": append(good[:len(good):len(good)], 0), "empty": {},
		"another bit": append(append([]byte{}, good[:100]...), append([]byte{good[100] ^ 1}, good[101:]...)...),
	} {
		if err := os.WriteFile(files[0], b, 0o600); err != nil {
			t.Fatal(err)
		}
		again := newRig(t, alwaysSpec(), dir)
		if again.line().claims.used != nil {
			t.Errorf("%s: the file was taken", name)
		}
		if in := again.swarm(100, place, ""); in != 1 {
			t.Errorf("%s: %d came in with one place", name, in)
		}
	}
}

func TestClaimsFollowTheLine(t *testing.T) {
	var c claims
	called := uint64(0)
	call := func(n uint64) { c.forget(called, called+n); called += n }
	call(10)
	if ok, first := c.admit(3, called, 9, 0); !ok || !first {
		t.Error("the first does not come in")
	}
	call(claimWindow - 10)
	if ok, _ := c.admit(3, called, 8, 0); ok {
		t.Error("another comes in a million places later")
	}
	if ok, first := c.admit(4, called, 8, 0); !ok || !first {
		t.Error("who did not come yet is refused")
	}
	if ok, _ := c.admit(4, called, 8, 0); ok {
		t.Error("nobody knows whose it was, and it comes again")
	}
	call(4)
	if ok, _ := c.admit(3, called, 9, 0); ok {
		t.Error("a number comes of which nobody knows")
	}
	if ok, first := c.admit(3+claimWindow, called, 9, 0); !ok || !first {
		t.Error("the number that has its bit now is refused")
	}
	if claimsBytes > 1<<20 {
		t.Errorf("a room has %d bytes", claimsBytes)
	}
}

func TestWhatWasGivenBeforeTheUpgradeIsGood(t *testing.T) {
	g := newRig(t, alwaysSpec(), "")
	(&visitor{g: g}).get()
	g.call(1)
	old := func(k kind) string {
		var raw [oldLen]byte
		raw[0], raw[1] = oldVersion, byte(k)
		binary.BigEndian.PutUint32(raw[2:], g.line().epoch)
		binary.BigEndian.PutUint64(raw[6:], 1)
		binary.BigEndian.PutUint32(raw[14:], uint32(time.Now().Unix()))
		binary.BigEndian.PutUint32(raw[18:], uint32(time.Now().Unix())+600)
		return string(g.policy().keys.Append(nil, raw[:]))
	}
	for name, ticket := range map[string]string{"place": old(kindPlace), "pass": old(kindPass)} {
		v := &visitor{g: g, cookie: ticket}
		if v.get() || len(v.cookie) != seal.TextLen(payloadLen) {
			t.Errorf("a %s of version 1: %q", name, v.cookie)
		}
	}
	if in := g.swarm(100, old(kindPass), ""); in > passPlaces {
		t.Errorf("a pass of version 1 let %d networks in", in)
	}
}

func TestAJumpOfTheClockCostsNobodyAPlace(t *testing.T) {
	for name, by := range map[string]int64{"forward": 24 * 3600, "back": -24 * 3600} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := newRig(t, alwaysSpec(), "")
				var step atomic.Int64
				g.policy().clock = seal.NewClock(func(at time.Time) int64 { return at.Unix() + step.Load() })
				g.st.clock = g.policy().clock
				a, b := &visitor{g: g, agent: "b/1"}, &visitor{g: g, agent: "b/1", accept: asJSON}
				a.get()
				b.get()
				g.line().second(g.st.clock.Unix(time.Now()))
				g.call(1)
				a.get() // it has a pass
				step.Store(by)
				g.line().second(g.st.clock.Unix(time.Now()))
				if a.get() {
					t.Error("a pass ended")
				}
				if !b.get() || b.place(t) != 1 {
					t.Errorf("the place is %s", b.r.Bytes)
				}
				if h := g.line().history; h[len(h)-1].at != g.st.clock.Unix(time.Now()) {
					t.Errorf("the times of coming end at %d", h[len(h)-1].at)
				}
				g.call(1)
				if b.get() {
					t.Error("who was called waits")
				}
			})
		})
	}
}
