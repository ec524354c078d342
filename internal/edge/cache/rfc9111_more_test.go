package cache

import (
	"errors"
	"testing"
	"time"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/stage"
)

func stale(headers ...string) step {
	return step{reply: ok(append([]string{"Cache-Control: max-age=1"}, headers...)...)}
}

func TestRFC9111_4_3_Validation(t *testing.T) {
	tag, lm := `ETag: "v1"`, "Last-Modified: Wed, 01 Jan 2020 00:00:00 GMT"
	later := 2 * time.Second
	not := func(headers ...string) reply { return reply{status: 304, headers: headers} }
	run(t, []rfcCase{
		{name: "RFC9111 4.3.1 with the stored ETag", steps: []step{
			stale(tag), {after: later, reply: not(tag), want: "revalidated", body: "hello world", asked: []string{`|If-None-Match: "v1"|`, "!If-Modified-Since"}},
		}},
		{name: "RFC9111 4.3.1 with the stored weak ETag", steps: []step{
			stale(`ETag: W/"v1"`), {after: later, reply: not(`ETag: W/"v1"`), want: "revalidated", asked: []string{`|If-None-Match: W/"v1"|`}},
		}},
		{name: "RFC9111 4.3.1 with both validators", steps: []step{
			stale(tag, lm), {after: later, reply: not(tag), want: "revalidated", asked: []string{`|If-None-Match: "v1"|`, "|If-Modified-Since: Wed, 01 Jan 2020 00:00:00 GMT|"}},
		}},
		{name: "RFC9111 4.3.1 without validators the whole is fetched", steps: []step{
			stale(), {after: later, reply: reply{body: "new"}, want: "expired", body: "new", asked: []string{"!If-"}},
		}},
		{name: "RFC9111 4.1 the selecting fields are sent along", steps: []step{
			{headers: []string{"Abc: 123"}, reply: ok("Expires: @1", tag, "Vary: Abc")},
			{after: later, headers: []string{"Abc: 123"}, reply: not(tag), want: "revalidated", asked: []string{"|Abc: 123|", `If-None-Match: "v1"`}},
		}},
		{name: "RFC9111 3.2 a field that the 304 omits stays", steps: []step{
			stale(lm, "X-A: 1"), {after: later, reply: not(lm), want: "revalidated", has: []string{"X-A: 1"}}, {want: "hit", has: []string{"X-A: 1"}},
		}},
		{name: "RFC9111 3.2 a field of the 304 replaces all stored ones", steps: []step{
			stale(tag, "X-A: 1", "X-A: 2", "Content-Type: a/b"),
			{after: later, reply: not(tag, "x-a: 3", "Content-Type: c/d", "Cache-Control: max-age=3600", "X-B: 4"), want: "revalidated", has: []string{"X-A: 3", "Content-Type: c/d", "X-B: 4"}},
			{after: later, want: "hit", has: []string{"X-A: 3", "Content-Type: c/d", "Cache-Control: max-age=3600", "Age: 2"}},
		}},
		{name: "RFC9111 3.2 Content-Length and the coding stay", steps: []step{
			stale(tag, "Content-Encoding: a"), {after: later, reply: not(tag, "Content-Length: 5", "Content-Encoding: b"), want: "revalidated", has: []string{"Content-Encoding: a"}, lacks: []string{"Content-Length"}, body: "hello world"},
		}},
		{name: "RFC9111 4.3.4 a 304 of another strong ETag is not for us", steps: []step{
			stale(tag), {after: later, reply: not(`ETag: "v2"`), want: "expired", status: 304, asked: []string{"!If-None-Match"}},
		}},
		{name: "RFC9111 4.3.4 a 304 without Date is of now", steps: []step{
			stale(tag, "Date: @0"), {after: time.Hour, reply: not(tag, "Cache-Control: max-age=60"), want: "revalidated"}, {want: "hit", has: []string{"Age: 0"}},
		}},
		{name: "RFC9111 4.3.4 Set-Cookie of a 304 is for one", steps: []step{
			stale(tag), {after: later, reply: not(tag, "Set-Cookie: a=b", "Cache-Control: max-age=60"), has: []string{"Set-Cookie: a=b"}}, {want: "hit", lacks: []string{"Set-Cookie"}},
		}},
		{name: "RFC9111 4.3.4 a 304 that says private ends the sharing", steps: []step{
			stale(tag), {after: later, reply: not(tag, "Cache-Control: private"), want: "revalidated", body: "hello world"}, {reply: ok(), want: "miss", asked: []string{"!If-None-Match"}},
		}},
		{name: "RFC9111 4.3.3 a new answer replaces", steps: []step{
			stale(tag), {after: later, reply: reply{body: "new", headers: []string{"Cache-Control: max-age=60"}}, want: "expired", body: "new"}, {want: "hit", body: "new"},
		}},
		{name: "RFC9111 4.3.3 an error is handed on, and what is stored stays", steps: []step{
			stale(tag), {after: later, reply: reply{status: 503, body: "no"}, status: 503}, {reply: not(tag), want: "revalidated"},
		}},
		{name: "RFC9111 4.3.5 HEAD freshens", steps: []step{
			stale(tag, "X-A: 1"),
			{after: later, req: "HEAD /a", reply: ok(tag, "Cache-Control: max-age=60", "X-A: 2"), want: "pass"},
			{after: later, want: "hit", has: []string{"X-A: 2"}, body: "hello world"},
		}},
		{name: "RFC9111 4.3.5 HEAD of another length ends it", steps: []step{
			stale(tag),
			{after: later, req: "HEAD /a", reply: reply{headers: []string{tag, "Cache-Control: max-age=60"}, body: "short"}},
			{reply: ok(), want: "miss"},
		}},
		{name: "RFC9111 4 HEAD from a stored GET", steps: []step{
			{reply: ok("Cache-Control: max-age=60", "X-A: 1")}, {req: "HEAD /a", want: "hit", has: []string{"X-A: 1"}},
		}},
		{name: "RFC9111 3 HEAD is not stored", steps: []step{
			{req: "HEAD /a", reply: ok("Cache-Control: max-age=60"), want: "pass"}, {reply: ok("Cache-Control: max-age=60"), want: "miss"},
		}},
	})
}

func TestRFC9111_4_3_2_ConditionsOfTheClient(t *testing.T) {
	tag := `ETag: "v1"`
	kept := ok("Cache-Control: max-age=3600", tag, "Last-Modified: @-3000", "Date: @0", "Content-Type: a/b")
	inm := func(v string, status int) rfcCase {
		return rfcCase{name: "RFC9110 13.1.2 If-None-Match " + v, steps: []step{
			{reply: kept}, {headers: []string{"If-None-Match: " + v}, want: "hit", status: status},
		}}
	}
	cases := []rfcCase{
		inm(`"v1"`, 304), inm(`W/"v1"`, 304), inm("*", 304), inm(`"a", "v1"`, 304), inm(`"v1","b,c"`, 304), inm(`"a,", "v1"`, 304),
		inm(`"v2"`, 200), inm("v1", 200), inm(`w/"v1"`, 200), inm(`"v1`, 200), inm(``, 200), inm(`junk, "v1"`, 304),
		{name: "RFC9110 15.4.5 a 304 has the ETag and what guides caches", steps: []step{
			{reply: kept}, {headers: []string{`If-None-Match: "v1"`}, want: "hit", status: 304, has: []string{tag, "Cache-Control: max-age=3600", "Content-Type: a/b"}, lacks: []string{"Content-Encoding"}},
		}},
		{name: "RFC9110 13.2.2 If-None-Match before If-Modified-Since", steps: []step{
			{reply: kept}, {headers: []string{`If-None-Match: "x"`, "If-Modified-Since: @0"}, want: "hit", status: 200},
		}},
		{name: "RFC9111 4.3.2 If-Modified-Since that is Last-Modified", steps: []step{{reply: kept}, {headers: []string{"If-Modified-Since: @-3000"}, want: "hit", status: 304}}},
		{name: "RFC9111 4.3.2 If-Modified-Since later", steps: []step{{reply: kept}, {headers: []string{"If-Modified-Since: @-2000"}, want: "hit", status: 304}}},
		{name: "RFC9111 4.3.2 If-Modified-Since earlier", steps: []step{{reply: kept}, {headers: []string{"If-Modified-Since: @-4000"}, want: "hit", status: 200}}},
		{name: "RFC9110 13.1.3 If-Modified-Since that is no date", steps: []step{{reply: kept}, {headers: []string{"If-Modified-Since: 0"}, want: "hit", status: 200}}},
		{name: "RFC9111 4.3.2 without Last-Modified its Date counts", steps: []step{
			{reply: ok("Cache-Control: max-age=3600", "Date: @0")}, {headers: []string{"If-Modified-Since: @0"}, want: "hit", status: 304},
		}},
		{name: "RFC9110 5.6.7 If-Modified-Since in RFC 850's form", steps: []step{
			{reply: ok("Cache-Control: max-age=3600", "Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT")},
			{headers: []string{"If-Modified-Since: Sunday, 06-Nov-94 08:49:37 GMT"}, want: "hit", status: 304},
		}},
		{name: "RFC9111 4.3.2 the answer of a validation meets the condition", steps: []step{
			stale(tag), {after: time.Hour, headers: []string{`If-None-Match: "v1"`}, reply: reply{status: 304, headers: []string{tag}}, want: "revalidated", status: 304},
		}},
		{name: "RFC9111 4.3.2 a fetched answer meets the condition", steps: []step{
			{headers: []string{`If-None-Match: "v1"`}, reply: kept, want: "miss", status: 304, asked: []string{"!If-None-Match"}}, {want: "hit", body: "hello world"},
		}},
		{name: "RFC9111 4.3.2 If-Match is the origin's", steps: []step{
			{reply: kept}, {headers: []string{`If-Match: "v1"`}, reply: reply{status: 412}, status: 412, want: "bypass", asked: []string{"If-Match"}},
		}},
		{name: "RFC9110 15.5 conditions are for 200 only", steps: []step{
			{reply: reply{status: 404, headers: []string{"Cache-Control: max-age=3600", tag}, body: "x"}, status: 404}, {headers: []string{`If-None-Match: "v1"`}, want: "hit", status: 404},
		}},
	}
	run(t, cases)
}

func TestRFC9110_14_Range(t *testing.T) {
	kept := reply{headers: []string{"Cache-Control: max-age=3600", `ETag: "v1"`, "Last-Modified: @-3000", "Date: @0"}, body: "0123456789A"}
	part := func(v string, status int, body, cr string, more ...string) rfcCase {
		c := rfcCase{name: "RFC9110 14.2 Range " + v, steps: []step{
			{reply: kept}, {headers: append(more, "Range: "+v), want: "hit", status: status, body: body, lacks: []string{"Content-Range"}},
		}}
		if cr != "" {
			c.steps[1].has, c.steps[1].lacks = []string{"Content-Range: " + cr}, nil
		}
		return c
	}
	run(t, []rfcCase{
		part("bytes=0-1", 206, "01", "bytes 0-1/11"),
		part("BYTES=1-", 206, "123456789A", "bytes 1-10/11"),
		part("bytes=-1", 206, "A", "bytes 10-10/11"),
		part("bytes=-100", 206, "0123456789A", "bytes 0-10/11"),
		part("bytes=9-99999999999999999999999", 206, "9A", "bytes 9-10/11"),
		part("bytes=11-", 416, "", "bytes */11"),
		part("bytes=-0", 416, "", "bytes */11"),
		part("bytes=2-1", 200, "0123456789A", ""),
		part("bytes=0-1,3-4", 206, "01234", "bytes 0-4/11"), // too near to be sent apart
		part("bytes=a-1", 200, "0123456789A", ""),
		part("bytes=-", 200, "0123456789A", ""),
		part("lines=0-1", 200, "0123456789A", ""),
		part("bytes=0-1", 206, "01", "bytes 0-1/11", `If-Range: "v1"`),
		part("bytes=0-1", 206, "01", "bytes 0-1/11", "If-Range: @-3000"),
		part("bytes=0-1", 200, "0123456789A", "", `If-Range: "v2"`),
		part("bytes=0-1", 200, "0123456789A", "", `If-Range: W/"v1"`),
		part("bytes=0-1", 200, "0123456789A", "", "If-Range: @-2000"),
		part("bytes=0-1", 304, "", "", `If-None-Match: "v1"`),
		{name: "RFC9110 14.2 a miss from the first byte fetches the whole", steps: []step{
			{headers: []string{"Range: bytes=0-1"}, reply: kept, want: "miss", status: 206, body: "01", asked: []string{"!Range"}},
			{want: "hit", body: "0123456789A"},
		}},
		{name: "RFC9110 14.2 what cannot be stored is asked for with its range", steps: []step{
			{headers: []string{"Range: bytes=2-3"}, reply: ok(), want: "pass", asked: []string{"Range: bytes=2-3"}},
		}},
	})
}

func TestRFC9111_5_2_1_RequestDirectives(t *testing.T) {
	lm := "Last-Modified: @-86400"
	kept := ok("Cache-Control: max-age=3600", lm, "Date: @0")
	again := reply{status: 304, headers: []string{lm}}
	run(t, []rfcCase{
		{name: "RFC9111 5.2.1.4 no-cache validates", steps: []step{{reply: kept}, {headers: []string{"Cache-Control: no-cache"}, reply: reply{status: 304}, want: "revalidated", asked: []string{"If-Modified-Since"}}}},
		{name: "RFC9111 5.2.1.1 max-age=0", steps: []step{{reply: kept}, {after: time.Second, headers: []string{"Cache-Control: max-age=0"}, reply: again, want: "expired", status: 304}}},
		{name: "RFC9111 5.2.1.1 max-age that is old enough", steps: []step{{reply: kept}, {after: time.Second, headers: []string{"Cache-Control: max-age=2"}, want: "hit"}}},
		{name: "RFC9111 5.2.1.3 min-fresh", steps: []step{{reply: kept}, {headers: []string{"Cache-Control: min-fresh=4000"}, reply: kept, want: "expired"}}},
		{name: "RFC9111 5.2.1.3 min-fresh that is met", steps: []step{{reply: kept}, {headers: []string{"Cache-Control: min-fresh=3000"}, want: "hit"}}},
		{name: "RFC9111 5.2.1.2 max-stale", steps: []step{{reply: kept}, {after: 3700 * time.Second, headers: []string{"Cache-Control: max-stale=1000"}, want: "stale", has: []string{"Cache-Status: relais; hit; ttl=-100; detail=max-stale"}}}},
		{name: "RFC9111 5.2.1.2 max-stale without a value", steps: []step{{reply: kept}, {after: 100 * time.Hour, headers: []string{"Cache-Control: max-stale"}, want: "stale"}}},
		{name: "RFC9111 5.2.1.2 max-stale is not enough", steps: []step{{reply: kept}, {after: 3700 * time.Second, headers: []string{"Cache-Control: max-stale=99"}, reply: kept, want: "expired"}}},
		{name: "RFC9111 4.2.4 max-stale yields to must-revalidate", steps: []step{{reply: ok("Cache-Control: max-age=1, must-revalidate", lm)}, {after: 2 * time.Second, headers: []string{"Cache-Control: max-stale"}, reply: kept, want: "expired"}}},
		{name: "RFC9111 4.2.4 max-stale yields to s-maxage", steps: []step{{reply: ok("Cache-Control: s-maxage=1", lm)}, {after: 2 * time.Second, headers: []string{"Cache-Control: max-stale"}, reply: kept, want: "expired"}}},
		{name: "RFC9111 5.2.1.5 no-store", steps: []step{{headers: []string{"Cache-Control: no-store"}, reply: kept, want: "bypass"}, {reply: kept, want: "miss"}}},
		{name: "RFC9111 5.2.1.7 only-if-cached", steps: []step{{headers: []string{"Cache-Control: only-if-cached"}, status: 504}}},
		{name: "RFC9111 5.2.1.7 only-if-cached with something stored", steps: []step{{reply: kept}, {headers: []string{"Cache-Control: only-if-cached"}, want: "hit"}}},
		{name: "RFC9111 5.4 Pragma yields to Cache-Control", steps: []step{{reply: kept}, {headers: []string{"Pragma: no-cache"}, want: "hit"}}},
	})
}

func TestRFC9111_4_1_Vary(t *testing.T) {
	vary := func(v string) []string { return []string{"Cache-Control: max-age=5000", "Vary: " + v} }
	pair := func(name, v string, a, b []string, hit bool) rfcCase {
		want := "hit"
		if !hit {
			want = "miss"
		}
		return rfcCase{name: "RFC9111 4.1 " + name, steps: []step{
			{headers: a, reply: ok(vary(v)...)}, {headers: b, reply: ok(vary(v)...), want: want},
		}}
	}
	h := func(l ...string) []string { return l }
	cases := []rfcCase{
		pair("same", "Foo", h("Foo: 1"), h("foo: 1", "Other: 3"), true),
		pair("other", "Foo", h("Foo: 1"), h("Foo: 2"), false),
		pair("omitted", "Foo", h("Foo: 1"), h(), false),
		pair("added", "Foo", h(), h("Foo: 1"), false),
		pair("empty is not omitted", "Foo", h(), h("Foo: "), false),
		pair("three, in another order", "Foo, Bar, Baz", h("Foo: 1", "Bar: a", "Baz: 7"), h("Foo: 1", "Baz: 7", "Bar: abc"), false),
		pair("three, one omitted both times", "Foo, Bar, Baz", h("Foo: 1", "Baz: 7"), h("Foo: 1", "Baz: 7"), true),
		pair("values do not run together", "Foo, Bar", h("Foo: 1", "Bar: 2"), h("Foo: 12", "Bar: "), false),
		pair("white space", "Foo", h("Foo: 1,2"), h("Foo:  1, 2 "), true),
		pair("lines are combined", "Foo", h("Foo: 1, 2"), h("Foo: 1", "Foo: 2"), true),
		pair("white space in quotes stays", "Foo", h(`Foo: "1, 2"`), h(`Foo: "1,2"`), false),
		pair("case of other fields stays", "Foo", h("Foo: a"), h("Foo: A"), false),
		pair("languages in another order", "Accept-Language", h("Accept-Language: en, de"), h("Accept-Language: de, en"), true),
		pair("languages in another case", "Accept-Language", h("Accept-Language: en, de"), h("Accept-Language:  eN ,   De"), true),
		pair("languages with other weights", "Accept-Language", h("Accept-Language: en, de;q=0.5"), h("Accept-Language: en;q=0.5, de"), false),
		pair("codings in another order", "Accept-Encoding", h("Accept-Encoding: gzip, br"), h("Accept-Encoding: br;q=1.0, gzip;q=0.8, deflate"), true),
		pair("codings refused", "Accept-Encoding", h("Accept-Encoding: gzip"), h("Accept-Encoding: gzip;q=0"), false),
		pair("codings by star", "Accept-Encoding", h("Accept-Encoding: gzip, br, zstd"), h("Accept-Encoding: *"), true),
		pair("codings absent", "Accept-Encoding", h("Accept-Encoding: gzip"), h(), false),
		{name: "RFC9111 4.1 an unusual coding is for who asks alike", steps: []step{
			{headers: h("Accept-Encoding: gzip, deflate"), reply: ok(append(vary("Accept-Encoding"), "Content-Encoding: deflate")...)},
			{headers: h("Accept-Encoding: gzip"), reply: ok(), want: "miss"},
			{headers: h("Accept-Encoding: deflate,gzip"), want: "hit"},
		}},
		{name: "RFC9111 4.1 several variants stay", steps: []step{
			{headers: h("Foo: 1"), reply: reply{headers: vary("Foo"), body: "one"}},
			{headers: h("Foo: 2"), reply: reply{headers: vary("Foo"), body: "two"}, has: []string{"Cache-Status: relais; fwd=vary-miss; stored"}},
			{headers: h("Foo: 1"), want: "hit", body: "one"},
			{headers: h("Foo: 2"), want: "hit", body: "two"},
		}},
		{name: "RFC9111 4.1 several Vary lines", steps: []step{
			{headers: h("Foo: 1", "Bar: 1"), reply: ok("Cache-Control: max-age=99", "Vary: Foo", "Vary: Bar")},
			{headers: h("Foo: 1", "Bar: 2"), reply: ok(), want: "miss"},
			{headers: h("Foo: 2", "Bar: 1"), reply: ok()},
		}},
	}
	for _, star := range [][]string{{"Vary: *"}, {"Vary: *, *"}, {"Vary: *", "Vary: *"}, {"Vary: , *"}, {"Vary: ", "Vary: *"}, {"Vary: *, Foo"}, {"Vary: Foo, *"}} {
		cases = append(cases, rfcCase{name: "RFC9111 4.1 star", steps: []step{
			{headers: h("Foo: 1"), reply: ok(append([]string{"Cache-Control: max-age=99"}, star...)...)},
			{headers: h("Foo: 1"), reply: reply{body: "new"}, body: "new"},
		}})
	}
	run(t, cases)
}

func TestRFC9111_4_4_Invalidation(t *testing.T) {
	kept := ok("Cache-Control: max-age=3600")
	var cases []rfcCase
	for _, m := range []string{"POST", "PUT", "DELETE", "PATCH", "M-SEARCH"} {
		cases = append(cases, rfcCase{name: "RFC9111 4.4 " + m + " invalidates its target", steps: []step{
			{reply: kept}, {req: m + " /a", reply: ok(), want: "bypass"}, {reply: kept, want: "miss"},
		}}, rfcCase{name: "RFC9111 4.4 a failed " + m + " does not", steps: []step{
			{reply: kept}, {req: m + " /a", reply: reply{status: 500}, status: 500}, {want: "hit"},
		}})
		for _, f := range []string{"Location", "Content-Location"} {
			for ref, gone := range map[string]bool{
				"b": true, "/dir/b": true, "http://shop.example/dir/b": true, "http://SHOP.example:80/dir/b#x": true,
				"https://shop.example/dir/b": false, "http://other.example/dir/b": false, "http://shop.example:81/dir/b": false, "%zz": false,
			} {
				want := "hit"
				if gone {
					want = "miss"
				}
				cases = append(cases, rfcCase{name: "RFC9111 4.4 " + m + " " + f + " " + ref, steps: []step{
					{req: "GET /dir/b", reply: kept}, {req: m + " /dir/a", reply: ok(f + ": " + ref)}, {req: "GET /dir/b", reply: kept, want: want},
				}})
			}
		}
	}
	cases = append(cases, rfcCase{name: "RFC9110 9.2.1 OPTIONS invalidates nothing", steps: []step{
		{reply: kept}, {req: "OPTIONS /a", reply: ok(), want: "bypass"}, {want: "hit"},
	}}, rfcCase{name: "RFC9111 4.4 all variants go", steps: []step{
		{headers: []string{"Foo: 1"}, reply: ok("Cache-Control: max-age=99", "Vary: Foo")},
		{headers: []string{"Foo: 2"}, reply: ok("Cache-Control: max-age=99", "Vary: Foo")},
		{req: "POST /a", reply: ok()},
		{headers: []string{"Foo: 1"}, reply: ok(), want: "miss"},
	}}, rfcCase{name: "RFC9111 3 POST is not stored", steps: []step{
		{req: "POST /a", reply: kept}, {reply: kept, want: "miss"},
	}})
	run(t, cases)
}

func TestRFC5861_Stale(t *testing.T) {
	down := reply{err: &stage.Error{Code: "connection_refused", Side: stage.SideOrigin, Status: 502, Err: errors.New("refused")}}
	cases := []rfcCase{
		{name: "RFC5861 3 stale-while-revalidate", steps: []step{
			{reply: ok("Cache-Control: max-age=1, stale-while-revalidate=60", `ETag: "v1"`)},
			{after: 10 * time.Second, reply: reply{body: "new", headers: []string{"Cache-Control: max-age=60"}}, want: "stale", body: "hello world", has: []string{"Cache-Status: relais; hit; ttl=-9; detail=stale-while-revalidate"}},
			{want: "hit", body: "new"},
		}},
		{name: "RFC5861 3 not behind its window", steps: []step{
			{reply: ok("Cache-Control: max-age=1, stale-while-revalidate=4")},
			{after: 6 * time.Second, reply: reply{body: "new"}, want: "expired", body: "new"},
		}},
		{name: "RFC5861 3 s-maxage with a window of its own", steps: []step{
			{reply: ok("Cache-Control: s-maxage=1, stale-while-revalidate=60")}, {after: 2 * time.Second, reply: ok(), want: "stale"},
		}},
		{name: "RFC5861 3 must-revalidate before the window", steps: []step{
			{reply: ok("Cache-Control: max-age=1, stale-while-revalidate=60, must-revalidate")}, {after: 2 * time.Second, reply: ok(), want: "expired"},
		}},
		{name: "RFC5861 3 the policy's window", spec: v1.CachePolicySpec{StaleWhileRevalidate: v1.Duration(time.Minute)}, steps: []step{
			{reply: ok("Cache-Control: max-age=1")}, {after: 2 * time.Second, reply: ok(), want: "stale"},
		}},
		{name: "RFC5861 3 the policy's window yields to s-maxage", spec: v1.CachePolicySpec{StaleWhileRevalidate: v1.Duration(time.Minute)}, steps: []step{
			{reply: ok("Cache-Control: s-maxage=1")}, {after: 2 * time.Second, reply: ok(), want: "expired"},
		}},
		{name: "RFC5861 4 stale-if-error with no answer", steps: []step{
			{reply: ok("Cache-Control: max-age=1, stale-if-error=60")},
			{after: 2 * time.Second, reply: down, want: "stale", body: "hello world", has: []string{"Cache-Status: relais; fwd=stale; detail=stale-if-error"}},
			{after: time.Second, want: "stale", body: "hello world", has: []string{"Cache-Status: relais; hit; ttl=-2; detail=stale-if-error"}},
			{after: 2 * time.Second, reply: reply{body: "new"}, want: "expired", body: "new"},
		}},
		{name: "RFC5861 4 not behind its window", steps: []step{
			{reply: ok("Cache-Control: max-age=1, stale-if-error=60")}, {after: 62 * time.Second, reply: down, status: 502},
		}},
		{name: "RFC9111 4.2.4 no stale answer without leave", steps: []step{
			{reply: ok("Cache-Control: max-age=1")}, {after: 2 * time.Second, reply: down, status: 502},
		}},
		{name: "RFC5861 4 a client's fault is no error of the origin", steps: []step{
			{reply: ok("Cache-Control: max-age=1, stale-if-error=60")},
			{after: 2 * time.Second, reply: reply{err: &stage.Error{Code: "x", Side: stage.SideClient, Status: 503}}, status: 503},
		}},
		{name: "RFC5861 4 404 is no error", steps: []step{
			{reply: ok("Cache-Control: max-age=1, stale-if-error=60")}, {after: 2 * time.Second, reply: reply{status: 404, body: "x"}, status: 404},
		}},
	}
	for _, s := range []int{500, 502, 503, 504} {
		cases = append(cases, rfcCase{name: "RFC5861 4 stale-if-error with an error", steps: []step{
			{reply: ok("Cache-Control: max-age=1, stale-if-error=60")},
			{after: 2 * time.Second, reply: reply{status: s, body: "x"}, want: "stale", body: "hello world"},
		}})
	}
	for _, d := range []string{"must-revalidate", "proxy-revalidate", "no-cache", "s-maxage=1"} {
		cases = append(cases, rfcCase{name: "RFC9111 4.2.4 no stale answer with " + d, spec: v1.CachePolicySpec{StaleIfError: v1.Duration(time.Hour)}, steps: []step{
			{reply: ok("Cache-Control: max-age=1, " + d)}, {after: 2 * time.Second, reply: down, status: 502},
		}})
	}
	run(t, cases)
}

// TestAPolicysWindowIsNotForAnswersWithoutLifetime: such an answer may be one visitor's own page,
// which the next one must not be given.
func TestAPolicysWindowIsNotForAnswersWithoutLifetime(t *testing.T) {
	spec := v1.CachePolicySpec{StaleWhileRevalidate: v1.Duration(time.Hour), StaleIfError: v1.Duration(time.Hour)}
	down := reply{err: &stage.Error{Code: "connection_refused", Side: stage.SideOrigin, Status: 502, Err: errors.New("refused")}}
	var cases []rfcCase
	for name, fields := range map[string][]string{
		"nothing said": nil, "a validator only": {`ETag: "v1"`}, "max-age=0": {"Cache-Control: max-age=0"},
		"Expires: 0": {"Expires: 0"}, "max-age=0 and a validator": {"Cache-Control: max-age=0", `ETag: "v1"`},
	} {
		cases = append(cases, rfcCase{name: "policy: no window with " + name, spec: spec, steps: []step{
			{reply: ok(fields...)}, {reply: reply{body: "another's", headers: fields}, body: "another's"}, {reply: down, status: 502},
		}})
	}
	cases = append(cases, rfcCase{name: "policy: the answer's own window", spec: spec, steps: []step{
		{reply: ok("Cache-Control: max-age=0, stale-while-revalidate=60")}, {after: time.Second, reply: ok(), want: "stale"},
	}})
	run(t, cases)
}

func TestPolicy(t *testing.T) {
	hour := v1.Duration(time.Hour)
	run(t, []rfcCase{
		{name: "policy: default lifetime", spec: v1.CachePolicySpec{DefaultTTL: hour}, steps: fresh()},
		{name: "policy: default lifetime not with Set-Cookie", spec: v1.CachePolicySpec{DefaultTTL: hour}, steps: again("Set-Cookie: a=b")},
		{name: "policy: default lifetime not with a lifetime", spec: v1.CachePolicySpec{DefaultTTL: hour}, steps: again("Cache-Control: max-age=1")},
		{name: "policy: default lifetime not with private", spec: v1.CachePolicySpec{DefaultTTL: hour}, steps: again("Cache-Control: private")},
		{name: "policy: default lifetime not for 500", spec: v1.CachePolicySpec{DefaultTTL: hour}, steps: []step{
			{reply: reply{status: 500, body: "x"}, status: 500}, {reply: ok(), want: "miss"},
		}},
		{name: "policy: largest lifetime", spec: v1.CachePolicySpec{MaxTTL: v1.Duration(time.Second)}, steps: again("Cache-Control: max-age=3600")},
		{name: "policy: largest object, told", spec: v1.CachePolicySpec{MaxObject: 10}, steps: again("Cache-Control: max-age=3600")},
		{name: "policy: no query", spec: v1.CachePolicySpec{Key: v1.CacheKey{Query: "none"}}, steps: []step{
			{req: "GET /a?x=1", reply: ok("Cache-Control: max-age=60")}, {req: "GET /a?y=2", want: "hit"}, {req: "POST /a?z", reply: ok()}, {reply: ok(), want: "miss"},
		}},
		{name: "policy: all of the query", steps: []step{
			{req: "GET /a?x=1", reply: ok("Cache-Control: max-age=60")}, {req: "GET /a?x=2", reply: ok(), want: "miss"}, {req: "GET /a?x=1", want: "hit"},
		}},
		{name: "policy: a listed query", spec: v1.CachePolicySpec{Key: v1.CacheKey{Query: "listed", Parameters: []string{"id", "f_*"}}}, steps: []step{
			{req: "GET /a?utm=1&id=5&f_x=1", reply: ok("Cache-Control: max-age=60")},
			{req: "GET /a?id=5&utm=2&f_x=1", want: "hit"},
			{req: "GET /a?id=5&f_x=1", want: "hit"},
			{req: "GET /a?id=6&f_x=1", reply: ok(), want: "miss"},
			{req: "GET /a?%69d=5&f_x=1", reply: ok(), want: "miss"},
			{req: "GET /a?utm=1;id=7&id=5&f_x=1", reply: ok(), want: "miss"},
			{req: "GET /a?id=5&f_x=1&id[]=7", reply: ok(), want: "miss"},
		}},
		{name: "policy: all but a few parameters", spec: v1.CachePolicySpec{Key: v1.CacheKey{Query: "except", Parameters: []string{"utm_*"}}}, steps: []step{
			{req: "GET /a?utm_source=1&id=5", reply: ok("Cache-Control: max-age=60")},
			{req: "GET /a?id=5&utm_x=2", want: "hit"},
			{req: "GET /a?id=5", want: "hit"},
			{req: "GET /a?id=6", reply: ok(), want: "miss"},
		}},
		{name: "policy: fields and cookies of the key", spec: v1.CachePolicySpec{Key: v1.CacheKey{Headers: []string{"X-Region"}, Cookies: []string{"currency"}}}, steps: []step{
			{headers: []string{"X-Region: eu", "Cookie: sid=1; currency=EUR"}, reply: ok("Cache-Control: max-age=60")},
			{headers: []string{"X-Region: eu", "Cookie: currency=EUR; sid=2"}, want: "hit"},
			{headers: []string{"X-Region: us", "Cookie: currency=EUR"}, reply: ok("Cache-Control: max-age=60"), want: "miss"},
			{headers: []string{"X-Region: eu", "Cookie: currency=USD"}, reply: ok(), want: "miss"},
			{headers: []string{"X-Region: eu"}, reply: ok()},
			{req: "POST /a", reply: ok()},
			{headers: []string{"X-Region: us", "Cookie: currency=EUR"}, reply: ok(), want: "miss"},
		}},
	})
}
