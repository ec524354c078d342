package ratelimit

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/bundle"
	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/observe"
	"github.com/relais-edge/relais/internal/snapshot"
	"github.com/relais-edge/relais/internal/stage"
)

type answer struct{ r message.Response }

func (a *answer) Serve(context.Context, *stage.Exchange) (*message.Response, error) {
	a.r.Reset()
	return &a.r, nil
}

func newSite(limits map[string]*v1.RateLimitSpec, names ...string) *snapshot.Site {
	return &snapshot.Site{
		Key:    "o/shop",
		Spec:   &bundle.Site{RateLimits: limits},
		Routes: []snapshot.Route{{Spec: &v1.Route{Policies: v1.Policies{RateLimits: names}}}, {Index: 1, Spec: &v1.Route{}}},
		Parts:  make([]any, stage.Slots),
	}
}

func compiled(t testing.TB, reg *observe.Registry, spec v1.RateLimitSpec) (*Stage, *snapshot.Site) {
	t.Helper()
	st := New(2, Config{Entries: 1 << 14}, reg)
	site := newSite(map[string]*v1.RateLimitSpec{"l": &spec}, "l")
	p, err := st.Compile(site, nil)
	if err != nil {
		t.Fatal(err)
	}
	site.Parts[2] = p
	return st, site
}

func exchange(site *snapshot.Site, client string, fields ...string) *stage.Exchange {
	r := &message.Request{}
	r.SetMethod([]byte("GET"))
	for i := 0; i < len(fields); i += 2 {
		r.AddLine([]byte(fields[i]), []byte(fields[i+1]))
	}
	x := &stage.Exchange{In: r, Path: []byte("/"), Site: site, Route: &site.Routes[0], Start: time.Now()}
	x.Client, _ = netip.ParseAddr(client)
	return x
}

func serve(st *Stage, x *stage.Exchange) (*message.Response, error) {
	return st.Serve(context.Background(), x, &answer{})
}

func TestExceededIs429WithRetryAfterAndFields(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st, site := compiled(t, observe.New(), v1.RateLimitSpec{Requests: 2, Per: v1.Duration(10 * time.Second)})
		for i, want := range []string{`"l";r=1;t=5`, `"l";r=0;t=10`} {
			r, err := serve(st, exchange(site, "192.0.2.1"))
			if err != nil || string(r.Get(message.RateLimit)) != want || string(r.Get(message.RateLimitPolicy)) != `"l";q=2;w=10` {
				t.Fatalf("request %d: %v, %q %q", i, err, r.Get(message.RateLimit), r.Get(message.RateLimitPolicy))
			}
		}
		x := exchange(site, "192.0.2.1")
		_, err := serve(st, x)
		e := stage.AsError(err)
		if err == nil || e.Status != 429 || e.Code != "http_request_denied" || e.RetryAfter != 5*time.Second || string(e.Fields.Get(message.RateLimit)) != `"l";r=0;t=10` {
			t.Fatalf("third request: %+v", e)
		}
		if m := x.Trail.Marks(); len(m) != 1 || m[0].Code != "deny" || m[0].Detail != "l: more than 2 in 10s, burst 2" {
			t.Errorf("marks %v", m)
		}
		if _, err := serve(st, exchange(site, "192.0.2.2")); err != nil {
			t.Errorf("another client: %v", err)
		}
		time.Sleep(5 * time.Second)
		if _, err := serve(st, exchange(site, "192.0.2.1")); err != nil {
			t.Errorf("after Retry-After: %v", err)
		}
	})
}

// TestLongRunThroughTheStage takes a flood through the stage for a fake day.
func TestLongRunThroughTheStage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st, site := compiled(t, observe.New(), v1.RateLimitSpec{Requests: 7, Per: v1.Duration(time.Hour), Burst: 3})
		x := exchange(site, "192.0.2.1")
		taken := 0
		for range 24 * 60 * 6 {
			x.Start, x.Trail = time.Now(), stage.Trail{}
			for {
				if _, err := serve(st, x); err != nil {
					break
				}
				taken++
				x.Trail = stage.Trail{}
			}
			time.Sleep(10 * time.Second)
		}
		if want := 3 + 7*24; taken < want-1 || taken > want {
			t.Errorf("%d requests in a day, want %d", taken, want)
		}
	})
}

func TestKeysAreCountedApart(t *testing.T) {
	one := v1.RateLimitSpec{Requests: 1, Per: v1.Duration(time.Hour)}
	with := func(k v1.RateLimitKey) v1.RateLimitSpec { s := one; s.Key = k; return s }
	for _, c := range []struct {
		name string
		spec v1.RateLimitSpec
		a, b []string // client and fields
		same bool
	}{
		{"client", one, []string{"192.0.2.1"}, []string{"192.0.2.2"}, false},
		{"client in IPv6 form", one, []string{"192.0.2.1"}, []string{"::ffff:192.0.2.1"}, true},
		{"client /64", one, []string{"2001:db8::1"}, []string{"2001:db8::ffff:1"}, true},
		{"client other /64", one, []string{"2001:db8::1"}, []string{"2001:db8:0:1::1"}, false},
		{"no client", one, []string{""}, []string{""}, true},
		{"header", with(v1.RateLimitKey{On: "header", Name: "X-Token"}), []string{"1.1.1.1", "x-token", "a"}, []string{"2.2.2.2", "X-Token", "a"}, true},
		{"header differs", with(v1.RateLimitKey{On: "header", Name: "X-Token"}), []string{"1.1.1.1", "X-Token", "a"}, []string{"1.1.1.1", "X-Token", "b"}, false},
		{"known header", with(v1.RateLimitKey{On: "header", Name: "authorization"}), []string{"1.1.1.1", "Authorization", "a"}, []string{"2.2.2.2", "Authorization", "a"}, true},
		{"header absent is by client", with(v1.RateLimitKey{On: "header", Name: "X-Token"}), []string{"1.1.1.1"}, []string{"2.2.2.2"}, false},
		{"empty header is by client", with(v1.RateLimitKey{On: "header", Name: "X-Token"}), []string{"1.1.1.1", "X-Token", ""}, []string{"1.1.1.1"}, true},
		{"cookie", with(v1.RateLimitKey{On: "cookie", Name: "sid"}), []string{"1.1.1.1", "Cookie", "a=b; sid=7"}, []string{"2.2.2.2", "Cookie", "x=1", "Cookie", "sid=7; z=1"}, true},
		{"cookie differs", with(v1.RateLimitKey{On: "cookie", Name: "sid"}), []string{"1.1.1.1", "Cookie", "sid=7"}, []string{"1.1.1.1", "Cookie", "asid=9; sid=8"}, false},
		{"site", with(v1.RateLimitKey{On: "site"}), []string{"1.1.1.1"}, []string{"2.2.2.2"}, true},
	} {
		st, site := compiled(t, observe.New(), c.spec)
		if _, err := serve(st, exchange(site, c.a[0], c.a[1:]...)); err != nil {
			t.Fatalf("%s: first: %v", c.name, err)
		}
		if _, err := serve(st, exchange(site, c.b[0], c.b[1:]...)); (err != nil) != c.same {
			t.Errorf("%s: second refused: %v, want %v", c.name, err != nil, c.same)
		}
	}
}

func TestBasketIsSparedAndCounted(t *testing.T) {
	no := false
	reg := observe.New()
	st, site := compiled(t, reg, v1.RateLimitSpec{Requests: 2, Per: v1.Duration(time.Hour)})
	for i := range 5 {
		x := exchange(site, "192.0.2.1")
		x.Visitor.Class = stage.Protected
		r, err := serve(st, x)
		if err != nil {
			t.Fatalf("request %d of a visitor with a basket: %v", i, err)
		}
		if r.Has(message.RateLimit) {
			t.Error("a spared visitor is told of a limit")
		}
	}
	if _, err := serve(st, exchange(site, "192.0.2.1")); err == nil {
		t.Error("the requests with a basket were not counted")
	}
	if got := metric(t, reg, `relais_ratelimit_requests_total{outcome="spared",site="o/shop"}`); got != "3" {
		t.Errorf("spared: %s, want 3", got)
	}
	st, site = compiled(t, observe.New(), v1.RateLimitSpec{Requests: 1, SpareBaskets: &no})
	x := exchange(site, "192.0.2.1")
	x.Visitor.Class = stage.Protected
	_, _ = serve(st, x)
	if _, err := serve(st, x); err == nil {
		t.Error("spareBaskets: false spares")
	}
}

func metric(t *testing.T, reg *observe.Registry, series string) string {
	t.Helper()
	w := httptest.NewRecorder()
	reg.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
	b, _ := io.ReadAll(w.Body)
	for l := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(l, series+" "); ok {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

func TestModesScopeAndSeveralLimits(t *testing.T) {
	st := New(2, Config{Entries: 1}, observe.New())
	h := v1.Duration(time.Hour)
	site := newSite(map[string]*v1.RateLimitSpec{
		"shadow": {Protection: v1.Protection{Mode: v1.ModeShadow}, Requests: 1, Per: h},
		"off":    {Protection: v1.Protection{Mode: v1.ModeOff}, Requests: 1, Per: h},
		"past":   {Protection: v1.Protection{Expires: &v1.Time{Time: time.Now().Add(-1)}}, Requests: 1, Per: h},
		"posts":  {Requests: 1, Per: h, Methods: []string{"POST"}, Path: "/login"},
		"all":    {Requests: 3, Per: h, Burst: 3},
	}, "shadow", "off", "past", "posts", "all")
	p, err := st.Compile(site, nil)
	if err != nil {
		t.Fatal(err)
	}
	site.Parts[2] = p
	var got []string
	for range 4 {
		x := exchange(site, "192.0.2.1")
		x.Path = []byte("/login/a")
		_, err := serve(st, x)
		for _, m := range x.Trail.Marks() {
			got = append(got, m.Code)
		}
		got = append(got, fmt.Sprint(err != nil))
	}
	want := "[pass pass false would-deny pass false would-deny pass false would-deny deny true]"
	if fmt.Sprint(got) != want {
		t.Errorf("got  %v\nwant %s", got, want)
	}
	st.table = newTable(1, st.table.idle, st.table.busy)
	x := exchange(site, "192.0.2.1")
	x.In.SetMethod([]byte("POST"))
	x.Path = []byte("/login")
	r, err := serve(st, x)
	if err != nil || string(r.Get(message.RateLimit)) != `"posts";r=0;t=3600, "all";r=2;t=1200` {
		t.Errorf("%v %q", err, r.Get(message.RateLimit))
	}
	if _, err := serve(st, x); err == nil {
		t.Error("the limit of a path and method does not hold")
	}
}

func TestCountSurvivesReloadAndNotAChange(t *testing.T) {
	spec := v1.RateLimitSpec{Requests: 1, Per: v1.Duration(time.Hour)}
	st, site := compiled(t, observe.New(), spec)
	_, _ = serve(st, exchange(site, "192.0.2.1"))
	again := newSite(map[string]*v1.RateLimitSpec{"l": &spec}, "l")
	again.Parts[2], _ = st.Compile(again, site.Parts[2])
	if _, err := serve(st, exchange(again, "192.0.2.1")); err == nil {
		t.Error("a reload forgot what was counted")
	}
	spec.Requests = 5
	more := newSite(map[string]*v1.RateLimitSpec{"l": &spec}, "l")
	more.Parts[2], _ = st.Compile(more, again.Parts[2])
	if _, err := serve(st, exchange(more, "192.0.2.1")); err != nil {
		t.Errorf("a limit with other numbers kept the count: %v", err)
	}
	other := newSite(map[string]*v1.RateLimitSpec{"l": &spec}, "l")
	other.Key = "o/other"
	other.Parts[2], _ = st.Compile(other, nil)
	for range 5 {
		if _, err := serve(st, exchange(other, "192.0.2.1")); err != nil {
			t.Error("two sites share a count")
		}
	}
	if p, err := st.Compile(newSite(nil), more.Parts[2]); p != nil || err != nil {
		t.Errorf("a site without limits made a part: %v, %v", p, err)
	}
}

func TestCompileRefusesBadNumbers(t *testing.T) {
	for _, c := range []struct {
		spec v1.RateLimitSpec
		want string
	}{
		{v1.RateLimitSpec{}, "requests is 0"},
		{v1.RateLimitSpec{Requests: most + 1}, "requests is"},
		{v1.RateLimitSpec{Requests: 1, Burst: -1}, "burst is -1"},
		{v1.RateLimitSpec{Requests: 1, Per: 1}, "per is 1ns"},
		{v1.RateLimitSpec{Requests: 1, Key: v1.RateLimitKey{On: "cookie"}}, "key.name is missing"},
	} {
		_, err := New(2, Config{Entries: 1}, observe.New()).Compile(newSite(map[string]*v1.RateLimitSpec{"l": &c.spec}, "l"), nil)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v, want %q", err, c.want)
		}
	}
	if _, err := New(2, Config{}, observe.New()).Compile(newSite(nil, "l"), nil); err == nil {
		t.Error("a limit that the bundle does not hold was accepted")
	}
}

// TestTableStaysBounded fills the table with more keys than it holds.
func TestTableStaysBounded(t *testing.T) {
	reg := observe.New()
	st := New(2, Config{Entries: 1 << 12}, reg)
	r := newRate(1, time.Second, 1)
	now := int64(time.Hour)
	for k := range uint64(1 << 14) {
		st.table.take(mix(k, 1, 1), &r, now)
	}
	busy := metric(t, reg, `relais_ratelimit_evictions_total{state="busy"}`)
	if busy == "0" || busy == "" {
		t.Errorf("busy keys lost: %q, want many", busy)
	}
	for k := range uint64(1 << 8) {
		st.table.take(mix(k, 2, 2), &r, now+int64(time.Minute))
	}
	if got := metric(t, reg, `relais_ratelimit_evictions_total{state="busy"}`); got != busy {
		t.Errorf("busy keys lost while idle ones were there: %s, before %s", got, busy)
	}
	if idle := metric(t, reg, `relais_ratelimit_evictions_total{state="idle"}`); idle == "0" || idle == "" {
		t.Errorf("idle keys replaced: %q", idle)
	}
}

func TestConcurrentRequestsTakeNoMoreThanTheBurst(t *testing.T) {
	st, site := compiled(t, observe.New(), v1.RateLimitSpec{Requests: 100, Per: v1.Duration(24 * time.Hour)})
	var mu sync.Mutex
	var wg sync.WaitGroup
	taken := 0
	for range 8 {
		wg.Go(func() {
			for range 50 {
				_, err := serve(st, exchange(site, "192.0.2.1"))
				var e *stage.Error
				if err != nil && !errors.As(err, &e) {
					t.Error(err)
				}
				if err == nil {
					mu.Lock()
					taken++
					mu.Unlock()
				}
			}
		})
	}
	wg.Wait()
	if taken != 100 {
		t.Errorf("%d taken, want 100", taken)
	}
}

func TestServeAllocatesNothing(t *testing.T) {
	for _, burst := range []int{1_000_000, 1} {
		st, site := compiled(t, observe.New(), v1.RateLimitSpec{
			Requests: 1, Per: v1.Duration(24 * time.Hour), Burst: burst,
			Key: v1.RateLimitKey{On: "cookie", Name: "sid"},
		})
		x := exchange(site, "192.0.2.1", "Cookie", "a=b; sid=1")
		var next stage.Handler = &answer{}
		ctx := context.Background()
		run := func() {
			x.Trail = stage.Trail{}
			_, _ = st.Serve(ctx, x, next)
		}
		run()
		run()
		if n := testing.AllocsPerRun(100, run); n != 0 {
			t.Errorf("burst %d: %v allocations", burst, n)
		}
	}
}

func FuzzCookie(f *testing.F) {
	f.Add("a=b; sid=1", "sid")
	f.Add(";;sid=;x", "sid")
	f.Add("sid", "sid")
	f.Fuzz(func(t *testing.T, line, name string) {
		var h message.Fields
		h.AddString(message.Cookie, line)
		if v := cookie(&h, name); v != nil && !strings.Contains(line, name+"="+string(v)) {
			t.Fatalf("%q is not in %q", v, line)
		}
	})
}

func BenchmarkServe(b *testing.B) {
	st, site := compiled(b, observe.New(), v1.RateLimitSpec{Requests: 1_000_000_000, Per: v1.Duration(time.Second)})
	x := exchange(site, "192.0.2.1")
	var next stage.Handler = &answer{}
	ctx := context.Background()
	var a [4]byte
	for i := 0; b.Loop(); i++ {
		binary.BigEndian.PutUint32(a[:], uint32(i)*2654435761)
		x.Client = netip.AddrFrom4(a)
		x.Trail = stage.Trail{}
		_, _ = st.Serve(ctx, x, next)
	}
}
