//go:build !race

package balance

// racing says that the race detector is on, under which sync.Pool drops values by chance.
const racing = false
