package v1

import (
	"encoding"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// Form is how a value is written in a document.
type Form uint8

// The forms.
const (
	FormObject Form = iota // a mapping with known fields
	FormMap                // a mapping from any string to strings
	FormList               // a sequence
	FormString             // a string
	FormInt                // a whole number
	FormBool               // true or false
	FormText               // a scalar with its own text: Duration, Size, Percent, Time
)

// Shape is what the types and the tags of this package say about a kind, a field or an element.
// It does not change.
type Shape struct {
	Form Form
	// Type is the Go type, without its pointer.
	Type reflect.Type
	// Fields of an object, those of inlined structs among them, in the order of the source.
	Fields []Field
	// Elem is the shape of an element of a list; nil for the others.
	Elem     *Shape
	defaults bool // there are defaults in it or below it
}

// Field is a field of an object.
type Field struct {
	// Name in the document.
	Name string
	// Index of the Go field, through inlined structs.
	Index []int
	// Pointer tells that the Go field is a pointer to Shape.Type.
	Pointer bool
	Shape   *Shape
	Rules
}

// Rules are what the schema tag of a field says. See the package's documentation.
type Rules struct {
	Required bool
	// Default as it is written in a document; empty means none.
	Default string
	Enum    []string
	// Min and Max are nil when there is no bound. Durations count nanoseconds, sizes bytes.
	Min, Max *int64
	// MinItems, MaxItems and MaxLength are 0 when there is no bound.
	MinItems, MaxItems, MaxLength int
	Format                        string
	Ref                           Kind
	// Secret is closed where a control plane keeps it, and never given back.
	Secret bool
	// Local names something of the machine or the network that serves; a control plane takes it from its operator alone.
	Local bool

	value reflect.Value // the default, of type Shape.Type
}

// Field finds a field of an object by its name; nil when there is none.
func (s *Shape) Field(name string) *Field {
	for i := range s.Fields {
		if s.Fields[i].Name == name {
			return &s.Fields[i]
		}
	}
	return nil
}

// Of gives the field's value in a struct of the shape's type.
func (f *Field) Of(v reflect.Value) reflect.Value {
	for _, i := range f.Index {
		v = v.Field(i)
	}
	return v
}

// Kinds are all kinds, in the order in which a reader meets them best.
func Kinds() []Kind {
	return []Kind{
		KindListener, KindCertificate, KindSite, KindService, KindOriginPool,
		KindCachePolicy, KindImagePolicy, KindWafPolicy, KindAccessPolicy, KindJwtPolicy, KindApiPolicy, KindRateLimit, KindVisitorPolicy,
		KindWaitingRoom, KindBotPolicy, KindFloodPolicy, KindPop, KindPlacement, KindKillSwitch, KindRolloutPolicy,
	}
}

// New makes an empty document of a kind; nil when the kind is unknown.
func New(k Kind) Document {
	switch k {
	case KindListener:
		return new(Listener)
	case KindCertificate:
		return new(Certificate)
	case KindSite:
		return new(Site)
	case KindService:
		return new(Service)
	case KindOriginPool:
		return new(OriginPool)
	case KindCachePolicy:
		return new(CachePolicy)
	case KindImagePolicy:
		return new(ImagePolicy)
	case KindWafPolicy:
		return new(WafPolicy)
	case KindAccessPolicy:
		return new(AccessPolicy)
	case KindJwtPolicy:
		return new(JwtPolicy)
	case KindApiPolicy:
		return new(ApiPolicy)
	case KindRateLimit:
		return new(RateLimit)
	case KindVisitorPolicy:
		return new(VisitorPolicy)
	case KindWaitingRoom:
		return new(WaitingRoom)
	case KindBotPolicy:
		return new(BotPolicy)
	case KindFloodPolicy:
		return new(FloodPolicy)
	case KindPop:
		return new(Pop)
	case KindPlacement:
		return new(Placement)
	case KindKillSwitch:
		return new(KillSwitch)
	case KindRolloutPolicy:
		return new(RolloutPolicy)
	}
	return nil
}

// ShapeOf gives the shape of a kind's documents; nil when the kind is unknown.
func ShapeOf(k Kind) *Shape { return shapes()[k] }

// shapes reads the types and their tags once. It fails, at the first test, when a tag is wrong.
var shapes = sync.OnceValue(func() map[Kind]*Shape {
	m := map[Kind]*Shape{}
	for _, k := range Kinds() {
		m[k] = readShape(reflect.TypeOf(New(k)).Elem())
	}
	return m
})

func readShape(t reflect.Type) *Shape {
	s := &Shape{Type: t}
	switch {
	case reflect.PointerTo(t).Implements(reflect.TypeFor[encoding.TextUnmarshaler]()):
		s.Form = FormText
	case t.Kind() == reflect.Struct:
		s.Form = FormObject
		s.readFields(t, nil)
	case t.Kind() == reflect.Map:
		s.Form = FormMap
	case t.Kind() == reflect.Slice:
		s.Form = FormList
		s.Elem = readShape(t.Elem())
		s.defaults = s.Elem.defaults
	case t.Kind() == reflect.String:
		s.Form = FormString
	case t.Kind() == reflect.Int:
		s.Form = FormInt
	case t.Kind() == reflect.Bool:
		s.Form = FormBool
	default:
		panic("api/v1: no form for " + t.String())
	}
	return s
}

func (s *Shape) readFields(t reflect.Type, prefix []int) {
	for i := range t.NumField() {
		g := t.Field(i)
		index := append(slices.Clone(prefix), i)
		name, _, _ := strings.Cut(g.Tag.Get("json"), ",")
		if g.Anonymous && name == "" {
			s.readFields(g.Type, index)
			continue
		}
		f := Field{Name: name, Index: index}
		ft := g.Type
		if ft.Kind() == reflect.Pointer {
			f.Pointer, ft = true, ft.Elem()
		}
		f.Shape = readShape(ft)
		if err := f.readTag(g.Tag.Get("schema")); err != nil {
			panic(fmt.Sprintf("api/v1: %s.%s: %v", t, g.Name, err))
		}
		s.defaults = s.defaults || f.value.IsValid() || f.Shape.defaults
		s.Fields = append(s.Fields, f)
	}
}

func (f *Field) readTag(tag string) error {
	if tag == "" {
		return nil
	}
	leaf := f.Shape
	if leaf.Form == FormList {
		leaf = leaf.Elem
	}
	for part := range strings.SplitSeq(tag, ",") {
		key, val, _ := strings.Cut(part, "=")
		var err error
		switch key {
		case "required":
			f.Required = true
		case "secret":
			f.Secret = true
		case "local":
			f.Local = true
		case "default":
			f.Default = val
			f.value, err = parseLeaf(f.Shape, val)
		case "enum":
			f.Enum = strings.Split(val, "|")
		case "min":
			f.Min, err = parseBound(leaf, val)
		case "max":
			f.Max, err = parseBound(leaf, val)
		case "minItems":
			f.MinItems, err = strconv.Atoi(val)
		case "maxItems":
			f.MaxItems, err = strconv.Atoi(val)
		case "maxLength":
			f.MaxLength, err = strconv.Atoi(val)
		case "format":
			f.Format = val
			if !slices.Contains(formats[:], val) {
				err = fmt.Errorf("unknown format %q", val)
			}
		case "ref":
			f.Ref = Kind(val)
			if New(f.Ref) == nil {
				err = fmt.Errorf("unknown kind %q", val)
			}
		default:
			err = fmt.Errorf("unknown word %q", key)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// parseLeaf reads the text of a scalar into a new value of the shape's type.
func parseLeaf(s *Shape, text string) (reflect.Value, error) {
	v := reflect.New(s.Type).Elem()
	switch s.Form {
	case FormString:
		v.SetString(text)
	case FormInt:
		n, err := strconv.Atoi(text)
		if err != nil {
			return v, err
		}
		v.SetInt(int64(n))
	case FormBool:
		b, err := strconv.ParseBool(text)
		if err != nil {
			return v, err
		}
		v.SetBool(b)
	case FormText:
		return v, v.Addr().Interface().(encoding.TextUnmarshaler).UnmarshalText([]byte(text))
	default:
		return v, fmt.Errorf("a %s has no default", s.Type)
	}
	return v, nil
}

func parseBound(s *Shape, text string) (*int64, error) {
	v, err := parseLeaf(s, text)
	if err != nil {
		return nil, err
	}
	if !v.CanInt() {
		return nil, fmt.Errorf("%s has no bounds", s.Type)
	}
	return new(v.Int()), nil
}

// Bounds says in words which values a number, a Duration or a Size may have; empty when any.
func (f *Field) Bounds() string {
	s := f.Shape
	if s.Form == FormList {
		s = s.Elem
	}
	word := "a value"
	switch {
	case s.Form == FormInt:
		word = "a number"
	case s.Type == reflect.TypeFor[Duration]():
		word = "a duration"
	case s.Type == reflect.TypeFor[Size]():
		word = "a size"
	}
	switch {
	case f.Min != nil && f.Max != nil:
		return fmt.Sprintf("write %s from %s to %s", word, bound(s, *f.Min), bound(s, *f.Max))
	case f.Min != nil:
		return fmt.Sprintf("write %s of at least %s", word, bound(s, *f.Min))
	case f.Max != nil:
		return fmt.Sprintf("write %s of at most %s", word, bound(s, *f.Max))
	}
	return ""
}

func bound(s *Shape, n int64) string {
	switch s.Type {
	case reflect.TypeFor[Duration]():
		return Duration(n).String()
	case reflect.TypeFor[Size]():
		return Size(n).String()
	}
	return strconv.FormatInt(n, 10)
}
