//go:build !race

package challenge

import (
	"testing"

	"github.com/relais-edge/relais/internal/stage"
)

// Under the race detector sync.Pool drops values by chance.
func TestPassedAllocatesNothing(t *testing.T) {
	g := newRig(t)
	c := &client{g: g}
	c.do("GET", "/", asJSON, "")
	c.solve(c.told(), "/")
	c.do("GET", "/", asJSON, "")
	if n := testing.AllocsPerRun(100, func() {
		c.x.ID[1]++
		c.x.Trail = stage.Trail{}
		g.st.Passed(c.x)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
