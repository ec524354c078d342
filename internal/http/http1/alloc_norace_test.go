//go:build !race

package http1

import (
	"context"
	"testing"

	"github.com/relais-edge/relais/internal/http/message"
)

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

// lentHit answers with a body in a file and reuses its answer.
type lentHit struct {
	filed
	resp message.Response
}

func (h *lentHit) Serve(context.Context, *message.Request) *message.Response {
	h.off = 0
	h.resp.Reset()
	h.resp.Status, h.resp.ContentLength, h.resp.Body = 200, int64(len(h.want)), h
	return &h.resp
}

func TestAHitInAFileAllocatesNothing(t *testing.T) {
	needFiles(t)
	h := &lentHit{filed: filed{shelf: newShelf(t, 64<<10)}}
	h.lead = 3000
	_, addr := listen(t, ServerConfig{}, h)
	once := exchanger(t, addr, browserGet)
	once()
	if n := testing.AllocsPerRun(200, once); n >= 1 {
		t.Errorf("%v allocations a hit", n)
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
