package screen

import (
	"errors"
	"fmt"
	"hash/maphash"
	"io/fs"
	"regexp"
	"slices"
	"strings"
)

// Config says what is screened for.
type Config struct {
	// FS holds what the directives include, and the lists of @pmFromFile.
	FS fs.FS
	// Directives are the texts that the engine is given, in the same order.
	Directives []string
	// Settings are TX variables that are set before the first rule, such as
	// detection_paranoia_level.
	Settings map[string]string
	// Unknown are TX variables that differ between requests.
	Unknown []string
	// Rules are the ids, ascending, of rules that an Overlay may leave out; their places are
	// the numbers of a RuleSet.
	Rules []int
	// MemoBytes bounds the memo of values; 0 means 4 MiB, less than 0 none.
	MemoBytes int
}

// probe is one question to a value: an operator after a chain of transformations.
type probe struct {
	link   int // what is hit when it matches
	node   int
	op     *operator
	also   *operator // holds of the same value too, nil for none
	groups *capture  // judges the groups, nil for none
	neg    bool      // of the last question
	needs  []byteSet // without a byte of each there is no hit
}

// condition of a rule: a link that was hit, or a count, or that an argument's name came twice.
type condition struct {
	link    int // countLink: a count; twiceLink: a name that came twice
	slot    int
	compare func(int) bool
}

const (
	countLink = -1
	twiceLink = -2
)

// conjunction is a rule that needs several conditions.
type conjunction struct {
	id    int
	no    int // as in linkInfo
	conds []condition
}

// node is a step of the tree of transformation chains; node 0 is the value itself.
type node struct {
	parent int
	t      *transform
}

// linkInfo is what is known of a link.
type linkInfo struct {
	rule  int
	no    int  // of the rule, in a RuleSet; -1: none
	alone bool // a hit makes the rule match
}

// processor is a rule that chooses how the body is read.
type processor struct {
	link int
	name string
}

// compiler makes a Screen.
type compiler struct {
	s        *Screen
	fsys     fs.FS
	set      *settings
	ids      []int // Config.Rules
	source   []secRule
	nodeOf   map[string]int
	keys     [varCount]keyring
	uses     [varCount][]use // by variable: the probes and what keys they ask for
	clauses  [][][]string    // by probe
	ops      map[string]operator
	coverage Coverage
}

// use says that a probe asks for a variable: for all keys when key is -1. A use that is minus
// takes the key out.
type use struct {
	probe int
	key   int
	minus bool
}

// Compile reads the directives and makes the screen of their request rules. An error means
// that nothing can be proved from this configuration.
func Compile(cfg Config) (*Screen, error) {
	d, err := readDirectives(cfg.FS, cfg.Directives)
	if err != nil {
		return nil, fmt.Errorf("screen: %w", err)
	}
	c := &compiler{
		s:      &Screen{argLimit: d.argLimit, jsonDepth: d.jsonDepth, kinds: newKindTable(), seed: maphash.MakeSeed(), nodes: []node{{}}},
		fsys:   cfg.FS,
		ids:    cfg.Rules,
		source: d.rules,
		set:    newSettings(d.rules, cfg.Settings, cfg.Unknown),
		nodeOf: map[string]int{"": 0},
	}
	if err := c.rules(d.rules); err != nil {
		return nil, fmt.Errorf("screen: %w", err)
	}
	if err := c.finish(); err != nil {
		return nil, fmt.Errorf("screen: %w", err)
	}
	if cfg.MemoBytes >= 0 {
		n := cfg.MemoBytes
		if n == 0 {
			n = 4 << 20
		}
		c.s.memo = newMemo(n)
	}
	return c.s, nil
}

// rules walks the request phases as the engine does: what a fixed condition skips is skipped in
// its phase only.
func (c *compiler) rules(rules []secRule) error {
	var skip, perhaps [3]string
	for i := range rules {
		r := &rules[i]
		if r.marker != "" {
			for p := range skip {
				if skip[p] == r.marker {
					skip[p] = ""
				}
				if perhaps[p] == r.marker {
					perhaps[p] = ""
				}
			}
			continue
		}
		if r.phase < 0 || r.phase > 2 || skip[r.phase] != "" {
			continue
		}
		first := &r.links[0]
		if first.skip != "" && len(r.links) == 1 && len(first.setvars) == 0 && bookkeeping(r) {
			switch res, ok := c.set.constant(first); {
			case ok && res || first.op == "":
				skip[r.phase] = first.skip
			case !ok && perhaps[r.phase] == "":
				perhaps[r.phase] = first.skip
			}
			continue
		}
		if first.skip != "" && perhaps[r.phase] == "" {
			perhaps[r.phase] = first.skip
		}
		if first.jumps { // what is set after it is not certain; no marker ends that
			perhaps[r.phase] = "\x00"
		}
		if len(r.links) == 1 && len(first.setvars) > 0 && r.phase <= 1 {
			c.set.run(r, perhaps[r.phase] == "" && first.skip == "")
		}
		if err := c.rule(i, r); err != nil {
			return fmt.Errorf("%s: rule %d: %w", r.where, r.id, err)
		}
	}
	for p := range skip {
		if skip[p] != "" {
			return fmt.Errorf("the marker %s does not come", skip[p])
		}
	}
	return nil
}

// bookkeeping says that a match of r is no evidence: it passes, says nothing and adds to no
// score of a request.
func bookkeeping(r *secRule) bool {
	first := &r.links[0]
	if !first.pass || !first.nolog || first.disrupt {
		return false
	}
	for i := range r.links {
		for _, sv := range r.links[i].setvars {
			if name, val := splitSetvar(sv); scoring(name, val) && !derived(r) {
				return false
			}
		}
	}
	return true
}

func addsScore(l *link) bool {
	return slices.ContainsFunc(l.setvars, func(sv string) bool { return scoring(splitSetvar(sv)) })
}

func scoring(name, value string) bool {
	return strings.Contains(name, "score") && strings.HasPrefix(value, "+")
}

// derived rules only add up or judge scores that others have given: those of a request without
// any are zero, below every threshold.
func derived(r *secRule) bool {
	t := &r.links[0].targets
	if len(*t) != 1 || (*t)[0].variable != "TX" || (*t)[0].count {
		return false
	}
	switch strings.ToUpper((*t)[0].key) {
	case "BLOCKING_PARANOIA_LEVEL", "DETECTION_PARANOIA_LEVEL", "BLOCKING_INBOUND_ANOMALY_SCORE", "DETECTION_INBOUND_ANOMALY_SCORE":
		return true
	}
	return false
}

func (c *compiler) rule(at int, r *secRule) error {
	proc := ""
	for i := range r.links {
		for _, x := range r.links[i].ctls {
			if p, ok := strings.CutPrefix(x, "requestBodyProcessor="); ok {
				proc = p
			}
		}
	}
	if book := bookkeeping(r); book && proc == "" {
		return nil
	} else if !book {
		c.coverage.Rules++
		if derived(r) {
			c.coverage.Impossible = append(c.coverage.Impossible, r.id)
			return nil
		}
	}
	if t := r.links[0].targets; proc == "" && len(r.links) == 1 && len(t) == 1 && t[0].variable == "TX" && t[0].regex && !t[0].count {
		any, ok, err := c.written(at, r)
		if ok {
			c.coverage.Wider = append(c.coverage.Wider, r.id)
			for _, cond := range any {
				c.add(r.id, []condition{cond})
			}
		}
		if ok || err != nil {
			return err
		}
	}
	conds, possible, exact, err := c.conditions(r)
	switch {
	case err != nil:
		return err
	case !possible && proc == "":
		c.coverage.Impossible = append(c.coverage.Impossible, r.id)
		return nil
	case !possible:
		return nil
	case proc != "":
		if len(conds) != 1 || conds[0].link < 0 || !exact {
			return errors.New("it chooses the body's processor in a way that is not known to the screen")
		}
		c.s.processors = append(c.s.processors, processor{conds[0].link, strings.ToUpper(proc)})
		return nil
	case len(conds) == 0:
		c.coverage.Always = append(c.coverage.Always, r.id)
	case exact:
		c.coverage.Exact++
	default:
		c.coverage.Wider = append(c.coverage.Wider, r.id)
	}
	c.add(r.id, conds)
	return nil
}

// add makes the conjunction of a rule, or marks its one link as the rule itself.
func (c *compiler) add(id int, conds []condition) {
	if len(conds) == 1 && conds[0].link >= 0 && c.s.links[conds[0].link].rule == id {
		c.s.links[conds[0].link].alone = true
		return
	}
	c.s.rules = append(c.s.rules, conjunction{id, c.number(id), conds})
}

// conditions makes the conditions of a rule. It is impossible when one of them never holds of a
// request that is screened. It ends with the first link that adds to a score: the engine does
// so before it looks at the links after it.
func (c *compiler) conditions(r *secRule) (conds []condition, possible, exact bool, err error) {
	exact = true
	for i := 0; i < len(r.links); i++ {
		l := &r.links[i]
		if res, ok := c.set.constant(l); ok {
			if !res {
				return nil, false, exact, nil
			}
			continue
		}
		if l.op == "" {
			exact = false
			continue
		}
		if c.pollution(l) {
			conds = append(conds, condition{link: twiceLink})
			c.s.twice, exact = true, false
			continue
		}
		cond, kind, used, err := c.link(r, i)
		if err != nil {
			return nil, false, false, err
		}
		switch kind {
		case never:
			return nil, false, exact, nil
		case holdsPerhaps:
			exact = false
		default:
			conds = append(conds, cond)
			exact = exact && kind == holdsExactly
		}
		i += used
		if addsScore(&r.links[i]) && i+1 < len(r.links) {
			exact = false
			break
		}
	}
	return conds, true, exact, nil
}

type certainty uint8

const (
	never        certainty = iota // the link cannot match
	holdsPerhaps                  // nothing is known: it may match
	holdsWider                    // the condition holds whenever the link matches
	holdsExactly
)

// link makes the condition of link i of r. used is how many links after it are part of it.
func (c *compiler) link(r *secRule, i int) (cond condition, k certainty, used int, err error) {
	l := &r.links[i]
	var targets []target
	ofMatched := false
	for _, t := range l.targets {
		v, known := fed[t.variable]
		switch {
		case r.phase < 2 && known && laterGrows(v, t.count):
			return cond, holdsPerhaps, 0, nil
		case t.count:
			cond, k, err = c.count(l)
			return cond, k, 0, err
		case t.variable == "MATCHED_VARS" || t.variable == "MATCHED_VAR":
			ofMatched = true
		case known:
			targets = append(targets, t)
		default:
			return cond, holdsPerhaps, 0, nil
		}
	}
	if ofMatched {
		if len(targets) > 0 {
			return cond, holdsPerhaps, 0, nil
		}
		return c.ofMatched(r, i)
	}
	if !slices.ContainsFunc(targets, func(t target) bool { return !t.minus }) {
		return cond, never, 0, nil
	}
	if i+1 < len(r.links) && !addsScore(l) {
		if g := c.groups(l, &r.links[i+1]); g != nil {
			no, err := c.probes(r.id, l, targets, nil, g)
			return condition{link: no}, holdsExactly, 1, err
		}
	}
	no, err := c.probes(r.id, l, targets, nil, nil)
	k = holdsExactly
	if no < 0 {
		return cond, holdsPerhaps, 0, err
	}
	return condition{link: no}, k, 0, err
}

// laterGrows says that a variable, or the count of it, is not yet in phase 1 what it is in phase
// 2: a question to the whole request says nothing of phase 1 then. A collection only gets more
// values.
func laterGrows(v variable, count bool) bool {
	switch v {
	case varBody, varBodyLength, varProcessor, varQuiet:
		return true
	case varArgs, varArgsNames, varArgsPost, varArgsPostNames, varFiles, varFilesNames, varPartHeaders, varXML:
		return count
	}
	return false
}

// ofMatched asks the values that link 0 matched again.
func (c *compiler) ofMatched(r *secRule, i int) (condition, certainty, int, error) {
	first, l := &r.links[0], &r.links[i]
	if i == 0 || len(l.trans) > 0 || first.op == "" {
		return condition{}, holdsPerhaps, 0, nil
	}
	for j := 1; j < i; j++ { // the links between only judged the same values
		for _, t := range r.links[j].targets {
			if t.variable != "MATCHED_VARS" && t.variable != "MATCHED_VAR" {
				return condition{}, holdsPerhaps, 0, nil
			}
		}
	}
	var targets []target
	for _, t := range first.targets {
		if _, known := fed[t.variable]; known && !t.count {
			targets = append(targets, t)
		} else {
			return condition{}, holdsPerhaps, 0, nil
		}
	}
	no, err := c.probes(r.id, first, targets, l, nil)
	if err != nil || no < 0 {
		return condition{}, holdsPerhaps, 0, err
	}
	return condition{link: no}, holdsWider, 0, nil
}

func (c *compiler) count(l *link) (cond condition, k certainty, err error) {
	arg, ok := c.set.expand(l.arg)
	cmp, cmpErr := newCompare(l.op, arg)
	if len(l.targets) != 1 || l.targets[0].regex || !ok || cmpErr != nil || len(l.trans) > 0 {
		return cond, holdsPerhaps, nil
	}
	t, neg := &l.targets[0], l.neg
	judge := func(n int) bool { return cmp(n) != neg }
	v, known := fed[t.variable]
	switch {
	case !known || v >= varLine:
		return cond, holdsPerhaps, nil
	}
	slot, err := c.slot(v, t.key)
	return condition{link: countLink, slot: slot, compare: judge}, holdsExactly, err
}

// pollution recognises "TX:/name_.*/ @gt 1" where the one that writes such names is a rule
// over ARGS_NAMES that counts %{MATCHED_VAR_NAME} by one.
func (c *compiler) pollution(l *link) bool {
	if len(l.targets) != 1 || l.op != "gt" || l.arg != "1" || l.neg || len(l.trans) > 0 {
		return false
	}
	t := &l.targets[0]
	prefix, ok := strings.CutSuffix(strings.ToLower(t.key), ".*")
	return ok && t.variable == "TX" && t.regex && !t.count && regexp.QuoteMeta(prefix) == prefix &&
		c.set.counter == prefix+"%{matched_var_name}" && c.set.counters == 1
}
