package balance

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/bundle"
	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/stage"
)

// oneSeat is a pool that takes one request at once, and lets some wait.
func oneSeat(wait time.Duration, waiting int) map[string]*v1.OriginPoolSpec {
	p := poolSpec(v1.First, tierSpec("home", 1, 1, 0))
	p.WhenFull = v1.WhenFullSpec{Wait: new(v1.Duration(wait)), Waiting: new(waiting)}
	return map[string]*v1.OriginPoolSpec{"shop": p}
}

// visit sends a request of a visitor through the stage, and ends it at once when it has an answer.
func (r *rig) visit(ctx context.Context, v stage.Visitor) (x *stage.Exchange, err error) {
	x = r.sit(v)
	_, err = r.Serve(ctx, x, next(func(context.Context, *stage.Exchange) (*message.Response, error) {
		return &message.Response{Status: 200}, nil
	}))
	return x, err
}

func (r *rig) sit(v stage.Visitor) *stage.Exchange {
	x := &stage.Exchange{}
	r.prepare(x, "GET", nil)
	x.Visitor = v
	return x
}

var (
	holder    = stage.Visitor{Class: stage.Protected, Key: 1}
	buyer     = stage.Visitor{Class: stage.Protected, Key: 2, Step: stage.StepOrder}
	anonymous = stage.Visitor{Key: 3}
	known     = stage.Visitor{Class: stage.Known, Key: 4}
)

func TestWhoWaitsGoesInByTurnOrdersFirstAndNobodyElseBefore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, oneSeat(3*time.Second, 10))
		sitting, err := r.visit(t.Context(), anonymous)
		if err != nil {
			t.Fatal(err)
		}
		order := make(chan string, 8)
		seats := make(chan *stage.Exchange, 8)
		for _, w := range []struct {
			who string
			v   stage.Visitor
		}{{"first basket", holder}, {"second basket", holder}, {"order", buyer}} {
			go func() {
				x, err := r.visit(t.Context(), w.v)
				if err != nil || x.Full != fullWaited || !slices.Contains(codes(x), "queued") {
					t.Errorf("%s: %v %q %v", w.who, err, x.Full, codes(x))
				}
				order <- w.who
				seats <- x
			}()
			synctest.Wait()
		}
		for _, v := range []stage.Visitor{anonymous, known} { // they do not wait
			if x, err := r.visit(t.Context(), v); !errors.Is(err, ErrFull) || x.Full != "" {
				t.Errorf("%s: %v %q", v.Class, err, x.Full)
			}
		}
		var got []string
		for range 3 {
			time.Sleep(100 * time.Millisecond)
			sitting.End(message.Outcome{})
			// A place is free, and is not for who comes now.
			if _, err := r.visit(t.Context(), anonymous); !errors.Is(err, ErrFull) {
				t.Errorf("an anonymous visitor was let in before those who wait: %v", err)
			}
			got = append(got, <-order)
			sitting = <-seats
		}
		if want := []string{"order", "first basket", "second basket"}; !slices.Equal(got, want) {
			t.Errorf("went in as %v, want %v", got, want)
		}
		sitting.End(message.Outcome{})
		x, err := r.visit(t.Context(), anonymous)
		if err != nil {
			t.Errorf("when nobody waits: %v", err)
		}
		x.End(message.Outcome{})
		r.idle(t)
	})
}

func TestTheWaitIsBoundedInTimeAndNumberAndCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, oneSeat(time.Second, 2))
		sitting, err := r.visit(t.Context(), anonymous)
		if err != nil {
			t.Fatal(err)
		}
		p := r.pools[bundle.NewKey("org", "shop")]
		ctx, cancel := context.WithCancel(t.Context())
		waited := func(ctx context.Context, v stage.Visitor) <-chan time.Duration {
			done, began := make(chan time.Duration, 1), time.Now()
			go func() {
				if _, err := r.visit(ctx, v); !errors.Is(err, ErrFull) {
					t.Errorf("%v: %v", v, err)
				}
				done <- time.Since(began)
			}()
			synctest.Wait()
			return done
		}
		stays, leaves, tooMany := waited(t.Context(), holder), waited(ctx, holder), waited(t.Context(), holder)
		order := waited(t.Context(), buyer) // the lane of orders is another one
		if d := <-tooMany; d != 0 {
			t.Errorf("the third of two waited %v", d)
		}
		if n := p.line.waiting.Load(); n != 3 {
			t.Errorf("%d wait, want 3", n)
		}
		cancel()
		if d := <-leaves; d != 0 {
			t.Errorf("one who left waited %v", d)
		}
		if d := <-stays; d != time.Second {
			t.Errorf("waited %v, want 1s", d)
		}
		if d := <-order; d != orderPatience*time.Second {
			t.Errorf("an order waited %v", d)
		}
		w := httptest.NewRecorder()
		r.metrics.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
		for _, want := range []string{`"full"} 1`, `"left"} 1`, `"expired"} 2`, `"served"} 0`} {
			if want = `relais_balance_queue_total{pool="org/shop",result=` + want; !strings.Contains(w.Body.String(), want) {
				t.Errorf("not counted: %s", want)
			}
		}
		// One for whom a stored answer stands in does not wait.
		x := r.sit(holder)
		x.StandIn = true
		began := time.Now()
		if _, err := r.Serve(t.Context(), x, nil); !errors.Is(err, ErrFull) || time.Since(began) != 0 {
			t.Errorf("%v after %v", err, time.Since(began))
		}
		sitting.End(message.Outcome{})
		r.idle(t)
	})
}

// A limit that grows lets those in who wait, though no answer came to its end.
func TestWhoWaitsGoesInWhenATierComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, oneSeat(3*time.Second, 10))
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- r.Run(ctx) }()
		sitting, err := r.visit(t.Context(), anonymous)
		if err != nil {
			t.Fatal(err)
		}
		in := make(chan *stage.Exchange, 1)
		go func() {
			x, err := r.visit(t.Context(), holder)
			if err != nil {
				t.Error(err)
			}
			in <- x
		}()
		time.Sleep(time.Second)
		larger := oneSeat(3*time.Second, 10)
		larger["shop"].Tiers[0].Capacity.InFlight = new(2)
		r.compile(t, larger)
		began := time.Now()
		x := <-in
		if d := time.Since(began); d > 2*tick {
			t.Errorf("let in after %v", d)
		}
		x.End(message.Outcome{})
		sitting.End(message.Outcome{})
		cancel()
		<-done
	})
}

func TestWhoIsSentAwayIsToldATimeOfTheDrain(t *testing.T) {
	var d drain
	if got := d.away(second, stage.Anonymous); got != unknownAway {
		t.Errorf("with nothing measured: %v", got)
	}
	now := second
	for i := range uint64(10) { // 40 a second, of which 30 have a basket
		d.look(now, 40*i, 30*i)
		now += second
	}
	if all, general := math.Float64frombits(d.all.Load()), math.Float64frombits(d.general.Load()); all < 39 || all > 40 || general < 9.9 || general > 10 {
		t.Fatalf("measured %v, %v without a basket", all, general)
	}
	// Half of ten places a second is for those who come back: a hundred of them need twenty seconds.
	var last time.Duration
	within := map[int]int{}
	for range 100 {
		last = d.away(now, stage.Anonymous)
		within[int(last.Seconds())]++
	}
	if last < 19*time.Second || last > 21*time.Second {
		t.Errorf("the hundredth comes in %v, want 20s", last)
	}
	for s, n := range within {
		if n > 11 { // the first second takes the one before as well
			t.Errorf("%d come back in second %d", n, s)
		}
	}
	if got := d.away(now+30*second, stage.Anonymous); got != leastAway {
		t.Errorf("after the crowd: %v", got)
	}
	if got := d.away(now, stage.Protected); got != leastAway {
		t.Errorf("with a basket: %v", got)
	}
	for range 10_000 {
		last = d.away(now, stage.Anonymous)
	}
	if last != mostAway {
		t.Errorf("the ten thousandth comes in %v, want the most", last)
	}
	// What is left to visitors without a basket is nothing.
	for i := range uint64(20) {
		d.look(now, 1000+40*i, 1000+40*i)
		now += second
	}
	if got := d.away(now, stage.Anonymous); got != mostAway {
		t.Errorf("with baskets only: %v", got)
	}
	// Tiers went: sums fall.
	d.look(now, 5, 5)
}

// waitingRoom answers some.
type waitingRoom struct{ told []Full }

func (w *waitingRoom) Answer(_ context.Context, x *stage.Exchange, f Full) (*message.Response, error) {
	w.told = append(w.told, f)
	if f.Class == stage.Protected {
		return nil, nil
	}
	x.Response.Reset()
	x.Response.Status = 200
	return &x.Response, nil
}

func TestARoomIsAskedBeforeThePage(t *testing.T) {
	room := &waitingRoom{}
	r := newRig(t, oneSeat(0, 0))
	r.cfg.Room = room
	sitting, err := r.visit(t.Context(), anonymous)
	if err != nil {
		t.Fatal(err)
	}
	full := r.WhenFull()
	below := next(func(ctx context.Context, x *stage.Exchange) (*message.Response, error) { return r.Serve(ctx, x, nil) })
	x := r.sit(stage.Visitor{Class: stage.Known, Step: stage.StepCheckout}) // of a path, which anybody can ask for
	if resp, err := full.Serve(t.Context(), x, below); err != nil || resp.Status != 200 || x.Full != fullRoom {
		t.Errorf("%v %q", err, x.Full)
	}
	want := Full{Pool: "org/shop", Class: stage.Known, Ready: unknownAway}
	if len(room.told) != 1 || room.told[0] != want {
		t.Errorf("told %+v, want %+v", room.told, want)
	}
	x = r.sit(buyer) // the room steps on
	if _, err := full.Serve(t.Context(), x, below); !errors.Is(err, ErrFull) || x.Full != fullPage {
		t.Errorf("%v %q", err, x.Full)
	}
	sitting.End(message.Outcome{})
	// What is no want of room is not its business.
	asked := len(room.told)
	broken := next(func(context.Context, *stage.Exchange) (*message.Response, error) { return nil, errRefused })
	if _, err := full.Serve(t.Context(), r.sit(anonymous), broken); err != error(errRefused) || len(room.told) != asked {
		t.Errorf("%v", err)
	}
}

func TestThePageSpreadsACrowd(t *testing.T) {
	r := newRig(t, oneSeat(0, 0))
	sitting, err := r.visit(t.Context(), anonymous)
	if err != nil {
		t.Fatal(err)
	}
	p := r.pools[bundle.NewKey("org", "shop")]
	for i := range uint64(5) {
		p.drain.look(second*int64(i+1), 20*i, 0)
	}
	full := r.WhenFull()
	below := next(func(ctx context.Context, x *stage.Exchange) (*message.Response, error) { return r.Serve(ctx, x, nil) })
	seconds := map[time.Duration]int{}
	for range 200 {
		x := r.sit(anonymous)
		_, err := full.Serve(t.Context(), x, below)
		e := stage.AsError(err)
		if e.Status != 503 || e.Code != "destination_unavailable" || e.Side != stage.SideEdge || x.Full != fullPage || !slices.Equal(codes(x), []string{"full", "page"}) {
			t.Fatalf("%+v %q %v", e, x.Full, codes(x))
		}
		seconds[e.RetryAfter]++
	}
	// Four seconds of 20 a second have shown 18.75, and half of those places are for who comes back: 21.3 s for two
	// hundred, and half as much again.
	for d, n := range seconds {
		if d < time.Second || d > 32*time.Second || n > 40 {
			t.Errorf("%d are told %v", n, d)
		}
	}
	if len(seconds) < 15 {
		t.Errorf("only %d times: %v", len(seconds), fmt.Sprint(seconds))
	}
	sitting.End(message.Outcome{})
}
