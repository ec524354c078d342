package balance

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/observe"
	"github.com/relais-edge/relais/internal/stage"
)

// checks are the active health checks of all pools. Pools of one organization that ask the same
// of the same address share one.
type checks struct {
	origins Origins
	counter *observe.Family[observe.Counter]
	wake    chan struct{} // one token: something was added or removed

	mu    sync.Mutex
	byKey map[string]*check
}

// check is the active health check of one address.
type check struct {
	key    string
	target stage.Target
	host   string
	spec   v1.HealthSpec
	up     atomic.Bool
	why    atomic.Pointer[string] // the last check failed; nil when it did not
	waived atomic.Uint64          // of its checks, those that timed out while visitors had their answers
	users  map[user]int           // guarded by checks.mu
}

// user is who has a check: an origin of a pool.
type user struct {
	pool   *Pool
	origin *origin
}

func newChecks(origins Origins, counter *observe.Family[observe.Counter]) *checks {
	return &checks{origins: origins, counter: counter, wake: make(chan struct{}, 1), byKey: map[string]*check{}}
}

// join finds or makes the check of an origin of p; nil when p has none. The pool's lock is held.
func (c *checks) join(p *Pool, o *origin) *check {
	spec := &p.spec.Health
	if !active(spec) {
		return nil
	}
	key := checkKey(p, o)
	c.mu.Lock()
	defer c.mu.Unlock()
	k := c.byKey[key]
	if k == nil {
		k = &check{key: key, target: o.target(), host: spec.Host, spec: *spec, users: map[user]int{}}
		if k.host == "" {
			k.host = checkHost(o.host)
		}
		k.up.Store(true) // until it is known to be otherwise
		c.byKey[key] = k
		c.nudge()
	}
	k.users[user{p, o}]++
	return k
}

// active says whether spec asks for active checks.
func active(spec *v1.HealthSpec) bool { return spec.Path != "" || spec.Connect || spec.GRPC != nil }

// checkHost is the authority for a check of an address when none was given.
func checkHost(address string) string {
	if _, port, err := net.SplitHostPort(address); err == nil && (port == "80" || port == "443") {
		return strings.TrimSuffix(address, ":"+port)
	}
	return address
}

// checkKey is what an origin is asked, of checkKind, and where.
func checkKey(p *Pool, o *origin) string { return o.address + " " + o.host + " " + p.kind }

// checkKind is what all checks of a pool have in common.
func checkKind(p *Pool) string {
	organization, _ := p.key.Split()
	spec := p.spec.Health
	spec.Passive = v1.PassiveHealth{}
	b, _ := json.Marshal(struct {
		O string
		H v1.HealthSpec
		C *v1.ConnectionSpec
	}{organization, spec, &p.spec.Connection}) // plain data: it cannot fail
	return string(b)
}

// leave gives the check k of an origin of p back; the last one ends it. K may be nil.
func (c *checks) leave(k *check, p *Pool, o *origin) {
	if k == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	u := user{p, o}
	if k.users[u]--; k.users[u] == 0 {
		delete(k.users, u)
	}
	if len(k.users) == 0 {
		delete(c.byKey, k.key)
		c.nudge()
	}
}

func (c *checks) nudge() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// run keeps one goroutine for each check until ctx ends.
func (c *checks) run(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	running := map[*check]context.CancelFunc{}
	for {
		c.mu.Lock()
		now := slices.Collect(maps.Values(c.byKey))
		c.mu.Unlock()
		wanted := make(map[*check]bool, len(now))
		for _, k := range now {
			wanted[k] = true
			if running[k] == nil {
				kctx, cancel := context.WithCancel(ctx)
				running[k] = cancel
				wg.Go(func() { c.watch(kctx, k) })
			}
		}
		for k, cancel := range running {
			if !wanted[k] {
				cancel()
				delete(running, k)
			}
		}
		select {
		case <-ctx.Done():
			for _, cancel := range running {
				cancel()
			}
			return
		case <-c.wake:
		}
	}
}

// An origin that is down is checked so many times as often, though not more often than at soonest: what it could do is
// done elsewhere, or not at all, until it is known to be back.
const (
	downOften = 8
	soonest   = 250 * time.Millisecond
)

// watch checks one address again and again. The first check comes soon, the others at the
// interval, each a little early or late so that many edges do not ask at once.
func (c *checks) watch(ctx context.Context, k *check) {
	interval := k.spec.Interval.Std()
	timer := time.NewTimer(rand.N(min(interval, time.Second)/4 + 1))
	defer timer.Stop()
	good, bad := 0, 0
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		switch c.probe(ctx, k) {
		case votedUp:
			good, bad = good+1, 0
		case votedDown:
			good, bad = 0, bad+1
		case waived:
		}
		if ctx.Err() != nil {
			return
		}
		if up := k.up.Load(); up && bad >= k.spec.UnhealthyAfter || !up && good >= k.spec.HealthyAfter {
			k.up.Store(!up)
			c.tell(k)
		}
		next := interval
		if !k.up.Load() {
			next = max(interval/downOften, min(interval, soonest))
		}
		timer.Reset(next*9/10 + rand.N(next/5+1))
	}
}

// vote is what a check says of its origin.
type vote uint8

const (
	votedUp vote = iota
	votedDown
	waived // it says nothing
)

func (v vote) String() string { return [...]string{"ok", "failed", "waived"}[v] }

// probe checks the origin once. A check that times out waited like a visitor: where visitors had their answers meanwhile, the
// origin has much to do and is not down. To take it out then would send its load to the others, whose checks would wait longer, too.
func (c *checks) probe(ctx context.Context, k *check) vote {
	pctx, cancel := context.WithTimeout(ctx, k.spec.Timeout.Std())
	defer cancel()
	before := c.work(k)
	err := c.origins.Probe(pctx, k.target, k.host, &k.spec)
	result := votedUp
	if err == nil {
		k.why.Store(nil)
	} else {
		why := err.Error()
		if result = votedDown; k.up.Load() && late(err) {
			if served, busy := serves(before); busy {
				result = waived
				k.waived.Add(1)
				why += fmt.Sprintf(" (not counted: %d visitors had their answers meanwhile)", served)
			}
		}
		k.why.Store(&why)
	}
	if ctx.Err() == nil {
		c.counter.With(result.String()).Inc()
	}
	return result
}

// late says whether a check failed because there was no answer in time.
func late(err error) bool {
	var timeout interface{ Timeout() bool }
	var e *stage.Error
	return errors.Is(err, context.DeadlineExceeded) || errors.As(err, &e) && e.Status == 504 ||
		errors.As(err, &timeout) && timeout.Timeout()
}

// work is what an origin had done at a moment.
type work struct {
	origin         *origin
	served, failed uint32
}

// work notes what those who have the check did until now.
func (c *checks) work(k *check) []work {
	c.mu.Lock()
	defer c.mu.Unlock()
	list := make([]work, 0, len(k.users))
	for u := range k.users {
		list = append(list, work{u.origin, u.origin.served.Load(), u.origin.failed.Load()})
	}
	return list
}

const (
	// servesWaiting of those who wait must have been answered at least as often: who waits now then waits for so many
	// timeouts of the check at most. It is more than one since a check begins with a connection of its own.
	servesWaiting = 4
	// servesFailed is of how many answers one may be a fault.
	servesFailed = 10
)

// serves says how many visitors had a good answer since before, and whether that many show that the origin works: a
// quarter of those who wait for one now at least, and less than a tenth as many faults.
func serves(before []work) (served uint32, yes bool) {
	failed, waiting := uint32(0), uint64(0)
	for _, w := range before {
		served += w.origin.served.Load() - w.served
		failed += w.origin.failed.Load() - w.failed
		waiting += w.origin.asked.count()
	}
	return served, served > 0 && uint64(served)*servesWaiting >= waiting && uint64(failed)*servesFailed < uint64(served)
}

// tell has every pool with this check look again.
func (c *checks) tell(k *check) {
	users := map[*Pool]bool{}
	c.mu.Lock()
	for u := range k.users {
		users[u.pool] = true
	}
	c.mu.Unlock()
	for p := range users {
		p.checked(k, p.clock())
	}
}

// checked takes in that an origin's check has turned. One that was down and is back was ejected for what it did when it
// went down, so that ends too.
func (p *Pool) checked(k *check, now int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if k.up.Load() {
		for i := range p.plan {
			for _, m := range p.plan[i].members {
				if m.o.check == k && m.o.ejectedUntil > now {
					m.o.ejectedUntil = now
				}
			}
		}
	}
	p.look(now)
}
