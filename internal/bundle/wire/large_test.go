package wire

import (
	"fmt"
	"strings"
	"testing"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/bundle"
)

func TestLargeSitesAreDivided(t *testing.T) {
	b := &bundle.Bundle{Format: bundle.Format, Organization: "shop"}
	for i := range 40 {
		b.Sites = append(b.Sites, &bundle.Site{
			Key: bundle.Key(fmt.Sprintf("shop/s%02d", i)), ErrorPages: []v1.ErrorPage{{Page: v1.Page{HTML: strings.Repeat("x", 2000)}}},
		})
	}
	index, parts, err := encode(b, nil, 20_000)
	if err != nil || len(parts) != 8 && len(parts) != 16 {
		t.Fatalf("%d parts of 80 kB: %v", len(parts), err)
	}
	got, err := Decode("shop", index, parts)
	if err != nil || len(got.Sites) != 40 {
		t.Fatal(got, err)
	}
	x, err := ReadIndex(index)
	if err != nil {
		t.Fatal(err)
	}
	// Parts that are joined leave room to grow; those that were divided stay so.
	for _, c := range []struct{ largest, parts int }{{40_000, len(parts)}, {400_000, 1}} {
		_, parts, err := encode(b, x, c.largest)
		if err != nil || len(parts) != c.parts {
			t.Errorf("%d parts of up to %d bytes, and not %d: %v", len(parts), c.largest, c.parts, err)
		}
	}
	b.Sites[7].ErrorPages[0].HTML = strings.Repeat("x", 20_001)
	if _, _, err := encode(b, nil, 20_000); err == nil || !strings.Contains(err.Error(), "site shop/s07: too large") {
		t.Errorf("a site that fits nowhere: %.200v", err)
	}
}

func TestScanCountsWhatMayBecomeLarge(t *testing.T) {
	for text, want := range map[string]string{
		`{"a":"[[[[\\\"{{","b":[1,null,true]}`: "",
		`"a`:                                   "no end",
		`"a\\\"`:                               "no end",
		`"` + strings.Repeat(`\\`, 1_500_000) + `"`: "",
		`"a\`:                                           "no end",
		strings.Repeat("[", maxDepth+1):                 "in one another",
		strings.Repeat("[", maxDepth):                   "",
		"[" + strings.Repeat("1,", maxValues):           "values",
		"[" + strings.Repeat("null ,", maxValues):       "values",
		"[" + strings.Repeat(`"a",`, maxValues+1) + "]": "",
		strings.Repeat(" ", 4_000_001):                  "are the most",
	} {
		err := scan([]byte(text), 4_000_000)
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%.40q: %v", text, err)
		}
	}
	for text, want := range map[string]bool{`"\ufffd"`: true, `"\\ufffd"`: false, `"\\\ufffd"`: true, "\"\ufffd\"": false, `""`: false} {
		if mangled([]byte(text)) != want {
			t.Errorf("%q: %v", text, !want)
		}
	}
}
