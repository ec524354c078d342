package bus

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"sync"
)

// MaxSubscriptions bounds those of one end.
const MaxSubscriptions = 64

// Memory is a bus within a process: for one machine, and for tests. The zero Memory is ready.
type Memory struct {
	mu   sync.Mutex
	ends []*End
	turn uint64 // whose turn it is in groups
}

// Join adds an end that may use all subjects.
func (m *Memory) Join() *End { return m.JoinAs(ControlRights()) }

// JoinAs adds an end with these rights.
func (m *Memory) JoinAs(r Rights) *End {
	e := &End{bus: m, rights: r, link: NewLink()}
	e.link.Up()
	m.mu.Lock()
	defer m.mu.Unlock()
	m.ends = append(m.ends, e)
	return e
}

// End is an end of a Memory, a Bus.
type End struct {
	bus    *Memory
	rights Rights
	link   *Link

	// with the bus's lock
	subs   []*memorySub
	closed bool
}

type memorySub struct {
	*Queue
	end            *End
	subject, group string
}

// Cut breaks this end's connection, until Mend.
func (e *End) Cut() {
	e.bus.mu.Lock()
	defer e.bus.mu.Unlock()
	e.link.Down()
}

// Mend connects this end again. Nothing that was published in between comes.
func (e *End) Mend() {
	e.bus.mu.Lock()
	defer e.bus.mu.Unlock()
	e.link.Up()
}

// Publish implements Bus.
func (e *End) Publish(subject string, data []byte) error {
	return e.send(subject, data, nil)
}

func (e *End) send(subject string, data []byte, respond func([]byte) error) error {
	if err := e.rights.MayPublish(subject); err != nil {
		return err
	}
	if len(data) > MaxData {
		return fmt.Errorf("%w: %d bytes, and %d are the most", ErrTooLarge, len(data), MaxData)
	}
	m := e.bus
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := e.ready(); err != nil {
		return err
	}
	to := m.receivers(subject)
	if len(to) == 0 && respond != nil {
		return fmt.Errorf("%w: %s", ErrNobody, subject)
	}
	for _, s := range to {
		msg := Message{Subject: subject, Data: bytes.Clone(data)}
		if respond != nil && MayAnswer(subject, e.rights.Inbox+".1") {
			msg.Respond = s.end.responder(respond)
		}
		s.Push(msg)
	}
	return nil
}

// responder is how a receiver answers: once, as the permission of a server would have it, and while it is connected.
func (e *End) responder(respond func([]byte) error) func([]byte) error {
	return func(data []byte) error {
		if len(data) > MaxData {
			return fmt.Errorf("%w: %d bytes, and %d are the most", ErrTooLarge, len(data), MaxData)
		}
		e.bus.mu.Lock()
		defer e.bus.mu.Unlock()
		if err := e.ready(); err != nil {
			return err
		}
		return respond(bytes.Clone(data))
	}
}

func (e *End) ready() error {
	switch {
	case e.closed:
		return ErrClosed
	case !e.link.Is():
		return ErrAway
	}
	return nil
}

// receivers are those who get a message: everybody without a group, and one of each group of a subject.
func (m *Memory) receivers(subject string) []*memorySub {
	type group struct{ subject, name string }
	var to []*memorySub
	var order []group
	groups := map[group][]*memorySub{}
	for _, e := range m.ends {
		if !e.link.Is() {
			continue
		}
		for _, s := range e.subs {
			if !Matches(s.subject, subject) {
				continue
			}
			if s.group == "" {
				to = append(to, s)
				continue
			}
			g := group{s.subject, s.group}
			if groups[g] == nil {
				order = append(order, g)
			}
			groups[g] = append(groups[g], s)
		}
	}
	for _, g := range order {
		m.turn++
		to = append(to, groups[g][m.turn%uint64(len(groups[g]))])
	}
	return to
}

// Subscribe implements Bus.
func (e *End) Subscribe(subject, group string, depth int, handle func(Message)) (Subscription, error) {
	if err := e.rights.MaySubscribe(subject); err != nil {
		return nil, err
	}
	e.bus.mu.Lock()
	defer e.bus.mu.Unlock()
	if e.closed {
		return nil, ErrClosed
	}
	if len(e.subs) >= MaxSubscriptions {
		return nil, fmt.Errorf("bus: an end has %d subscriptions at most", MaxSubscriptions)
	}
	s := &memorySub{Queue: NewQueue(depth, handle), end: e, subject: subject, group: group}
	e.subs = append(e.subs, s)
	return s, nil
}

// Close implements Subscription.
func (s *memorySub) Close() error {
	s.end.bus.mu.Lock()
	s.end.subs = slices.DeleteFunc(s.end.subs, func(o *memorySub) bool { return o == s })
	s.end.bus.mu.Unlock()
	return s.Queue.Close()
}

// Request implements Bus.
func (e *End) Request(ctx context.Context, subject string, data []byte) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	_, down := e.Connected()
	answer := make(chan []byte, 1)
	err := e.send(subject, data, func(a []byte) error {
		select {
		case answer <- a:
		default: // the first one counts
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	select {
	case a := <-answer:
		return a, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-down:
		e.bus.mu.Lock()
		defer e.bus.mu.Unlock()
		if e.closed {
			return nil, ErrClosed
		}
		return nil, ErrAway
	}
}

// Connected implements Bus.
func (e *End) Connected() (up, down <-chan struct{}) { return e.link.State() }

// Close implements Bus.
func (e *End) Close() error {
	m := e.bus
	m.mu.Lock()
	e.closed = true
	subs := e.subs
	e.subs = nil
	m.ends = slices.DeleteFunc(m.ends, func(o *End) bool { return o == e })
	e.link.End()
	m.mu.Unlock()
	for _, s := range subs {
		_ = s.Queue.Close() // has no error
	}
	return nil
}
