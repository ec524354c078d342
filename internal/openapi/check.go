package openapi

import (
	"fmt"
	"math/big"
	"math/bits"
	"strings"
	"unicode/utf8"
)

// maxSteps bounds the work for one request, whatever its document and its body are: a step is a schema held
// against a value, a constant compared, textStep bytes of a text or numberStep of a number read, or matchStep of a pattern's work done.
const (
	maxSteps   = 200_000
	textStep   = 128
	numberStep = 16  // bytes of a number, which cost more
	matchStep  = 128 // bytes by instructions
)

// checker holds values against schemas.
type checker struct {
	*tree
	steps int
	quiet int // above 0 nobody asks why
	buf   []byte
	seen  []uint64 // bits of the required members that are there, for all objects on the way
	where int      // the node that failed
	why   string
}

// fail notes why a value does not hold. What is said last is nearest to the root, so the first is kept.
func (c *checker) fail(i int, why string) bool {
	if c.quiet == 0 && c.why == "" {
		c.where, c.why = i, why
	}
	return false
}

// spent says that the work is over.
func (c *checker) spent(n int) bool {
	c.steps -= n
	return c.steps < 0
}

// check says whether the value of node i holds.
func (c *checker) check(s *schema, i int) bool {
	if c.spent(1) {
		return c.fail(i, whySpent)
	}
	n := &c.nodes[i]
	switch {
	case s.never:
		return c.fail(i, "is not allowed")
	case s.types != 0 && s.types&(1<<n.kind) == 0:
		return c.mistyped(s, i)
	case n.kind == kindString && c.spent(int(n.end-n.start)/textStep), n.kind == kindNumber && c.spent(int(n.end-n.start)/numberStep):
		return c.fail(i, whySpent) // it may be read as a whole
	case s.types&whole != 0 && n.kind == kindNumber && !c.whole(i):
		return c.fail(i, "is a number with a fraction, not an integer")
	}
	if s.fixed != nil && !c.sameAs(i, s.fixed) {
		return c.fail(i, c.or("is not the one value that the document allows"))
	}
	if s.enum != nil && !c.among(s, i) {
		return c.fail(i, c.or("is none of the values that the document lists"))
	}
	ok := true
	switch n.kind {
	case kindNumber:
		ok = c.number(s, i)
	case kindString:
		ok = c.text(s, i)
	case kindArray:
		ok = c.array(s, i)
	case kindObject:
		ok = c.object(s, i)
	}
	return ok && c.combined(s, i)
}

const whySpent = "takes more work to check than is allowed for a request"

func (c *checker) mistyped(s *schema, i int) bool {
	if c.quiet > 0 {
		return false
	}
	var want []string
	for k, name := range kindNames {
		if s.types&(1<<k) == 0 {
			continue
		}
		if kind(k) == kindNumber && s.types&whole != 0 {
			name = "integer"
		}
		want = append(want, name)
	}
	return c.fail(i, "is of type "+kindNames[c.nodes[i].kind]+", not "+strings.Join(want, " or "))
}

func (c *checker) among(s *schema, i int) bool {
	if c.spent(len(s.enum)) {
		return c.fail(i, whySpent)
	}
	return c.sameAs(i, s.enum)
}

// match holds a text against a pattern; enough is false when the work is over.
func (c *checker) match(p *matcher, text []byte) (ok, enough bool) {
	if c.spent(1 + len(text)*p.work/matchStep) {
		return false, false
	}
	return p.Match(text), true
}

func (c *checker) number(s *schema, i int) bool {
	if s.min == nil && s.max == nil && s.above == nil && s.below == nil && s.multiple == nil {
		return true
	}
	switch f := c.float(i); {
	case s.min != nil && f < *s.min:
		return c.fail(i, fmt.Sprint("is less than ", *s.min))
	case s.max != nil && f > *s.max:
		return c.fail(i, fmt.Sprint("is more than ", *s.max))
	case s.above != nil && f <= *s.above:
		return c.fail(i, fmt.Sprint("is not above ", *s.above))
	case s.below != nil && f >= *s.below:
		return c.fail(i, fmt.Sprint("is not below ", *s.below))
	}
	if s.multiple != nil {
		if r, ok := c.rational(i); !ok || !new(big.Rat).Quo(r, s.multiple).IsInt() {
			return c.fail(i, "is not a multiple of "+s.multiple.RatString())
		}
	}
	return true
}

func (c *checker) text(s *schema, i int) bool {
	if s.minLength < 0 && s.maxLength < 0 && s.pattern == nil {
		return true
	}
	text := c.str(i, c.buf)
	if c.nodes[i].escaped {
		c.buf = text
	}
	if s.minLength >= 0 || s.maxLength >= 0 {
		switch n := utf8.RuneCount(text); {
		case n < s.minLength:
			return c.fail(i, fmt.Sprint("is shorter than ", s.minLength))
		case s.maxLength >= 0 && n > s.maxLength:
			return c.fail(i, fmt.Sprint("is longer than ", s.maxLength))
		}
	}
	if s.pattern != nil {
		if ok, _ := c.match(s.pattern, text); !ok {
			return c.fail(i, c.or("does not match its pattern"))
		}
	}
	return true
}

func (c *checker) array(s *schema, i int) bool {
	n := &c.nodes[i]
	switch size := int(n.size); {
	case size < s.minItems:
		return c.fail(i, fmt.Sprint("has fewer than ", s.minItems, " items"))
	case s.maxItems >= 0 && size > s.maxItems:
		return c.fail(i, fmt.Sprint("has more than ", s.maxItems, " items"))
	}
	if s.items == nil && len(s.prefix) == 0 && s.contains == nil && !s.unique {
		return true
	}
	held, at := 0, 0
	var seen map[string]bool
	if s.unique && n.size > 1 {
		seen = make(map[string]bool, n.size)
	}
	for k := i + 1; k < int(n.next); k = int(c.nodes[k].next) {
		switch {
		case at < len(s.prefix):
			if !c.check(s.prefix[at], k) {
				return false
			}
		case s.items != nil:
			if !c.check(s.items, k) {
				return false
			}
		}
		if s.contains != nil && c.trial(s.contains, k) {
			held++
		}
		if seen != nil {
			if c.spent(int(c.nodes[k].next) - k + int(c.nodes[k].end-c.nodes[k].start)/64) {
				return c.fail(k, whySpent)
			}
			one := string(c.canonical(k, nil))
			if seen[one] {
				return c.fail(k, "stands twice in a list of different items")
			}
			seen[one] = true
		}
		at++
	}
	switch {
	case s.contains == nil:
	case held < s.minContains:
		return c.fail(i, "holds too few items of the kind that the document asks for")
	case s.maxContains >= 0 && held > s.maxContains:
		return c.fail(i, "holds too many items of the kind that the document bounds")
	}
	return true
}

func (c *checker) object(s *schema, i int) bool {
	n := &c.nodes[i]
	switch size := int(n.size); {
	case size < s.minProps:
		return c.fail(i, fmt.Sprint("has fewer than ", s.minProps, " members"))
	case s.maxProps >= 0 && size > s.maxProps:
		return c.fail(i, fmt.Sprint("has more than ", s.maxProps, " members"))
	}
	base, words := len(c.seen), (len(s.properties)+63)/64
	if c.spent(words) {
		return c.fail(i, whySpent)
	}
	for range words {
		c.seen = append(c.seen, 0)
	}
	ok := c.membersOf(s, i, base)
	if ok && s.required > 0 {
		ok = c.complete(s, i, base)
	}
	c.seen = c.seen[:base]
	return ok && c.needed(s, i)
}

// membersOf holds the members against their schemas. A name that the schema knows must not stand twice (RFC 8259
// section 4): the edge and the origin could each take another.
func (c *checker) membersOf(s *schema, i, base int) bool {
	n := &c.nodes[i]
	for k := i + 1; k < int(n.next); k = int(c.nodes[k+1].next) {
		if s.naming != nil && !c.check(s.naming, k) {
			return false
		}
		name := c.str(k, c.buf)
		if c.nodes[k].escaped {
			c.buf = name
		}
		if c.spent(len(name) / textStep) {
			return c.fail(k, whySpent)
		}
		p, known := s.properties[string(name)]
		if known {
			bit := uint64(1) << (p.number % 64)
			if c.seen[base+p.number/64]&bit != 0 {
				return c.fail(k, "stands twice")
			}
			c.seen[base+p.number/64] |= bit
		}
		declared := known && p.schema != nil
		matched := false
		for j := range s.patterns {
			ok, enough := c.match(s.patterns[j].name, name)
			if !enough {
				return c.fail(k, whySpent)
			}
			if ok {
				if matched = true; !c.check(s.patterns[j].schema, k+1) {
					return false
				}
				if name = c.str(k, c.buf); c.nodes[k].escaped {
					c.buf = name
				}
			}
		}
		switch {
		case declared:
			if !c.check(p.schema, k+1) {
				return false
			}
		case matched || s.additional == nil:
			if c.spent(1) {
				return c.fail(k, whySpent)
			}
		case s.additional.never:
			return c.fail(k, "is not in the document, which allows no others here")
		case !c.check(s.additional, k+1):
			return false
		}
	}
	return true
}

// complete finds the required members that are not there.
func (c *checker) complete(s *schema, i, base int) bool {
	there := 0
	for w := 0; w*64 < s.required; w++ {
		word := c.seen[base+w]
		if left := s.required - w*64; left < 64 {
			word &= 1<<left - 1
		}
		there += bits.OnesCount64(word)
	}
	if there == s.required {
		return true
	}
	if c.quiet > 0 || c.why != "" {
		return false // nobody asks which
	}
	missing := ""
	for name, p := range s.properties {
		if r := p.number; r < s.required && c.seen[base+r/64]&(1<<(r%64)) == 0 && (missing == "" || name < missing) {
			missing = name
		}
	}
	return c.fail(i, "lacks "+shown([]byte(missing)))
}

// needed holds what the presence of one member asks of others.
func (c *checker) needed(s *schema, i int) bool {
	for name, others := range s.needs {
		there, ok := c.has(i, name)
		if !ok {
			return c.fail(i, whySpent)
		}
		if !there {
			continue
		}
		for _, o := range others {
			if there, ok = c.has(i, o); !ok {
				return c.fail(i, whySpent)
			}
			if !there {
				return c.fail(i, "lacks "+shown([]byte(o))+", which belongs to "+shown([]byte(name)))
			}
		}
	}
	for k := range s.dependent {
		there, ok := c.has(i, s.dependent[k].name)
		if !ok {
			return c.fail(i, whySpent)
		}
		if there && !c.check(s.dependent[k].schema, i) {
			return false
		}
	}
	return true
}

// has says whether an object has a member; ok is false when the work is over.
func (c *checker) has(i int, name string) (there, ok bool) {
	n := &c.nodes[i]
	if c.spent(1 + int(n.size) + int(n.end-n.start)/textStep) {
		return false, false
	}
	return c.get(i, name) >= 0, true
}

// trial says whether a value holds, and forgets why not.
func (c *checker) trial(s *schema, i int) bool {
	c.quiet++
	ok := c.check(s, i)
	c.quiet--
	return ok
}

// combined holds the schemas that are put together.
func (c *checker) combined(s *schema, i int) bool {
	for _, o := range s.all {
		if !c.check(o, i) {
			return false
		}
	}
	if len(s.any) > 0 {
		ok := false
		for _, o := range s.any {
			if ok = c.trial(o, i); ok {
				break
			}
		}
		if !ok {
			return c.fail(i, c.or("holds against none of the forms that the document gives (anyOf)"))
		}
	}
	if len(s.one) > 0 {
		n := 0
		for _, o := range s.one {
			if c.trial(o, i) {
				n++
			}
		}
		switch {
		case n == 0:
			return c.fail(i, c.or("holds against none of the forms that the document gives (oneOf)"))
		case n > 1:
			return c.fail(i, c.or("holds against several of the forms of which the document allows one (oneOf)"))
		}
	}
	if s.not != nil && c.trial(s.not, i) {
		return c.fail(i, "is what the document forbids (not)")
	}
	if s.when != nil {
		branch := s.other
		if c.trial(s.when, i) {
			branch = s.then
		}
		if branch != nil && !c.check(branch, i) {
			return false
		}
	}
	// A trial that ended for want of work must not count as one that failed.
	return c.steps >= 0 || c.fail(i, whySpent)
}

// or is the reason why, unless the work was over.
func (c *checker) or(why string) string {
	if c.steps < 0 {
		return whySpent
	}
	return why
}
