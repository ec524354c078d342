package deadline

import (
	"testing"
	"time"
)

func TestASilenceLastsAsLongAsAStepAtTheLeastRate(t *testing.T) {
	p := Pace{Limit: 30 * time.Second, Rate: 240}
	for _, tt := range []struct {
		name string
		p    Pace
		step int64
		want time.Duration
	}{
		{"no step", p, 0, 30 * time.Second},
		{"a small step", p, 240, 30 * time.Second},
		{"a step of loopback", p, 2 * 65483, 545691 * time.Millisecond},
		{"a large step", p, 8 << 20, MostSilence * 30 * time.Second},
		{"as large as can be", p, 1 << 62, MostSilence * 30 * time.Second},
		{"no rate", Pace{Limit: time.Second}, 1 << 30, time.Second},
	} {
		if got := tt.p.Silence(tt.step); got != tt.want {
			t.Errorf("%s: %v, not %v", tt.name, got, tt.want)
		}
	}
}

// The write began at 0 and was looked at after a second; each look says what was acknowledged then.
func TestAWriteIsLate(t *testing.T) {
	const segment = 6_000 // a step of 24,000 bytes is 100 s at the least rate
	p := Pace{Limit: 30 * time.Second, Rate: 240}
	steady := func(rate int64) func(int64) taken {
		return func(s int64) taken { return taken{bytes: s * rate, segment: segment} }
	}
	for _, tt := range []struct {
		name  string
		taken func(second int64) taken
		from  int64 // seconds after which it is late; 0 for never
	}{
		{"nothing is taken", steady(0), 101},
		{"small segments, nothing is taken", func(int64) taken { return taken{segment: 500} }, 31},
		{"steps at the rate and a bit", func(s int64) taken { return taken{bytes: s / 90 * 24_000, segment: segment} }, 0},
		{"one step, and no more", func(s int64) taken { return taken{bytes: min(s/90, 1) * 24_000, segment: segment} }, 190},
		{"a trickle", steady(20), 110},
		{"the least rate", steady(240), 0},
		{"nobody answers", func(s int64) taken { return taken{segment: segment, owed: s > 40, mute: max(0, s-40) * 1000} }, 70},
	} {
		w := Watch{begun: 1, base: tt.taken(1).bytes, last: tt.taken(1).bytes, moved: 1000, seen: 1000}
		late := int64(0)
		for s := int64(31); s < 1000 && late == 0; s++ {
			now := s * 1000
			got := tt.taken(s)
			if got.bytes > w.last {
				w.last, w.moved = got.bytes, now
			}
			if w.late(got, p, now) {
				late = s
			}
		}
		if late != tt.from {
			t.Errorf("%s: late after %d s, not %d", tt.name, late, tt.from)
		}
	}
}
