package ratelimit

import (
	"math/big"
	"math/rand/v2"
	"testing"
	"time"
)

func TestBurstThenRate(t *testing.T) {
	r := newRate(10, time.Second, 5)
	tat, v := stamp{}, verdict{}
	now := int64(time.Hour)
	for i := range 5 {
		tat, v = r.take(tat, now)
		if !v.ok || v.left != uint32(4-i) {
			t.Fatalf("request %d of the burst: %+v", i, v)
		}
	}
	if _, v = r.take(tat, now); v.ok || v.wait != 100*time.Millisecond || v.reset != 500*time.Millisecond {
		t.Fatalf("after the burst: %+v", v)
	}
	if _, v = r.take(tat, now+int64(100*time.Millisecond)-1); v.ok || v.wait != 1 {
		t.Fatalf("1 ns early: %+v", v)
	}
	if _, v = r.take(tat, now+int64(100*time.Millisecond)); !v.ok || v.left != 0 {
		t.Fatalf("a step later: %+v", v)
	}
}

// TestLongRunIsExact proves that no rounding adds up: over any time the number taken from a
// flood is the burst and one for each whole step.
func TestLongRunIsExact(t *testing.T) {
	for _, c := range []struct {
		requests int
		per      time.Duration
		burst    int
	}{
		{7, time.Second, 1},
		{1, 24 * time.Hour, 1},
		{3, time.Millisecond, 2},
		{999_999_937, time.Second, 10},
		{1_000_000_000, time.Millisecond, 1},
		{12_345_679, time.Minute, 3},
	} {
		r := newRate(c.requests, c.per, c.burst)
		start := int64(1 << 40)
		tat, now, n := stamp{}, start, new(big.Int)
		// A flood, asked at each moment at which one more could be taken.
		const rounds = 100_000
		for range rounds {
			for {
				next, v := r.take(tat, now)
				if !v.ok {
					now += int64(v.wait)
					break
				}
				tat = next
				n.Add(n, big.NewInt(1))
				if v.left == 0 && r.step.ns == 0 && n.Int64()%64 == 0 {
					now++ // several a nanosecond: do not stay in it
					break
				}
			}
		}
		// burst + elapsed·requests/per, rounded down, less what the last round left.
		most := new(big.Int).Mul(big.NewInt(now-start), big.NewInt(int64(c.requests)))
		most.Div(most, big.NewInt(int64(c.per)))
		most.Add(most, big.NewInt(int64(c.burst)))
		if n.Cmp(most) > 0 {
			t.Errorf("%d in %s: %s taken, at most %s may be", c.requests, c.per, n, most)
		}
		if r.step.ns > 0 && new(big.Int).Sub(most, n).Cmp(big.NewInt(1)) > 0 {
			t.Errorf("%d in %s: %s taken, %s could be", c.requests, c.per, n, most)
		}
	}
}

func TestClockGoingBackGivesNothing(t *testing.T) {
	r := newRate(10, time.Second, 3)
	now := int64(time.Hour)
	var tat stamp
	for range 3 {
		tat, _ = r.take(tat, now)
	}
	for _, back := range []time.Duration{time.Millisecond, time.Second, time.Hour} {
		kept, v := r.take(tat, now-int64(back))
		if v.ok {
			t.Errorf("%s back: a request more than the burst was taken", back)
		}
		if kept != tat {
			t.Errorf("%s back: a refused request moved the arrival time", back)
		}
	}
	// A request dated before an idle key's last one counts as any other.
	tat, _ = r.take(stamp{}, now)
	if tat2, v := r.take(tat, now-int64(time.Millisecond)); !v.ok || !tat2.after(tat) {
		t.Errorf("out of order: %+v", v)
	}
}

// TestLeftIsWhatIsTaken checks the r of RateLimit against what is then taken.
func TestLeftIsWhatIsTaken(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 4))
	for range 2000 {
		r := newRate(1+rnd.IntN(1000), time.Duration(1+rnd.IntN(100_000))*time.Millisecond, 1+rnd.IntN(50))
		now := int64(time.Hour)
		var tat stamp
		for range rnd.IntN(80) {
			tat, _ = r.take(tat, now)
			now += rnd.Int64N(int64(2*time.Second)) / int64(1+rnd.IntN(1000))
		}
		next, v := r.take(tat, now)
		if !v.ok {
			if _, w := r.take(tat, now+int64(v.wait)); !w.ok {
				t.Fatalf("%+v: refused after the wait of %s", r, v.wait)
			}
			continue
		}
		for i := range v.left + 1 {
			n, w := r.take(next, now)
			if w.ok != (i < v.left) {
				t.Fatalf("%+v: left %d, request %d taken: %v", r, v.left, i+1, w.ok)
			}
			next = n
		}
		if _, w := r.take(tat, now+int64(v.reset)); !w.ok || w.left != r.burst-1 {
			t.Fatalf("%+v: %d left after the reset, want %d", r, w.left, r.burst-1)
		}
	}
}

func TestExtremesDoNotOverflow(t *testing.T) {
	r := newRate(1, 24*time.Hour, most)
	if r.slack.ns != far {
		t.Errorf("slack %+v", r.slack)
	}
	var tat stamp
	for i := range 100 {
		var v verdict
		if tat, v = r.take(tat, int64(time.Hour)); !v.ok || v.left > r.burst {
			t.Fatalf("request %d: %+v", i, v)
		}
	}
	r = newRate(most, time.Millisecond, most)
	if _, v := r.take(stamp{}, 1); !v.ok || v.left != most-1 {
		t.Errorf("%+v", v)
	}
}
