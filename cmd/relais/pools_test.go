package main

import (
	"strings"
	"testing"

	"github.com/relais-edge/relais/internal/edge/balance"
)

// A tier of which no origin is well has no limit to show, and takes nothing for all that.
func TestPoolsSaysOfATierThatIsIllThatItTakesNothing(t *testing.T) {
	for _, c := range []struct {
		name     string
		tier     balance.TierStatus
		panicked bool
		want     string
	}{
		{"well and bounded", balance.TierStatus{State: "well", Limit: 40}, false, "limit 40"},
		{"well", balance.TierStatus{State: "well"}, false, "no limit"},
		{"some are well", balance.TierStatus{State: "partly", Limit: 20}, false, "limit 20"},
		{"down", balance.TierStatus{State: "down"}, false, "takes nothing"},
		{"down, and an old estimate", balance.TierStatus{State: "down", Limit: 7}, false, "takes nothing"},
		{"nobody is well, so all are used", balance.TierStatus{State: "down", Limit: 40}, true, "limit 40"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var b strings.Builder
			listPools(&b, []balance.PoolStatus{{Key: "demo/shop", Panicked: c.panicked, Tiers: []balance.TierStatus{c.tier}}})
			line := b.String()
			if !strings.Contains(line, c.want) || !strings.Contains(line, c.tier.State) {
				t.Errorf("got %q, want %q", line, c.want)
			}
		})
	}
}
