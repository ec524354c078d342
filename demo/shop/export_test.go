package shop

import (
	"context"
	"time"
)

// SweepBaskets lets tests sweep without waiting for the timer.
func (s *Shop) SweepBaskets(ctx context.Context, before time.Time, keep int) (int64, error) {
	return s.store.sweepBaskets(ctx, before, keep)
}
