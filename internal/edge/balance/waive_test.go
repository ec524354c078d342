package balance

import (
	"context"
	"errors"
	"fmt"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/stage"
)

// workers is an origin of a few workers before which all who come stand in one line, checks too.
type workers struct {
	places chan struct{}
	takes  time.Duration
	hung   atomic.Bool // they answer nobody any more
}

func (w *workers) serve(ctx context.Context) error {
	select {
	case w.places <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	if w.hung.Load() {
		<-ctx.Done() // the worker is lost
		return ctx.Err()
	}
	defer func() { <-w.places }()
	if !sleep(ctx, w.takes) {
		return ctx.Err()
	}
	return nil
}

// crowd is a stage whose origins are workers, and visitors who come again as soon as they were answered.
type crowd struct {
	*rig
	origins map[string]*workers
}

func newCrowd(t *testing.T, spec *v1.OriginPoolSpec) *crowd {
	c := &crowd{rig: newRig(t, nil), origins: map[string]*workers{}}
	for _, tr := range spec.Tiers {
		for _, o := range tr.Origins {
			c.origins[o.Address] = &workers{places: make(chan struct{}, 2), takes: 100 * time.Millisecond}
		}
	}
	c.rig.origins.probe = func(ctx context.Context, address, _, _ string) (int, error) {
		if err := c.origins[address].serve(ctx); err != nil {
			return 0, err
		}
		return 200, nil
	}
	c.compile(t, map[string]*v1.OriginPoolSpec{"shop": spec})
	return c
}

// visit has n visitors ask one after another until ctx ends.
func (c *crowd) visit(ctx context.Context, t *testing.T, n int, wg *sync.WaitGroup) {
	for range n {
		wg.Go(func() {
			var x stage.Exchange
			for ctx.Err() == nil {
				c.prepare(&x, "GET", nil)
				rctx, cancel := context.WithTimeout(ctx, 20*time.Second)
				_, err := c.Serve(rctx, &x, next(func(ctx context.Context, x *stage.Exchange) (*message.Response, error) {
					if err := c.origins[x.Origin].serve(ctx); err != nil {
						return nil, &stage.Error{Code: "http_response_timeout", Side: stage.SideOrigin, Status: 504, Err: err}
					}
					return &message.Response{Status: 200}, nil
				}))
				cancel()
				x.End(message.Outcome{})
				if err != nil && !sleep(ctx, 100*time.Millisecond) {
					return
				}
			}
		})
	}
}

func (c *crowd) states() (list map[string]string) {
	list = map[string]string{}
	for _, p := range c.Status() {
		for _, tr := range p.Tiers {
			for _, o := range tr.Origins {
				list[o.Address] = o.State
			}
		}
	}
	return list
}

// Six quick origins have twice as many visitors as they answer in the time of a check. Each check stands in line behind
// them and times out. Nobody is down for that: it would send its visitors to the others, and then all are.
func TestChecksThatWaitBehindVisitorsTakeNobodyOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		spec := checked(poolSpec(v1.LeastRequest, tierSpec("home", 6, 0, 0)))
		spec.Health.Passive.ConsecutiveFailures = new(0)
		c := newCrowd(t, spec)
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { _ = c.Run(ctx) })
		c.visit(ctx, t, 6*60, &wg) // three seconds' worth
		for range 120 {
			time.Sleep(time.Second)
			for o, s := range c.states() {
				if s == "down" {
					t.Fatalf("%s is down though it answers 20 visitors in a second", o)
				}
			}
		}
		var total uint64
		for _, o := range c.Status()[0].Tiers[0].Origins {
			if total += o.Waived; o.Waived == 0 {
				t.Errorf("no check of %s timed out, so nothing was tried", o.Address)
			}
		}
		rec := httptest.NewRecorder()
		c.metrics.Handler().ServeHTTP(rec, httptest.NewRequestWithContext(ctx, "GET", "/metrics", nil))
		if want := fmt.Sprintf("relais_balance_checks_total{result=\"waived\"} %d\n", total); !strings.Contains(rec.Body.String(), want) {
			t.Errorf("metrics lack %q", want)
		}
		// One that answers nobody any more is down as before, while the others have its visitors, too.
		c.origins["home-2:80"].hung.Store(true)
		time.Sleep(40 * time.Second)
		for o, s := range c.states() {
			if (s == "down") != (o == "home-2:80") {
				t.Errorf("%s is %s", o, s)
			}
		}
		cancel()
		wg.Wait()
	})
}

// What a check that fails is worth, by how it failed and by what visitors had meanwhile.
func TestWhichChecksAreWaived(t *testing.T) {
	late := &stage.Error{Code: "http_response_timeout", Side: stage.SideOrigin, Status: 504, Err: errors.New("late")}
	for _, c := range []struct {
		name                 string
		err                  error
		served, fails, waits int
		want                 string
	}{
		{"late, and visitors have answers", late, 1, 0, 0, "well"},
		{"late by the context", context.DeadlineExceeded, 5, 0, 20, "well"},
		{"late, and nobody asks", late, 0, 0, 0, "down"},
		{"late, and visitors wait as well", late, 0, 0, 3, "down"},
		{"late, and few of those who wait have answers", late, 5, 0, 21, "down"},
		{"late, and one in ten has a fault", late, 20, 2, 0, "down"},
		{"late, and fewer have", late, 21, 2, 0, "well"},
		{"refused", errRefused, 100, 0, 0, "down"},
		{"cut", errCut, 100, 0, 0, "down"},
		{"wrong status", fmt.Errorf("the answer has status %d", 504), 100, 0, 0, "down"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				spec := checked(poolSpec(v1.LeastRequest, tierSpec("home", 1, 0, 0), tierSpec("next", 1, 0, 0)))
				spec.Health.Passive.ConsecutiveFailures = new(0)
				b := newBed(t, spec)
				var held []Slot
				b.origins.probe = func(_ context.Context, address, _, _ string) (int, error) {
					if address != "home-0:80" {
						return 200, nil
					}
					if b.byAddr[address].check.up.Load() {
						for range c.served {
							s := b.must(t, Visitor{})
							s.served()
							s.Release(Succeeded)
						}
						for range c.fails {
							s := b.must(t, Visitor{})
							s.Release(Failed)
						}
						for len(held) < c.waits {
							held = append(held, b.must(t, Visitor{}))
						}
					}
					return 0, c.err
				}
				ctx, cancel := context.WithCancel(t.Context())
				var wg sync.WaitGroup
				wg.Go(func() { b.checks.run(ctx) })
				time.Sleep(time.Minute)
				o := b.status().Tiers[0].Origins[0]
				if o.State != c.want || (o.Waived > 0) != (c.want == "well") || o.Why == "" {
					t.Errorf("%s after a minute, want %s; %d checks waived, %q", o.State, c.want, o.Waived, o.Why)
				}
				cancel()
				wg.Wait()
				for i := range held {
					held[i].Release(Abandoned)
				}
			})
		})
	}
}

// An origin that is down is back by checks that pass alone: those that time out then go on to count.
func TestAnOriginThatIsDownIsNotBackByWaivedChecks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t, checked(poolSpec(v1.LeastRequest, tierSpec("home", 1, 0, 0))))
		b.origins.probe = func(_ context.Context, address, _, _ string) (int, error) {
			if !b.byAddr[address].check.up.Load() { // nobody is well, so that it is used all the same
				s := b.must(t, Visitor{})
				s.served()
				s.Release(Succeeded)
			}
			return 0, context.DeadlineExceeded
		}
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { b.checks.run(ctx) })
		time.Sleep(time.Minute)
		if o := b.status().Tiers[0].Origins[0]; o.State != "down" || o.Waived != 0 {
			t.Errorf("%s, %d checks waived", o.State, o.Waived)
		}
		cancel()
		wg.Wait()
	})
}
