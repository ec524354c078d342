package provider

import (
	"encoding"
	"fmt"
	"maps"
	"math/big"
	"reflect"
	"slices"

	"github.com/hashicorp/terraform-plugin-go/tftypes"

	v1 "github.com/relais-edge/relais/api/v1"
)

// typeOf is the Terraform type of a shape.
func typeOf(s *v1.Shape) tftypes.Type {
	switch s.Form {
	case v1.FormObject:
		all := map[string]tftypes.Type{}
		for i := range s.Fields {
			all[snake(s.Fields[i].Name)] = typeOf(s.Fields[i].Shape)
		}
		return tftypes.Object{AttributeTypes: all}
	case v1.FormMap:
		return tftypes.Map{ElementType: tftypes.String}
	case v1.FormList:
		return tftypes.List{ElementType: typeOf(s.Elem)}
	case v1.FormInt:
		return tftypes.Number
	case v1.FormBool:
		return tftypes.Bool
	}
	return tftypes.String
}

// fromJSON turns a value of a decoded document into Terraform's; what is absent is null.
func fromJSON(s *v1.Shape, v any) tftypes.Value {
	t := typeOf(s)
	switch v := v.(type) {
	case map[string]any:
		all := map[string]tftypes.Value{}
		if s.Form == v1.FormMap {
			for k, e := range v {
				all[k] = tftypes.NewValue(tftypes.String, fmt.Sprint(e))
			}
			return tftypes.NewValue(t, all)
		}
		for i := range s.Fields {
			all[snake(s.Fields[i].Name)] = fromJSON(s.Fields[i].Shape, v[s.Fields[i].Name])
		}
		return tftypes.NewValue(t, all)
	case []any:
		all := make([]tftypes.Value, len(v))
		for i, e := range v {
			all[i] = fromJSON(s.Elem, e)
		}
		return tftypes.NewValue(t, all)
	case float64:
		if s.Form == v1.FormInt {
			return tftypes.NewValue(t, big.NewFloat(v))
		}
		return tftypes.NewValue(t, fmt.Sprintf("%.0f", v)) // a Size may be a number
	case nil:
		return tftypes.NewValue(t, nil)
	}
	return tftypes.NewValue(t, v)
}

// toJSON is the other way; null is nil, and stays out of objects.
func toJSON(s *v1.Shape, v tftypes.Value) (any, error) {
	if v.IsNull() {
		return nil, nil
	}
	switch s.Form {
	case v1.FormObject, v1.FormMap:
		var m map[string]tftypes.Value
		if err := v.As(&m); err != nil {
			return nil, fmt.Errorf("an object: %w", err)
		}
		if s.Form == v1.FormMap {
			return mapJSON(m)
		}
		all := map[string]any{}
		for i := range s.Fields {
			f := &s.Fields[i]
			e, err := toJSON(f.Shape, m[snake(f.Name)])
			if err != nil {
				return nil, fmt.Errorf("%s: %w", f.Name, err)
			}
			if e != nil {
				all[f.Name] = e
			}
		}
		return all, nil
	case v1.FormList:
		var l []tftypes.Value
		err := v.As(&l)
		all := make([]any, len(l))
		for i := range l {
			if err == nil {
				all[i], err = toJSON(s.Elem, l[i])
			}
		}
		return all, err
	case v1.FormInt:
		var n big.Float
		err := v.As(&n)
		i, _ := n.Int64()
		return i, err
	case v1.FormBool:
		var b bool
		return b, v.As(&b)
	}
	var text string
	err := v.As(&text)
	return text, err
}

func mapJSON(m map[string]tftypes.Value) (any, error) {
	all := map[string]any{}
	for _, k := range slices.Sorted(maps.Keys(m)) {
		var text string
		if err := m[k].As(&text); err != nil {
			return nil, fmt.Errorf("%s: %w", k, err)
		}
		all[k] = text
	}
	return all, nil
}

// parse reads a Duration, a Size, a Percent or a Time.
func parse(s *v1.Shape, text string) (reflect.Value, error) {
	v := reflect.New(s.Type)
	u, ok := v.Interface().(encoding.TextUnmarshaler)
	if !ok {
		return v.Elem(), fmt.Errorf("%s has no text", s.Type)
	}
	return v.Elem(), u.UnmarshalText([]byte(text))
}

// keep gives what a field is now, as it was written before where that means the same: 60s for 1m, false where the control
// plane leaves it out, and a secret, of which it shows only what stands for it.
func keep(f *v1.Field, before, now tftypes.Value) tftypes.Value {
	if before.IsNull() || !before.IsFullyKnown() && f.Shape.Form != v1.FormObject && f.Shape.Form != v1.FormList || !now.IsKnown() || !before.IsKnown() {
		return now
	}
	if now.IsNull() {
		if isList := f.Shape.Form == v1.FormList; (isList || !f.Pointer) && zero(f.Shape, before) {
			return before
		}
		return now
	}
	if f.Secret && (f.Shape.Form != v1.FormList || length(before) == length(now)) {
		return before
	}
	return keepShape(f.Shape, before, now)
}

func keepShape(s *v1.Shape, before, now tftypes.Value) tftypes.Value {
	switch s.Form {
	case v1.FormObject:
		var b, n map[string]tftypes.Value
		if before.IsNull() || !before.IsKnown() || now.IsNull() || !now.IsKnown() || before.As(&b) != nil || now.As(&n) != nil {
			return now
		}
		all := maps.Clone(n)
		for i := range s.Fields {
			name := snake(s.Fields[i].Name)
			all[name] = keep(&s.Fields[i], b[name], n[name])
		}
		return tftypes.NewValue(typeOf(s), all)
	case v1.FormList:
		var b, n []tftypes.Value
		if before.As(&b) != nil || now.As(&n) != nil {
			return now
		}
		all := slices.Clone(n)
		for i := range min(len(b), len(n)) {
			all[i] = keepShape(s.Elem, b[i], n[i])
		}
		return tftypes.NewValue(typeOf(s), all)
	case v1.FormText:
		var b, n string
		if !before.IsKnown() || before.As(&b) != nil || !now.IsKnown() || now.As(&n) != nil {
			return now
		}
		x, err := parse(s, b)
		y, err2 := parse(s, n)
		if err == nil && err2 == nil && same(x, y) {
			return before
		}
	}
	return now
}

func same(x, y reflect.Value) bool {
	if a, ok := x.Interface().(v1.Time); ok {
		b, _ := y.Interface().(v1.Time)
		return a.Equal(b.Time)
	}
	return x.Interface() == y.Interface()
}

func length(v tftypes.Value) int {
	var l []tftypes.Value
	if v.As(&l) != nil {
		return -1
	}
	return len(l)
}

// zero tells what a control plane does not keep because it says nothing.
func zero(s *v1.Shape, v tftypes.Value) bool {
	j, err := toJSON(s, v)
	if err != nil {
		return false
	}
	return nothing(s, j)
}

func nothing(s *v1.Shape, j any) bool {
	switch j := j.(type) {
	case nil:
		return true
	case map[string]any:
		for k, e := range j {
			f := s.Field(k)
			if f == nil || f.Pointer || !nothing(f.Shape, e) {
				return false
			}
		}
		return true
	case []any:
		return len(j) == 0
	case string:
		if s.Form == v1.FormText {
			v, err := parse(s, j)
			return err == nil && v.IsZero()
		}
	}
	return reflect.ValueOf(j).IsZero()
}
