//go:build !race

package origin

// racing says that the race detector is on, under which sync.Pool drops values by chance.
const racing = false
