package cache

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

func TestTopFindsWhatIsAskedForMost(t *testing.T) {
	tp := newTop()
	s := &Stage{top: tp}
	now := time.Unix(1000, 0)
	r := rand.New(rand.NewPCG(1, 2))
	for i := range 100_000 {
		if i%10 == 0 {
			tp.note(fmt.Append(nil, "acme/shop http://h/hot", i/10%5), 10, true, now)
		}
		tp.note(fmt.Append(nil, "acme/shop http://h/cold", r.IntN(50_000)), 1, false, now)
	}
	tp.note([]byte("acme/other http://h/large"), 1<<40, true, now)
	got := s.Top("acme/shop", false, 5)
	for _, k := range got {
		if k.Hits == 0 || k.Requests < 2000*sampled || k.Requests-k.Over > 2000*sampled {
			t.Errorf("%+v: a hot key was asked for 2,000 times among the samples", k)
		}
	}
	if len(got) != 5 {
		t.Errorf("%d keys", len(got))
	}
	if got := s.Top("", true, 1); len(got) != 1 || got[0].URL != "http://h/large" || got[0].Site != "acme/other" {
		t.Errorf("by bytes: %+v", got)
	}
	for range 40 {
		now = now.Add(topHalves)
		tp.note([]byte("acme/shop http://h/new"), 0, false, now)
	}
	if got := s.Top("acme/shop", false, 1); got[0].URL != "http://h/new" {
		t.Errorf("what was asked for long ago is not forgotten: %+v", got)
	}
}

func TestTopAllocatesNothing(t *testing.T) {
	tp := newTop()
	key, now := []byte("acme/shop http://h/a"), time.Unix(1000, 0)
	if n := testing.AllocsPerRun(100, func() { key[len(key)-1]++; tp.note(key, 1, true, now) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
