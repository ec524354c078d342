package caching

import "strings"

func storedFields() []Case {
	cases := []Case{
		must("fields/9111-3.1/Connection", "fields that Connection names are not stored",
			get("Cache-Control: max-age=60", "Connection: a, b", "A: 1", "B: 2", "C: 3"), hit.has("C: 3").lacks("A", "B")),
	}
	for _, f := range []string{"Proxy-Authenticate: x", "Proxy-Authentication-Info: x", "Proxy-Authorization: x", "Proxy-Connection: x", "Keep-Alive: x", "Te: x", "Upgrade: x"} {
		name, _, _ := strings.Cut(f, ":")
		cases = append(cases, must("fields/9111-3.1/no-"+name, "fields for one connection or one proxy are not stored", get("Cache-Control: max-age=60", f), hit.lacks(name)))
	}
	for _, f := range []string{
		"Test-Header: 1", "X-Test-Header: 1", "Content-Foo: 1", "Content-Encoding: foo", "Content-Location: /foo", "Content-Md5: rL0Y20zC+Fzt72VPzMSk2A==", "Content-Range: x",
		"Content-Security-Policy: default-src 'self'", "Content-Type: text/plain;charset=utf-8", "Clear-Site-Data: cookies", "Etag: \"abc\"", "Expires: @60",
		"Set-Cookie: a=b", "Set-Cookie2: a=b", "X-Frame-Options: deny", "X-Xss-Protection: 1", "Strict-Transport-Security: max-age=1", "Link: </a>", "Cdn-Cache-Control: max-age=60",
	} {
		name, _, _ := strings.Cut(f, ":")
		want := f
		if name == "Expires" {
			want = name
		}
		cases = append(cases, must("fields/9111-3.1/"+name, "all other fields are stored, known or not", get("Cache-Control: public, max-age=60", f), hit.has(want)))
	}
	return cases
}

func validation() []Case {
	tag, modified := []string{"Cache-Control: max-age=60", `ETag: "v1"`}, []string{"Cache-Control: max-age=60", "Last-Modified: @-3000", "Date: @0"}
	inm := func(name string, from From, status int, stored, asked string) Case {
		c := should("conditional/9110-13.1.2/"+name, "If-None-Match compares weakly with each member", get("Cache-Control: max-age=60", "ETag: "+stored), hit.send("If-None-Match: "+asked).want(status, ""))
		if c.Steps[1].From = from; status == 200 {
			c.Steps[1].Status = 0
		}
		return c
	}
	stale := func(fields ...string) Step { return get(append([]string{"Cache-Control: max-age=1"}, fields...)...) }
	return []Case{
		inm("strong", Cache, 304, `"v1"`, `"v1"`),
		inm("weak", Cache, 304, `W/"v1"`, `W/"v1"`),
		inm("weak-strong", Cache, 304, `W/"v1"`, `"v1"`),
		inm("first", Cache, 304, `"v1"`, `"v1", "x", "y"`),
		inm("middle", Cache, 304, `"v1"`, `"x", "v1", "y"`),
		inm("last", Cache, 304, `"v1"`, `"x","y","v1"`),
		inm("comma-inside", Cache, 304, `"a,b"`, `"x","a,b"`),
		inm("star", Cache, 304, `"v1"`, `*`),
		inm("other", Cache, 200, `"v1"`, `"v2"`),
		must("conditional/9110-15.4.5/304-ETag", "a 304 has the ETag that a 200 would have", get(append(tag, "Vary: Foo")...), hit.send(`If-None-Match: "v1"`).want(304, "").has(`Etag: "v1"`, "Cache-Control", "Vary", "Date").lacks("Content-Length")),
		must("conditional/9110-13.2.2/precedence", "If-Modified-Since is ignored beside If-None-Match", get(append(modified, `ETag: "v1"`)...), hit.send(`If-None-Match: "x"`, "If-Modified-Since: @0")),
		should("conditional/9111-4.3.2/If-Modified-Since", "a stored answer that is not younger is not modified", get(modified...), hit.send("If-Modified-Since: @-2000").want(304, "")),
		should("conditional/9110-5.6.7/850", "in the obsolete form too", get(modified...), hit.send("If-Modified-Since: @850:-2000").want(304, "")),
		must("conditional/9111-4.3.2/modified", "a younger one is", get(modified...), hit.send("If-Modified-Since: @-4000")),
		should("conditional/9111-4.3.2/no-Last-Modified", "without Last-Modified Date stands in", get("Cache-Control: max-age=60", "Date: @0"), hit.send("If-Modified-Since: @10").want(304, "")),
		must("conditional/9111-4.3.2/If-Match", "If-Match is the origin's to judge", get(tag...), miss.send(`If-Match: "v1"`).saw(`If-Match: "v1"`)),
		must("conditional/9111-4.3.2/If-Unmodified-Since", "and so is If-Unmodified-Since", get(modified...), miss.send("If-Unmodified-Since: @0").saw("If-Unmodified-Since")),
		must("conditional/9110-13.1.3/bad-date", "what is no date is ignored", get(modified...), hit.send("If-Modified-Since: now")),
		should("validation/9111-4.3.1/ETag", "a stale answer is validated by its ETag", stale(`ETag: "v1"`), Step{Wait: again, From: Validated, Saw: []string{`If-None-Match: "v1"`}}),
		should("validation/9111-4.3.1/weak", "by a weak one too", stale(`ETag: W/"v1"`), Step{Wait: again, From: Validated, Saw: []string{`If-None-Match: W/"v1"`}}),
		should("validation/9111-4.3.1/Last-Modified", "and by its Last-Modified", stale("Last-Modified: Wed, 01 Jan 2020 00:00:00 GMT"), Step{Wait: again, From: Validated, Saw: []string{"If-Modified-Since: Wed, 01 Jan 2020 00:00:00 GMT"}}),
		must("validation/9111-4.3.1/Vary", "the fields that Vary names are sent along", stale(`ETag: "v1"`, "Vary: Abc").send("Abc: 1"), Step{Wait: again, From: Validated, Send: []string{"Abc: 1"}, Saw: []string{"Abc: 1"}}),
		must("validation/9111-4.3.3/200", "another answer takes the place of the stored one", stale(`ETag: "v1"`), Step{Wait: again, From: Origin, Reply: Reply{Fields: []string{"Cache-Control: max-age=60", `ETag: "v2"`}}}, hit.has(`Etag: "v2"`)),
		should("validation/9111-4.3.3/client", "a client's condition is answered once validated", stale(`ETag: "v1"`), Step{Wait: again, From: Validated, Send: []string{`If-None-Match: "v1"`}, Status: 304}),
		must("validation/9111-4.3.4/fresh-again", "a 304 makes it fresh again", stale(`ETag: "v1"`), Step{Wait: again, From: Validated, Reply: Reply{Fields: []string{"Cache-Control: max-age=60", `ETag: "v1"`}}}, hit),
	}
}

func updates() []Case {
	var cases []Case
	for _, f := range []struct{ name, a, b, want string }{
		{"Test-Header", "1", "2", "2"},
		{"X-Test-Header", "1", "2", "2"},
		{"Content-Foo", "1", "2", "2"},
		{"Cache-Control", "max-age=1", "max-age=60", "max-age=60"},
		{"Content-Security-Policy", "a", "b", "b"},
		{"Content-Location", "/a", "/b", "/b"},
		{"Content-Encoding", "a", "b", "a"},
		{"Content-Range", "a", "b", "a"},
		{"X-Frame-Options", "deny", "sameorigin", "sameorigin"},
	} {
		says := "a 304 updates the stored fields, and what it leaves out stays"
		if f.want == f.a {
			says = "but not those that say how the stored body is coded"
		}
		control, control2 := "Cache-Control: max-age=1", "Cache-Control: max-age=60"
		if f.name == "Cache-Control" {
			control, control2 = "X: 1", "X: 1"
		}
		cases = append(cases, must("update/9111-3.2/"+f.name, says,
			get(control, `ETag: "v1"`, f.name+": "+f.a, "Stays: 1"),
			Step{Wait: again, From: Validated, Reply: Reply{Fields: []string{control2, `ETag: "v1"`, f.name + ": " + f.b}}, Has: []string{f.name + ": " + f.want, "Stays: 1"}},
			hit.has(f.name+": "+f.want, "Stays: 1")))
	}
	return append(cases, must("update/9111-3.2/Content-Length", "nor its length", get("Cache-Control: max-age=1", `ETag: "v1"`).body("12345"),
		Step{Wait: again, From: Validated, Reply: Reply{Fields: []string{"Cache-Control: max-age=60", `ETag: "v1"`, "Content-Length: 3"}}, Status: 200, Body: "12345"}, hit.want(200, "12345")))
}

func heads() []Case {
	kept := []string{"Cache-Control: max-age=60"}
	head := Step{Method: "HEAD"}
	return []Case{
		should("head/9110-9.3.2/from-GET", "a stored GET answers a HEAD", get(kept...), head.from(Cache)),
		should("head/9111-3/stored", "the answer to a HEAD may be stored for HEADs", get(kept...).method("HEAD"), head.from(Cache)),
		must("head/9111-4/not-for-GET", "but it answers no GET", get(kept...).method("HEAD"), miss),
		must("head/9111-4.3.5/stale", "a stale answer is not used for a HEAD", get("Cache-Control: max-age=1"), head.from(Origin).wait(again)),
		should("head/9111-4.3.5/update", "a 200 to HEAD that speaks of the stored answer updates it", get("Cache-Control: max-age=1", `ETag: "v1"`, "A: 1").body("12345"),
			Step{Wait: again, Method: "HEAD", From: Origin, Reply: Reply{Body: "12345", Fields: []string{"Cache-Control: max-age=60", `ETag: "v1"`, "A: 2"}}}, hit.has("A: 2")),
		must("head/9111-4.3.5/differs", "one that differs makes the stored answer stale", get("Cache-Control: max-age=1", `ETag: "v1"`).body("12345"),
			Step{Wait: again, Method: "HEAD", From: Origin, Reply: Reply{Body: "123456", Fields: []string{"Cache-Control: max-age=60", `ETag: "v2"`}}}, miss),
	}
}

func invalidation() []Case {
	kept := []string{"Cache-Control: max-age=60"}
	var cases []Case
	for _, m := range []string{"POST", "PUT", "DELETE", "PATCH", "M-SEARCH", "FROBNICATE"} {
		change := Step{Method: m, Content: "abc", From: Origin}
		named := func(field, value string) Step {
			s := change
			s.Reply.Fields = []string{field + ": " + value}
			return s
		}
		cases = append(
			cases,
			must("invalidation/9111-4.4/"+m, "a success of an unsafe method invalidates the target; an unknown method is unsafe", get(kept...), change, miss),
			should("invalidation/9111-4.4/"+m+"-failed", "a failure does not", get(kept...), change.status(500), hit),
			should("invalidation/9111-4.4/"+m+"-Location", "Location of the same origin is invalidated", get(kept...).target("/other"), named("Location", "PATH/other"), miss.target("/other")),
			should("invalidation/9111-4.4/"+m+"-Content-Location", "and Content-Location", get(kept...).target("/other"), named("Content-Location", "PATH/other"), miss.target("/other")),
			must("invalidation/9111-4.4/"+m+"-other-origin", "of another origin nothing is", get(kept...).target("/other"), named("Location", "http://elsewhere.example/PATH/other"), hit.target("/other")),
		)
	}
	for _, m := range []string{"OPTIONS", "TRACE", "HEAD"} {
		if m == "TRACE" {
			continue // most servers refuse it
		}
		cases = append(cases, must("invalidation/9110-9.2.1/"+m, "a safe method invalidates nothing", get(kept...), Step{Method: m}, hit))
	}
	post := Step{Method: "POST", Content: "abc", From: Origin}
	post.Reply.Fields = []string{"Location: PATH/other"}
	cases = append(
		cases,
		must("invalidation/9111-4.4/POST-303", "a redirect is a success", get(kept...), post.status(303), miss),
		should("invalidation/9111-4.4/POST-404", "a fault of the client is none", get(kept...), post.status(404), hit),
	)
	return append(cases, must("invalidation/9111-4.4/variants", "all stored answers of the target are", get("Cache-Control: max-age=60", "Vary: Foo").send("Foo: 1"),
		get("Cache-Control: max-age=60", "Vary: Foo").send("Foo: 2"), Step{Method: "POST", From: Origin}, miss.send("Foo: 1")))
}

func methods() []Case {
	post := func(fields ...string) Step { s := get(fields...); s.Method, s.Content = "POST", "x"; return s }
	return []Case{
		should("method/9110-9.3.3/POST", "a POST with a lifetime and its own Content-Location answers a GET", post("Cache-Control: max-age=60", "Content-Location: PATH"), hit),
		must("method/9110-9.3.3/POST-lifetime", "without a lifetime it does not", post("Content-Location: PATH", "Last-Modified: @-86400", "Date: @0"), miss),
		must("method/9110-9.3.3/POST-Content-Location", "nor without Content-Location", post("Cache-Control: max-age=60"), miss),
		must("method/9110-9.3.3/POST-other", "nor with another one", post("Cache-Control: max-age=60", "Content-Location: PATH/other"), miss),
		must("method/9110-9.3.3/POST-not-for-POST", "a stored answer does not answer a POST", post("Cache-Control: max-age=60", "Content-Location: PATH"), post()),
		must("method/9111-4/OPTIONS", "nor an OPTIONS", get("Cache-Control: max-age=60"), Step{Method: "OPTIONS", From: Origin}),
	}
}
