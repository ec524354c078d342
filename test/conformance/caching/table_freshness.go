package caching

import (
	"fmt"
	"strings"
)

func freshness() []Case {
	return []Case{
		notReused("freshness/9111-4.2/nothing-said", "without a lifetime and a validator there is nothing to reuse by"),
		reused("freshness/9111-4.2.1/max-age", "max-age is the lifetime", "Cache-Control: max-age=60"),
		notReused("freshness/9111-4.2.1/max-age-0", "an answer is fresh while its age is less than its lifetime", "Cache-Control: max-age=0"),
		expired("freshness/9111-4.2.1/max-age-over", "after its lifetime an answer is stale", "Cache-Control: max-age=1"),
		reused("freshness/9111-5.2/case", "directive names have no case", "Cache-Control: mAx-AgE=60"),
		reused("freshness/9111-5.2/quoted", "a recipient accepts the quoted form", `Cache-Control: max-age="60"`),
		notReused("freshness/9111-5.2/single-quotes", "single quotes are part of the token, which is no number", "Cache-Control: max-age='60'"),
		reused("freshness/9111-5.2.3/extension", "unknown directives are ignored", "Cache-Control: banana, max-age=60, x=\"y\""),
		expired("freshness/9111-5.2/in-quotes", "what is inside a quoted string is no directive", `Cache-Control: x="max-age=60", max-age=1`),
		expired("freshness/9111-5.2/in-quotes-behind", "what is inside a quoted string is no directive", `Cache-Control: max-age=1, x="a, max-age=60"`),
		notReused("freshness/9111-4.2.1/negative", "what is no lifetime is best taken as stale", "Cache-Control: max-age=-60"),
		notReused("freshness/9111-4.2.1/fraction", "what is no lifetime is best taken as stale", "Cache-Control: max-age=60.5"),
		notReused("freshness/9111-4.2.1/letters", "what is no lifetime is best taken as stale", "Cache-Control: max-age=60a"),
		notReused("freshness/9111-4.2.1/empty", "what is no lifetime is best taken as stale", "Cache-Control: max-age="),
		notReused("freshness/9111-4.2.1/no-value", "what is no lifetime is best taken as stale", "Cache-Control: max-age"),
		notReused("freshness/9111-5.2/space-before", "no space stands before the equals sign", "Cache-Control: max-age =60"),
		notReused("freshness/9111-5.2/space-behind", "no space stands behind the equals sign", "Cache-Control: max-age= 60"),
		expired("freshness/9111-4.2.1/two-one-line", "of conflicting lifetimes the first or the stale reading counts", "Cache-Control: max-age=1, max-age=1"),
		expired("freshness/9111-4.2.1/conflict", "of conflicting lifetimes the most restrictive is safe", "Cache-Control: max-age=1", "Cache-Control: max-age=60"),
		reused("freshness/9111-1.2.2/zeros", "leading zeros mean nothing", "Cache-Control: max-age=0060"),
		reused("freshness/9111-1.2.2/2^31", "a number too large is taken as 2^31", "Cache-Control: max-age=2147483648"),
		reused("freshness/9111-1.2.2/huge", "a number too large is taken as 2^31", "Cache-Control: max-age=99999999999999999999"),
		reused("freshness/9111-5.2.2.10/s-maxage", "s-maxage overrides max-age in a shared cache", "Cache-Control: max-age=0, s-maxage=60"),
		notReused("freshness/9111-5.2.2.10/s-maxage-0", "s-maxage overrides max-age in a shared cache", "Cache-Control: s-maxage=0, max-age=60"),
		notReused("freshness/9111-5.2.2.10/s-maxage-lines", "fields in several lines are one list", "Cache-Control: max-age=60", "Cache-Control: s-maxage=0"),
		reused("freshness/9111-5.2.2.10/s-maxage-Expires", "s-maxage overrides Expires in a shared cache", "Cache-Control: s-maxage=60", "Expires: 0"),
		reused("freshness/8246-2/immutable", "immutable changes no lifetime", "Cache-Control: max-age=60, immutable"),
		notReused("freshness/8246-2/immutable-alone", "immutable gives no lifetime", "Cache-Control: immutable"),
		should("freshness/8246-2.1/immutable-reload", "a fresh immutable answer is not validated for a reload", get("Cache-Control: max-age=60, immutable", `ETag: "1"`), hit.send("Cache-Control: max-age=0")),
	}
}

func ages() []Case {
	var cases []Case
	for name, c := range map[string]struct {
		age   []string
		fresh bool
	}{
		"younger":         {[]string{"30"}, true},
		"older":           {[]string{"120"}, false},
		"equal":           {[]string{"60"}, false},
		"letters":         {[]string{"abc"}, true},
		"negative":        {[]string{"-120"}, true},
		"fraction":        {[]string{"120.0"}, true},
		"2^31-1":          {[]string{"2147483647"}, false},
		"2^31":            {[]string{"2147483648"}, false},
		"huge":            {[]string{"99999999999999999999"}, false},
		"list-old-first":  {[]string{"120, 0"}, false},
		"list-new-first":  {[]string{"0, 120"}, true},
		"lines-old-first": {[]string{"120", "0"}, false},
		"lines-new-first": {[]string{"0", "120"}, true},
		"twice-0":         {[]string{"0", "0"}, true},
		"empty":           {[]string{""}, true},
	} {
		fields := []string{"Cache-Control: max-age=60", "Date: @0"}
		for _, a := range c.age {
			fields = append(fields, "Age: "+a)
		}
		if c.fresh {
			cases = append(cases, reused("age/9111-5.1/"+name, "the first member of Age counts; what is no number is ignored", fields...))
		} else {
			cases = append(cases, notReused("age/9111-5.1/"+name, "Age is part of the age that is compared with the lifetime", fields...))
		}
	}
	return append(
		cases,
		notReused("age/9111-4.2.3/apparent", "the time since Date is part of the age", "Cache-Control: max-age=60", "Date: @-120"),
		reused("age/9111-4.2.3/future-Date", "an apparent age below zero is zero", "Cache-Control: max-age=60", "Date: @120"),
		notReused("age/9111-4.2.3/Age-with-Expires", "Age counts against Expires less Date too", "Expires: @30", "Date: @0", "Age: 60"),
		must("age/9111-4.2.3/response-delay", "the time that the answer took is part of its age", Step{From: Origin, Reply: Reply{Fields: []string{"Cache-Control: max-age=1"}, Delay: again}}, miss),
		must("age/9111-5.1/generated", "Age is generated for a stored answer", get("Cache-Control: max-age=60", "Date: @0"), hit.wait(again).has("Age")),
		must("age/9111-4.2.3/goes-on", "the age of another cache goes on", get("Cache-Control: max-age=600", "Age: 100", "Date: @0"), hit.has("Age: 100")),
		must("age/9110-6.6.1/Date-kept", "Date is when the message was originated, and is not changed", get("Cache-Control: max-age=60", "Date: @-7"), hit.wait(again).has("Date", "Age")),
		must("age/9110-6.6.1/Date-made", "a recipient with a clock adds a missing Date when it stores", get("Cache-Control: max-age=60"), hit.has("Date")),
	)
}

func expires() []Case {
	cases := []Case{
		reused("expires/9111-5.3/future", "Expires less Date is the lifetime", "Expires: @60", "Date: @0"),
		notReused("expires/9111-5.3/past", "a date in the past is stale", "Expires: @-60", "Date: @0"),
		notReused("expires/9111-5.3/equal", "a date that is Date's is stale", "Expires: @0", "Date: @0"),
		reused("expires/9111-5.3/no-Date", "without Date the time of receipt stands in", "Expires: @60"),
		notReused("expires/9111-4.2.1/fast-clock", "what counts is Expires less Date", "Expires: @60", "Date: @90"),
		notReused("expires/9111-5.3/max-age-first", "max-age overrides Expires", "Cache-Control: max-age=0", "Expires: @60", "Date: @0"),
		reused("expires/9111-5.3/max-age-first-past", "max-age overrides Expires", "Cache-Control: max-age=60", "Expires: @-60", "Date: @0"),
		notReused("expires/9111-5.3/bad-max-age", "a bad max-age does not let Expires in", "Cache-Control: max-age=a", "Expires: @60", "Date: @0"),
		reused("expires/9110-5.6.7/850", "the obsolete RFC 850 form is read", "Expires: @850:86400", "Date: @0"),
		reused("expires/9110-5.6.7/asctime", "the obsolete asctime form is read", "Expires: @asc:86400", "Date: @0"),
		reused("expires/9110-5.6.7/Date-850", "the obsolete form is read in Date too", "Expires: @60", "Date: @850:0"),
		reused("expires/9111-4.2/case", "names of days, months and GMT have no case", "Expires: THU, 18 AUG 2050 02:01:18 gmt", "Date: @0"),
		reused("expires/9110-5.6.7/2038", "dates beyond 32 bits are dates", "Expires: Tue, 19 Jan 2038 14:14:08 GMT", "Date: @0"),
		reused("expires/9110-5.6.7/far", "dates beyond 32 bits are dates", "Expires: Sun, 21 Nov 2286 04:46:39 GMT", "Date: @0"),
		reused("expires/9110-5.6.7/bad-Date", "a Date that is none is as if it were missing", "Expires: @60", "Date: yesterday"),
	}
	for name, v := range map[string]string{
		"0": "0", "minus-1": "-1", "empty": "", "UTC": "Thu, 18 Aug 2050 02:01:18 UTC", "zone": "Thu, 18 Aug 2050 02:01:18 AEST", "offset": "Thu, 18 Aug 2050 02:01:18 +0000",
		"year": "Thu, 18 Aug 50 02:01:18 GMT", "comma": "Thu 18 Aug 2050 02:01:18 GMT", "spaces": "Thu, 18  Aug  2050 02:01:18 GMT", "dashes": "Thu, 18-Aug-2050 02:01:18 GMT",
		"dots": "Thu, 18 Aug 2050 02.01.18 GMT", "hour": "Thu, 18 Aug 2050 2:01:18 GMT", "25": "Thu, 18 Aug 2050 25:01:18 GMT", "Feb-30": "Wed, 30 Feb 2050 02:01:18 GMT", "ISO": "2050-08-18T02:01:18Z",
	} {
		cases = append(cases, notReused("expires/9111-5.3/bad-"+name, "what is no HTTP-date is in the past", "Expires: "+v, "Date: @0"))
	}
	return append(cases, notReused("expires/9111-5.3/two-lines", "two lines are one bad value", "Expires: Thu, 18 Aug 2050 2:01:18 GMT", "Expires: Thu, 18 Aug 2050 2:01:19 GMT", "Date: @0"))
}

func heuristics() []Case {
	var cases []Case
	for _, s := range []int{200, 203, 204, 300, 301, 308, 404, 405, 410, 414, 501} {
		cases = append(cases, should(fmt.Sprintf("heuristic/9110-15.1/%d", s), "this status is heuristically cacheable",
			get("Last-Modified: @-86400", "Date: @0").status(s), hit))
	}
	for _, s := range []int{201, 202, 302, 303, 307, 400, 401, 403, 409, 429, 500, 502, 503, 504, 599} {
		cases = append(cases, must(fmt.Sprintf("heuristic/9110-15.1/not-%d", s), "this status is not heuristically cacheable",
			get("Last-Modified: @-86400", "Date: @0").status(s), miss))
	}
	return append(cases,
		should("heuristic/9111-4.2.2/public", "public allows a heuristic for any final status", get("Last-Modified: @-86400", "Date: @0", "Cache-Control: public").status(599), hit),
		expired("heuristic/9111-4.2.2/explicit", "no heuristic where there is a lifetime", "Last-Modified: @-86400", "Date: @0", "Cache-Control: max-age=1"),
		notReused("heuristic/9111-4.2.2/bad-Expires", "an Expires that is bad is explicit all the same", "Last-Modified: @-86400", "Date: @0", "Expires: 0"),
		notReused("heuristic/9111-4.2.2/future", "a Last-Modified in the future gives no lifetime", "Last-Modified: @86400", "Date: @0"),
	)
}

func statuses() []Case {
	var cases []Case
	for _, s := range []int{200, 203, 204, 299, 301, 302, 303, 307, 308, 400, 404, 410, 418, 499, 500, 502, 503, 504, 599} {
		cases = append(
			cases,
			should(fmt.Sprintf("status/9111-3/%d", s), "any final status is stored by an explicit lifetime", get("Cache-Control: max-age=60").status(s), hit),
			must(fmt.Sprintf("status/9111-4.2/%d-stale", s), "what is stale is not used", get("Cache-Control: max-age=60", "Age: 120", "Date: @0").status(s), miss),
		)
	}
	return append(cases,
		must("status/9111-5.2.2.3/599-must-understand", "must-understand forbids a status that the cache does not know", get("Cache-Control: max-age=60, no-store, must-understand").status(599), miss),
		should("status/9111-5.2.2.3/200-must-understand", "must-understand undoes no-store for a status that it knows", get("Cache-Control: max-age=60, no-store, must-understand"), hit),
		must("status/9110-15.4.5/304-unasked", "a 304 that nobody asked for is an answer to nobody, and not stored",
			Step{From: Origin, Status: 502, Reply: Reply{Status: 304, Fields: []string{"Cache-Control: max-age=60"}}}, miss),
		should("status/9110-15.2/103", "an interim answer goes before the final one, which is stored",
			Step{From: Origin, Interim: 103, Reply: Reply{Interim: 103, Early: []string{"Link: </x.css>; rel=preload"}, Fields: []string{"Cache-Control: max-age=60"}}}, hit.lacks("Link")),
		should("status/9110-15.2/102", "an interim answer goes before the final one, which is stored",
			Step{From: Origin, Interim: 102, Reply: Reply{Interim: 102, Fields: []string{"Cache-Control: max-age=60"}}}, hit),
	)
}

func requests() []Case {
	kept := []string{"Cache-Control: max-age=60", "Last-Modified: @-3000", "Date: @0"}
	aged := append([]string{"Age: 30"}, kept...)
	cc := func(name, says string, from From, first []string, directive string) Case {
		return should("request/9111-5.2.1."+name, says, get(first...), Step{From: from, Send: []string{"Cache-Control: " + directive}, Reply: Reply{Fields: []string{"Cache-Control: max-age=60", `ETag: "2"`}}})
	}
	return []Case{
		cc("1/max-age-0", "max-age=0 wants an answer of no age", Origin, aged, "max-age=0"),
		cc("1/max-age-less", "max-age wants an answer that is not older", Origin, aged, "max-age=29"),
		cc("1/max-age-more", "a younger answer will do", Cache, aged, "max-age=40"),
		cc("1/max-age-stale-age", "max-stale with max-age takes no older answers", Origin, aged, "max-age=10, max-stale"),
		cc("3/min-fresh", "min-fresh wants an answer that stays fresh", Origin, aged, "min-fresh=40"),
		cc("3/min-fresh-met", "an answer that stays fresh will do", Cache, aged, "min-fresh=10"),
		cc("2/max-stale", "max-stale takes what is stale by no more", Cache, append([]string{"Age: 90"}, kept...), "max-stale=60"),
		cc("2/max-stale-any", "max-stale without a value takes any staleness", Cache, append([]string{"Age: 90"}, kept...), "max-stale"),
		cc("2/max-stale-over", "max-stale takes what is stale by no more", Origin, append([]string{"Age: 90"}, kept...), "max-stale=10"),
		cc("2/max-stale-must-revalidate", "must-revalidate forbids it", Origin, []string{"Cache-Control: max-age=60, must-revalidate", "Age: 90", "ETag: \"1\"", "Date: @0"}, "max-stale"),
		cc("2/max-stale-proxy-revalidate", "proxy-revalidate forbids it to a shared cache", Origin, []string{"Cache-Control: max-age=60, proxy-revalidate", "Age: 90", "ETag: \"1\"", "Date: @0"}, "max-stale"),
		cc("2/max-stale-s-maxage", "and so does s-maxage", Origin, []string{"Cache-Control: s-maxage=60", "Age: 90", "ETag: \"1\"", "Date: @0"}, "max-stale"),
		cc("2/max-stale-no-cache", "and so does no-cache", Origin, []string{"Cache-Control: max-age=60, no-cache", "ETag: \"1\"", "Date: @0"}, "max-stale"),
		cc("4/no-cache", "no-cache wants validation", Origin, kept, "no-cache"),
		cc("5/no-store", "no-store wants nothing stored", Origin, kept, "no-store"),
		cc("7/unknown", "unknown directives are ignored", Cache, kept, "nothing-to-see"),
		must("request/9111-5.2.1.5/not-stored", "the answer to a no-store request is not stored", get(kept...).send("Cache-Control: no-store"), miss),
		should("request/9111-5.2.1.7/only-if-cached", "only-if-cached gets what is stored", get(kept...), hit.send("Cache-Control: only-if-cached")),
		should("request/9111-5.2.1.7/only-if-cached-504", "or a 504", Step{From: Cache, Status: 504, Send: []string{"Cache-Control: only-if-cached"}}),
		must("request/9111-5.2.1.7/only-if-cached-stale", "what is stale is none that may be used", get("Cache-Control: max-age=1"), Step{Wait: again, From: Cache, Status: 504, Send: []string{"Cache-Control: only-if-cached"}}),
		must("request/9111-5.2/passed-on", "directives of a request are passed on, known or not", get(kept...), miss.send("Cache-Control: no-cache, banana=1").saw("Cache-Control: no-cache, banana=1")),
		should("request/9111-5.4/pragma-and-cc", "Pragma yields to Cache-Control", get(kept...), hit.send("Pragma: no-cache", "Cache-Control: x")),
		reused("request/9111-5.4/pragma-response", "Pragma in an answer means nothing", "Cache-Control: max-age=60", "Pragma: no-cache"),
	}
}

// cut is an answer that breaks off.
func cut(fields ...string) Step {
	s := get(append(fields, "Cache-Control: max-age=60")...)
	s.Reply.Cut, s.Status = true, 200
	return s
}

func responses() []Case {
	cases := []Case{
		notReused("response/9111-5.2.2.5/no-store", "no-store forbids storing", "Cache-Control: no-store, max-age=60"),
		notReused("response/9111-5.2.2.5/case", "in any case", "Cache-Control: nO-StOrE, max-age=60"),
		notReused("response/9111-5.2.2.5/Expires", "whatever Expires says", "Cache-Control: no-store", "Expires: @60", "Date: @0"),
		notReused("response/9111-5.2.2.7/private", "private forbids a shared cache to store", "Cache-Control: private, max-age=60"),
		notReused("response/9111-5.2.2.7/private-s-maxage", "whatever the lifetime", "Cache-Control: s-maxage=60, private"),
		notReused("response/9111-5.2.2.4/no-cache", "no-cache forbids use without validation", "Cache-Control: no-cache, max-age=60"),
		notReused("response/9111-5.2.2.4/case", "in any case", "Cache-Control: No-CaChE, max-age=60"),
		should("response/9111-5.2.2.4/validated", "no-cache allows storing, and use once validated", get("Cache-Control: no-cache, max-age=60", `ETag: "1"`), Step{From: Validated, Saw: []string{`If-None-Match: "1"`}}),
		should("response/9111-5.2.2.4/fields", "no-cache with names is about those fields only", get(`Cache-Control: max-age=60, no-cache="a, b"`, "A: 1", "B: 2", "C: 3").has("A: 1"), hit.has("C: 3").lacks("A", "B")),
		should("response/9111-5.2.2.7/fields", "private with names is about those fields only", get(`Cache-Control: max-age=60, private="a"`, "A: 1", "C: 3").has("A: 1"), hit.has("C: 3").lacks("A")),
		should("response/9111-5.2.2.2/must-revalidate", "must-revalidate says nothing of what is fresh", get("Cache-Control: max-age=60, must-revalidate"), hit),
		must("response/9111-5.2.2.2/stale", "must-revalidate forbids what is stale", get("Cache-Control: max-age=1, must-revalidate", `ETag: "1"`), Step{Wait: again, From: Validated}),
		must("response/9111-3.5/Authorization", "an answer to credentials is not stored", get("Cache-Control: max-age=60").send("Authorization: x").saw("Authorization: x"), miss),
	}
	for _, d := range []string{"public", "must-revalidate", "s-maxage=60"} {
		cases = append(cases, should("response/9111-3.5/Authorization-"+strings.TrimSuffix(d, "=60"), "but "+d+" allows it", get("Cache-Control: max-age=60, "+d).send("Authorization: x"), hit))
	}
	return append(cases,
		must("response/9111-5.2/handed-on", "directives of an answer are handed on, known or not", get("Cache-Control: max-age=60, banana=1"), hit.has("Cache-Control: max-age=60, banana=1")),
		must("response/9111-3.3/cut", "an answer that is shorter than its length is not used as a whole", cut("Content-Length: 1000"), miss),
		must("response/9111-3.3/cut-chunks", "nor one whose chunks have no end", cut(), miss),
		reused("response/9111-7.3/Set-Cookie", "Set-Cookie does not forbid storing", "Cache-Control: public, max-age=60", "Set-Cookie: a=b"),
		should("response/9111-2/Cookie", "Cookie does not forbid reuse", get("Cache-Control: max-age=60"), hit.send("Cookie: a=b")),
		should("response/9111-2/query-same", "the key is the target URI", get("Cache-Control: max-age=60").target("?a=1"), hit.target("?a=1")),
		must("response/9111-2/query-other", "the key is the target URI", get("Cache-Control: max-age=60").target("?a=1"), miss.target("?a=2")),
	)
}
