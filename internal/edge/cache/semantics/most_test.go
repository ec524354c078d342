package semantics

import (
	"testing"
	"time"

	"github.com/relais-edge/relais/internal/http/message"
)

func TestWhatStandsInIsFreshForNoLongerThanItMayBe(t *testing.T) {
	came := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		lines  []string
		policy Policy
		want   time.Duration // of freshness that is left
	}{
		{[]string{"max-age=3600"}, Policy{}, 10 * time.Second},
		{[]string{"max-age=5"}, Policy{}, 5 * time.Second},
		{nil, Policy{DefaultTTL: time.Hour}, 10 * time.Second},
		{[]string{"max-age=3600", "1000"}, Policy{}, 10 * time.Second}, // with an Age
	} {
		var f message.Fields
		if len(c.lines) > 0 {
			f.AddString(message.CacheControl, c.lines[0])
		}
		if len(c.lines) > 1 {
			f.AddString(message.Age, c.lines[1])
		}
		control := ParseResponse(&f, nil)
		life, why := Judge(&Exchange{Status: 200, Fields: &f, Sent: came, Came: came, Most: 10 * time.Second}, &control, &c.policy)
		if left := life.Lifetime - life.InitialAge; why != Stored || left != c.want {
			t.Errorf("%q: %q, fresh for %v, want %v", c.lines, why, left, c.want)
		}
	}
}
