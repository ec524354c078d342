package balance

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/observe"
)

const (
	// lookupTimeout bounds one look at a name, warmTimeout those that a change of documents waits for.
	lookupTimeout = 5 * time.Second
	warmTimeout   = 3 * time.Second
	// warmAtOnce is how many looks a change makes at once.
	warmAtOnce = 32
	// maxFound bounds the origins of one name.
	maxFound = 1000
)

var errNothing = errors.New("the name resolves to nothing")

// names are the names of origins that DNS is asked for again and again. Pools that ask the same share one.
type names struct {
	origins Origins
	checks  *checks
	counter *observe.Family[observe.Counter]
	wake    chan struct{} // one token: something was added or removed

	mu    sync.Mutex
	byKey map[string]*lookup
}

// lookup is a name and what was found. All but the first four are guarded by names.mu.
type lookup struct {
	key       string
	origin    v1.Origin
	resolvers []string
	interval  time.Duration

	users map[*Pool]bool
	found []v1.Origin // of the last look that found something
	err   error       // of the last look
	done  bool        // it was looked at
}

func newNames(origins Origins, checks *checks, counter *observe.Family[observe.Counter]) *names {
	return &names{origins: origins, checks: checks, counter: counter, wake: make(chan struct{}, 1), byKey: map[string]*lookup{}}
}

// each calls f for each origin of spec that DNS is asked for.
func (n *names) each(spec *v1.OriginPoolSpec, f func(o *v1.Origin, key string)) {
	if n == nil || spec == nil {
		return
	}
	for i := range spec.Tiers {
		for j := range spec.Tiers[i].Origins {
			if o := &spec.Tiers[i].Origins[j]; o.Expand || o.SRV != "" {
				f(o, lookupKey(o, spec))
			}
		}
	}
}

func lookupKey(o *v1.Origin, spec *v1.OriginPoolSpec) string {
	b, _ := json.Marshal(struct {
		A, S string
		R    []string
		I    v1.Duration
	}{o.Address, o.SRV, spec.Connection.Resolvers, spec.Discovery.Interval}) // plain data: it cannot fail
	return string(b)
}

// get finds or makes a lookup. The lock is held.
func (n *names) get(o *v1.Origin, key string, spec *v1.OriginPoolSpec) *lookup {
	l := n.byKey[key]
	if l == nil {
		l = &lookup{
			key: key, origin: v1.Origin{Address: o.Address, Expand: o.Expand, SRV: o.SRV},
			resolvers: spec.Connection.Resolvers, interval: max(spec.Discovery.Interval.Std(), time.Second), users: map[*Pool]bool{},
		}
		n.byKey[key] = l
	}
	return l
}

// join has the names of spec looked at for p.
func (n *names) join(p *Pool, spec *v1.OriginPoolSpec) {
	n.each(spec, func(o *v1.Origin, key string) {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.get(o, key, spec).users[p] = true
		n.nudge()
	})
}

// leave gives back what p has and spec does not name; with a nil spec all.
func (n *names) leave(p *Pool, spec *v1.OriginPoolSpec) {
	if n == nil {
		return
	}
	keep := map[string]bool{}
	n.each(spec, func(_ *v1.Origin, key string) { keep[key] = true })
	n.mu.Lock()
	defer n.mu.Unlock()
	for key, l := range n.byKey {
		if l.users[p] && !keep[key] {
			if delete(l.users, p); len(l.users) == 0 {
				delete(n.byKey, key)
				n.nudge()
			}
		}
	}
}

// prune forgets what was looked at for documents that did not come into service.
func (n *names) prune() {
	n.mu.Lock()
	defer n.mu.Unlock()
	maps.DeleteFunc(n.byKey, func(_ string, l *lookup) bool { return len(l.users) == 0 })
}

// of returns what is known of a name.
func (n *names) of(o *v1.Origin, spec *v1.OriginPoolSpec) []v1.Origin {
	if n == nil {
		return nil
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if l := n.byKey[lookupKey(o, spec)]; l != nil {
		return l.found
	}
	return nil
}

func (n *names) nudge() {
	select {
	case n.wake <- struct{}{}:
	default:
	}
}

// warm looks at the names of specs that were never looked at.
func (n *names) warm(ctx context.Context, specs []*v1.OriginPoolSpec) {
	ctx, cancel := context.WithTimeout(ctx, warmTimeout)
	defer cancel()
	var wg sync.WaitGroup
	defer wg.Wait()
	places := make(chan struct{}, warmAtOnce)
	for _, spec := range specs {
		n.each(spec, func(o *v1.Origin, key string) {
			n.mu.Lock()
			l := n.get(o, key, spec)
			done := l.done
			n.mu.Unlock()
			if done {
				return
			}
			places <- struct{}{}
			wg.Go(func() {
				defer func() { <-places }()
				n.look(ctx, l)
			})
		})
	}
}

// look asks DNS once and says whether something else was found than before. What was found stays when
// the name cannot be resolved, or resolves to nothing: an empty answer is a fault more often than a wish.
func (n *names) look(ctx context.Context, l *lookup) (changed bool) {
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	found, err := n.origins.Resolve(ctx, &l.origin, l.resolvers)
	if err == nil && len(found) == 0 {
		err = errNothing
	}
	slices.SortFunc(found, func(a, b v1.Origin) int { return strings.Compare(a.Address, b.Address) })
	if len(found) > maxFound {
		found = found[:maxFound]
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	result := "same"
	if l.done, l.err = true, err; err != nil {
		result = "failed"
	} else if changed = !slices.EqualFunc(l.found, found, sameFound); changed {
		l.found, result = found, "changed"
	}
	n.counter.With(result).Inc()
	return changed
}

func sameFound(a, b v1.Origin) bool {
	return a.Address == b.Address && v1.Value(a.Weight) == v1.Value(b.Weight)
}

// run keeps one goroutine for each name until ctx ends.
func (n *names) run(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	running := map[*lookup]context.CancelFunc{}
	for {
		wanted := map[*lookup]bool{}
		n.mu.Lock()
		for _, l := range n.byKey {
			wanted[l] = len(l.users) > 0
		}
		n.mu.Unlock()
		for l, yes := range wanted {
			if yes && running[l] == nil {
				lctx, cancel := context.WithCancel(ctx)
				running[l] = cancel
				wg.Go(func() { n.watch(lctx, l) })
			}
		}
		for l, cancel := range running {
			if !wanted[l] {
				cancel()
				delete(running, l)
			}
		}
		select {
		case <-ctx.Done():
			for _, cancel := range running {
				cancel()
			}
			return
		case <-n.wake:
		}
	}
}

// watch looks at one name again and again: at once when it never was, and soon again while nothing was found.
func (n *names) watch(ctx context.Context, l *lookup) {
	for {
		n.mu.Lock()
		wait, none, done := l.interval, len(l.found) == 0, l.done
		n.mu.Unlock()
		switch {
		case !done:
			wait = 0
		case none:
			wait = min(wait, time.Second)
		}
		if wait > 0 {
			wait = wait*9/10 + rand.N(wait/5+1)
		}
		if !sleep(ctx, wait) {
			return
		}
		if n.look(ctx, l) && ctx.Err() == nil {
			n.tell(l)
		}
	}
}

// tell has every pool with this name take what was found.
func (n *names) tell(l *lookup) {
	n.mu.Lock()
	users := slices.Collect(maps.Keys(l.users))
	n.mu.Unlock()
	for _, p := range users {
		if err := p.found(n.checks); err != nil {
			n.mu.Lock()
			l.err = err
			n.mu.Unlock()
		}
	}
}

// status says what the names of a pool are.
func (n *names) status(p *Pool) (list []NameStatus) {
	if n == nil {
		return nil
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, l := range n.byKey {
		if !l.users[p] {
			continue
		}
		s := NameStatus{Name: l.origin.Address + l.origin.SRV, Found: len(l.found)}
		if l.err != nil {
			s.Error = l.err.Error()
		}
		list = append(list, s)
	}
	slices.SortFunc(list, func(a, b NameStatus) int { return strings.Compare(a.Name, b.Name) })
	return list
}
