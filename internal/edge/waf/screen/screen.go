package screen

import (
	"hash/maphash"
	"sync"
	"sync/atomic"
)

// Bounds past which nothing is proved.
const (
	maxBody  = 128 << 10
	maxHead  = 64 << 10
	maxSteps = 1500    // transitions that one request may have made
	maxWork  = 4 << 20 // bytes that one request may have looked at, all together
)

// Screen is the compiled rules of one configuration. Many goroutines may use it.
type Screen struct {
	argLimit  int
	jsonDepth int

	kinds      *kindTable
	nodes      []node
	probes     []probe
	links      []linkInfo
	rules      []conjunction
	processors []processor
	slots      []slot
	seed       maphash.Seed
	twice      bool // a rule asks for names of arguments that came twice
	auto       *automaton
	classes    [varCount]classTable
	classIDs   atomic.Uint32
	memo       *memo
	coverage   Coverage
	pool       sync.Pool // of *worker
}

// Coverage says what became of the rules of the request phases.
type Coverage struct {
	// Rules is how many rules are evidence of an attack.
	Rules int
	// Exact is how many are judged as the engine judges them.
	Exact int
	// Wider lists rules that the screen may see where the engine does not.
	Wider []int
	// Always lists rules of which nothing is known: no request is proved clean of them.
	Always []int
	// Impossible lists rules that the configuration makes impossible, or that need a body of
	// multipart or XML, which is never proved.
	Impossible []int
	// Questions, Chains and States are sizes: of the questions to values, of the tree of
	// transformations, of the automaton.
	Questions, Chains, States int
}

// Coverage tells how much of the rules the screen knows.
func (s *Screen) Coverage() Coverage { return s.coverage }

// Field is a field of the head.
type Field struct{ Name, Value []byte }

// Request is what the engine would be given. The screen keeps nothing of it.
type Request struct {
	Method, Target, Proto []byte
	Fields                []Field
	// Body is the whole body; nil when there is none.
	Body []byte
	// Opaque says that the body cannot be judged, such as when it is only a part.
	Opaque bool
}

// Reason says why a request is not proved clean.
type Reason uint8

// The reasons.
const (
	Clean      Reason = iota
	Matched           // a rule matches, or may match
	Target            // the target cannot be parsed
	Body              // the body's type is not screened, or its form is wrong
	Size              // more than is screened
	Budget            // too much work
	Unsure            // a name beyond ASCII in a place that is counted
	reasonsEnd        // not a reason
)

var reasonNames = [...]string{"clean", "matched", "target", "body", "size", "budget", "unsure"}

// String names the reason.
func (r Reason) String() string {
	if r >= reasonsEnd {
		return "unknown"
	}
	return reasonNames[r]
}

// Reasons is how many there are.
const Reasons = int(reasonsEnd)

// Verdict is what the screen says of a request: proved clean when Reason is Clean.
type Verdict struct {
	Reason Reason
	// Rule is the first rule that may match, 0 when the reason is another.
	Rule int
}

// Check proves that no rule matches r, or says why it could not. o is what is left out, nil for
// nothing.
func (s *Screen) Check(r *Request, o *Overlay) Verdict {
	w := s.pool.Get().(*worker)
	w.over = o
	v := w.check(r)
	w.over = nil
	s.pool.Put(w)
	return v
}

// output is a value after some transformations.
type output struct {
	text  []byte
	has   byteSet
	kinds uint16
	held  int32 // place in worker.held; -1: not scanned yet
}

// worker is the memory of one check.
type worker struct {
	s     *Screen
	over  *Overlay
	why   Verdict
	found []uint64 // links that were hit
	count [maxSlots]int
	args  int
	twice bool     // an argument's name came twice, or may have
	names []uint64 // hashes of the names of arguments
	steps int
	work  int

	// Of the present value:
	stamp   []uint32 // by node: the value it was computed for
	now     uint32
	at      []int32 // by node: place in outs
	outs    []output
	bufs    [][]byte // by node
	held    []set    // by scan: the probes of which the text holds a word of each clause
	hits    []uint16
	asked   []asked // by link
	marks   marks
	scratch []byte

	// Of the request:
	line   []byte
	path   []byte
	pair   []byte
	key    []byte
	number []byte
	json   int  // bytes of flattened JSON
	valid  bool // the body is JSON without a fault
}

// asked remembers the last output that a link was asked of.
type asked struct {
	stamp uint32
	out   int32
}

func (s *Screen) newWorker() *worker {
	n := len(s.nodes)
	return &worker{
		s: s, found: make([]uint64, len(s.links)/64+1), stamp: make([]uint32, n), at: make([]int32, n),
		bufs: make([][]byte, n), asked: make([]asked, len(s.links)),
	}
}

func (w *worker) maybe(r Reason) bool {
	if w.why.Reason == Clean {
		w.why.Reason = r
	}
	return false
}

func (w *worker) has(link int) bool { return w.found[link>>6]>>(link&63)&1 != 0 }

func (w *worker) check(r *Request) Verdict {
	w.why = Verdict{}
	clear(w.found)
	clear(w.count[:])
	w.twice, w.names = false, w.names[:0]
	w.args, w.steps, w.work, w.json = 0, maxSteps, maxWork, 0
	w.valid = false
	if w.formed(r) && w.target(r) && w.fields(r) && w.body(r) {
		for i := range w.s.rules {
			if c := &w.s.rules[i]; w.holds(c) && (w.over == nil || !w.over.gone.Has(c.no)) {
				w.why.Rule = w.s.rules[i].id
				w.maybe(Matched)
				break
			}
		}
	}
	return w.why
}

func (w *worker) holds(c *conjunction) bool {
	for i := range c.conds {
		switch k := &c.conds[i]; {
		case k.link == twiceLink:
			if !w.twice {
				return false
			}
		case k.link == countLink:
			if !k.compare(w.count[k.slot]) {
				return false
			}
		case !w.has(k.link):
			return false
		}
	}
	return true
}

// value gives one value to the rules. It is false when the request cannot be proved any more.
func (w *worker) value(v variable, name, text []byte) bool {
	t := &w.s.classes[v]
	var k classKey
	if len(t.keys.names) > 0 {
		k.plus, k.minus = t.keys.masks(name, &w.scratch, &w.steps)
		if w.steps < 0 {
			return w.maybe(Budget)
		}
	}
	c := t.of(w.s, k)
	if c == nil || len(c.unsure) > 0 {
		return w.maybe(Unsure)
	}
	for _, i := range c.slots {
		w.count[i]++
	}
	if len(c.groups) == 0 {
		return true
	}
	if w.work -= len(text) + 16; w.work < 0 {
		return w.maybe(Budget)
	}
	m := w.s.memo
	w.hits = w.hits[:0]
	if m == nil || len(text) > maxMemoValue {
		return w.ask(c, text) && w.take(v, name)
	}
	h := m.hash(c.id, text)
	var ok bool
	if w.hits, ok = m.get(h, c.id, text, w.hits); ok {
		return w.take(v, name)
	}
	if !w.ask(c, text) {
		return false
	}
	m.put(h, c.id, text, w.hits)
	return w.take(v, name)
}

// take counts the hits of a value, but for those that the overlay leaves out.
func (w *worker) take(v variable, name []byte) bool {
	for _, l := range w.hits {
		if w.over.spares(w.s.links[l].no, v, name) {
			continue
		}
		if w.s.links[l].alone {
			w.why.Rule = w.s.links[l].rule
			return w.maybe(Matched)
		}
		w.found[l>>6] |= 1 << (l & 63)
	}
	return true
}

// ask puts all questions of a class to a value; hits are the links that matched.
func (w *worker) ask(c *class, text []byte) bool {
	if w.now++; w.now == 0 {
		clear(w.stamp)
		clear(w.asked)
		w.now = 1
	}
	has, kinds := w.s.kinds.bytesOf(text)
	w.outs, w.held = append(w.outs[:0], output{text, has, kinds, -1}), w.held[:0]
	w.stamp[0], w.at[0] = w.now, 0
	groups := c.plan(w.s, kinds)
	for i := range groups {
		g := &groups[i]
		o := w.node(g.node)
		h := w.scan(o)
		for _, k := range g.some {
			for m := g.probes[k] & h[k]; m != 0; m &= m - 1 {
				w.probe(k<<6|trailing(m), o)
			}
		}
		if w.steps < 0 || w.work < 0 {
			return w.maybe(Budget)
		}
	}
	return true
}

func (w *worker) probe(n int, o int32) {
	p := &w.s.probes[n]
	for i := range p.needs {
		if !p.needs[i].meets(&w.outs[o].has) {
			return
		}
	}
	if a := &w.asked[p.link]; a.stamp == w.now && a.out == o {
		return // multiMatch: this text was asked before
	} else {
		a.stamp, a.out = w.now, o
	}
	v := w.outs[o].text
	w.work -= len(v)
	yes := p.op.match(v, &w.steps)
	switch {
	case p.also != nil:
		yes = yes && p.also.match(v, &w.steps) != p.neg
	case p.groups != nil:
		yes = yes && p.groups.holds(v, &w.steps)
	default:
		yes = yes != p.neg
	}
	if yes {
		w.hits = append(w.hits, uint16(p.link))
	}
}

// node returns the output of a chain for the present value. Chains with the same text share it.
func (w *worker) node(n int) int32 {
	if w.stamp[n] == w.now {
		return w.at[n]
	}
	nd := &w.s.nodes[n]
	o := w.node(nd.parent)
	if src := &w.outs[o]; src.kinds&nd.t.needs != 0 {
		b := nd.t.apply(w.bufs[n][:0], src.text)
		w.bufs[n] = b
		w.work -= len(src.text)
		o = w.output(b, o, nd.t.fold && src.kinds&kindHigh == 0)
	}
	w.stamp[n], w.at[n] = w.now, o
	return o
}

// output finds the text among the outputs or adds it. With fold it differs from output from
// only by the case of ASCII letters, which the scan does not see.
func (w *worker) output(b []byte, from int32, fold bool) int32 {
	for i := range w.outs {
		if string(w.outs[i].text) == string(b) {
			return int32(i)
		}
	}
	has, kinds := w.s.kinds.bytesOf(b)
	o := output{b, has, kinds, -1}
	if fold {
		w.scan(from)
		o.held = w.outs[from].held
	}
	w.outs = append(w.outs, o)
	return int32(len(w.outs) - 1)
}

func (w *worker) scan(o int32) *set {
	out := &w.outs[o]
	if out.held < 0 {
		out.held = int32(len(w.held))
		w.held = append(w.held, set{})
		w.work -= len(out.text)
		w.s.auto.scan(out.text, &w.held[out.held], &w.marks)
	}
	return &w.held[out.held]
}
