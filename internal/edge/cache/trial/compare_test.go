package trial

import (
	"fmt"
	"strings"
	"testing"
)

func TestCompareTellsTokensFromContent(t *testing.T) {
	page := func(s string) string {
		return "<html><head><title>x</title></head><body>" + strings.Repeat("<p class=\"a\">word</p>", 50) + s + strings.Repeat("<p>tail</p>", 50) + "</body></html>"
	}
	for _, c := range []struct {
		name, a, b string
		reason     string
	}{
		{"equal", "<b>1</b>", "<b>1</b>", ""},
		{"comments", "<!-- took 0.1 s -->", "<!-- took 0.2 s, longer -->", ""},
		{"a comment in one only", "<!-- x -->", "", ""},
		{"the request's name", `<i data-id="idA-1"></i>`, `<i data-id="idB-1"></i>`, ""},
		{"price", "<b>9.90</b>", "<b>9.80</b>", reasonContent},
		{"more", "<b>9.90</b>", "<b>9.90</b><p>hello Ann</p>", reasonContent},
		{"less", "<ul><li>a</li><li>b</li></ul>", "<ul><li>b</li></ul>", reasonContent},
		{"csrf field", `<input type="hidden" name="csrf_token" value="abc">`, `<input type="hidden" name="csrf_token" value="xyz">`, reasonToken},
		{"csrf meta", `<meta name="csrf-token" content="abc">`, `<meta name="csrf-token" content="xyz">`, reasonToken},
		{"nonce", `<script nonce="abc">x</script>`, `<script nonce="xyz">x</script>`, reasonToken},
		{"form key", `<input name="form_key" value="1">`, `<input name="form_key" value="2">`, reasonToken},
		{"random value without a name", `<div data-x="a8f5f167f44f4964e6c998dee827110c">`, `<div data-x="0cc175b9c0f1b6a831c399e269772661">`, reasonToken},
		{"token beside content", `<b>1</b><input name="_token" value="a">`, `<b>2</b><input name="_token" value="b">`, reasonToken},
		{"an open comment", "<!-- a", "<!-- b", reasonContent},
		{"nothing alike", strings.Repeat("<i>a</i>", 500), strings.Repeat("<u>b</u>", 400), reasonContent},
	} {
		d := compare([]byte(page(c.a)), []byte(page(c.b)), "idA", "idB")
		if d.reason != c.reason {
			t.Errorf("%s: %+v, want %q", c.name, d, c.reason)
		}
		if back := compare([]byte(page(c.b)), []byte(page(c.a)), "idB", "idA"); back.reason != c.reason {
			t.Errorf("%s, the other way round: %+v", c.name, back)
		}
		if len(d.where) > maxWhere || strings.Contains(d.where, "Ann") {
			t.Errorf("%s: %q tells too much", c.name, d.where)
		}
	}
}

func FuzzCompare(f *testing.F) {
	f.Add([]byte("<p>a</p>"), []byte("<p>b</p>"))
	f.Add([]byte("<!-- x --><p nonce=\"a\">"), []byte("<p nonce='b'>"))
	f.Fuzz(func(t *testing.T, a, b []byte) {
		if d := compare(a, a, "x", "y"); d.reason != "" {
			t.Errorf("a page differs from itself: %+v", d)
		}
		d := compare(a, b, "", "")
		if d.reason == "" && string(withoutComments(a)) != string(withoutComments(b)) && fmt.Sprintf("%s", words(withoutComments(a))) != fmt.Sprintf("%s", words(withoutComments(b))) {
			t.Errorf("%q and %q are said to be equal", a, b)
		}
	})
}

func TestSafeOnlyWithEnoughAndNothingAgainst(t *testing.T) {
	k := groupKey{"route-0", "/product/*"}
	fill := func(n int, more ...*finding) Finding {
		e := newEvidence()
		for range n {
			e.add(&finding{key: k, equal: true, seen: []cookie{{"ga", "1"}}})
		}
		for _, f := range more {
			f.key = k
			e.add(f)
		}
		return e.report("s").Findings[0]
	}
	var cart []*finding
	for range 31 {
		cart = append(cart, &finding{changed: []string{"cart"}, tried: []string{"cart", "ga"}})
	}
	for range 69 {
		cart = append(cart, &finding{equal: true, seen: []cookie{{"cart", "1"}}})
	}
	for _, c := range []struct {
		name  string
		f     Finding
		safe  bool
		words string
	}{
		{"too few", fill(Enough - 1), false, "too early to say of /product/* (200 pages are wanted): 199 of 199 equal"},
		{"enough", fill(2000), true, "would be safe to cache /product/* for anonymous visitors: 2,000 of 2,000 equal"},
		{"a cookie", fill(1931, cart...), true, "would be safe to cache /product/* for anonymous visitors: 2,000 of 2,000 equal; cookie cart changes 31 %"},
		{"one differs", fill(2000, &finding{why: difference{reasonContent, "<b"}}), false, `not safe to cache /product/*: 2,000 of 2,001 equal; differs at "<b" in 1`},
		{"token", fill(2000, &finding{why: difference{reasonToken, "<input name csrf"}}), false, `a token or nonce at "<input name csrf" in 1`},
		{"sets a cookie", fill(2000, &finding{equal: true, sets: "sid"}), false, "the origin sets cookie sid in 1"},
		{"session", fill(2000, &finding{session: []string{"PHPSESSID"}}), true, "cookie PHPSESSID changes 100 % (by exclusion"},
		{"forbidden", fill(2000, &finding{equal: true, forbids: true}), true, "the origin forbids to store 1"},
	} {
		if c.f.Safe != c.safe || !strings.Contains(c.f.Says, c.words) || (c.f.Policy != "") != c.safe {
			t.Errorf("%s: %+v", c.name, c.f)
		}
	}
	if p := fill(1931, cart...).Policy; !strings.Contains(p, `key: {cookies: ["cart"]}`) || !strings.Contains(p, `match: [{path: {prefix: "/product"}}]`) || !strings.Contains(p, "name: html-product") {
		t.Error(p)
	}
}

func TestEvidenceIsBounded(t *testing.T) {
	e := newEvidence()
	for i := range 1000 {
		e.add(&finding{key: groupKey{"r", fmt.Sprint("/", i)}, why: difference{reasonContent, fmt.Sprint(i)}})
		e.add(&finding{key: groupKey{"r", "/0"}, equal: true, seen: []cookie{{fmt.Sprint("c", i), ""}}})
		e.add(&finding{key: groupKey{"r", "/0"}, why: difference{reasonContent, fmt.Sprint(i)}})
		e.skip(fmt.Sprint(i))
	}
	r := e.report("s")
	if len(r.Findings) > maxGroups+1 || len(r.Skipped) > maxReasons {
		t.Errorf("%d groups, %d reasons", len(r.Findings), len(r.Skipped))
	}
	for _, f := range r.Findings {
		if len(f.Cookies) > maxNames || len(f.Against) > maxReasons || f.Paths == "(others)" && f.Safe {
			t.Errorf("%+v", f)
		}
	}
}
