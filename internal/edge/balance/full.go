package balance

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/relais-edge/relais/internal/bundle"
	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/stage"
)

// What becomes of a request for which there was no room: the values of Exchange.Full.
const (
	fullWaited = "waited"
	fullRoom   = "room"
	fullPage   = "page"
)

// Room answers visitors for whom no tier has room and no stored answer stands in: a waiting room.
type Room interface {
	// Answer answers x, or fails in its own way. Both nil lets the visitor have the page: an honest 503
	// with Retry-After. It is called once for each visitor, also for those who shared a fetch of the cache.
	Answer(ctx context.Context, x *stage.Exchange, f Full) (*message.Response, error)
}

// Full is what a Room is told beside the exchange.
type Full struct {
	Pool  bundle.Key
	Class stage.Class
	Step  stage.Step // how near to an order the request is, of a visitor with a basket
	// Ready is when there is room again for this visitor, as estimated from how fast the pool takes visitors
	// and how many were sent away before; one second to a minute.
	Ready time.Duration
}

// WhenFull is a step of its own, above the cache: what reaches it as an error that says that every tier
// is full has found no stored answer either. It asks the room, and else tells the visitor when to come back.
func (s *Stage) WhenFull() stage.Stage { return (*whenFull)(s) }

// whenFull is the stage seen from above the cache.
type whenFull Stage

// Name implements stage.Stage.
func (f *whenFull) Name() string { return "full" }

// Serve implements stage.Stage.
func (f *whenFull) Serve(ctx context.Context, x *stage.Exchange, next stage.Handler) (*message.Response, error) {
	resp, err := next.Serve(ctx, x)
	if err == nil || !errors.Is(err, ErrFull) {
		return resp, err
	}
	s := (*Stage)(f)
	ready := unknownAway
	var key bundle.Key
	if p, _ := x.Site.Parts[s.cfg.Slot].(*part); p != nil {
		if pool := p.find(x.Pool); pool != nil {
			key, ready = pool.key, pool.drain.away(s.clock(), x.Visitor.Class)
		}
	}
	if s.cfg.Room != nil {
		resp, err := s.cfg.Room.Answer(ctx, x, Full{Pool: key, Class: x.Visitor.Class, Step: x.Visitor.Near(), Ready: ready})
		if resp != nil || err != nil {
			x.Full = fullRoom
			x.Mark("full", "room")
			return resp, err
		}
	}
	x.Full = fullPage
	x.MarkDetail("full", "page", pageDetails[x.Visitor.Class])
	return nil, s.later(ready)
}

// pageDetails say who was sent away.
var pageDetails = [...]string{
	stage.Anonymous: "no tier has room for a visitor without a basket",
	stage.Known:     "no tier has room for a visitor without a basket",
	stage.Protected: "no tier had room in the time for which visitors with a basket wait",
}

// later is the error for a visitor who is to come back in about d: never sooner, and not with the others.
func (s *Stage) later(d time.Duration) *stage.Error {
	seconds := d.Seconds() * (1 + spread*rand.Float64()/100)
	return s.full[min(max(int(seconds+0.5), 1), len(s.full))-1]
}
