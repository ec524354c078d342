package refill

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/relais-edge/relais/internal/observe"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fake is an edge that takes a time for each fetch.
type fake struct {
	takes time.Duration
	do    func(t *Target) Outcome

	mu           sync.Mutex
	urls         []string
	at           []time.Time
	now, most    int
	ended        []Target
	looks        int
	lookedNumber uint64
}

func (f *fake) Fetch(ctx context.Context, t *Target) Outcome {
	f.mu.Lock()
	f.urls, f.at = append(f.urls, t.URL), append(f.at, time.Now())
	f.now++
	f.most = max(f.most, f.now)
	f.mu.Unlock()
	select {
	case <-time.After(f.takes):
	case <-ctx.Done():
	}
	f.mu.Lock()
	f.now--
	f.mu.Unlock()
	if f.do != nil {
		return f.do(t)
	}
	return Outcome{Result: Stored}
}

func (f *fake) Ended(_ string, number uint64, n int) []Target {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.looks++
	f.lookedNumber = number
	return f.ended[:min(n, len(f.ended))]
}

// run runs a queue in a bubble until the test function returns.
func run(t *testing.T, cfg Config, f *fake, test func(q *Queue)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		q := New(cfg, f, f, observe.New())
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); _ = q.Run(ctx) }()
		test(q)
		cancel()
		<-done
	})
}

func targets(n int, prefix string) []Target {
	var out []Target
	for i := range n {
		out = append(out, Target{Site: "s", URL: fmt.Sprint(prefix, i)})
	}
	return out
}

func TestRateAndInFlightAreBoundedBySite(t *testing.T) {
	f := &fake{takes: 30 * time.Millisecond}
	run(t, Config{}, f, func(q *Queue) {
		begin := time.Now()
		id := q.Add("s", Limits{Rate: 50, InFlight: 2, Objects: 10}, 0, targets(200, "u"))
		time.Sleep(10 * time.Second)
		synctest.Wait()
		p, _ := q.Job(id)
		if p.Ended == nil || p.Stored != 200 || p.Total != 200 {
			t.Fatalf("%+v", p)
		}
		if took := p.Ended.Sub(begin); took < 3980*time.Millisecond || took > 4200*time.Millisecond {
			t.Errorf("200 at 50 a second took %s", took)
		}
		if f.most > 2 {
			t.Errorf("%d at once", f.most)
		}
		for i := 50; i < len(f.at); i++ {
			if d := f.at[i].Sub(f.at[i-50]); d < 990*time.Millisecond {
				t.Fatalf("51 fetches in %s", d)
			}
		}
	})
}

func TestInFlightIsBoundedOverAllSitesAndNoSiteStarvesAnother(t *testing.T) {
	f := &fake{takes: 100 * time.Millisecond}
	run(t, Config{InFlight: 4}, f, func(q *Queue) {
		limits := Limits{Rate: 10000, InFlight: 64, Objects: 10}
		q.Add("greedy", limits, 0, targets(1000, "greedy"))
		time.Sleep(50 * time.Millisecond)
		id := q.Add("small", limits, 0, targets(3, "small"))
		time.Sleep(time.Second)
		if p, _ := q.Job(id); p.Stored != 3 {
			t.Errorf("%+v", p)
		}
		synctest.Wait()
		if f.most != 4 {
			t.Errorf("%d at once, want 4", f.most)
		}
	})
}

func TestWithoutRoomTheSiteRestsLongerEachTimeAndThenGivesUp(t *testing.T) {
	f := &fake{do: func(*Target) Outcome { return Outcome{Result: NoRoom} }}
	run(t, Config{}, f, func(q *Queue) {
		id := q.Add("s", Limits{Rate: 1000, InFlight: 1, Objects: 1}, 0, targets(1, "u"))
		time.Sleep(time.Minute)
		synctest.Wait()
		p, _ := q.Job(id)
		if p.NoRoom != 1 || p.Ended == nil || len(f.at) != maxTries {
			t.Fatalf("%+v after %d tries", p, len(f.at))
		}
		for i := 2; i < len(f.at); i++ {
			if a, b := f.at[i-1].Sub(f.at[i-2]), f.at[i].Sub(f.at[i-1]); b < a {
				t.Errorf("rest %d was %s after %s", i, b, a)
			}
		}
	})
}

func TestAStormOfPurgesCostsOneLookEachIntervalAndOneFetchOfEach(t *testing.T) {
	f := &fake{takes: 10 * time.Millisecond, ended: targets(5, "hot")}
	run(t, Config{Look: 200 * time.Millisecond}, f, func(q *Queue) {
		jobs := map[uint64]bool{}
		for i := range 5000 {
			jobs[q.After("s", Limits{Rate: 1000, InFlight: 4, Objects: 5}, uint64(i+1))] = true
			time.Sleep(200 * time.Microsecond)
		}
		time.Sleep(time.Second)
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.looks > 7 || f.looks < 4 || len(jobs) > 7 {
			t.Errorf("%d looks, %d jobs in a second", f.looks, len(jobs))
		}
		if len(f.urls) > 5*f.looks {
			t.Errorf("%d fetches in %d looks", len(f.urls), f.looks)
		}
		if f.lookedNumber == 0 {
			t.Error("the look does not know from which purge on")
		}
	})
}

func TestAStormOfPurgesThatEndNothingCostsNoMoreLooks(t *testing.T) {
	f := &fake{}
	run(t, Config{Look: 200 * time.Millisecond}, f, func(q *Queue) {
		for i := range 1000 {
			q.After("s", Limits{Rate: 1000, InFlight: 4, Objects: 5}, uint64(i+1))
			time.Sleep(time.Millisecond)
		}
		synctest.Wait()
		if f.looks > 6 {
			t.Errorf("%d looks in a second", f.looks)
		}
	})
}

func TestWhatIsPurgedAgainWhileItIsFetchedIsFetchedOnceMore(t *testing.T) {
	f := &fake{takes: 500 * time.Millisecond, ended: targets(1, "hot")}
	run(t, Config{Look: 100 * time.Millisecond}, f, func(q *Queue) {
		l := Limits{Rate: 1000, InFlight: 4, Objects: 5}
		q.After("s", l, 1)
		time.Sleep(250 * time.Millisecond) // the fetch is under way
		id := q.After("s", l, 2)
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if len(f.urls) != 2 {
			t.Errorf("%d fetches", len(f.urls))
		}
		if p, _ := q.Job(id); p.Ended == nil || p.Same != 1 {
			t.Errorf("%+v", p)
		}
	})
}

func TestPurgedGoesBeforeListed(t *testing.T) {
	f := &fake{takes: 10 * time.Millisecond, ended: targets(2, "hot")}
	run(t, Config{Look: time.Millisecond}, f, func(q *Queue) {
		l := Limits{Rate: 1000, InFlight: 1, Objects: 5}
		q.Add("s", l, 0, targets(50, "list"))
		time.Sleep(25 * time.Millisecond)
		q.After("s", l, 1)
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if i := slices.Index(f.urls, "hot1"); i < 0 || i > 8 {
			t.Errorf("the hot one came as number %d of %d", i, len(f.urls))
		}
	})
}

func TestLinksAreFollowedOnceAndOnlyWhereTheSiteSays(t *testing.T) {
	for _, follow := range []bool{true, false} {
		f := &fake{do: func(*Target) Outcome { return Outcome{Result: Stored, Links: []string{"a", "b", "c"}} }}
		run(t, Config{}, f, func(q *Queue) {
			id := q.Add("s", Limits{Rate: 1000, InFlight: 1, Objects: 2, Links: follow}, 0, targets(1, "page"))
			time.Sleep(time.Second)
			want := 1
			if follow {
				want = 3 // two of its links, as objects bounds them, and none of theirs
			}
			if p, _ := q.Job(id); p.Stored != want || p.Ended == nil {
				t.Errorf("follow %v: %+v", follow, p)
			}
		})
	}
}

func TestTheQueueIsBoundedAndCloseEmptiesIt(t *testing.T) {
	f := &fake{takes: time.Hour}
	run(t, Config{Waiting: 100}, f, func(q *Queue) {
		l := Limits{Rate: 1, InFlight: 1, Objects: 5}
		id := q.Add("s", l, 0, targets(80, "u"))
		p, _ := q.Job(id)
		if p.Dropped != 30 || p.Waiting != 50 {
			t.Errorf("one site has half: %+v", p)
		}
		synctest.Wait()
		q.Close()
		if p, _ = q.Job(id); p.Waiting != 0 || p.Running != 1 || p.Dropped != 79 {
			t.Errorf("%+v", p)
		}
		if p, _ = q.Job(q.Add("s", l, 0, targets(1, "x"))); p.Dropped != 1 || p.Ended == nil {
			t.Errorf("after close: %+v", p)
		}
		for range 2 * maxJobs {
			q.Add("s", l, 0, nil)
		}
		if n := len(q.Jobs("")); n > maxJobs {
			t.Errorf("%d jobs are remembered", n)
		}
	})
}

func TestLinks(t *testing.T) {
	for _, c := range []struct{ value, want string }{
		{`</a.css>; rel=preload; as=style`, "[https://h/a.css]"},
		{`<b?c#d>; rel="next prefetch"`, "[https://h/x/b?c]"},
		{`</a>; rel=next; rel=preload`, "[]"},
		{`</a>;rel=PRELOAD,</a>;rel=preload`, "[https://h/a]"},
		{`<https://other/a>; rel=preload, <//other/a>; rel=preload, <http://h/a>; rel=preload, <https://u@h/a>; rel=preload`, "[]"},
		{`</a>; title="x, <y>; rel=preload"; rel=preload`, "[https://h/a]"},
		{`</page>; rel=preload`, "[https://h/page]"},
		{`<https://h/x/page>; rel=prefetch`, "[]"}, // itself
		{`garbage, </a>; rel=preload`, "[]"},
		{`</a`, "[]"},
	} {
		if got := fmt.Sprint(Links("https://h/x/page", []string{c.value})); got != c.want {
			t.Errorf("%s: %s, want %s", c.value, got, c.want)
		}
	}
}

func FuzzLinks(f *testing.F) {
	f.Add("</a>; rel=preload")
	f.Add(`<b>; rel="x prefetch", <`)
	f.Fuzz(func(t *testing.T, v string) {
		if got := Links("https://h/x", []string{v}); len(got) > maxLinks {
			t.Errorf("%d", len(got))
		}
	})
}
