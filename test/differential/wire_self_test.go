package differential

import (
	"bufio"
	"errors"
	"strings"
	"testing"
)

func reader(s string) *bufio.Reader { return bufio.NewReader(strings.NewReader(s)) }

func TestTheReaderOfAnswersIsStrict(t *testing.T) {
	tests := []struct {
		name, bytes, method string
		breach              bool
		whole               bool
		framing             string
	}{
		{"length", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab", "GET", false, true, framingLength},
		{"length, short", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab", "GET", false, false, framingLength},
		{"chunked", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n", "GET", false, true, framingChunked},
		{"chunked, without the last", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n", "GET", false, false, framingChunked},
		{"close", "HTTP/1.1 200 OK\r\n\r\nab", "GET", false, true, framingClose},
		{"HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n", "HEAD", false, true, framingNone},
		{"304", "HTTP/1.1 304 Not Modified\r\n\r\n", "GET", false, true, framingNone},
		{"interim", "HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n", "GET", false, true, framingNone},
		{"both framings", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n", "GET", true, false, ""},
		{"two lengths", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nab", "GET", true, false, ""},
		{"length with 204", "HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n", "GET", true, false, ""},
		{"length with 103", "HTTP/1.1 103 Early Hints\r\nContent-Length: 0\r\n\r\n", "GET", true, false, ""},
		{"bare LF", "HTTP/1.1 200 OK\nContent-Length: 2\r\n\r\nab", "GET", true, false, ""},
		{"fold", "HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n", "GET", true, false, ""},
		{"control byte", "HTTP/1.1 200 OK\r\nA: \x01\r\n\r\n", "GET", true, false, ""},
		{"status line", "HTTP/1.1 2000 OK\r\n\r\n", "GET", true, false, ""},
		{"chunk extension", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;a\r\nab\r\n0\r\n\r\n", "GET", true, false, framingChunked},
		{"chunk end", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nabcd0\r\n\r\n", "GET", true, false, framingChunked},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a, err := readAnswer(reader(tt.bytes), tt.method, func(int) {})
			var w *wireError
			if errors.As(err, &w) != tt.breach || a.whole != tt.whole || a.framing != tt.framing {
				t.Errorf("error %v, whole %v, framing %q", err, a.whole, a.framing)
			}
		})
	}
}

func TestTheOriginSeesAmbiguousRequests(t *testing.T) {
	for _, head := range []string{
		"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
		"GET / HTTP/1.1\r\n\r\n",
		"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n",
		"GET / HTTP/1.0\r\nHost: a\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\na",
		"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n0\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: a\r\nX : b\r\n\r\n",
	} {
		var w *wireError
		if _, err := readRequest(reader(head), func(*request) {}); !errors.As(err, &w) {
			t.Errorf("%q: %v", head, err)
		}
	}
}

// planted is a pair of equal reactions to a plain request.
func planted() *pair {
	side := func() *reaction {
		return &reaction{
			answers: []*answer{{
				version: "HTTP/1.1", status: 200, reason: "OK", content: content{framing: framingLength, body: []byte("ab"), whole: true},
				fields: fields{{"x-from", "1"}, {"a", "1"}, {"a", "2"}, {"x-request-id", "x"}, {"date", "Sun, 22 Nov 2026 22:06:13 GMT"}},
			}},
			asked: []*request{{method: "GET", target: "/", fields: fields{{"x-case", "0.first"}, {"b", "1"}}, content: content{framing: framingNone, whole: true}}},
		}
	}
	return &pair{kase: &kase{method: "GET", version: "HTTP/1.1", mode: together}, own: side(), std: side()}
}

func TestAPlantedDifferenceIsFoundAndCoveredByNoRule(t *testing.T) {
	tests := []struct {
		aspect string
		plant  func(re *reaction)
	}{
		{"verdict", func(re *reaction) { re.answers = nil; re.asked = nil }},
		{"answers", func(re *reaction) { re.answers = append(re.answers, re.answers[0]) }},
		{"status", func(re *reaction) { re.answers[0].status = 203 }},
		{"version", func(re *reaction) { re.answers[0].version = "HTTP/1.0" }},
		{"framing", func(re *reaction) { re.answers[0].framing = framingChunked }},
		{"body", func(re *reaction) { re.answers[0].body = []byte("ac") }},
		{"field a", func(re *reaction) { re.answers[0].fields[1].value = "2"; re.answers[0].fields[2].value = "1" }},
		{"field c", func(re *reaction) { re.answers[0].fields = append(re.answers[0].fields, line{"c", ""}, line{"c", ""}) }},
		{"trailer c", func(re *reaction) { re.answers[0].trailer = fields{{"c", "1"}} }},
		{"interim", func(re *reaction) { re.answers[0].interim = []interim{{103, nil}} }},
		{"origin: requests", func(re *reaction) { re.asked = append(re.asked, re.asked[0]) }},
		{"origin: target", func(re *reaction) { re.asked[0].target = "/a" }},
		{"origin: body", func(re *reaction) { re.asked[0].body = []byte("a") }},
		{"origin: field b", func(re *reaction) { re.asked[0].fields[1].value = "2" }},
	}
	p := planted()
	if p.compare(); len(p.differs) > 0 {
		t.Fatalf("equal reactions differ: %v", p.differs)
	}
	rules := known()
	for _, tt := range tests {
		for _, own := range []bool{true, false} {
			p := planted()
			if own {
				tt.plant(p.own)
			} else {
				tt.plant(p.std)
			}
			p.compare()
			left := uncovered(p, rules, make([]int, len(rules)))
			if len(left) == 0 || left[0].aspect != tt.aspect {
				t.Errorf("%s in own=%v: found %v, uncovered %v", tt.aspect, own, p.differs, left)
			}
		}
	}
}

func TestABrokenInvariantIsFound(t *testing.T) {
	tests := map[string]func(c *kase, re *reaction){
		"two answers":      func(_ *kase, re *reaction) { re.answers = append(re.answers, re.answers[0]) },
		"no request id":    func(_ *kase, re *reaction) { re.answers[0].fields[3].name = "z" },
		"no date":          func(_ *kase, re *reaction) { re.answers[0].fields[4].name = "z" },
		"no Proxy-Status":  func(_ *kase, re *reaction) { re.answers[0].fields[0].name = "z"; re.asked = nil },
		"refused and sent": func(_ *kase, re *reaction) { re.answers[0].fields[0].name = "proxy-status"; re.answers[0].status = 400 },
		"smuggled":         func(_ *kase, re *reaction) { re.asked[0].fields[0].value = "0.smuggled" },
		"asked twice":      func(_ *kase, re *reaction) { re.asked = append(re.asked, re.asked[0]) },
		"breach":           func(_ *kase, re *reaction) { re.breach = "x" },
		"hung":             func(_ *kase, re *reaction) { re.hung = true },
		"another body":     func(c *kase, re *reaction) { c.framing, c.body = framingLength, []byte("x") },
	}
	if p := planted(); len(p.invariants(p.own, true)) > 0 {
		t.Fatal(p.invariants(p.own, true))
	}
	for name, plant := range tests {
		p := planted()
		plant(p.kase, p.own)
		if len(p.invariants(p.own, true)) == 0 {
			t.Errorf("%s was not found", name)
		}
	}
}
