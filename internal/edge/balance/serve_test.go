package balance

import (
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/stage"
)

func TestWhatIsTriedAgain(t *testing.T) {
	big := strings.Repeat("x", 40<<10)
	for _, c := range []struct {
		name    string
		method  string
		key     bool
		body    []string
		err     *stage.Error // of the first try
		status  int          // or its answer
		sent    bool         // the first try left
		pulled  bool         // and took the body
		tries   int
		want    string // body as the second try saw it
		noSlots bool
	}{
		{name: "GET that left", method: "GET", err: errCut, sent: true, tries: 2},
		{name: "PUT that left", method: "PUT", body: []string{"a", "b"}, err: errCut, sent: true, pulled: true, tries: 2, want: "ab"},
		{name: "POST that never left", method: "POST", body: []string{"a", "b"}, err: errRefused, tries: 2, want: "ab"},
		{name: "POST that left", method: "POST", body: []string{"a"}, err: errCut, sent: true, pulled: true, tries: 1},
		{name: "POST without body that left", method: "POST", err: errCut, sent: true, tries: 1},
		{name: "POST with a key that left", method: "POST", key: true, body: []string{"a", "b"}, err: errCut, sent: true, pulled: true, tries: 2, want: "ab"},
		{name: "PATCH that left", method: "PATCH", err: errCut, sent: true, tries: 1},
		{name: "PUT with a body too large to keep", method: "PUT", body: []string{big, big}, err: errCut, sent: true, pulled: true, tries: 1},
		{name: "PUT with such a body that nobody pulled", method: "PUT", body: []string{big, big}, err: errRefused, tries: 2, want: big + big},
		{name: "PUT with a large body that can be kept", method: "PUT", body: []string{"x", big}, err: errCut, sent: true, pulled: true, tries: 2, want: "x" + big},
		{name: "a fault that is the client's", method: "GET", err: errBad, tries: 1},
		{name: "GET answered 503", method: "GET", status: 503, sent: true, tries: 2},
		{name: "GET answered 500", method: "GET", status: 500, sent: true, tries: 1},
		{name: "PUT answered 503", method: "PUT", status: 503, sent: true, tries: 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			spec := poolSpec(v1.LeastRequest, tierSpec("home", 2, 0, 0))
			spec.Retries.Statuses = []int{503}
			r := newRig(t, map[string]*v1.OriginPoolSpec{"shop": spec})
			var body message.Body
			if c.body != nil {
				body = &pieces{list: c.body}
			}
			x := &stage.Exchange{}
			r.prepare(x, c.method, body)
			if c.key {
				x.Out.AddString(message.IdempotencyKey, "k")
			}
			var asked []string
			first := &pieces{list: []string{"sorry"}}
			var seen string
			resp, err := r.Serve(t.Context(), x, next(func(_ context.Context, x *stage.Exchange) (*message.Response, error) {
				asked = append(asked, x.Origin)
				if len(asked) == 1 {
					if c.pulled {
						_, _ = pull(x.Out.Body)
					}
					if x.Sent = c.sent; c.err != nil {
						return nil, c.err
					}
					return &message.Response{Status: c.status, Body: first}, nil
				}
				seen, _ = pull(x.Out.Body)
				return &message.Response{Status: 200}, nil
			}))
			if len(asked) != c.tries || x.Tries != c.tries {
				t.Fatalf("%d tries (%d), want %d; %v", len(asked), x.Tries, c.tries, codes(x))
			}
			if c.tries == 2 {
				if err != nil || resp.Status != 200 || asked[0] == asked[1] || seen != c.want {
					t.Errorf("%v %v, asked %v, %d bytes of body; want %d", resp, err, asked, len(seen), len(c.want))
				}
				if !slices.Contains(codes(x), "retry") {
					t.Errorf("trail: %v", codes(x))
				}
				if c.status != 0 && first.closed != 1 {
					t.Errorf("the first answer's body was closed %d times", first.closed)
				}
			} else if c.err != nil && !errors.Is(err, c.err) {
				t.Errorf("%v, want %v", err, c.err)
			}
			if resp != nil && resp.Body != nil {
				_, _ = pull(resp.Body)
				resp.Body.Close(nil)
			}
			x.End(message.Outcome{})
			r.idle(t)
		})
	}
}

func TestThePlaceIsGivenBackOnceOnEveryWay(t *testing.T) {
	for name, end := range map[string]func(x *stage.Exchange, resp *message.Response){
		"whole and closed": func(x *stage.Exchange, resp *message.Response) {
			_, _ = pull(resp.Body)
			resp.Body.Close(nil)
			x.End(message.Outcome{})
		},
		"closed early": func(x *stage.Exchange, resp *message.Response) {
			resp.Body.Close(io.ErrClosedPipe)
			x.End(message.Outcome{})
		},
		"closed twice": func(x *stage.Exchange, resp *message.Response) {
			resp.Body.Close(nil)
			resp.Body.Close(nil)
			x.End(message.Outcome{})
		},
		"never closed": func(x *stage.Exchange, _ *message.Response) { x.End(message.Outcome{}) },
		"used twice before the end": func(x *stage.Exchange, resp *message.Response) {
			x.End(message.Outcome{})
			x.End(message.Outcome{})
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, map[string]*v1.OriginPoolSpec{"shop": poolSpec(v1.LeastRequest, tierSpec("home", 2, 10, 0))})
			x := &stage.Exchange{}
			r.prepare(x, "GET", nil)
			h := next(func(context.Context, *stage.Exchange) (*message.Response, error) {
				return &message.Response{Status: 200, Body: &pieces{list: []string{"a"}}}, nil
			})
			if name == "used twice before the end" {
				if _, err := r.Serve(t.Context(), x, h); err != nil {
					t.Fatal(err)
				}
			}
			resp, err := r.Serve(t.Context(), x, h)
			if err != nil {
				t.Fatal(err)
			}
			if n := r.Status()[0].Tiers[0].InFlight; n != 1 {
				t.Errorf("%d in flight while the answer is under way", n)
			}
			end(x, resp)
			r.idle(t)
		})
	}
}

func TestABodyThatBreaksCountsAgainstTheOrigin(t *testing.T) {
	r := newRig(t, map[string]*v1.OriginPoolSpec{"shop": poolSpec(v1.LeastRequest, tierSpec("home", 1, 0, 0))})
	fails := func(err error, early bool, ctx context.Context, status int) int32 {
		o := r.pools["org/shop"].byAddr["home-0:80"]
		before := o.fails.Load()
		x := &stage.Exchange{}
		r.prepare(x, "GET", nil)
		resp, _ := r.Serve(context.Background(), x, next(func(context.Context, *stage.Exchange) (*message.Response, error) {
			return &message.Response{Status: status, Body: &pieces{list: []string{"a"}, err: err}}, nil
		}))
		if !early {
			_, _ = resp.Body.Next(ctx)
			_, _ = resp.Body.Next(ctx)
		}
		resp.Body.Close(err)
		x.End(message.Outcome{})
		return o.fails.Load() - before
	}
	gone, cancel := context.WithCancel(context.Background())
	cancel()
	if n := fails(io.ErrUnexpectedEOF, false, context.Background(), 200); n != 1 {
		t.Errorf("a cut body: %d", n)
	}
	if n := fails(context.Canceled, false, gone, 200); n != 0 {
		t.Errorf("a visitor that went away: %d", n)
	}
	if n := fails(nil, true, context.Background(), 200); n != 0 {
		t.Errorf("a body that nobody wanted: %d", n)
	}
	if n := fails(nil, false, context.Background(), 503); n != 1 {
		t.Errorf("503: %d", n)
	}
	if n := fails(nil, false, context.Background(), 200); n != -2 {
		t.Errorf("a whole answer: %d, want the two to be forgotten", n)
	}
}

func TestOnlySoManyRetriesAreUnderWayAndAnOrderHasOneMore(t *testing.T) {
	spec := poolSpec(v1.LeastRequest, tierSpec("home", 4, 0, 0))
	spec.Health.Passive.ConsecutiveFailures = new(0)
	r := newRig(t, map[string]*v1.OriginPoolSpec{"shop": spec})
	r.pools["org/shop"].retries.under.Store(retryFloor)
	defer r.pools["org/shop"].retries.under.Store(0)
	tries := func(class stage.Class, key bool) int {
		x := &stage.Exchange{}
		r.prepare(x, "POST", nil)
		x.Visitor.Class = class
		if key {
			x.Out.AddString(message.IdempotencyKey, "k")
		}
		_, err := r.Serve(t.Context(), x, next(func(_ context.Context, x *stage.Exchange) (*message.Response, error) { return nil, errRefused }))
		if !errors.Is(err, errRefused) || !slices.Contains(codes(x), "retry-denied") {
			t.Errorf("%v, %v", err, codes(x))
		}
		x.End(message.Outcome{})
		return x.Tries
	}
	if n := tries(stage.Known, true); n != 1 {
		t.Errorf("without basket: %d tries", n)
	}
	if n := tries(stage.Protected, false); n != 1 {
		t.Errorf("without key: %d tries", n)
	}
	if n := tries(stage.Protected, true); n != 2 {
		t.Errorf("an order: %d tries", n)
	}
	if n := r.pools["org/shop"].retries.under.Load(); n != retryFloor {
		t.Errorf("%d retries under way", n)
	}
	r.pools["org/shop"].retries.under.Store(0)
	var held []Slot
	for range 50 {
		s, _ := r.pools["org/shop"].Pick(Visitor{Now: r.clock()}, &Tried{})
		held = append(held, s)
	}
	n := 0
	for r.pools["org/shop"].mayRetry() {
		n++
	}
	if n != 10 {
		t.Errorf("%d retries beside 50 tries, want 20 %%", n)
	}
	for _, s := range held {
		s.Release(Succeeded)
	}
}

func TestOneOriginIsTriedAgainAfterAPause(t *testing.T) {
	r := newRig(t, map[string]*v1.OriginPoolSpec{"shop": poolSpec(v1.LeastRequest, tierSpec("home", 1, 0, 0))})
	x := &stage.Exchange{}
	r.prepare(x, "GET", nil)
	resp, err := r.Serve(t.Context(), x, next(func(_ context.Context, x *stage.Exchange) (*message.Response, error) {
		if x.Tries < 3 {
			return nil, errRefused
		}
		return &message.Response{Status: 200}, nil
	}))
	if err != nil || resp.Status != 200 || x.Tries != 3 {
		t.Errorf("%v, %v, %d tries", resp, err, x.Tries)
	}
	if d := time.Since(x.Start); d < 15*time.Millisecond {
		t.Errorf("no pause: %v", d)
	}
	x.End(message.Outcome{})
	r.idle(t)
}

func TestTimeoutsOfTheRoute(t *testing.T) {
	r := newRig(t, map[string]*v1.OriginPoolSpec{"shop": poolSpec(v1.LeastRequest, tierSpec("home", 3, 0, 0))})
	near := func(t *testing.T, at time.Time, want time.Duration) {
		t.Helper()
		if d := time.Until(at) - want; d > time.Second || d < -time.Second {
			t.Errorf("the deadline is %v away, want %v", time.Until(at), want)
		}
	}
	x := &stage.Exchange{}
	for _, c := range []struct{ request, try, first time.Duration }{
		{time.Minute, 0, time.Minute}, {time.Minute, 10 * time.Second, 10 * time.Second}, {10 * time.Second, time.Minute, 10 * time.Second}, {0, 20 * time.Second, 20 * time.Second},
	} {
		r.route.Spec.Timeouts = v1.RouteTimeouts{Request: new(v1.Duration(c.request)), Try: v1.Duration(c.try)}
		r.prepare(x, "GET", nil)
		_, _ = r.Serve(t.Context(), x, next(func(_ context.Context, x *stage.Exchange) (*message.Response, error) {
			near(t, x.Deadline, c.first)
			return &message.Response{Status: 200}, nil
		}))
		x.End(message.Outcome{})
	}
	r.route.Spec.Timeouts = v1.RouteTimeouts{}
	r.prepare(x, "GET", nil)
	_, _ = r.Serve(t.Context(), x, next(func(_ context.Context, x *stage.Exchange) (*message.Response, error) {
		if !x.Deadline.IsZero() {
			t.Errorf("a deadline without a timeout: %v", x.Deadline)
		}
		return &message.Response{Status: 200}, nil
	}))
	x.End(message.Outcome{})
	r.route.Spec.Timeouts.Request = new(v1.Duration(5 * time.Millisecond))
	r.prepare(x, "GET", nil)
	_, err := r.Serve(t.Context(), x, next(func(_ context.Context, x *stage.Exchange) (*message.Response, error) {
		time.Sleep(time.Until(x.Deadline) + time.Millisecond)
		return nil, errCut
	}))
	if !errors.Is(err, errCut) || x.Tries != 1 {
		t.Errorf("%v, %d tries after the time was over", err, x.Tries)
	}
	x.End(message.Outcome{})
}

func TestAFullPoolIsNoFaultOfTheOrigins(t *testing.T) {
	r := newRig(t, map[string]*v1.OriginPoolSpec{"shop": poolSpec(v1.LeastRequest, tierSpec("home", 1, 1, 0), tierSpec("next", 1, 1, 0))})
	h := next(func(context.Context, *stage.Exchange) (*message.Response, error) {
		return &message.Response{Status: 200}, nil
	})
	var held []*stage.Exchange
	for i := range 12 {
		x := &stage.Exchange{}
		held = append(held, x)
		r.prepare(x, "GET", nil)
		_, err := r.Serve(t.Context(), x, h)
		switch i {
		case 0:
			if err != nil || !slices.Equal(codes(x), []string{"tier"}) || x.Tier != "home" || x.Spilled || x.Origin != "home-0:80" || x.Target.Address() != x.Origin {
				t.Errorf("%v %v %s", err, codes(x), x.Tier)
			}
		case 1:
			if err != nil || !slices.Equal(codes(x), []string{"spill:hard", "tier"}) || x.Tier != "next" || !x.Spilled {
				t.Errorf("%v %v %s", err, codes(x), x.Tier)
			}
		default:
			e := stage.AsError(err)
			if e.Code != "destination_unavailable" || e.Status != 503 || e.Side != stage.SideEdge || !slices.Equal(codes(x), []string{"full"}) {
				t.Errorf("%+v %v", e, codes(x))
			}
		}
	}
	for _, x := range held {
		x.End(message.Outcome{})
	}
	r.idle(t)
}

func TestASiteWithoutThePoolIsTheEdgesFault(t *testing.T) {
	r := newRig(t, map[string]*v1.OriginPoolSpec{"a": poolSpec(v1.First, tierSpec("home", 1, 0, 0)), "z": poolSpec(v1.First, tierSpec("home", 1, 0, 0))})
	x := &stage.Exchange{}
	r.prepare(x, "GET", nil)
	for _, pool := range []string{"", "b", "zz"} {
		x.Pool = pool
		if _, err := r.Serve(t.Context(), x, nil); stage.AsError(err).Side != stage.SideEdge {
			t.Errorf("%q: %v", pool, err)
		}
	}
	r.compile(t, nil)
	if _, err := r.Serve(t.Context(), x, nil); stage.AsError(err).Side != stage.SideEdge {
		t.Error(err)
	}
}

func TestServeAllocatesNothing(t *testing.T) {
	r := newRig(t, map[string]*v1.OriginPoolSpec{"shop": poolSpec(v1.LeastRequest, tierSpec("home", 100, 1000, 20), tierSpec("next", 1, 0, 0))})
	r.route.Spec.Timeouts.Request = new(v1.Duration(time.Minute))
	resp, body, in := &message.Response{}, &pieces{}, &message.Request{}
	h := next(func(context.Context, *stage.Exchange) (*message.Response, error) {
		resp.Status, resp.Body = 200, body
		return resp, nil
	})
	x := &stage.Exchange{}
	if n := testing.AllocsPerRun(500, func() {
		x.Reset()
		x.Start, x.In, x.Site, x.Route, x.Pool = time.Now(), in, r.site, r.route, "shop"
		x.Out.SetMethod([]byte("GET"))
		resp, err := r.Serve(context.Background(), x, h)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = resp.Body.Next(context.Background())
		resp.Body.Close(nil)
		x.End(message.Outcome{})
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkServe(b *testing.B) {
	r := newRig(b, map[string]*v1.OriginPoolSpec{"shop": poolSpec(v1.LeastRequest, tierSpec("home", 4, 1000, 20), tierSpec("next", 1, 0, 0))})
	resp, in := &message.Response{Status: 200}, &message.Request{}
	h := next(func(context.Context, *stage.Exchange) (*message.Response, error) { return resp, nil })
	x := &stage.Exchange{}
	b.ReportAllocs()
	for b.Loop() {
		x.Reset()
		x.Start, x.In, x.Site, x.Route, x.Pool = time.Now(), in, r.site, r.route, "shop"
		if _, err := r.Serve(context.Background(), x, h); err != nil {
			b.Fatal(err)
		}
		x.End(message.Outcome{})
	}
}
