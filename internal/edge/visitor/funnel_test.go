package visitor

import (
	"context"
	"net/netip"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/relais-edge/relais/internal/edge/seal"
	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/stage"
)

// from sends a request of a client at an address with a User-Agent, with a cookie or a field, and returns what
// the stages after this one saw.
func (g *rig) from(addr, agent, cookie, field string) (*stage.Exchange, *message.Response) {
	g.t.Helper()
	r := &message.Request{Secure: true}
	r.SetMethod([]byte("GET"))
	if agent != "" {
		r.AddString(message.UserAgent, agent)
	}
	if cookie != "" {
		r.AddString(message.Cookie, "rv="+cookie)
	}
	if field != "" {
		r.SetLine("relais-visitor", []byte(field))
	}
	x := &stage.Exchange{In: r, Path: []byte("/"), Site: g.site, Route: &g.site.Routes[0], Start: time.Now()}
	x.Client = netip.MustParseAddr(addr)
	a, err := g.st.Serve(context.Background(), x, &g.o)
	if err != nil {
		g.t.Fatal(err)
	}
	return x, a
}

func TestTheOriginsWordCountsAndIsTakenOff(t *testing.T) {
	for _, c := range []struct {
		word      string
		class     stage.Class
		reached   stage.Step
		confirmed bool
		final     bool
	}{
		{"basket", stage.Protected, stage.StepBasket, true, false},
		{"checkout", stage.Protected, stage.StepCheckout, true, false},
	} {
		g := newRig(t, policySpec())
		g.o.fields = "Relais-Funnel: " + c.word
		g.do("GET", "/")
		if tk := g.token(); tk.class != c.class || tk.reached != c.reached || tk.confirmed != c.confirmed || tk.final != c.final {
			t.Errorf("%s: %+v", c.word, tk)
		}
		if g.o.r.Lookup("Relais-Funnel") != nil {
			t.Errorf("%s: the visitor sees the origin's word", c.word)
		}
	}
	g := newRig(t, policySpec())
	g.do("POST", "/cart")
	if tk := g.token(); tk.confirmed {
		t.Errorf("a path confirms: %+v", tk)
	}
	g.o.fields = "Relais-Funnel: checkout"
	if g.do("GET", "/"); !g.token().confirmed || g.token().reached != stage.StepCheckout {
		t.Errorf("the origin's word does not confirm: %+v", g.token())
	}
	g.o.fields = "Relais-Funnel: ordered"
	if g.do("GET", "/"); !g.token().final {
		t.Errorf("an order that the origin tells of does not end the basket: %+v", g.token())
	}
	g = newRig(t, policySpec())
	g.o.fields = "Relais-Funnel: none"
	if g.do("GET", "/"); g.set != "" {
		t.Errorf("none gave %q", g.set)
	}
	g.do("POST", "/cart") // a path says basket, the origin knows better
	if g.set != "" {
		t.Errorf("a basket that the origin denies gave %q", g.set)
	}
	g.o.fields = ""
	g.do("POST", "/cart")
	g.o.fields = "Relais-Funnel: none"
	if g.do("GET", "/"); g.token().class != stage.Known {
		t.Errorf("an emptied basket: %+v", g.token())
	}
}

func TestTheOriginsWordFromTheCacheSaysNothingOfThisVisitor(t *testing.T) {
	g := newRig(t, policySpec())
	g.o.fields, g.o.cached = "Relais-Funnel: basket", true
	if g.do("GET", "/"); g.set != "" || g.o.r.Lookup("Relais-Funnel") != nil {
		t.Errorf("%q, field %q", g.set, g.o.r.Lookup("Relais-Funnel"))
	}
	g.o.cached = false
	g.o.fields = "Relais-Funnel: basket\nCache-Control: public, max-age=60"
	if g.do("GET", "/"); g.set != "" {
		t.Errorf("an answer that may be stored gave %q", g.set)
	}
}

func TestAppsCarryTheTokenInAField(t *testing.T) {
	g := newRig(t, policySpec())
	g.o.fields = "Relais-Funnel: basket"
	_, a := g.from("192.0.2.1", "app/1", "", "new")
	text := string(a.Lookup("Relais-Visitor"))
	if len(text) != textLen || a.Has(message.SetCookie) {
		t.Fatalf("field %q, cookie %q", text, a.Get(message.SetCookie))
	}
	g.o.fields = ""
	x, _ := g.from("192.0.2.1", "app/1", "", text)
	if g.o.seen.Class != stage.Protected || !g.o.seen.Confirmed || g.o.seen.Score != 0 {
		t.Errorf("%+v", g.o.seen)
	}
	x.Out.CopyFrom(x.In)
	if g.st.Strip(x, &x.Out.Fields); x.Out.Lookup("Relais-Visitor") != nil {
		t.Error("the origin sees the token")
	}
}

func TestATokenFromElsewhereIsScoredAndNeverRefused(t *testing.T) {
	g := newRig(t, policySpec())
	g.o.fields = "Relais-Funnel: basket"
	_, a := g.from("192.0.2.1", "browser/1", "", "new")
	text := string(a.Lookup("Relais-Visitor"))
	g.o.fields = ""
	for _, c := range []struct {
		addr, agent string
		score       uint8
	}{
		{"192.0.2.1", "browser/1", 0},
		{"192.0.2.200", "browser/1", 0}, // the same network
		{"198.51.100.1", "browser/1", scoreMoved},
		{"2001:db8::1", "browser/2", scoreMoved + scoreClient},
	} {
		g.from(c.addr, c.agent, text, "")
		if g.o.seen.Class != stage.Protected || g.o.seen.Score != c.score {
			t.Errorf("%s %s: %+v, want the score %d", c.addr, c.agent, g.o.seen, c.score)
		}
	}
}

func TestASharedTokenProtectsNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig(t, policySpec())
		g.do("POST", "/cart")
		stolen := g.cookie
		lost := 0
		for i := range 200 {
			g.from("198.51."+strconv.Itoa(i)+".7", "bot/1", stolen, "")
			if g.o.seen.Class != stage.Protected {
				lost++
			}
		}
		if lost < 120 || g.o.seen.Score < scoreShared {
			t.Errorf("200 networks used one token, %d without protection, score %d", lost, g.o.seen.Score)
		}
		time.Sleep(useWindow + time.Second)
		if g.from("192.0.2.1", "", stolen, ""); g.o.seen.Class != stage.Protected {
			t.Error("its owner is not protected again when the others are gone")
		}
		for range useBurst + 1 {
			g.from("192.0.2.1", "", stolen, "")
		}
		if g.from("192.0.2.1", "", stolen, ""); g.o.seen.Class != stage.Known {
			t.Error("a token that is used faster than a person can still protects")
		}
	})
}

// A telephone that changes its network with every request of a purchase keeps its basket.
func TestAPhoneOnTheMoveKeepsItsBasket(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig(t, policySpec())
		g.do("POST", "/cart")
		for i := range 15 {
			if g.from("10."+strconv.Itoa(i)+".0.9", "", g.cookie, ""); g.o.seen.Class != stage.Protected {
				t.Fatalf("request %d: %+v", i, g.o.seen)
			}
			time.Sleep(10 * time.Second)
		}
	})
}

func TestAFarmOfBasketsIsBoundedByItsNetworkAndSharedAddressesAreNot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		spec := policySpec()
		spec.Minting.PerMinute, spec.Minting.ConfirmedPerMinute = 10, 100
		g := newRig(t, spec)
		mint := func(addr, path string) bool {
			r := &message.Request{}
			r.SetMethod([]byte("POST"))
			x := &stage.Exchange{In: r, Path: []byte(path), Site: g.site, Route: &g.site.Routes[0], Start: time.Now(), Client: netip.MustParseAddr(addr)}
			a, err := g.st.Serve(context.Background(), x, &g.o)
			if err != nil {
				t.Fatal(err)
			}
			v, _ := strings.CutPrefix(string(a.Get(message.SetCookie)), "rv=")
			v, _, _ = strings.Cut(v, ";")
			tk, err := g.site.Parts[4].(*part).routes[0].codec.parse([]byte(v), time.Now().Unix())
			if err != nil {
				t.Fatal(err)
			}
			g.cookie = v
			return tk.class == stage.Protected
		}
		n := 0
		for i := range 100 { // a farm: every address of a /24 for itself stays below its bound
			if mint("203.0.113."+strconv.Itoa(i), "/cart") {
				n++
			}
		}
		if n != 40 {
			t.Errorf("a /24 got %d baskets, want 4 x 10", n)
		}
		n = 0
		for range 200 { // the same address, by the origin's word
			g.o.fields = "Relais-Funnel: basket"
			if mint("203.0.113.1", "/cart") {
				n++
			}
		}
		g.o.fields = ""
		if n != 100 {
			t.Errorf("%d confirmed baskets, want 100", n)
		}
		// A shared address: of eleven buyers one waits for protection, until the origin tells of the first order.
		n = 0
		for range 10 {
			if mint("198.51.100.1", "/cart") {
				n++
			}
		}
		g.o.fields = "Relais-Funnel: ordered"
		g.do2("198.51.100.1", "POST", "/cart/checkout")
		g.o.fields = ""
		for range 30 {
			if mint("198.51.100.1", "/cart") {
				n++
			}
		}
		if n != 30 {
			t.Errorf("a shared address with an order got %d baskets, want 10 and the credit of 20", n)
		}
	})
}

// do2 sends a request with the rig's cookie from an address.
func (g *rig) do2(addr, method, path string) {
	r := &message.Request{}
	r.SetMethod([]byte(method))
	r.AddString(message.Cookie, "rv="+g.cookie)
	x := &stage.Exchange{In: r, Path: []byte(path), Site: g.site, Route: &g.site.Routes[0], Start: time.Now(), Client: netip.MustParseAddr(addr)}
	if _, err := g.st.Serve(context.Background(), x, &g.o); err != nil {
		g.t.Fatal(err)
	}
}

func TestRotatedSecretsKeepBaskets(t *testing.T) {
	g := newRig(t, policySpec())
	g.do("POST", "/cart")
	spec := policySpec()
	spec.Secret, spec.PreviousSecrets = "fedcba9876543210", []string{secret}
	g.site = newSite("o/shop", spec)
	p, err := g.st.Compile(g.site, nil)
	if err != nil {
		t.Fatal(err)
	}
	g.site.Parts[4] = p
	if g.do("GET", "/"); g.o.seen.Class != stage.Protected {
		t.Errorf("%+v", g.o.seen)
	}
	spec.PreviousSecrets = nil
	g.site = newSite("o/shop", spec)
	g.site.Parts[4], _ = g.st.Compile(g.site, nil)
	if g.do("GET", "/"); g.o.seen.Class != stage.Anonymous {
		t.Error("a secret that was taken out still protects")
	}
}

func TestAJumpOfTheClockEndsNoBasket(t *testing.T) {
	for name, by := range map[string]int64{"forward": 24 * 3600, "back": -24 * 3600} {
		g := newRig(t, policySpec())
		var step atomic.Int64
		g.st.clock = seal.NewClock(func(at time.Time) int64 { return at.Unix() + step.Load() })
		g.do("POST", "/cart")
		step.Store(by)
		if g.do("GET", "/"); g.o.seen.Class != stage.Protected {
			t.Errorf("a day %s: %+v", name, g.o.seen)
		}
	}
}
