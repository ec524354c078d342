package v1

import (
	"reflect"
	"strconv"
)

// Default fills in what a document leaves out. It may be called again: what is given stays.
func Default(d Document) {
	kind, _ := d.Meta()
	s := ShapeOf(kind)
	v := reflect.ValueOf(d).Elem()
	meta := v.FieldByName("TypeMeta").Addr().Interface().(*TypeMeta)
	if meta.APIVersion == "" {
		meta.APIVersion = APIVersion
	}
	if meta.Kind == "" {
		meta.Kind = kind
	}
	fillObject(v, s)
	switch d := d.(type) {
	case *Listener:
		defaultProtocols(&d.Spec)
	case *RateLimit:
		if d.Spec.SpareBaskets == nil { // a basket is no reason to guess passwords
			spare := len(d.Spec.Statuses) == 0
			d.Spec.SpareBaskets = &spare
		}
	case *RolloutPolicy:
		defaultRings(&d.Spec)
	case *OriginPool:
		for i := range d.Spec.Tiers {
			if d.Spec.Tiers[i].Name == "" {
				d.Spec.Tiers[i].Name = "tier-" + strconv.Itoa(i+1)
			}
		}
	}
}

func defaultProtocols(s *ListenerSpec) {
	switch {
	case len(s.Protocols) > 0:
	case s.TLS == nil:
		s.Protocols = []Protocol{ProtocolHTTP1, ProtocolH2C}
	default:
		s.Protocols = []Protocol{ProtocolHTTP1, ProtocolH2, ProtocolH3}
	}
}

func fillObject(v reflect.Value, s *Shape) {
	for i := range s.Fields {
		f := &s.Fields[i]
		if !f.value.IsValid() && !f.Shape.defaults {
			continue
		}
		fv := f.Of(v)
		switch {
		case f.Pointer && fv.IsNil():
			if f.value.IsValid() {
				p := reflect.New(f.Shape.Type)
				p.Elem().Set(f.value)
				fv.Set(p)
			}
		case f.Pointer && f.Shape.Form == FormObject:
			fillObject(fv.Elem(), f.Shape)
		case f.Shape.Form == FormObject:
			fillObject(fv, f.Shape)
		case f.Shape.Form == FormList:
			for j := range fv.Len() {
				fillObject(fv.Index(j), f.Shape.Elem)
			}
		case f.value.IsValid() && !f.Pointer && fv.IsZero():
			fv.Set(f.value)
		}
	}
}
