package ratelimit

import (
	"context"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/observe"
	"github.com/relais-edge/relais/internal/stage"
)

// slow answers after a time, and counts who asked.
type slow struct {
	status int
	wait   time.Duration
	asked  atomic.Int64
}

func (s *slow) Serve(ctx context.Context, x *stage.Exchange) (*message.Response, error) {
	s.asked.Add(1)
	time.Sleep(s.wait)
	return respond(s.status).Serve(ctx, x)
}

func logins(requests, burst int) v1.RateLimitSpec {
	return v1.RateLimitSpec{Requests: requests, Burst: burst, Per: v1.Duration(time.Hour), Statuses: []string{"401"}}
}

func TestGuessesAtOnceAreNoMoreThanGuessesInTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st, site := compiled(t, observe.New(), logins(5, 0))
		login := &slow{status: 401, wait: time.Second}
		var wg sync.WaitGroup
		for range 200 {
			wg.Go(func() { _, _ = st.Serve(t.Context(), exchange(site, "192.0.2.1"), login) })
		}
		wg.Wait()
		if n := login.asked.Load(); n != 5 {
			t.Errorf("%d guesses came to the origin at once, want 5", n)
		}
	})
}

func TestABasketGuessesNoPasswords(t *testing.T) {
	yes := true
	for _, c := range []struct {
		spare *bool
		want  int64
	}{{nil, 5}, {&yes, 50}} {
		spec, ten := logins(5, 0), 10
		spec.SpareBaskets, spec.BasketCeiling = c.spare, &ten
		st, site := compiled(t, observe.New(), spec)
		login := &slow{status: 401}
		for range 100 {
			x := exchange(site, "192.0.2.1")
			x.Visitor = stage.Visitor{Class: stage.Protected, Key: 7}
			_, _ = st.Serve(t.Context(), x, login)
		}
		if n := login.asked.Load(); n != c.want {
			t.Errorf("%d guesses with a basket came to the origin, want %d", n, c.want)
		}
	}
}

func TestThoseWhoSignInCostNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st, site := compiled(t, observe.New(), logins(5, 20))
		login := &slow{status: 200, wait: time.Second}
		for range 100 { // twenty at once, over and over
			var wg sync.WaitGroup
			for range 20 {
				wg.Go(func() {
					if _, err := st.Serve(t.Context(), exchange(site, "192.0.2.1"), login); err != nil {
						t.Error(err)
					}
				})
			}
			wg.Wait()
		}
		x := exchange(site, "192.0.2.1")
		r, err := st.Serve(t.Context(), x, respond(200))
		if err != nil || string(r.Get(message.RateLimit)) != `"l";r=20;t=0` {
			t.Errorf("%v %q", err, r.Get(message.RateLimit))
		}
	})
}

// A request that a later limit refuses, and one that ends in another error, do not count.
func TestWhatWasNeverAnsweredCostsNothing(t *testing.T) {
	st := New(2, Config{Entries: 1 << 10}, observe.New())
	first, second := logins(2, 0), v1.RateLimitSpec{Requests: 1, Per: v1.Duration(time.Hour)}
	first.Statuses = []string{"4xx"}
	second.Methods = []string{"POST"}
	site := newSite(map[string]*v1.RateLimitSpec{"first": &first, "second": &second}, "first", "second")
	p, err := st.Compile(site, nil)
	if err != nil {
		t.Fatal(err)
	}
	site.Parts[2] = p
	for i := range 10 {
		x := exchange(site, "192.0.2.1")
		x.In.SetMethod([]byte("POST"))
		if _, err := st.Serve(t.Context(), x, respond(200)); (err != nil) != (i > 0) {
			t.Fatalf("post %d: %v", i, err)
		}
	}
	failing := failure{&stage.Error{Status: 502}}
	for i := range 10 {
		if _, err := st.Serve(t.Context(), exchange(site, "192.0.2.1"), failing); stage.AsError(err).Status != 502 {
			t.Fatalf("failure %d: %v", i, err)
		}
	}
	for i := range 3 {
		_, err := st.Serve(t.Context(), exchange(site, "192.0.2.1"), respond(404))
		if (err != nil) != (i == 2) {
			t.Errorf("answer %d: %v", i, err)
		}
	}
}

// A stage below that panics holds no place for good.
func TestAPanicHoldsNoPlace(t *testing.T) {
	st, site := compiled(t, observe.New(), logins(2, 0))
	for range 10 {
		func() {
			defer func() { _ = recover() }()
			_, _ = st.Serve(t.Context(), exchange(site, "192.0.2.1"), failure{})
		}()
	}
	if _, err := st.Serve(t.Context(), exchange(site, "192.0.2.1"), respond(200)); err != nil {
		t.Error(err)
	}
}

func TestWhoWaitsForAnotherOnesAnswerIsToldSeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st, site := compiled(t, observe.New(), logins(1, 0))
		login := &slow{status: 200, wait: time.Minute}
		go func() { _, _ = st.Serve(t.Context(), exchange(site, "192.0.2.1"), login) }()
		synctest.Wait()
		_, err := st.Serve(t.Context(), exchange(site, "192.0.2.1"), login)
		if e := stage.AsError(err); e.Status != 429 || e.RetryAfter != time.Second {
			t.Errorf("%+v", e)
		}
		time.Sleep(2 * time.Minute)
		if _, err := st.Serve(t.Context(), exchange(site, "192.0.2.1"), login); err != nil {
			t.Errorf("after the other one's answer: %v", err)
		}
	})
}

// Whatever comes between, and in whatever order answers come, no more counts in any time than the limit says.
func TestReservedRequestsKeepTheLimit(t *testing.T) {
	for seed := range uint64(50) {
		rng := rand.New(rand.NewPCG(seed, 1))
		r := newRate(1+rng.IntN(9), time.Duration(1+rng.IntN(20))*time.Second+time.Duration(rng.IntN(7)), rng.IntN(6))
		now := int64(time.Hour)
		tb := New(2, Config{Entries: 1}, observe.New()).table
		var open, kept []int64
		for range 500 {
			now += rng.Int64N(int64(2 * time.Second))
			if rng.IntN(3) > 0 {
				if tb.reserve(1, &r, now).ok {
					open = append(open, now)
				}
			} else if len(open) > 0 {
				i := rng.IntN(len(open))
				counts := rng.IntN(2) == 0
				tb.settle(1, &r, counts, open[i])
				if counts {
					kept = append(kept, open[i])
				}
				open = slices.Delete(open, i, i+1)
			}
		}
		slices.Sort(kept)
		for i := range kept {
			for j := i; j < len(kept); j++ {
				// All but a burst must have had a step of time each.
				if n := j - i + 1 - int(r.burst); n > 0 && times(uint32(n), time.Duration(r.step.ns), 1).ns > kept[j]-kept[i] {
					t.Fatalf("seed %d: %d kept in %s", seed, j-i+1, time.Duration(kept[j]-kept[i]))
				}
			}
		}
	}
}

type failure struct{ err error }

// Serve panics without an error.
func (f failure) Serve(context.Context, *stage.Exchange) (*message.Response, error) {
	if f.err == nil {
		panic("a stage below")
	}
	return nil, f.err
}
