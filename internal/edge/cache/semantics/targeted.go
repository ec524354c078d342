package semantics

import (
	"github.com/relais-edge/relais/internal/http/message"
)

// Target is a targeted field that a cache obeys; an ID of message.Other means that it is found by
// its name. A cache's target list is a slice of them, the most specific first (RFC 9213 section 2.2).
type Target struct {
	ID   message.ID
	Name string
}

// NewTarget returns the target for a field name.
func NewTarget(name string) Target { return Target{message.KnownID([]byte(name)), name} }

// next is the index of the first line of the field from i on, or -1.
func (t *Target) next(f *message.Fields, i int) int {
	if t.ID != message.Other {
		return f.Next(t.ID, i)
	}
	for ; i < f.Len(); i++ {
		if id, name, _ := f.At(i); id == message.Other && message.EqualFold(name, t.Name) {
			return i
		}
	}
	return -1
}

func (t *Target) in(f *message.Fields) bool { return t.next(f, 0) >= 0 }

// parseTargeted reads a targeted field (RFC 9213 section 2.1): a structured Dictionary. A field
// that is empty, that does not parse, or in which a known directive has a wrong type is as if
// it were not there. Of a key given twice the last counts (RFC 9651 section 3.2).
func parseTargeted(f *message.Fields, t Target) (c Control, ok bool) {
	members := 0
	for i := t.next(f, 0); i >= 0; i = t.next(f, i+1) {
		_, _, line := f.At(i)
		p := sfParser{b: line}
		var m member
		for p.next(&m) {
			members++
			if !c.target(&m) {
				return Control{}, false
			}
		}
		if p.bad {
			return Control{}, false
		}
	}
	c.Targeted, c.from = true, t
	return c, members > 0
}

// target notes a directive; false says that its type is wrong.
func (c *Control) target(m *member) bool {
	switch string(m.key) {
	case "max-age":
		return c.number(m, MaxAge, &c.MaxAge)
	case "s-maxage":
		return c.number(m, SMaxAge, &c.SMaxAge)
	case "stale-while-revalidate":
		return c.number(m, StaleWhileRevalidate, &c.While)
	case "stale-if-error":
		return c.number(m, StaleIfError, &c.Err)
	case "no-store":
		return c.flag(m, NoStore)
	case "public":
		return c.flag(m, Public)
	case "must-revalidate":
		return c.flag(m, MustRevalidate)
	case "proxy-revalidate":
		return c.flag(m, ProxyRevalidate)
	case "must-understand":
		return c.flag(m, MustUnderstand)
	case "immutable":
		return c.flag(m, Immutable)
	case "no-cache":
		return c.listed(m, NoCache)
	case "private":
		return c.listed(m, Private)
	}
	return true
}

func (c *Control) number(m *member, s Set, at *int64) bool {
	if m.kind != kindInteger {
		return false
	}
	c.Set |= s
	*at = min(max(m.num, 0), MaxDelta)
	return true
}

func (c *Control) flag(m *member, s Set) bool {
	if m.kind != kindBool {
		return false
	}
	c.Set &^= s
	if m.yes {
		c.Set |= s
	}
	return true
}

func (c *Control) listed(m *member, s Set) bool {
	if m.kind != kindString && m.kind != kindToken {
		return c.flag(m, s)
	}
	if isFieldList(m.text) {
		c.Set |= FieldLists
	} else {
		c.Set |= s
	}
	return true
}

// targetedNames says whether a no-cache or private of the targeted field names the field.
func targetedNames(f *message.Fields, t Target, name []byte) bool {
	for i := t.next(f, 0); i >= 0; i = t.next(f, i+1) {
		_, _, line := f.At(i)
		p := sfParser{b: line}
		var m member
		for p.next(&m) {
			if (string(m.key) == "no-cache" || string(m.key) == "private") && m.kind != kindBool && listHas(m.text, name) {
				return true
			}
		}
	}
	return false
}
