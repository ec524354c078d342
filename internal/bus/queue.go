package bus

import "sync"

// MaxDepth bounds the messages that wait for one subscription, and MaxWaiting their data, in bytes.
const (
	MaxDepth   = 1 << 16
	MaxWaiting = 64 << 20
)

// Queue is what a subscription is made of: a goroutine that calls handle, in order and one at a time. Where handle is
// slow, the oldest messages are dropped and counted. Close it.
type Queue struct {
	depth  int
	handle func(Message)
	ended  chan struct{}

	mu      sync.Mutex
	some    sync.Cond // with mu: waiting or closed changed
	waiting []Message
	bytes   int
	dropped uint64
	closed  bool
}

// NewQueue begins. Depth is from 1 to MaxDepth; what is beyond is taken as the next of these.
func NewQueue(depth int, handle func(Message)) *Queue {
	q := &Queue{depth: min(max(depth, 1), MaxDepth), handle: handle, ended: make(chan struct{})}
	q.some.L = &q.mu
	go q.run()
	return q
}

// Push adds a message. It never waits.
func (q *Queue) Push(m Message) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return
	}
	for len(q.waiting) > 0 && (len(q.waiting) >= q.depth || q.bytes+len(m.Data) > MaxWaiting) {
		q.bytes -= len(q.waiting[0].Data)
		q.waiting[0] = Message{}
		q.waiting = q.waiting[1:]
		q.dropped++
	}
	q.waiting = append(q.waiting, m)
	q.bytes += len(m.Data)
	q.some.Signal()
}

func (q *Queue) run() {
	defer close(q.ended)
	for {
		m, ok := q.next()
		if !ok {
			return
		}
		q.handle(m)
	}
}

func (q *Queue) next() (Message, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.waiting) == 0 && !q.closed {
		q.some.Wait()
	}
	if q.closed {
		q.waiting = nil
		return Message{}, false
	}
	m := q.waiting[0]
	q.waiting[0] = Message{}
	if q.waiting = q.waiting[1:]; len(q.waiting) == 0 {
		q.waiting = nil // a burst's memory is given back
	}
	q.bytes -= len(m.Data)
	return m, true
}

// Close implements Subscription: what waits is not handled any more, and what is being handled is waited for.
func (q *Queue) Close() error {
	q.mu.Lock()
	q.closed = true
	q.some.Signal()
	q.mu.Unlock()
	<-q.ended
	return nil
}

// Dropped implements Subscription.
func (q *Queue) Dropped() uint64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.dropped
}

// Link tells who waits whether an end is connected. It is not connected when it begins.
type Link struct {
	mu       sync.Mutex
	up, down chan struct{}
	is, over bool
}

// NewLink is not connected.
func NewLink() *Link { return &Link{up: make(chan struct{}), down: make(chan struct{})} }

// Up says that the end is connected now.
func (l *Link) Up() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.is && !l.over {
		l.is = true
		close(l.up)
	}
}

// Down says that it no longer is.
func (l *Link) Down() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.is {
		l.is = false
		close(l.down)
		l.up, l.down = make(chan struct{}), make(chan struct{})
	}
}

// End says that it never will be again.
func (l *Link) End() {
	l.Down()
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.over {
		l.over = true
		close(l.down)
	}
}

// State is what Bus.Connected gives.
func (l *Link) State() (up, down <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.up, l.down
}

// Is says whether the end is connected.
func (l *Link) Is() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.is
}
