package differential

import (
	"fmt"
	"strings"
)

var (
	refuse400 = []int{400}
	refuse501 = []int{501}
)

// oddities are all ways in which requests are out of the ordinary.
func oddities() []oddity {
	var all []oddity
	for _, list := range [][]oddity{lineOddities(), targetOddities(), hostOddities(), fieldOddities(), framingOddities(), chunkOddities(), hopOddities()} {
		all = append(all, list...)
	}
	return all
}

// target makes an oddity of a request target.
func target(name, t string, statuses ...int) oddity {
	return oddity{name, "target", statuses, func(d *draft) { d.target = t }}
}

func start(name, line string, statuses ...int) oddity {
	return oddity{name, "target message", statuses, func(d *draft) {
		d.content(framingNone)
		d.method, d.start = "GET", line
	}}
}

func field(name, group, line string, statuses ...int) oddity {
	return oddity{name, group, statuses, func(d *draft) { d.add(line) }}
}

func host(name, value string, statuses ...int) oddity {
	return oddity{name, "host", statuses, func(d *draft) { d.host("Host: " + value) }}
}

func lineOddities() []oddity {
	method := func(name, m string, statuses ...int) oddity {
		return oddity{name, "target message", statuses, func(d *draft) { d.method = m }}
	}
	bare := func(d *draft) { d.content(framingNone) }
	return []oddity{
		method("method in lower case", "get"),
		method("method HEAD in lower case", "head"),
		method("method unknown", "BREW"),
		method("method of odd token characters", "M-S!#$%&'*+.^_`|~"),
		method("method too long", strings.Repeat("M", 40), 501),
		method("method with a parenthesis", "GE(T", 400),
		method("method empty", "", 400),
		{"method TRACE", "target message", refuse501, func(d *draft) { bare(d); d.method = "TRACE" }},
		{"method CONNECT", "target message host", refuse501, func(d *draft) {
			bare(d)
			d.method, d.target = "CONNECT", "shop.example:443"
			d.host("Host: shop.example:443")
		}},
		{"method CONNECT with a path", "target message", refuse400, func(d *draft) { bare(d); d.method, d.target = "CONNECT", "/a" }},
		start("version missing", "GET /", 400),
		start("version HTTP/0.9", "GET / HTTP/0.9", 505),
		start("version HTTP/1.2", "GET / HTTP/1.2", 505),
		start("version HTTP/2.0", "GET / HTTP/2.0", 505),
		start("version HTTP/3.1", "GET / HTTP/3.1", 505),
		start("version in lower case", "GET / http/1.1", 400),
		start("version without dot", "GET / HTTP/11", 400),
		start("version with a long minor", "GET / HTTP/1.10", 400),
		start("version with a space behind", "GET / HTTP/1.1 ", 400),
		start("two spaces before the target", "GET  / HTTP/1.1", 400),
		start("two spaces before the version", "GET /  HTTP/1.1", 400),
		start("tab before the target", "GET\t/ HTTP/1.1", 400),
		start("space before the method", " GET / HTTP/1.1", 400),
		start("space in the target", "GET /a b HTTP/1.1", 400),
		start("target missing", "GET HTTP/1.1", 400),
		start("NUL in the target", "GET /a\x00b HTTP/1.1", 400),
		start("CR in the request line", "GET /a\rb HTTP/1.1", 400),
		{"empty line before the request", "target message", nil, func(d *draft) { d.before = "\r\n" }},
		{"two empty lines before the request", "target message", refuse400, func(d *draft) { bare(d); d.method, d.before = "GET", "\r\n\r\n" }},
		{"bare LF before the request", "target message", refuse400, func(d *draft) { bare(d); d.method, d.before = "GET", "\n" }},
		{"lines end with bare LF", "target message field", refuse400, func(d *draft) { d.eol = "\n" }},
		{"lines end with CR CR LF", "target message field", refuse400, func(d *draft) { d.eol = "\r\r\n" }},
		{"head cut short", "target message field", nil, func(d *draft) { d.headCut = 1 + d.IntN(60) }},
	}
}

func targetOddities() []oddity {
	return []oddity{
		target("percent-encoding of unreserved", "/%7Euser/%41%2d%5f"),
		target("percent-encoding in lower case", "/a%2fb%c3%a9"),
		target("percent-encoding broken", "/a%zz", 400),
		target("percent-encoding cut", "/a%4", 400),
		target("percent-encoding of NUL", "/a%00b", 400),
		{"broken chunks behind a refused path", "target message", refuse400, func(d *draft) {
			d.method, d.target, d.version, d.framing, d.chunks = "POST", "/a%00b", "HTTP/1.1", framingChunked, "5\r\n12345\r\nx\r\n"
		}},
		target("percent-encoding broken in the query", "/a?b=%zz&%"),
		target("dot segments", "/a/../b/./c/.."),
		target("dot segments above the root", "/../../etc/passwd"),
		target("dot segments encoded", "/a/%2e%2E/b%2f..%2fc"),
		target("double slashes", "//a//b//"),
		target("query empty", "/a?"),
		target("query of question marks", "/a??b=?c"),
		target("query with odd characters", "/a?b=\"<>`{|}\\^[]"),
		target("path with odd characters", "/a\"<>`{|}\\^[]"),
		target("bytes over 0x7f in the target", "/caf\xc3\xa9/\xff?\xe9"),
		target("fragment in the target", "/a#b", 400),
		target("target without slash", "a/b", 400),
		target("target is a query", "?a=b", 400),
		target("target near the limit", "/"+strings.Repeat("long/", limitTarget/5-10)),
		target("target too long", "/"+strings.Repeat("long/", limitTarget/5+10), 414),
		target("target far too long", "/"+strings.Repeat("long/", limitHead), 414),
		{"target *", "target message", nil, func(d *draft) { d.content(framingNone); d.method, d.target = "OPTIONS", "*" }},
		{"target * for GET", "target message", refuse400, func(d *draft) { d.content(framingNone); d.method, d.target = "GET", "*" }},
		{"absolute-form OPTIONS without path", "target message host", nil, func(d *draft) {
			d.content(framingNone)
			d.method, d.target = "OPTIONS", "http://shop.example"
			d.host("Host: shop.example")
		}},
	}
}

func hostOddities() []oddity {
	absolute := func(name, t, h string, statuses ...int) oddity {
		return oddity{name, "target host", statuses, func(d *draft) {
			if d.method == "OPTIONS" {
				d.method = "GET"
			}
			d.target = t
			d.host("Host: " + h)
		}}
	}
	return []oddity{
		absolute("absolute-form", "http://shop.example/a?b", "shop.example"),
		absolute("absolute-form in another case", "HTTP://Shop.Example/a", "shop.example"),
		absolute("absolute-form without path", "http://shop.example", "shop.example"),
		absolute("absolute-form with only a query", "http://shop.example?a=b", "shop.example"),
		absolute("absolute-form of https", "https://shop.example/a", "shop.example"),
		absolute("absolute-form with a port", "http://shop.example:81/a", "shop.example:81"),
		absolute("absolute-form with another host", "http://other.example/a", "shop.example", 400),
		absolute("absolute-form with user information", "http://u:p@shop.example/a", "shop.example", 400),
		absolute("absolute-form of another scheme", "ftp://shop.example/a", "shop.example", 400),
		absolute("absolute-form without host", "http:///a", "shop.example", 400),
		{"no Host", "host message", refuse400, func(d *draft) { d.version = "HTTP/1.1"; d.host() }},
		{"no Host on HTTP/1.0", "host message", nil, func(d *draft) {
			d.version = "HTTP/1.0"
			d.host()
			if d.framing == framingChunked {
				d.framing = framingLength
			}
		}},
		{"Host empty on HTTP/1.0", "host message", refuse400, func(d *draft) {
			d.content(framingNone)
			d.method, d.version = "GET", "HTTP/1.0"
			d.host("Host:")
		}},
		{"two Hosts", "host", refuse400, func(d *draft) { d.host("Host: shop.example", "Host: other.example") }},
		{"two equal Hosts", "host", refuse400, func(d *draft) { d.host("Host: shop.example", "host: shop.example") }},
		host("Host in upper case", "SHOP.Example"),
		host("Host with a port", "shop.example:8080"),
		host("Host with a last dot", "shop.example."),
		host("Host of IPv4", "127.0.0.1:80"),
		host("Host of IPv6", "[2001:db8::1]:80"),
		host("Host percent-encoded", "sh%6fp.example"),
		host("Host with sub-delims", "a!$&'()*+,;=b"),
		host("Host empty", "", 400),
		host("Host with a space", "shop .example", 400),
		host("Host with a slash", "shop.example/a", 400),
		host("Host with user information", "u@shop.example", 400),
		host("Host with a bad port", "shop.example:80a", 400),
		host("Host with a port too high", "shop.example:65536", 400),
		host("Host of broken IPv6", "[2001:db8::1", 400),
		host("Host of a zone", "[fe80::1%25eth0]", 400),
		host("Host of non-ASCII", "sh\xc3\xb6p.example", 400),
		host("Host with a backslash", "shop.example\\a", 400),
		{"Host folded", "host", refuse400, func(d *draft) { d.host("Host:\r\n shop.example") }},
	}
}

func fieldOddities() []oddity {
	f := func(name, line string, statuses ...int) oddity { return field(name, "field", line, statuses...) }
	return []oddity{
		f("field value empty", "X-Empty:"),
		f("field value of spaces", "X-Blank: \t  \t"),
		f("field value with spaces around", "X-Around:\t a  b \t"),
		f("field value without space", "X-Tight:a"),
		f("field value non-ASCII", "X-Latin: caf\xe9 \xff\xc3\xa9"),
		f("field value with colons", "X-Colons: :a:b::"),
		f("field value with NUL", "X-Nul: a\x00b", 400),
		f("field value with a control byte", "X-Control: a\x0bb", 400),
		f("field value with DEL", "X-Del: a\x7fb", 400),
		f("field value with bare CR", "X-Cr: a\rb", 400),
		f("field value with bare LF", "X-Lf: a\nX-B: b", 400),
		f("field folded", "X-Fold: a\r\n b", 400),
		f("field folded with a tab", "X-Fold: a\r\n\tb", 400),
		f("space before the colon", "X-Space : a", 400),
		f("tab before the colon", "X-Tab\t: a", 400),
		f("space in a field name", "X Y: a", 400),
		f("field without colon", "X-None", 400),
		f("field name empty", ": a", 400),
		f("field name with a parenthesis", "X(Y: a", 400),
		f("field name non-ASCII", "X-\xc3\xa9: a", 400),
		f("field name with a control byte", "X-\x01: a", 400),
		f("field name with an underscore", "X_Under: a"),
		f("field name that collides", "Content_Length: 5", 400),
		f("field name that collides, forwarding", "X_Forwarded-For: 192.0.2.1", 400),
		f("field names of odd token characters", "!#$%&'*+-.^`|~09: a"),
		f("field names in odd case", "x-oDd-CASE: 1\r\nACCEPT-charset: utf-8"),
		f("field repeated", "X-Twice: 1\r\nx-twice: 2\r\nX-Twice: 1"),
		f("field repeated, known", "Accept-Encoding: a\r\nCookie: c=1\r\nCookie: d=2\r\nCache-Control: a\r\nCache-Control: b"),
		f("field asks for timing", "Relais-Timing: 1"),
		{"first field line begins with space", "field target message", refuse400, func(d *draft) { d.start = d.method + " " + d.target + " " + d.version + "\r\n X-A: b" }},
		{"many fields", "field", nil, func(d *draft) {
			for i := range 40 {
				d.add(fmt.Sprintf("X-Many-%d: %d", i%7, i))
			}
		}},
		{"too many fields", "field", []int{431}, func(d *draft) {
			for i := range limitFields + 10 {
				d.add(fmt.Sprintf("X-Many-%d: %d", i, i))
			}
		}},
		f("big field", "X-Big: "+strings.Repeat("b", limitHead/2)),
		f("head a little too large", "X-Big: "+strings.Repeat("b", limitHead+100), 431),
		f("head far too large", "X-Big: "+strings.Repeat("b", 4*limitHead), 431),
	}
}

func framingOddities() []oddity {
	length := func(name, lines string, statuses ...int) oddity {
		return oddity{name, "message", statuses, func(d *draft) {
			d.method, d.framing, d.body = "POST", framingNone, []byte("12345")
			d.add(lines)
		}}
	}
	coding := func(name, lines string, statuses ...int) oddity {
		return oddity{name, "message", statuses, func(d *draft) {
			d.method, d.version, d.framing, d.body = "POST", "HTTP/1.1", framingNone, []byte("5\r\n12345\r\n0\r\n\r\n")
			d.add(lines)
		}}
	}
	return []oddity{
		length("Content-Length twice, equal", "Content-Length: 5\r\nContent-Length: 5", 400),
		length("Content-Length twice, different", "Content-Length: 5\r\nContent-Length: 6", 400),
		length("Content-Length of a list", "Content-Length: 5, 5", 400),
		length("Content-Length with a plus", "Content-Length: +5", 400),
		length("Content-Length negative", "Content-Length: -5", 400),
		length("Content-Length in hexadecimal", "Content-Length: 0x5", 400),
		length("Content-Length empty", "Content-Length:", 400),
		length("Content-Length with a space inside", "Content-Length: 5 5", 400),
		length("Content-Length of letters", "Content-Length: five", 400),
		length("Content-Length beyond 64 bits", "Content-Length: 99999999999999999999", 400),
		length("Content-Length with leading zeros", "Content-Length: 0005"),
		length("Content-Length over the limit", fmt.Sprintf("Content-Length: %d", limitBody+1), 413),
		{"Content-Length longer than the body", "message", refuse400, func(d *draft) {
			d.method, d.framing, d.body, d.short = "POST", framingLength, pattern(5+d.IntN(6000)), 1+d.IntN(4)
		}},
		{"Content-Length of nothing", "message", nil, func(d *draft) { d.method, d.framing, d.body = "POST", framingLength, nil }},
		{"body with GET", "message", nil, func(d *draft) { d.method = "GET"; d.content(framingLength) }},
		{"body with HEAD", "message", nil, func(d *draft) { d.method = "HEAD"; d.content(framingLength) }},
		{"chunked body with GET", "message", nil, func(d *draft) { d.method, d.version = "GET", "HTTP/1.1"; d.content(framingChunked) }},
		coding("Content-Length and chunked", "Content-Length: 5\r\nTransfer-Encoding: chunked", 400),
		coding("Transfer-Encoding in another case", "Transfer-Encoding: Chunked"),
		coding("Transfer-Encoding with spaces around", "transfer-encoding: \t chunked \t"),
		coding("Transfer-Encoding gzip, chunked", "Transfer-Encoding: gzip, chunked", 501),
		coding("Transfer-Encoding identity", "Transfer-Encoding: identity", 501),
		coding("Transfer-Encoding xchunked", "Transfer-Encoding: xchunked", 501),
		coding("Transfer-Encoding chunked twice in a list", "Transfer-Encoding: chunked, chunked", 400, 501),
		coding("Transfer-Encoding chunked on two lines", "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", 400),
		coding("Transfer-Encoding chunked, then identity", "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity", 400),
		coding("Transfer-Encoding with a parameter", "Transfer-Encoding: chunked;q=1", 400, 501),
		coding("Transfer-Encoding with a comma before", "Transfer-Encoding: , chunked", 400, 501),
		coding("Transfer-Encoding in quotes", "Transfer-Encoding: \"chunked\"", 400, 501),
		coding("Transfer-Encoding empty", "Transfer-Encoding:", 400),
		coding("Transfer-Encoding with a vertical tab", "Transfer-Encoding: \x0bchunked", 400),
		coding("Transfer-Encoding folded", "Transfer-Encoding:\r\n chunked", 400),
		{"Transfer-Encoding on HTTP/1.0", "message", refuse400, func(d *draft) {
			d.method, d.version, d.framing, d.body = "POST", "HTTP/1.0", framingNone, []byte("5\r\n12345\r\n0\r\n\r\n")
			d.add("Transfer-Encoding: chunked")
		}},
	}
}

func chunkOddities() []oddity {
	chunks := func(name, body string, statuses ...int) oddity {
		return oddity{name, "message", statuses, func(d *draft) {
			d.method, d.version, d.framing, d.chunks, d.body = "POST", "HTTP/1.1", framingChunked, body, nil
		}}
	}
	var over strings.Builder
	for range limitBody/4096 + 2 {
		over.WriteString("1000\r\n" + strings.Repeat("o", 4096) + "\r\n")
	}
	return []oddity{
		chunks("chunk extensions", "5;a=b;c=\"d\"\r\n12345\r\n0;e\r\n\r\n"),
		chunks("chunk extension too long", "5;a="+strings.Repeat("e", 300)+"\r\n12345\r\n0\r\n\r\n", 400),
		chunks("chunk extension with bare LF", "5;a\n12345\r\n0\r\n\r\n", 400),
		chunks("chunk extension with bare CR", "5;a\rb\r\n12345\r\n0\r\n\r\n", 400),
		chunks("chunk extension with NUL", "5;a\x00\r\n12345\r\n0\r\n\r\n", 400),
		chunks("chunk size with leading zeros", "0000000000005\r\n12345\r\n000\r\n\r\n"),
		chunks("chunk size of 17 digits", "00000000000000005\r\n12345\r\n0\r\n\r\n", 400),
		chunks("chunk size beyond 64 bits", "fffffffffffffffff\r\n12345\r\n0\r\n\r\n", 400),
		chunks("chunk size empty", "\r\n12345\r\n0\r\n\r\n", 400),
		chunks("chunk size with 0x", "0x5\r\n12345\r\n0\r\n\r\n", 400),
		chunks("chunk size with a plus", "+5\r\n12345\r\n0\r\n\r\n", 400),
		chunks("chunk size negative", "-5\r\n12345\r\n0\r\n\r\n", 400),
		chunks("chunk size with an underscore", "0_5\r\n12345\r\n0\r\n\r\n", 400),
		chunks("chunk size with a space behind", "5 \r\n12345\r\n0\r\n\r\n", 400),
		chunks("chunk size with a space before an extension", "5 ;a\r\n12345\r\n0\r\n\r\n", 400),
		chunks("chunk size with a space before", " 5\r\n12345\r\n0\r\n\r\n", 400),
		chunks("chunk size ends with bare LF", "5\n12345\r\n0\r\n\r\n", 400),
		chunks("chunk data without end", "5\r\n123450\r\n\r\n", 400),
		chunks("chunk data ends with bare LF", "5\r\n12345\n0\r\n\r\n", 400),
		chunks("chunk data longer than its size", "5\r\n1234567\r\n0\r\n\r\n", 400),
		chunks("chunk ends the body with bare LF", "5\r\n12345\r\n0\n\n", 400),
		chunks("chunks all framing", strings.Repeat("1;"+strings.Repeat("w", 200)+"\r\nx\r\n", 700)+"0\r\n\r\n", 400),
		chunks("chunks over the limit", over.String()+"0\r\n\r\n", 413),
		{"chunked body cut short", "message", refuse400, func(d *draft) {
			d.method, d.version = "POST", "HTTP/1.1"
			d.framing, d.chunks, d.short = framingChunked, "5\r\n12345\r\n5\r\n12345\r\n0\r\n\r\n", 1+d.IntN(14)
		}},
		chunks("trailer", "5\r\n12345\r\n0\r\nX-Sum: 1\r\nX-Sum: 2\r\n\r\n"),
		chunks("trailer of framing", "5\r\n12345\r\n0\r\nContent-Length: 7\r\nTransfer-Encoding: chunked\r\nHost: other.example\r\nAuthorization: x\r\n\r\n"),
		chunks("trailer with a bad framing field", "5\r\n12345\r\n0\r\nContent-Length: x\r\n\r\n", 400),
		chunks("trailer without colon", "5\r\n12345\r\n0\r\nX-Sum\r\n\r\n", 400),
		chunks("trailer with a control byte", "5\r\n12345\r\n0\r\nX-Sum: \x01\r\n\r\n", 400),
		chunks("trailer folded", "5\r\n12345\r\n0\r\nX-Sum: a\r\n b\r\n\r\n", 400),
		chunks("trailer with bare LF", "5\r\n12345\r\n0\r\nX-Sum: a\n\r\n", 400),
		chunks("trailer with a space before the colon", "5\r\n12345\r\n0\r\nX-Sum : a\r\n\r\n", 400),
		chunks("trailer too large", "5\r\n12345\r\n0\r\nX-Sum: "+strings.Repeat("t", 3*limitHead)+"\r\n\r\n", 400),
		chunks("trailer of too many fields", "5\r\n12345\r\n0\r\n"+strings.Repeat("X-Sum: a\r\n", 200)+"\r\n", 400),
	}
}

func hopOddities() []oddity {
	hop := func(name, lines string, statuses ...int) oddity {
		return oddity{name, "hop", statuses, func(d *draft) {
			d.drop("Connection")
			d.add(lines)
		}}
	}
	expect := func(name, lines string, statuses ...int) oddity {
		return oddity{name, "message", statuses, func(d *draft) {
			d.method, d.mode = "POST", expecting
			if len(statuses) > 0 {
				d.mode = together
			}
			d.version, d.framing, d.body = "HTTP/1.1", framingLength, pattern(1+d.IntN(9000))
			d.add(lines)
		}}
	}
	return []oddity{
		hop("Connection close in another case", "Connection: CLOSE"),
		hop("Connection close in a list", "Connection: ,x-a ,\tclose,, \r\nX-A: 1"),
		hop("Connection on two lines", "Connection: keep-alive\r\nConnection: x-a\r\nX-A: 1\r\nx-a: 2"),
		hop("Connection keep-alive and close", "Connection: keep-alive\r\nConnection: close"),
		{"Connection close and keep-alive on HTTP/1.0", "hop message", nil, func(d *draft) {
			d.content(framingNone)
			d.method, d.version = "GET", "HTTP/1.0"
			d.drop("Connection")
			d.add("Connection: close, keep-alive")
		}},
		hop("Connection empty", "Connection:"),
		hop("Connection of bad tokens", "Connection: a b", 400),
		hop("Connection in quotes", "Connection: \"close\"", 400),
		hop("Connection names Host", "Connection: host", 400),
		hop("Connection names Content-Length", "Connection: close, content-length", 400),
		hop("Connection names Cookie", "Connection: Cookie", 400),
		hop("Connection names our own field", "Connection: X-Forwarded-For", 400),
		hop("Keep-Alive", "Keep-Alive: timeout=5\r\nConnection: Keep-Alive"),
		hop("Proxy-Connection", "Proxy-Connection: close"),
		hop("Proxy-Authorization", "Proxy-Authorization: Basic YTpi"),
		hop("TE of codings", "TE: gzip, trailers;q=0.5\r\nConnection: TE"),
		hop("TE trailers in a list", "TE: deflate, trailers\r\nConnection: TE"),
		hop("TE in another case", "te: Trailers\r\nConnection: te"),
		hop("Upgrade without Connection", "Upgrade: websocket"),
		hop("Upgrade h2c", "Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABkAAQAAP__"),
		hop("Upgrade that the origin ignores", "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13"),
		{"Upgrade to a tunnel", "message hop target", nil, func(d *draft) {
			d.content(framingNone)
			d.method, d.version, d.tunnel = "GET", "HTTP/1.1", true
			d.drop("Connection")
			d.add("Upgrade: echo", "Connection: keep-alive, Upgrade")
			d.plan.Set("upgrade", "1")
			d.plan.Del("bad")
		}},
		{"HTTP/1.0 and an answer that breaks off", "message target", nil, func(d *draft) {
			d.content(framingNone)
			d.method, d.version = "GET", "HTTP/1.0"
			d.plan.Set("bad", "chunk")
			d.plan.Set("size", "100000")
			d.plan.Set("status", "200")
			d.plan.Del("old")
			d.plan.Del("interim")
		}},
		{"Upgrade on HTTP/1.0", "message hop target", nil, func(d *draft) {
			d.content(framingNone)
			d.method, d.version = "GET", "HTTP/1.0"
			d.drop("Connection")
			d.add("Upgrade: echo", "Connection: Upgrade")
			d.plan.Set("upgrade", "1")
		}},
		expect("Expect", "Expect: 100-continue"),
		expect("Expect in another case", "expect: 100-Continue"),
		expect("Expect unknown", "Expect: 200-ok", 417),
		expect("Expect twice", "Expect: 100-continue\r\nExpect: 100-continue", 417),
		expect("Expect of a list", "Expect: 100-continue, other", 417),
		expect("Expect empty", "Expect:", 417),
		{"Expect without body", "message", nil, func(d *draft) { d.content(framingNone); d.method = "GET"; d.add("Expect: 100-continue") }},
		{"Expect on HTTP/1.0", "message", nil, func(d *draft) {
			d.method, d.version, d.framing, d.body, d.mode = "POST", "HTTP/1.0", framingLength, pattern(100), together
			d.add("Expect: 100-continue")
		}},
		{"Expect that the origin refuses", "message", nil, func(d *draft) {
			d.method, d.version, d.framing, d.body, d.mode = "POST", "HTTP/1.1", framingLength, pattern(5000), expecting
			d.add("Expect: 100-continue")
			d.plan.Set("refuse", "1")
			d.plan.Set("status", "413")
			d.plan.Del("bad")
		}},
		{"Expect and the body at once", "message", nil, func(d *draft) {
			d.method, d.version, d.framing, d.body, d.mode = "POST", "HTTP/1.1", framingLength, pattern(5000), together
			d.add("Expect: 100-continue")
		}},
	}
}
