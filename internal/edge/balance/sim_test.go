package balance

import (
	"fmt"
	"math/rand/v2"
	"time"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/observe"
	"github.com/relais-edge/relais/internal/stage"
	"github.com/relais-edge/relais/internal/virtual"
)

// This file is a world in virtual time around the real Pick, paced and Release: edges of
// unequal traffic, visitors who fill baskets and order, and tiers of servers with slots and a
// queue each. A run is decided by its seed.

const (
	ms     = int64(time.Millisecond)
	second = int64(time.Second)
)

// scene is what happens in a run. Rates are requests a second of all edges together.
type scene struct {
	name     string
	shares   []float64             // of the edges
	rate     func(t int64) float64 // offered
	peak     float64               // bounds rate
	tiers    []simTier
	service  func(r *rand.Rand) float64 // time in ns of a request at full speed
	seed     uint64
	warm     int64 // nothing is measured before
	from, to int64 // the spike or the trouble
	end      int64
	events   []simEvent
	mend     func(*v1.OriginPoolSpec) // changes the pool
	rule     rule                     // nil is the product's own
	patience int64
	reports  func(inFlight int64, slots int) (Load, bool) // what origins say
	clocks   int64                                        // between the clocks of edges
}

type simTier struct {
	name           string
	servers, slots int
	rtt            int64
}

type simEvent struct {
	at int64
	do func(w *world)
}

// rule stands in for the product's limiter, to compare others with it.
type rule interface {
	answered(edge int, tier *tier, start, now int64)
	tick(w *world, edge int, now int64)
}

const (
	evArrive = iota
	evAtServer
	evDone
	evAnswer
	evRefused
	evGiveUp
	evTick
	evAgain
	evCheck
	evHappen
)

type simServer struct {
	tier    int
	address string
	up      bool
	away    bool    // it is up, and no check has seen it
	slow    float64 // factor
	epoch   int32   // of a crash
	virtual.Line
}

type simVisitor struct {
	id     uint64
	step   int
	buys   bool
	basket string // tier
	edge   int
}

type simRequest struct {
	visitor  int32
	edge     int32
	server   int32
	tries    int32 // of the visitor
	attempts int32 // of the edge in this try
	epoch    int32
	start    int64 // of the try
	first    int64 // of the visitor
	slot     Slot
	held     bool
	answered bool
	gone     bool // the visitor gave up
	order    bool
	tried    Tried
	refs     int8
	gen      int16
	said     int64 // in flight at the server, when it answered
}

type simEdge struct {
	*Pool
	checks *checks
	alive  bool
	idle   []int32 // visitors who think
}

type reply struct {
	at, took int64
	tier     int8
	ok       bool
}

type world struct {
	scene
	rng       *rand.Rand
	now       int64
	q         virtual.Events
	servers   []simServer
	byAddress map[string]int32
	edges     []*simEdge
	visitors  []simVisitor
	freeV     []int32
	requests  []simRequest
	freeR     []int32
	nextID    uint64

	samples []reply
	busy    []int64 // slot-ns in [from, to) by tier
	live    []int64
	lastAt  int64
	nBusy   []int64
	nLive   []int64
	healthy int64 // busy slot-ns of servers that are not slow, home
	hSlots  int64
	nHB     int64
	nHS     int64

	spilledEarly, early                   int
	sentOn, wasted                        int
	orders, lost, baskets, refusedBaskets int
	basketMoved                           int
	refusedAll                            int
	after, afterOn                        int
}

func newWorld(s scene) *world {
	if s.shares == nil {
		s.shares = []float64{.4, .3, .2, .1}
	}
	if s.patience == 0 {
		s.patience = 2 * second
	}
	w := &world{scene: s, rng: rand.New(rand.NewPCG(s.seed, 7)), byAddress: map[string]int32{}, now: second}
	for i, t := range s.tiers {
		for k := range t.servers {
			a := fmt.Sprintf("%s-%d:80", t.name, k)
			w.byAddress[a] = int32(len(w.servers))
			w.servers = append(w.servers, simServer{tier: i, address: a, up: true, slow: 1})
		}
	}
	w.busy, w.live = make([]int64, len(s.tiers)), make([]int64, len(s.tiers))
	w.nBusy, w.nLive = make([]int64, len(s.tiers)), make([]int64, len(s.tiers))
	for i, t := range s.tiers {
		w.nLive[i] = int64(t.servers * t.slots)
	}
	w.nHS = w.nLive[0]
	for i := range s.shares {
		w.addEdge()
		w.q.Push(virtual.Event{At: second + int64(i), Kind: evArrive, ID: int32(i)})
	}
	for i, e := range s.events {
		w.q.Push(virtual.Event{At: second + e.at, Kind: evHappen, ID: int32(i)})
	}
	w.q.Push(virtual.Event{At: second + int64(tick), Kind: evTick})
	w.q.Push(virtual.Event{At: second + 500*ms, Kind: evCheck})
	return w
}

func (w *world) spec() *v1.OriginPoolSpec {
	tiers := make([]v1.Tier, len(w.tiers))
	for i, t := range w.tiers {
		tiers[i] = tierSpec(t.name, t.servers, 0, 0)
	}
	p := poolSpec(v1.LeastRequest, tiers...)
	p.Health.Passive.MaxEjected = new(v1.Percent(100))
	if w.mend != nil {
		w.mend(p)
	}
	return p
}

func (w *world) addEdge() {
	m := newMetrics(observe.New())
	origins := &fakeOrigins{}
	e := &simEdge{checks: newChecks(origins, m.checks), alive: true}
	e.Pool = newPool("org/pool", func() int64 { return w.now }, origins, m)
	e.Pool.counters = m.pool("org/pool")
	if err := e.update(w.spec(), e.checks); err != nil {
		panic(err)
	}
	w.edges = append(w.edges, e)
}

func (w *world) run() {
	for len(w.q) > 0 {
		e := w.q.Pop()
		if e.At-second > w.end {
			return
		}
		w.account(e.At)
		w.now = e.At
		switch e.Kind {
		case evArrive:
			w.arrive(int(e.ID))
		case evAtServer:
			w.atServer(e.ID)
		case evDone:
			if e.Gen == w.requests[e.ID].gen {
				w.done(e.ID)
			}
		case evAnswer:
			w.answer(e.ID)
		case evRefused:
			w.refusedBy(e.ID)
		case evGiveUp:
			w.giveUp(e.ID)
		case evAgain:
			w.send(e.ID)
		case evHappen:
			w.events[e.ID].do(w)
		case evTick:
			for i, e := range w.edges {
				if w.rule != nil {
					w.rule.tick(w, i, w.now)
				} else {
					e.observe(w.now, w.now+w.skew(i))
				}
			}
			w.q.Push(virtual.Event{At: w.now + int64(tick), Kind: evTick})
		case evCheck:
			w.check()
			w.q.Push(virtual.Event{At: w.now + second, Kind: evCheck})
		}
	}
}

// homeFree says that a fifth of home's slots is free, of those that are as quick as ever and that
// health has not put aside.
func (w *world) homeFree() bool {
	if w.nHS == 0 {
		return float64(w.nBusy[0]) < 0.8*float64(w.nLive[0])
	}
	return float64(w.nHB) < 0.8*float64(w.nHS)
}

// skew is how wrong an edge's clock is.
func (w *world) skew(edge int) int64 { return w.clocks * int64(edge) }

func (w *world) account(at int64) {
	a, b := max(w.lastAt, w.from), min(at-second, w.to)
	if b > a {
		for i := range w.busy {
			w.busy[i] += w.nBusy[i] * (b - a)
			w.live[i] += w.nLive[i] * (b - a)
		}
		w.healthy += w.nHB * (b - a)
		w.hSlots += w.nHS * (b - a)
	}
	w.lastAt = at - second
}

// arrive is a request of somebody at an edge. When an edge is gone its visitors come elsewhere.
func (w *world) arrive(edge int) {
	gap := w.rng.ExpFloat64() / (w.peak * w.shares[edge]) * 1e9
	w.q.Push(virtual.Event{At: w.now + max(1, int64(gap)), Kind: evArrive, ID: int32(edge)})
	if w.rng.Float64()*w.peak > w.rate(w.now-second) {
		return
	}
	at := edge
	for !w.edges[at].alive {
		at = (at + 1 + w.rng.IntN(len(w.edges))) % len(w.edges)
	}
	e := w.edges[at]
	var v int32
	if n := len(e.idle); n > 200 && w.rng.Float64() > 0.15 {
		i := w.rng.IntN(n)
		v = e.idle[i]
		e.idle[i] = e.idle[n-1]
		e.idle = e.idle[:n-1]
	} else {
		v = w.newVisitor(at)
	}
	w.visitors[v].edge = at
	id := w.newRequest()
	r := &w.requests[id]
	r.visitor, r.edge, r.first = v, int32(at), w.now
	r.order = w.visitors[v].buys && w.visitors[v].step == 8
	w.send(id)
}

func (w *world) newVisitor(edge int) int32 {
	w.nextID++
	v := simVisitor{id: mix(w.nextID), edge: edge, buys: w.rng.Float64() < 0.3}
	if w.rng.Float64() < 0.1 {
		v.step = w.rng.IntN(4)
	}
	if n := len(w.freeV); n > 0 {
		i := w.freeV[n-1]
		w.freeV = w.freeV[:n-1]
		w.visitors[i] = v
		return i
	}
	w.visitors = append(w.visitors, v)
	return int32(len(w.visitors) - 1)
}

func (w *world) newRequest() int32 {
	if n := len(w.freeR); n > 0 {
		i := w.freeR[n-1]
		w.freeR = w.freeR[:n-1]
		w.requests[i] = simRequest{gen: w.requests[i].gen}
		return i
	}
	w.requests = append(w.requests, simRequest{})
	return int32(len(w.requests) - 1)
}

func (v *simVisitor) class() stage.Class {
	switch {
	case v.basket != "":
		return stage.Protected
	case v.step >= 3:
		return stage.Known
	}
	return stage.Anonymous
}

// send is a try of a visitor.
func (w *world) send(id int32) {
	r := &w.requests[id]
	v := &w.visitors[r.visitor]
	for !w.edges[r.edge].alive {
		r.edge = int32(w.rng.IntN(len(w.edges)))
	}
	r.start, r.tries, r.attempts = w.now, r.tries+1, 0
	r.answered, r.gone, r.epoch = false, false, -1
	r.tried.reset()
	if v.class() == stage.Protected {
		w.baskets++
	}
	w.q.Push(virtual.Event{At: w.now + w.patience, Kind: evGiveUp, ID: id})
	r.refs = 1
	w.try(id)
}

func (w *world) try(id int32) {
	r := &w.requests[id]
	v := &w.visitors[r.visitor]
	s, err := w.edges[r.edge].Pick(Visitor{Class: v.class(), Key: v.id, Tier: v.basket, Hash: v.id, Now: w.now}, &r.tried)
	if err != nil {
		w.refusedAll++
		w.edges[r.edge].history.away[v.class()].Add(1)
		if v.class() == stage.Protected {
			w.refusedBaskets++
		}
		r.answered = true
		w.ended(id, false, 0)
		return
	}
	if v.basket != "" && s.Tier() != v.basket {
		w.basketMoved++
	}
	s.count(w.edges[r.edge].view.Load())
	r.slot, r.held = s, true
	r.server, r.epoch = w.byAddress[s.Address()], -1
	if t := w.now - second; t < w.from && t >= w.warm {
		w.early++
		if s.at > 0 {
			w.spilledEarly++
		}
	} else if t >= w.from+3*second && t < w.to && s.at > 0 {
		w.sentOn++
		if w.homeFree() {
			w.wasted++
		}
	} else if t >= w.to+5*second {
		w.after++
		if s.at > 0 {
			w.afterOn++
		}
	}
	srv := &w.servers[r.server]
	r.refs++
	w.q.Push(virtual.Event{At: w.now + w.tiers[srv.tier].rtt/2, Kind: evAtServer, ID: id})
}

func (w *world) atServer(id int32) {
	r := &w.requests[id]
	s := &w.servers[r.server]
	if !s.up {
		w.q.Push(virtual.Event{At: w.now + w.tiers[s.tier].rtt/2, Kind: evRefused, ID: id})
		return
	}
	r.epoch = s.epoch
	if s.Enter(id, w.tiers[s.tier].slots) {
		w.count(s, 1)
		w.begin(s, id)
	}
}

// count notes that a slot is in use, or free.
func (w *world) count(s *simServer, d int64) {
	w.nBusy[s.tier] += d
	if s.tier == 0 && s.slow == 1 {
		w.nHB += d
	}
}

func (w *world) begin(s *simServer, id int32) {
	r := &w.requests[id]
	r.gen++
	w.q.Push(virtual.Event{At: w.now + max(1, int64(w.service(w.rng)*s.slow)), Kind: evDone, Gen: r.gen, ID: id})
}

func (w *world) done(id int32) {
	r := &w.requests[id]
	s := &w.servers[r.server]
	r.epoch, r.said = -1, int64(s.Len())
	w.q.Push(virtual.Event{At: w.now + w.tiers[s.tier].rtt/2, Kind: evAnswer, ID: id})
	if next, ok := s.Leave(); ok {
		w.begin(s, next)
	} else {
		w.count(s, -1)
	}
}

func (w *world) release(r *simRequest, o Outcome) {
	if r.held {
		r.held = false
		r.slot.Release(o)
	}
}

func (w *world) answer(id int32) {
	r := &w.requests[id]
	s := &w.servers[r.server]
	if r.held {
		if w.rule != nil {
			w.rule.answered(int(r.edge), r.slot.tier, r.slot.began, w.now)
		} else {
			r.slot.paced(w.now)
			if w.reports != nil {
				if l, ok := w.reports(r.said, w.tiers[s.tier].slots); ok {
					r.slot.Reported(l, w.now)
				}
			}
		}
	}
	w.release(r, Succeeded)
	if !r.gone {
		r.answered = true
		w.samples = append(w.samples, reply{r.start - second, w.now - r.start, int8(s.tier), true})
		w.ended(id, true, s.tier)
	}
	w.unref(id)
}

// refusedBy is a connection that failed: the edge tries elsewhere.
func (w *world) refusedBy(id int32) {
	r := &w.requests[id]
	if r.held {
		r.tried.add(r.slot.origin)
	}
	w.release(r, Failed)
	if !r.gone {
		if r.attempts++; r.attempts <= 3 {
			w.try(id)
		} else {
			r.answered = true
			w.ended(id, false, 0)
		}
	}
	w.unref(id)
}

// giveUp is the end of a visitor's patience. The server works on.
func (w *world) giveUp(id int32) {
	r := &w.requests[id]
	if !r.answered {
		r.gone = true
		w.release(r, Abandoned)
		w.samples = append(w.samples, reply{r.start - second, w.patience, -1, false})
		w.ended(id, false, 0)
	}
	w.unref(id)
}

// unref frees a request that no event knows any more.
func (w *world) unref(id int32) {
	r := &w.requests[id]
	if r.refs--; r.refs == 0 && r.visitor < 0 {
		w.freeR = append(w.freeR, id)
	}
}

// ended is what a visitor does after an answer, or without one.
func (w *world) ended(id int32, ok bool, tier int) {
	r := &w.requests[id]
	v := &w.visitors[r.visitor]
	protected := v.class() == stage.Protected
	if !ok && protected && r.tries < 3 {
		again := w.newRequest()
		r = &w.requests[id] // it may have moved
		n := &w.requests[again]
		n.visitor, n.edge, n.first, n.tries, n.order = r.visitor, r.edge, r.first, r.tries, r.order
		w.q.Push(virtual.Event{At: w.now + second + w.rng.Int64N(2*second), Kind: evAgain, ID: again})
		r.visitor = -1
		return
	}
	vi := r.visitor
	if r.order {
		w.orders++
		if !ok {
			w.lost++
		}
	} else if !ok && protected {
		w.refusedBaskets++
	}
	r.visitor = -1
	v.step++
	switch {
	case v.step == 6 && v.buys && ok:
		v.basket = w.tiers[tier].name
	case v.step >= 9 || v.step >= 6 && !v.buys:
		w.freeV = append(w.freeV, vi)
		return
	}
	w.edges[v.edge].idle = append(w.edges[v.edge].idle, vi)
}
