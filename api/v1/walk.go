package v1

import (
	"reflect"
	"strconv"
)

// Walk calls fn for each field that is given in a document, outer ones before those in them. The path is such as
// spec.issuers[0].secret; of a list of texts the field is the whole list. The value can be set.
func Walk(d Document, fn func(path string, f *Field, v reflect.Value)) {
	kind, _ := d.Meta()
	walkObject(reflect.ValueOf(d).Elem(), ShapeOf(kind), "", fn)
}

func walkObject(v reflect.Value, s *Shape, at string, fn func(string, *Field, reflect.Value)) {
	for i := range s.Fields {
		f := &s.Fields[i]
		fv := f.Of(v)
		if fv.IsZero() {
			continue
		}
		if f.Pointer {
			fv = fv.Elem()
		}
		path := f.Name
		if at != "" {
			path = at + "." + f.Name
		}
		fn(path, f, fv)
		switch {
		case f.Shape.Form == FormObject:
			walkObject(fv, f.Shape, path, fn)
		case f.Shape.Form == FormList && f.Shape.Elem.Form == FormObject:
			for j := range fv.Len() {
				walkObject(fv.Index(j), f.Shape.Elem, path+"["+strconv.Itoa(j)+"]", fn)
			}
		}
	}
}

// Secrets calls fn for each secret text that a document holds, and puts what it gives in its place.
func Secrets(d Document, fn func(path, text string) string) {
	Walk(d, func(path string, f *Field, v reflect.Value) {
		switch {
		case !f.Secret:
		case v.Kind() == reflect.String:
			v.SetString(fn(path, v.String()))
		case v.Kind() == reflect.Slice:
			for i := range v.Len() {
				v.Index(i).SetString(fn(path+"["+strconv.Itoa(i)+"]", v.Index(i).String()))
			}
		}
	})
}
