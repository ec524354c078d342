package document

import (
	"encoding"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"

	v1 "github.com/relais-edge/relais/api/v1"
)

// maxFaults of one document are told.
const maxFaults = 50

// decoder turns a tree into a document. It is used again for many.
type decoder struct {
	t   *tree
	env func(string) (string, bool)
	// literal takes dollar signs as they are.
	literal bool
	at      []step
	faults  []fault
}

// step is a field's name, or an index when the name is empty.
type step struct {
	name  string
	index int
}

func (d *decoder) path() string {
	var b strings.Builder
	for _, s := range d.at {
		if s.name == "" {
			b.WriteString("[" + strconv.Itoa(s.index) + "]")
			continue
		}
		if b.Len() > 0 {
			b.WriteByte('.')
		}
		b.WriteString(s.name)
	}
	return b.String()
}

func (d *decoder) fault(at int32, what, fix string) {
	if len(d.faults) < maxFaults {
		d.faults = append(d.faults, fault{at: at, field: d.path(), what: what, fix: fix})
	}
}

// document decodes the tree; nil when it does not say what it is. The faults found are in d.faults.
func (d *decoder) document(t *tree) v1.Document {
	d.t, d.at, d.faults = t, d.at[:0], d.faults[:0]
	root := &t.nodes[0]
	if root.kind != mapping {
		d.fault(root.at, "is "+kindOf(root)+", not a document", "begin with apiVersion: "+v1.APIVersion+" and kind")
		return nil
	}
	doc := d.identify()
	if doc == nil {
		return nil
	}
	kind, _ := doc.Meta()
	d.object(0, reflect.ValueOf(doc).Elem(), v1.ShapeOf(kind))
	return doc
}

// identify makes an empty document of the kind that the tree names.
func (d *decoder) identify() v1.Document {
	version, vk := d.t.value(0, "apiVersion")
	kind, kk := d.t.value(0, "kind")
	start := d.t.nodes[0].at
	if vk == 0 {
		d.at = append(d.at, step{name: "apiVersion"})
		d.fault(start, "is missing", "write apiVersion: "+v1.APIVersion)
		d.at = d.at[:0]
	} else if n := &d.t.nodes[version]; n.text != v1.APIVersion {
		d.at = append(d.at, step{name: "apiVersion"})
		d.fault(d.t.nodes[vk].at, quote(n.text)+" is not a version that is known", "write "+v1.APIVersion)
		d.at = d.at[:0]
	}
	var what, fix string
	at := start
	if kk == 0 {
		what, fix = "is missing", "write one of "+join(kindNames(), "or")
	} else {
		at = d.t.nodes[kk].at
		n := &d.t.nodes[kind]
		if doc := v1.New(v1.Kind(n.text)); doc != nil && n.kind.scalar() {
			return doc
		}
		what, fix = quote(n.text)+" is not a kind that is known", "it is one of "+join(kindNames(), "and")
		if near := v1.Suggest(n.text, slices.Values(kindNames())); near != "" {
			fix = "did you mean " + quote(near) + "?"
		}
	}
	if n := &d.t.nodes[kind]; kk != 0 && v1.Reserved(v1.Kind(n.text)) {
		what, fix = quote(n.text)+" is reserved for a later version", "remove the document"
	}
	d.at = append(d.at, step{name: "kind"})
	d.fault(at, what, fix)
	d.at = d.at[:0]
	return nil
}

func kindNames() []string {
	var names []string
	for _, k := range v1.Kinds() {
		names = append(names, string(k))
	}
	return names
}

func (d *decoder) object(i int32, v reflect.Value, s *v1.Shape) {
	if d.t.nodes[i].kind != mapping {
		names := make([]string, 0, 3)
		for j := range min(3, len(s.Fields)) {
			names = append(names, s.Fields[j].Name)
		}
		d.fault(d.t.nodes[i].at, "is "+kindOf(&d.t.nodes[i])+" where fields are expected", "write fields such as "+join(names, "and"))
		return
	}
	var seen uint64
	for k := d.t.nodes[i].first; k != 0; {
		key := &d.t.nodes[k]
		val := key.next
		k = d.t.nodes[val].next
		n, f := fieldOf(s, key)
		if f == nil {
			d.unknown(key, s)
			continue
		}
		d.at = append(d.at, step{name: f.Name})
		if seen&(1<<n) != 0 {
			d.fault(key.at, "is given twice", "remove one")
		} else {
			seen |= 1 << n
			d.field(val, v, f)
		}
		d.at = d.at[:len(d.at)-1]
	}
}

func fieldOf(s *v1.Shape, key *node) (int, *v1.Field) {
	if key.kind.scalar() {
		for n := range s.Fields {
			if s.Fields[n].Name == key.text {
				return n, &s.Fields[n]
			}
		}
	}
	return 0, nil
}

func (d *decoder) unknown(key *node, s *v1.Shape) {
	if !key.kind.scalar() {
		d.fault(key.at, "has a key that is not a word", "write the name of a field")
		return
	}
	if len(d.faults) >= maxFaults {
		return
	}
	names := make([]string, len(s.Fields))
	for i := range s.Fields {
		names[i] = s.Fields[i].Name
	}
	fix, meant := "the fields here are "+join(names, "and"), ""
	if near := v1.Suggest(key.text, slices.Values(names)); near != "" {
		fix = "did you mean " + quote(near) + "?"
		meant = strings.TrimPrefix(d.path()+"."+near, ".")
	}
	d.at = append(d.at, step{name: printable(key.text)})
	d.fault(key.at, "there is no such field", fix)
	d.faults[len(d.faults)-1].meant = meant
	d.at = d.at[:len(d.at)-1]
}

// field decodes a value into a field of the struct v.
func (d *decoder) field(i int32, v reflect.Value, f *v1.Field) {
	n := &d.t.nodes[i]
	if n.kind == plain && isNull(n.text) {
		return
	}
	fv := f.Of(v)
	if f.Pointer {
		p := reflect.New(f.Shape.Type)
		if d.value(i, p.Elem(), f.Shape) {
			fv.Set(p)
		}
		return
	}
	if !d.value(i, fv, f.Shape) || f.Default == "" || !fv.IsZero() || !n.kind.scalar() {
		return
	}
	// A written zero that would be taken for absent.
	if f.Shape.Form == v1.FormString {
		d.fault(n.at, "is empty", "write a value, or leave the field out for "+quote(f.Default))
	} else if len(f.Enum) > 0 {
		d.fault(n.at, n.text+" is not possible here", "write "+join(f.Enum, "or"))
	} else if f.Min != nil && *f.Min > 0 {
		d.fault(n.at, n.text+" is out of bounds", f.Bounds())
	}
}

// value decodes a value; it reports false when there is nothing to keep.
func (d *decoder) value(i int32, v reflect.Value, s *v1.Shape) bool {
	switch s.Form {
	case v1.FormObject:
		d.object(i, v, s)
		return true
	case v1.FormList:
		d.list(i, v, s)
		return true
	case v1.FormMap:
		d.strings(i, v)
		return true
	}
	n := &d.t.nodes[i]
	if !n.kind.scalar() {
		fix := "write one value"
		if n.kind == sequence && n.first != 0 && n.next == 0 && d.t.nodes[n.first].next == 0 {
			fix = "write it without the brackets or the dash"
		}
		d.fault(n.at, "is "+kindOf(n)+" where "+formOf(s)+" is expected", fix)
		return false
	}
	text, fromEnv := n.text, false
	if !d.literal && strings.Contains(text, "$") {
		var what, fix string
		if text, what, fix = expand(text, d.env); what != "" {
			d.fault(n.at, what, fix)
			return false
		}
		if fromEnv = strings.Contains(n.text, "${"); fromEnv && text == "" {
			return false
		}
	}
	return d.scalar(n, text, fromEnv, v, s)
}

func (d *decoder) scalar(n *node, text string, fromEnv bool, v reflect.Value, s *v1.Shape) bool {
	if (s.Form == v1.FormInt || s.Form == v1.FormBool) && n.kind == quoted && !fromEnv {
		d.fault(n.at, "is a text where "+formOf(s)+" is expected", "remove the quotation marks")
		return false
	}
	switch s.Form {
	case v1.FormString:
		v.SetString(text)
	case v1.FormInt:
		x, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			d.fault(n.at, quote(text)+" is not a whole number", "write digits only, such as 10")
			return false
		}
		v.SetInt(x)
	case v1.FormBool:
		switch text {
		case "true", "True", "TRUE":
			v.SetBool(true)
		case "false", "False", "FALSE":
			v.SetBool(false)
		default:
			d.fault(n.at, quote(text)+" is neither true nor false", "write true or false")
			return false
		}
	case v1.FormText:
		if err := v.Addr().Interface().(encoding.TextUnmarshaler).UnmarshalText([]byte(text)); err != nil {
			what, fix, _ := strings.Cut(err.Error(), "; ")
			d.fault(n.at, what, fix)
			return false
		}
	}
	return true
}

func (d *decoder) list(i int32, v reflect.Value, s *v1.Shape) {
	n := &d.t.nodes[i]
	if n.kind != sequence {
		fix := "begin each entry with a dash"
		if n.kind.scalar() {
			fix = "write [" + printable(n.text) + "]"
			if strings.ContainsAny(n.text, "*&!|>%@`{}[],#?:-'\"\\ ") { // plain, they would mean something else
				fix = "write [" + strconv.Quote(printable(n.text)) + "]"
			}
		}
		d.fault(n.at, "is "+kindOf(n)+" where a list is expected", fix)
		return
	}
	count := 0
	for range d.t.children(i) {
		count++
	}
	list := reflect.MakeSlice(v.Type(), count, count)
	j := 0
	for c := range d.t.children(i) {
		d.at = append(d.at, step{index: j})
		if e := &d.t.nodes[c]; e.kind == plain && isNull(e.text) {
			d.fault(e.at, "is empty", "write a value or remove the entry")
		} else {
			d.value(c, list.Index(j), s.Elem)
		}
		d.at = d.at[:len(d.at)-1]
		j++
	}
	v.Set(list)
}

func (d *decoder) strings(i int32, v reflect.Value) {
	n := &d.t.nodes[i]
	if n.kind != mapping {
		d.fault(n.at, "is "+kindOf(n)+" where pairs are expected", "write pairs such as team: shop")
		return
	}
	m := map[string]string{}
	for k := n.first; k != 0; {
		key := &d.t.nodes[k]
		val := &d.t.nodes[key.next]
		d.at = append(d.at, step{name: printable(key.text)})
		text, what, fix := val.text, "", ""
		if !d.literal {
			text, what, fix = expand(val.text, d.env)
		}
		switch _, twice := m[key.text]; {
		case !key.kind.scalar() || !val.kind.scalar():
			d.fault(key.at, "is not a pair of texts", "write pairs such as team: shop")
		case twice:
			d.fault(key.at, "is given twice", "remove one")
		case what != "":
			d.fault(val.at, what, fix)
		default:
			m[key.text] = text
		}
		d.at = d.at[:len(d.at)-1]
		k = val.next
	}
	v.Set(reflect.ValueOf(maps.Clone(m)))
}

func kindOf(n *node) string {
	switch {
	case n.kind == mapping:
		return "a mapping"
	case n.kind == sequence:
		return "a list"
	case n.text == "":
		return "empty"
	}
	return "the text " + quote(n.text)
}

func formOf(s *v1.Shape) string {
	switch {
	case s.Form == v1.FormInt:
		return "a whole number"
	case s.Form == v1.FormBool:
		return "true or false"
	case s.Form == v1.FormText:
		return "a " + strings.ToLower(s.Type.Name())
	}
	return "a text"
}

func join(words []string, last string) string {
	if len(words) < 2 {
		return strings.Join(words, "")
	}
	return strings.Join(words[:len(words)-1], ", ") + " " + last + " " + words[len(words)-1]
}

// quote puts quotation marks around s, cut to a length that a person can read.
func quote(s string) string { return fmt.Sprintf("%q", printable(s)) }

// printable cuts s to a length that a person can read.
func printable(s string) string {
	const most = 60
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}
