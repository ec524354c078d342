package waf

import (
	"hash/maphash"
	"net/netip"
	"runtime"
	"sync"
	"time"

	"github.com/relais-edge/relais/internal/observe"
)

// A source may use an eighth of the CPUs for its evaluations, and defaultBurst of time at once.
const (
	sourceShare  = 8
	defaultBurst = 5 * time.Second
)

// Sources that are kept count of: sets of some each, as in a CPU's cache.
const (
	budgetSets = 4096
	budgetWays = 4
)

// budgets keep count of the CPU time that evaluations take, by source, so that who sends what cannot
// be proved clean does not take the time of all (GCRA, in time of evaluations).
type budgets struct {
	seed  maphash.Seed
	epoch time.Time
	burst time.Duration
	cpus  time.Duration
	lost  observe.Counter // sources that gave their place to another while they owed something

	mu   sync.Mutex
	sets [][budgetWays]account
}

// account is what a source owes: from epoch on until paid.
type account struct {
	key  uint64 // 0: nobody's
	paid time.Duration
}

func newBudgets(burst time.Duration, lost observe.Counter) *budgets {
	if burst <= 0 {
		burst = defaultBurst
	}
	return &budgets{
		seed: maphash.MakeSeed(), epoch: time.Now(), burst: burst, cpus: time.Duration(runtime.GOMAXPROCS(0)),
		lost: lost, sets: make([][budgetWays]account, budgetSets),
	}
}

// source is whose budget an address uses: that of an IPv4 address, or of an IPv6 /64.
func (b *budgets) source(a netip.Addr) uint64 {
	a = a.Unmap()
	if a.Is6() {
		if p, err := a.Prefix(64); err == nil {
			a = p.Addr()
		}
	}
	raw := a.As16()
	return maphash.Bytes(b.seed, raw[:]) | 1
}

// over says whether a source has used more than its budget at a time since the epoch.
func (b *budgets) over(source uint64, now time.Duration) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, a := range b.sets[source>>1%budgetSets] {
		if a.key == source {
			return a.paid-now > b.burst*sourceShare/b.cpus
		}
	}
	return false
}

// use takes the CPU time of an evaluation from a source's budget.
func (b *budgets) use(source uint64, now, took time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	set := &b.sets[source>>1%budgetSets]
	a := &set[0]
	for i := range set {
		if set[i].key == source {
			a = &set[i]
			break
		}
		if set[i].paid < a.paid { // who owes least gives way
			a = &set[i]
		}
	}
	if a.key != source {
		if a.paid > now {
			b.lost.Inc()
		}
		*a = account{key: source}
	}
	a.paid = max(a.paid, now) + max(took, 0)*sourceShare/b.cpus
}

// now is the time since the epoch.
func (b *budgets) now() time.Duration { return time.Since(b.epoch) }
