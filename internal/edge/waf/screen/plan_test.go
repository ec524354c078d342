package screen

import (
	"math/rand/v2"
	"slices"
	"testing"
)

// TestPlansChangeNoAnswer: chains that are asked together hit what they hit alone.
func TestPlansChangeNoAnswer(t *testing.T) {
	for pl := 1; pl <= 4; pl++ {
		s := newScreen(t, pl, -1)
		joined, alone := s.newWorker(), s.newWorker()
		hits := func(w *worker, c *class, text string) []uint16 {
			w.steps, w.work, w.hits = 1<<30, 1<<30, w.hits[:0]
			if !w.ask(c, []byte(text)) {
				t.Fatalf("%q: no answer", text)
			}
			out := slices.Clone(w.hits)
			slices.Sort(out)
			return slices.Compact(out)
		}
		r := rand.New(rand.NewPCG(uint64(pl), 3))
		rounds, all, fewer := 1500, 0, 0
		if raced {
			rounds = 100
		}
		for _, v := range []variable{varArgs, varHeaders, varCookies, varFilename, varURIRaw, varBody} {
			c := s.classes[v].of(s, classKey{})
			for range rounds {
				text := oddText(r)
				if r.IntN(2) == 0 {
					text += []string{"' or 1=1--", "<ScRipt>alert(1)", "../../etc/passwd", "%3Cimg%20src", "; cat /etc/passwd", "<?php system(", "UNION/**/select"}[r.IntN(7)]
				}
				_, kinds := s.kinds.bytesOf([]byte(text))
				each := &class{groups: c.groups}
				each.plans[planOf(kinds)].Store(&plan{kinds: kinds, groups: c.groups})
				want := hits(alone, each, text)
				if got := hits(joined, c, text); !slices.Equal(got, want) {
					t.Fatalf("level %d, %q: hits %v, each chain alone %v", pl, text, got, want)
				}
				if all += len(want); len(c.plan(s, kinds)) < len(c.groups) {
					fewer++
				}
			}
		}
		if all == 0 || fewer == 0 {
			t.Errorf("level %d: %d hits, %d joined: nothing was compared", pl, all, fewer)
		}
	}
}
