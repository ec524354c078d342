package screen

import (
	"errors"
	"regexp/syntax"
	"slices"
	"sync"
	"sync/atomic"
	"unicode"
	"unicode/utf8"
)

const (
	// maxTable bounds the entries of an expression's table; a table that is full is dropped.
	maxTable = 32 << 10
	// maxProgram bounds the instructions of an expression, and maxBounds the intervals of runes
	// that they tell apart: each state and each class costs a pass over them.
	maxProgram, maxBounds = 20_000, 4_000
	// unknownNext and matchNext are transitions; all else is a state plus firstState.
	unknownNext, matchNext, firstState = 0, 1, 2
)

// dfa answers whether an expression matches anywhere in a text, by a deterministic automaton
// over classes of runes whose states are made when first needed. Many goroutines may use it:
// they read the table without a lock, and one at a time adds to it.
//
// It follows regexp/syntax's program, so it holds what package regexp does: invalid UTF-8 is
// U+FFFD byte by byte, and word boundaries are ASCII. A binary dfa takes each byte as one rune.
type dfa struct {
	prog    *syntax.Prog
	binary  bool
	classes int
	ascii   [256]uint8 // by byte; 128 and above only when binary
	bounds  []rune     // first runes of intervals, shifted by 8, with their class
	sample  []rune     // a rune of each class
	table   atomic.Pointer[table]

	mu    sync.Mutex // guards what follows and additions to table
	build builder
}

// table is what readers see: next[state*(classes+1)+class], the last class being the end. A
// larger table of the same generation holds all entries of a smaller one.
type table struct {
	next       []uint32
	generation uint32
}

// builder makes states. pending are instructions before closure, sorted; before is the kind of
// the rune before.
type builder struct {
	states []state
	index  map[string]uint32
	seen   []uint32
	now    uint32
	stack  []uint32
	out    []uint32
	key    []byte
}

type state struct {
	pending []uint32
	before  rune
}

// newDFA compiles a parsed and simplified expression.
func newDFA(re *syntax.Regexp, binary bool) (*dfa, error) {
	prog, err := syntax.Compile(re)
	if err != nil {
		return nil, err
	}
	if len(prog.Inst) > maxProgram {
		return nil, errors.New("an expression that is too long")
	}
	d := &dfa{prog: prog, binary: binary}
	if d.partition(); len(d.bounds) > maxBounds {
		return nil, errors.New("an expression that tells too many characters apart")
	}
	if err := d.join(); err != nil {
		return nil, err
	}
	d.build.seen = make([]uint32, len(prog.Inst))
	d.reset()
	return d, nil
}

// partition makes classes of runes that no instruction tells apart, nor a word boundary, nor
// the end of a line.
func (d *dfa) partition() {
	b := []rune{0, '\n', '\n' + 1, '0', '9' + 1, 'A', 'Z' + 1, '_', '_' + 1, 'a', 'z' + 1, 0x80}
	for _, in := range d.distinct() {
		if len(in.Rune) == 1 {
			r := in.Rune[0]
			b = append(b, r, r+1)
			if syntax.Flags(in.Arg)&syntax.FoldCase != 0 {
				for f := unicode.SimpleFold(r); f != r; f = unicode.SimpleFold(f) {
					b = append(b, f, f+1)
				}
			}
			continue
		}
		for j := 0; j+1 < len(in.Rune); j += 2 {
			b = append(b, in.Rune[j], in.Rune[j+1]+1)
		}
	}
	slices.Sort(b)
	b = slices.Compact(b)
	d.bounds = b
}

// distinct lists the instructions over runes, those alike once: a repetition makes many copies.
func (d *dfa) distinct() (list []*syntax.Inst) {
	seen := map[string]bool{}
	for i := range d.prog.Inst {
		in := &d.prog.Inst[i]
		if in.Op != syntax.InstRune && in.Op != syntax.InstRune1 {
			continue
		}
		key := string(in.Rune) + string(rune(in.Arg))
		if !seen[key] {
			seen[key] = true
			list = append(list, in)
		}
	}
	return list
}

// join gives intervals of runes with the same behaviour one class.
func (d *dfa) join() error {
	ids := map[string]uint8{}
	classOf := make([]uint8, len(d.bounds))
	distinct := d.distinct()
	sig := make([]byte, 0, len(distinct)+1)
	for i, r := range d.bounds {
		sig = append(sig[:0], byte(kindOf(r)))
		for _, in := range distinct {
			if in.MatchRune(r) {
				sig = append(sig, 1)
			} else {
				sig = append(sig, 0)
			}
		}
		id, ok := ids[string(sig)]
		if !ok {
			if len(ids) == 250 {
				return errors.New("an expression with more than 250 classes of characters")
			}
			id = uint8(len(ids))
			ids[string(sig)] = id
			d.sample = append(d.sample, r)
		}
		classOf[i] = id
	}
	d.classes = len(ids)
	at := 0
	for c := range 256 {
		for at+1 < len(d.bounds) && d.bounds[at+1] <= rune(c) {
			at++
		}
		d.ascii[c] = classOf[at]
	}
	for i, r := range d.bounds {
		d.bounds[i] = r<<8 | rune(classOf[i])
	}
	return nil
}

// kindOf is the rune that stands for r where only boundaries count.
func kindOf(r rune) rune {
	switch {
	case r == '\n':
		return '\n'
	case syntax.IsWordChar(r):
		return 'a'
	}
	return ' '
}

// reset drops all states. The caller holds mu, or nobody else knows d.
func (d *dfa) reset() {
	d.build.states, d.build.index = nil, map[string]uint32{}
	t := &table{}
	if was := d.table.Load(); was != nil {
		t.generation = was.generation + 1
	}
	d.build.out = append(d.build.out[:0], uint32(d.prog.Start))
	d.state(t, -1)
	d.table.Store(t)
}

// state returns the state of build.out with the rune before, made if need be in t.
func (d *dfa) state(t *table, before rune) uint32 {
	b := &d.build
	b.key = b.key[:0]
	for _, pc := range b.out {
		b.key = append(b.key, byte(pc), byte(pc>>8), byte(pc>>16))
	}
	b.key = append(b.key, byte(before))
	if n, ok := b.index[string(b.key)]; ok {
		return n
	}
	n := uint32(len(b.states))
	b.states = append(b.states, state{slices.Clone(b.out), before})
	b.index[string(b.key)] = n
	for range d.classes + 1 {
		t.next = append(t.next, unknownNext)
	}
	return n
}

// match reports whether v holds a match. steps is the number of transitions that may be made
// new; when they are used up, ok is false.
func (d *dfa) match(v []byte, steps *int) (yes, ok bool) {
	t := d.table.Load()
	width := uint32(d.classes + 1)
	s := uint32(0)
	for i := 0; ; {
		s, i = d.run(t.next, v, s, i)
		c := uint32(d.classes)
		if i < len(v) {
			if b := v[i]; b < utf8.RuneSelf || d.binary {
				c = uint32(d.ascii[b])
				i++
			} else {
				r, n := utf8.DecodeRune(v[i:])
				c = d.classOf(r)
				i += n
			}
		} else {
			i++
		}
		if int(s*width) >= len(t.next) { // a state that came after t, found by an entry they share
			was := t.generation
			if t = d.table.Load(); t.generation != was {
				if *steps--; *steps < 0 {
					return false, false
				}
				s, i = 0, 0
				continue
			}
		}
		n := atomic.LoadUint32(&t.next[s*width+c])
		if n == unknownNext {
			if *steps--; *steps < 0 {
				return false, false
			}
			if n, t, ok = d.step(t, s, c); !ok { // dropped: from the start
				t, s, i = d.table.Load(), 0, 0
				continue
			}
		}
		if n == matchNext {
			return true, true
		}
		s = n - firstState
		if i > len(v) {
			return false, true
		}
	}
}

// run follows the transitions that are there from state s at v[i], up to one that match has to look at.
func (d *dfa) run(next []uint32, v []byte, s uint32, i int) (uint32, int) {
	width := uint32(d.classes + 1)
	for i < len(v) && (v[i] < utf8.RuneSelf || d.binary) {
		at := s*width + uint32(d.ascii[v[i]])
		if at >= uint32(len(next)) {
			break
		}
		n := atomic.LoadUint32(&next[at])
		if n < firstState {
			break
		}
		s = n - firstState
		i++
	}
	return s, i
}

func (d *dfa) classOf(r rune) uint32 {
	lo, hi := 0, len(d.bounds)
	for hi-lo > 1 {
		if m := (lo + hi) / 2; d.bounds[m]>>8 <= r {
			lo = m
		} else {
			hi = m
		}
	}
	return uint32(d.bounds[lo] & 0xff)
}

// step makes the transition of state s of table was. It returns the table it holds for; ok is
// false when the tables were dropped meanwhile, so that s means nothing any more.
func (d *dfa) step(was *table, s, c uint32) (n uint32, t *table, ok bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	t = d.table.Load()
	if t.generation != was.generation {
		return 0, nil, false
	}
	if len(t.next) > maxTable {
		d.reset()
		return 0, nil, false
	}
	at := s*uint32(d.classes+1) + c
	if n = t.next[at]; n != unknownNext {
		return n, t, true
	}
	before, match := d.close(s, c)
	if match {
		atomic.StoreUint32(&t.next[at], matchNext)
		return matchNext, t, true
	}
	grown := &table{next: t.next, generation: t.generation}
	n = d.state(grown, before) + firstState
	if len(grown.next) != len(t.next) {
		t = grown
		d.table.Store(t)
	}
	atomic.StoreUint32(&t.next[at], n)
	return n, t, true
}

func (d *dfa) close(s, c uint32) (before rune, match bool) {
	b := &d.build
	st := b.states[s]
	r := rune(-1)
	if c < uint32(d.classes) {
		r = d.sample[c]
	}
	flags := syntax.EmptyOpContext(st.before, r)
	b.now++
	b.out = append(b.out[:0], uint32(d.prog.Start))
	b.stack = append(b.stack[:0], st.pending...)
	for len(b.stack) > 0 {
		pc := b.stack[len(b.stack)-1]
		b.stack = b.stack[:len(b.stack)-1]
		if b.seen[pc] == b.now {
			continue
		}
		b.seen[pc] = b.now
		switch in := &d.prog.Inst[pc]; in.Op {
		case syntax.InstAlt, syntax.InstAltMatch:
			b.stack = append(b.stack, in.Out, in.Arg)
		case syntax.InstCapture, syntax.InstNop:
			b.stack = append(b.stack, in.Out)
		case syntax.InstEmptyWidth:
			if syntax.EmptyOp(in.Arg)&^flags == 0 {
				b.stack = append(b.stack, in.Out)
			}
		case syntax.InstMatch:
			return 0, true
		case syntax.InstRune, syntax.InstRune1:
			if r >= 0 && in.MatchRune(r) {
				b.out = append(b.out, in.Out)
			}
		case syntax.InstRuneAny:
			if r >= 0 {
				b.out = append(b.out, in.Out)
			}
		case syntax.InstRuneAnyNotNL:
			if r >= 0 && r != '\n' {
				b.out = append(b.out, in.Out)
			}
		}
	}
	slices.Sort(b.out)
	b.out = slices.Compact(b.out)
	return kindOf(r), false
}
