package smug

import (
	"fmt"
	"strconv"
	"strings"
)

// hidden is the request that must never run.
const hidden = "GET /smuggled HTTP/1.1\r\nHost: " + Host + "\r\n\r\n"

// Cases gives the whole battery, HTTP/1 first. The order is stable.
func Cases() []Case {
	var all []Case
	for _, part := range [][]Case{
		baselineCases(), bothLengthsCases(), transferCodingCases(), contentLengthCases(),
		chunkCases(), fieldCases(), hostCases(), requestLineCases(), upgradeCases(),
		downgradeCases(),
	} {
		all = append(all, part...)
	}
	for i := range all {
		if all[i].Answers == 0 {
			all[i].Answers = 1
		}
	}
	return all
}

// get is a GET with the given field lines, each ended by CRLF.
func get(lines string) string {
	return "GET /c HTTP/1.1\r\nHost: " + Host + "\r\n" + lines + "\r\n"
}

// post is a POST; rest holds its further field lines, the empty line and the body.
func post(rest string) string {
	return "POST /c HTTP/1.1\r\nHost: " + Host + "\r\n" + rest
}

func chunked(body string) string {
	return post("Transfer-Encoding: chunked\r\n\r\n" + body)
}

// row is a case whose bytes differ from its neighbours' in one place.
type row struct {
	name string
	want Want
	rule string
	vary string
}

// expand makes the cases of a group: build places the varying part.
func expand(group string, rows []row, build func(vary string) string) []Case {
	cases := make([]Case, 0, len(rows))
	for _, r := range rows {
		cases = append(cases, Case{Name: group + "/" + r.name, Want: r.want, Rule: r.rule, Raw: build(r.vary)})
	}
	return cases
}

func asIs(raw string) string { return raw }

func baselineCases() []Case {
	cases := expand("baseline", []row{
		{"head", Serve, "RFC 9110 9.3.2", "HEAD /c HTTP/1.1\r\nHost: " + Host + "\r\n\r\n"},
		{"post-chunked", Serve, "RFC 9112 7.1", chunked("5\r\nhello\r\n0\r\n\r\n")},
		{"chunked-upper", Serve, "RFC 9112 7", post("Transfer-Encoding: Chunked\r\n\r\nA\r\n0123456789\r\n0\r\n\r\n")},
		{"chunk-size-leading0", Serve, "RFC 9112 7.1", chunked("0005\r\nhello\r\n000\r\n\r\n")},
		{"leading-crlf", Serve, "RFC 9112 2.2", "\r\n" + get("")},
		{"absolute-form", Serve, "RFC 9112 3.2.2", "GET http://" + Host + "/c HTTP/1.1\r\nHost: " + Host + "\r\n\r\n"},
		{"http10", Serve, "RFC 9112 2.3", "GET /c HTTP/1.0\r\nHost: " + Host + "\r\n\r\n"},
		{"http10-nohost", Either, "RFC 9112 3.2", "GET /c HTTP/1.0\r\n\r\n"},
		{"obs-text-value", Either, "RFC 9110 5.5", get("X-A: caf\xe9\r\n")},
		{"pipeline3", Serve, "RFC 9112 9.3.2", get("") + post("Content-Length: 3\r\n\r\nabc") + get("")},
		{"pipeline-chunked-get", Serve, "RFC 9112 9.3.2", chunked("3\r\nabc\r\n0\r\n\r\n") + get("")},
		{"trailer-ok", Serve, "RFC 9112 7.1.2", post("Transfer-Encoding: chunked\r\nTrailer: X-T\r\n\r\n3\r\nabc\r\n0\r\nX-T: 1\r\n\r\n")},
	}, asIs)
	for i := range cases {
		switch cases[i].Name {
		case "baseline/pipeline3":
			cases[i].Answers = 3
		case "baseline/pipeline-chunked-get":
			cases[i].Answers = 2
		}
	}
	return cases
}

// twoReadings is a POST whose Content-Length covers a hidden request that a
// reader of the chunked coding would find behind the last chunk.
func twoReadings(lines string) string {
	return post(fmt.Sprintf("Content-Length: %d\r\n%s\r\n\r\n0\r\n\r\n%s", len("0\r\n\r\n")+len(hidden), lines, hidden))
}

func bothLengthsCases() []Case {
	return expand("cl-te", []row{
		{"te.cl", Either, "RFC 9112 6.1", post("Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n" +
			"5c\r\nGPOST /smuggled HTTP/1.1\r\nContent-Length: 15\r\n\r\nx=1\r\n0\r\n\r\n")},
		{"te-first-cl0", Either, "RFC 9112 6.1", post("Transfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n5\r\nhello\r\n0\r\n\r\n")},
		{"te-http10", Refuse, "RFC 9112 6.1", "POST /c HTTP/1.0\r\nHost: " + Host + "\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"},
		{"cl.te-connection-te", Either, "RFC 9112 6.1", twoReadings("Transfer-Encoding: chunked\r\nConnection: Transfer-Encoding")},
		{"connection-host", Either, "RFC 9110 7.6.1", get("Connection: close, Host\r\n")},
	}, asIs)
}

// transferCodingCases disguise Transfer-Encoding. A Content-Length is there too,
// so that a reader who misses the disguise takes the other framing.
func transferCodingCases() []Case {
	const token, framing = "RFC 9110 5.1", "RFC 9112 6.1"
	return expand("te-obf", []row{
		{"space-colon", Refuse, "RFC 9112 5.1", "Transfer-Encoding : chunked"},
		{"vtab", Refuse, "RFC 9110 5.5", "Transfer-Encoding:\x0bchunked"},
		{"ff", Refuse, "RFC 9110 5.5", "Transfer-Encoding: \x0cchunked"},
		{"trailing-vt", Refuse, "RFC 9110 5.5", "Transfer-Encoding: chunked\x0b"},
		{"nul", Refuse, "RFC 9110 5.5", "Transfer-Encoding: chunked\x00"},
		{"bare-cr-mid", Refuse, "RFC 9112 2.2", "Transfer-Encoding: chu\rnked"},
		{"fold", Either, "RFC 9112 5.2", "Transfer-Encoding:\r\n chunked"},
		{"fold2", Either, "RFC 9112 5.2", "Transfer-Encoding: chunked\r\n , identity"},
		{"squoted", Refuse, framing, "Transfer-Encoding: 'chunked'"},
		{"comma-last", Either, "RFC 9110 5.6.1", "Transfer-Encoding: chunked,"},
		{"dup-identity-after", Refuse, framing, "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity"},
		{"dup-identity-before", Refuse, framing, "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked"},
		{"gzip-chunked", Either, framing, "Transfer-Encoding: gzip, chunked"},
		{"empty", Refuse, framing, "Transfer-Encoding:"},
		{"underscore", Either, "RFC 3875 4.1.18", "Transfer_Encoding: chunked"},
		{"utf8-k", Refuse, framing, "Transfer-Encoding: chun\xe2\x84\xaaed"},
		{"name-newline", Refuse, "RFC 9112 5", "Transfer-Encoding\r\n: chunked"},
		{"mid-space", Refuse, token, "Transfer Encoding: chunked"},
		{"backslash", Refuse, framing, "Transfer-Encoding: \\chunked"},
		{"nocolon", Refuse, "RFC 9112 5", "Transfer-Encoding chunked"},
		{"double-colon", Refuse, framing, "Transfer-Encoding:: chunked"},
		{"del", Refuse, "RFC 9110 5.5", "Transfer-Encoding: chunked\x7f"},
	}, twoReadings)
}

func contentLengthCases() []Case {
	const rule = "RFC 9110 8.6"
	both := strconv.Itoa(len("hello") + len(hidden))
	one := strconv.Itoa(len(hidden))
	cases := expand("cl-form", []row{
		{"minus0", Refuse, rule, "-0"},
		{"hex", Refuse, rule, "0x5"},
		{"exp", Refuse, rule, "5e0"},
		{"space-mid", Refuse, rule, "4 3"},
		{"trail-alpha", Refuse, rule, "5a"},
		{"comma-same", Either, rule, "43, 43"},
		{"comma-empty", Refuse, rule, "5,"},
		{"nul", Refuse, rule, "5\x00"},
		{"vt", Refuse, rule, "\x0b5"},
		{"huge", Refuse, rule, strings.Repeat("9", 400)},
	}, func(value string) string {
		return post("Content-Length: " + value + "\r\n\r\nhello" + hidden)
	})
	return append(cases, expand("cl-form", []row{
		{"leading-zeros", Either, rule, post("Content-Length: 0005\r\n\r\nhello")},
		{"dup-diff", Refuse, "RFC 9112 6.3", post("Content-Length: 5\r\nContent-Length: " + both + "\r\n\r\nhello" + hidden)},
		{"dup-diff-rev", Refuse, "RFC 9112 6.3", post("Content-Length: " + both + "\r\nContent-Length: 5\r\n\r\nhello" + hidden)},
		{"tab-colon", Refuse, "RFC 9112 5.1", post("Content-Length\t: " + one + "\r\n\r\n" + hidden)},
		{"underscore-alone", Either, "RFC 3875 4.1.18", get("Content_Length: 0\r\n")},
		{"get-cl-smuggle", Either, "RFC 9110 9.3.1", "GET /c HTTP/1.1\r\nHost: " + Host + "\r\nContent-Length: " + one + "\r\n\r\n" + hidden},
		{"delete-cl", Serve, "RFC 9110 9.3.5", "DELETE /c HTTP/1.1\r\nHost: " + Host + "\r\nContent-Length: 5\r\n\r\nhello"},
	}, asIs)...)
}

func chunkCases() []Case {
	const size, data, ext, trailer = "RFC 9112 7.1", "RFC 9112 7.1", "RFC 9112 7.1.1", "RFC 9112 7.1.2"
	const end = "0\r\n\r\n"
	return expand("chunk", []row{
		{"size-plus", Refuse, size, "+5\r\nhello\r\n" + end},
		{"size-empty", Refuse, size, "\r\nhello\r\n" + end},
		{"size-space-after", Either, size, "5 \r\nhello\r\n" + end},
		{"size-tab-after", Either, size, "5\t\r\nhello\r\n" + end},
		{"size-underscore", Refuse, size, "0_5\r\nhello\r\n" + end},
		{"size-overflow64", Refuse, size, "10000000000000005\r\nhello\r\n" + end},
		{"size-vt", Refuse, size, "5\x0b\r\nhello\r\n" + end},
		{"size-float", Refuse, size, "5.0\r\nhello\r\n" + end},
		{"lf-after-size", Refuse, size, "5\nhello\r\n" + end},
		{"lf-after-data", Refuse, data, "5\r\nhello\n" + end},
		{"no-crlf-after-data", Refuse, data, "5\r\nhello" + end},
		{"xx-after-data", Refuse, data, "5\r\nhelloXX" + end},
		{"extra-after-data", Refuse, data, "5\r\nhelloX\r\n" + end},
		{"ext-lf", Refuse, ext, "5;a\nhello\r\n" + end},
		{"ext-bare-cr", Refuse, ext, "5;a\rb\r\nhello\r\n" + end},
		{"ext-ctl", Refuse, ext, "5;a=\x01\r\nhello\r\n" + end},
		{"ext-noname", Either, ext, "5;\r\nhello\r\n" + end},
		{"ext-spaces", Either, ext, "5 ; a = b\r\nhello\r\n" + end},
		{"trailer-cl", Either, "RFC 9110 6.5.1", "5\r\nhello\r\n0\r\nContent-Length: 5\r\n\r\n"},
		{"trailer-bad-name", Refuse, trailer, "5\r\nhello\r\n0\r\nX Bad: 1\r\n\r\n"},
		{"trailer-nul", Refuse, "RFC 9110 5.5", "5\r\nhello\r\n0\r\nX: a\x00b\r\n\r\n"},
		{"trailer-64k", Either, "RFC 9110 5.4", "5\r\nhello\r\n0\r\nX: " + strings.Repeat("a", 65536) + "\r\n\r\n"},
	}, chunked)
}
