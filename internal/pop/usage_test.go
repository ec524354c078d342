package pop

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/relais-edge/relais/internal/bus"
	"github.com/relais-edge/relais/internal/fleet"
	"github.com/relais-edge/relais/internal/observe"
	"github.com/relais-edge/relais/internal/pop/spool"
	"github.com/relais-edge/relais/internal/usage"
)

// books count each record once, as a control plane does.
type books struct {
	t   *testing.T
	end *bus.End
	sub bus.Subscription

	mu     sync.Mutex
	last   map[usage.SpoolID]int64
	sum    int64         // requests
	firsts []int64       // of the batches that came
	mute   int           // answers that are lost
	fail   string        // why nothing is kept
	raw    func() []byte // an answer in place of ours
}

func (k *books) open() {
	var err error
	if k.sub, err = k.end.Subscribe(bus.Up("*", bus.Usage), bus.Control, 100, k.hear); err != nil {
		k.t.Error(err)
	}
}

func (k *books) hear(m bus.Message) {
	b, err := usage.ReadBatch(m.Data)
	if err != nil || m.Subject != "up.fra1.usage" || b.Pop != "fra1" {
		k.t.Errorf("%s: %v", m.Subject, err)
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.firsts = append(k.firsts, b.First())
	a := fleet.UsageAnswer{Why: k.fail}
	if want := k.last[b.Spool] + 1; k.fail == "" && b.First() > want && !b.Gap {
		a = fleet.UsageAnswer{Want: want}
	} else if k.fail == "" {
		for _, r := range b.Records {
			if r.Sequence > k.last[b.Spool] {
				k.last[b.Spool] = r.Sequence
				k.sum += r.Requests
			}
		}
		a.Kept = b.Last()
	}
	data, err := json.Marshal(&a)
	if err != nil {
		k.t.Error(err)
	}
	if k.raw != nil {
		data = k.raw()
	}
	if k.mute > 0 {
		k.mute--
		return
	}
	_ = m.Respond(data)
}

func (k *books) has() int64 {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.sum
}

func (k *books) tries() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return len(k.firsts)
}

func (k *books) refuse(why string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.fail = why
}

// counting is an edge that has one request a collection, or in each pause.
type counting struct {
	mu    sync.Mutex
	pause time.Duration
	last  time.Time
	took  int64
}

func (c *counting) take(now time.Time) []usage.Record {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now.Sub(c.last) < c.pause {
		return nil
	}
	c.last = now
	c.took++
	return []usage.Record{{Slot: usage.Slot{Organization: "acme", Site: "shop", Hour: usage.HourOf(now)}, Counts: usage.Counts{Requests: 1}}}
}

func (c *counting) has() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.took
}

// meterBed is a PoP that delivers to books, in virtual time.
type meterBed struct {
	*books
	edge  counting
	pop   *bus.End
	spool *spool.Spool
	stop  func()
}

func usageScene(t *testing.T, pause time.Duration, f func(t *testing.T, b *meterBed)) {
	t.Helper()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		var m bus.Memory
		b := &meterBed{books: &books{t: t, end: m.Join(), last: map[usage.SpoolID]int64{}}, pop: m.JoinAs(bus.PopRights("fra1"))}
		b.edge.pause = pause
		b.open()
		var err error
		if b.spool, err = spool.Open(spool.Config{Dir: dir, Pop: "fra1"}); err != nil {
			t.Fatal(err)
		}
		u := NewUsage(UsageConfig{Pop: "fra1", Bus: b.pop, Spool: b.spool, Take: b.edge.take, Logger: slog.New(slog.DiscardHandler), Metrics: observe.New()})
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- u.Run(ctx) }()
		b.stop = sync.OnceFunc(func() {
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
		f(t, b)
		b.stop()
		_, _ = b.pop.Close(), b.end.Close()
	})
}

func TestUseIsDeliveredAndTheLastOfItKept(t *testing.T) {
	usageScene(t, 0, func(t *testing.T, b *meterBed) {
		time.Sleep(time.Minute)
		synctest.Wait()
		if took, has := b.edge.has(), b.has(); took != 6 || has < 4 || has > took {
			t.Errorf("after a minute %d collections, %d delivered", took, has)
		}
		b.stop()
		st, err := b.spool.Stats()
		if took := b.edge.has(); err != nil || took != 7 || b.has()+st.Records != took {
			t.Errorf("%d collections, %d delivered, %d wait (%v)", took, b.has(), st.Records, err)
		}
	})
}

func TestAnAnswerThatIsLostCountsNothingTwice(t *testing.T) {
	usageScene(t, 0, func(t *testing.T, b *meterBed) {
		b.mu.Lock()
		b.mute = 3
		b.mu.Unlock()
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		took := b.edge.has()
		if has := b.has(); has < took-3 || has > took {
			t.Errorf("%d of %d", has, took)
		}
		b.mu.Lock()
		defer b.mu.Unlock()
		again := 0
		for i := range b.firsts[1:] {
			switch {
			case b.firsts[i+1] == b.firsts[i]:
				again++
			case b.firsts[i+1] < b.firsts[i]:
				t.Errorf("not in order: %v", b.firsts)
			}
		}
		if again != 3 {
			t.Errorf("%d batches came again, of %v", again, b.firsts)
		}
	})
}

// For a day nobody takes anything: no control plane, no connection, or one that cannot write.
func TestAControlPlaneThatIsAwayForADay(t *testing.T) {
	for name, c := range map[string]struct {
		away, back  func(b *meterBed)
		least, most int           // how often it was tried meanwhile
		within      time.Duration // after the end
	}{
		"nobody": {func(b *meterBed) { _ = b.sub.Close() }, func(b *meterBed) { b.open() }, 0, 0, slowest + time.Second},
		"cut":    {func(b *meterBed) { b.pop.Cut() }, func(b *meterBed) { b.pop.Mend() }, 0, 0, collectEvery + time.Second},
		"full":   {func(b *meterBed) { b.refuse("the disk is full") }, func(b *meterBed) { b.refuse("") }, 280, 600, slowest + time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			usageScene(t, 20*time.Minute, func(t *testing.T, b *meterBed) {
				time.Sleep(time.Hour)
				synctest.Wait()
				c.away(b)
				has, tried := b.has(), b.tries()
				if has == 0 {
					t.Fatal("nothing came in the first hour")
				}
				time.Sleep(24 * time.Hour)
				synctest.Wait()
				if n := b.tries() - tried; b.has() != has || n < c.least || n > c.most {
					t.Errorf("%d came, %d tries", b.has()-has, n)
				}
				took := b.edge.has()
				c.back(b)
				time.Sleep(c.within)
				synctest.Wait()
				if has := b.has(); has < took || took < 24*3 {
					t.Errorf("%d of %d", has, took)
				}
				b.mu.Lock()
				defer b.mu.Unlock()
				for i := range b.firsts[1:] {
					if b.firsts[i+1] < b.firsts[i] {
						t.Fatalf("not in order: %v", b.firsts)
					}
				}
			})
		})
	}
}

// Nothing but "it is kept" is taken for that.
func TestOnlyTheRightAnswerAcknowledges(t *testing.T) {
	for _, answer := range []string{"", "null", "{}", "{", `{"kept":0}`, `{"kept":999}`, `{"why":"no"}`, `{"want":1,"why":"gap"}`, `"kept"`} {
		t.Run(answer, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var m bus.Memory
				k := &books{t: t, end: m.Join(), last: map[usage.SpoolID]int64{}, raw: func() []byte { return []byte(answer) }}
				k.open()
				pop := m.JoinAs(bus.PopRights("fra1"))
				b := &usage.Batch{Pop: "fra1", Spool: usage.SpoolID{1}, Records: []usage.Record{{Sequence: 7, Slot: usage.Slot{Organization: "acme", Site: "shop", Hour: 500_000}}}}
				if err := (&delivery{pop: "fra1", bus: pop}).Deliver(t.Context(), b); err == nil {
					t.Error("acknowledged")
				}
				_, _ = pop.Close(), k.end.Close()
			})
		})
	}
}

func TestAPoPDeliversForNoOther(t *testing.T) {
	var m bus.Memory
	pop := m.JoinAs(bus.PopRights("fra1"))
	b := &usage.Batch{Pop: "nyc1", Spool: usage.SpoolID{1}, Records: []usage.Record{{Sequence: 1, Slot: usage.Slot{Organization: "acme", Site: "shop", Hour: 500_000}}}}
	if err := (&delivery{pop: "nyc1", bus: pop}).Deliver(t.Context(), b); !errors.Is(err, bus.ErrDenied) {
		t.Error(err)
	}
	_ = pop.Close()
}
