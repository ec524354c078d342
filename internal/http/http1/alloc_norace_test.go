//go:build !race

package http1

import "testing"

// These count allocations, and under the race detector sync.Pool drops values by chance:
// `make allocs` runs them without it.

func TestHitAllocatesNothing(t *testing.T) {
	for _, size := range []int{0, 1 << 10, 64 << 10} {
		_, addr := listen(t, ServerConfig{}, newHit(size))
		once := exchanger(t, addr, browserGet)
		once()
		if n := testing.AllocsPerRun(200, once); n >= 1 {
			t.Errorf("%d bytes: %v allocations a hit", size, n)
		}
	}
}

func TestProxiedRequestAllocatesNothing(t *testing.T) {
	for _, size := range []int{0, 1 << 10, 64 << 10} {
		_, origin := listen(t, ServerConfig{}, newHit(size))
		_, addr := listen(t, ServerConfig{}, newProxy(t, origin))
		for _, raw := range []string{browserGet, "POST /cart HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc"} {
			once := exchanger(t, addr, raw)
			once()
			if n := testing.AllocsPerRun(200, once); n >= 1 {
				t.Errorf("%d bytes: %v allocations of %.20q and its answer", size, n, raw)
			}
		}
	}
}
