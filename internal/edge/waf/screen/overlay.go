package screen

import (
	"iter"
	"math/bits"
	"regexp"
)

// RuleSet is a set of rules, by their place in Config.Rules.
type RuleSet []uint64

// NewRuleSet returns a set with room for n rules.
func NewRuleSet(n int) RuleSet { return make(RuleSet, (n+63)/64) }

// Add puts rule i into the set.
func (s RuleSet) Add(i int) { s[i>>6] |= 1 << (i & 63) }

// Has says whether rule i is in the set; a rule without a number is in none.
func (s RuleSet) Has(i int) bool {
	return i >= 0 && i>>6 < len(s) && s[i>>6]>>(i&63)&1 != 0
}

// All yields the numbers of the rules in the set.
func (s RuleSet) All() iter.Seq[int] {
	return func(yield func(int) bool) {
		for k, w := range s {
			for ; w != 0; w &= w - 1 {
				if !yield(k<<6 | bits.TrailingZeros64(w)) {
					return
				}
			}
		}
	}
}

// Exemption takes values of a variable out of some rules. It does not change.
type Exemption struct {
	rules RuleSet
	v     variable
	key   string // lower case; empty for all
	rx    *regexp.Regexp
}

// NewExemption takes the values of a variable with a key, without regard to case, or with a key
// that rx matches in lower case, or all of them, out of all links of the rules.
func NewExemption(rules RuleSet, variable, key string, rx *regexp.Regexp) Exemption {
	return Exemption{rules, fed[variable], key, rx}
}

// covers says that the engine would not show the value to the rule. Names beyond ASCII are
// covered only when all are, because the engine folds them by Unicode's rules.
func (e *Exemption) covers(rule int, v variable, name []byte) bool {
	if e.v != v || v == varNone || !e.rules.Has(rule) {
		return false
	}
	if e.rx == nil && e.key == "" {
		return true
	}
	var low [128]byte
	if len(name) > len(low) {
		return false
	}
	for i, c := range name {
		if c >= 0x80 {
			return false
		}
		low[i] = lowerASCII(c)
	}
	if e.rx != nil {
		return e.rx.Match(low[:len(name)])
	}
	return string(low[:len(name)]) == e.key
}

// Overlay is what one check leaves out: rules, and values of rules. The zero Overlay leaves out
// nothing. It is only right for variables that none of the rules counts; see Counted.
type Overlay struct {
	gone  RuleSet
	parts []*Exemption
}

// Reset empties the overlay and keeps its memory.
func (o *Overlay) Reset() {
	clear(o.gone)
	clear(o.parts)
	o.parts = o.parts[:0]
}

// Remove leaves rules out.
func (o *Overlay) Remove(rules RuleSet) {
	for len(o.gone) < len(rules) {
		o.gone = append(o.gone, 0)
	}
	for i, w := range rules {
		o.gone[i] |= w
	}
}

// Removed says whether a rule is left out.
func (o *Overlay) Removed(rule int) bool { return o.gone.Has(rule) }

// Exempt leaves values out. The overlay keeps e until Reset.
func (o *Overlay) Exempt(e *Exemption) { o.parts = append(o.parts, e) }

// spares says that a hit of a rule by a value does not count.
func (o *Overlay) spares(rule int, v variable, name []byte) bool {
	if o == nil {
		return false
	}
	if o.gone.Has(rule) {
		return true
	}
	for _, e := range o.parts {
		if e.covers(rule, v, name) {
			return true
		}
	}
	return false
}

// Counted says whether one of the rules counts values of the variable. To take such a variable
// out of a rule for one request may make it match, so that nothing is proved of that request.
func (s *Screen) Counted(name string, rules RuleSet) bool {
	v := fed[name]
	for _, c := range s.rules {
		if !rules.Has(c.no) {
			continue
		}
		for _, k := range c.conds {
			if k.link == countLink && s.slots[k.slot].v == v {
				return true
			}
		}
	}
	return false
}
