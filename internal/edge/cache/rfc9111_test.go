package cache

import (
	"strings"
	"testing"
	"time"

	v1 "github.com/relais-edge/relais/api/v1"
)

// step is one request of a case. The origin gives the reply when it is asked; a step that is
// answered from the store must not ask it.
type step struct {
	after   time.Duration // since the step before
	req     string        // "GET /a" when empty
	headers []string
	reply   reply
	want    string // x.CacheStatus; "" when it does not matter
	status  int    // 200 when 0
	has     []string
	lacks   []string // names
	body    string
	asked   []string // in what the origin was asked; "!" before what must not be there
}

type rfcCase struct {
	name  string // the section and what it says
	spec  v1.CachePolicySpec
	steps []step
}

func ok(headers ...string) reply { return reply{headers: headers, body: "hello world"} }

func run(t *testing.T, cases []rfcCase) {
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			if !strings.HasPrefix(c.name, "RFC") && !strings.HasPrefix(c.name, "policy") {
				t.Fatal("the name does not say what the case proves")
			}
			r := newRigWith(t, Config{}, c.spec, reply{})
			for i, st := range c.steps {
				r.step(i, st)
			}
		})
	}
}

func (r *rig) step(i int, st step) {
	t := r.t
	t.Helper()
	r.pass(st.after)
	r.origin.replies = []reply{st.reply}
	before := len(r.origin.asked)
	if st.req == "" {
		st.req = "GET /a"
	}
	if st.status == 0 {
		st.status = 200
	}
	g := r.do(st.req, st.headers...)
	if g.err != nil {
		if st.status != 0 && g.status == 0 && st.status == errStatus(g.err) {
			return
		}
		t.Fatalf("step %d: %v", i, g.err)
	}
	if st.want != "" && g.cache != st.want {
		t.Errorf("step %d: cache %q (%s), want %q", i, g.cache, g.header("Cache-Status"), st.want)
	}
	if asked := len(r.origin.asked) > before; asked == (g.cache == "hit") && st.want != "stale" {
		t.Errorf("step %d: %s, origin asked: %v", i, g.cache, asked)
	}
	if g.status != st.status {
		t.Errorf("step %d: status %d, want %d", i, g.status, st.status)
	}
	for _, h := range st.has {
		n, v, _ := strings.Cut(h, ": ")
		if g.header(n) != dates(v, r.now) {
			t.Errorf("step %d: %s: %q, want %q", i, n, g.header(n), v)
		}
	}
	for _, n := range st.lacks {
		if g.fields.Lookup(n) != nil {
			t.Errorf("step %d: has %s: %s", i, n, g.header(n))
		}
	}
	if st.body != "" && g.body != st.body {
		t.Errorf("step %d: body %q, want %q", i, g.body, st.body)
	}
	if st.asked != nil {
		last := r.origin.asked[len(r.origin.asked)-1] + "|"
		for _, a := range st.asked {
			a, not := strings.CutPrefix(a, "!")
			if strings.Contains(last, a) == not {
				t.Errorf("step %d: origin was asked %q; %q there: %v", i, last, a, !not)
			}
		}
	}
}

func fresh(headers ...string) []step {
	return []step{{reply: ok(headers...), want: "miss"}, {after: 3 * time.Second, want: "hit"}}
}

// again is an answer that is not reused.
func again(headers ...string) []step {
	return []step{{reply: ok(headers...)}, {after: 3 * time.Second, reply: reply{body: "new"}, body: "new"}}
}

func TestRFC9111_4_2_Freshness(t *testing.T) {
	run(t, []rfcCase{
		{name: "RFC9111 4.2.1 max-age", steps: fresh("Cache-Control: max-age=3600")},
		{name: "RFC9111 4.2.1 max-age=0", steps: again("Cache-Control: max-age=0")},
		{name: "RFC9111 4.2.1 it is fresh until its age is the lifetime", steps: []step{
			{reply: ok("Cache-Control: max-age=10")},
			{after: 9999 * time.Millisecond, want: "hit", has: []string{"Age: 9"}},
			{after: time.Millisecond, reply: ok(), want: "expired"},
		}},
		{name: "RFC9111 5.2 directives in any case", steps: fresh("Cache-Control: MaX-aGe=3600")},
		{name: "RFC9111 5.2 quoted form", steps: fresh(`Cache-Control: max-age="3600"`)},
		{name: "RFC9111 5.2.3 unknown directives are ignored", steps: fresh(`Cache-Control: foobar, x="max-age=0", max-age=3600`)},
		{name: "RFC9111 5.2 a directive in a quoted string is none", steps: again(`Cache-Control: extension="max-age=3600", max-age=1`)},
		{name: "RFC9111 5.2 a directive in a quoted string behind is none", steps: again(`Cache-Control: max-age=1, extension="max-age=3600"`)},
		{name: "RFC9111 4.2.1 single quotes are not quotes", steps: again("Cache-Control: max-age='3600'")},
		{name: "RFC9111 4.2.1 negative is stale", steps: again("Cache-Control: max-age=-3600")},
		{name: "RFC9111 4.2.1 what is no integer is stale", steps: again("Cache-Control: max-age=3600.0", "Expires: @3600", "Date: @0")},
		{name: "RFC9111 4.2.1 letters are stale", steps: again("Cache-Control: max-age=3600a")},
		{name: "RFC9111 4.2.1 space before = is stale", steps: again("Cache-Control: max-age =3600")},
		{name: "RFC9111 4.2.1 space behind = is stale", steps: again("Cache-Control: max-age= 3600")},
		{name: "RFC9111 4.2.1 of two the smaller, one line", steps: again("Cache-Control: max-age=1800, max-age=1")},
		{name: "RFC9111 4.2.1 of two the smaller, two lines", steps: again("Cache-Control: max-age=1", "Cache-Control: max-age=1800")},
		{name: "RFC9111 1.2.2 leading zeros", steps: fresh("Cache-Control: max-age=003600")},
		{name: "RFC9111 1.2.2 more than 31 bits", steps: fresh("Cache-Control: max-age=2147483649")},
		{name: "RFC9111 1.2.2 more than 64 bits", steps: fresh("Cache-Control: max-age=99999999999999999999999")},
		{name: "RFC9111 4.2.1 s-maxage before max-age", steps: fresh("Cache-Control: max-age=0, s-maxage=3600", "Expires: @-10")},
		{name: "RFC9111 4.2.1 short s-maxage before max-age", steps: again("Cache-Control: max-age=3600", "Cache-Control: s-maxage=1")},
		{name: "RFC9111 5.3 Expires", steps: fresh("Expires: @3600", "Date: @0")},
		{name: "RFC9111 5.3 Expires without Date", steps: fresh("Expires: @3600")},
		{name: "RFC9111 5.3 Expires with a bad Date", steps: fresh("Expires: @3600", "Date: foo")},
		{name: "RFC9111 5.3 past Expires", steps: again("Expires: @-3600", "Date: @0")},
		{name: "RFC9111 5.3 Expires that is Date", steps: again("Expires: @0", "Date: @0")},
		{name: "RFC9111 5.3 Expires before a fast Date", steps: again("Expires: @300", "Date: @400")},
		{name: "RFC9111 5.3 Expires: 0 is past", steps: again("Expires: 0", "Date: @0")},
		{name: "RFC9111 5.3 of two Expires the earlier", steps: again("Expires: @3600", "Expires: @1", "Date: @0")},
		{name: "RFC9111 5.3 a good Expires does not heal a bad one", steps: again("Expires: @3600", "Expires: Thu, 18 Aug 2050 2:01:18 GMT", "Date: @0")},
		{name: "RFC9111 5.3 max-age before Expires", steps: fresh("Cache-Control: max-age=3600", "Expires: @-3600", "Date: @0")},
		{name: "RFC9111 5.3 max-age=0 before Expires", steps: again("Cache-Control: max-age=0", "Expires: @3600", "Date: @0")},
		{name: "RFC9111 4.2 nothing says how long", steps: again()},
	})
}

func TestRFC9111_4_2_3_AgeArithmetic(t *testing.T) {
	run(t, []rfcCase{
		{name: "RFC9111 4.2.3 Age counts", steps: again("Cache-Control: max-age=3600", "Age: 7200", "Date: @0")},
		{name: "RFC9111 4.2.3 Age counts against Expires", steps: again("Expires: @10", "Age: 25", "Date: @-10")},
		{name: "RFC9111 4.2.3 Age counts against Expires, fast Date", steps: again("Expires: @20", "Age: 15", "Date: @10")},
		{name: "RFC9111 4.2.3 apparent age counts", steps: again("Cache-Control: max-age=3600", "Date: @-7200")},
		{name: "RFC9111 5.1 Age goes on", steps: []step{
			{reply: ok("Cache-Control: max-age=600", "Age: 30", "Date: @0"), has: []string{"Age: 30"}},
			{after: 5500 * time.Millisecond, want: "hit", has: []string{"Age: 35"}},
		}},
		{name: "RFC9111 5.1 Age is generated from the store, not for what was fetched", steps: []step{
			{reply: ok("Cache-Control: max-age=600", "Date: @0"), lacks: []string{"Age"}},
			{after: 4 * time.Second, want: "hit", has: []string{"Age: 4", "Date: @-4"}},
		}},
		{name: "RFC9111 5.1 Age that is no number is ignored", steps: fresh("Cache-Control: max-age=3600", "Age: abc")},
		{name: "RFC9111 5.1 negative Age is ignored", steps: fresh("Cache-Control: max-age=3600", "Age: -7200")},
		{name: "RFC9111 5.1 Age with a fraction is ignored", steps: fresh("Cache-Control: max-age=3600", "Age: 7200.0")},
		{name: "RFC9111 5.1 the first member counts, old", steps: again("Cache-Control: max-age=3600", "Age: 7200, 0")},
		{name: "RFC9111 5.1 the first member counts, new", steps: fresh("Cache-Control: max-age=3600", "Age: 0, 7200")},
		{name: "RFC9111 5.1 the first line counts, old", steps: again("Cache-Control: max-age=3600", "Age: 7200", "Age: 0")},
		{name: "RFC9111 5.1 the first line counts, new", steps: fresh("Cache-Control: max-age=3600", "Age: 0", "Age: 7200")},
		{name: "RFC9111 1.2.2 an Age of 2^31", steps: again("Cache-Control: max-age=3600", "Age: 2147483648")},
		{name: "RFC9111 1.2.2 an Age of more than 64 bits", steps: again("Cache-Control: max-age=2147483648", "Age: 99999999999999999999999")},
	})
}

func TestRFC9111_4_2_2_Heuristic(t *testing.T) {
	lm := "Last-Modified: @-86400"
	var cases []rfcCase
	for _, s := range []int{200, 203, 204, 300, 301, 308, 404, 405, 410, 414, 501} {
		rep := reply{status: s, headers: []string{lm, "Date: @0"}, body: "x"}
		if s == 204 {
			rep.body = ""
		}
		cases = append(cases, rfcCase{name: "RFC9111 4.2.2 heuristic", steps: []step{
			{reply: rep, status: s, want: "miss"},
			{after: time.Hour, status: s, want: "hit"},
			{after: 2 * time.Hour, reply: ok(lm), want: "expired"},
		}})
	}
	for _, s := range []int{201, 202, 302, 307, 403, 502, 503, 504, 599} {
		cases = append(cases, rfcCase{name: "RFC9111 4.2.2 no heuristic", steps: []step{
			{reply: reply{status: s, headers: []string{lm, "Date: @0"}, body: "x"}, status: s},
			{reply: ok(), want: ""},
		}})
	}
	cases = append(
		cases,
		rfcCase{name: "RFC9111 4.2.2 public allows it for any status", steps: []step{
			{reply: reply{status: 599, headers: []string{lm, "Date: @0", "Cache-Control: public"}, body: "x"}, status: 599},
			{after: time.Hour, status: 599, want: "hit"},
		}},
		rfcCase{name: "RFC9111 4.2.2 no heuristic where there is a lifetime", steps: again(lm, "Cache-Control: max-age=1", "Date: @0")},
		rfcCase{name: "RFC9111 3 206 is not stored", steps: []step{
			{reply: reply{status: 206, headers: []string{"Cache-Control: max-age=3600", "Content-Range: bytes 0-0/9"}, body: "x"}, status: 206},
			{reply: ok()},
		}},
	)
	for _, s := range []int{200, 203, 204, 299, 301, 302, 303, 307, 308, 400, 404, 410, 499, 500, 502, 503, 504, 599} {
		rep := reply{status: s, headers: []string{"Cache-Control: max-age=3600"}, body: "x"}
		if s == 204 {
			rep.body = ""
		}
		cases = append(cases, rfcCase{name: "RFC9111 3 explicit lifetime with any final status", steps: []step{
			{reply: rep, status: s}, {after: time.Second, status: s, want: "hit"},
		}})
	}
	run(t, cases)
}

func TestRFC9111_5_2_2_ResponseDirectives(t *testing.T) {
	tag := `ETag: "v1"`
	run(t, []rfcCase{
		{name: "RFC9111 5.2.2.5 no-store", steps: again("Cache-Control: max-age=10000, No-StOrE", "Expires: @10000")},
		{name: "RFC9111 5.2.2.7 private", steps: again("Cache-Control: private, max-age=3600")},
		{name: "RFC9111 5.2.2.7 private with a bad list", steps: again(`Cache-Control: private="", max-age=3600`)},
		{name: "RFC9111 5.2.2.4 no-cache", steps: again("Cache-Control: max-age=10000, No-CaChE", "Expires: @10000")},
		{name: "RFC9111 5.2.2.4 no-cache is stored and validated", steps: []step{
			{reply: ok("Cache-Control: max-age=10000, no-cache", tag)},
			{reply: reply{status: 304, headers: []string{tag}}, want: "revalidated", body: "hello world", asked: []string{`|If-None-Match: "v1"|`}},
		}},
		{name: "RFC9111 5.2.2.4 no-cache with fields keeps the rest", steps: []step{
			{reply: ok(`Cache-Control: no-cache="a, b"`, "a: 1", "b: 2", "c: 3", "Cache-Control: max-age=3600"), has: []string{"a: 1", "b: 2"}},
			{want: "hit", lacks: []string{"a", "b"}, has: []string{"c: 3"}},
		}},
		{name: "RFC9111 5.2.2.7 private with fields keeps the rest", steps: []step{
			{reply: ok(`Cache-Control: private="x-who", max-age=3600`, "X-Who: me"), has: []string{"X-Who: me"}},
			{want: "hit", lacks: []string{"X-Who"}},
		}},
		{name: "RFC9111 5.2.2.2 must-revalidate while fresh", steps: fresh("Cache-Control: max-age=10000, must-revalidate", tag)},
		{name: "RFC9111 5.2.2.3 must-understand undoes no-store", steps: fresh("Cache-Control: must-understand, no-store, max-age=3600")},
		{name: "RFC9111 5.2.2.3 must-understand with an unknown status", steps: []step{
			{reply: reply{status: 299, headers: []string{"Cache-Control: must-understand, max-age=3600"}, body: "x"}, status: 299},
			{reply: ok()},
		}},
		{name: "RFC9111 5.2 a quoted string without end", steps: again(`Cache-Control: max-age=3600, x="no-store`)},
		{name: "RFC9111 3.5 Authorization", steps: []step{
			{headers: []string{"Authorization: x"}, reply: ok("Cache-Control: max-age=3600"), asked: []string{"Authorization: x"}},
			{reply: ok(), want: "miss"},
		}},
		{name: "RFC9111 3.5 Authorization with public", steps: []step{
			{headers: []string{"Authorization: x"}, reply: ok("Cache-Control: max-age=3600, public")}, {want: "hit"},
		}},
		{name: "RFC9111 3.5 Authorization with must-revalidate", steps: []step{
			{headers: []string{"Authorization: x"}, reply: ok("Cache-Control: max-age=3600, must-revalidate")}, {want: "hit"},
		}},
		{name: "RFC9111 3.5 Authorization with s-maxage", steps: []step{
			{headers: []string{"Authorization: x"}, reply: ok("Cache-Control: s-maxage=3600")}, {want: "hit"},
		}},
		{name: "RFC9111 7.3 Set-Cookie with max-age is for one", steps: again("Cache-Control: max-age=3600", "Set-Cookie: a=b")},
		{name: "RFC9111 7.3 Set-Cookie with Expires is for one", steps: again("Expires: @3600", "Set-Cookie: a=b")},
		{name: "RFC9111 7.3 Set-Cookie with Last-Modified is for one", steps: again("Last-Modified: @-86400", "Set-Cookie: a=b")},
		{name: "RFC9111 7.3 Set-Cookie with public", steps: fresh("Cache-Control: public, max-age=3600", "Set-Cookie: a=b")},
		{name: "RFC9111 7.3 Set-Cookie by any lifetime where configured", spec: v1.CachePolicySpec{SetCookie: "standard"}, steps: []step{
			{reply: ok("Cache-Control: max-age=3600", "Set-Cookie: a=b")}, {want: "hit", has: []string{"Set-Cookie: a=b"}},
		}},
		{name: "RFC9111 7.3 a cookie that is named private is left out", steps: []step{
			{reply: ok(`Cache-Control: private="set-cookie", max-age=3600`, "Set-Cookie: a=b"), has: []string{"Set-Cookie: a=b"}},
			{want: "hit", lacks: []string{"Set-Cookie"}},
		}},
		{name: "RFC9111 3.1 connection fields are not stored", steps: []step{
			{reply: ok("Cache-Control: max-age=3600", "Connection: a, b", "a: 1", "b: 2", "c: 3", "Proxy-Authenticate: x", "Keep-Alive: x",
				"Proxy-Authentication-Info: x", "Proxy-Authorization: x", "Proxy-Connection: x", "TE: x", "Transfer-Encoding: x", "Upgrade: x")},
			{want: "hit", has: []string{"c: 3"}, lacks: []string{
				"a", "b", "Connection", "Proxy-Authenticate", "Keep-Alive", "Proxy-Authentication-Info",
				"Proxy-Authorization", "Proxy-Connection", "TE", "Transfer-Encoding", "Upgrade",
			}},
		}},
		{name: "RFC9111 3.1 other fields are stored", steps: []step{
			{reply: ok("Cache-Control: max-age=3600", "Content-Encoding: foo", "Content-Range: x", "Strict-Transport-Security: y", "Content-MD5: z")},
			{want: "hit", has: []string{"Content-Encoding: foo", "Content-Range: x", "Strict-Transport-Security: y", "Content-MD5: z"}},
		}},
		{name: "RFC9111 5.4 Pragma in an answer means nothing", steps: fresh("Cache-Control: max-age=3600", "Pragma: no-cache")},
	})
}

func TestRFC9213_Targeted(t *testing.T) {
	run(t, []rfcCase{
		{name: "RFC9213 3.1 CDN-Cache-Control: max-age", steps: fresh("CDN-Cache-Control: max-age=3600")},
		{name: "RFC9213 3.1 large", steps: fresh("CDN-Cache-Control: max-age=99999999999")},
		{name: "RFC9213 2.2 before Cache-Control, longer", steps: fresh("CDN-Cache-Control: max-age=3600", "Cache-Control: max-age=1")},
		{name: "RFC9213 2.2 before Cache-Control, shorter", steps: again("CDN-Cache-Control: max-age=1", "Cache-Control: max-age=3600")},
		{name: "RFC9213 2.2 before no-store", steps: fresh("CDN-Cache-Control: max-age=3600", "Cache-Control: no-store")},
		{name: "RFC9213 2.2 before Expires", steps: fresh("CDN-Cache-Control: max-age=3600", "Expires: 0")},
		{name: "RFC9213 2.2 Expires does not count with it", steps: again("CDN-Cache-Control: must-revalidate", "Expires: @3600", "Date: @0")},
		{name: "RFC9213 2.2 max-age=0", steps: again("CDN-Cache-Control: max-age=0", "Expires: @3600")},
		{name: "RFC9213 2.2 no-store", steps: again("CDN-Cache-Control: no-store", "Cache-Control: max-age=3600")},
		{name: "RFC9213 2.2 private", steps: again("CDN-Cache-Control: private", "Cache-Control: max-age=3600")},
		{name: "RFC9213 2.2 no-cache", steps: again("CDN-Cache-Control: no-cache", "Cache-Control: max-age=3600")},
		{name: "RFC9213 2.1 Age counts", steps: again("CDN-Cache-Control: max-age=3600", "Age: 7200")},
		{name: "RFC9213 2.1 an extension", steps: fresh("CDN-Cache-Control: foobar, max-age=3600")},
		{name: "RFC9213 2.1 parameters are ignored", steps: fresh(`CDN-Cache-Control: max-age=3600;a="b, no-store";c`)},
		{name: "RFC9213 2.1 the last of a key counts", steps: again("CDN-Cache-Control: max-age=3600, max-age=1")},
		{name: "RFC9213 2.1 a bad member undoes all", steps: again("CDN-Cache-Control: max-age=10000, &&&&&", "Cache-Control: no-store")},
		{name: "RFC9213 2.1 a wrong type undoes all", steps: again(`CDN-Cache-Control: max-age="10000"`, "Cache-Control: no-store")},
		{name: "RFC9213 2.1 a decimal undoes all", steps: fresh("CDN-Cache-Control: max-age=0.5", "Cache-Control: max-age=3600")},
		{name: "RFC9213 2.1 upper case undoes all", steps: again("CDN-Cache-Control: MaX-aGe=3600")},
		{name: "RFC9213 2.1 space before = undoes all", steps: again("CDN-Cache-Control: max-age =100", "Cache-Control: max-age=1")},
		{name: "RFC9213 2.1 space behind = undoes all", steps: again("CDN-Cache-Control: max-age= 100", "Cache-Control: max-age=1")},
		{name: "RFC9213 2.2 an empty field is none", steps: fresh("CDN-Cache-Control: ", "Cache-Control: max-age=3600")},
		{name: "RFC9213 2.2 a bad second line undoes all", steps: again("CDN-Cache-Control: max-age=3600", "CDN-Cache-Control: ?", "Cache-Control: no-store")},
		{name: "RFC9213 2.1 negative is stale", steps: again("CDN-Cache-Control: max-age=-1", "Cache-Control: max-age=3600")},
		{name: "RFC9213 2.1 false is not there", steps: fresh("CDN-Cache-Control: no-store=?0, max-age=3600")},
		{name: "RFC9213 3 fields are handed on", steps: []step{
			{reply: ok("CDN-Cache-Control: max-age=3600", "Cache-Control: max-age=1")},
			{want: "hit", has: []string{"CDN-Cache-Control: max-age=3600", "Cache-Control: max-age=1"}},
		}},
	})
}
