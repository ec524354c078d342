package record

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"sync"
	"time"

	"github.com/relais-edge/relais/internal/observe"
)

// Bounds of the access log in memory.
const (
	flushSize  = 64 << 10
	maxPending = 4 << 20
	flushEvery = 200 * time.Millisecond
)

// Log writes lines to w in batches. A line is never waited for: when the writer is slower
// than the requests, lines are dropped and counted.
type Log struct {
	w       io.Writer
	logger  *slog.Logger
	dropped observe.Counter
	wake    chan struct{}

	mu      sync.Mutex
	pending []byte
}

// NewLog returns a log on w.
func NewLog(w io.Writer, logger *slog.Logger, m *observe.Registry) *Log {
	return &Log{
		w: w, logger: logger, wake: make(chan struct{}, 1),
		dropped: m.Counters("relais_access_log_dropped_total", "Lines of the access log that were dropped because the disk was too slow or full.", 1).With(),
	}
}

// Write appends one line, its end included.
func (l *Log) Write(line []byte) {
	l.mu.Lock()
	if len(l.pending)+len(line) > maxPending {
		l.mu.Unlock()
		l.dropped.Inc()
		return
	}
	l.pending = append(l.pending, line...)
	full := len(l.pending) >= flushSize
	l.mu.Unlock()
	if full {
		select {
		case l.wake <- struct{}{}:
		default:
		}
	}
}

// Run writes until ctx ends, and what is left then.
func (l *Log) Run(ctx context.Context) error {
	tick := time.NewTicker(flushEvery)
	defer tick.Stop()
	var spare, torn []byte
	var failing bool
	for {
		var done bool
		select {
		case <-ctx.Done():
			done = true
		case <-tick.C:
		case <-l.wake:
		}
		l.mu.Lock()
		batch := l.pending
		l.pending = spare[:0]
		l.mu.Unlock()
		if len(batch) > 0 {
			var err error
			if torn, err = l.put(torn, batch); err != nil && !failing {
				l.logger.Error("access log: cannot write; lines are dropped until it can (is the disk full?)", "err", err)
			}
			failing = err != nil
		}
		spare = batch
		if done {
			return context.Cause(ctx)
		}
	}
}

// put writes what is left of a line that a full disk has torn, and a batch. It returns what is left
// of a line then, so that none stays torn, and drops the lines that follow it.
func (l *Log) put(torn, batch []byte) ([]byte, error) {
	if len(torn) > 0 {
		n, err := l.w.Write(torn)
		if torn = torn[n:]; err != nil {
			l.dropped.Add(float64(countLines(batch)))
			return torn, err
		}
	}
	n, err := l.w.Write(batch)
	if err == nil {
		return nil, nil
	}
	rest := batch[n:]
	if n > 0 && batch[n-1] != '\n' {
		end := bytes.IndexByte(rest, '\n') + 1
		torn, rest = bytes.Clone(rest[:end]), rest[end:]
	}
	l.dropped.Add(float64(countLines(rest)))
	return torn, err
}

func countLines(b []byte) (n int) {
	for _, c := range b {
		if c == '\n' {
			n++
		}
	}
	return n
}
