//go:build !race

package edge

import (
	"testing"

	"github.com/relais-edge/relais/internal/http/message"
)

// It counts allocations, and under the race detector sync.Pool drops values by chance: `make
// allocs` runs it without.
func TestTheFrontAllocatesNothing(t *testing.T) {
	f, r := newFront(client{}, answers(200))
	req := request()
	ctx := t.Context()
	if n := testing.AllocsPerRun(200, func() {
		r.ended = r.ended[:0]
		f.Serve(ctx, req).Ender.End(message.Outcome{Status: 200})
	}); n >= 1 {
		t.Errorf("%v allocations", n)
	}
}
