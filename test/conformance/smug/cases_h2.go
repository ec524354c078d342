package smug

// The requests of this file come over HTTP/2 and must not turn into something
// else when they are written out as HTTP/1.

// injected ends a field and starts a hidden request where CR and LF pass.
const injected = "x\r\nTransfer-Encoding: chunked\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"

// behindLastChunk is a body that ends early for a reader of the chunked coding.
const behindLastChunk = "0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"

// h2Row is a request that differs from a plain POST in a few fields.
type h2Row struct {
	name    string
	want    Want
	rule    string
	set     []Field // replaces a pseudo-header of the plain request
	add     []Field // follows its fields
	body    string
	trailer []Field
}

func downgradeCases() []Case {
	var cases []Case
	add := func(name string, want Want, rule string, r *Request) {
		cases = append(cases, Case{Name: "h2-downgrade/" + name, Want: want, Rule: rule, H2: r})
	}
	for _, rows := range [][]h2Row{h2LengthRows(), h2ConnectionRows(), h2PseudoRows(), h2FieldRows()} {
		for _, r := range rows {
			add(r.name, r.want, r.rule, &Request{Fields: plainPost(r.set, r.add), Body: r.body, Trailer: r.trailer})
		}
	}
	for _, r := range h2OwnFieldRows() {
		add(r.name, r.want, r.rule, &Request{Fields: r.add})
	}
	return cases
}

func plainPost(set, add []Field) []Field {
	fields := []Field{{":method", "POST"}, {":scheme", "http"}, {":authority", Host}, {":path", "/c"}}
	for _, s := range set {
		for i := range fields {
			if fields[i].Name == s.Name {
				fields[i].Value = s.Value
			}
		}
	}
	return append(fields, add...)
}

func h2LengthRows() []h2Row {
	const rule = "RFC 9113 8.1.1"
	return []h2Row{
		{name: "ok-cl", want: Serve, rule: rule, add: []Field{{"content-length", "5"}}, body: "hello"},
		{name: "cl-long", want: Refuse, rule: rule, add: []Field{{"content-length", "50"}}, body: "hello"},
		{name: "cl-dup-same", want: Either, rule: "RFC 9110 8.6", add: []Field{{"content-length", "5"}, {"content-length", "5"}}, body: "hello"},
		{name: "cl-dup-diff", want: Refuse, rule: "RFC 9110 8.6", add: []Field{{"content-length", "5"}, {"content-length", "6"}}, body: "hello"},
		{name: "cl-plus", want: Refuse, rule: "RFC 9110 8.6", add: []Field{{"content-length", "+5"}}, body: "hello"},
	}
}

func h2ConnectionRows() []h2Row {
	const rule = "RFC 9113 8.2.2"
	return []h2Row{
		{name: "te-chunked", want: Refuse, rule: rule, add: []Field{{"transfer-encoding", "chunked"}}, body: behindLastChunk},
		{name: "te-upper-name", want: Refuse, rule: "RFC 9113 8.2.1", add: []Field{{"Transfer-Encoding", "chunked"}}, body: behindLastChunk},
		{name: "te-trailers", want: Serve, rule: rule, add: []Field{{"te", "trailers"}}, body: "hello"},
		{name: "te-gzip", want: Refuse, rule: rule, add: []Field{{"te", "gzip"}}, body: "hello"},
		{name: "connection", want: Refuse, rule: rule, add: []Field{{"connection", "close"}}, body: "hello"},
		{name: "keep-alive", want: Refuse, rule: rule, add: []Field{{"keep-alive", "1"}}, body: "hello"},
		{name: "proxy-connection", want: Refuse, rule: rule, add: []Field{{"proxy-connection", "x"}}, body: "hello"},
		{name: "upgrade", want: Refuse, rule: rule, add: []Field{{"upgrade", "h2c"}}, body: "hello"},
		{name: "expect-continue", want: Either, rule: "RFC 9110 10.1.1", add: []Field{{"expect", "100-continue"}}, body: "hello"},
		{name: "trailer-te", want: Refuse, rule: rule, body: "hello", trailer: []Field{{"transfer-encoding", "chunked"}}},
		{name: "trailer-crlf", want: Refuse, rule: "RFC 9113 8.2.1", body: "hello", trailer: []Field{{"x-a", "b\r\nX: y"}}},
	}
}

func h2PseudoRows() []h2Row {
	const rule, chars = "RFC 9113 8.3.1", "RFC 9113 8.2.1"
	return []h2Row{
		{name: "cr-in-:authority", want: Refuse, rule: chars, set: []Field{{":authority", "/x\rfoo"}}},
		{name: "cr-in-:scheme", want: Refuse, rule: chars, set: []Field{{":scheme", "/x\rfoo"}}},
		{name: "crlf-in-:method", want: Refuse, rule: chars, set: []Field{{":method", "/" + injected}}},
		{name: "empty-:authority", want: Refuse, rule: rule, set: []Field{{":authority", ""}}},
		{name: "empty-:path", want: Refuse, rule: rule, set: []Field{{":path", ""}}},
		{name: "lf-in-:scheme", want: Refuse, rule: chars, set: []Field{{":scheme", "/x\nGET /smuggled"}}},
		{name: "nul-in-:authority", want: Refuse, rule: chars, set: []Field{{":authority", "/x\x00y"}}},
		{name: "sp-in-:path", want: Refuse, rule: rule, set: []Field{{":path", "/x HTTP/1.1"}}},
		{name: "tab-in-:method", want: Refuse, rule: rule, set: []Field{{":method", "/x\ty"}}},
		{name: "unknown-pseudo", want: Refuse, rule: "RFC 9113 8.3", add: []Field{{":foo", "c"}}},
		{name: "status-pseudo", want: Refuse, rule: "RFC 9113 8.3", add: []Field{{":status", "200"}}},
		{name: "dup-method", want: Refuse, rule: "RFC 9113 8.3", add: []Field{{":method", "GET"}}},
		{name: "path-star-post", want: Refuse, rule: rule, set: []Field{{":path", "*"}}},
		{name: "path-fragment", want: Either, rule: rule, set: []Field{{":path", "/c#f"}}},
		{name: "method-lower", want: Either, rule: "RFC 9110 9.1", set: []Field{{":method", "get"}}},
	}
}

func h2FieldRows() []h2Row {
	const rule = "RFC 9113 8.2.1"
	cookies := make([]Field, 500)
	for i := range cookies {
		cookies[i] = Field{"cookie", "a=b"}
	}
	return []h2Row{
		{name: "crlf-in-value", want: Refuse, rule: rule, add: []Field{{"x-a", injected}}},
		{name: "cr-in-value", want: Refuse, rule: rule, add: []Field{{"x-a", "b\rc"}}},
		{name: "nul-in-value", want: Refuse, rule: rule, add: []Field{{"x-a", "b\x00c"}}},
		{name: "crlf-in-name", want: Refuse, rule: rule, add: []Field{{"x-a: b\r\ntransfer-encoding", "chunked"}}},
		{name: "sp-in-name", want: Refuse, rule: rule, add: []Field{{"x a", "c"}}},
		{name: "nul-in-name", want: Refuse, rule: rule, add: []Field{{"x\x00a", "c"}}},
		{name: "high-in-name", want: Refuse, rule: rule, add: []Field{{"x\xffa", "c"}}},
		{name: "empty-name", want: Refuse, rule: rule, add: []Field{{"", "c"}}},
		{name: "many-cookies", want: Either, rule: "RFC 9113 8.2.3", add: cookies},
	}
}

// h2OwnFieldRows do not start from the plain POST.
func h2OwnFieldRows() []h2Row {
	const rule = "RFC 9113 8.3.1"
	return []h2Row{
		{name: "pseudo-after", want: Refuse, rule: "RFC 9113 8.3", add: []Field{{":method", "POST"}, {"x-a", "b"}, {":scheme", "http"}, {":authority", Host}, {":path", "/c"}}},
		{name: "no-method", want: Refuse, rule: rule, add: []Field{{":scheme", "http"}, {":authority", Host}, {":path", "/c"}}},
		{name: "no-auth-no-host", want: Either, rule: rule, add: []Field{{":method", "GET"}, {":scheme", "http"}, {":path", "/c"}}},
		{name: "host-dup", want: Refuse, rule: "RFC 9110 7.2", add: []Field{{":method", "GET"}, {":scheme", "http"}, {":path", "/c"}, {"host", "a"}, {"host", "b"}}},
		{name: "connect-with-path", want: Refuse, rule: "RFC 9113 8.5", add: []Field{{":method", "CONNECT"}, {":scheme", "http"}, {":authority", Host + ":443"}, {":path", "/c"}}},
	}
}
