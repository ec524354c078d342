package caching

import "strings"

func vary() []Case {
	pair := func(name, says string, n Need, field string, a, b []string) Case {
		from := Cache
		if n == Must {
			from = Origin
		}
		fields := []string{"Cache-Control: max-age=60", "Vary: " + field}
		return Case{"vary/9111-4.1/" + name, says, n, []Step{get(fields...).send(a...), {From: from, Send: b}}}
	}
	f := func(l ...string) []string { return l }
	same, differ := "the fields that Vary names match", "a field that Vary names differs"
	norm := "they match after what the field's own syntax allows to change"
	one := []string{"Cache-Control: max-age=60", "Vary: Foo"}
	return []Case{
		pair("match", same, Should, "Foo", f("Foo: 1"), f("Foo: 1", "Other: 2")),
		pair("no-match", differ, Must, "Foo", f("Foo: 1"), f("Foo: 2")),
		pair("omitted", "absent is not the same as any value", Must, "Foo", f("Foo: 1"), nil),
		pair("added", "absent is not the same as any value", Must, "Foo", nil, f("Foo: 1")),
		pair("both-absent", "absent is the same as absent", Should, "Foo", nil, nil),
		pair("two", same, Should, "Foo, Bar", f("Foo: 1", "Bar: a"), f("Bar: a", "Foo: 1")),
		pair("two-no-match", differ, Must, "Foo, Bar", f("Foo: 1", "Bar: a"), f("Foo: 2", "Bar: a")),
		pair("two-omitted", differ, Must, "Foo, Bar", f("Foo: 1", "Bar: a"), f("Foo: 1")),
		pair("three", same, Should, "Foo, Bar, Baz", f("Foo: 1", "Baz: 7"), f("Foo: 1", "Baz: 7")),
		pair("three-no-match", differ, Must, "Foo, Bar, Baz", f("Foo: 1", "Bar: a", "Baz: 7"), f("Foo: 1", "Baz: 7", "Bar: ab")),
		pair("name-case", "names have no case", Must, "fOO", f("Foo: 1"), f("Foo: 2")),
		pair("combined", norm, Should, "Foo", f("Foo: 1, 2"), f("Foo: 1", "Foo: 2")),
		pair("space", norm, Should, "Foo", f("Foo: 1,2"), f("Foo: 1, 2 ")),
		pair("quoted", "white space in quotes counts", Must, "Foo", f(`Foo: "1, 2"`), f(`Foo: "1,2"`)),
		pair("run-together", "two fields do not run into one", Must, "Foo, Bar", f("Foo: 1", "Bar: 2"), f("Foo: 12", "Bar: ")),
		pair("language-order", norm, Should, "Accept-Language", f("Accept-Language: en, de"), f("Accept-Language: de, en")),
		pair("language-case", norm, Should, "Accept-Language", f("Accept-Language: en, de"), f("Accept-Language: eN, De")),
		pair("language-space", norm, Should, "Accept-Language", f("Accept-Language: en, de"), f("Accept-Language: en ,   de")),
		pair("language-weight", differ, Must, "Accept-Language", f("Accept-Language: en, de;q=0.5"), f("Accept-Language: en;q=0.5, de")),
		pair("coding-refused", differ, Must, "Accept-Encoding", f("Accept-Encoding: gzip"), f("Accept-Encoding: gzip;q=0")),
		should("vary/9111-4.1/variants", "several answers are stored under one key", get(one...).send("Foo: 1"), get(one...).send("Foo: 2"), hit.send("Foo: 1"), hit.send("Foo: 2")),
		must("vary/9111-4/most-recent", "of several that fit the most recent one is used",
			get("Cache-Control: max-age=60", "Vary: Foo", "Date: @-10").send("Foo: 1"), get("Cache-Control: max-age=60", "Date: @0").send("Foo: 2"), hit.send("Foo: 1").has("Reply-Id: 2")),
		must("vary/9111-4.1/lines", "several Vary lines are one list", get("Cache-Control: max-age=60", "Vary: Foo", "Vary: Bar").send("Foo: 1", "Bar: 1"), miss.send("Foo: 1", "Bar: 2")),
	}
}

func varyForms() []Case {
	var cases []Case
	for name, lines := range map[string]string{
		"star": "*", "star-star": "*, *", "star-lines": "*|*", "empty-star": ", *", "empty-line-star": "|*", "star-foo": "*, Foo", "foo-star": "Foo, *", "foo-line-star": "Foo|*",
	} {
		fields := []string{"Cache-Control: max-age=60"}
		for _, l := range strings.Split(lines, "|") {
			fields = append(fields, "Vary: "+l)
		}
		cases = append(cases, must("vary/9111-4.1/"+name, "a member of * never matches", get(fields...).send("Foo: 1"), miss.send("Foo: 1")))
	}
	return append(cases, reused("vary/9110-5.6.1/empty", "empty members mean nothing", "Cache-Control: max-age=60", "Vary: , ,"))
}

func targeted() []Case {
	c := "CDN-Cache-Control: "
	return []Case{
		reused("targeted/9213-3.1/max-age", "a CDN obeys CDN-Cache-Control", c+"max-age=60"),
		reused("targeted/9213-3.1/huge", "numbers as large as there are", c+"max-age=99999999999"),
		reused("targeted/9213-2.2/longer", "it stands in the place of Cache-Control", c+"max-age=60", "Cache-Control: max-age=0"),
		notReused("targeted/9213-2.2/shorter", "it stands in the place of Cache-Control", c+"max-age=0", "Cache-Control: max-age=60"),
		reused("targeted/9213-2.2/no-store", "whatever Cache-Control forbids", c+"max-age=60", "Cache-Control: no-store"),
		reused("targeted/9213-2.2/private", "whatever Cache-Control forbids", c+"max-age=60", "Cache-Control: private"),
		reused("targeted/9213-2.2/Expires-past", "Expires does not count beside it", c+"max-age=60", "Expires: @-60", "Date: @0"),
		reused("targeted/9213-2.2/Expires-0", "Expires does not count beside it", c+"max-age=60", "Expires: 0"),
		notReused("targeted/9213-2.2/Expires-future", "Expires does not count beside it", c+"max-age=0", "Expires: @60", "Date: @0"),
		notReused("targeted/9213-2.2/forbids", "it forbids too", c+"no-store", "Cache-Control: max-age=60"),
		notReused("targeted/9213-2.2/forbids-private", "it forbids too", c+"private", "Cache-Control: max-age=60", "Expires: @60"),
		notReused("targeted/9213-2.2/forbids-no-cache", "it forbids too", c+"no-cache", "Cache-Control: max-age=60", "Expires: @60"),
		notReused("targeted/9213-2.1/Age", "Age counts", c+"max-age=60", "Age: 120", "Date: @0"),
		reused("targeted/9213-2.1/extension", "unknown members are ignored", c+"banana, max-age=60, b=(1 2)"),
		reused("targeted/9213-2.1/parameter", "parameters are ignored", c+`max-age=60;x="no-store, private"`),
		notReused("targeted/9651-3.2/last", "of one key given twice the last counts", c+"max-age=60, max-age=0"),
		reused("targeted/9651-3.2/lines", "several lines are one dictionary", c+"must-revalidate", c+"max-age=60"),
		notReused("targeted/9213-2.1/unparsable", "a field that does not parse is ignored", c+"max-age=60, &&&&", "Cache-Control: no-store"),
		notReused("targeted/9213-2.1/wrong-type", "a known directive of a wrong type makes the field invalid", c+`max-age="60"`, "Cache-Control: no-store"),
		reused("targeted/9213-2.1/decimal", "a known directive of a wrong type makes the field invalid", c+"max-age=0.5", "Cache-Control: max-age=60"),
		notReused("targeted/9651-3.2/case", "keys are in lower case", c+"Max-Age=60"),
		notReused("targeted/9651-3.2/space", "no space stands before the equals sign", c+"max-age =60", "Cache-Control: no-store"),
		reused("targeted/9213-2.2/empty", "an empty field is no field", c, "Cache-Control: max-age=60"),
		reused("targeted/9651-3.3.6/false", "a directive that is false is not there", c+"no-store=?0, max-age=60"),
		must("targeted/9213-2.2/handed-on", "fields are handed on, so that Cache-Control serves those behind", get(c+"max-age=60", "Cache-Control: max-age=1"), hit.has("Cache-Control: max-age=1")),
	}
}

func stale() []Case {
	hangup := Step{Wait: again, From: Origin, Status: 502, Reply: Reply{Hangup: true}}
	forbids := func(d string) Case {
		return must("stale/9111-4.2.4/"+d, "a disconnected cache obeys "+d, get("Cache-Control: max-age=1, "+d), hangup)
	}
	served := func(s Step) Step { s.Status = 200; return s }
	return []Case{
		should("stale/9111-4.2.4/disconnected", "a disconnected cache may use what is stale", get("Cache-Control: max-age=1"), served(hangup)),
		forbids("must-revalidate"), forbids("proxy-revalidate"), forbids("s-maxage=1"),
		must("stale/9111-5.2.2.4/no-cache", "a disconnected cache obeys no-cache", get("Cache-Control: no-cache", `ETag: "1"`), hangup),
		must("stale/9111-4.2.4/503", "an error of the origin is no leave to use what is stale", get("Cache-Control: max-age=1"), miss.wait(again).status(503)),
		should("stale/5861-4/503", "stale-if-error is", get("Cache-Control: max-age=1, stale-if-error=60"), Step{Wait: again, Reply: Reply{Status: 503}, Status: 200, From: Origin}),
		should("stale/5861-4/hangup", "stale-if-error is", get("Cache-Control: max-age=1, stale-if-error=60"), served(hangup)),
		must("stale/5861-4/404", "a 404 is no error", get("Cache-Control: max-age=1, stale-if-error=60"), miss.wait(again).status(404)),
		should("stale/5861-3/stale-while-revalidate", "stale-while-revalidate allows it while it is validated", get("Cache-Control: max-age=1, stale-while-revalidate=60", `ETag: "1"`), Step{Wait: again, Status: 200, Body: "", Has: []string{"Age", `Etag: "1"`}}),
		must("stale/5861-3/window", "not behind its window", get("Cache-Control: max-age=1, stale-while-revalidate=1", "Age: 5", "Date: @0"), miss),
	}
}

func ranges() []Case {
	const digits = "0123456789A"
	kept := []string{"Cache-Control: max-age=60", `ETag: "v1"`, "Last-Modified: @-3000", "Date: @0"}
	part := func(name, says, spec string, status int, body string, more ...string) Case {
		s := hit.send(append([]string{"Range: bytes=" + spec}, more...)...).want(status, body)
		if status == 206 && body != "" {
			s = s.has("Content-Range", "Etag")
		}
		return should("range/9110-14."+name, says, get(kept...).body(digits), s)
	}
	return []Case{
		part("1.2/first", "a range of a stored whole", "0-1", 206, "01"),
		part("1.2/open", "an open range", "1-", 206, "123456789A"),
		part("1.2/suffix", "a suffix", "-1", 206, "A"),
		part("1.2/long-suffix", "a suffix longer than the whole", "-100", 206, digits),
		part("1.2/beyond", "an end beyond the whole", "9-99999999999999999999", 206, "9A"),
		part("1.2/unsatisfiable", "nothing of the whole", "11-", 416, ""),
		part("1.2/invalid", "an invalid range is ignored", "2-1", 200, digits),
		part("2/joined", "ranges that touch may be joined", "0-1,2-3", 206, "0123"),
		part("2/too-many", "many ranges may be ignored", strings.Repeat("0-0,", 40)+"0-0", 200, digits),
		part("2/If-Range", "If-Range with the ETag", "0-1", 206, "01", `If-Range: "v1"`),
		part("2/If-Range-other", "If-Range with another", "0-1", 200, digits, `If-Range: "v2"`),
		part("2/If-Range-weak", "If-Range compares strongly", "0-1", 200, digits, `If-Range: W/"v1"`),
		part("2/If-None-Match", "a condition comes first", "0-1", 304, "", `If-None-Match: "v1"`),
		should("range/9110-15.3.7.2/several", "several ranges come as a multipart", get(kept...).body(strings.Repeat(digits, 90)),
			hit.send("Range: bytes=0-1,500-501").want(206, "").has("Content-Type").lacks("Content-Range")),
		must("range/9110-15.3.7/fields", "a 206 has the fields of the 200", get(append(kept, "A: 1")...).body(digits), hit.send("Range: bytes=0-1").want(206, "01").has("A: 1", `Etag: "v1"`, "Date", "Cache-Control")),
	}
}

func parts() []Case {
	slice := func(spec, told, body string, more ...string) Step {
		s := get(append([]string{"Cache-Control: max-age=60", "Content-Range: bytes " + told}, more...)...).status(206).body(body)
		return s.send("Range: bytes=" + spec)
	}
	within := func(spec, body string) Step { return hit.send("Range: bytes="+spec).want(206, body) }
	tag := `ETag: "v1"`
	return []Case{
		should("part/9111-3.3/again", "a stored part answers a range within it", slice("4-8", "4-8/10", "45678"), within("4-8", "45678")),
		should("part/9111-3.3/inside", "a stored part answers a range within it", slice("4-8", "4-8/10", "45678"), within("5-6", "56")),
		should("part/9111-3.3/suffix", "a stored end answers a suffix", slice("-5", "5-9/10", "56789"), within("-1", "9")),
		should("part/9111-3.3/open", "a stored end answers an open range", slice("-5", "5-9/10", "56789"), within("6-", "6789")),
		must("part/9111-3.3/outside", "and nothing beyond it", slice("4-8", "4-8/10", "45678"), slice("4-9", "4-9/10", "456789")),
		must("part/9111-3.3/whole", "nor the whole", slice("4-8", "4-8/10", "45678"), get("Cache-Control: max-age=60").body("another").want(200, "another")),
		must("part/9110-14.4/too-short", "a part that is not what its Content-Range says is not used", slice("4-8", "4-8/10", "4567"), slice("4-8", "4-8/10", "45678")),
		should("part/9111-3.4/together", "parts with one strong validator are put together", slice("2-4", "2-4/10", "234", tag), slice("5-7", "5-7/10", "567", tag), within("3-6", "3456")),
		must("part/9111-3.4/weak", "with a weak one they are not", slice("2-4", "2-4/10", "234", `ETag: W/"v1"`), slice("5-7", "5-7/10", "567", `ETag: W/"v1"`), slice("3-6", "3-6/10", "3456")),
		must("part/9111-3.4/other", "with another one they are not", slice("2-4", "2-4/10", "234", tag), slice("5-7", "5-7/10", "567", `ETag: "v2"`), slice("3-6", "3-6/10", "3456")),
		should("part/9111-3.4/completed", "what is missing is asked for", slice("4-9", "4-9/10", "456789", tag),
			Step{From: Origin, Reply: Reply{Status: 206, Body: "0123", Fields: []string{"Cache-Control: max-age=60", "Content-Range: bytes 0-3/10", tag}}, Saw: []string{"Range: bytes=0-3", `If-Range: "v1"`}, Status: 200, Body: "0123456789"},
			hit.want(200, "0123456789").lacks("Content-Range")),
	}
}

func groups() []Case {
	kept := []string{"Cache-Control: max-age=60", `Cache-Groups: "PATH/a", "PATH/b"`}
	change := func(group string) Step {
		return Step{Method: "POST", Target: "/other", From: Origin, Reply: Reply{Fields: []string{`Cache-Group-Invalidation: ` + group}}}
	}
	return []Case{
		should("groups/9875-3/invalidated", "an unsafe request invalidates the groups that its answer names", get(kept...), change(`"PATH/b"`), miss),
		should("groups/9875-3/other", "and no others", get(kept...), change(`"PATH/c"`), hit),
		must("groups/9875-3/safe", "the answer to a safe request invalidates nothing", get(kept...), get(`Cache-Group-Invalidation: "PATH/a"`).target("/other"), hit),
		should("search/no-vary-search/params", "a parameter that No-Vary-Search leaves out does not count", get("Cache-Control: max-age=60", `No-Vary-Search: params=("utm")`).target("?id=1&utm=2"), hit.target("?utm=3&id=1")),
		must("search/no-vary-search/others", "all others do", get("Cache-Control: max-age=60", `No-Vary-Search: params=("utm")`).target("?id=1&utm=2"), miss.target("?utm=2&id=2")),
		must("search/no-vary-search/order", "and so does their order, without key-order", get("Cache-Control: max-age=60", `No-Vary-Search: params=("utm")`).target("?id=1&n=2"), miss.target("?n=2&id=1")),
		should("search/no-vary-search/key-order", "with key-order it does not", get("Cache-Control: max-age=60", `No-Vary-Search: key-order`).target("?id=1&n=2"), hit.target("?n=2&id=1")),
	}
}

func statusField() []Case {
	return []Case{
		should("status-field/9211-2/miss", "Cache-Status says why the origin was asked", get("Cache-Control: max-age=60").has("Cache-Status"), hit.has("Cache-Status")),
		should("status-field/9211-2/not-stored", "on every answer of the cache", get("Cache-Control: no-store").has("Cache-Status")),
	}
}
