// Package bus carries messages between control planes and PoPs: in one process, through a NATS server that is
// embedded, or through a NATS cluster. All of them behave alike; bustest proves it.
//
// A message arrives at most once, and in order from one publisher. What is lost is not told: who must know it finds out
// by a heartbeat and asks. So nothing that stands in a message alone is true for good.
package bus

import (
	"context"
	"errors"
)

// MaxData bounds the data of a message, in bytes.
const MaxData = 1 << 20

// Errors of a Bus.
var (
	// ErrClosed: this end was closed.
	ErrClosed = errors.New("bus: closed")
	// ErrAway: this end has no connection now. It goes on trying.
	ErrAway = errors.New("bus: not connected")
	// ErrNobody: nobody who could answer listens to the subject.
	ErrNobody = errors.New("bus: nobody answers")
	// ErrTooLarge: the data has more than MaxData bytes.
	ErrTooLarge = errors.New("bus: message too large")
	// ErrDenied: this end may not use the subject.
	ErrDenied = errors.New("bus: not allowed")
)

// Bus is one end of a bus.
type Bus interface {
	// Publish sends to all who subscribed to the subject. It keeps no part of data, returns once the message is on its
	// way, and fails rather than wait: ErrAway without a connection, so that nothing old arrives after a pause.
	Publish(subject string, data []byte) error
	// Subscribe calls handle, in order and one at a time, for each message whose subject matches: * is one word, > at
	// the end is one or more. Of those who name the same group each message goes to one. When handle is slow, depth
	// messages wait, and the oldest are dropped and counted. It holds over broken connections.
	Subscribe(subject, group string, depth int, handle func(Message)) (Subscription, error)
	// Request publishes and waits for the first answer. ErrNobody comes at once where nobody subscribed.
	Request(ctx context.Context, subject string, data []byte) ([]byte, error)
	// Connected gives a channel that is closed while this end is connected, and one that is closed when it no longer is.
	Connected() (up, down <-chan struct{})
	// Close ends this end and its subscriptions. No handle runs once it returned.
	Close() error
}

// Message is what arrived. Data is the receiver's.
type Message struct {
	Subject string
	Data    []byte
	Respond func(data []byte) error // nil where no answer is waited for, or where it may not go (MayAnswer)
}

// Subscription is what Subscribe began.
type Subscription interface {
	// Close ends it. No handle runs once it returned: a handle that would end its own does so in another goroutine.
	Close() error
	// Dropped is how many messages were dropped because handle was slow.
	Dropped() uint64
}
