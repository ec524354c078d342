package nats

import (
	"fmt"
	"log/slog"
	"sync"
)

// serverLog brings what the server says to our log, and remembers the first thing that it calls fatal.
type serverLog struct {
	log *slog.Logger

	once  sync.Once
	fatal chan struct{}
	why   string
}

func newServerLog(log *slog.Logger) *serverLog {
	return &serverLog{log: log, fatal: make(chan struct{})}
}

// Noticef, Warnf, Fatalf, Errorf, Debugf and Tracef are what the server calls.
func (l *serverLog) Noticef(format string, v ...any) {
	l.log.Debug("bus: " + fmt.Sprintf(format, v...))
}

func (l *serverLog) Warnf(format string, v ...any) { l.log.Debug("bus: " + fmt.Sprintf(format, v...)) }

func (l *serverLog) Errorf(format string, v ...any) { l.log.Warn("bus: " + fmt.Sprintf(format, v...)) }
func (l *serverLog) Debugf(string, ...any)          {}
func (l *serverLog) Tracef(string, ...any)          {}

// Fatalf ends nothing: whoever started the server is told.
func (l *serverLog) Fatalf(format string, v ...any) {
	l.once.Do(func() {
		l.why = fmt.Sprintf(format, v...)
		close(l.fatal)
	})
}
