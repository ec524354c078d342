package balance

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/stage"
)

func TestHowLongRequestsWaitIsKeptInOneWord(t *testing.T) {
	for _, start := range []int64{0, int64(time.Hour), 1 << 60, math.MaxInt64 - int64(24*time.Hour)} {
		var a asked
		var open []int64
		rng := rand.New(rand.NewPCG(1, uint64(start)))
		now := start
		for range 10_000 {
			now += rng.Int64N(3 * ms)
			if len(open) > 0 && rng.IntN(2) == 0 {
				i := rng.IntN(len(open))
				a.remove(open[i])
				open[i] = open[len(open)-1]
				open = open[:len(open)-1]
			} else {
				a.add(now)
				open = append(open, now)
			}
			want := 0.0
			for _, began := range open {
				want += float64(now/1e6-began/1e6) * 1e6
			}
			if n, age := a.since(now); n != float64(len(open)) || age != want {
				t.Fatalf("from %d: %v requests for %v ns, want %d for %v", start, n, age, len(open), want)
			}
		}
	}
}

// stream is a tier's traffic: an answer takes as long as its origin says.
type stream struct {
	*bed
	took   map[string]int64
	flight []struct {
		at int64
		s  Slot
	}
	at map[string]int
}

// run sends a request each step of d.
func (l *stream) run(t *testing.T, d, step time.Duration) {
	l.at = map[string]int{}
	for end := l.now.Load() + int64(d); l.now.Load() < end; l.pass(time.Millisecond) {
		now := l.now.Load()
		kept := l.flight[:0]
		for _, f := range l.flight {
			if f.at > now {
				kept = append(kept, f)
				continue
			}
			f.s.paced(now)
			f.s.Release(Succeeded)
		}
		l.flight = kept
		if now%int64(step) == 0 {
			s := l.must(t, Visitor{Class: stage.Known})
			l.at[s.Address()]++
			took := l.took[s.Address()]
			if took == 0 {
				took = 20 * ms
			}
			l.flight = append(l.flight, struct {
				at int64
				s  Slot
			}{now + took, s})
		}
		if now%int64(tick) == 0 {
			l.observe(now, second)
		}
	}
}

func TestASlowOriginIsNoticedBeforeItAnswersAndThenOnlyProbed(t *testing.T) {
	l := &stream{bed: newBed(t, poolSpec(v1.LeastRequest, tierSpec("home", 4, 0, 0))), took: map[string]int64{}}
	l.run(t, 2*time.Second, 2*time.Millisecond)
	l.took["home-1:80"] = 10 * second
	l.run(t, time.Second, 2*time.Millisecond)
	if st := l.status().Tiers[0].Origins[1].State; st != "slow" {
		t.Fatalf("a second after it was last heard of it is %q", st)
	}
	l.run(t, 30*time.Second, 2*time.Millisecond)
	if n, all := l.at["home-1:80"], 15_000; n < 2 || n > all/probeEvery+2 {
		t.Errorf("it had %d of %d requests", n, all)
	}
	delete(l.took, "home-1:80")
	l.run(t, 15*time.Second, 2*time.Millisecond)
	l.run(t, 5*time.Second, 2*time.Millisecond)
	if n := l.at["home-1:80"]; n < 400 {
		t.Errorf("once it was well again it had %d of 2500 requests", n)
	}
}

func TestOfATierWithFewVisitorsASlowOriginIsProbedNowAndThen(t *testing.T) {
	l := &stream{bed: newBed(t, poolSpec(v1.LeastRequest, tierSpec("home", 2, 0, 0))), took: map[string]int64{}}
	l.run(t, 10*time.Second, 50*time.Millisecond)
	l.took["home-1:80"] = 2 * second
	l.run(t, 20*time.Second, 50*time.Millisecond)
	l.took["home-1:80"] = 0
	l.run(t, 2*probePause, 500*time.Millisecond)
	l.run(t, 10*time.Second, 50*time.Millisecond)
	if n := l.at["home-1:80"]; n == 0 {
		t.Error("it is never asked again")
	}
}

func TestOneRequestThatIsStuckLeavesItsOriginMostOfItsWork(t *testing.T) {
	l := &stream{bed: newBed(t, poolSpec(v1.LeastRequest, tierSpec("home", 4, 0, 0))), took: map[string]int64{}}
	l.run(t, 2*time.Second, time.Millisecond)
	s := l.must(t, Visitor{Class: stage.Known})
	l.run(t, 3*time.Second, time.Millisecond)
	l.run(t, 10*time.Second, time.Millisecond)
	stuck := s.Address()
	s.Release(Abandoned)
	l.run(t, 2*time.Second, time.Millisecond)
	l.run(t, 2*time.Second, time.Millisecond)
	if n := l.at[stuck]; n < 300 {
		t.Errorf("two seconds after its end %s has %d of 2000 requests", stuck, n)
	}
}

func TestWhatSlowOriginsCannotDoIsTakenFromATierThatIsTold(t *testing.T) {
	for _, c := range []struct {
		tiers []v1.Tier
		want  int64
	}{
		{[]v1.Tier{tierSpec("home", 4, 40, 0), tierSpec("next", 2, 0, 0)}, 30},
		{[]v1.Tier{tierSpec("home", 4, 40, 0)}, 40}, // nobody else has room
	} {
		l := &stream{bed: newBed(t, poolSpec(v1.LeastRequest, c.tiers...)), took: map[string]int64{}}
		l.run(t, 2*time.Second, 2*time.Millisecond)
		l.took["home-1:80"] = 3 * second
		l.run(t, 15*time.Second, 2*time.Millisecond)
		if m := l.plan[0].state.marks.Load(); m.limit < c.want || m.limit > c.want+1 {
			t.Errorf("%d tiers: home takes %d, want %d", len(c.tiers), m.limit, c.want)
		}
	}
}
