package learn

import (
	"fmt"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/relais-edge/relais/internal/observe"
)

var (
	at    = PlaceOf("w", "GET", []byte("/search"))
	hits  = []Hit{{Rule: 942100, Target: "ARGS:q", Score: 5}}
	terms = Terms{Buyers: 3, Share: .1, Lifetime: time.Hour, Most: 2}
)

func visitor(n int) Visitor {
	return Visitor{ID: uint64(n + 1), Network: Network(netip.AddrFrom4([4]byte{10, byte(n >> 8), byte(n), 1})), Basket: true}
}

func newSite(t testing.TB) (*Site, *Book) {
	t.Helper()
	b := New(observe.New())
	return b.Site("o/shop"), b
}

// buy has a visitor be hit, denied, and order.
func buy(s *Site, v Visitor, order string, h []Hit) {
	s.Hit(time.Now(), v, at, true, h)
	time.Sleep(time.Second)
	s.Order(time.Now(), v, Order([]byte(order)), terms)
}

func demoted(s *Site) bool { return len(s.Demoted(time.Now(), at, hits, terms)) > 0 }

func TestADemotionNeedsItsBuyersEndsAndIsRenewedByHalfAsMany(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, b := newSite(t)
		for n := range 3 {
			if demoted(s) {
				t.Fatalf("after %d buyers", n)
			}
			buy(s, visitor(n), fmt.Sprint(n), hits)
		}
		if !demoted(s) || s.active.Load() != 1 || b.demoted.Load() != 1 {
			t.Fatal("not after three")
		}
		// Two of three, half rounded up, come while it is in force: it goes on for another hour.
		time.Sleep(30 * time.Minute)
		buy(s, visitor(10), "10", hits)
		buy(s, visitor(11), "11", hits)
		time.Sleep(31 * time.Minute)
		if !demoted(s) {
			t.Fatal("not renewed")
		}
		// One comes in that hour: it ends.
		buy(s, visitor(12), "12", hits)
		time.Sleep(time.Hour)
		if demoted(s) || s.active.Load() != 0 || b.demoted.Load() != 0 {
			t.Fatal("it did not end")
		}
		// After that it needs three again, whatever there was before.
		for n := 20; n < 23; n++ {
			if demoted(s) {
				t.Fatalf("again after %d", n-20)
			}
			buy(s, visitor(n), fmt.Sprint(n), hits)
		}
		if !demoted(s) {
			t.Error("not again after three")
		}
		// Nobody asks for two hours: it ends although it had its buyers.
		buy(s, visitor(30), "30", hits)
		buy(s, visitor(31), "31", hits)
		time.Sleep(3 * time.Hour)
		if demoted(s) {
			t.Error("renewed long after its time")
		}
	})
}

func TestWhoDoesNotCountAsAnotherBuyer(t *testing.T) {
	for name, who := range map[string]func(n int) (Visitor, string){
		"the same visitor from other networks": func(n int) (Visitor, string) { v := visitor(n); v.ID = 7; return v, fmt.Sprint(n) },
		"other visitors of one network":        func(n int) (Visitor, string) { v := visitor(n); v.Network = 7; return v, fmt.Sprint(n) },
		"the same order":                       func(n int) (Visitor, string) { return visitor(n), "one" },
		"without a basket":                     func(n int) (Visitor, string) { v := visitor(n); v.Basket = false; return v, fmt.Sprint(n) },
	} {
		synctest.Test(t, func(t *testing.T) {
			s, _ := newSite(t)
			for n := range 20 {
				v, order := who(n)
				buy(s, v, order, hits)
			}
			if demoted(s) || len(s.Proposals(time.Now(), "w", terms)) != 0 {
				t.Errorf("%s: learned", name)
			}
		})
	}
}

func TestAnAttackerWithoutOrdersMovesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, b := newSite(t)
		for n := range 20_000 {
			v := visitor(n)
			v.Basket = n%2 == 0
			s.Hit(time.Now(), v, PlaceOf("w", "GET", fmt.Appendf(nil, "/p%c%c/x", 'a'+n%26, 'a'+n/26%26)), true, []Hit{{Rule: 942100 + n%50, Target: "ARGS:q", Score: 5}, {Rule: 941100, Target: "ARGS:" + strings.Repeat("<", n%9), Score: 5}})
		}
		if len(s.findings) > MaxFindings || len(s.visits) > MaxVisits || b.findings.Load() != int64(len(s.findings)) || b.visits.Load() != int64(len(s.visits)) {
			t.Errorf("%d findings (%d), %d visits (%d)", len(s.findings), b.findings.Load(), len(s.visits), b.visits.Load())
		}
		if p := s.Proposals(time.Now(), "w", terms); len(p) != 0 || s.active.Load() != 0 {
			t.Errorf("%d proposals, %d demotions", len(p), s.active.Load())
		}
		for k := range s.findings {
			if strings.Contains(k.Target, "<") {
				t.Errorf("%q is remembered", k.Target)
			}
		}
		// Buyers are still learned from.
		for n := range 3 {
			buy(s, visitor(30_000+n), fmt.Sprint(n), hits)
		}
		if !demoted(s) {
			t.Error("buyers find no room")
		}
	})
}

func TestFindingsWithBuyersStayWhenOthersNeedRoom(t *testing.T) {
	s, _ := newSite(t)
	now := time.Now()
	s.Hit(now, visitor(0), at, true, hits)
	s.Order(now, visitor(0), 1, terms)
	for n := range 3 * MaxFindings {
		s.Hit(now, visitor(1+n/8), PlaceOf("w", "GET", fmt.Appendf(nil, "/%s", strings.Repeat("a", n%100)+strings.Repeat("b", n/100))), true, hits)
	}
	if s.findings[at.key(&hits[0])] == nil || len(s.findings) != MaxFindings {
		t.Errorf("%d findings", len(s.findings))
	}
}

func TestNoMoreDemotionsThanThePolicySays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _ := newSite(t)
		for r := range 4 {
			for n := range 3 {
				buy(s, visitor(100*r+n), fmt.Sprint(r, n), []Hit{{Rule: 942100 + r, Target: "ARGS:q", Score: 5}})
			}
		}
		if s.active.Load() != 2 {
			t.Errorf("%d in force", s.active.Load())
		}
		// A policy that allows none ends what is in force when it is met.
		if len(s.Demoted(time.Now(), at, hits, Terms{Buyers: 3, Lifetime: time.Hour})) != 0 || s.active.Load() != 1 {
			t.Errorf("%d in force after it was switched off", s.active.Load())
		}
	})
}

func TestOnlyWhatWouldBeDeniedIsDemotedOrProposed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _ := newSite(t)
		for n := range 5 {
			s.Hit(time.Now(), visitor(n), at, false, hits)
			s.Order(time.Now(), visitor(n), Order(fmt.Append(nil, n)), terms)
		}
		if demoted(s) || len(s.Proposals(time.Now(), "w", terms)) != 0 {
			t.Error("learned")
		}
		f, orders := s.Findings(time.Now())
		if len(f) != 1 || f[0].Buyers != 5 || f[0].Refused != 0 || f[0].Hits != 5 || f[0].Denied != 0 || orders != 5 {
			t.Errorf("%+v, %d orders", f, orders)
		}
	})
}

func TestProposalsAreTheNarrowestThatHaveTheBuyers(t *testing.T) {
	n := 0
	learnFrom := func(s *Site, buyers int, method, path string, h ...Hit) {
		for range buyers {
			n++
			s.Hit(time.Now(), visitor(n), PlaceOf("w", method, []byte(path)), true, h)
			s.Order(time.Now(), visitor(n), 0, terms)
		}
	}
	q, sqli2 := Hit{Rule: 942100, Target: "ARGS:q", Score: 5}, Hit{Rule: 942160, Target: "ARGS:q", Score: 5}
	for _, c := range []struct {
		name string
		play func(s *Site)
		want []string
	}{
		{"one path", func(s *Site) { learnFrom(s, 3, "GET", "/search", q) }, []string{"[942100] ARGS:q /search exact [GET] " + wideShape}},
		{"two rules on one target", func(s *Site) { learnFrom(s, 3, "GET", "/search", q, sqli2) }, []string{"[942100 942160] ARGS:q /search exact [GET] " + wideShape}},
		{"two methods", func(s *Site) {
			learnFrom(s, 3, "GET", "/search", q)
			learnFrom(s, 3, "POST", "/search", q)
		}, []string{"[942100] ARGS:q /search exact [GET POST] " + wideShape}},
		{"too few", func(s *Site) { learnFrom(s, 2, "GET", "/search", q) }, nil},
		{"an id in the path", func(s *Site) { learnFrom(s, 3, "GET", "/shop/p-1234567.html", q) }, []string{"[942100] ARGS:q /shop below [GET] " + wideID}},
		{"many paths", func(s *Site) {
			learnFrom(s, 2, "GET", "/shop/hats/red", q)
			learnFrom(s, 1, "GET", "/shop/shoes", q)
		}, []string{"[942100] ARGS:q /shop below [GET] " + widePath}},
		{"paths without anything in common", func(s *Site) {
			learnFrom(s, 2, "GET", "/hats", q)
			learnFrom(s, 1, "GET", "/shoes", q)
		}, []string{"[942100] ARGS:q / below [GET] " + wideSite}},
		{"no target", func(s *Site) { learnFrom(s, 3, "GET", "/search", Hit{Rule: 920280, Score: 3}) }, []string{"[920280]  /search exact [GET] " + wideTarget}},
		{"another policy", func(s *Site) {
			for n := range 3 {
				s.Hit(time.Now(), visitor(n), PlaceOf("v", "GET", []byte("/search")), true, hits)
				s.Order(time.Now(), visitor(n), 0, terms)
			}
		}, nil},
	} {
		s, _ := newSite(t)
		c.play(s)
		var got []string
		for _, p := range s.Proposals(time.Now(), "w", terms) {
			scope := "below"
			if p.Exact {
				scope = "exact"
			}
			got = append(got, fmt.Sprint(p.Rules, " ", p.Target, " ", p.Path, " ", scope, " ", p.Methods, " ", p.Wide))
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

// TestShapesThatRecurNarrowAProposal: what two buyers wrote alike is in it, what one wrote is not, and where too few
// buyers wrote what others wrote too it holds for every value.
func TestShapesThatRecurNarrowAProposal(t *testing.T) {
	n := 0
	write := func(s *Site, buyers int, shapes ...string) {
		for range buyers {
			n++
			s.Hit(time.Now(), visitor(n), at, true, []Hit{{Rule: 942100, Target: "ARGS:q", Score: 5, Shapes: shapes}})
			s.Order(time.Now(), visitor(n), 0, terms)
		}
	}
	for _, c := range []struct {
		name    string
		play    func(s *Site)
		want    []string
		covered int
		wide    string
	}{
		{"one shape", func(s *Site) { write(s, 3, "9' w") }, []string{"9' w"}, 3, ""},
		{"two shapes", func(s *Site) { write(s, 2, "9' w"); write(s, 2, "w & w") }, []string{"9' w", "w & w"}, 4, ""},
		{"one that does not recur", func(s *Site) { write(s, 3, "9' w"); write(s, 1, "w & w") }, []string{"9' w"}, 3, ""},
		{"two values of one request", func(s *Site) { write(s, 3, "9' w", "w;w") }, []string{"9' w", "w;w"}, 3, ""},
		{"none recurs", func(s *Site) { write(s, 1, "a"); write(s, 1, "b"); write(s, 1, "c") }, nil, 0, wideShape},
		{"values without a shape", func(s *Site) { write(s, 1, "9' w"); write(s, 2) }, nil, 0, wideShape},
		{"too few wrote what others wrote", func(s *Site) { write(s, 2, "9' w"); write(s, 1, "b") }, nil, 0, wideShape},
	} {
		s, _ := newSite(t)
		c.play(s)
		p := s.Proposals(time.Now(), "w", terms)
		if len(p) != 1 || !slices.Equal(p[0].Shapes, c.want) || p[0].Covered != c.covered || p[0].Wide != c.wide {
			t.Errorf("%s: %+v", c.name, p)
		}
	}
}

// TestShapesOfNoBuyerGiveWay: who has baskets and orders nothing pushes out no shape that a buyer brought.
func TestShapesOfNoBuyerGiveWay(t *testing.T) {
	s, _ := newSite(t)
	now := time.Now()
	hit := func(n int, shape string) {
		s.Hit(now, visitor(n), at, true, []Hit{{Rule: 942100, Target: "ARGS:q", Score: 5, Shapes: []string{shape}}})
	}
	for n := range 3 {
		hit(n, "9' w")
		s.Order(now, visitor(n), 0, terms)
	}
	for n := range 10 * MaxShapes {
		hit(1000+n, fmt.Sprint("w", n))
	}
	if f := s.findings[at.key(&hits[0])]; len(f.shapes) != MaxShapes {
		t.Errorf("%d shapes", len(f.shapes))
	}
	if p := s.Proposals(now, "w", Terms{Buyers: 3}); len(p) != 1 || !slices.Equal(p[0].Shapes, []string{"9' w"}) {
		t.Errorf("%+v", p)
	}
}

// TestASiteThatIsNoLongerServedIsForgotten: it gives its room to others, and what is still under way for it changes nothing.
func TestASiteThatIsNoLongerServedIsForgotten(t *testing.T) {
	s, b := newSite(t)
	kept := b.Site("o/other")
	now := time.Now()
	for _, s := range []*Site{s, kept} {
		s.Hit(now, visitor(1), at, true, hits)
	}
	b.Forget(func(key string) bool { return key == "o/other" })
	s.Hit(now, visitor(2), at, true, hits)
	s.Order(now, visitor(2), 1, terms)
	if b.findings.Load() != 1 || b.visits.Load() != 1 || !slices.Equal(b.Keys(), []string{"o/other"}) {
		t.Errorf("%d findings, %d visits, %q", b.findings.Load(), b.visits.Load(), b.Keys())
	}
	if again := b.Site("o/shop"); again == s {
		t.Error("it is remembered")
	}
}

func TestBuyersAreForgottenAfterTheWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _ := newSite(t)
		for n := range 3 {
			buy(s, visitor(n), "", hits)
		}
		time.Sleep(Window / 2)
		if len(s.Proposals(time.Now(), "w", terms)) != 1 {
			t.Error("forgotten too early")
		}
		time.Sleep(Window)
		if len(s.Proposals(time.Now(), "w", terms)) != 0 {
			t.Error("remembered")
		}
	})
}

func TestPathsWithIdsAreOnePlace(t *testing.T) {
	for path, want := range map[string]string{
		"/":                              "/",
		"/search":                        "/search",
		"/p/1234":                        "/p/*",
		"/p/1234/reviews":                "/p/*/reviews",
		"/v2/cart":                       "/v2/cart",
		"/7/x":                           "/*/x",
		"/casque/p-1234567.html":         "/casque/*",
		"/api/1f0a9c77/x":                "/api/*/x",
		"/" + strings.Repeat("a/", 100):  "/" + strings.Repeat("a/", 63) + "*",
		"/x/" + strings.Repeat("y", 200): "/x/*",
	} {
		if got := PlaceOf("w", "GET", []byte(path)).Path; got != want {
			t.Errorf("%s: %s, want %s", path, got, want)
		}
	}
}

func TestNetworks(t *testing.T) {
	for _, c := range []struct {
		a, b string
		same bool
	}{
		{"192.0.2.1", "192.0.2.200", true},
		{"192.0.2.1", "192.0.3.1", false},
		{"::ffff:192.0.2.1", "192.0.2.7", true},
		{"2001:db8:1:2::1", "2001:db8:1:3::1", true},
		{"2001:db8:1::1", "2001:db8:2::1", false},
		{"fe80::1%eth0", "fe80::2", true},
	} {
		if got := Network(netip.MustParseAddr(c.a)) == Network(netip.MustParseAddr(c.b)); got != c.same {
			t.Errorf("%s and %s: %v", c.a, c.b, got)
		}
	}
}

func TestSitesAndTheWholeBookAreBounded(t *testing.T) {
	b := New(observe.New())
	now := time.Now()
	for i := range 2 * AllVisits / MaxVisits {
		s := b.Site(fmt.Sprint(i))
		for n := range MaxVisits {
			s.Hit(now, visitor(n), PlaceOf("w", "GET", fmt.Appendf(nil, "/%s", strings.Repeat("a", n%100))), true, hits)
		}
	}
	if b.visits.Load() > AllVisits || b.findings.Load() > AllFindings {
		t.Errorf("%d visits, %d findings", b.visits.Load(), b.findings.Load())
	}
	for i := range MaxSites + 10 {
		b.Site(fmt.Sprint(i))
	}
	if len(b.sites) != MaxSites || b.Site("one more") != nil {
		t.Errorf("%d sites", len(b.sites))
	}
}

func TestWhatIsLearnedIsCounted(t *testing.T) {
	r := observe.New()
	s := New(r).Site("o/shop")
	now := time.Now()
	for n := range 3 {
		s.Hit(now, visitor(n), at, true, hits)
		s.Order(now, visitor(n), Order(fmt.Append(nil, n)), terms)
	}
	w := httptest.NewRecorder()
	r.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
	for _, want := range []string{
		`relais_waf_learning_total{event="hit"} 3`, `relais_waf_learning_total{event="order"} 3`, `relais_waf_learning_total{event="buyer"} 3`,
		`relais_waf_learning_total{event="demoted"} 1`, `relais_waf_demotions 1`,
	} {
		if !strings.Contains(w.Body.String(), want+"\n") {
			t.Errorf("%s is missing", want)
		}
	}
}

func TestAskingWhereNothingIsDemotedAllocatesNothing(t *testing.T) {
	s, _ := newSite(t)
	now := time.Now()
	if n := testing.AllocsPerRun(100, func() { s.Demoted(now, at, hits, terms) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
