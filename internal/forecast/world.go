package forecast

import (
	"errors"
	"math"
	"math/rand/v2"
	"time"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/edge/balance"
	"github.com/relais-edge/relais/internal/stage"
	"github.com/relais-edge/relais/internal/virtual"
)

// This file is the world in which the balancer's own code is run: visitors of three classes, one edge, and
// tiers of servers with slots, a queue and the recorded times.

const (
	second = int64(time.Second)
	milli  = float64(time.Millisecond)
	// patience is how long a visitor waits for an answer that does not begin. The server works on.
	patience = 5 * second
	// think is the time between two requests of a visitor, and stay how many there are.
	think = 10.0
	stay  = 8
	// refusal is how long it takes to hear that nobody listens at an address.
	refusal = int64(time.Millisecond)
	// maxBudgetWait is how long a retry waits for its budget, as an edge does.
	maxBudgetWait = int64(315 * time.Millisecond)
	manySlots     = math.MaxInt32
)

const (
	evArrive = iota
	evDone
	evRefused
	evGiveUp
	evAgain
	evBudget
	evTick
	evCheck
)

// worldTier is a tier as the world makes it.
type worldTier struct {
	name     string
	median   float64 // ns of a request in a slot
	sigma    float64
	reports  bool // its origins say what they have
	inFlight int64
}

type server struct {
	virtual.Line
	tier    int
	address string
	slots   int
	others  float64 // in flight there from other edges
	up      bool
}

type person struct {
	key  uint64
	tier string // of the basket
}

type request struct {
	slot    balance.Slot
	tried   balance.Tried
	start   int64
	waited  int64 // for the budget
	person  int32
	server  int32
	class   stage.Class
	tries   int8
	again   int8 // tries of the visitor after the first
	held    bool
	gone    bool
	there   bool // at the server
	begun   bool // it has a slot there
	used    bool
	retried bool // takes from the budget
	rested  bool // all were tried once
	gen     int16
}

type world struct {
	rng     *rand.Rand
	now     int64
	q       virtual.Events
	model   *balance.Model
	tiers   []worldTier
	index   map[string]int // of tiers
	servers []server
	at      map[string]int32 // servers by address
	people  [3][]person
	rate    [3]float64 // requests a ns
	batch   int        // requests that a visitor sends at once
	all     float64
	reqs    []request
	free    []int32
	nextKey uint64
	m       *measure // nil while nothing is measured
	down    []string // to be found by checks
	waiting bool     // an event for an arrival is on its way
	steps   int
}

func newWorld(seed uint64) *world {
	return &world{rng: rand.New(rand.NewPCG(seed, 5)), now: second, index: map[string]int{}, at: map[string]int32{}, batch: 1}
}

func (w *world) clock() int64 { return w.now }

// load sets the rates, in requests a second by class.
func (w *world) load(r balance.ByClass) {
	w.rate = [3]float64{stage.Anonymous: r.Anonymous / 1e9, stage.Known: r.Known / 1e9, stage.Protected: r.Basket / 1e9}
	w.all = r.All() / 1e9
	for c := range w.people {
		n := int(w.rate[c]*1e9*think) + 1
		for len(w.people[c]) < n {
			w.people[c] = append(w.people[c], w.stranger())
		}
		w.people[c] = w.people[c][:n]
	}
	if !w.waiting && w.all > 0 {
		w.waiting = true
		w.q.Push(virtual.Event{At: w.now + w.gap(), Kind: evArrive})
	}
}

func (w *world) gap() int64 { return max(1, int64(w.rng.ExpFloat64()*float64(w.batch)/w.all)) }

func (w *world) stranger() person {
	w.nextKey++
	return person{key: w.rng.Uint64() | 1}
}

// run goes on until a time. Each step of stepEvents it asks more, which may end it.
func (w *world) run(until int64, more func() error) error {
	const stepEvents = 1 << 14
	for len(w.q) > 0 {
		if w.q[0].At > until {
			break
		}
		if w.steps++; w.steps%stepEvents == 0 {
			if err := more(); err != nil {
				return err
			}
		}
		e := w.q.Pop()
		w.now = e.At
		w.happen(e)
	}
	w.now = until
	return nil
}

func (w *world) happen(e virtual.Event) {
	if k := e.Kind; k == evDone || k == evRefused || k == evGiveUp || k == evAgain || k == evBudget {
		if w.reqs[e.ID].gen != e.Gen {
			return
		}
	}
	switch e.Kind {
	case evArrive:
		w.arrive()
	case evDone:
		w.done(e.ID)
	case evRefused:
		w.failed(e.ID)
	case evGiveUp:
		w.giveUp(e.ID)
	case evAgain:
		w.try(e.ID)
	case evBudget:
		w.retry(e.ID)
	case evTick:
		w.model.Look(w.now)
		w.q.Push(virtual.Event{At: w.now + int64(balance.TickOfModel), Kind: evTick})
		w.look()
	case evCheck:
		for _, a := range w.down {
			w.model.Check(a, false)
		}
	}
}

// look measures the limits, which are none of the requests'.
func (w *world) look() {
	if w.m != nil && w.now-w.m.lookedAt >= second {
		w.m.lookedAt = w.now
		w.m.limits(w)
	}
}

// arrive is a page of somebody: a request, or several at once.
func (w *world) arrive() {
	w.q.Push(virtual.Event{At: w.now + w.gap(), Kind: evArrive})
	c, x := stage.Anonymous, w.rng.Float64()*w.all
	if x -= w.rate[stage.Anonymous]; x >= 0 {
		if c, x = stage.Known, x-w.rate[stage.Known]; x >= 0 && w.rate[stage.Protected] > 0 {
			c = stage.Protected
		}
	}
	i := w.rng.IntN(len(w.people[c]))
	if w.rng.IntN(stay) == 0 {
		w.people[c][i] = w.stranger()
	}
	for range w.batch {
		id := w.newRequest()
		r := &w.reqs[id]
		r.class, r.person, r.start = c, int32(i), w.now
		w.try(id)
	}
}

func (w *world) newRequest() int32 {
	if n := len(w.free); n > 0 {
		i := w.free[n-1]
		w.free = w.free[:n-1]
		w.reqs[i].used = true
		return i
	}
	w.reqs = append(w.reqs, request{used: true})
	return int32(len(w.reqs) - 1)
}

// forget frees a request that nobody knows any more.
func (w *world) forget(id int32) {
	r := &w.reqs[id]
	gen := r.gen + 1
	r.tried.Reset()
	r.start, r.waited, r.tries, r.again, r.held, r.gone, r.there, r.begun, r.used, r.retried, r.rested = 0, 0, 0, 0, false, false, false, false, false, false, false
	r.gen = gen
	w.free = append(w.free, id)
}

// visitor is who asks; a person of a shrunk crowd may be gone.
func (w *world) visitor(r *request) *person {
	p := w.people[r.class]
	return &p[int(r.person)%len(p)]
}

// try has the balancer choose, and sends the request there.
func (w *world) try(id int32) {
	r := &w.reqs[id]
	p := w.visitor(r)
	s, err := w.model.Pick(balance.Visitor{Class: r.class, Key: p.key, Hash: p.key, Tier: p.tier}, &r.tried)
	if err != nil {
		if errors.Is(err, balance.ErrTried) && !r.rested {
			r.rested = true
			r.tried.Reset()
			wait := int64(10*time.Millisecond) << min(r.tries, 4)
			w.q.Push(virtual.Event{At: w.now + wait, Kind: evAgain, Gen: r.gen, ID: id})
			return
		}
		w.endRetry(r)
		w.lose(id, lostRefused)
		return
	}
	r.slot, r.held, r.server = s, true, w.at[s.Address()]
	srv := &w.servers[r.server]
	w.hold(srv.tier, 1)
	w.m.sent(r, srv.tier)
	if !srv.up {
		w.q.Push(virtual.Event{At: w.now + refusal, Kind: evRefused, Gen: r.gen, ID: id})
		return
	}
	r.there = true
	if srv.Enter(id, srv.slots) {
		w.begin(id)
	} else {
		w.q.Push(virtual.Event{At: max(w.now, r.start+patience), Kind: evGiveUp, Gen: r.gen, ID: id})
	}
}

// hold counts what is in flight in a tier.
func (w *world) hold(tier int, d int64) {
	t := &w.tiers[tier]
	w.m.area(tier, t, w.now)
	t.inFlight += d
}

func (w *world) begin(id int32) {
	r := &w.reqs[id]
	r.begun = true
	t := &w.tiers[w.servers[r.server].tier]
	took := t.median * math.Exp(w.rng.NormFloat64()*t.sigma)
	w.q.Push(virtual.Event{At: w.now + max(1, int64(took)), Kind: evDone, Gen: r.gen, ID: id})
}

func (w *world) done(id int32) {
	r := &w.reqs[id]
	s := &w.servers[r.server]
	r.there = false
	load := balance.Load{InFlight: int64(s.Len()) + int64(s.others), Limit: int64(s.slots) + int64(s.others), Utilization: -1}
	if next, ok := s.Leave(); ok {
		w.begin(next)
	}
	if r.held {
		w.endRetry(r)
		var said *balance.Load
		if w.tiers[s.tier].reports {
			said = &load
		}
		w.model.Answered(&r.slot, said)
		w.release(r, balance.Succeeded)
	}
	if !r.gone {
		w.m.answered(w, r, s.tier)
		if r.class == stage.Protected {
			if p := w.visitor(r); p.tier == "" {
				p.tier = w.tiers[s.tier].name
			}
		}
	}
	w.forget(id)
}

func (w *world) release(r *request, o balance.Outcome) {
	r.held = false
	w.hold(w.servers[r.server].tier, -1)
	r.slot.Release(o)
}

func (w *world) endRetry(r *request) {
	if r.retried {
		r.retried = false
		w.model.EndRetry()
	}
}

// failed is a connection that was refused or broken.
func (w *world) failed(id int32) {
	r := &w.reqs[id]
	r.tried.Add(&r.slot)
	w.endRetry(r)
	w.release(r, balance.Failed)
	if int(r.tries) >= w.model.Attempts() {
		w.lose(id, lostFailed)
		return
	}
	r.tries++
	r.waited = 0
	w.retry(id)
}

// retry takes from the budget and tries, or waits for the budget.
func (w *world) retry(id int32) {
	r := &w.reqs[id]
	if w.model.Retry() {
		r.retried = true
		w.try(id)
		return
	}
	if r.waited >= maxBudgetWait {
		w.lose(id, lostFailed)
		return
	}
	d := max(int64(5*time.Millisecond), r.waited)
	r.waited += d
	w.q.Push(virtual.Event{At: w.now + d, Kind: evBudget, Gen: r.gen, ID: id})
}

// giveUp is the end of a visitor's patience, unless the work began meanwhile.
func (w *world) giveUp(id int32) {
	r := &w.reqs[id]
	if !r.held || r.begun {
		return
	}
	r.gone = true
	w.endRetry(r)
	w.release(r, balance.Abandoned)
	w.again(r, lostLate)
}

// lose ends a try of a visitor that came to nothing.
func (w *world) lose(id int32, why int) {
	w.again(&w.reqs[id], why)
	w.forget(id)
}

// again has a visitor with a basket come back, up to two times; others count as lost, and so does that one then.
func (w *world) again(r *request, why int) {
	if r.class != stage.Protected || r.again >= 2 {
		w.m.lose(r, why)
		return
	}
	person, again := r.person, r.again+1
	id := w.newRequest() // r may have moved
	q := &w.reqs[id]
	q.class, q.person, q.again = stage.Protected, person, again
	at := w.now + second + w.rng.Int64N(2*second)
	q.start = at
	w.q.Push(virtual.Event{At: at, Kind: evAgain, Gen: q.gen, ID: id})
}

// fail stops servers as a crash does; checks find it after a while.
func (w *world) fail(down map[string]bool, health *v1.HealthSpec) {
	for i := range w.servers {
		s := &w.servers[i]
		if !down[s.address] || !s.up {
			continue
		}
		s.up = false
		s.Clear()
		w.down = append(w.down, s.address)
		for id := range w.reqs {
			r := &w.reqs[id]
			if !r.used || !r.there || r.server != int32(i) {
				continue
			}
			r.there, r.begun = false, false
			if r.gen++; r.held {
				w.q.Push(virtual.Event{At: w.now + refusal, Kind: evRefused, Gen: r.gen, ID: int32(id)})
			} else {
				w.forget(int32(id)) // its visitor had gone
			}
		}
	}
	if len(w.down) > 0 && w.model.Checked() {
		w.q.Push(virtual.Event{At: w.now + detect(health), Kind: evCheck})
	}
}

// detect is how long checks take to find that an origin is gone.
func detect(h *v1.HealthSpec) int64 {
	return int64(h.Interval) * int64(max(1, h.UnhealthyAfter))
}
