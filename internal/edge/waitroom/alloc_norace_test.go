//go:build !race

package waitroom

import (
	"context"
	"testing"

	"github.com/relais-edge/relais/internal/stage"
)

// Under the race detector sync.Pool drops values by chance.
func TestDecidingAboutAWaiterAllocatesNothing(t *testing.T) {
	spec := roomSpec()
	spec.When = "always"
	g := newRig(t, spec, "")
	v := &visitor{g: g}
	v.get()
	g.call(1)
	v.get()
	ctx, next := context.Background(), stage.Handler(g.shop)
	run := func() {
		v.x.Trail = stage.Trail{}
		_, _ = g.st.Serve(ctx, v.x, next)
	}
	run()
	if n := testing.AllocsPerRun(100, run); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
