package shop

import (
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"unicode/utf8"
)

func FuzzSearch(f *testing.F) {
	for _, seed := range []string{"lamp", "", "<b>", "a\x00b", "\xff\xfe", strings.Repeat("é ", 200), "s s s", "100%"} {
		f.Add(seed)
	}
	catalogue := NewCatalogue()
	f.Fuzz(func(t *testing.T, q string) {
		r := httptest.NewRequest("GET", "/search", nil)
		r.URL.RawQuery = "q=" + url.QueryEscape(q)
		term := searchTerm(r)
		if !utf8.ValidString(term) || utf8.RuneCountInString(term) > maxQuery || strings.ContainsAny(term, "\r\n\x00") {
			t.Errorf("search term %q of %q", term, q)
		}
		if n := len(catalogue.Search(term)); n > len(catalogue.Products()) {
			t.Errorf("%d finds", n)
		}
	})
}

func FuzzImageFile(f *testing.F) {
	for _, seed := range []string{"LMP-0100-320.jpg", "LMP-0100-320", "-320.jpg", "../x-320.png", "LMP-0100-320.jpg.jpg", "."} {
		f.Add(seed)
	}
	s := &Shop{catalogue: NewCatalogue()}
	f.Fuzz(func(t *testing.T, file string) {
		p, size, format, ok := s.imageFile(file)
		if !ok {
			return
		}
		if want := p.SKU + "-" + map[int]string{160: "160", 320: "320", 640: "640"}[size] + "." + format; want != file {
			t.Errorf("%q is taken for %q: one image must have one name", file, want)
		}
	})
}

func FuzzIdempotencyKey(f *testing.F) {
	f.Add("abcdefgh", "")
	f.Add(`"abcdefgh"`, "abcdefgh")
	f.Add(`"`, `""`)
	f.Fuzz(func(t *testing.T, header, field string) {
		r := httptest.NewRequest("POST", "/checkout", nil)
		r.Header.Set("Idempotency-Key", header)
		if key, problem := idempotencyKey(r, field); problem == "" && !isToken(key, 8, 128) {
			t.Errorf("key %q was taken", key)
		}
	})
}
