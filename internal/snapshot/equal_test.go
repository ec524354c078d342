package snapshot

import (
	"reflect"
	"testing"
	"time"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/bundle"
)

// fill gives v a value that is not zero, all the way down.
func fill(t *testing.T, v reflect.Value) {
	t.Helper()
	if v.Type() == reflect.TypeFor[time.Time]() {
		v.Set(reflect.ValueOf(time.Unix(1, 0).UTC()))
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			fill(t, v.Field(i))
		}
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(t, v.Elem())
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		fill(t, v.Index(0))
	case reflect.Map:
		e := reflect.New(v.Type().Elem()).Elem()
		fill(t, e)
		v.Set(reflect.MakeMap(v.Type()))
		v.SetMapIndex(reflect.ValueOf("k"), e)
	case reflect.String:
		v.SetString("x")
	case reflect.Int, reflect.Int64:
		v.SetInt(1)
	case reflect.Float64:
		v.SetFloat(1)
	case reflect.Bool:
		v.SetBool(true)
	default:
		t.Fatalf("%s: fill does not know %s; neither may the comparison", v.Type(), v.Kind())
	}
}

func filled(t *testing.T) *bundle.Site {
	s := new(bundle.Site)
	fill(t, reflect.ValueOf(s).Elem())
	return s
}

// leaves calls f for every value of plain data in v, with a way to change it.
func leaves(v reflect.Value, path string, f func(path string, v reflect.Value)) {
	if v.Type() == reflect.TypeFor[time.Time]() {
		f(path, v)
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			leaves(v.Field(i), path+"."+v.Type().Field(i).Name, f)
		}
	case reflect.Pointer:
		leaves(v.Elem(), path, f)
	case reflect.Slice:
		leaves(v.Index(0), path+"[0]", f)
	case reflect.Map:
		leaves(v.MapIndex(reflect.ValueOf("k")), path+"[k]", f)
	default:
		f(path, v)
	}
}

func TestEveryFieldCountsWhenSitesAreCompared(t *testing.T) {
	if !(comparer{}).sites(filled(t), filled(t)) {
		t.Fatal("two sites with the same values are not the same")
	}
	n := 0
	changed := filled(t)
	leaves(reflect.ValueOf(changed), "site", func(path string, v reflect.Value) {
		n++
		before := reflect.New(v.Type()).Elem()
		before.Set(v)
		if v.Type() == reflect.TypeFor[time.Time]() {
			v.Set(reflect.ValueOf(time.Unix(2, 0).UTC()))
		} else {
			v.SetZero()
		}
		if (comparer{}).sites(filled(t), changed) {
			t.Errorf("%s changed and the sites count as the same", path)
		}
		v.Set(before)
	})
	if n < 100 {
		t.Errorf("only %d fields were tried", n)
	}
}

func TestAbsentIsNotZeroWhenSitesAreCompared(t *testing.T) {
	a, b := site("a", "a.test"), site("a", "a.test")
	b.Routes[0].Timeouts.Request = new(v1.Duration)
	if (comparer{}).sites(a, b) {
		t.Error("an absent timeout and one of zero are not the same")
	}
}
