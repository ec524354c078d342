package main

import (
	"context"

	"github.com/relais-edge/relais/internal/pop/spool"
	"github.com/relais-edge/relais/internal/usage"
)

// deliverer is the wire of the drill itself, which says nothing.
type deliverer struct{ wire }

// ship delivers all that a spool has. A gap is a failure here: nothing was ever lost on purpose.
func ship(ctx context.Context, s *spool.Spool, w *deliverer) error {
	for {
		b, err := s.Next(usage.MaxRecords)
		if err != nil || b == nil {
			return err
		}
		if err := w.send(ctx, b); err != nil {
			return err
		}
		if err := s.Acknowledge(b.Spool, b.Last()); err != nil {
			return err
		}
	}
}
