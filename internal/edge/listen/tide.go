package listen

import "time"

// When tideStep connections more, or fewer, are open than the last time, and their number has come to rest
// (a tideRest-th of it, or less, in a second), memory is given back: the stacks and buffers of a crowd's
// beginning are no longer needed, and the collector alone leaves them to us for minutes. It costs one collection,
// so at least tidePause lies between two. The first is for what starting has left behind.
const (
	tideStep  = 2048
	tideRest  = 64
	tidePause = 30 * time.Second
)

// tide notices that a crowd of connections has come or gone. It is of one goroutine.
type tide struct {
	settled, last int64 // connections open when memory was given back, and at the last look
	started       bool
	next          time.Time
}

// turned is told once a second how many connections are open, and says whether it is time to give memory back.
func (t *tide) turned(open int64, now time.Time) bool {
	if !t.started {
		t.started = true
		return true
	}
	moved := max(open, t.last) - min(open, t.last)
	t.last = open
	if moved > open/tideRest || max(open, t.settled)-min(open, t.settled) < tideStep || now.Before(t.next) {
		return false
	}
	t.settled, t.next = open, now.Add(tidePause)
	return true
}
