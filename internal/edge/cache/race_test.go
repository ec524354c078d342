//go:build race

package cache

// every is how many combinations of the corpus stand for one that is tried: with the race detector each costs ten
// times as much. It is prime to the lengths of the lists, so that all members meet.
const every = 11
