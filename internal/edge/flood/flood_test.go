package flood

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"testing"
	"time"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/observe"
	"github.com/relais-edge/relais/internal/snapshot"
	"github.com/relais-edge/relais/internal/stage"
)

func TestALadderGoesUpWhileThatDoesNotSufficeAndDownByItself(t *testing.T) {
	l := ladder{hold: 10, most: Drop}
	for i := range l.allowed {
		l.allowed[i] = true
	}
	tick := uint32(100)
	turn := func(n int, pressed, strange bool) {
		for range n {
			tick++
			l.turn(tick, pressed, strange, false)
		}
	}
	turn(100, true, false)
	if l.step != Calm {
		t.Fatalf("a rush took step %s", l.step)
	}
	turn(100, false, true)
	if l.step != Calm {
		t.Fatalf("something strange that does no harm took step %s", l.step)
	}
	turn(2, true, true)
	if l.step != Stale {
		t.Fatalf("step %s after two ticks", l.step)
	}
	turn(1, true, true)
	if l.step != Cache {
		t.Fatalf("step %s, want one step at a time", l.step)
	}
	turn(39, false, true)
	if l.step != Cache {
		t.Fatalf("step %s: left although what comes is strange still, too soon", l.step)
	}
	turn(1, false, true)
	if l.step != Stale {
		t.Fatalf("step %s: it did not undo itself", l.step)
	}
	turn(1, true, true)
	if l.step != Cache || l.holding != 20 {
		t.Fatalf("step %s, hold %d: the relapse must double it", l.step, l.holding)
	}
	turn(100, true, true)
	if l.step != Drop || l.theta != leastBits*bit {
		t.Fatalf("step %s with %d", l.step, l.theta)
	}
	turn(10, true, false)
	if l.step != Limit {
		t.Fatalf("step %s: what is not strange is no attack", l.step)
	}
	turn(200, false, false)
	if l.step != Calm || l.holding != l.hold {
		t.Fatalf("step %s, hold %d", l.step, l.holding)
	}
}

func TestASiegeIsMetWithoutDelay(t *testing.T) {
	l := ladder{hold: 10, most: Drop, allowed: [steps]bool{Stale: true, Cache: true, Limit: true, Drop: true}}
	for i, want := range []Step{Cache, Limit, Drop} {
		if l.turn(uint32(100+i), true, true, true); l.step != want {
			t.Fatalf("step %s in tick %d, want %s", l.step, i, want)
		}
	}
	l = ladder{hold: 10, most: Drop, allowed: [steps]bool{Stale: true, Limit: true}}
	if l.turn(100, true, true, true); l.step != Stale {
		t.Fatalf("step %s: what may harm somebody is not taken at once", l.step)
	}
	if l.turn(101, true, false, true); l.step != Stale {
		t.Fatalf("step %s although nothing is strange", l.step)
	}
}

func TestAStepThatThePolicyLeavesOutIsNotTaken(t *testing.T) {
	l := ladder{hold: 10, most: Drop}
	l.allowed[Stale], l.allowed[Limit] = true, true
	for tick := uint32(10); tick < 60; tick++ {
		l.turn(tick, true, true, false)
		if l.step != Calm && !l.allowed[l.step] {
			t.Fatalf("step %s", l.step)
		}
	}
	if l.step != Limit {
		t.Errorf("step %s", l.step)
	}
	l.ban(Limit, 60)
	l.turn(61, true, true, false)
	if l.step != Stale {
		t.Errorf("step %s although it is banned", l.step)
	}
}

// bed is a stage with one site, and exchanges for it.
type bed struct {
	*Stage
	site      *snapshot.Site
	now       time.Time
	busy      float64 // the tiers
	processor float64
	asks      asks
}

func (b *bed) Busy(*snapshot.Site) float64 { return b.busy }

func newBed(t testing.TB, spec v1.FloodPolicySpec) *bed {
	t.Helper()
	b := &bed{now: time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)}
	b.Stage = New(Config{Slot: floodSlot, Tiers: b, Challenger: &b.asks, Load: func() observe.Load { return observe.Load{Share: b.processor} }}, observe.New())
	b.site = testSite(&spec)
	p, err := b.Compile(b.site, nil)
	if err != nil {
		t.Fatal(err)
	}
	b.site.Parts[floodSlot] = p
	return b
}

// visitorOf dresses an exchange as a browser's, or as a bot's.
func (b *bed) request(x *stage.Exchange, in *message.Request, rng *rand.Rand, bot bool) {
	x.Reset()
	in.Reset()
	in.SetMethod([]byte("GET"))
	path := []string{"/", "/c/lamps", "/p/1", "/p/2", "/img/a.jpg", "/img/b.jpg", "/img/c.jpg", "/search"}[rng.IntN(8)]
	if bot {
		path = "/search"
		in.SetQuery(fmt.Appendf(nil, "q=%d", rng.Uint64()))
	}
	in.SetPath([]byte(path))
	in.AddString(message.UserAgent, []string{"Firefox", "Chrome", "Safari"}[rng.IntN(3)])
	in.AddString(message.Accept, "*/*")
	in.AddString(message.AcceptLanguage, "fr")
	if !bot {
		in.AddString(message.Referer, "http://shop.example/")
	}
	x.In, x.Site, x.Route, x.Start = in, b.site, &b.site.Routes[0], b.now
	x.SetPath([]byte(path))
	x.Client = netip.AddrFrom4([4]byte{10, byte(rng.IntN(256)), byte(rng.IntN(256)), byte(rng.IntN(256))})
}

// well answers 200.
type well struct{}

func (well) Serve(_ context.Context, x *stage.Exchange) (*message.Response, error) {
	x.Tries = 1
	x.Response.Reset()
	x.Response.Status = 200
	return &x.Response, nil
}

// missing is what comes below the stage where nothing is stored: the gate, and then an origin.
type missing struct{ b *bed }

func (m missing) Serve(ctx context.Context, x *stage.Exchange) (*message.Response, error) {
	return m.b.Gate().Serve(ctx, x, well{})
}

// attacked is a bed in step Drop: a minute and a half of calm, then an attack.
func attacked(t testing.TB, spec v1.FloodPolicySpec) *bed {
	t.Helper()
	b := newBed(t, spec)
	var x stage.Exchange
	var in message.Request
	rng := rand.New(rand.NewPCG(1, 2))
	for tick := range 220 {
		flood := tick >= 180
		if b.busy = 0.3; flood {
			b.busy = 1.2
		}
		for i := range 50 {
			b.request(&x, &in, rng, false)
			_, _ = b.Serve(context.Background(), &x, missing{b})
			for range 5 {
				if !flood {
					break
				}
				b.request(&x, &in, rng, true)
				_, _ = b.Serve(context.Background(), &x, missing{b})
			}
			_ = i
		}
		b.now = b.now.Add(tickEvery)
		b.look(b.now)
	}
	return b
}

func TestABasketIsNeverRefusedButBeyondItsCeiling(t *testing.T) {
	b := attacked(t, short())
	if st := b.Status("")[0]; st.Step != "drop" {
		t.Fatalf("%+v", st)
	}
	var x stage.Exchange
	var in message.Request
	rng := rand.New(rand.NewPCG(3, 4))
	send := func(class stage.Class, key uint64) error {
		b.request(&x, &in, rng, true)
		x.Visitor = stage.Visitor{Class: class, Key: key}
		_, err := b.Serve(context.Background(), &x, missing{b})
		return err
	}
	if send(stage.Anonymous, 0) == nil {
		t.Error("a bot was let through")
	}
	for i := range ceilingBurst {
		if err := send(stage.Protected, 9); err != nil {
			t.Fatalf("request %d of a visitor with a basket: %v", i, err)
		}
	}
	if send(stage.Protected, 9) == nil {
		t.Error("a basket beyond its ceiling is let through")
	}
	if err := send(stage.Protected, 10); err != nil {
		t.Errorf("another basket: %v", err)
	}
}

func TestWhatIsStoredIsServedToSuspectsUnlessTheProcessorsAreSaturated(t *testing.T) {
	for busy, want := range map[float64]bool{0.5: true, 1: false} {
		b := attacked(t, short())
		b.processor = busy
		b.now = b.now.Add(tickEvery)
		b.look(b.now)
		var x stage.Exchange
		var in message.Request
		b.request(&x, &in, rand.New(rand.NewPCG(3, 4)), true)
		if st := b.Status("")[0]; st.Step != "drop" {
			t.Fatalf("%+v", st)
		}
		_, err := b.Serve(context.Background(), &x, well{}) // as if the cache answered
		if (err == nil) != want {
			t.Errorf("processors at %v: %v", busy, err)
		}
		if _, err := b.Serve(context.Background(), &x, missing{b}); err == nil {
			t.Errorf("processors at %v: a suspect got what is not stored", busy)
		}
	}
}

func TestAStepThatHarmsKnownVisitorsIsTakenBack(t *testing.T) {
	b := attacked(t, short())
	var x stage.Exchange
	var in message.Request
	rng := rand.New(rand.NewPCG(3, 4))
	for range 20 {
		b.request(&x, &in, rng, true)
		x.Visitor = stage.Visitor{Class: stage.Known, Key: rng.Uint64()}
		_, _ = b.Serve(context.Background(), &x, missing{b})
	}
	b.now = b.now.Add(tickEvery)
	b.look(b.now)
	b.now = b.now.Add(tickEvery)
	b.look(b.now)
	st := b.Status("")[0]
	drop := st.Measures[Drop-Stale]
	if st.Step == "drop" || !drop.Banned || drop.Harmed == 0 {
		t.Errorf("%+v", st)
	}
}

func TestAPersonsHandHoldsUntilItsTime(t *testing.T) {
	b := attacked(t, short())
	var x stage.Exchange
	var in message.Request
	rng := rand.New(rand.NewPCG(3, 4))
	chain := stage.Chain(missing{b}, b.Pardons(), b.Stage)
	bot := func() error {
		b.request(&x, &in, rng, true)
		_, err := chain.Serve(context.Background(), &x)
		return err
	}
	until := time.Now().Add(time.Hour)
	if err := b.Shield("demo/shop", "off", "", until); err != nil || bot() != nil {
		t.Errorf("off: %v", err)
	}
	b.now = until
	b.look(b.now)
	for range 40 { // the attack goes on
		for range 300 {
			_ = bot()
		}
		b.now = b.now.Add(tickEvery)
		b.look(b.now)
	}
	if bot() == nil {
		t.Error("off holds beyond its time")
	}
	if b.Shield("demo/none", "off", "", until) == nil || b.Shield("", "on", "drop", until) == nil || b.Shield("", "perhaps", "", until) == nil {
		t.Error("a wrong order was taken")
	}
	x.Client = netip.MustParseAddr("10.1.2.3")
	if err := b.Unblock(netip.MustParsePrefix("10.0.0.0/8"), b.now, b.now.Add(time.Minute)); err != nil || bot() != nil {
		t.Errorf("unblock: %v", err)
	}
	if !x.Measures.Pardoned {
		t.Error("the rate limits do not know")
	}
	if b.now = b.now.Add(time.Minute); bot() == nil {
		t.Error("unblock holds beyond its time")
	}
}

func TestShadowOnlySaysWhatItWouldDo(t *testing.T) {
	spec := short()
	spec.Mode = v1.ModeShadow
	b := attacked(t, spec)
	var x stage.Exchange
	var in message.Request
	b.request(&x, &in, rand.New(rand.NewPCG(3, 4)), true)
	if _, err := b.Serve(context.Background(), &x, missing{b}); err != nil || !x.Noted || x.Measures.Suspect {
		t.Errorf("%v, noted %v, %+v", err, x.Noted, x.Measures)
	}
}

func TestUnknownParametersAreLeftOff(t *testing.T) {
	n := newNarrow([]string{"/c"}, []string{"page", "f_*"})
	for _, c := range []struct{ path, query, want string }{
		{"/c/lamps", "page=2&x=7", "page=2"},
		{"/c/lamps", "x=7", ""},
		{"/c/lamps", "f_color=red&page=1", "f_color=red&page=1"},
		{"/c", "%70age=2", ""},
		{"/search", "x=7", "x=7"},
	} {
		var in message.Request
		in.SetMethod([]byte("GET"))
		in.SetPath([]byte(c.path))
		in.SetQuery([]byte(c.query))
		x := stage.Exchange{In: &in, Path: []byte(c.path)}
		n.apply(&x)
		if got := string(x.Query()); got != c.want {
			t.Errorf("%s?%s: %q, want %q", c.path, c.query, got, c.want)
		}
	}
}

func TestTrustedNetworks(t *testing.T) {
	tr := newTrusted([]string{"192.0.2.0/24", "192.0.2.128/25", "198.51.100.7", "2001:db8::/32", "nonsense"})
	for a, want := range map[string]bool{
		"192.0.2.0": true, "192.0.2.255": true, "192.0.3.0": false, "192.0.1.255": false, "198.51.100.7": true,
		"198.51.100.8": false, "2001:db8:ffff::1": true, "2001:db9::": false, "::ffff:192.0.2.9": true,
	} {
		if got := tr.has(netip.MustParseAddr(a)); got != want {
			t.Errorf("%s: %v", a, got)
		}
	}
	if newTrusted(nil).has(netip.MustParseAddr("::1")) {
		t.Error("nobody is trusted")
	}
}

func TestMemoryIsTheSameForManySources(t *testing.T) {
	b := newBed(t, short())
	var x stage.Exchange
	var in message.Request
	rng := rand.New(rand.NewPCG(1, 2))
	send := func(n int) {
		for i := range n {
			x.Client = netip.AddrFrom4([4]byte{byte(i >> 24), byte(i >> 16), byte(i >> 8), byte(i)})
			_, _ = b.Serve(context.Background(), &x, missing{b})
			if i%100_000 == 0 {
				b.now = b.now.Add(tickEvery)
				b.look(b.now)
			}
		}
	}
	b.request(&x, &in, rng, true)
	send(1000)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	send(many)
	runtime.GC()
	runtime.ReadMemStats(&after)
	grown := int64(after.HeapAlloc) - int64(before.HeapAlloc)
	t.Logf("%d sources: %d KiB more, %d KiB in all", many, grown>>10, after.HeapAlloc>>10)
	if grown > 1<<20 || after.HeapAlloc > 32<<20 {
		t.Errorf("%d bytes more, %d in all", grown, after.HeapAlloc)
	}
	runtime.KeepAlive(b)
}

func TestASearchIsNotCountedTwiceForItsPathAndItsParameter(t *testing.T) {
	for _, c := range []struct{ target, query, want int8 }{{3, 2, 3}, {-3, -2, -3}, {3, -2, 1}, {0, 4, 4}} {
		var s scores
		s[onTarget][7], s[onQuery][9] = c.target, c.query
		search := traits{}
		search.cell[onTarget], search.cell[onQuery] = 7, 9
		if got := s.of(&search); got != int(c.want) {
			t.Errorf("%+v: %d", c, got)
		}
	}
}
