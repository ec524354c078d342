//go:build race

package balance

// raceDetector makes everything ten times slower.
const raceDetector = true
