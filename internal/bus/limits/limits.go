// Package limits carries what edges took of shared rate limits over the bus, each PoP on its own subject.
package limits

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/relais-edge/relais/internal/bus"
	"github.com/relais-edge/relais/internal/edge/ratelimit"
)

// waiting is how many batches wait for an edge that does not receive; older ones are lost.
const waiting = 256

// Exchange is a PoP's end, a ratelimit.Bus.
type Exchange struct {
	bus     bus.Bus
	subject string
	sub     bus.Subscription
	in      chan []ratelimit.Taken
	once    sync.Once
	closed  chan struct{}
	lost    atomic.Uint64
	bad     atomic.Uint64
}

// Join begins to exchange as a PoP, whose name no other end has. Close it; the bus stays open.
func Join(b bus.Bus, pop string) (*Exchange, error) {
	x := &Exchange{bus: b, subject: bus.Peer(pop, bus.Limits), in: make(chan []ratelimit.Taken, waiting), closed: make(chan struct{})}
	sub, err := b.Subscribe(bus.Peer("*", bus.Limits), "", waiting, x.take)
	if err != nil {
		return nil, fmt.Errorf("limits: %w", err)
	}
	x.sub = sub
	return x, nil
}

// take keeps what another PoP published. The bus calls it one at a time.
func (x *Exchange) take(m bus.Message) {
	if m.Subject == x.subject {
		return
	}
	batch, err := Decode(m.Data)
	if err != nil {
		x.bad.Add(1)
		return
	}
	for {
		select {
		case x.in <- batch:
			return
		default:
		}
		select {
		case <-x.in:
			x.lost.Add(1)
		default:
		}
	}
}

// Publish implements ratelimit.Bus.
func (x *Exchange) Publish(ctx context.Context, batch []ratelimit.Taken) error {
	if len(batch) > ratelimit.MaxBatch {
		return ratelimit.ErrTooMany
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	select {
	case <-x.closed:
		return ratelimit.ErrClosed
	default:
	}
	if len(batch) == 0 {
		return nil
	}
	err := x.bus.Publish(x.subject, Append(make([]byte, 0, 8+maxEntry*len(batch)), batch))
	if errors.Is(err, bus.ErrClosed) {
		return ratelimit.ErrClosed
	}
	return err
}

// Receive implements ratelimit.Bus.
func (x *Exchange) Receive(ctx context.Context) ([]ratelimit.Taken, error) {
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-x.closed:
		return nil, ratelimit.ErrClosed
	case b := <-x.in:
		return b, nil
	}
}

// Lost is how many batches were dropped here because nobody received them, and Bad how many messages held none.
func (x *Exchange) Lost() (lost, bad uint64) {
	return x.lost.Load() + x.sub.Dropped(), x.bad.Load()
}

// Close ends the exchange.
func (x *Exchange) Close() error {
	x.once.Do(func() { close(x.closed) })
	return x.sub.Close()
}
