//go:build race

package waf

// raced says that the race detector is on: sync.Pool then forgets at random, and the engine takes
// ten times as long.
const raced = true
