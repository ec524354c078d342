package balance

import (
	"fmt"
	"math/rand/v2"
	"time"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/observe"
	"github.com/relais-edge/relais/internal/virtual"
)

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
	files    func(t int64) float64      // how many of the requests are for files, which take a moment; nil is none
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
	buys     float64                                      // share of visitors who fill a basket and order; 0 is 0.3
	book     *book                                        // of orders; nil keeps none
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
	evPatience
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
	waiter   *waiter // it waits for a moment, in the tier of the slot until
	until    int64
	held     bool
	answered bool
	gone     bool // the visitor gave up
	order    bool
	kind     uint8
	key      uint64 // of the order, the same in each try
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
	linger []int32 // requests that wait for a moment
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
	lingered, lingeredWell                int // requests that waited for a moment, and got a place
	looked, slowFound                     int // origins at each tick, and of them those that count as slow
	after, afterOn                        int
}

func newWorld(s scene) *world {
	if s.shares == nil {
		s.shares = []float64{.4, .3, .2, .1}
	}
	if s.buys == 0 {
		s.buys = 0.3
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
		case evPatience:
			w.patienceEnds(e.ID)
		case evHappen:
			w.events[e.ID].do(w)
		case evTick:
			for i, e := range w.edges {
				if w.rule != nil {
					w.rule.tick(w, i, w.now)
				} else {
					e.observe(w.now, w.now+w.skew(i))
					w.served(int32(i))
					w.countSlow(e)
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
