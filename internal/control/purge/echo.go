package purge

import (
	"context"
	"encoding/json"
	"sync"
	"time"

	"github.com/relais-edge/relais/internal/fleet"
)

// echo sends something small soon after the last purge, twice. A lost packet that is the last of its connection is found by
// a timer of the sender alone, some hundred milliseconds later (the tail loss probe waits for two round trips and, with one packet under
// way, for a late acknowledgement besides; RFC 8985 section 7.2). When a packet that was sent later arrives, the
// receiver acknowledges it selectively, and the sender takes the former for lost a quarter of a round trip after (RFC 8985 section 6.2). While purges
// follow one another, each is that for the one before, and nothing is added.
type echo struct {
	publish func([]byte)
	wake    chan struct{}

	mu   sync.Mutex
	data []byte
	nth  uint64 // of those that were sent
}

// maxEcho is what is sent again as it is, in bytes: it fits into one packet. In place of more a marker is sent, with the number 0, which no
// purge has and every PoP takes for old.
const maxEcho = 1024

// The second one comes in case the first is lost too.
const (
	firstEcho  = 10 * time.Millisecond
	secondEcho = 20 * time.Millisecond
)

func newEcho(publish func([]byte)) *echo {
	return &echo{publish: publish, wake: make(chan struct{}, 1)}
}

// sent is told of the last message.
func (e *echo) sent(data []byte, epoch uint64) {
	if len(data) > maxEcho {
		data, _ = json.Marshal(&fleet.Purge{PurgePosition: fleet.PurgePosition{Epoch: epoch}, Entry: json.RawMessage("null")}) // numbers always marshal
	}
	e.mu.Lock()
	e.data = data
	e.nth++
	e.mu.Unlock()
	select {
	case e.wake <- struct{}{}:
	default:
	}
}

// run sends until ctx ends.
func (e *echo) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-e.wake:
		}
		e.mu.Lock()
		data, nth := e.data, e.nth
		e.mu.Unlock()
		for _, d := range [...]time.Duration{firstEcho, secondEcho} {
			pause := time.NewTimer(d)
			select {
			case <-ctx.Done():
				pause.Stop()
				return
			case <-pause.C:
			}
			e.mu.Lock()
			newer := e.nth != nth
			e.mu.Unlock()
			if newer {
				break // it was what would have been sent, and has its own turn
			}
			e.publish(data)
		}
	}
}
