package balance

import (
	"context"
	"encoding/json"
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
	users  map[*Pool]int          // guarded by checks.mu
}

func newChecks(origins Origins, counter *observe.Family[observe.Counter]) *checks {
	return &checks{origins: origins, counter: counter, wake: make(chan struct{}, 1), byKey: map[string]*check{}}
}

// join finds or makes the check of an origin of p; nil when p has none. The pool's lock is held.
func (c *checks) join(p *Pool, o *origin) *check {
	spec := &p.spec.Health
	if spec.Path == "" && !spec.Connect && spec.GRPC == nil {
		return nil
	}
	key := checkKey(p, o)
	c.mu.Lock()
	defer c.mu.Unlock()
	k := c.byKey[key]
	if k == nil {
		k = &check{key: key, target: o.target(), host: spec.Host, spec: *spec, users: map[*Pool]int{}}
		if k.host == "" {
			k.host = checkHost(o.host)
		}
		k.up.Store(true) // until it is known to be otherwise
		c.byKey[key] = k
		c.nudge()
	}
	k.users[p]++
	return k
}

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

// leave gives a check back; the last one ends it. K may be nil.
func (c *checks) leave(k *check, p *Pool) {
	if k == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if k.users[p]--; k.users[p] == 0 {
		delete(k.users, p)
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
		if c.probe(ctx, k) {
			good, bad = good+1, 0
		} else {
			good, bad = 0, bad+1
		}
		if ctx.Err() != nil {
			return
		}
		if up := k.up.Load(); up && bad >= k.spec.UnhealthyAfter || !up && good >= k.spec.HealthyAfter {
			k.up.Store(!up)
			c.tell(k)
		}
		timer.Reset(interval*9/10 + rand.N(interval/5+1))
	}
}

// probe says whether the origin passed its check.
func (c *checks) probe(ctx context.Context, k *check) bool {
	pctx, cancel := context.WithTimeout(ctx, k.spec.Timeout.Std())
	defer cancel()
	err := c.origins.Probe(pctx, k.target, k.host, &k.spec)
	if err == nil {
		k.why.Store(nil)
	} else {
		why := err.Error()
		k.why.Store(&why)
	}
	if ctx.Err() == nil {
		c.counter.With(checkResult(err == nil)).Inc()
	}
	return err == nil
}

func checkResult(ok bool) string {
	if ok {
		return "ok"
	}
	return "failed"
}

// tell has every pool with this check look again.
func (c *checks) tell(k *check) {
	c.mu.Lock()
	users := slices.Collect(maps.Keys(k.users))
	c.mu.Unlock()
	for _, p := range users {
		p.refresh(p.clock())
	}
}
