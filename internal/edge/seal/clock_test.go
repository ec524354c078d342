package seal

import (
	"sync"
	"testing"
	"time"
)

const day = 24 * 3600

// moved is a clock whose wall clock the test moves.
func moved() (c *Clock, step func(seconds int64)) {
	var mu sync.Mutex
	var by int64
	c = NewClock(func(at time.Time) int64 {
		mu.Lock()
		defer mu.Unlock()
		return at.Unix() + by
	})
	return c, func(seconds int64) {
		mu.Lock()
		defer mu.Unlock()
		by += seconds
	}
}

func TestAJumpEndsNothingThatWasSigned(t *testing.T) {
	for _, c := range []struct {
		name string
		by   int64
		want int64 // of what was skipped that counts as not passed
	}{{"a day forward", day, day}, {"two hours forward", 7200, 7200}, {"a day back", -day, 0}, {"a small step", 59, 0}} {
		t.Run(c.name, func(t *testing.T) {
			k, step := moved()
			now := k.epoch.Add(time.Minute)
			if got := k.Expiry(now); got != now.Unix() {
				t.Fatalf("before: %d, want %d", got, now.Unix())
			}
			step(c.by)
			for range 2 {
				if got := k.Unix(now) - k.Expiry(now); got != c.want {
					t.Errorf("%d seconds count as not passed, want %d", got, c.want)
				}
			}
			if got := k.Steady(now); got != now.Unix() {
				t.Errorf("the steady clock moved by %d", got-now.Unix())
			}
			later := now.Add(25 * time.Hour)
			if got := k.Unix(later) - k.Expiry(later); got != 0 {
				t.Errorf("a day later %d seconds count as not passed", got)
			}
		})
	}
}

func TestAJumpThatIsTakenBackLeavesNothing(t *testing.T) {
	k, step := moved()
	now := k.epoch.Add(time.Minute)
	step(day)
	k.Expiry(now)
	step(-day)
	if got := k.Expiry(now); got != now.Unix() {
		t.Errorf("%d, want %d", got, now.Unix())
	}
}

func TestNobodyIsJudgedByANewTimeBeforeTheJumpIsKnown(t *testing.T) {
	k, step := moved()
	now := k.epoch.Add(time.Minute)
	k.Expiry(now)
	step(day)
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			if got := k.Expiry(now); got != now.Unix() {
				t.Errorf("%d seconds off", got-now.Unix())
			}
		})
	}
	wg.Wait()
}
