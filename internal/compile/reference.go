package compile

import (
	"iter"
	"reflect"
	"strconv"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/bundle"
)

// defaultOrganization owns what others may share: its listeners.
const defaultOrganization = "default"

// ref is a field that names a document. Its text is made only when there is something to say.
type ref struct {
	route int    // index of the route, or whole
	field string // in the route or in the spec
	index int    // in the field's list, or alone
	tail  string
}

const (
	whole = -1 // the spec, not one of its routes
	alone = -1 // a field that is no list
)

func (r ref) String() string {
	s := "spec."
	if r.route != whole {
		s += "routes[" + strconv.Itoa(r.route) + "]."
	}
	s += r.field
	if r.index != alone {
		s += "[" + strconv.Itoa(r.index) + "]"
	}
	return s + r.tail
}

// resolve finds the document that d names, in its own organization; a listener also in the one that shares its own.
func resolve[T v1.Document](c *compiler, t table[T], d v1.Document, name string, at ref) (T, bundle.Key, bool) {
	_, m := d.Meta()
	if c.named != nil {
		c.named(kindOf[T](), name)
	}
	key := bundle.NewKey(m.Organization, name)
	if x, ok := t[key]; ok {
		return x, key, true
	}
	kind := kindOf[T]()
	organizations := []string{m.Organization}
	if kind == v1.KindListener && m.Organization != c.shared {
		key = bundle.NewKey(c.shared, name)
		if x, ok := t[key]; ok {
			return x, key, true
		}
		organizations = append(organizations, c.shared)
	}
	var none T
	if name == "" || len(c.problems) >= maxProblems {
		return none, "", false // that it is missing, Validate has told
	}
	where := "in organization " + strconv.Quote(m.Organization)
	fix := "add the document, or name another"
	if len(organizations) > 1 {
		where += " or " + strconv.Quote(c.shared)
	}
	if len(c.problems) < maxSuggestions {
		if near := v1.Suggest(name, t.names(organizations)); near != "" {
			fix = "did you mean " + strconv.Quote(near) + "?"
		}
	}
	c.problem(d, at.String(), "there is no "+string(kind)+" "+strconv.Quote(name)+" "+where, fix)
	return none, "", false
}

// maxSuggestions bounds the work of looking for names that were meant.
const maxSuggestions = 50

// names of the documents of some organizations.
func (t table[T]) names(organizations []string) iter.Seq[string] {
	return func(yield func(string) bool) {
		for k := range t {
			o, name := k.Split()
			for _, want := range organizations {
				if o == want && !yield(name) {
					return
				}
			}
		}
	}
}

// kindOf gives the kind of a document type.
func kindOf[T v1.Document]() v1.Kind { return v1.Kind(reflect.TypeFor[T]().Elem().Name()) }
