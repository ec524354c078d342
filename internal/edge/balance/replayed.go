package balance

import (
	"math/rand/v2"
	"time"

	"github.com/relais-edge/relais/internal/stage"
)

// Replay is what a stage is told that serves recorded requests in virtual time.
type Replay interface {
	// Now is the virtual time.
	Now() time.Time
	// Hold keeps a place taken until the time at which the request under way was over, and then calls release.
	Hold(release func())
	// Skip goes on to the next time before until at which a place comes free; false when there is none.
	Skip(until time.Time) bool
}

// chance is a random number, which in a replay follows from the request.
func (v *Visitor) chance() uint64 {
	if v.seed == 0 {
		return rand.Uint64()
	}
	return stage.Draw(&v.seed)
}

// queueReplayed waits in virtual time for a place that comes free.
func (a *attempt) queueReplayed(x *stage.Exchange, v *Visitor, patience time.Duration) (Slot, error) {
	x.Mark(name, "queued")
	r := a.stage.cfg.Replay
	began := x.Now()
	for r.Skip(began.Add(patience)) {
		x.Pass(max(0, r.Now().Sub(x.Now())))
		v.Now, v.turn = a.stage.now(x), true
		slot, err := a.pool.Pick(*v, &a.tried)
		if v.turn = false; err != ErrFull {
			return slot, err
		}
	}
	x.Pass(max(0, patience-x.Now().Sub(began)))
	return Slot{}, ErrFull
}

// lingerReplayed is linger in virtual time. Requests are served one after the other, so nobody else waits.
func (a *attempt) lingerReplayed(x *stage.Exchange, v *Visitor, s *Slot) (Slot, error) {
	t, r := s.tier, a.stage.cfg.Replay
	patience := t.patience.lasts(int(s.lane))
	began := x.Now()
	for r.Skip(began.Add(patience)) {
		x.Pass(max(0, r.Now().Sub(x.Now())))
		v.Now = a.stage.now(x)
		if _, ok := t.admit(t.marks.Load().forLane(int(s.lane), 0)); !ok {
			continue
		}
		if slot, ok := a.pool.seat(t, v, &a.tried); ok {
			t.counters.waited.Inc()
			return slot, nil
		}
		break
	}
	x.Pass(max(0, patience-x.Now().Sub(began)))
	t.counters.inVain.Inc()
	x.MarkDetail(name, "waited-in-vain", t.name)
	v.Now, v.wait = a.stage.now(x), hasWaited
	return a.pool.Pick(*v, &a.tried)
}

// Advance does what Run does beside the requests each tick, in virtual time, for the pools that had requests
// lately; second says that what is due each second is due too. One goroutine calls it.
func (s *Stage) Advance(second bool) {
	for more := true; more; {
		select {
		case p := <-s.stirred:
			s.awake = append(s.awake, p)
		default:
			more = false
		}
	}
	now := s.clock()
	wall, kept := s.at(now).UnixNano(), s.awake[:0]
	for _, p := range s.awake {
		if second {
			p.tick(now)
		}
		if p.observe(now, wall) {
			kept = append(kept, p)
		}
	}
	clear(s.awake[len(kept):])
	s.awake = kept
}
