package waf

import (
	"context"
	"time"
)

// want is what a request needs so that it can be evaluated.
type want struct {
	wait   time.Duration
	basket bool // places for baskets will do too
	big    bool // it needs leave of the heavy
	busy   bool // its site uses much: it needs leave of those
	over   bool // its source is over its budget: it needs leave of those
}

// place is leave to evaluate: what is given back after it.
type place struct{ general, heavy, busy, over <-chan struct{} }

func (p place) leave() {
	for _, c := range [...]<-chan struct{}{p.general, p.heavy, p.busy, p.over} {
		if c != nil {
			<-c
		}
	}
}

// maxLined bounds those over their source's budget who wait for leave.
const maxLined = 64

// enter waits for a place. The outcome is pass when there is one, overBudget or overloaded when
// there was none in time.
func (s *Stage) enter(ctx context.Context, w want) (p place, outcome int) {
	if !w.big && !w.busy && !w.over {
		select {
		case s.common <- struct{}{}:
			return place{general: s.common}, pass
		default:
		}
	}
	t := time.NewTimer(w.wait)
	defer t.Stop()
	if w.over {
		ok := s.lined.Add(1) <= maxLined && take(ctx, t, s.over)
		s.lined.Add(-1)
		if !ok {
			return place{}, overBudget
		}
		p.over = s.over
	}
	if s.general(ctx, t, w, &p) {
		return p, pass
	}
	p.leave()
	return place{}, overloaded
}

// general takes one of the places, and first leave for a busy site and a heavy body. What it has taken when it is
// false is in p.
func (s *Stage) general(ctx context.Context, t *time.Timer, w want, p *place) bool {
	if w.busy {
		if !take(ctx, t, s.busy) {
			return false
		}
		p.busy = s.busy
	}
	if w.big {
		if !take(ctx, t, s.heavy) {
			return false
		}
		p.heavy = s.heavy
	}
	var own chan struct{} // nil: never ready
	if w.basket {
		own = s.basket
	}
	select {
	case s.common <- struct{}{}:
		p.general = s.common
	case own <- struct{}{}:
		p.general = own
	case <-t.C:
		return false
	case <-ctx.Done():
		return false
	}
	return true
}

// take takes leave from c until t fires or ctx ends.
func take(ctx context.Context, t *time.Timer, c chan struct{}) bool {
	select {
	case c <- struct{}{}:
		return true
	case <-t.C:
	case <-ctx.Done():
	}
	return false
}
