//go:build race

package screen

// raced says that the race detector is on: sync.Pool then forgets at random.
const raced = true
