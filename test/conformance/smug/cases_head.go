package smug

import (
	"fmt"
	"strconv"
	"strings"
)

func fieldCases() []Case {
	const value, name, syntax = "RFC 9110 5.5", "RFC 9110 5.1", "RFC 9112 5"
	line := func(l string) string { return get(l + "\r\n") }
	cases := expand("header", []row{
		{"space-before-colon", Refuse, "RFC 9112 5.1", "X-A : b"},
		{"no-colon", Refuse, syntax, "XA"},
		{"empty-name", Refuse, name, ": b"},
		{"fold-empty", Either, "RFC 9112 5.2", "X-A:\r\n \r\n Transfer-Encoding: chunked"},
		{"nul-value", Refuse, value, "X-A: b\x00c"},
		{"nul-name", Refuse, name, "X-\x00A: b"},
		{"bare-cr-value", Refuse, "RFC 9112 2.2", "X-A: b\rc"},
		{"bare-cr-inject", Refuse, "RFC 9112 2.2", "X-A: b\rX-Injected: c"},
		{"ctl-value-01", Either, value, "X-A: b\x01c"},
		{"1000-headers", Either, "RFC 9110 5.4", strings.Repeat("X-A: b\r\n", 999) + "X-A: b"},
		{"64k-header", Either, "RFC 9110 5.4", "X-A: " + strings.Repeat("a", 65536)},
		{"64k-name", Either, "RFC 9110 5.4", strings.Repeat("a", 65536) + ": b"},
	}, line)
	for _, b := range []byte("\x22\x28\x29\x2c\x2f\x3c\x3e\x5b\x7d\x80\xff") {
		cases = append(cases, Case{
			Name: fmt.Sprintf("header/name-byte-%02x", b), Want: Refuse, Rule: name,
			Raw: line("X" + string([]byte{b}) + "A: b"),
		})
	}
	return append(cases, expand("header", []row{
		{"fold-first-with-host", Refuse, "RFC 9112 2.2", "GET /c HTTP/1.1\r\n X: y\r\nHost: " + Host + "\r\n\r\n"},
		{"all-lf", Either, "RFC 9112 2.2", "GET /c HTTP/1.1\nHost: " + Host + "\n\n"},
		{"end-lf-cr-lf", Either, "RFC 9112 2.2", "GET /c HTTP/1.1\r\nHost: " + Host + "\r\n\n"},
	}, asIs)...)
}

func hostCases() []Case {
	const rule = "RFC 9112 3.2"
	var cases []Case
	for _, v := range []struct {
		value string
		want  Want
	}{
		{"a:b:c", Refuse},
		{"a:99999", Either},
		{"a:80a", Refuse},
		{"a\x00b", Refuse},
		{"a\tb", Refuse},
		{"[::1", Refuse},
		{"http://edge.test", Refuse},
		{"<script>", Refuse},
		{"edge.test:", Either},
		{"\xffhost", Refuse},
	} {
		cases = append(cases, Case{
			Name: "host/bad-" + strconv.Quote(v.value), Want: v.want, Rule: rule,
			Raw: "GET /c HTTP/1.1\r\nHost: " + v.value + "\r\n\r\n",
		})
	}
	return append(cases, expand("host", []row{
		{"dup-diff", Refuse, rule, "GET /c HTTP/1.1\r\nHost: " + Host + "\r\nHost: evil.test\r\n\r\n"},
		{"absform-mismatch", Either, "RFC 9112 3.2.2", "GET http://other.test/c HTTP/1.1\r\nHost: " + Host + "\r\n\r\n"},
		{"absform-userinfo", Refuse, "RFC 9110 4.2.4", "GET http://u:p@edge.test/c HTTP/1.1\r\nHost: " + Host + "\r\n\r\n"},
		{"absform-ftp", Either, "RFC 9112 3.2.2", "GET ftp://edge.test/c HTTP/1.1\r\nHost: " + Host + "\r\n\r\n"},
		{"space-colon", Refuse, "RFC 9112 5.1", "GET /c HTTP/1.1\r\nHost : " + Host + "\r\n\r\n"},
	}, asIs)...)
}

func requestLineCases() []Case {
	const version, line, target, method = "RFC 9112 2.3", "RFC 9112 3", "RFC 9112 3.2", "RFC 9112 3.1"
	cases := expand("reqline", []row{
		{"http3-ver", Refuse, version, "GET /c HTTP/3.0"},
		{"http12", Either, version, "GET /c HTTP/1.2"},
		{"http19", Either, version, "GET /c HTTP/1.9"},
		{"http01.1", Refuse, version, "GET /c HTTP/01.1"},
		{"http1.10", Refuse, version, "GET /c HTTP/1.10"},
		{"http1,1", Refuse, version, "GET /c HTTP/1,1"},
		{"http+1.1", Refuse, version, "GET /c HTTP/+1.1"},
		{"lower-http", Refuse, version, "GET /c http/1.1"},
		{"no-version", Refuse, line, "GET /c"},
		{"http1", Refuse, version, "GET /c HTTP/1"},
		{"two-spaces", Either, line, "GET  /c HTTP/1.1"},
		{"trailing-space", Either, line, "GET /c HTTP/1.1 "},
		{"extra-version", Refuse, line, "GET /c HTTP/1.1 HTTP/1.1"},
		{"no-slash", Refuse, target, "GET c HTTP/1.1"},
		{"fragment", Either, target, "GET /c#frag HTTP/1.1"},
		{"tab-target", Refuse, target, "GET /c\td HTTP/1.1"},
		{"cr-target", Refuse, "RFC 9112 2.2", "GET /c\rd HTTP/1.1"},
		{"empty-method", Refuse, method, " /c HTTP/1.1"},
		{"bad-method-char", Refuse, method, "GE(T /c HTTP/1.1"},
		{"colon-method", Refuse, method, "GET: /c HTTP/1.1"},
		{"connect-path", Refuse, "RFC 9112 3.2.3", "CONNECT /c HTTP/1.1"},
		{"pct-bad", Either, "RFC 3986 2.1", "GET /c%zz HTTP/1.1"},
		{"dotdot", Either, "RFC 3986 5.2.4", "GET /a/../../c HTTP/1.1"},
		{"backslash", Either, target, "GET \\c HTTP/1.1"},
		{"double-slash-host", Either, "RFC 9112 3.2.1", "GET //evil.test/c HTTP/1.1"},
	}, func(l string) string { return l + "\r\nHost: " + Host + "\r\n\r\n" })
	return append(cases, Case{Name: "http09/simple-lf", Want: Refuse, Rule: "RFC 9112 2.3", Raw: "GET /c\n"})
}

func upgradeCases() []Case {
	return expand("upgrade", []row{
		{"ws-bad-version-smuggle", Either, "RFC 6455 4.2.2", get("Connection: Upgrade\r\nUpgrade: websocket\r\n" +
			"Sec-WebSocket-Version: 777\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n")},
		{"upgrade-with-body", Either, "RFC 9110 7.8", post("Connection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 5\r\n\r\nhello")},
		{"expect-obf", Either, "RFC 9110 10.1.1", "GET /c HTTP/1.1\r\nHost: " + Host + "\r\nExpect: y 100-continue\r\n" +
			fmt.Sprintf("Content-Length: %d\r\n\r\n%s", len(hidden), hidden)},
	}, asIs)
}
