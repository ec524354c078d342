package visitor

import (
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/stage"
)

// farmSpec gives an address ten baskets a minute by path, and an hour for a basket.
func farmSpec() *v1.VisitorPolicySpec {
	spec := policySpec()
	spec.Minting.PerMinute, spec.Minting.ConfirmedPerMinute = 10, 10
	spec.Checkout = []v1.StageMatch{{Path: "/checkout", Methods: []string{"GET"}}}
	spec.Lifetime = v1.Duration(time.Hour)
	return spec
}

// baskets is how many of so many requests to the basket, each without a cookie, were protected; it keeps their tokens.
func (g *rig) baskets(n int) (tokens []string) {
	for range n {
		g.cookie = ""
		if g.do("POST", "/cart"); g.token().class == stage.Protected {
			tokens = append(tokens, g.cookie)
		}
	}
	return tokens
}

// What an address gets with all that a farm can do on paths is its budget, and never more: not by orders, not by going
// back to a token from before its order, not by filling the basket again, and not by emptying it.
func TestOrdersByPathGiveAFarmNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig(t, farmSpec())
		farm := g.baskets(20)
		if len(farm) != 10 {
			t.Fatalf("%d baskets, want 10", len(farm))
		}
		minted := len(farm)
		for range 20 { // 20 s, in which the budget grows by 3
			for _, c := range farm {
				for _, ask := range [][2]string{{"POST", "/cart/checkout"}, {"POST", "/cart"}, {"POST", "/cart/checkout"}} {
					g.cookie = c
					g.do(ask[0], ask[1])
					g.do(ask[0], ask[1])
				}
			}
			time.Sleep(time.Second)
		}
		minted += len(g.baskets(20))
		if minted > 10+4 {
			t.Errorf("%d baskets in 20 s by orders at once, of 10 a minute", minted)
		}
		// With all patience: the checkout is looked at, and the order is old enough.
		time.Sleep(time.Minute)
		farm = g.baskets(20)
		time.Sleep(time.Minute) // the budget is whole again, and is used up
		spent := len(g.baskets(20))
		for _, c := range farm {
			g.cookie = c
			g.do("GET", "/checkout")
			ready := g.cookie
			for range 5 { // the token from before the order again and again
				g.cookie = ready
				g.do("POST", "/cart/checkout")
			}
		}
		if again := len(g.baskets(50)); len(farm) != 10 || spent != 10 || again != 10 {
			t.Errorf("%d and %d baskets gave %d more by orders, want what one farm spent", len(farm), spent, again)
		}
		if again := len(g.baskets(50)); again != 0 {
			t.Errorf("%d more out of nothing", again)
		}
	})
}

func TestWhatAnOrderByPathMustBe(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*v1.VisitorPolicySpec)
		wait   time.Duration
		before string // what the origin said on an earlier answer
		ask    [][2]string
		want   int
	}{
		{"a real one", nil, oldEnough * time.Second, "", [][2]string{{"GET", "/checkout"}, {"POST", "/cart/checkout"}}, 1},
		{"of a site without a checkout", func(s *v1.VisitorPolicySpec) { s.Checkout = nil }, oldEnough * time.Second, "", [][2]string{{"POST", "/cart/checkout"}}, 1},
		{"of a token that was renewed", nil, 31 * time.Minute, "", [][2]string{{"GET", "/checkout"}, {"GET", "/"}, {"POST", "/cart/checkout"}}, 1},
		{"at once", nil, (oldEnough - 1) * time.Second, "", [][2]string{{"GET", "/checkout"}, {"POST", "/cart/checkout"}}, 0},
		{"without the checkout", nil, oldEnough * time.Second, "", [][2]string{{"POST", "/cart/checkout"}}, 0},
		{"that is only looked at", func(s *v1.VisitorPolicySpec) { s.Ordered[0].Methods = []string{"GET"} }, oldEnough * time.Second, "", [][2]string{{"GET", "/checkout"}, {"GET", "/cart/checkout"}}, 0},
		{"where the origin tells itself", nil, oldEnough * time.Second, "basket", [][2]string{{"GET", "/checkout"}, {"POST", "/cart/checkout"}}, 0},
		{"that is emptied", nil, oldEnough * time.Second, "none", [][2]string{{"GET", "/"}}, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				spec := farmSpec()
				spec.Minting.PerMinute = 1
				if c.change != nil {
					c.change(spec)
				}
				g := newRig(t, spec)
				if len(g.baskets(2)) != 1 {
					t.Fatal("no basket, or two")
				}
				g.cookie = ""
				time.Sleep(time.Minute)
				g.do("POST", "/cart")
				buyer := g.cookie
				if c.before != "" {
					g.o.fields = "Relais-Funnel: " + c.before
					g.do("GET", "/").o.fields = ""
				}
				g.cookie = buyer
				time.Sleep(c.wait)
				for _, a := range c.ask {
					g.do(a[0], a[1])
				}
				got := len(g.baskets(3))
				if c.wait >= time.Minute {
					got-- // of the time that has passed
				}
				if got != c.want {
					t.Errorf("%d baskets more, want %d", got, c.want)
				}
			})
		})
	}
}

// The origin's word gives a shared address what the policy says, once for each token.
func TestAConfirmedOrderGivesCreditOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig(t, farmSpec())
		ready := g.baskets(20)[0]
		for range 5 {
			g.cookie = ready
			g.o.fields = "Relais-Funnel: ordered"
			g.do("GET", "/thanks") // as the origin says it on each look at the confirmation
			g.o.fields = ""
		}
		if n := len(g.baskets(50)); n != 20 {
			t.Errorf("%d baskets more for one order, want 20", n)
		}
	})
}

// Nobody has a basket for having looked at a page.
func TestSafeRequestsByPathProveNothing(t *testing.T) {
	const private, public = "Cache-Control: private, no-store", "Cache-Control: public, max-age=60"
	for _, c := range []struct {
		name, method, path, fields string
		known                      bool // it has filled a basket for which there was no budget
		want                       bool
	}{
		{"the checkout", "GET", "/checkout", "", false, false},
		{"the checkout, for this visitor alone", "GET", "/checkout", private, false, false},
		{"HEAD of the checkout", "HEAD", "/checkout", private, false, false},
		{"the checkout, sent", "POST", "/checkout", "", false, true},
		{"the checkout, by the origin's word", "GET", "/checkout", "Relais-Funnel: checkout", false, true},
		{"the checkout, with a basket beyond the budget", "GET", "/checkout", private, true, true},
		{"the same, of which nobody says that it is private", "GET", "/checkout", "", true, false},
		{"a basket", "GET", "/add", "", false, false},
		{"a basket that may be stored", "GET", "/add", public, false, false},
		{"a basket, for this visitor alone", "GET", "/add", private, false, true},
		{"a basket, no-store", "GET", "/add", "Cache-Control: no-store, no-cache, must-revalidate", false, true},
		{"a basket, by the origin's word", "GET", "/add", "Relais-Funnel: basket", false, true},
		{"a basket, sent", "POST", "/cart", "", false, true},
	} {
		synctest.Test(t, func(t *testing.T) {
			spec := farmSpec()
			spec.Checkout[0].Methods = []string{"GET", "HEAD", "POST"}
			spec.Minting.PerMinute = 1
			g := newRig(t, spec)
			if c.known {
				g.do("POST", "/cart")
				g.cookie = ""
				if g.do("POST", "/cart"); g.token().class != stage.Known {
					t.Fatalf("%s: %+v", c.name, g.token())
				}
				time.Sleep(time.Minute)
			}
			g.set = ""
			g.o.fields = c.fields
			g.do(c.method, c.path)
			if g.o.seen.Near() != stage.StepBrowse || g.o.seen.Exempt() {
				t.Errorf("%s: who has proved nothing is %+v", c.name, g.o.seen)
			}
			got := g.set != "" && g.token().class == stage.Protected
			if got != c.want {
				t.Errorf("%s: protected is %v (%q), want %v", c.name, got, g.set, c.want)
			}
			if !c.want && c.fields != public && metric(t, g.reg, "unproven") != "1" {
				t.Errorf("%s: not counted", c.name)
			}
			if got { // from here on the path counts
				if g.do("GET", "/checkout"); g.o.seen.Near() != stage.StepCheckout || !g.o.seen.Exempt() {
					t.Errorf("%s: a visitor with a basket is %+v", c.name, g.o.seen)
				}
			}
		})
	}
}

// Buyers behind one address whose shop says nothing: those who order leave room for others, without end.
func TestBuyersBehindASharedAddressGetBackWhatTheyOrderFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig(t, farmSpec())
		refused := 0
		var waiting []string
		for i := range 200 { // a buyer each four seconds, who orders forty seconds later, of 10 baskets a minute
			got := g.baskets(1)
			if len(got) == 0 {
				refused++
			}
			if waiting = append(waiting, got...); i >= 10 && len(waiting) > 10 {
				g.cookie, waiting = waiting[0], waiting[1:]
				g.do("GET", "/checkout").do("POST", "/cart/checkout")
			}
			time.Sleep(4 * time.Second)
		}
		if refused > 10 {
			t.Errorf("%d of 200 buyers were not protected", refused)
		}
	})
}

// A token says where its visitor comes from now; a callback comes from nowhere.
func TestSourcesOfVisitors(t *testing.T) {
	spec := policySpec()
	spec.Callbacks = []v1.Callback{{Name: "pay", Path: "/hooks", Addresses: []string{"192.0.2.0/24"}}}
	g := newRig(t, spec)
	g.do("POST", "/cart")
	sources := map[uint64]bool{}
	for i := range 4 {
		g.from("198.51.100."+strconv.Itoa(i), "", g.cookie, "")
		if g.o.seen.Class != stage.Protected || g.o.seen.Source == 0 {
			t.Errorf("%+v", g.o.seen)
		}
		sources[g.o.seen.Source], sources[g.o.seen.Network] = true, true
	}
	if len(sources) != 5 {
		t.Errorf("%d sources and networks of four neighbours, want 5", len(sources))
	}
	g.from("2001:db8::1", "", g.cookie, "")
	a := g.o.seen
	g.from("2001:db8::ffff:2", "", g.cookie, "")
	if b := g.o.seen; a.Source != b.Source || a.Network != b.Network {
		t.Error("two addresses of a /64 are two sources")
	}
	g.do("POST", "/hooks")
	if v := g.o.seen; !v.Callback || v.Source != 0 || v.Network != 0 || v.Near() != stage.StepOrder {
		t.Errorf("a callback is %+v", v)
	}
	x := &stage.Exchange{In: &message.Request{}}
	if v := stranger(x); v.Source != 0 || v.Network != 0 {
		t.Errorf("nobody knows the address, and the source is %+v", v)
	}
	if x.Client = netip.MustParseAddr("::ffff:192.0.2.1"); stranger(x) != stranger(&stage.Exchange{Client: netip.MustParseAddr("192.0.2.1")}) {
		t.Error("an IPv4 address in IPv6 is another source")
	}
}

// Tokens of the edge before this one are good, and those of this one are for it.
func TestTokensWithoutTheLaterBitsAreGood(t *testing.T) {
	c := newCodec("o/shop", "rv", []byte(secret))
	for _, want := range []token{
		{class: stage.Protected, reached: stage.StepBasket, expires: 1 << 31, id: 7},
		{class: stage.Protected, reached: stage.StepOrder, confirmed: true, final: true, paid: true, aged: true, expires: 1 << 31, id: 7},
	} {
		text := c.append(nil, &want)
		if got, err := c.parse(text, 1); err != nil || got != want || len(text) != textLen || strings.ContainsAny(string(text), "\r\n") {
			t.Errorf("%+v became %+v, %v", want, got, err)
		}
	}
}
