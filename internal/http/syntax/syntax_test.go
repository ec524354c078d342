package syntax

import (
	"bytes"
	"net/url"
	"strings"
	"testing"
)

// The ABNF, written out.
const (
	lower = "abcdefghijklmnopqrstuvwxyz"
	upper = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
	digit = "0123456789"
)

func TestClasses(t *testing.T) {
	in := func(set string) func(byte) bool { return func(c byte) bool { return strings.IndexByte(set, c) >= 0 } }
	rules := []struct {
		name  string
		class Class
		is    func(byte) bool
	}{
		{"RFC 9110 5.6.2 tchar", Token, in(lower + upper + digit + "!#$%&'*+-.^_`|~")},
		{"underscore", Underscore, in("_")},
		{"request target", Target, func(c byte) bool { return c > ' ' && c != 0x7f && c != '#' }},
		{"RFC 3986 3.2.2 reg-name", RegName, in(lower + upper + digit + "-._~" + "!$&'()*+,;=")},
		{"RFC 5234 B.1 HEXDIG", Hex, in(digit + "abcdefABCDEF")},
		{"RFC 9113 8.2.1 field name", Name, in(lower + digit + "!#$%&'*+-.^_`|~")},
		{"RFC 9110 5.5 field value", Value, func(c byte) bool { return c == '\t' || c >= ' ' && c != 0x7f }},
	}
	for _, r := range rules {
		for i := range 256 {
			c := byte(i)
			if Is(c, r.class) != r.is(c) || (Of(c)&r.class != 0) != r.is(c) {
				t.Errorf("%s: %#02x is %v", r.name, c, Is(c, r.class))
			}
		}
	}
}

func TestAllWantsEachByte(t *testing.T) {
	for s, want := range map[string]bool{"": true, "abc": true, "a c": false, "ab\x00": false, " ab": false} {
		if All(s, Token) != want || All([]byte(s), Token) != want {
			t.Errorf("All(%q) is not %v", s, want)
		}
		if want = want && s != ""; IsToken(s) != want || IsLowerName([]byte(s)) != want {
			t.Errorf("IsToken(%q) is not %v", s, want)
		}
	}
	if IsLowerName([]byte("aB")) || !IsToken("aB") {
		t.Error("upper case is of a token, and not of a name in HTTP/2")
	}
}

// TestRFC9110Section55ControlBytesAtEachPlace puts each byte at each place of a value.
func TestRFC9110Section55ControlBytesAtEachPlace(t *testing.T) {
	for n := 1; n <= 25; n++ {
		for at := range n {
			for c := range 256 {
				v := bytes.Repeat([]byte{'x'}, n)
				v[at] = byte(c)
				plain := c == '\t' || c >= ' ' && c != 0x7f
				if Plain(v) != plain {
					t.Fatalf("Plain(%q) is not %v", v, plain)
				}
				if value := plain && !(at == 0 || at == n-1) || plain && c > ' '; IsValue(v) != value {
					t.Fatalf("IsValue(%q) is not %v", v, value)
				}
			}
		}
	}
	if !IsValue(nil) || !Plain(nil) {
		t.Error("a value may be empty")
	}
	if !IsValue([]byte("tabs\t\t\tand\x80bytes\xffover 0x7f\tpass\t.")) || Plain([]byte("\t\t\t\t\t\t\t\x01\t\t")) {
		t.Error("tabs")
	}
}

func TestAuthority(t *testing.T) {
	tests := []struct {
		in       string
		ok, port bool
	}{
		{"shop.example", true, false},
		{"shop.example:443", true, true},
		{"192.0.2.1:80", true, true},
		{"a:0", true, true},
		{"[2001:db8::1]", true, false},
		{"[2001:db8::1]:8443", true, true},
		{"caf%C3%A9.example", true, false},
		{"a:65535", true, true},
		{"", false, false},
		{":80", false, false},
		{"a:", false, false},
		{"a:65536", false, true},
		{"a:000080", false, false},
		{"a:8o", false, true},
		{"a:+1", false, true},
		{"user@a", false, false},
		{"a/b", false, false},
		{"a b", false, false},
		{"a%zz", false, false},
		{"a%4", false, false},
		{"[::1", false, false},
		{"[1.2.3.4]", false, false},
		{"[fe80::1%25eth0]", false, false},
		{"[::1]x", false, false},
		{"[::1]:99999", false, true},
		{"caf\xc3\xa9", false, false},
		{strings.Repeat("a", 255), true, false},
		{strings.Repeat("a", 256), false, false},
		{strings.Repeat("a", 255) + ":1", true, true},
		{strings.Repeat("a", 256) + ":1", false, false},
	}
	for _, tt := range tests {
		if ok, port := Authority([]byte(tt.in)); ok != tt.ok || ok && port != tt.port {
			t.Errorf("Authority(%q) = %v, %v", tt.in, ok, port)
		}
	}
}

func TestDecimal(t *testing.T) {
	for in, want := range map[string]int64{
		"0": 0, "007": 7, "1234567890": 1234567890, "999999999999999999": 999999999999999999,
		"": -1, "+1": -1, "-1": -1, " 1": -1, "1 ": -1, "1e3": -1, "1000000000000000000": -1, "0x1": -1,
	} {
		n, ok := Decimal([]byte(in))
		if ok != (want >= 0) || ok && n != want {
			t.Errorf("Decimal(%q) = %d, %v", in, n, ok)
		}
	}
	for c := range 256 {
		v, ok := Unhex(byte(c))
		if ok != Is(byte(c), Hex) || ok && int(v) != strings.Index(digit+"abcdef", strings.ToLower(string(rune(c)))) {
			t.Errorf("Unhex(%#02x) = %d, %v", c, v, ok)
		}
		if Digit(byte(c)) != (c >= '0' && c <= '9') {
			t.Errorf("Digit(%#02x)", c)
		}
	}
}

func TestRFC9110Section561ListsHaveElements(t *testing.T) {
	for in, want := range map[string][]string{
		"a": {"a"}, " a ,\tb\t, ,c": {"a", "b", "", "c"}, "": {""}, ",": {"", ""}, "a b": {"a b"},
	} {
		var got []string
		for rest := []byte(in); ; {
			var item []byte
			item, rest = NextItem(rest)
			got = append(got, string(item))
			if len(rest) == 0 {
				if rest != nil {
					got = append(got, "")
				}
				break
			}
		}
		if strings.Join(got, "|") != strings.Join(want, "|") {
			t.Errorf("%q: %q", in, got)
		}
	}
}

func TestEqualFold(t *testing.T) {
	for i := range 256 {
		for j := range 256 {
			a, b := []byte{byte(i)}, []byte{byte(j)}
			want := i == j || i < 0x80 && j < 0x80 && strings.EqualFold(string(a), string(b))
			if EqualFold(a, b) != want || EqualFold(a, string(b)) != want {
				t.Fatalf("%q and %q", a, b)
			}
		}
	}
	if EqualFold([]byte("ab"), "a") || !EqualFold(nil, "") {
		t.Error("length")
	}
}

func TestNothingAllocates(t *testing.T) {
	v, host, list := []byte("Mozilla/5.0 (X11; Linux x86_64) tab\there"), []byte("shop.example:443"), []byte("gzip, br")
	if n := testing.AllocsPerRun(100, func() {
		ok, _ := Authority(host)
		item, _ := NextItem(list)
		if !ok || !IsValue(v) || !IsToken(item) || !EqualFold(item, "GZIP") {
			t.Fail()
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// FuzzAuthority holds Authority against net/url: what it takes, a URL may hold.
func FuzzAuthority(f *testing.F) {
	for _, s := range []string{"a", "a:80", "[::1]:1", "%41", "a:99999", "[::ffff:1.2.3.4]", "a@b", "\x00"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		ok, port := Authority(b)
		if !ok {
			return
		}
		if bytes.ContainsAny(b, "/?#@ \t\r\n\x00<>\"\\") {
			t.Errorf("%q passes", b)
		}
		u, err := url.Parse("http://" + string(b))
		if err != nil {
			if strings.Contains(err.Error(), "invalid URL escape") { // net/url takes %XX of few bytes only
				return
			}
			t.Fatalf("%q: %v", b, err)
		}
		if (u.Port() != "") != port {
			t.Errorf("%q has port %q", b, u.Port())
		}
	})
}

// FuzzValue holds the look at words against the rule of single bytes.
func FuzzValue(f *testing.F) {
	for _, s := range []string{"", "x", " x", "text/html; charset=utf-8", "\t", "12345678\x7f", "1234567\x1f8", "\xff\x80\x00"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		plain := true
		for _, c := range b {
			plain = plain && (c == '\t' || c >= ' ' && c != 0x7f)
		}
		if Plain(b) != plain {
			t.Errorf("Plain(%q) is not %v", b, plain)
		}
		if want := plain && len(Trim(b)) == len(b); IsValue(b) != want {
			t.Errorf("IsValue(%q) is not %v", b, want)
		}
	})
}

var sink bool

func BenchmarkValue(b *testing.B) {
	v := []byte("Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0")
	for b.Loop() {
		sink = IsValue(v)
	}
}

func BenchmarkName(b *testing.B) {
	v := []byte("x-request-something")
	for b.Loop() {
		sink = IsLowerName(v)
	}
}
