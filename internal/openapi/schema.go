package openapi

import (
	"errors"
	"fmt"
	"maps"
	"math/big"
	"regexp"
	"regexp/syntax"
	"slices"
)

// Limits of what a document may ask for.
const (
	maxSchemas  = 50_000
	maxProgram  = 2000 // instructions of a pattern: the work for each byte of a text
	maxPatterns = 10_000
	maxPrograms = 200_000 // instructions of all patterns
	maxRefs     = 64      // that follow one another
	maxBeside   = 512     // schemas that one value is held against, each within the other
	maxParts    = 200_000 // parameters and media types of all operations
	maxLooks    = 100_000 // schemas looked at for the types of parameters
)

// schema is a compiled JSON Schema, of the dialect that OpenAPI 3.0 has or of 2020-12, as far as it can be held
// against a request. A schema does not change once its document is compiled.
type schema struct {
	never bool
	// types is a bit for each kind that is taken, and whole for whole numbers only; 0 takes all.
	types uint8
	enum  []constant
	fixed []constant // the one of const

	min, max, above, below *float64
	multiple               *big.Rat

	minLength, maxLength int // -1 for none
	pattern              *matcher

	minItems, maxItems       int
	unique                   bool
	prefix                   []*schema
	items, contains          *schema
	minContains, maxContains int

	properties         map[string]*property
	required           int // how many; their numbers are the first
	patterns           []patterned
	additional, naming *schema
	minProps, maxProps int
	needs              map[string][]string

	all, any, one     []*schema
	not               *schema
	when, then, other *schema
	dependent         []dependent
}

const whole = 1 << 7

// property is a member that has a schema, or must be there.
type property struct {
	schema *schema // nil when it is only required
	number int     // its own; -1 while it has none
}

type patterned struct {
	name   *matcher
	schema *schema
}

// matcher is a pattern and the work for each byte that it is held against.
type matcher struct {
	*regexp.Regexp
	work int
}

type dependent struct {
	name   string
	schema *schema
}

// constant is a value of enum or const.
type constant struct {
	kind   kind
	number float64
	text   string // of a string; of a list or object in its one form
}

// schema gives the schema of a node; it is filled in by drain.
func (c *compiler) schema(i int) (*schema, error) {
	if s := c.schemas[i]; s != nil {
		return s, nil
	}
	if len(c.schemas) >= maxSchemas {
		return nil, fmt.Errorf("the document has more than %d schemas", maxSchemas)
	}
	s := &schema{minLength: -1, maxLength: -1, minItems: -1, maxItems: -1, minProps: -1, maxProps: -1, minContains: 1, maxContains: -1}
	c.schemas[i] = s
	c.queue = append(c.queue, i)
	return s, nil
}

// drain fills in the schemas that were asked for, and those that they ask for.
func (c *compiler) drain() error {
	for len(c.queue) > 0 {
		i := c.queue[len(c.queue)-1]
		c.queue = c.queue[:len(c.queue)-1]
		if err := c.fill(c.schemas[i], i); err != nil {
			return at(i, err)
		}
	}
	return nil
}

func (c *compiler) fill(s *schema, i int) error {
	switch n := &c.doc.nodes[i]; {
	case n.kind == kindBool:
		s.never = string(c.doc.raw(i)) == "false"
		return nil
	case n.kind != kindObject:
		return errors.New("a schema is neither an object nor true or false")
	}
	alone := c.old && c.text(i, "$ref") != "" // OpenAPI 3.0.3, Reference Object: what stands beside it is ignored
	if err := c.doc.members(i, func(name string, v int) error {
		if alone && name != "$ref" {
			return nil
		}
		if err := c.keyword(s, i, name, v); err != nil {
			return at(v, fmt.Errorf("%s: %w", name, err))
		}
		return nil
	}); err != nil || alone {
		return err
	}
	if c.flag(i, "nullable") && s.types != 0 { // OpenAPI 3.0
		s.types |= 1 << kindNull
		if s.enum != nil {
			s.enum = append(s.enum, constant{kind: kindNull})
		}
	}
	// OpenAPI 3.0 has booleans where JSON Schema has numbers now.
	if c.flag(i, "exclusiveMinimum") {
		s.above, s.min = s.min, nil
	}
	if c.flag(i, "exclusiveMaximum") {
		s.below, s.max = s.max, nil
	}
	if err := c.require(s, i); err != nil {
		return err
	}
	next := s.required
	for _, p := range s.properties {
		if p.number < 0 {
			p.number = next
			next++
		}
	}
	return nil
}

// require notes the members that must be there. One that is only read is not sent (OpenAPI 3.0.3, readOnly).
func (c *compiler) require(s *schema, i int) error {
	list := c.child(i, "required")
	if list < 0 || c.doc.nodes[list].kind != kindArray {
		return nil
	}
	of := c.child(i, "properties")
	return c.doc.members(list, func(_ string, v int) error {
		if c.doc.nodes[v].kind != kindString {
			return errors.New("required: holds something that is no name")
		}
		name := string(c.doc.str(v, nil))
		p := s.properties[name]
		if p != nil && p.number >= 0 {
			return nil
		}
		if of >= 0 && p != nil {
			if at, err := c.follow(c.child(of, name)); err != nil {
				return err
			} else if c.flag(at, "readOnly") {
				return nil
			}
		}
		if p == nil {
			p = &property{}
			if s.properties == nil {
				s.properties = map[string]*property{}
			}
			s.properties[name] = p
		}
		p.number = s.required
		s.required++
		return nil
	})
}

// keyword reads one member of a schema.
func (c *compiler) keyword(s *schema, i int, name string, v int) (err error) {
	d := c.doc
	switch name {
	case "$ref":
		to, err := c.point(c.text(i, "$ref"))
		if err != nil {
			return err
		}
		return c.into(&s.all, to)
	case "type":
		return c.types(s, v)
	case "enum":
		if d.nodes[v].kind != kindArray {
			return errors.New("is not a list")
		}
		return d.members(v, func(_ string, e int) error { s.enum = append(s.enum, d.constant(e)); return nil })
	case "const":
		k := d.constant(v)
		s.fixed = []constant{k}
	case "minimum":
		s.min, err = d.bound(v)
	case "maximum":
		s.max, err = d.bound(v)
	case "exclusiveMinimum":
		if d.nodes[v].kind != kindBool {
			s.above, err = d.bound(v)
		}
	case "exclusiveMaximum":
		if d.nodes[v].kind != kindBool {
			s.below, err = d.bound(v)
		}
	case "multipleOf":
		var ok bool
		if s.multiple, ok = d.rational(v); !ok || s.multiple.Sign() <= 0 {
			return errors.New("is not a number above 0")
		}
	case "minLength":
		s.minLength, err = d.count(v)
	case "maxLength":
		s.maxLength, err = d.count(v)
	case "minItems":
		s.minItems, err = d.count(v)
	case "maxItems":
		s.maxItems, err = d.count(v)
	case "minProperties":
		s.minProps, err = d.count(v)
	case "maxProperties":
		s.maxProps, err = d.count(v)
	case "minContains":
		s.minContains, err = d.count(v)
	case "maxContains":
		s.maxContains, err = d.count(v)
	case "uniqueItems":
		s.unique = string(d.raw(v)) == "true"
	case "pattern":
		s.pattern, err = c.regexp(v)
	default:
		return c.applicator(s, i, name, v)
	}
	return err
}

// applicator reads a member of a schema that holds other schemas.
func (c *compiler) applicator(s *schema, i int, name string, v int) (err error) {
	d := c.doc
	switch name {
	case "allOf":
		return c.list(&s.all, v)
	case "anyOf":
		return c.list(&s.any, v)
	case "oneOf":
		return c.list(&s.one, v)
	case "not":
		s.not, err = c.schema(v)
	case "if":
		s.when, err = c.schema(v)
	case "then":
		if c.child(i, "if") >= 0 {
			s.then, err = c.schema(v)
		}
	case "else":
		if c.child(i, "if") >= 0 {
			s.other, err = c.schema(v)
		}
	case "prefixItems":
		return c.list(&s.prefix, v)
	case "items":
		s.items, err = c.schema(v)
	case "contains":
		s.contains, err = c.schema(v)
	case "additionalProperties":
		s.additional, err = c.schema(v)
	case "propertyNames":
		s.naming, err = c.schema(v)
	case "properties":
		return c.named(v, func(name string, p *schema) error {
			if s.properties == nil {
				s.properties = map[string]*property{}
			}
			s.properties[name] = &property{p, -1}
			return nil
		})
	case "patternProperties":
		return d.members(v, func(name string, e int) error {
			re, err := c.expression(name)
			if err != nil || re == nil {
				return err
			}
			p, err := c.schema(e)
			s.patterns = append(s.patterns, patterned{re, p})
			return err
		})
	case "dependentSchemas":
		return c.named(v, func(name string, p *schema) error {
			s.dependent = append(s.dependent, dependent{name, p})
			return nil
		})
	case "dependentRequired":
		return d.members(v, func(name string, e int) error {
			if s.needs == nil {
				s.needs = map[string][]string{}
			}
			return d.members(e, func(_ string, n int) error {
				s.needs[name] = append(s.needs[name], string(d.str(n, nil)))
				return nil
			})
		})
	case "unevaluatedProperties", "unevaluatedItems", "$dynamicRef", "$recursiveRef", "format", "contentEncoding", "contentMediaType", "contentSchema":
		c.note(name)
	}
	return err
}

func (c *compiler) into(list *[]*schema, i int) error {
	s, err := c.schema(i)
	*list = append(*list, s)
	return err
}

func (c *compiler) list(list *[]*schema, v int) error {
	if c.doc.nodes[v].kind != kindArray {
		return errors.New("is not a list")
	}
	return c.doc.members(v, func(_ string, e int) error { return c.into(list, e) })
}

func (c *compiler) named(v int, f func(string, *schema) error) error {
	if c.doc.nodes[v].kind != kindObject {
		return errors.New("is not an object")
	}
	return c.doc.members(v, func(name string, e int) error {
		s, err := c.schema(e)
		if err != nil {
			return err
		}
		return f(name, s)
	})
}

func (c *compiler) types(s *schema, v int) error {
	one := func(v int) error {
		name := string(c.doc.str(v, nil))
		if name == "integer" {
			if s.types&(1<<kindNumber) == 0 {
				s.types |= whole
			}
			s.types |= 1 << kindNumber
			return nil
		}
		for k, n := range kindNames {
			if n == name {
				s.types |= 1 << k
				if kind(k) == kindNumber {
					s.types &^= whole
				}
				return nil
			}
		}
		return fmt.Errorf("%q is no type; write string, number, integer, boolean, array, object or null", cut(name))
	}
	if c.doc.nodes[v].kind == kindArray {
		return c.doc.members(v, func(_ string, e int) error { return one(e) })
	}
	return one(v)
}

func (c *compiler) regexp(v int) (*matcher, error) {
	if c.doc.nodes[v].kind != kindString {
		return nil, errors.New("is not a text")
	}
	return c.expression(string(c.doc.str(v, nil)))
}

// expression compiles a pattern. One that only a backtracking engine could match is not held against requests.
func (c *compiler) expression(text string) (*matcher, error) {
	if c.patterns++; c.patterns > maxPatterns {
		return nil, fmt.Errorf("the document has more than %d patterns", maxPatterns)
	}
	re, err := syntax.Parse(text, syntax.Perl)
	if err != nil {
		c.note("pattern " + cut(text) + " (not of RE2's syntax)")
		return nil, nil
	}
	prog, err := syntax.Compile(re.Simplify())
	if err == nil {
		c.program += len(prog.Inst)
	}
	if err != nil || len(prog.Inst) > maxProgram || c.program > maxPrograms {
		c.note("pattern " + cut(text) + " (too large)")
		return nil, nil
	}
	compiled, err := regexp.Compile(text)
	return &matcher{compiled, len(prog.Inst)}, err
}

// circles finds schemas that hold themselves without a step into the value, which no value could satisfy, and those
// that lead through too many others.
func (c *compiler) circles() error {
	const under = -1
	height := make(map[*schema]int, len(c.schemas)) // how many follow one another from here; 0 where nobody looked
	type frame struct {
		s          *schema
		next, most int
	}
	for _, i := range slices.Sorted(maps.Keys(c.schemas)) {
		root := c.schemas[i]
		if height[root] != 0 {
			continue
		}
		stack := []frame{{s: root}}
		height[root] = under
		for len(stack) > 0 {
			f := &stack[len(stack)-1]
			to := f.s.beside(f.next)
			if f.next++; to == nil {
				h := f.most + 1
				if h > maxBeside {
					return at(i, fmt.Errorf("a schema leads through more than %d others without a step into the value", maxBeside))
				}
				height[f.s] = h
				if stack = stack[:len(stack)-1]; len(stack) > 0 {
					up := &stack[len(stack)-1]
					up.most = max(up.most, h)
				}
				continue
			}
			switch h := height[to]; h {
			case under:
				return at(i, errors.New("a schema refers to itself without a step into the value ($ref, allOf, anyOf, oneOf, not or if in a circle)"))
			case 0:
				height[to] = under
				stack = append(stack, frame{s: to})
			default:
				f.most = max(f.most, h)
			}
		}
	}
	return nil
}

// beside gives the n-th schema that s holds against the same value; nil after the last.
func (s *schema) beside(n int) *schema {
	for _, l := range [...][]*schema{s.all, s.any, s.one} {
		if n < len(l) {
			return l[n]
		}
		n -= len(l)
	}
	for _, o := range [...]*schema{s.not, s.when, s.then, s.other} {
		if o == nil {
			continue
		}
		if n == 0 {
			return o
		}
		n--
	}
	if n < len(s.dependent) {
		return s.dependent[n].schema
	}
	return nil
}
