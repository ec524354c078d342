package cache

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/relais-edge/relais/internal/edge/cache/purge"
)

// brokenLog is one whose disk fails while broken says so.
type brokenLog struct {
	purge.Log
	broken atomic.Bool
}

func (l *brokenLog) Sync(ctx context.Context, number uint64) error {
	if l.broken.Load() {
		return errors.New("no space left on device")
	}
	return l.Log.Sync(ctx, number)
}

func TestPurgesThatAreNotKeptAreSaidOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		log := &brokenLog{Log: purge.NewMemory(16)}
		s := newStage(t, Config{Purges: log, Logger: slog.New(slog.NewTextHandler(&out, nil))})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- s.Run(ctx) }()
		said := func(broken bool) int {
			log.broken.Store(broken)
			time.Sleep(5 * time.Second)
			synctest.Wait()
			return strings.Count(out.String(), "no space left on device")
		}
		if n := said(false); n != 0 {
			t.Errorf("%d lines of a log that works", n)
		}
		if n := said(true); n != 1 {
			t.Errorf("%d lines of one that fails", n)
		}
		said(false)
		if n := said(true); n != 2 {
			t.Errorf("%d lines when it fails again", n)
		}
		said(false)
		cancel()
		if err := <-done; err != nil {
			t.Errorf("the end is an error: %v", err)
		}
	})
}
