// Package stage is how a request meets the stages of the data plane: the exchange that goes
// down the chain, the answer that comes back up, and the error that knows whose fault it is.
package stage

import (
	"context"

	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/snapshot"
)

// Handler turns an exchange into an answer. Exactly one of the two is not nil.
type Handler interface {
	Serve(ctx context.Context, x *Exchange) (*message.Response, error)
}

// Stage is one step of the chain. It answers, or asks next and may change what comes back.
type Stage interface {
	Name() string
	Serve(ctx context.Context, x *Exchange, next Handler) (*message.Response, error)
}

// Part is what a stage made of a site; nil when the site asks nothing of the stage.
type Part any

// Compiler is a Stage that makes something of a site before it is served.
type Compiler interface {
	// Compile builds the stage's part of a site. Old is its part of the site that ran before,
	// or nil. An error keeps the old site in service.
	Compile(site *snapshot.Site, old Part) (Part, error)
}

type link struct {
	stage Stage
	next  Handler
}

func (l *link) Serve(ctx context.Context, x *Exchange) (*message.Response, error) {
	return l.stage.Serve(ctx, x, l.next)
}

// Chain joins the stages in their order; last answers.
func Chain(last Handler, stages ...Stage) Handler {
	h := last
	for i := len(stages) - 1; i >= 0; i-- {
		h = &link{stages[i], h}
	}
	return h
}
