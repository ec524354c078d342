package edge

import (
	"context"
	"errors"
	"io"

	"github.com/relais-edge/relais/internal/bundle"
	"github.com/relais-edge/relais/internal/edge/record"
	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/observe"
	"github.com/relais-edge/relais/internal/stage"
)

// keep makes the keeper of requests, where there is to be one.
func (e *Edge) keep(cfg *record.KeeperConfig, m *observe.Registry) error {
	if cfg == nil {
		return nil
	}
	k, err := record.NewKeeper(slotRecord, *cfg, m)
	if err != nil {
		return err
	}
	e.keeper = k
	e.recorder.Keep(k)
	return nil
}

// tap is the keeper's stage, or one that does nothing.
func (e *Edge) tap() stage.Stage {
	if e.keeper == nil {
		return through{}
	}
	return e.keeper.Tap()
}

// through is a stage that does nothing.
type through struct{}

// Name implements stage.Stage.
func (through) Name() string { return "through" }

// Serve implements stage.Stage.
func (through) Serve(ctx context.Context, x *stage.Exchange, next stage.Handler) (*message.Response, error) {
	return next.Serve(ctx, x)
}

// ErrNoRecord says that this edge keeps no requests.
var ErrNoRecord = errors.New("this edge keeps no requests; start it with --record")

// ExportRecord writes the requests that were kept, as NDJSON: of one organization, or of all when it is empty.
func (e *Edge) ExportRecord(w io.Writer, organization string) error {
	if e.keeper == nil {
		return ErrNoRecord
	}
	return e.keeper.Export(w, organization)
}

// SetRevision names the documents that are in service, for explanations and records.
func (e *Edge) SetRevision(name string) { e.recorder.SetRevision(name) }

// Bundle gives what is in service, without certificates and their keys; nil before the first documents.
func (e *Edge) Bundle() *bundle.Bundle {
	e.apply.Lock()
	defer e.apply.Unlock()
	if e.bundle == nil {
		return nil
	}
	b := *e.bundle
	b.Certificates = nil
	return &b
}
