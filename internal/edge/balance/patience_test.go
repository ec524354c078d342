package balance

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/bundle"
	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/stage"
)

// brief is a rig with a home of so many places, where one waits 20 ms, and an overflow without a limit.
func brief(t testing.TB, places, depth int) (*rig, *Pool, *tier) {
	t.Helper()
	home := tierSpec("home", 1, places, 0)
	home.Capacity.SoftMark = new(v1.Percent(95))
	r := newRig(t, map[string]*v1.OriginPoolSpec{"shop": poolSpec(v1.First, home, tierSpec("overflow", 1, 0, 0))})
	p := r.pools[bundle.NewKey("org", "shop")]
	q := &p.tiers["home"].patience
	q.wait.Store(int64(longWait))
	q.depth.Store(int64(depth))
	return r, p, p.tiers["home"]
}

// visited is a visit that came to its end in a time.
type visited struct {
	x    *stage.Exchange
	took time.Duration
	err  error
}

// come has a visitor come, and waits until it is served or waits.
func (r *rig) come(ctx context.Context, v stage.Visitor) <-chan visited {
	done, began := make(chan visited, 1), time.Now()
	go func() {
		x, err := r.visit(ctx, v)
		done <- visited{x, time.Since(began), err}
	}()
	synctest.Wait()
	return done
}

// counted says how often a wait for home ended so.
func (r *rig) counted(result string) string {
	w := httptest.NewRecorder()
	r.metrics.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
	_, after, _ := strings.Cut(w.Body.String(), `relais_balance_patience_total{pool="org/shop",result="`+result+`",tier="home"} `)
	n, _, _ := strings.Cut(after, "\n")
	return n
}

func TestWhoFindsAToldTierFullWaitsAMomentForThePlaceThatComesFree(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, _, _ := brief(t, 1, 4)
		sitting := <-r.come(t.Context(), anonymous)
		waiting := r.come(t.Context(), stage.Visitor{Key: 9})
		time.Sleep(5 * time.Millisecond)
		sitting.x.End(message.Outcome{})
		got := <-waiting
		if got.err != nil || got.took != 5*time.Millisecond || got.x.Tier != "home" || got.x.Spilled || !slices.Contains(codes(got.x), "waited") {
			t.Errorf("%v after %v in %q, %q", got.err, got.took, got.x.Tier, codes(got.x))
		}
		if n := r.counted("served"); n != "1" {
			t.Errorf("%s counted as served", n)
		}
		got.x.End(message.Outcome{})
		r.idle(t)
	})
}

func TestWhoWaitsInVainIsSentOnAfterAMoment(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, _, home := brief(t, 1, 4)
		sitting := <-r.come(t.Context(), anonymous)
		for _, w := range []struct {
			v    stage.Visitor
			want time.Duration
		}{{stage.Visitor{Key: 9}, longWait}, {known, longWait}, {holder, basketWaits * longWait}} {
			got := <-r.come(t.Context(), w.v)
			if got.err != nil || got.took != w.want || got.x.Tier != "overflow" || !got.x.Spilled || got.x.Spill == "" || !slices.Contains(codes(got.x), "waited-in-vain") {
				t.Errorf("%v: %v after %v in %q as %q, %q", w.v, got.err, got.took, got.x.Tier, got.x.Spill, codes(got.x))
			}
			got.x.End(message.Outcome{})
		}
		// Who has a deadline waits no longer; who was sent on does not wait each time, nor one for whom a stored answer stands in.
		if got := <-r.come(t.Context(), stage.Visitor{Key: 9}); got.took != 0 || got.x.Tier != "overflow" {
			t.Errorf("one who was sent on waited %v in %q", got.took, got.x.Tier)
		}
		x := r.sit(known)
		x.StandIn = true
		began := time.Now()
		if _, err := r.Serve(t.Context(), x, next(answered)); err != nil || time.Since(began) != 0 {
			t.Errorf("one for whom a stored answer stands in: %v after %v", err, time.Since(began))
		}
		x = r.sit(known)
		r.route.Spec.Timeouts.Request = new(v1.Duration(3 * time.Millisecond))
		if _, err := r.Serve(t.Context(), x, next(answered)); err != nil || time.Since(began) != 3*time.Millisecond {
			t.Errorf("with a deadline: %v after %v", err, time.Since(began))
		}
		if n := r.counted("expired"); n != "4" {
			t.Errorf("%s counted as expired", n)
		}
		if home.ramp.Load() != 0 {
			t.Error("the slow return began")
		}
		sitting.x.End(message.Outcome{})
	})
}

func answered(context.Context, *stage.Exchange) (*message.Response, error) {
	return &message.Response{Status: 200}, nil
}

func TestOfThoseWhoWaitAMomentBasketsGoInFirstAndNewVisitorsLast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, _, _ := brief(t, 1, 4)
		sitting := <-r.come(t.Context(), anonymous)
		fresh := r.come(t.Context(), stage.Visitor{Key: 9})
		member := r.come(t.Context(), known)
		basket := r.come(t.Context(), holder)
		for i, c := range []<-chan visited{basket, member, fresh} {
			sitting.x.End(message.Outcome{})
			synctest.Wait()
			select {
			case sitting = <-c:
			default:
				t.Fatalf("the place went to another one than %d", i)
			}
			if sitting.err != nil || sitting.x.Tier != "home" {
				t.Errorf("%d: %v in %q", i, sitting.err, sitting.x.Tier)
			}
		}
		sitting.x.End(message.Outcome{})
		r.idle(t)
	})
}

func TestNobodyWaitsWhereNoPlaceIsToBeExpected(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, _, home := brief(t, 1, 2)
		sitting := <-r.come(t.Context(), anonymous)
		a, b := r.come(t.Context(), stage.Visitor{Key: 8}), r.come(t.Context(), known)
		got := <-r.come(t.Context(), stage.Visitor{Key: 9})
		if got.took != 0 || got.x.Tier != "overflow" || r.counted("full") != "1" {
			t.Errorf("the third of two waited %v in %q", got.took, got.x.Tier)
		}
		got.x.End(message.Outcome{})
		c := r.come(t.Context(), holder) // nobody is before it
		if n := home.patience.waiting.Load(); n != 3 {
			t.Errorf("%d wait, want 3", n)
		}
		for _, w := range []<-chan visited{a, b, c} {
			(<-w).x.End(message.Outcome{})
		}
		sitting.x.End(message.Outcome{})
		r.idle(t)
	})
}

func TestWhoLeavesOrWhoseTierFallsIllStopsWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, p, home := brief(t, 1, 4)
		sitting := <-r.come(t.Context(), anonymous)
		ctx, cancel := context.WithCancel(t.Context())
		gone, stays := r.come(ctx, known), r.come(t.Context(), holder)
		cancel()
		if got := <-gone; stage.AsError(got.err).Status != 499 || got.took != 0 {
			t.Errorf("who left: %v after %v", got.err, got.took)
		}
		p.mu.Lock()
		home.turn(false, p.clock())
		p.mu.Unlock()
		got := <-stays
		if got.err != nil || got.took != 0 || got.x.Tier != "overflow" {
			t.Errorf("when the tier fell ill: %v after %v in %q", got.err, got.took, got.x.Tier)
		}
		if n := home.patience.waiting.Load(); n != 0 || r.counted("left") != "1" {
			t.Errorf("%d wait, %s left", n, r.counted("left"))
		}
		got.x.End(message.Outcome{})
		sitting.x.End(message.Outcome{})
		r.idle(t)
	})
}

// Told means never more than that, also while places are handed on, and no place is forgotten.
func TestPlacesHandedOnNeverExceedWhatIsTold(t *testing.T) {
	r, _, home := brief(t, 5, 8)
	var at, most atomic.Int64
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(1, uint64(i)))
			for k := range 200 {
				ctx, cancel := context.WithCancel(t.Context())
				if rng.IntN(8) == 0 {
					time.AfterFunc(time.Duration(rng.IntN(1000))*time.Microsecond, cancel)
				}
				x := r.sit(stage.Visitor{Key: uint64(1000*i + k + 1), Class: []stage.Class{stage.Anonymous, stage.Known, stage.Protected}[k%3]})
				_, err := r.Serve(ctx, x, next(func(_ context.Context, x *stage.Exchange) (*message.Response, error) {
					if x.Tier == "home" {
						if n := at.Add(1); n > most.Load() {
							most.Store(n)
						}
						time.Sleep(100 * time.Microsecond)
						at.Add(-1)
					}
					return &message.Response{Status: 200}, nil
				}))
				if err != nil && !errors.Is(err, errGone) {
					t.Error(err)
				}
				x.End(message.Outcome{})
				cancel()
			}
		})
	}
	wg.Wait()
	if n := most.Load(); n > 5 || n < 5 {
		t.Errorf("%d at once, want 5", n)
	}
	if n := home.patience.waiting.Load(); n != 0 || r.counted("served") == "0" {
		t.Errorf("%d wait, %s served", n, r.counted("served"))
	}
	r.idle(t)
}

func TestTheReserveIsNotKeptEmptyWherePlacesComeFreeSoon(t *testing.T) {
	var q patience
	const places = 60
	reserved := func(answers uint64) float64 {
		c, now := load{}, int64(second)
		for range 400 {
			now += int64(tick)
			c.sent += answers
			q.joined.Add(1)
			q.look(now, 300e6, c)
		}
		r := reserve{wanted: 6}
		return r.places(places, min(1, sentOnRare/q.missed()))
	}
	if n := reserved(5); n > 0 {
		t.Errorf("%.1f places kept where 200 a second come free", n)
	}
	if w, d := time.Duration(q.wait.Load()), q.depth.Load(); w != longWait || d < 3 || d > 4 {
		t.Errorf("waits %v, %d at once", w, d)
	}
	if n := reserved(0); n < 0.9 || q.wait.Load() != 0 {
		t.Errorf("%.1f places kept, %d ns waited, where none comes free", n, q.wait.Load())
	}
	q.at += 2 * int64(reserveTime)
	if q.missed() != 1 {
		t.Error("nobody waited lately, and the reserve is smaller")
	}
}

func TestOnlyToldTiersWithAnotherOneAfterThemHaveVisitorsWait(t *testing.T) {
	b := newBed(t, poolSpec(v1.First, tierSpec("told", 1, 10, 0), tierSpec("found", 1, 0, 0), tierSpec("last", 1, 10, 0)))
	for i := range int64(200) {
		for _, at := range b.plan {
			at.state.sent.Add(5)
			at.state.kinds.of[0].answered(300e6)
		}
		b.observe(int64(second)+i*int64(tick), i*int64(tick))
	}
	for i, want := range []time.Duration{longWait, 0, 0} {
		if got := b.plan[i].state.patience.wait.Load(); got != int64(want) {
			t.Errorf("tier %d: waits %d ns, want %v", i, got, want)
		}
	}
}
