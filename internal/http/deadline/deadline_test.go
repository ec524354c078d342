package deadline

import (
	"context"
	"runtime"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

const tick = 100 * time.Millisecond

type conn struct {
	index int
	looks atomic.Int64
	last  atomic.Int64
}

func (c *conn) place() *int    { return &c.index }
func (c *conn) look(now int64) { c.looks.Add(1); c.last.Store(now) }

func start(t *testing.T) *Sweeper[*conn] {
	w := &Sweeper[*conn]{}
	w.Init(tick, (*conn).look, (*conn).place)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return w
}

func TestTheClockIsAtMostATickOldAndNeverZero(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		w := start(t)
		if w.Now() != 1 || w.At(begin) != 1 || w.At(begin.Add(-time.Hour)) != 1 || w.At(begin.Add(time.Second)) != 1001 {
			t.Errorf("at the epoch it is %d", w.Now())
		}
		for range 50 {
			time.Sleep(37 * time.Millisecond)
			synctest.Wait()
			if late := time.Since(begin).Milliseconds() + 1 - w.Now(); late < 0 || late > tick.Milliseconds() {
				t.Fatalf("the clock is %d ms late", late)
			}
		}
	})
}

func TestALimitIsNeverEarly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t)
		time.Sleep(tick - time.Millisecond) // the clock is a tick old
		from, limit := w.Now(), w.Limit(time.Second)
		for at := time.Now(); ; time.Sleep(time.Millisecond) {
			synctest.Wait()
			d := time.Since(at)
			if (w.Now() > limit || w.Over(w.Now(), from, time.Second)) && d < time.Second {
				t.Fatalf("a second is over after %v", d)
			}
			if w.Now() > limit {
				if d > time.Second+3*tick {
					t.Fatalf("a second is over after %v", d)
				}
				break
			}
		}
		if w.Over(w.Now(), 0, time.Millisecond) {
			t.Error("where nothing waits nothing is over")
		}
	})
}

func TestRFC9110Section567TheDateGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t)
		for range 3 {
			time.Sleep(1700 * time.Millisecond)
			synctest.Wait()
			want := time.Now().Add(-tick).UTC().Format("Mon, 02 Jan 2006 15:04:05 GMT")
			now := time.Now().UTC().Format("Mon, 02 Jan 2006 15:04:05 GMT")
			if got := string(w.Date()); got != want && got != now {
				t.Errorf("Date is %q, not %q", got, now)
			}
			if line := string(w.DateLine()); line != "Date: "+string(w.Date())+"\r\n" {
				t.Errorf("%q", line)
			}
		}
	})
}

func TestEachConnectionIsLookedAtEachTickUntilItIsRemoved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t)
		list := make([]*conn, 3*batch+7)
		for i := range list {
			list[i] = &conn{}
			w.Add(list[i])
		}
		time.Sleep(2*tick + tick/2)
		synctest.Wait()
		for i, c := range list {
			if c.looks.Load() != 2 || c.last.Load() != w.Now() {
				t.Fatalf("connection %d: %d looks, the last at %d of %d", i, c.looks.Load(), c.last.Load(), w.Now())
			}
		}
		for i, c := range list {
			if i%3 != 0 {
				w.Remove(c)
			}
		}
		if n := w.Len(); n != (len(list)+2)/3 {
			t.Errorf("%d connections are left", n)
		}
		time.Sleep(tick)
		synctest.Wait()
		for i, c := range list {
			if want := int64(2 + (3-i%3)/3); c.looks.Load() != want {
				t.Fatalf("connection %d: %d looks, not %d", i, c.looks.Load(), want)
			}
		}
	})
}

func TestSomeGoesRound(t *testing.T) {
	w := &Sweeper[*conn]{}
	w.Init(tick, (*conn).look, (*conn).place)
	w.Some(4, func(*conn) bool { t.Error("there is none"); return true })
	list := make([]conn, 10)
	for i := range list {
		w.Add(&list[i])
	}
	seen := map[*conn]int{}
	for range 5 {
		w.Some(4, func(c *conn) bool { seen[c]++; return true })
	}
	for i := range list {
		if seen[&list[i]] != 2 {
			t.Errorf("connection %d was seen %d times", i, seen[&list[i]])
		}
	}
	n := 0
	w.Some(100, func(*conn) bool { n++; return n < 3 })
	if n != 3 {
		t.Errorf("%d after it had enough", n)
	}
	n = 0
	if w.Some(100, func(*conn) bool { n++; return true }); n != len(list) {
		t.Errorf("%d of %d, each once", n, len(list))
	}
}

func TestAGuardExpiresOnceAndOnlyInItsPhase(t *testing.T) {
	const idle, busy, head Phase = 1, 2, 3
	var g Guard
	kicks := 0
	kick := func() { kicks++ }
	if !g.Set(idle, 500) {
		t.Error("a new guard is over")
	}
	if p, at, over := g.Look(); p != idle || at != 500 || over {
		t.Error(p, at, over)
	}
	if g.Expire(idle, 499, kick) || g.Expire(busy, 500, kick) || kicks != 0 {
		t.Error("the limit of another phase, or another time, was over")
	}
	if !g.Expire(idle, 500, kick) || g.Expire(idle, 500, kick) || kicks != 1 {
		t.Errorf("%d kicks", kicks)
	}
	if _, _, over := g.Look(); !over {
		t.Error("it is not over")
	}
	if g.Set(busy, 0) {
		t.Error("nobody learns that it was over")
	}
	if !g.Set(busy, 0) {
		t.Error("somebody learns it twice")
	}
	if g.Follow(idle, head, 7) || !g.Follow(busy, head, 7) || g.Follow(busy, head, 8) {
		t.Error("a phase follows only the one it was to follow")
	}
	if p, at, _ := g.Look(); p != head || at != 7 {
		t.Error(p, at)
	}
}

func TestUndoWaitsForTheKick(t *testing.T) {
	var g Guard
	g.Set(1, 5)
	begun, release, undone := make(chan struct{}), make(chan struct{}), make(chan struct{})
	kicked := false
	go g.Expire(1, 5, func() {
		close(begun)
		<-release
		kicked = true
	})
	<-begun
	go g.Undo(func() {
		if !kicked {
			t.Error("undone before it was done")
		}
		close(undone)
	})
	for range 100 {
		runtime.Gosched()
	}
	close(release)
	<-undone
}

func TestLimitsAllocateNothing(t *testing.T) {
	var k Clock
	var g Guard
	k.Init(tick)
	kick := func() {}
	if n := testing.AllocsPerRun(100, func() {
		g.Set(1, k.Limit(time.Second))
		p, at, _ := g.Look()
		g.Expire(p, at, kick)
		_, _ = k.Date(), k.DateLine()
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
