package access

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"strings"
	"testing"
	"time"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/bundle"
	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/observe"
	"github.com/relais-edge/relais/internal/snapshot"
	"github.com/relais-edge/relais/internal/stage"
)

type answer struct{ r message.Response }

func (a *answer) Serve(context.Context, *stage.Exchange) (*message.Response, error) { return &a.r, nil }

func newSite(spec *v1.AccessPolicySpec) *snapshot.Site {
	s := &snapshot.Site{
		Key:    "o/shop",
		Spec:   &bundle.Site{Access: map[string]*v1.AccessPolicySpec{"p": spec}},
		Routes: []snapshot.Route{{Index: 0, Name: "a", Spec: &v1.Route{Policies: v1.Policies{Access: "p"}}}, {Index: 1, Name: "b", Spec: &v1.Route{}}},
		Parts:  make([]any, stage.Slots),
	}
	return s
}

func compiled(t testing.TB, spec *v1.AccessPolicySpec) (*Stage, *snapshot.Site) {
	t.Helper()
	st := New(Config{Slot: 3}, observe.New())
	site := newSite(spec)
	p, err := st.Compile(site, nil)
	if err != nil {
		t.Fatal(err)
	}
	site.Parts[3] = p
	return st, site
}

func exchange(site *snapshot.Site, route int, client, method, path string) *stage.Exchange {
	r := &message.Request{}
	r.SetMethod([]byte(method))
	x := &stage.Exchange{In: r, Path: []byte(path), Site: site, Route: &site.Routes[route], Start: time.Now()}
	x.Client, _ = netip.ParseAddr(client)
	return x
}

func TestFirstMatchingRuleDecides(t *testing.T) {
	spec := &v1.AccessPolicySpec{
		Rules: []v1.AccessRule{
			{Action: "allow", Addresses: []string{"192.0.2.7"}},
			{Action: "deny", Addresses: []string{"192.0.2.0/24", "::ffff:198.51.100.0/120", "2001:db8::/32"}},
			{Action: "allow", Path: "/health", Methods: []string{"GET"}},
			{Action: "deny", Path: "/admin"},
			{Action: "allow", Addresses: []string{"10.0.0.0/8"}},
			{Action: "deny", Methods: []string{"DELETE"}, Addresses: []string{"203.0.113.0/24"}},
		},
		Default: "deny",
	}
	st, site := compiled(t, spec)
	for _, c := range []struct {
		client, method, path string
		denied               bool
		detail               string
	}{
		{"192.0.2.7", "GET", "/admin", false, "rule 1 of p"},
		{"192.0.2.8", "GET", "/", true, "rule 2 of p"},
		{"192.0.2.8", "GET", "/health", true, "rule 2 of p"},
		{"::ffff:192.0.2.8", "GET", "/", true, "rule 2 of p"},
		{"198.51.100.9", "GET", "/", true, "rule 2 of p"},
		{"2001:db8:1::1", "GET", "/", true, "rule 2 of p"},
		{"2001:db9::1", "GET", "/", true, "default of p"},
		{"10.1.2.3", "GET", "/", false, "rule 5 of p"},
		{"10.1.2.3", "GET", "/admin/x", true, "rule 4 of p"},
		{"8.8.8.8", "GET", "/health", false, "rule 3 of p"},
		{"8.8.8.8", "POST", "/health", true, "default of p"},
		{"203.0.113.4", "DELETE", "/", true, "rule 6 of p"},
		{"203.0.113.4", "GET", "/", true, "default of p"},
		{"", "GET", "/", true, "default of p"},
		{"", "GET", "/health", false, "rule 3 of p"},
	} {
		x := exchange(site, 0, c.client, c.method, c.path)
		_, err := st.Serve(context.Background(), x, &answer{})
		if denied := err != nil; denied != c.denied {
			t.Errorf("%s %s %s: denied %v, want %v", c.client, c.method, c.path, denied, c.denied)
		}
		if err != nil {
			if e := stage.AsError(err); e.Status != 403 || e.Code != "http_request_denied" || e.Side != stage.SideTenant {
				t.Errorf("error %+v", e)
			}
		}
		if m := x.Trail.Marks(); len(m) != 1 || m[0].Detail != c.detail {
			t.Errorf("%s %s %s: marks %v, want %q", c.client, c.method, c.path, m, c.detail)
		}
	}
}

func TestModesAndExpiry(t *testing.T) {
	past, future := &v1.Time{Time: time.Now().Add(-time.Hour)}, &v1.Time{Time: time.Now().Add(time.Hour)}
	for _, c := range []struct {
		name   string
		p      v1.Protection
		denied bool
		code   string
	}{
		{"enforce", v1.Protection{Mode: v1.ModeEnforce, Expires: future}, true, "deny"},
		{"shadow", v1.Protection{Mode: v1.ModeShadow}, false, "would-deny"},
		{"off", v1.Protection{Mode: v1.ModeOff}, false, ""},
		{"expired", v1.Protection{Mode: v1.ModeEnforce, Expires: past}, false, ""},
	} {
		st, site := compiled(t, &v1.AccessPolicySpec{Protection: c.p, Default: "deny"})
		x := exchange(site, 0, "192.0.2.1", "GET", "/")
		x.Visitor.Class = stage.Protected // a basket changes nothing
		_, err := st.Serve(context.Background(), x, &answer{})
		code := ""
		if m := x.Trail.Marks(); len(m) > 0 {
			code = m[0].Code
		}
		if (err != nil) != c.denied || code != c.code {
			t.Errorf("%s: error %v, mark %q", c.name, err, code)
		}
	}
}

func TestRouteWithoutPolicyIsLeftAlone(t *testing.T) {
	st, site := compiled(t, &v1.AccessPolicySpec{Default: "deny"})
	x := exchange(site, 1, "192.0.2.1", "GET", "/")
	if _, err := st.Serve(context.Background(), x, &answer{}); err != nil || len(x.Trail.Marks()) != 0 {
		t.Errorf("error %v, marks %v", err, x.Trail.Marks())
	}
	site.Routes[0].Spec = &v1.Route{}
	if p, err := st.Compile(site, site.Parts[3]); p != nil || err != nil {
		t.Errorf("a site without policies made a part: %v, %v", p, err)
	}
}

// TestTableAgreesWithLinearSearch compares the table with the plain definition.
func TestTableAgreesWithLinearSearch(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for round := range 200 {
		lists := make([][]netip.Prefix, 1+rnd.IntN(70))
		for i := range lists {
			for range rnd.IntN(6) {
				if rnd.IntN(2) == 0 {
					a := netip.AddrFrom4([4]byte{byte(255 * rnd.IntN(2)), byte(255 * rnd.IntN(2)), byte(rnd.IntN(4)), byte(rnd.IntN(4))})
					lists[i] = append(lists[i], netip.PrefixFrom(a, rnd.IntN(33)))
				} else {
					var b [16]byte
					b[0], b[7], b[8], b[15] = byte(255*rnd.IntN(2)), byte(rnd.IntN(3)), byte(255*rnd.IntN(2)), byte(rnd.IntN(4))
					if rnd.IntN(4) == 0 {
						for k := range b {
							b[k] = 255
						}
					}
					lists[i] = append(lists[i], netip.PrefixFrom(netip.AddrFrom16(b), rnd.IntN(129)))
				}
			}
		}
		tab := newTable(lists)
		for range 200 {
			a := probe(rnd, lists)
			want := none
			for i, l := range lists {
				for _, p := range l {
					if p.Contains(a) && (want == none || int16(i) < want) {
						want = int16(i)
					}
				}
			}
			if got := tab.find(a); got != want {
				t.Fatalf("round %d: %s is in list %d, want %d; lists %v", round, a, got, want, lists)
			}
		}
	}
}

// probe picks an address at, before or after an end of a network.
func probe(rnd *rand.Rand, lists [][]netip.Prefix) netip.Addr {
	l := lists[rnd.IntN(len(lists))]
	if len(l) == 0 {
		return netip.AddrFrom4([4]byte{byte(rnd.IntN(256)), 0, 0, byte(rnd.IntN(256))})
	}
	p := l[rnd.IntN(len(l))].Masked()
	a := p.Addr()
	if rnd.IntN(2) == 0 { // the last address
		b := a.AsSlice()
		for i := p.Bits(); i < len(b)*8; i++ {
			b[i/8] |= 1 << (7 - i%8)
		}
		a, _ = netip.AddrFromSlice(b)
	}
	switch n := rnd.IntN(3); {
	case n == 0 && a.Next().IsValid():
		a = a.Next()
	case n == 1 && a.Prev().IsValid():
		a = a.Prev()
	}
	if a.Is4In6() { // the table takes it for IPv4
		return netip.IPv6Unspecified()
	}
	return a
}

func TestCompileRefusesWhatIsNoNetwork(t *testing.T) {
	for _, bad := range []string{"", "10.0.0.0/33", "10.0.0/8", "fe80::1%eth0", "2001:db8::/129", "10.0.0.0/", "10.0.0.0/+8", "x"} {
		st := New(Config{Slot: 3}, observe.New())
		_, err := st.Compile(newSite(&v1.AccessPolicySpec{Rules: []v1.AccessRule{{Action: "deny", Addresses: []string{"192.0.2.0/24", bad}}}}), nil)
		if err == nil || !strings.Contains(err.Error(), "rules[0].addresses: item 1") {
			t.Errorf("%q: %v", bad, err)
		}
	}
	if _, err := New(Config{Slot: 3}, observe.New()).Compile(&snapshot.Site{Spec: &bundle.Site{}, Routes: newSite(nil).Routes}, nil); err == nil {
		t.Error("a policy that the bundle does not hold was accepted")
	}
}

func TestPoliciesAreSharedAndDropped(t *testing.T) {
	st := New(Config{Slot: 3}, observe.New())
	spec := &v1.AccessPolicySpec{Default: "deny"}
	a, _ := st.Compile(newSite(spec), nil)
	b, _ := st.Compile(newSite(spec), nil)
	if a.(*part).routes[0] != b.(*part).routes[0] {
		t.Error("two sites with one specification have a policy each")
	}
	same := *spec
	c, _ := st.Compile(newSite(&same), a)
	if a.(*part).routes[0] != c.(*part).routes[0] {
		t.Error("a policy that did not change was built again")
	}
	runtime.KeepAlive(b)
	a, b, c = nil, nil, nil
	for range 20 {
		runtime.GC()
		time.Sleep(time.Millisecond) // clean-ups run in a goroutine of the run time
		st.mu.Lock()
		n := len(st.shared)
		st.mu.Unlock()
		if n == 0 {
			return
		}
	}
	t.Errorf("policies without users are kept: %v %v %v", a, b, c)
}

func big(n int) *v1.AccessPolicySpec {
	rnd := rand.New(rand.NewPCG(7, 7))
	list := make([]string, n)
	for i := range list {
		list[i] = fmt.Sprintf("%d.%d.%d.0/%d", 1+rnd.IntN(222), rnd.IntN(256), rnd.IntN(256), 20+rnd.IntN(5))
	}
	return &v1.AccessPolicySpec{Rules: []v1.AccessRule{{Action: "deny", Addresses: list}, {Action: "allow", Path: "/a"}}}
}

func TestServeAllocatesNothing(t *testing.T) {
	st, site := compiled(t, big(1000))
	x := exchange(site, 0, "223.1.2.3", "GET", "/")
	var next stage.Handler = &answer{}
	ctx := context.Background()
	if n := testing.AllocsPerRun(100, func() {
		x.Trail = stage.Trail{}
		if _, err := st.Serve(ctx, x, next); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkServe100kNetworks(b *testing.B) {
	st, site := compiled(b, big(100_000))
	x := exchange(site, 0, "223.1.2.3", "GET", "/")
	var next stage.Handler = &answer{}
	ctx := context.Background()
	for i := 0; b.Loop(); i++ {
		x.Client = netip.AddrFrom4([4]byte{byte(i * 7), byte(i * 31), byte(i * 13), byte(i)})
		x.Trail = stage.Trail{}
		_, _ = st.Serve(ctx, x, next)
	}
}

func BenchmarkFind100kNetworks(b *testing.B) {
	_, site := compiled(b, big(100_000))
	tab := site.Parts[3].(*part).routes[0].plain
	for i := 0; b.Loop(); i++ {
		tab.find(netip.AddrFrom4([4]byte{byte(i * 7), byte(i * 31), byte(i * 13), byte(i)}))
	}
}

func BenchmarkCompile100kNetworks(b *testing.B) {
	spec := big(100_000)
	for b.Loop() {
		if _, err := compile("p", spec); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkServeNoPolicy(b *testing.B) {
	st, site := compiled(b, big(10))
	x := exchange(site, 1, "223.1.2.3", "GET", "/")
	var next stage.Handler = &answer{}
	ctx := context.Background()
	for b.Loop() {
		_, _ = st.Serve(ctx, x, next)
	}
}
