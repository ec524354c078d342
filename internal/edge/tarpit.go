package edge

import (
	"context"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/relais-edge/relais/internal/observe"
	"github.com/relais-edge/relais/internal/stage"
)

// maxTarpit is how many refusals are held back at once. Each has its connection or its stream, and a goroutine.
const maxTarpit = 16_384

// tarpit holds refusals back, as stage.Error says. A flood that waits for its answers, as those from browsers and from
// most tools do, then comes at the pace of the tarpit; refusing it at once would let it take the processors with refusals.
type tarpit struct {
	n          atomic.Int64
	held, over observe.Counter
}

func newTarpit(r *observe.Registry) *tarpit {
	f := r.Counters("relais_tarpit_total", "Refusals that were held back, and those for which there was no room and whose connections were closed.", 2, "outcome")
	return &tarpit{held: f.With("held"), over: f.With("over")}
}

// hold waits as long as e says, up to twice, or until ctx ends. It returns false where there is no room: the connection is better
// closed.
func (t *tarpit) hold(ctx context.Context, x *stage.Exchange, e *stage.Error) bool {
	if e.Tarpit <= 0 {
		return true
	}
	if t.n.Add(1) > maxTarpit {
		t.n.Add(-1)
		t.over.Inc()
		return false
	}
	defer t.n.Add(-1)
	t.held.Inc()
	if x.In.Control != nil {
		x.In.Control.MayBlock()
	}
	timer := time.NewTimer(e.Tarpit + rand.N(e.Tarpit)) // what was refused at once does not come back at once
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
	return true
}
