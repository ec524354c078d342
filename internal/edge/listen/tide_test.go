package listen

import (
	"testing"
	"time"
)

func TestMemoryIsGivenBackWhenACrowdHasComeOrGone(t *testing.T) {
	type look struct {
		open int64
		want bool
	}
	for name, looks := range map[string][]look{
		"a few come":                {{100, false}, {100, false}, {2000, false}, {2000, false}},
		"a crowd comes and stays":   {{9000, false}, {10000, false}, {10000, true}, {10000, false}},
		"it must come to rest":      {{3000, false}, {4000, false}, {5000, false}, {5070, true}},
		"another within the pause":  {{5000, false}, {5000, true}, {9000, false}, {9000, false}},
		"it goes after the pause":   append([]look{{5000, false}, {5000, true}}, append(make([]look, 29), look{0, true}, look{0, false})...),
		"they come and go, no more": {{1000, false}, {1500, false}, {900, false}, {900, false}},
	} {
		t.Run(name, func(t *testing.T) {
			var tide tide
			now := time.Unix(0, 0)
			if !tide.turned(0, now) {
				t.Error("what starting has left behind is kept")
			}
			for i, l := range looks {
				now = now.Add(time.Second)
				if got := tide.turned(l.open, now); got != l.want {
					t.Errorf("second %d, %d open: give back %v, want %v", i+1, l.open, got, l.want)
				}
			}
		})
	}
}
