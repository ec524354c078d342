//go:build race

package flood

import "time"

// The race detector makes the tests ten times as slow, and looks for something else than their figures.
const (
	many     = 50_000
	eventFor = 16 * time.Second
	shapes   = 1
	replays  = 1
)
