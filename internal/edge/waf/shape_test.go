package waf

import (
	"slices"
	"strings"
	"testing"

	v1 "github.com/relais-edge/relais/api/v1"
)

func TestShapes(t *testing.T) {
	if !slices.IsSorted(keywords[:]) {
		t.Fatal("the keywords are out of order")
	}
	for value, want := range map[string]string{
		"":                                 "",
		"1' x 2' wall board":               "9' w 9' w",
		"3'  y 14' étagère d":              "9' w 9' w",
		"Union Jack mug or 1=1 joke shirt": "union w or 9=9 w",
		"SELECT * FROM books":              "select * from w",
		"mug '); DROP TABLE students;--":   "w '); drop table w;--",
		"4K":                               "9w",
		"1e0union":                         "9w9union",
		"onload=lamp() design":             "onload=w() w",
		"window w w window":                "window w window",
		"a\tb\nc":                          "w",
		"prix – 5 €":                       "w – 9 €",
		"a\x00b":                           "",
		"a\xffb":                           "",
		"zero\u200bwidth":                  "",
		strings.Repeat("a", maxShaped):     "w",
		strings.Repeat("a", maxShaped+1):   "",
		strings.Repeat("'", maxShape+1):    "",
	} {
		if got := shapeOf(value); got != want {
			t.Errorf("%q: %q, want %q", value, got, want)
		}
		if want != "" && !isShape(want) {
			t.Errorf("%q is not its own shape but %q", want, shapeOf(want))
		}
	}
}

func FuzzShape(f *testing.F) {
	for _, s := range []string{"1' x 2' wall board", "wow 'w' w", "€w w", "window w", "\xffw", "a _ b", "select\u00a0x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		shape := shapeOf(s)
		if len(shape) > maxShape {
			t.Fatalf("%q has %d bytes", shape, len(shape))
		}
		if again := shapeOf(shape); again != shape {
			t.Fatalf("%q, and the shape of that is %q", shape, again)
		}
	})
}

// TestAnExclusionByShapeHoldsForThatShapeAlone: words and numbers may be others; anything else is judged as before.
func TestAnExclusionByShapeHoldsForThatShapeAlone(t *testing.T) {
	spec := v1.WafPolicySpec{Exclusions: []v1.WafExclusion{{
		Rules: []string{"942100-942999"}, Target: "ARGS:q", Shapes: []string{"sleep(9) w"}, Path: "/search", Exact: true,
	}}}
	g := newRig(t, Config{}, spec)
	for target, denied := range map[string]bool{
		"/search?q=sleep(8)+pillow":                        false,
		"/search?q=sleep(12)+blue+pillow":                  false,
		"/search?q=sleep(8)%2F**%2Fpillow":                 true,
		"/search?q=sleep(8)+or+1":                          true,
		"/search?q=sleep(8)+pillow&p=sleep(8)+pillow":      true, // another argument
		"/search?q=sleep(8)+pillow&q=sleep(8)+or+sleep(9)": true, // another value of the same
		"/find?q=sleep(8)+pillow":                          true,
	} {
		err, m, _ := g.do(request{target: target})
		if (err != nil) != denied {
			t.Errorf("%s: %v %+v", target, err, m)
		}
	}
	if bad := g.site.Parts[5].(*part).engine.check(&v1.WafExclusion{Rules: []string{"942100"}, Target: "ARGS:q", Shapes: []string{"SLEEP(8) pillow"}}); len(bad) != 1 || bad[0].Fix != `write "sleep(9) w"` {
		t.Errorf("%+v", bad)
	}
}
