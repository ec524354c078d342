package image

import (
	"context"
	"sync"
	"sync/atomic"
)

// pool shares a few workers among organizations: of those that wait the organizations take turns, so that
// one with many pictures to make does not keep the others from theirs.
type pool struct {
	mu     sync.Mutex
	free   int
	queued int
	turns  []*line // with somebody in line; the first is next
	lines  map[string]*line

	queue, share int
}

// line is who waits of one organization.
type line struct {
	organization string
	tickets      []*ticket
}

// ticket is a place in a line; its channel is closed when a worker is given. It is not reused.
type ticket struct {
	called chan struct{}
	given  bool
}

func newPool(workers, queue, share int) *pool {
	return &pool{free: workers, queue: queue, share: share, lines: map[string]*line{}}
}

// take waits for a worker until ctx ends; give is called when the work is done. False means that too many
// wait already, or that ctx ended.
func (p *pool) take(ctx context.Context, organization string) bool {
	p.mu.Lock()
	if p.free > 0 {
		p.free--
		p.mu.Unlock()
		return true
	}
	l := p.lines[organization]
	if p.queued >= p.queue || l != nil && len(l.tickets) >= p.share {
		p.mu.Unlock()
		return false
	}
	if l == nil {
		l = &line{organization: organization}
		p.lines[organization] = l
		p.turns = append(p.turns, l)
	}
	t := &ticket{called: make(chan struct{})}
	l.tickets = append(l.tickets, t)
	p.queued++
	p.mu.Unlock()
	select {
	case <-t.called:
		return true
	case <-ctx.Done():
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if t.given {
		p.pass()
		return false
	}
	for i, o := range l.tickets {
		if o == t {
			l.tickets = append(l.tickets[:i], l.tickets[i+1:]...)
			break
		}
	}
	p.queued--
	if len(l.tickets) == 0 {
		p.leave(l)
	}
	return false
}

// give takes a worker back.
func (p *pool) give() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.pass()
}

// pass gives a worker to the organization whose turn it is.
func (p *pool) pass() {
	if len(p.turns) == 0 {
		p.free++
		return
	}
	l := p.turns[0]
	t := l.tickets[0]
	l.tickets = l.tickets[1:]
	p.queued--
	p.turns = append(p.turns[1:], l)
	if len(l.tickets) == 0 {
		p.leave(l)
	}
	t.given = true
	close(t.called)
}

func (p *pool) leave(l *line) {
	delete(p.lines, l.organization)
	for i, o := range p.turns {
		if o == l {
			p.turns = append(p.turns[:i], p.turns[i+1:]...)
			return
		}
	}
}

func (p *pool) waiting() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.queued
}

// budget bounds memory by what its users say that they need.
type budget struct {
	used atomic.Int64
	max  int64
}

// take is false when there is not as much left.
func (b *budget) take(n int64) bool {
	if b.used.Add(n) > b.max {
		b.used.Add(-n)
		return false
	}
	return true
}

func (b *budget) give(n int64) { b.used.Add(-n) }
