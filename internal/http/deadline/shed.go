package deadline

import "time"

// Shed is in what state a connection was that a server has ended to have room for another.
type Shed uint8

// What can be shed, in the order in which it is.
const (
	ShedNothing Shed = iota
	ShedIdle         // a connection between requests
	ShedSilent       // one on which no whole request has come yet
)

// String names the state, as metrics do.
func (s Shed) String() string { return [...]string{"nothing", "idle", "silent"}[s] }

// How many connections are looked at for one to shed, and how many that could go are enough to
// choose from.
const (
	ShedLook  = 1024
	ShedFound = 32
	// ShedYoung spares a connection that is waited for, for so short a time, for its first request.
	ShedYoung = time.Second
)
