//go:build !race

package cache

// every is how many combinations of the corpus stand for one that is tried.
const every = 1
