package balance

import (
	"context"
	"time"
)

// asleepAfter is how long a pool is looked at after its last request.
const asleepAfter = 10 * time.Second

// wake has the pool looked at; the first answer after a rest does it.
func (p *Pool) wake() {
	if p.stir != nil && p.awake.CompareAndSwap(false, true) {
		p.stir(p)
	}
}

// look takes in what answers showed: limits, reserves, laggards. It is called every tick while
// the pool is awake, and says whether the pool should stay so.
func (p *Pool) observe(now, wall int64) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	w := p.view.Load()
	p.ticks++
	active := false
	for i := range p.plan {
		t := &p.plan[i]
		s := t.state
		c := load{s.sent.Load(), s.refused.Load(), s.inFlight.Load()}
		active = active || c.inFlight > 0
		if c.sent != p.lastSent[i] {
			p.lastSent[i], p.lastUse = c.sent, now
		}
		if p.ticks%laggardLook == 0 && i < len(w.tiers) {
			s.compare(t.adaptive)
			for _, m := range w.tiers[i].members {
				m.o.look(now)
			}
			s.lost = t.laggards(&w.tiers[i], p.scratch[:])
			if i == len(p.plan)-1 {
				s.lost = 0 // nobody else has room
			}
			s.told = w.tiers[i].gather(now)
		}
		if t.adaptive {
			s.limiter.step(now, wall, c)
			s.use.step(now, s.told.use, c)
		}
		s.reserve.look(now, s.baskets.Load(), c)
		longest := 0.0
		if i < len(p.plan)-1 {
			longest = s.longest()
		}
		s.patience.look(now, longest, c)
		t.mark()
		if s.patience.waiting.Load() > 0 && p.line.waiting.Load() == 0 {
			s.hand() // for limits that grow without an answer
		}
	}
	if p.line.waiting.Load() > 0 {
		active = true
		p.line.next(p.room())
	}
	p.record(now, wall)
	if active || now-p.lastUse < int64(asleepAfter) {
		return true
	}
	p.history.last = 0
	p.awake.Store(false)
	return false
}

// compare takes in what requests of each kind take. The limiter goes on as if it had always been so.
func (t *tier) compare(adaptive bool) {
	l := &t.limiter
	l.moved(t.kinds.look(!adaptive || l.calmly(), l.wait))
	if l.seen == 0 && !t.kinds.settled() && t.kinds.seen < settleLooks {
		l.began = 0 // what comes first is the quick ones, and the first window has much weight
	}
	l.extra, l.shift = t.kinds.extra, t.kinds.shifted()
}

// watch looks at the pools that are awake until ctx ends.
func (s *Stage) watch(ctx context.Context) {
	timer := time.NewTicker(tick)
	defer timer.Stop()
	var list []*Pool
	for {
		if len(list) == 0 {
			timer.Stop()
			select {
			case <-ctx.Done():
				return
			case p := <-s.stirred:
				list = append(list, p)
			}
			timer.Reset(tick)
		}
		select {
		case <-ctx.Done():
			return
		case p := <-s.stirred:
			list = append(list, p)
		case <-timer.C:
			now, wall, kept := s.clock(), time.Now().UnixNano(), list[:0]
			for _, p := range list {
				if p.observe(now, wall) {
					kept = append(kept, p)
				}
			}
			clear(list[len(kept):])
			list = kept
		}
	}
}

// stir queues a pool for watch. When the queue is full the pool's next answer tries again.
func (s *Stage) stir(p *Pool) {
	select {
	case s.stirred <- p:
	default:
		p.awake.Store(false)
	}
}
