package edge

import (
	"slices"
	"time"

	"github.com/relais-edge/relais/internal/bundle"
	"github.com/relais-edge/relais/internal/edge/balance"
	"github.com/relais-edge/relais/internal/edge/flood"
	"github.com/relais-edge/relais/internal/stage"
)

// Addresses are those on which connections are accepted.
func (e *Edge) Addresses() []string {
	var out []string
	for _, a := range e.listen.Addrs() {
		out = append(out, a.String())
	}
	for _, a := range e.services.Addrs() {
		out = append(out, a.String())
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// Explain implements admin.Explainer.
func (e *Edge) Explain(id stage.RequestID) (any, bool) { return e.ring.Find(id) }

// Recent implements admin.Explainer.
func (e *Edge) Recent(n int) any { return e.ring.Last(n) }

// Load lists what pools had in each minute of the last hour: of the one named, or of all when key is empty.
func (e *Edge) Load(key string) []balance.PoolLoad {
	return e.balance.Load(bundle.Key(key), time.Now().UnixNano())
}

// Pools are how the pools in use are: which origins are well, and why others are not.
func (e *Edge) Pools() []balance.PoolStatus { return e.balance.Status() }

// Flood is the detector of floods, for the engineer on call.
func (e *Edge) Flood() *flood.Stage { return e.flood }

// Totals are counts since the start.
type Totals struct{ Requests, Hits, Spilled, Blocked, Errors uint64 }

// Since returns what was counted after an earlier reading.
func (t Totals) Since(earlier Totals) Totals {
	return Totals{
		t.Requests - earlier.Requests, t.Hits - earlier.Hits, t.Spilled - earlier.Spilled,
		t.Blocked - earlier.Blocked, t.Errors - earlier.Errors,
	}
}

// Totals returns the counts of all sites together.
func (e *Edge) Totals() Totals {
	r := e.recorder
	return Totals{r.Requests.Load(), r.Hits.Load(), r.Spilled.Load(), r.Blocked.Load(), r.Errors.Load()}
}
