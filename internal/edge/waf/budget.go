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

// After vainFrom requests in a row that the screen could not prove clean, a source's requests go to the engine at once, but one
// of vainEvery.
const (
	vainFrom  = 8
	vainEvery = 8
)

// budgets keep count of the CPU time that evaluations take, by source, so that who sends what cannot
// be proved clean does not take the time of all (GCRA, in time of evaluations), and of the requests that
// the screen was asked of in vain.
type budgets struct {
	seed  maphash.Seed
	epoch time.Time
	burst time.Duration
	cpus  time.Duration
	lost  observe.Counter // sources that gave their place to another while they owed something
	sets  []budgetSet
}

type budgetSet struct {
	mu       sync.Mutex
	accounts [budgetWays]account
}

// account is what a source owes: from epoch on until paid.
type account struct {
	key  uint64 // 0: nobody's
	paid time.Duration
	vain uint8 // requests in a row that were not proved clean; from vainFrom on, requests since one was screened
}

func newBudgets(burst time.Duration, lost observe.Counter) *budgets {
	if burst <= 0 {
		burst = defaultBurst
	}
	return &budgets{
		seed: maphash.MakeSeed(), epoch: time.Now(), burst: burst, cpus: time.Duration(runtime.GOMAXPROCS(0)),
		lost: lost, sets: make([]budgetSet, budgetSets),
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

// of is the set in which a source's account is, if it has one.
func (b *budgets) of(source uint64) *budgetSet { return &b.sets[source>>1%budgetSets] }

// find returns a source's account, nil when it has none. The caller holds mu.
func (s *budgetSet) find(source uint64) *account {
	for i := range s.accounts {
		if s.accounts[i].key == source {
			return &s.accounts[i]
		}
	}
	return nil
}

// open returns a source's account, a new one if need be. The caller holds the set's mu.
func (b *budgets) open(set *budgetSet, source uint64, now time.Duration) *account {
	if a := set.find(source); a != nil {
		return a
	}
	a := &set.accounts[0]
	for i := range set.accounts {
		if set.accounts[i].paid < a.paid { // who owes least gives way
			a = &set.accounts[i]
		}
	}
	if a.paid > now {
		b.lost.Inc()
	}
	*a = account{key: source}
	return a
}

// over says whether a source has used more than its budget at a time since the epoch.
func (b *budgets) over(source uint64, now time.Duration) bool {
	set := b.of(source)
	set.mu.Lock()
	defer set.mu.Unlock()
	a := set.find(source)
	return a != nil && b.exceeded(a, now)
}

func (b *budgets) exceeded(a *account, now time.Duration) bool {
	return a.paid-now > b.burst*sourceShare/b.cpus
}

// use takes the CPU time of an evaluation from a source's budget.
func (b *budgets) use(source uint64, now, took time.Duration) {
	set := b.of(source)
	set.mu.Lock()
	defer set.mu.Unlock()
	a := b.open(set, source, now)
	a.paid = max(a.paid, now) + max(took, 0)*sourceShare/b.cpus
}

// vain says that to screen a source's next request is most likely in vain, and whether any was. The first is not said of who is
// over its budget: what of its requests is clean must not wait for an evaluation.
func (b *budgets) vain(source uint64) (next, some bool) {
	set := b.of(source)
	set.mu.Lock()
	defer set.mu.Unlock()
	a := set.find(source)
	switch {
	case a == nil || a.vain < vainFrom:
		return false, a != nil && a.vain > 0
	case b.exceeded(a, b.now()):
		return false, true
	}
	if a.vain++; a.vain == vainFrom+vainEvery {
		a.vain = vainFrom
		return false, true
	}
	return true, true
}

// screened notes whether a source's request was proved clean. Only who sends others has an account.
func (b *budgets) screened(source uint64, clean bool) {
	set := b.of(source)
	set.mu.Lock()
	defer set.mu.Unlock()
	if !clean {
		if a := b.open(set, source, b.now()); a.vain < vainFrom {
			a.vain++
		}
	} else if a := set.find(source); a != nil {
		a.vain = 0
	}
}

// now is the time since the epoch.
func (b *budgets) now() time.Duration { return time.Since(b.epoch) }
