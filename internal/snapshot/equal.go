package snapshot

import (
	"reflect"
	"time"

	"github.com/relais-edge/relais/internal/bundle"
)

// comparer tells whether compiled sites are the same. It remembers the specs that many sites share.
type comparer map[[2]any]bool

func (c comparer) sites(a, b *bundle.Site) bool {
	if a == b {
		return true
	}
	return a.Key == b.Key &&
		(a.Flood == b.Flood || a.Flood != nil && b.Flood != nil && same(a.Flood, b.Flood)) &&
		specs(c, a.Pools, b.Pools) && specs(c, a.Caches, b.Caches) && specs(c, a.Images, b.Images) && specs(c, a.WAF, b.WAF) &&
		specs(c, a.Access, b.Access) && specs(c, a.JWT, b.JWT) && specs(c, a.API, b.API) &&
		specs(c, a.RateLimits, b.RateLimits) && specs(c, a.Visitors, b.Visitors) &&
		specs(c, a.Rooms, b.Rooms) && specs(c, a.Bots, b.Bots) && same(&a.Challenge, &b.Challenge) &&
		same(&a.Hostnames, &b.Hostnames) && same(&a.Listeners, &b.Listeners) && same(&a.Routes, &b.Routes) &&
		same(&a.HTTPS, &b.HTTPS) && same(&a.Maintenance, &b.Maintenance) && same(&a.ErrorPages, &b.ErrorPages)
}

func specs[S any](c comparer, a, b map[string]*S) bool {
	if len(a) != len(b) {
		return false
	}
	for name, x := range a {
		y, ok := b[name]
		if !ok {
			return false
		}
		if x == y {
			continue
		}
		pair := [2]any{x, y}
		equal, known := c[pair]
		if !known {
			equal = same(x, y)
			c[pair] = equal
		}
		if !equal {
			return false
		}
	}
	return true
}

func same[T any](a, b *T) bool { return equal(reflect.ValueOf(a).Elem(), reflect.ValueOf(b).Elem()) }

// equal compares plain data: what specs are made of. Unlike reflect.DeepEqual it does not watch for
// cycles, which they cannot have, and takes an empty list for an absent one, as JSON does; a reload
// compares every site, and this takes a fraction of the time.
func equal(a, b reflect.Value) bool {
	switch a.Kind() {
	case reflect.Struct:
		if a.Type() == reflect.TypeFor[time.Time]() {
			return a.Interface().(time.Time).Equal(b.Interface().(time.Time))
		}
		for i := range a.NumField() {
			if !equal(a.Field(i), b.Field(i)) {
				return false
			}
		}
		return true
	case reflect.Pointer:
		if a.IsNil() || b.IsNil() || a.UnsafePointer() == b.UnsafePointer() {
			return a.IsNil() == b.IsNil()
		}
		return equal(a.Elem(), b.Elem())
	case reflect.Slice:
		if a.Len() != b.Len() {
			return false
		}
		for i := range a.Len() {
			if !equal(a.Index(i), b.Index(i)) {
				return false
			}
		}
		return true
	case reflect.String:
		return a.String() == b.String()
	case reflect.Int, reflect.Int64:
		return a.Int() == b.Int()
	case reflect.Float64:
		return a.Float() == b.Float()
	case reflect.Bool:
		return a.Bool() == b.Bool()
	}
	return a.CanInterface() && b.CanInterface() && reflect.DeepEqual(a.Interface(), b.Interface())
}
