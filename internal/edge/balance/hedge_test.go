package balance

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/stage"
)

func hedgedSpec(n int) *v1.OriginPoolSpec {
	spec := poolSpec(v1.First, tierSpec("home", n, 0, 0))
	spec.Retries.Hedge = &v1.HedgeSpec{Percentile: new(v1.Percent(95)), AtLeast: v1.Duration(10 * time.Millisecond)}
	return spec
}

// played is a last handler of which each origin answers after a time of its own.
type played struct {
	mu     sync.Mutex
	took   map[string]time.Duration
	status map[string]int
	err    map[string]error
	asked  []string
	ended  []string // those whose context ended
	bodies []*pieces
}

func (p *played) Serve(ctx context.Context, x *stage.Exchange) (*message.Response, error) {
	p.mu.Lock()
	p.asked = append(p.asked, x.Origin)
	d, status, err := p.took[x.Origin], p.status[x.Origin], p.err[x.Origin]
	p.mu.Unlock()
	x.Sent = true
	if !sleep(ctx, d) {
		p.mu.Lock()
		p.ended = append(p.ended, x.Origin)
		p.mu.Unlock()
		return nil, &stage.Error{Code: "client_gone", Side: stage.SideClient, Status: 499, Err: ctx.Err()}
	}
	x.Lap()
	if err != nil {
		return nil, err
	}
	x.MarkDetail("origin", "answer", x.Origin)
	b := &pieces{list: []string{x.Origin}}
	p.mu.Lock()
	p.bodies = append(p.bodies, b)
	p.mu.Unlock()
	return &message.Response{Status: max(status, 200), Body: b}, nil
}

func TestHedging(t *testing.T) {
	const ms = time.Millisecond
	for _, c := range []struct {
		name    string
		method  string
		body    message.Body
		first   time.Duration // of home-0, and whether it fails
		status  int
		err     error
		second  time.Duration // of home-1
		known   bool          // a hundred answers of 20 ms are known
		spent   bool          // the budget is
		want    string        // who answers
		tries   int
		took    time.Duration
		ended   []string
		without string // a mark that must not be there
	}{
		{name: "a fast one alone", method: "GET", first: 15 * ms, known: true, want: "home-0:80", tries: 1, took: 15 * ms},
		{name: "a slow one and a second", method: "GET", first: time.Second, second: 20 * ms, known: true, want: "home-1:80", tries: 2, took: 45 * ms, ended: []string{"home-0:80"}},
		{name: "the first comes after all", method: "HEAD", first: 40 * ms, second: time.Second, known: true, want: "home-0:80", tries: 2, took: 40 * ms, ended: []string{"home-1:80"}},
		{name: "little is known", method: "GET", first: time.Second, second: 20 * ms, want: "home-1:80", tries: 2, took: 120 * ms, ended: []string{"home-0:80"}},
		{name: "no budget", method: "GET", first: time.Second, second: 20 * ms, known: true, spent: true, want: "home-0:80", tries: 1, took: time.Second},
		{name: "not safe", method: "PUT", first: time.Second, known: true, want: "home-0:80", tries: 1, took: time.Second},
		{name: "with a body", method: "GET", body: &pieces{list: []string{"a"}}, first: time.Second, known: true, want: "home-0:80", tries: 1, took: time.Second},
		{name: "the second is bad", method: "GET", first: 300 * ms, second: 5 * ms, status: 503, known: true, want: "home-0:80", tries: 2, took: 300 * ms},
		{name: "the first is refused at once", method: "GET", first: ms, err: errRefused, second: 5 * ms, known: true, want: "home-1:80", tries: 2, took: 6 * ms},
		{name: "the first fails late", method: "GET", first: 40 * ms, err: errCut, second: 50 * ms, known: true, want: "home-1:80", tries: 2, took: 75 * ms},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, map[string]*v1.OriginPoolSpec{"shop": hedgedSpec(3)})
				p := r.pools["org/shop"]
				if c.known {
					for range 100 {
						p.times.add(int64(20 * ms))
					}
					p.tick(r.clock())
				}
				if c.spent {
					p.retries.under.Store(retryFloor)
				}
				o := &played{took: map[string]time.Duration{"home-0:80": c.first, "home-1:80": c.second}, err: map[string]error{"home-0:80": c.err}, status: map[string]int{"home-1:80": c.status}}
				x := &stage.Exchange{}
				r.prepare(x, c.method, c.body)
				resp, err := r.Serve(t.Context(), x, o)
				if err != nil {
					t.Fatal(err)
				}
				took := time.Since(x.Start)
				text, _ := pull(resp.Body)
				resp.Body.Close(nil)
				if text != c.want || x.Origin != c.want || x.Tries != c.tries {
					t.Errorf("%s (%s) after %d tries; %v", text, x.Origin, x.Tries, codes(x))
				}
				if d := took - c.took; d < -5*ms || d > 5*ms {
					t.Errorf("it took %v, want %v", took, c.took)
				}
				if !slices.Contains(codes(x), "answer") {
					t.Errorf("what the last handler noted is not in the trail: %v", codes(x))
				}
				x.End(message.Outcome{})
				synctest.Wait()
				if !slices.Equal(o.ended, c.ended) {
					t.Errorf("ended: %v, want %v", o.ended, c.ended)
				}
				for _, b := range o.bodies {
					if b.closed == 0 {
						t.Error("a body was not closed")
					}
				}
				if c.spent {
					p.retries.under.Store(0)
				}
				r.idle(t)
			})
		})
	}
}

func TestAHedgedRequestWhoseVisitorLeavesGivesAllBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, map[string]*v1.OriginPoolSpec{"shop": hedgedSpec(3)})
		o := &played{took: map[string]time.Duration{"home-0:80": time.Second, "home-1:80": time.Second}}
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		x := &stage.Exchange{}
		r.prepare(x, "GET", nil)
		_, err := r.Serve(ctx, x, o)
		if e := stage.AsError(err); e.Code != "client_gone" || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v", err)
		}
		x.End(message.Outcome{})
		synctest.Wait()
		if len(o.ended) != 2 {
			t.Errorf("ended: %v", o.ended)
		}
		for _, s := range r.Status()[0].Tiers[0].Origins {
			if s.State != "well" {
				t.Errorf("%s is %s for a visitor who left", s.Address, s.State)
			}
		}
		r.idle(t)
	})
}

func TestPercentilesOfTheLastTimes(t *testing.T) {
	var h histogram
	if h.add(int64(time.Second)); h.percentile(0.95) != 0 {
		t.Error("one time is enough for a percentile")
	}
	for i := range 1000 {
		h.add(int64(i+1) * int64(time.Millisecond))
	}
	for share, want := range map[float64]float64{0.5: 500, 0.95: 950, 0.99: 990} {
		if got := float64(h.percentile(share)) / 1e6; got < want || got > want*1.13 {
			t.Errorf("%v: %v ms, want %v to an eighth", share, got, want)
		}
	}
	for range 20 * halfTimes {
		h.tick(0.95)
	}
	if h.percentile(0.5) != 0 {
		t.Error("what is long ago still counts")
	}
	for _, ns := range []int64{-1, 0, 1, 1 << 17, 1 << 36, 1<<62 + 5} {
		if i := histogramStep(ns); i < 0 || i >= histogramSize || ns > histogramEnd(i) && i < histogramSize-1 {
			t.Errorf("%d is in step %d, which ends at %d", ns, i, histogramEnd(i))
		}
	}
}

func TestDeadlinesArePassedOn(t *testing.T) {
	const ms = time.Millisecond
	for _, c := range []struct {
		name       string
		header     string // that the route names
		request    time.Duration
		try        time.Duration
		fields     []string // of the client
		told       []string // to the origin by each try, in the field
		grpc       []string
		deadline   time.Duration // of the first try
		noDeadline bool
	}{
		{name: "the route's limit", header: "X-Ms", request: time.Second, told: []string{"1000", "890"}, deadline: time.Second},
		{name: "the client asks for less", header: "X-Ms", request: time.Second, fields: []string{"x-ms", "500"}, told: []string{"500", "390"}, deadline: 500 * ms},
		{name: "the client asks for more", header: "X-Ms", request: time.Second, fields: []string{"X-Ms", "5000"}, told: []string{"1000", "890"}, deadline: time.Second},
		{name: "one try has less", header: "X-Ms", request: time.Second, try: 200 * ms, told: []string{"200", "200"}, deadline: 200 * ms},
		{name: "no limit, and the client asks for none", header: "X-Ms", told: []string{"", ""}, noDeadline: true},
		{name: "no limit, and the client has one", header: "X-Ms", fields: []string{"X-Ms", "300"}, told: []string{"300", "190"}, deadline: 300 * ms},
		{name: "no number", header: "X-Ms", fields: []string{"X-Ms", "-3"}, told: []string{"", ""}, noDeadline: true},
		{name: "no field is named", request: time.Second, fields: []string{"X-Ms", "300"}, told: []string{"300", "300"}, deadline: time.Second},
		{name: "gRPC", request: time.Second, fields: []string{"content-type", "application/grpc", "grpc-timeout", "600m"}, told: []string{"", ""}, grpc: []string{"600m", "490m"}, deadline: 600 * ms},
		{name: "gRPC with more than the route", request: time.Second, fields: []string{"content-type", "application/grpc", "grpc-timeout", "1H"}, told: []string{"", ""}, grpc: []string{"3600000m", "3599890m"}, deadline: time.Second},
		{name: "a field of gRPC that is none", request: time.Second, fields: []string{"grpc-timeout", "600m"}, told: []string{"", ""}, grpc: []string{"600m", "600m"}, deadline: time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, map[string]*v1.OriginPoolSpec{"shop": poolSpec(v1.First, tierSpec("home", 3, 0, 0))})
				r.route.Spec.Timeouts = v1.RouteTimeouts{Request: new(v1.Duration(c.request)), Try: v1.Duration(c.try), Header: c.header}
				x := &stage.Exchange{}
				r.prepare(x, "GET", nil)
				for i := 0; i < len(c.fields); i += 2 {
					x.In.AddLine([]byte(c.fields[i]), []byte(c.fields[i+1]))
					x.Out.AddLine([]byte(c.fields[i]), []byte(c.fields[i+1]))
				}
				var told, grpc []string
				_, err := r.Serve(t.Context(), x, next(func(_ context.Context, x *stage.Exchange) (*message.Response, error) {
					told = append(told, string(x.Out.Lookup("X-Ms")))
					if v := x.Out.Lookup(grpcTimeout); v != nil {
						grpc = append(grpc, string(v))
					}
					if len(told) > 1 {
						return &message.Response{Status: 200}, nil
					}
					if at := x.Deadline.Sub(x.Start); x.Deadline.IsZero() != c.noDeadline || !c.noDeadline && at != c.deadline {
						t.Errorf("the deadline is after %v, want %v", at, c.deadline)
					}
					time.Sleep(110 * ms)
					x.Lap()
					return nil, errRefused
				}))
				if err != nil || !slices.Equal(told, c.told) || !slices.Equal(grpc, c.grpc) {
					t.Errorf("%v; told %q, want %q; grpc-timeout %q, want %q", err, told, c.told, grpc, c.grpc)
				}
				x.End(message.Outcome{})
				r.idle(t)
			})
		})
	}
}
