// Package bustest is the conformance suite of ratelimit.Bus: what every way to carry shared limits between edges has to
// do.
package bustest

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/relais-edge/relais/internal/edge/ratelimit"
)

// patience is how long what was published may take.
const patience = 5 * time.Second

// Run proves a bus. Join gives another end of one and the same bus, and the way to close it.
func Run(t *testing.T, join func(t *testing.T) (bus ratelimit.Bus, end func())) {
	batch := []ratelimit.Taken{
		{Key: 1 << 63, Count: 3, Requests: 10, Burst: 5, Per: time.Second},
		{Key: 42, Count: 1, Requests: 1, Burst: 1, Per: 24 * time.Hour},
	}
	t.Run("a batch reaches every other side once, and not its own", func(t *testing.T) {
		a, endA := join(t)
		b, endB := join(t)
		c, endC := join(t)
		defer endA()
		defer endB()
		defer endC()
		publish(t, a, batch)
		for _, other := range []ratelimit.Bus{b, c} {
			if got := receive(t, other); !slices.Equal(got, batch) {
				t.Errorf("received %v", got)
			}
		}
		publish(t, b, batch[:1])
		for _, other := range []ratelimit.Bus{a, c} {
			if got := receive(t, other); !slices.Equal(got, batch[:1]) {
				t.Errorf("received %v: its own, or twice", got)
			}
		}
	})
	t.Run("nothing of a batch is kept by the publisher's side", func(t *testing.T) {
		a, endA := join(t)
		b, endB := join(t)
		defer endA()
		defer endB()
		mine := slices.Clone(batch)
		publish(t, a, mine)
		clear(mine)
		if got := receive(t, b); !slices.Equal(got, batch) {
			t.Errorf("received %v", got)
		}
	})
	t.Run("who does not receive holds up nobody, and finds the newest", func(t *testing.T) {
		a, endA := join(t)
		b, endB := join(t)
		defer endA()
		defer endB()
		const many = 5000
		for i := range many {
			publish(t, a, []ratelimit.Taken{{Key: uint64(i), Count: 1, Requests: 1, Burst: 1, Per: time.Second}})
		}
		last := uint64(0)
		for last != many-1 {
			got := receive(t, b)
			if got[0].Key < last {
				t.Fatalf("%d after %d", got[0].Key, last)
			}
			last = got[0].Key
		}
	})
	t.Run("a batch that is too large is refused", func(t *testing.T) {
		a, end := join(t)
		defer end()
		if err := a.Publish(t.Context(), make([]ratelimit.Taken, ratelimit.MaxBatch+1)); !errors.Is(err, ratelimit.ErrTooMany) {
			t.Errorf("%v", err)
		}
	})
	t.Run("ends with its context, and when it is closed", func(t *testing.T) {
		a, end := join(t)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		defer cancel()
		if _, err := a.Receive(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Receive: %v", err)
		}
		if err := a.Publish(ctx, batch); err == nil {
			t.Error("Publish after its context ended")
		}
		end()
		if _, err := a.Receive(t.Context()); !errors.Is(err, ratelimit.ErrClosed) {
			t.Errorf("Receive on a closed bus: %v", err)
		}
		if err := a.Publish(t.Context(), batch); !errors.Is(err, ratelimit.ErrClosed) {
			t.Errorf("Publish on a closed bus: %v", err)
		}
	})
}

func publish(t *testing.T, b ratelimit.Bus, batch []ratelimit.Taken) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := b.Publish(ctx, batch); err != nil {
		t.Fatal(err)
	}
}

func receive(t *testing.T, b ratelimit.Bus) []ratelimit.Taken {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	got, err := b.Receive(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return got
}
