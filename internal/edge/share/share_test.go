package share

import (
	"context"
	"testing"
	"time"

	"github.com/relais-edge/relais/internal/bundle"
	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/observe"
	"github.com/relais-edge/relais/internal/snapshot"
	"github.com/relais-edge/relais/internal/stage"
)

const slot stage.Slot = 3

// machine is a stage over processors that serve so many requests a tick.
type machine struct {
	*Stage
	sites  map[string]*snapshot.Site
	most   float64 // requests that fill the processors for a tick
	served float64 // in this tick
	now    time.Time
	rest   time.Duration // of the tick
}

func newMachine(t *testing.T, most float64, organizations ...string) *machine {
	t.Helper()
	m := &machine{most: most, sites: map[string]*snapshot.Site{}, now: time.Unix(1_700_000_000, 0), rest: tickEvery}
	m.Stage = New(Config{Slot: slot, Load: m.load}, observe.New())
	for _, o := range organizations {
		site := &snapshot.Site{Key: bundle.NewKey(o, "shop"), Parts: make([]any, stage.Slots)}
		p, err := m.Compile(site, nil)
		if err != nil {
			t.Fatal(err)
		}
		site.Parts[slot] = p
		m.sites[o] = site
	}
	return m
}

// load is that of a queue of requests that come one by one (M/D/1, half a millisecond of waiting when half busy),
// but for what cannot be served, which waits ever longer.
func (m *machine) load() observe.Load {
	busy := min(m.served/m.most, 1)
	return observe.Load{Share: busy, Delay: min(time.Duration(float64(time.Millisecond)*busy/2/max(1-busy, 1e-6)), time.Second)}
}

func (m *machine) answer(x *stage.Exchange) (*message.Response, error) {
	m.served++
	x.Response.Reset()
	x.Response.Status = 200
	return &x.Response, nil
}

type origin struct{ m *machine }

func (o origin) Serve(_ context.Context, x *stage.Exchange) (*message.Response, error) {
	return o.m.answer(x)
}

// spread returns when each of n requests comes, which take nine tenths of what is left of the tick.
func (m *machine) spread(n int) func() time.Time {
	d := m.rest * 9 / 10 / time.Duration(n)
	return func() time.Time {
		m.rest -= d
		m.now = m.now.Add(d)
		return m.now
	}
}

// send sends n requests of an organization and says how many were refused.
func (m *machine) send(organization string, n int, class stage.Class) (refused int) {
	var x stage.Exchange
	at := m.spread(n)
	for range n {
		x.Reset()
		x.Start = at()
		x.Site, x.Visitor.Class = m.sites[organization], class
		if _, err := m.Serve(context.Background(), &x, origin{m}); err != nil {
			refused++
		}
	}
	return refused
}

func (m *machine) tick() {
	m.look()
	m.served = 0
	m.now, m.rest = m.now.Add(m.rest), tickEvery
}

func TestAFloodOfOneOrganizationLeavesTheOthersTheirPart(t *testing.T) {
	m := newMachine(t, 200, "a", "b", "c")
	others, flood, busy := 0, 0, 0.0
	for i := range 200 {
		aboutA, aboutB := m.send("a", 1000, stage.Anonymous), m.send("b", 20, stage.Anonymous)+m.send("c", 6, stage.Anonymous)
		if i >= 50 {
			others, flood, busy = others+aboutB, flood+aboutA, busy+m.served/m.most/150
		}
		m.tick()
	}
	if others != 0 {
		t.Errorf("%d requests of others were refused", others)
	}
	if flood < 150*800 || busy > room+0.1 || busy < room-0.1 {
		t.Errorf("%d of the flood's %d requests were refused; the processors were used to %.2f", flood, 150*1000, busy)
	}
}

func TestABasketComesFirstInThePartOfItsOrganization(t *testing.T) {
	m := newMachine(t, 200, "a", "b")
	for range 100 {
		m.send("a", 1000, stage.Anonymous)
		if n := m.send("a", 10, stage.Protected); n > 0 {
			t.Fatalf("%d baskets were refused", n)
		}
		m.send("b", 2, stage.Anonymous)
		m.tick()
	}
}

// What an organization's own documents say of its visitors raises its part by nothing.
func TestAnOrganizationCannotExemptItsOwnFlood(t *testing.T) {
	for name, mark := range map[string]func(*stage.Exchange){
		"baskets, callbacks": func(x *stage.Exchange) { x.Visitor.Class = stage.Protected },
		"verified bots":      func(x *stage.Exchange) { x.Visitor.Bot = "friend" },
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t, 200, "a", "b", "c")
			var x stage.Exchange
			others, refused, busy := 0, 0, 0.0
			for i := range 200 {
				flood := 0
				at := m.spread(1000)
				for range 1000 {
					x.Reset()
					x.Start = at()
					x.Site = m.sites["a"]
					if mark(&x); !x.Visitor.Exempt() {
						t.Fatal("nobody is exempt")
					}
					if _, err := m.Serve(context.Background(), &x, origin{m}); err != nil {
						flood++
					}
				}
				about := m.send("b", 20, stage.Anonymous) + m.send("c", 6, stage.Anonymous)
				if i >= 50 {
					others, refused, busy = others+about, refused+flood, busy+m.served/m.most/150
				}
				m.tick()
			}
			if others != 0 || refused < 150*800 || busy > room+0.1 {
				t.Errorf("%d of others and %d of the flood's %d requests were refused; the processors were used to %.2f", others, refused, 150*1000, busy)
			}
		})
	}
}

func TestWhoAPersonSparedIsServedBeyondThePart(t *testing.T) {
	m := newMachine(t, 200, "a", "b")
	var x stage.Exchange
	for range 100 {
		m.send("a", 1000, stage.Anonymous)
		at := m.spread(5)
		for range 5 {
			x.Reset()
			x.Start = at()
			x.Site, x.Measures.Pardoned = m.sites["a"], true
			if _, err := m.Serve(context.Background(), &x, origin{m}); err != nil {
				t.Fatal("who was spared is refused")
			}
		}
		m.send("b", 2, stage.Anonymous)
		m.tick()
	}
}

// What is kept for baskets that do not come is had by the others of the organization.
func TestWhatIsKeptForBasketsIsNotLost(t *testing.T) {
	m := newMachine(t, 200, "a", "b")
	served := 0
	for i := range 300 {
		n := 1000 - m.send("a", 1000, stage.Anonymous)
		if i%2 == 0 { // forty baskets, then none
			m.send("a", 40, stage.Protected)
		}
		m.send("b", 2, stage.Anonymous)
		if i >= 100 {
			served += n
		}
		m.tick()
	}
	if served < 200*110 {
		t.Errorf("of the others only %d a tick were served", served/200)
	}
}

func TestAnOrganizationAloneIsNotBoundedAndNobodyIsWithoutSaturation(t *testing.T) {
	m := newMachine(t, 200, "a")
	for range 100 {
		if n := m.send("a", 1000, stage.Anonymous); n > 0 {
			t.Fatalf("%d requests were refused, although nobody else is there", n)
		}
		m.tick()
	}
	m = newMachine(t, 2000, "a", "b")
	for range 100 {
		if n := m.send("a", 1000, stage.Anonymous) + m.send("b", 2, stage.Anonymous); n > 0 {
			t.Fatalf("%d requests were refused, although there is room", n)
		}
		m.tick()
	}
}

func TestABoundEndsWithTheFlood(t *testing.T) {
	m := newMachine(t, 200, "a", "b")
	for range 50 {
		m.send("a", 1000, stage.Anonymous)
		m.send("b", 2, stage.Anonymous)
		m.tick()
	}
	refused := 0
	for i := range 2 * easeTicks {
		n := m.send("a", 20, stage.Anonymous) + m.send("b", 2, stage.Anonymous)
		if i >= 20 {
			refused += n
		}
		m.tick()
	}
	if m.budget.capacity != 0 || refused > 0 {
		t.Errorf("%d requests were refused long after the flood", refused)
	}
}

func TestSuspectsOfABoundedOrganizationAreRefusedFirst(t *testing.T) {
	m := newMachine(t, 200, "a", "b")
	people, bots := 0, 0
	var x stage.Exchange
	for range 100 {
		at := m.spread(600)
		for i := range 600 {
			x.Reset()
			x.Start = at()
			x.Site, x.Measures.Suspect = m.sites["a"], i%10 > 0
			if _, err := m.Serve(context.Background(), &x, origin{m}); err != nil {
				if x.Measures.Suspect {
					bots++
				} else {
					people++
				}
			}
		}
		m.send("b", 2, stage.Anonymous)
		m.tick()
	}
	if people > 0 || bots < 100*400 {
		t.Errorf("%d of 6000 visitors and %d of 54000 suspects were refused", people, bots)
	}
}

func TestEqualPartsOfWhatIsLeft(t *testing.T) {
	list := []*tenant{{demand: 900}, {demand: 10}, {demand: 500}, {demand: 100}}
	byDemand := map[float64]*tenant{}
	for _, x := range list {
		byDemand[x.demand] = x
	}
	fair(list, 510)
	each := int64(tickEvery) / 200
	for demand, want := range map[float64]int64{10: unbounded, 100: unbounded, 500: each, 900: each} {
		if got := byDemand[demand].step.Load(); got != want {
			t.Errorf("who asks for %.0f may send each %d ns, want %d", demand, got, want)
		}
	}
}

func TestServeAllocatesNothing(t *testing.T) {
	m := newMachine(t, 1e9, "a")
	var x stage.Exchange
	x.Site = m.sites["a"]
	if n := testing.AllocsPerRun(1000, func() { _, _ = m.Serve(context.Background(), &x, origin{m}) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
