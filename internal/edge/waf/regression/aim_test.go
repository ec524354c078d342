package regression

import "testing"

func TestATestIsAimedAtARouteAndATarget(t *testing.T) {
	form := Case{Method: "POST", Target: "/post?a=x%27+or+1", Proto: "HTTP/1.1", Body: "b=%3Cb%3E", Fields: []Field{{"Host", "h"}, {"Content-Type", "application/x-www-form-urlencoded"}, {"Content-Length", "9"}}}
	for _, c := range []struct {
		method, target string
		url, body      string // what is sent; no url where it cannot be aimed
	}{
		{"GET", "ARGS:q", "/search?q=x%27+or+1&q=%3Cb%3E", ""},
		{"POST", "ARGS:q", "/search", "q=x%27+or+1&q=%3Cb%3E"},
		{"POST", `ARGS:/^json\.items\.\d+\.name$/`, "/search", `{"items":[{"name":"x' or 1 <b>"}]}`},
		{"GET", "REQUEST_COOKIES:seen", "/search", ""},
		{"GET", "ARGS:/^.*$/", "", ""},
		{"GET", "REQUEST_HEADERS:referer", "", ""},
		{"GET", "", "", ""},
	} {
		r, ok := form.Aimed(c.method, "/search", c.target)
		if ok != (c.url != "") || ok && (r.Target != c.url || r.Body != c.body || r.Method != c.method) {
			t.Errorf("%s %s: %v %s %s %q", c.method, c.target, ok, r.Method, r.Target, r.Body)
		}
		if c.target == "REQUEST_COOKIES:seen" && r.field("Cookie") != "seen=x' or 1; seen=<b>" {
			t.Errorf("cookies %q", r.field("Cookie"))
		}
	}
	for target, want := range map[string]string{
		"/post?a=1": "/search?a=1", "/": "/search", "/a/../../etc/passwd": "/search/a/../../etc/passwd", "*": "/search",
	} {
		c := Case{Target: target}
		if got := c.On("/search").Target; got != want {
			t.Errorf("%s became %s, want %s", target, got, want)
		}
	}
	if form.Fields[1].Value == "" || len(form.Fields) != 3 {
		t.Error("the test itself was changed")
	}
}
