package v1

import (
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Problem is something wrong in a document.
type Problem struct {
	// Field is where, such as spec.routes[2].match[0].path.regex.
	Field string `json:"field"`
	// What is wrong.
	What string `json:"what"`
	// Fix says how to mend it; it may be empty.
	Fix string `json:"fix,omitempty"`
}

// String joins the parts.
func (p Problem) String() string {
	s := p.Field + ": " + p.What
	if p.Fix != "" {
		s += "; " + p.Fix
	}
	return s
}

// maxProblems of one document are reported; who has more mends these first.
const maxProblems = 50

// Validate finds what is wrong in a document to which Default was applied, looking at nothing but the
// document: whether a document exists that it names is another question. It is nil when all is well.
func Validate(d Document) []Problem {
	kind, _ := d.Meta()
	var c checker
	v := reflect.ValueOf(d).Elem()
	s := ShapeOf(kind)
	c.object(v, s)
	meta := v.FieldByIndex(s.Field("kind").Index).String()
	if meta != "" && meta != string(kind) {
		c.add("kind", "is "+meta+" in a "+string(kind), "write "+string(kind))
	}
	c.in("spec")
	switch d := d.(type) {
	case *Listener:
		c.listener(&d.Spec)
	case *Certificate:
		c.certificate(&d.Spec)
	case *Site:
		c.site(&d.Spec)
	case *Service:
		c.service(&d.Spec)
	case *OriginPool:
		c.originPool(&d.Spec)
	case *CachePolicy:
		c.cachePolicy(&d.Spec)
	case *ImagePolicy:
		c.imagePolicy(&d.Spec)
	case *WafPolicy:
		c.wafPolicy(&d.Spec)
	case *AccessPolicy:
		c.accessPolicy(&d.Spec)
	case *JwtPolicy:
		c.jwtPolicy(&d.Spec)
	case *ApiPolicy:
		c.apiPolicy(&d.Spec)
	case *RateLimit:
		c.rateLimit(&d.Spec)
	case *VisitorPolicy:
		c.visitorPolicy(&d.Spec)
	case *WaitingRoom:
		c.waitingRoom(&d.Spec)
	case *BotPolicy:
		c.botPolicy(&d.Spec)
	case *FloodPolicy:
		c.floodPolicy(&d.Spec)
	case *Pop:
		c.pop(&d.Spec)
	case *Placement:
		c.placement(&d.Spec)
	case *KillSwitch:
		c.killSwitch(&d.Spec)
	case *RolloutPolicy:
		c.rolloutPolicy(&d.Spec)
	}
	return c.problems
}

// checker walks a document and remembers where it is.
type checker struct {
	at       []step
	problems []Problem
}

// step is a field's name, or an index when the name is empty.
type step struct {
	name  string
	index int
}

func (c *checker) in(name string) { c.at = append(c.at, step{name: name}) }
func (c *checker) item(i int)     { c.at = append(c.at, step{index: i}) }
func (c *checker) out()           { c.at = c.at[:len(c.at)-1] }

// each calls f for each index of a list, at the place of the element.
func (c *checker) each(name string, n int, f func(i int)) {
	c.in(name)
	for i := range n {
		c.item(i)
		f(i)
		c.out()
	}
	c.out()
}

// within calls f at the place of a field.
func (c *checker) within(name string, f func()) {
	c.in(name)
	f()
	c.out()
}

// add reports a problem of a field below the present place; an empty field is the place itself.
func (c *checker) add(field, what, fix string) {
	if len(c.problems) >= maxProblems {
		return
	}
	var b strings.Builder
	for _, s := range c.at {
		if s.name == "" {
			b.WriteString("[" + strconv.Itoa(s.index) + "]")
			continue
		}
		if b.Len() > 0 {
			b.WriteByte('.')
		}
		b.WriteString(s.name)
	}
	if field != "" {
		if b.Len() > 0 {
			b.WriteByte('.')
		}
		b.WriteString(field)
	}
	p := Problem{Field: b.String(), What: what, Fix: fix}
	if !slices.ContainsFunc(c.problems, func(q Problem) bool { return q.Field == p.Field && q.What == p.What }) {
		c.problems = append(c.problems, p)
	}
}

func (c *checker) object(v reflect.Value, s *Shape) {
	for i := range s.Fields {
		f := &s.Fields[i]
		fv := f.Of(v)
		if fv.IsZero() || f.Shape.Form == FormList && fv.Len() == 0 {
			if f.Required && f.Shape.Form == FormObject && !f.Pointer {
				c.within(f.Name, func() { c.object(fv, f.Shape) }) // says which of its fields are required
			} else if f.Required {
				c.add(f.Name, "is required", f.missing())
			}
			continue
		}
		if f.Pointer {
			fv = fv.Elem()
		}
		c.in(f.Name)
		c.value(fv, f.Shape, f)
		c.out()
	}
}

// missing says what to write for a required field.
func (f *Field) missing() string {
	switch {
	case len(f.Enum) > 0:
		return "write " + oneOf(f.Enum)
	case f.Ref != "":
		return "name " + article(string(f.Ref))
	case f.Min != nil || f.Max != nil:
		return f.Bounds()
	case f.Format == "host-port":
		return "write host:port, such as 10.0.1.10:8080"
	case f.Format == "listen":
		return "write host:port, such as 127.0.0.1:8080 or :443"
	case f.Format == "path":
		return "write a path, such as /"
	case f.Format == "name":
		return "write a name, such as shop"
	case f.MinItems > 0:
		return fmt.Sprintf("give at least %d", f.MinItems)
	}
	return ""
}

func (c *checker) value(v reflect.Value, s *Shape, f *Field) {
	switch s.Form {
	case FormObject:
		c.object(v, s)
	case FormList:
		c.count(v.Len(), f)
		for i := range min(v.Len(), max(f.MaxItems, 1)) {
			c.item(i)
			if e := v.Index(i); s.Elem.Form == FormString && e.Len() == 0 {
				c.add("", "is empty", "write a value or remove it")
			} else {
				c.value(e, s.Elem, f)
			}
			c.out()
		}
	case FormMap:
		c.count(v.Len(), f)
		c.labels(v)
	case FormString:
		c.text(v.String(), f)
	case FormInt:
		c.bounds(v.Int(), f)
		if len(f.Enum) > 0 && !slices.Contains(f.Enum, strconv.FormatInt(v.Int(), 10)) {
			c.add("", strconv.FormatInt(v.Int(), 10)+" is not possible here", "write "+oneOf(f.Enum))
		}
	case FormText:
		if v.CanInt() {
			c.bounds(v.Int(), f)
		}
	case FormBool:
	}
}

func (c *checker) count(n int, f *Field) {
	if n < f.MinItems {
		c.add("", fmt.Sprintf("has %d entries", n), fmt.Sprintf("give at least %d", f.MinItems))
	}
	if f.MaxItems > 0 && n > f.MaxItems {
		c.add("", fmt.Sprintf("has %d entries", n), fmt.Sprintf("give at most %d", f.MaxItems))
	}
}

func (c *checker) bounds(n int64, f *Field) {
	if f.Min != nil && n < *f.Min || f.Max != nil && n > *f.Max {
		s := f.Shape
		if s.Form == FormList {
			s = s.Elem
		}
		c.add("", bound(s, n)+" is out of bounds", f.Bounds())
	}
}

func (c *checker) text(s string, f *Field) {
	if len(f.Enum) > 0 && !slices.Contains(f.Enum, s) {
		fix := "write " + oneOf(f.Enum)
		if near := Suggest(s, slices.Values(f.Enum)); near != "" {
			fix = "did you mean " + quote(near) + "? It is " + oneOf(f.Enum)
		}
		c.add("", quote(s)+" is not possible here", fix)
		return
	}
	if f.MaxLength > 0 && len(s) > f.MaxLength {
		c.add("", fmt.Sprintf("is %d bytes long", len(s)), fmt.Sprintf("write at most %d bytes", f.MaxLength))
		return
	}
	if !utf8.ValidString(s) {
		c.add("", "is not UTF-8", "save the file as UTF-8")
		return
	}
	format := f.Format
	if format == "" && f.Ref != "" {
		format = "name"
	}
	if what, fix := checkFormat(format, s); what != "" {
		c.add("", what, fix)
	}
}

// labels bounds keys and values as Kubernetes does, so that they can be carried there.
func (c *checker) labels(v reflect.Value) {
	for _, k := range v.MapKeys() {
		if n := k.Len(); n == 0 || n > 317 {
			c.add("", fmt.Sprintf("has a key of %d bytes", n), "write from 1 to 317 bytes")
		}
		if n := v.MapIndex(k).Len(); n > 63 {
			c.add("", fmt.Sprintf("has a value of %d bytes", n), "write at most 63 bytes")
		}
	}
}

// oneOf writes a choice as English does.
func oneOf(words []string) string {
	if len(words) == 1 {
		return words[0]
	}
	return strings.Join(words[:len(words)-1], ", ") + " or " + words[len(words)-1]
}

func article(noun string) string {
	if strings.IndexByte("AEIOU", noun[0]) >= 0 {
		return "an " + noun
	}
	return "a " + noun
}
