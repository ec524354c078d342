package v1

import (
	"encoding/json"
	"reflect"
	"testing"
	"time"
)

func TestDefaultIsIdempotentAndFillsEveryDefault(t *testing.T) {
	for _, k := range Kinds() {
		d := New(k)
		populate(reflect.ValueOf(d).Elem(), ShapeOf(k))
		Default(d)
		once, err := json.Marshal(d)
		if err != nil {
			t.Fatal(err)
		}
		Default(d)
		if twice, _ := json.Marshal(d); string(once) != string(twice) {
			t.Errorf("%s: Default changed what it had filled in:\n%s\n%s", k, once, twice)
		}
		eachField(reflect.ValueOf(d).Elem(), ShapeOf(k), func(v reflect.Value, f *Field) {
			if f.Default != "" && (f.Pointer && v.IsNil() || !f.Pointer && v.IsZero() && !f.value.IsZero()) {
				t.Errorf("%s.%s has no default after Default", k, f.Name)
			}
		})
		back := New(k)
		if err := json.Unmarshal(once, back); err != nil {
			t.Fatal(err)
		}
		Default(back)
		if again, _ := json.Marshal(back); string(again) != string(once) {
			t.Errorf("%s: written and read again:\n%s\n%s", k, once, again)
		}
	}
}

// populate makes one element of each list and one of each optional struct, so that their defaults count.
func populate(v reflect.Value, s *Shape) {
	for i := range s.Fields {
		f := &s.Fields[i]
		fv := f.Of(v)
		switch f.Shape.Form {
		case FormObject:
			if f.Pointer {
				fv.Set(reflect.New(f.Shape.Type))
				fv = fv.Elem()
			}
			populate(fv, f.Shape)
		case FormList:
			if f.Shape.Elem.Form == FormObject {
				fv.Set(reflect.MakeSlice(fv.Type(), 1, 1))
				populate(fv.Index(0), f.Shape.Elem)
			}
		}
	}
}

func eachField(v reflect.Value, s *Shape, visit func(reflect.Value, *Field)) {
	for i := range s.Fields {
		f := &s.Fields[i]
		fv := f.Of(v)
		visit(fv, f)
		if f.Pointer && !fv.IsNil() {
			fv = fv.Elem()
		}
		switch {
		case f.Shape.Form == FormObject && fv.Kind() == reflect.Struct:
			eachField(fv, f.Shape, visit)
		case f.Shape.Form == FormList && f.Shape.Elem.Form == FormObject:
			for j := range fv.Len() {
				eachField(fv.Index(j), f.Shape.Elem, visit)
			}
		}
	}
}

func TestAWrittenZeroSurvivesDefault(t *testing.T) {
	for _, k := range Kinds() {
		d := New(k)
		populate(reflect.ValueOf(d).Elem(), ShapeOf(k))
		eachField(reflect.ValueOf(d).Elem(), ShapeOf(k), func(_ reflect.Value, f *Field) {
			if f.Pointer || f.Default == "" || f.value.IsZero() || f.Shape.Form == FormString {
				return
			}
			if len(f.Enum) == 0 && (f.Min == nil || *f.Min <= 0) {
				t.Errorf("%s.%s allows zero, has the default %s and is no pointer: a written zero would be lost", k, f.Name, f.Default)
			}
		})
	}
}

func TestDurationWritesNoEmptyUnits(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0s", time.Minute: "1m", time.Hour: "1h", 25 * time.Hour: "25h", 10 * time.Hour: "10h", 90 * time.Minute: "1h30m",
		time.Hour + time.Second: "1h0m1s", 75 * time.Second: "1m15s", 250 * time.Millisecond: "250ms", 10 * time.Minute: "10m", 20 * time.Second: "20s",
	} {
		got := Duration(d).String()
		var back Duration
		if err := back.UnmarshalText([]byte(got)); err != nil || got != want || back.Std() != d {
			t.Errorf("%v: %s (read again %v, %v), want %s", d, got, back.Std(), err, want)
		}
	}
}

func TestSizeIsReadFromTextAndNumber(t *testing.T) {
	for text, want := range map[string]Size{`512`: 512, `"16KiB"`: 16 << 10, `"2 MB"`: 2e6, `"0"`: 0} {
		var s Size
		if err := json.Unmarshal([]byte(text), &s); err != nil || s != want {
			t.Errorf("%s: %d, %v", text, s, err)
		}
	}
	for _, bad := range []string{`-1`, `1.5`, `true`, `"x"`, `"9223372036854775807KiB"`, `{}`} {
		var s Size
		if json.Unmarshal([]byte(bad), &s) == nil {
			t.Errorf("%s was taken as %d", bad, s)
		}
	}
}

func TestABasketIsSparedUnlessAnswersCount(t *testing.T) {
	no, yes := false, true
	for _, c := range []struct {
		statuses []string
		spare    *bool
		want     bool
	}{{nil, nil, true}, {[]string{"401"}, nil, false}, {[]string{"401"}, &yes, true}, {nil, &no, false}} {
		d := &RateLimit{Spec: RateLimitSpec{Requests: 1, Statuses: c.statuses, SpareBaskets: c.spare}}
		for range 2 {
			if Default(d); *d.Spec.SpareBaskets != c.want {
				t.Errorf("statuses %v, spareBaskets given %v: %v", c.statuses, c.spare != nil, *d.Spec.SpareBaskets)
			}
		}
	}
}
