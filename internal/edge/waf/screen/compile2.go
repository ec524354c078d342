package screen

import (
	"errors"
	"fmt"
	"regexp/syntax"
	"slices"
	"strings"
)

// maxKeys bounds the keys that rules name of one variable.
const maxKeys = 64

// keyring holds the keys of a variable that rules name: names without regard to case, and
// expressions.
type keyring struct {
	names []string // by bit; empty where an expression is
	exprs []*dfa   // by bit; nil where a name is
	texts []string

	// Bits by the length of their name, those that are longer in the last; and those of expressions.
	long   [maxKeyLength + 1]uint64
	asking uint64
}

const maxKeyLength = 40

func (k *keyring) bit(t *target) (int, error) {
	name := strings.ToLower(t.key)
	if t.regex {
		name = "/" + name + "/"
	}
	if i := slices.Index(k.texts, name); i >= 0 {
		return i, nil
	}
	if len(k.texts) == maxKeys {
		return 0, fmt.Errorf("more than %d keys of %s", maxKeys, t.variable)
	}
	var d *dfa
	if t.regex {
		re, err := syntax.Parse(strings.ToLower(t.key), syntax.Perl)
		if err != nil {
			return 0, err
		}
		if d, err = newDFA(re.Simplify(), false); err != nil {
			return 0, err
		}
		k.names = append(k.names, "")
		k.asking |= 1 << len(k.texts)
	} else {
		k.names = append(k.names, name)
		k.long[min(len(name), maxKeyLength)] |= 1 << len(k.texts)
	}
	k.exprs = append(k.exprs, d)
	k.texts = append(k.texts, name)
	return len(k.texts) - 1, nil
}

// masks says which keys a name is, for targets and for exceptions. A name beyond ASCII may be
// any key and is none for sure, because the engine folds it by Unicode's rules.
func (k *keyring) masks(name []byte, scratch *[]byte, steps *int) (plus, minus uint64) {
	if len(k.names) == 0 {
		return 0, 0
	}
	folds := false
	for _, c := range name {
		if c >= 0x80 {
			return ^uint64(0), 0
		}
		folds = folds || c >= 'A' && c <= 'Z'
	}
	m := k.long[min(len(name), maxKeyLength)] | k.asking
	if m == 0 {
		return 0, 0
	}
	low := name
	if folds {
		*scratch = lowercase((*scratch)[:0], name)
		low = *scratch
	}
	for ; m != 0; m &= m - 1 {
		i := trailing(m)
		d := k.exprs[i]
		if d == nil {
			if k.names[i] == string(low) {
				plus |= 1 << i
				minus |= 1 << i
			}
			continue
		}
		yes, _ := d.match(low, steps)
		if yes && *steps >= 0 {
			minus |= 1 << i
		}
		if !yes && folds {
			yes, _ = d.match(name, steps)
		}
		if yes {
			plus |= 1 << i
		}
	}
	return plus, minus
}

// slot is the counter of a variable, or of a key of it.
func (c *compiler) slot(v variable, key string) (int, error) {
	bit := -1
	if key != "" {
		var err error
		if bit, err = c.keys[v].bit(&target{key: key}); err != nil {
			return 0, err
		}
	}
	for i, s := range c.s.slots {
		if s.v == v && s.bit == bit {
			return i, nil
		}
	}
	if len(c.s.slots) == maxSlots {
		return 0, errors.New("too many counts in the rules")
	}
	c.s.slots = append(c.s.slots, slot{v, bit})
	return len(c.s.slots) - 1, nil
}

// number is the place of a rule in Config.Rules, or -1.
func (c *compiler) number(id int) int {
	if i, ok := slices.BinarySearch(c.ids, id); ok {
		return i
	}
	return -1
}

func (c *compiler) writers(name string) int { return c.set.writes[name] }

// probes makes the probes of a link: one, or with multiMatch one after each transformation. It
// returns the number of the link, -1 when a transformation is not known.
func (c *compiler) probes(rule int, l *link, targets []target, also *link, g *capture) (int, error) {
	op, err := c.operator(l)
	if err != nil {
		return 0, err
	}
	var second *operator
	neg := l.neg
	if also != nil {
		o, err := c.operator(also)
		if err != nil {
			return 0, err
		}
		second = &o
		if l.neg { // the first question is negated too: ask only the first
			second, neg = nil, true
		} else {
			neg = also.neg
		}
	}
	if second == nil && strings.HasPrefix(op.name, "any:") {
		neg = false
	}
	if second != nil && strings.HasPrefix(second.name, "any:") {
		second, neg = nil, false
	}
	if neg && second == nil && !op.exact {
		op, neg = always(l.op), false
	}
	if neg && second != nil && !second.exact {
		second, neg = nil, false
	}
	first := len(l.trans)
	if l.multi {
		first = 0
	}
	var nodes []int
	for n := first; n <= len(l.trans); n++ {
		at, ok := c.node(l.trans[:n])
		if !ok {
			return -1, nil
		}
		nodes = append(nodes, at)
	}
	no := len(c.s.links)
	c.s.links = append(c.s.links, linkInfo{rule: rule, no: c.number(rule)})
	for _, at := range nodes {
		clauses, needs := op.clauses, op.needs
		if neg && second == nil {
			clauses, needs = nil, nil
		}
		p := probe{link: no, node: at, op: &op, also: second, groups: g, neg: neg, needs: needs}
		c.s.probes = append(c.s.probes, p)
		c.clauses = append(c.clauses, clauses)
		if err := c.use(len(c.s.probes)-1, targets); err != nil {
			return 0, err
		}
	}
	return no, nil
}

func (c *compiler) operator(l *link) (operator, error) {
	key := l.op + " " + l.arg + " " + l.dir
	if op, ok := c.ops[key]; ok {
		return op, nil
	}
	arg, ok := c.set.expand(l.arg)
	if l.op == "rx" || strings.HasPrefix(l.op, "pm") {
		arg, ok = l.arg, true // these have no macros
	}
	op := always(l.op)
	if ok {
		var err error
		if op, err = newOperator(c.fsys, l, arg); err != nil {
			return op, err
		}
	}
	if c.ops == nil {
		c.ops = map[string]operator{}
	}
	c.ops[key] = op
	return op, nil
}

// use notes for which values a probe asks. An exception holds for targets named before it.
func (c *compiler) use(probe int, targets []target) error {
	for i := range targets {
		t := &targets[i]
		v := fed[t.variable]
		if t.minus && !slices.ContainsFunc(targets[:i], func(o target) bool { return o.variable == t.variable && !o.minus }) ||
			t.minus && slices.ContainsFunc(targets[i:], func(o target) bool { return o.variable == t.variable && !o.minus }) {
			continue
		}
		u := use{probe: probe, key: -1, minus: t.minus}
		if t.key != "" {
			var err error
			if u.key, err = c.keys[v].bit(t); err != nil {
				return err
			}
		}
		c.uses[v] = append(c.uses[v], u)
	}
	return nil
}

// node finds or makes the end of a chain in the tree.
func (c *compiler) node(names []string) (int, bool) {
	at, path := 0, ""
	for _, n := range names {
		t := findTransform(n)
		if t == nil {
			return 0, false
		}
		path += n + ","
		next, ok := c.nodeOf[path]
		if !ok {
			next = len(c.s.nodes)
			c.s.nodes = append(c.s.nodes, node{at, t})
			c.nodeOf[path] = next
		}
		at = next
	}
	return at, true
}

// finish builds the automaton and the tables of classes.
func (c *compiler) finish() error {
	s := c.s
	if len(s.probes) > 64*words {
		return fmt.Errorf("%d questions in the rules, room for %d", len(s.probes), 64*words)
	}
	var base held
	var list []word
	for p, clauses := range c.clauses {
		for k := range maxClauses {
			if k >= len(clauses) {
				base[k].add(p)
				continue
			}
			for _, w := range clauses[k] {
				list = append(list, word{w[:min(len(w), maxWord)], p, k})
			}
		}
	}
	var err error
	if s.auto, err = newAutomaton(list, base); err != nil {
		return err
	}
	for v := range s.classes {
		s.classes[v].keys, s.classes[v].uses = c.keys[v], c.uses[v]
		for i, sl := range s.slots {
			if sl.v == variable(v) {
				s.classes[v].slots = append(s.classes[v].slots, i)
			}
		}
		empty := map[classKey]*class{}
		s.classes[v].known.Store(&empty)
	}
	c.coverage.Questions, c.coverage.Chains, c.coverage.States = len(s.probes), len(s.nodes), s.auto.states
	s.coverage = c.coverage
	s.pool.New = func() any { return s.newWorker() }
	return nil
}
