package semantics

import (
	"fmt"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/relais-edge/relais/internal/http/message"
)

var now = time.Date(2030, 1, 1, 12, 0, 0, 0, time.UTC)

func TestRFC9110_5_6_7_Dates(t *testing.T) {
	const want = 784111777 // 1994-11-06 08:49:37
	for _, c := range []struct {
		in   string
		unix int64
	}{
		{"Sun, 06 Nov 1994 08:49:37 GMT", want},
		{"SUN, 06 nov 1994 08:49:37 gMT", want},
		{"Sunday, 06-Nov-94 08:49:37 GMT", want},
		{"Sun Nov  6 08:49:37 1994", want},
		{"Sun Nov 06 08:49:37 1994", want},
		{" Sun, 06 Nov 1994 08:49:37 GMT\t", want},
		{"Thu, 01 Jan 1970 00:00:00 GMT", 0},
		{"Tue, 29 Feb 2028 00:00:00 GMT", 1835395200},
		{"Sun, 21 Nov 2286 04:46:39 GMT", 10000039599},
		{"Thursday, 18-Aug-50 02:01:18 GMT", 2544400878}, // 2050, 20 years ahead
		{"Thursday, 18-Aug-81 02:01:18 GMT", 366948078},  // 1981, not 51 years ahead
	} {
		if got, ok := ParseDate([]byte(c.in), now); !ok || got != c.unix {
			t.Errorf("%q = %d, %v; want %d", c.in, got, ok, c.unix)
		}
	}
	for _, in := range []string{
		"", "0", "-1", "Thu, 18 Aug 2050 02:01:18 UTC", "Thu, 18 Aug 2050 02:01:18 AEST", "Thu, 18 Aug 50 02:01:18 GMT",
		"Thu 18 Aug 2050 02:01:18 GMT", "Thu, 18  Aug  2050 02:01:18 GMT", "Thu, 18-Aug-2050 02:01:18 GMT", "Thu, 18 Aug 2050 02.01.18 GMT",
		"Thu, 18 Aug 2050 2:01:18 GMT", "Thu, 30 Feb 2050 02:01:18 GMT", "Thu, 29 Feb 2100 02:01:18 GMT", "Thu, 18 Aug 2050 24:00:00 GMT",
		"Thu, 18 Aug 2050 02:01:18 GMT, Thu, 18 Aug 2050 02:01:18 GMT", "Foo, 18 Aug 2050 02:01:18 GMT", "Thu, 18 Aug 2050 02:01:18 +0000",
		"Thu, 00 Aug 2050 02:01:18 GMT", "Thu, 18-Aug-50 02:01:18 GMT", "Thu, 18 Foo 2050 02:01:18 GMT",
	} {
		if got, ok := ParseDate([]byte(in), now); ok {
			t.Errorf("%q = %d; want none", in, got)
		}
	}
}

// Every date that net/http reads as one of the three forms is the same here.
func FuzzParseDate(f *testing.F) {
	for _, s := range []string{"Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994", "Thu, 18 Aug 50 02:01:18 GMT", "0"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, ok := ParseDate([]byte(s), now)
		if !ok {
			return
		}
		low := strings.ToLower(strings.Trim(s, " \t"))
		if strings.Contains(low, ":60") && !strings.HasSuffix(low, "x") {
			return // a leap second, which Go does not read
		}
		want, err := http.ParseTime(title(low))
		if err != nil {
			t.Fatalf("%q is %d here and no date in net/http: %v", s, got, err)
		}
		if d := (want.Unix() - got) % 86400; d != 0 || !strings.Contains(low, "-") && want.Unix() != got {
			t.Fatalf("%q = %d, net/http says %d", s, got, want.Unix())
		}
	})
}

// title gives a date in lower case the case that Go wants.
func title(s string) string {
	b := []byte(s)
	for i := range b {
		if 'a' <= b[i] && b[i] <= 'z' && (i == 0 || (b[i-1] < 'a' || b[i-1] > 'z')) {
			b[i] -= 0x20
		}
	}
	return strings.Replace(string(b), "Gmt", "GMT", 1)
}

func response(lines ...string) *message.Fields {
	f := new(message.Fields)
	for _, l := range lines {
		n, v, _ := strings.Cut(l, ": ")
		f.AddLine([]byte(n), []byte(v))
	}
	return f
}

// oracle finds the lifetime that Cache-Control gives in another way than the parser: quoted
// strings are masked, then members are matched whole. It is -1 when none is given.
func oracle(v string) (lifetime int64, forbidden bool) {
	masked, quoted := []byte(v), false
	var strs []string
	start := 0
	for i := 0; i < len(masked); i++ {
		switch {
		case quoted && masked[i] == '\\':
			masked[i] = 'x'
			if i+1 < len(masked) {
				i++
				masked[i] = 'x'
			}
		case masked[i] == '"':
			if quoted {
				strs = append(strs, v[start+1:i])
			}
			quoted, start = !quoted, i
		case quoted:
			masked[i] = 'x'
		}
	}
	if quoted {
		return -1, true
	}
	least := map[string]int64{}
	n := 0
	for _, m := range strings.Split(string(masked), ",") {
		quotes := strings.Count(m, `"`) / 2
		mine := strs[n : n+quotes]
		n += quotes
		name := strings.ToLower(regexp.MustCompile("^[ \t]*([!#$%&'*+.^_`|~0-9A-Za-z-]*)").FindStringSubmatch(m)[1])
		switch name {
		case "no-store":
			forbidden = true
		case "private":
			if !regexp.MustCompile(`^[ \t]*[^=]*="?[^"]+"?[ \t]*$`).MatchString(m) {
				forbidden = true
			}
		case "max-age", "s-maxage":
			got := int64(0)
			if d := regexp.MustCompile(`^[ \t]*[^ \t=]*=([0-9]+)[ \t]*$`).FindStringSubmatch(m); d != nil {
				got = decimal(d[1])
			} else if quotes == 1 && regexp.MustCompile(`^[ \t]*[^ \t=]*="x*"[ \t]*$`).MatchString(m) && regexp.MustCompile(`^[0-9]+$`).MatchString(mine[0]) {
				got = decimal(mine[0])
			}
			if old, ok := least[name]; !ok || got < old {
				least[name] = got
			}
		}
	}
	if v, ok := least["s-maxage"]; ok {
		return v, forbidden
	}
	if v, ok := least["max-age"]; ok {
		return v, forbidden
	}
	return -1, forbidden
}

func decimal(s string) int64 {
	v, err := strconv.ParseInt(s, 10, 64)
	if err != nil || v > MaxDelta {
		return MaxDelta
	}
	return v
}

// Never fresh by accident: where the answer may be stored, its lifetime is the oracle's.
func FuzzCacheControl(f *testing.F) {
	for _, s := range []string{
		"max-age=3600", `x="max-age=5", max-age=1`, `max-age="10"`, `no-cache="a, b", s-maxage=5`, `private="a", max-age=5`, "MAX-AGE=1, no-STORE",
		`x="\", no-store`, "max-age =5", "max-age=5;a", ",,=,max-age=1", `max-age=1"2", max-age=99999999999999999999`, "private=, max-age=9", `a"b,no-store"`,
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		want, forbidden := oracle(s)
		fields := response("Cache-Control: x", "ETag: \"1\"")
		fields.Set(message.CacheControl, []byte(s))
		c := ParseResponse(fields, cdn)
		life, why := Judge(&Exchange{Status: 200, Fields: fields, Sent: now, Came: now}, &c, &Policy{})
		if why == Stored && forbidden {
			t.Fatalf("%q: stored", s)
		}
		if why == Stored && life.Lifetime > 0 && life.Lifetime != time.Duration(want)*time.Second {
			t.Fatalf("%q: lives %v, want %d s", s, life.Lifetime, want)
		}
		if why != Stored && !c.Has(Private) && !forbidden {
			t.Fatalf("%q: not stored: %s", s, why)
		}
		var req message.Request
		req.Add(message.CacheControl, []byte(s))
		ParseRequest(&req)
	})
}

// Never fresh by accident: a field with a member that is not plain must not give a lifetime
// that its plain members do not.
func FuzzTargeted(f *testing.F) {
	for _, s := range []string{
		"max-age=3600", "max-age=10, &&&", `max-age="10"`, "max-age=1.5", "max-age=1;a;b=2, no-store", "a=(1 2), max-age=5", "max-age=5,", "a=:YQ==:, b=@5, c=%\"x\", max-age=5",
		"max-age=-5", "max-age", "no-store=?0, max-age=7", `private="a, b", max-age=9`, "max-age=1234567890123456", " max-age=5 ",
	} {
		f.Add(s)
	}
	plain := regexp.MustCompile(`^[a-z*][a-z0-9_.*-]*(=(-?[0-9]{1,15}|-?[0-9]{1,12}\.[0-9]{1,3}|\?[01]|"[ -!#-\[\]-~]*"|[A-Za-z*][!#-'*+./:0-9A-Z^_\x60a-z|~-]*))?$`)
	f.Fuzz(func(t *testing.T, s string) {
		fields := new(message.Fields)
		fields.Add(message.CDNCacheControl, []byte(s))
		c, ok := parseTargeted(fields, cdn[0])
		if ok && !c.Targeted {
			t.Fatalf("%q: not marked", s)
		}
		if strings.ContainsAny(s, `;(:@%"`) {
			return // for these the seeds and TestRFC9213_Types speak
		}
		want, good := int64(-1), strings.Trim(s, " ") != ""
		for _, m := range strings.Split(strings.Trim(s, " "), ",") {
			m = strings.Trim(m, " \t")
			if !plain.MatchString(m) {
				good = false
				break
			}
			if n, v, _ := strings.Cut(m, "="); n == "max-age" {
				x, err := strconv.ParseInt(v, 10, 64)
				if err != nil {
					good = false
					break
				}
				want = min(max(x, 0), MaxDelta)
			}
		}
		if ok && !good {
			t.Fatalf("%q is taken", s)
		}
		if ok && want >= 0 != c.Has(MaxAge) || ok && c.Has(MaxAge) && c.MaxAge != want {
			t.Fatalf("%q: max-age %d, want %d", s, c.MaxAge, want)
		}
	})
}

func FuzzAge(f *testing.F) {
	for _, s := range []string{"0", "7200, 0", "-1", "1.0", "99999999999999999999", " 5 ", "", ",5"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		fields := new(message.Fields)
		fields.Add(message.Age, []byte(s))
		got, ok := ParseAge(fields)
		first, _, _ := strings.Cut(s, ",")
		first = strings.Trim(first, " \t")
		if digits := regexp.MustCompile(`^[0-9]+$`).MatchString(first); digits != ok || ok && got != decimal(first) {
			t.Fatalf("%q = %d, %v", s, got, ok)
		}
	})
}

func TestRFC9213_Types(t *testing.T) {
	for in, want := range map[string]int64{
		"max-age=60": 60, "a=(1 2;x \"y\");z, max-age=60": 60, "a=:YQ==:, max-age=60": 60, "a=@-5, b=%\"x%c3%a4\", max-age=60": 60, "max-age=60;p=1;q": 60,
		`x="a\"b", max-age=60`: 60, "max-age=999999999999999": MaxDelta, "*a.b-c_1=tok/en:x, max-age=60": 60, "max-age=60 ,\t a": 60,
		"a=(1 2, max-age=60": -1, "a=(1(2)), max-age=60": -1, "a=:Y$:, max-age=60": -1, "a=@1.5, max-age=60": -1, "a=%\"x%zz\", max-age=60": -1, "max-age=60,": -1,
		`a="x`: -1, `a="\x", max-age=60`: -1, "a=1., max-age=60": -1, "a=1.2345, max-age=60": -1, "a=1234567890123.1, max-age=60": -1, "a=-, max-age=60": -1, "a=?2, max-age=60": -1,
		"1a, max-age=60": -1, "max-age=60;;a": -1, "max-age=60 a": -1, "": -1, "\tmax-age=60": -1, "max-age=60, no-store=1": -1, "max-age=60, private=1": -1, "a=, max-age=60": -1, "max-age=(60)": -1,
	} {
		c, ok := parseTargeted(response("CDN-Cache-Control: "+in), cdn[0])
		if ok != (want >= 0) || ok && c.MaxAge != want {
			t.Errorf("%q: %v, max-age %d; want %d", in, ok, c.MaxAge, want)
		}
	}
}

func TestRFC9111_5_4_PragmaOfHTTP10(t *testing.T) {
	for _, c := range []struct {
		proto message.Proto
		lines []string
		want  bool
	}{
		{message.HTTP10, []string{"Pragma: no-cache"}, true},
		{message.HTTP10, []string{"Pragma: x, No-Cache"}, true},
		{message.HTTP10, []string{"Pragma: no-cache", "Cache-Control: max-age=5"}, false},
		{message.HTTP11, []string{"Pragma: no-cache"}, false},
		{message.HTTP10, []string{"Pragma: no-store"}, false},
	} {
		req := &message.Request{Fields: *response(c.lines...), Proto: c.proto}
		if got := ParseRequest(req); got.Has(NoCache) != c.want || got.Has(NoStore) {
			t.Errorf("%v %v: %v", c.proto, c.lines, got.Set)
		}
	}
}

func TestSelectorsAreBounded(t *testing.T) {
	many := new(message.Fields)
	for i := range 40 {
		many.Add(message.Vary, fmt.Appendf(nil, "x-%d", i))
	}
	if _, ok := AppendSelector(nil, many, ""); ok {
		t.Error("40 names are taken")
	}
	if _, ok := AppendSelector(nil, response("Vary: "+strings.Repeat("a", 2000)), ""); ok {
		t.Error("a name of 2,000 bytes is taken")
	}
	sel, ok := AppendSelector(nil, response("Vary: Foo, foo", "Vary: FOO, Accept-Encoding"), "")
	if !ok || string(sel) != "hfoo,eaccept-encoding," {
		t.Errorf("%q", sel)
	}
}

// The canonical form of a list does not depend on the order of its members.
func FuzzPreferredOrder(f *testing.F) {
	f.Add("en", "de;q=0.5", "fr")
	f.Add("a b", "", "A")
	f.Fuzz(func(t *testing.T, a, b, c string) {
		if strings.ContainsAny(a+b+c, ",\"\x00") {
			return
		}
		form := func(v string) string {
			req := new(message.Fields)
			req.Add(message.AcceptLanguage, []byte(v))
			return string(AppendSelected(nil, []byte("qaccept-language,"), req))
		}
		if x, y := form(a+","+b+","+c), form(c+" ,\t"+a+","+b); x != y {
			t.Fatalf("%q and %q", x, y)
		}
	})
}

func TestNothingAllocates(t *testing.T) {
	res := response("Cache-Control: max-age=5, no-cache=\"a, b\"", "CDN-Cache-Control: max-age=5;a=1, private=\"x\"", "Vary: Accept-Language, Foo", "Expires: Sun, 06 Nov 1994 08:49:37 GMT", "ETag: \"a\"")
	req := &message.Request{Fields: *response("Cache-Control: max-age=5", "Accept-Language: de, en;q=0.5", "If-None-Match: \"b\", \"a\"", "Range: bytes=0-1", "Foo: 1, 2")}
	buf := make([]byte, 0, 256)
	p := &Policy{}
	if n := testing.AllocsPerRun(100, func() {
		ParseRequest(req)
		c := ParseResponse(res, cdn)
		Judge(&Exchange{Status: 200, Fields: res, Sent: now, Came: now}, &c, p)
		sel, _ := AppendSelector(buf[:0], res, "")
		AppendSelected(sel, sel, &req.Fields)
		NotModified(&req.Fields, res, now, now)
		Range(&req.Fields, res, 10, now)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

var cdn = []Target{NewTarget("CDN-Cache-Control")}

func TestTheUsualCodingsAreReadAsAnyOther(t *testing.T) {
	for _, v := range []string{"gzip, deflate, br, zstd", "gzip, deflate, br", "gzip, deflate", "gzip", "br", "", "*", "identity;q=0"} {
		req := &message.Fields{}
		req.AddString(message.AcceptEncoding, v)
		if a, b := codingsOf(req), readCodings(req); a != b {
			t.Errorf("%q is %b at once and %b when it is read", v, a, b)
		}
	}
	req := &message.Fields{}
	req.AddString(message.AcceptEncoding, "gzip")
	req.AddString(message.AcceptEncoding, "br")
	if codingsOf(req) != codingAny|codingGzip|codingBrotli {
		t.Error("the second line is lost")
	}
}
