package cache

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/edge/cache/semantics"
	"github.com/relais-edge/relais/internal/stage"
)

const digits = "0123456789"

// slice is a 206 with the bytes from first to last of ten digits.
func slice(first, last int, headers ...string) reply {
	return reply{
		status: 206, body: digits[first : last+1],
		headers: append([]string{"Cache-Control: max-age=60", fmt.Sprintf("Content-Range: bytes %d-%d/10", first, last)}, headers...),
	}
}

func ranged(r string) []string { return []string{"Range: bytes=" + r} }

func TestRFC9111_3_3_PartialContent(t *testing.T) {
	tag := `ETag: "v1"`
	whole := reply{headers: []string{"Cache-Control: max-age=60", tag}, body: digits}
	run(t, []rfcCase{
		{name: "RFC9111 3.3 a part is stored and answers ranges within it", steps: []step{
			{headers: ranged("2-5"), reply: slice(2, 5), status: 206, want: "pass", body: "2345", asked: []string{"Range: bytes=2-5"}},
			{headers: ranged("2-5"), status: 206, want: "hit", body: "2345", has: []string{"Content-Range: bytes 2-5/10"}},
			{headers: ranged("3-4"), status: 206, want: "hit", body: "34", has: []string{"Content-Range: bytes 3-4/10"}},
			{headers: ranged("-5"), reply: slice(5, 9), status: 206, want: "pass", body: "56789"},
		}},
		{name: "RFC9110 14.1.2 a stored end answers a suffix and an open range", steps: []step{
			{headers: ranged("-5"), reply: slice(5, 9), status: 206},
			{headers: ranged("-1"), status: 206, want: "hit", body: "9"},
			{headers: ranged("6-"), status: 206, want: "hit", body: "6789"},
			{headers: ranged("10-"), status: 416, want: "hit", has: []string{"Content-Range: bytes */10"}},
		}},
		{name: "RFC9111 3.4 parts of one representation are put together", steps: []step{
			{headers: ranged("2-5"), reply: slice(2, 5, tag), status: 206},
			{headers: ranged("6-9"), reply: slice(6, 9, tag, "X-New: 1"), status: 206},
			{headers: ranged("3-8"), status: 206, want: "hit", body: "345678", has: []string{"X-New: 1"}},
			{reply: slice(0, 1, tag), want: "expired", body: digits, asked: []string{"Range: bytes=0-1", `If-Range: "v1"`}, has: []string{"X-New: 1"}},
			{want: "hit", body: digits, lacks: []string{"Content-Range"}},
		}},
		{name: "RFC9111 3.4 parts by a strong Last-Modified", steps: []step{
			{headers: ranged("2-5"), reply: slice(2, 5, "Last-Modified: @-3000", "Date: @0"), status: 206},
			{headers: ranged("5-9"), reply: slice(5, 9, "Last-Modified: @-3000", "Date: @0"), status: 206},
			{headers: ranged("2-9"), status: 206, want: "hit", body: "23456789"},
		}},
		{name: "RFC9111 3.4 without a strong validator nothing is put together", steps: []step{
			{headers: ranged("2-5"), reply: slice(2, 5, `ETag: W/"v1"`), status: 206},
			{headers: ranged("6-9"), reply: slice(6, 9, `ETag: W/"v1"`), status: 206},
			{headers: ranged("2-5"), reply: slice(2, 5), status: 206, want: "pass"},
			{reply: whole, body: digits, asked: []string{"!Range", "!If-Range"}},
		}},
		{name: "RFC9111 3.4 another representation takes the place of the parts", steps: []step{
			{headers: ranged("2-5"), reply: slice(2, 5, tag), status: 206},
			{reply: reply{headers: []string{"Cache-Control: max-age=60", `ETag: "v2"`}, body: "another"}, body: "another", asked: []string{`If-Range: "v1"`}},
			{headers: ranged("2-5"), status: 206, want: "hit", body: "othe"},
		}},
		{name: "RFC9110 15.3.7.3 a part that was not asked for is not put in", steps: []step{
			{headers: ranged("4-5"), reply: slice(4, 5, tag), status: 206},
			{reply: slice(0, 5, tag), status: 206},
		}},
		{name: "RFC9111 3.4 a gap in the middle is asked for alone", steps: []step{
			{headers: ranged("1-3"), reply: slice(1, 3, tag), status: 206},
			{headers: ranged("6-9"), reply: slice(6, 9, tag), status: 206},
			{headers: ranged("2-7"), reply: slice(2, 7, tag), status: 206, want: "pass", body: "234567", has: []string{"Cache-Status: relais; fwd=partial; stored"}},
			{headers: ranged("0-"), reply: slice(0, 0, tag), status: 206, body: digits, asked: []string{"Range: bytes=0-0"}},
			{want: "hit", body: digits},
		}},
		{name: "RFC9111 3.3 a stale part is not used", steps: []step{
			{headers: ranged("2-5"), reply: slice(2, 5, tag), status: 206},
			{after: 2 * time.Minute, headers: ranged("2-5"), reply: slice(2, 5, tag), status: 206, want: "pass", has: []string{"Cache-Status: relais; fwd=stale; stored"}},
			{headers: ranged("2-5"), status: 206, want: "hit"},
		}},
		{name: "RFC9110 13.1.5 If-Range of a part", steps: []step{
			{headers: ranged("2-5"), reply: slice(2, 5, tag), status: 206},
			{headers: append(ranged("2-3"), `If-Range: "v1"`), status: 206, want: "hit", body: "23"},
			{headers: append(ranged("2-3"), `If-Range: "v2"`), reply: whole, want: "pass", body: digits},
		}},
		{name: "RFC9111 4.3.2 a part's validator answers If-None-Match", steps: []step{
			{headers: ranged("2-5"), reply: slice(2, 5, tag), status: 206},
			{headers: []string{`If-None-Match: "v1"`}, status: 304, want: "hit"},
		}},
		{name: "RFC9111 4.3.5 HEAD of a part is HEAD of the whole", steps: []step{
			{headers: ranged("2-5"), reply: slice(2, 5, tag), status: 206},
			{req: "HEAD /a", want: "hit", lacks: []string{"Content-Range"}},
		}},
		{name: "RFC9111 4.4 invalidation takes parts too", steps: []step{
			{headers: ranged("2-5"), reply: slice(2, 5, tag), status: 206},
			{req: "POST /a", reply: ok()},
			{headers: ranged("2-5"), reply: slice(2, 5, tag), status: 206, want: "pass"},
		}},
		{name: "RFC9111 3.3 a 200 to a range is stored whole", steps: []step{
			{headers: ranged("2-5"), reply: whole, want: "pass", body: digits},
			{headers: ranged("2-5"), status: 206, want: "hit", body: "2345"},
		}},
	})
	bad := map[string]reply{
		"shorter than its Content-Range": {body: "2345", headers: []string{"Content-Range: bytes 2-6/10"}},
		"without Content-Range":          {body: "2345"},
		"of unknown length":              {body: "2345", headers: []string{"Content-Range: bytes 2-5/*"}},
		"beyond its length":              {body: "2345", headers: []string{"Content-Range: bytes 7-10/10"}},
		"in two lines":                   {body: "2345", headers: []string{"Content-Range: bytes 2-5/10", "Content-Range: bytes 2-5/10"}},
		"of several parts":               {body: "2345", headers: []string{"Content-Type: multipart/byteranges; boundary=x"}},
		"chunked and too short":          {body: "234", chunked: true, headers: []string{"Content-Range: bytes 2-5/10"}},
		"that may not be stored":         {body: "2345", headers: []string{"Content-Range: bytes 2-5/10", "Cache-Control: no-store"}},
	}
	var cases []rfcCase
	for name, rep := range bad {
		rep.status = 206
		rep.headers = append(rep.headers, "Cache-Control: max-age=60")
		cases = append(cases, rfcCase{name: "RFC9110 14.4 no store of a part " + name, steps: []step{
			{headers: ranged("2-5"), reply: rep, status: 206}, {headers: ranged("2-5"), reply: rep, status: 206, want: "pass"},
		}})
	}
	run(t, cases)
}

func TestRFC9110_15_3_7_2_SeveralRanges(t *testing.T) {
	body := strings.Repeat("0123456789", 100)
	r := newRig(t, v1.CachePolicySpec{}, reply{headers: []string{"Cache-Control: max-age=60", "Content-Type: text/plain"}, body: body})
	r.do("GET /a")
	g := r.do("GET /a", "Range: bytes=500-503, 0-1, -2")
	contentType := g.header("Content-Type")
	boundary, ok := strings.CutPrefix(contentType, "multipart/byteranges; boundary=")
	want := "\r\n--B\r\nContent-Type: text/plain\r\nContent-Range: bytes 0-1/1000\r\n\r\n01" +
		"\r\n--B\r\nContent-Type: text/plain\r\nContent-Range: bytes 500-503/1000\r\n\r\n0123" +
		"\r\n--B\r\nContent-Type: text/plain\r\nContent-Range: bytes 998-999/1000\r\n\r\n89\r\n--B--\r\n"
	if !ok || g.err != nil || g.status != 206 || g.cache != "hit" || g.header("Content-Range") != "" || g.body != strings.ReplaceAll(want, "B", boundary) {
		t.Errorf("%d %s %v %q", g.status, contentType, g.err, g.body)
	}
	for ranges, status := range map[string]int{
		"0-999,0-999":                        200, // more than the body
		"0-1,x":                              200,
		"2000-,3000-":                        416,
		"0-1,2000-":                          206,
		strings.Repeat("0-0,", 16) + "0-0":   200,
		strings.Repeat("500-501,", 8) + "0-": 200,
	} {
		if g := r.do("GET /a", "Range: bytes="+ranges); g.status != status || g.err != nil || status == 200 && g.body != body {
			t.Errorf("%s: %d %v", ranges, g.status, g.err)
		}
	}
}

func TestRFC9111_4_2_4_Disconnected(t *testing.T) {
	down := reply{err: &stage.Error{Code: "connection_refused", Side: stage.SideOrigin, Status: 502, Err: errors.New("refused")}}
	spec := v1.CachePolicySpec{StaleDisconnected: v1.Duration(time.Hour)}
	cases := []rfcCase{
		{name: "RFC9111 4.2.4 a disconnected cache may use what is stale", spec: spec, steps: []step{
			{reply: ok("Cache-Control: max-age=1")},
			{after: 2 * time.Second, reply: down, want: "stale", body: "hello world"},
			{after: time.Second, want: "stale"},
		}},
		{name: "RFC9111 4.2.4 an error of the origin is no disconnection", spec: spec, steps: []step{
			{reply: ok("Cache-Control: max-age=1")}, {after: 2 * time.Second, reply: reply{status: 503, body: "x"}, status: 503},
		}},
		{name: "RFC9111 4.2.4 not behind its window", spec: spec, steps: []step{
			{reply: ok("Cache-Control: max-age=1")}, {after: 3602 * time.Second, reply: down, status: 502},
		}},
	}
	for _, d := range []string{"must-revalidate", "proxy-revalidate", "no-cache", "s-maxage=1"} {
		cases = append(cases, rfcCase{name: "RFC9111 5.2.2 a disconnected cache obeys " + d, spec: spec, steps: []step{
			{reply: ok("Cache-Control: max-age=1, " + d)}, {after: 2 * time.Second, reply: down, status: 502},
		}})
	}
	run(t, cases)
}

func TestRFC8246_Immutable(t *testing.T) {
	fixed := ok("Cache-Control: max-age=60, immutable", `ETag: "v1"`)
	run(t, []rfcCase{
		{name: "RFC8246 2.1 a reload of what is fresh is not validated", steps: []step{{reply: fixed}, {headers: []string{"Cache-Control: max-age=0"}, after: time.Second, want: "hit"}}},
		{name: "RFC8246 2.1 no-cache is", steps: []step{{reply: fixed}, {headers: []string{"Cache-Control: no-cache"}, reply: fixed, want: "expired"}}},
		{name: "RFC8246 2 what is stale is validated", steps: []step{{reply: fixed}, {after: time.Hour, reply: fixed, want: "expired"}}},
		{name: "RFC8246 2 an argument means nothing", steps: []step{{reply: ok("Cache-Control: max-age=60, immutable=0")}, {headers: []string{"Cache-Control: max-age=0"}, after: time.Second, want: "hit"}}},
	})
}

func TestRFC9110_9_3_3_Post(t *testing.T) {
	post := func(h ...string) reply { return ok(append([]string{"Content-Location: /a"}, h...)...) }
	kept := func(name string, want string, req string, h ...string) rfcCase {
		return rfcCase{name: "RFC9110 9.3.3 " + name, steps: []step{{req: req, reply: post(h...)}, {reply: ok(), want: want}}}
	}
	run(t, []rfcCase{
		kept("a POST with a lifetime and its own Content-Location", "hit", "POST /a", "Cache-Control: max-age=60"),
		kept("by Expires", "hit", "POST /a", "Expires: @60", "Date: @0"),
		kept("not without a lifetime", "miss", "POST /a", "Last-Modified: @-86400"),
		kept("not of another target", "miss", "POST /b", "Cache-Control: max-age=60"),
		kept("not with another query", "miss", "POST /a?x", "Cache-Control: max-age=60"),
		kept("not what is private", "miss", "POST /a", "Cache-Control: private, max-age=60"),
		kept("not a PUT", "miss", "PUT /a", "Cache-Control: max-age=60"),
		{name: "RFC9110 9.3.3 an absolute Content-Location", steps: []step{
			{req: "POST /a", reply: ok("Content-Location: http://shop.example/a", "Cache-Control: max-age=60")}, {want: "hit"},
		}},
		{name: "RFC9110 9.3.3 a stored answer does not answer a POST", steps: []step{
			{req: "POST /a", reply: post("Cache-Control: max-age=60")}, {req: "POST /a", reply: ok(), want: "bypass"}, {reply: ok(), want: "miss"},
		}},
		{name: "RFC9110 9.3.3 not for one with no-store", steps: []step{
			{req: "POST /a", headers: []string{"Cache-Control: no-store"}, reply: post("Cache-Control: max-age=60")}, {reply: ok(), want: "miss"},
		}},
	})
}

func TestRFC9111_2_HEADIsStored(t *testing.T) {
	kept := ok("Cache-Control: max-age=60", "X: 1")
	run(t, []rfcCase{
		{name: "RFC9110 9.3.2 a HEAD is answered by a stored one", steps: []step{
			{req: "HEAD /a", reply: kept}, {req: "HEAD /a", want: "hit", has: []string{"X: 1"}},
		}},
		{name: "RFC9111 4 a GET is not", steps: []step{
			{req: "HEAD /a", reply: kept}, {reply: kept, want: "miss", body: "hello world"}, {req: "HEAD /a", want: "hit"},
		}},
		{name: "RFC9111 5.2.2.5 a HEAD with no-store is not stored", steps: []step{
			{req: "HEAD /a", reply: ok("Cache-Control: no-store")}, {req: "HEAD /a", reply: kept, want: "pass"},
		}},
	})
}

func TestRFC9875_Groups(t *testing.T) {
	in := func(groups string) reply { return ok("Cache-Control: max-age=60", "Cache-Groups: "+groups) }
	gone := func(name, groups, method, invalidated, want string) rfcCase {
		rep := ok("Cache-Group-Invalidation: " + invalidated)
		return rfcCase{name: "RFC9875 " + name, steps: []step{
			{req: "GET /b", reply: in(groups)}, {req: method + " /c", reply: rep}, {req: "GET /b", reply: in(groups), want: want},
		}}
	}
	run(t, []rfcCase{
		gone("3 an unsafe request invalidates a group", `"x", "y"`, "POST", `"y"`, "miss"),
		gone("3 and no other", `"x", "y"`, "POST", `"z"`, "hit"),
		gone("2 case counts", `"x"`, "POST", `"X"`, "hit"),
		gone("3 it is ignored in the answer to a safe request", `"x"`, "GET", `"x"`, "hit"),
		gone("2 parameters are ignored", `"x";a=1`, "POST", `"x";b`, "miss"),
		gone("3 tokens are no groups", `"x"`, "POST", `x`, "hit"),
		gone("2 escapes", `"x\"y"`, "POST", `"x\"y"`, "miss"),
		{name: "RFC9875 3 what is stored afterwards is used", steps: []step{
			{req: "GET /b", reply: in(`"x"`)},
			{req: "POST /c", reply: ok(`Cache-Group-Invalidation: "x"`)},
			{req: "GET /b", reply: in(`"x"`), want: "miss"},
			{req: "GET /b", want: "hit"},
		}},
		{name: "RFC9875 3 a failed request invalidates nothing", steps: []step{
			{req: "GET /b", reply: in(`"x"`)},
			{req: "POST /c", reply: reply{status: 500, headers: []string{`Cache-Group-Invalidation: "x"`}}, status: 500},
			{req: "GET /b", want: "hit"},
		}},
	})
}

func TestRFC9213_2_2_TargetList(t *testing.T) {
	spec := v1.CachePolicySpec{TargetedFields: []string{"Relais-Cache-Control", "CDN-Cache-Control"}}
	run(t, []rfcCase{
		{name: "RFC9213 2.2 the first of the target list counts", spec: spec, steps: fresh("CDN-Cache-Control: max-age=1", "Relais-Cache-Control: max-age=60")},
		{name: "RFC9213 2.2 the next where the first is invalid", spec: spec, steps: fresh("CDN-Cache-Control: max-age=60", "Relais-Cache-Control: max-age=?")},
		{name: "RFC9213 2.2 a field that is not in the list means nothing", spec: v1.CachePolicySpec{TargetedFields: []string{"Relais-Cache-Control"}}, steps: again("CDN-Cache-Control: max-age=60")},
		{name: "RFC9213 2.2 a restriction of the first", spec: spec, steps: []step{
			{reply: ok(`Relais-Cache-Control: max-age=60, private="x-who"`, "X-Who: me"), has: []string{"X-Who: me"}}, {want: "hit", lacks: []string{"X-Who"}},
		}},
	})
}

func TestRFC9211_2_8_Key(t *testing.T) {
	spec := v1.CachePolicySpec{StatusKey: true}
	run(t, []rfcCase{
		{name: "RFC9211 2.8 the key where the policy says so", spec: spec, steps: []step{
			{req: `GET /a?"x\`, reply: ok("Cache-Control: max-age=60"), has: []string{`Cache-Status: relais; fwd=uri-miss; stored; key="http://shop.example/a?\"x\\"`}},
			{req: `GET /a?"x\`, want: "hit", has: []string{`Cache-Status: relais; hit; ttl=60; key="http://shop.example/a?\"x\\"`}},
		}},
	})
}

func FuzzUnionHoldsWhatEitherHas(f *testing.F) {
	f.Add([]byte{2, 5, 6, 9, 0, 1})
	f.Add([]byte{0, 9})
	f.Add([]byte{4, 4, 3, 5, 0, 0, 9, 9, 1, 8})
	f.Fuzz(func(t *testing.T, in []byte) {
		var o *object
		var have [10]bool
		for ; len(in) >= 2; in = in[2:] {
			a, b := int(in[0]%10), int(in[1]%10)
			if a > b {
				a, b = b, a
			}
			n := &object{size: 10, status: 200, parts: []piece{{int64(a), []byte(digits[a : b+1])}}}
			for i := a; i <= b; i++ {
				have[i] = true
			}
			if b-a == 9 {
				n.parts, n.body = nil, []byte(digits)
			}
			if o == nil {
				o = n
				continue
			}
			if o.partial() && n.partial() {
				n.parts, n.body, _ = union(o, n)
			}
			if o.partial() {
				o = n
			}
		}
		if o == nil {
			return
		}
		for a := range 10 {
			for b := a; b < 10; b++ {
				all := true
				for _, h := range have[a : b+1] {
					all = all && h
				}
				s := semantics.Span{First: int64(a), Last: int64(b)}
				if o.partial() && o.has(s) != all {
					t.Fatalf("%d-%d: has %v, want %v", a, b, o.has(s), all)
				}
				if all {
					var got string
					for _, p := range o.pieces(nil, s) {
						got += string(p.data)
					}
					if got != digits[a:b+1] {
						t.Fatalf("%d-%d is %q", a, b, got)
					}
				}
			}
		}
		if o.partial() {
			m := o.missing()
			if have[m.First] || have[m.Last] {
				t.Fatalf("%v is not missing", m)
			}
		}
	})
}
