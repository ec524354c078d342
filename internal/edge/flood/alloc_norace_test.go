//go:build !race

package flood

import (
	"context"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/stage"
)

const (
	many     = 10_000_000
	eventFor = 24 * time.Second
	shapes   = 2
	replays  = 5
)

func TestARequestAllocatesNothing(t *testing.T) {
	for name, b := range map[string]*bed{"calm": newBed(t, short()), "attacked": attacked(t, short())} {
		var x stage.Exchange
		var in message.Request
		b.request(&x, &in, rand.New(rand.NewPCG(3, 4)), false)
		ctx := context.Background()
		if n := testing.AllocsPerRun(100, func() {
			x.Trail = stage.Trail{}
			_, _ = b.Serve(ctx, &x, missing{b})
		}); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

func BenchmarkServe(b *testing.B) {
	bd := newBed(b, short())
	var x stage.Exchange
	var in message.Request
	bd.request(&x, &in, rand.New(rand.NewPCG(3, 4)), false)
	ctx := context.Background()
	for b.Loop() {
		_, _ = bd.Serve(ctx, &x, missing{bd})
	}
}
