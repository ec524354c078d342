package smug

import (
	"slices"
	"strings"
	"testing"
)

func TestTheBatteryIsWhole(t *testing.T) {
	want := map[string]int{
		"baseline": 12, "cl-te": 5, "te-obf": 22, "cl-form": 17, "chunk": 22, "header": 26,
		"host": 15, "reqline": 25, "http09": 1, "upgrade": 3, "h2-downgrade": 45,
	}
	got := map[string]int{}
	names := map[string]bool{}
	for _, c := range Cases() {
		got[c.Group()]++
		if names[c.Name] {
			t.Errorf("%s: name used twice", c.Name)
		}
		names[c.Name] = true
		if strings.ContainsAny(c.Name, " \t\n") {
			t.Errorf("%q: a name with space breaks the score file", c.Name)
		}
		if !strings.HasPrefix(c.Rule, "RFC ") {
			t.Errorf("%s: rule %q names no RFC", c.Name, c.Rule)
		}
		if (c.Raw == "") == (c.H2 == nil) {
			t.Errorf("%s: wants exactly one of Raw and H2", c.Name)
		}
		if c.Want != Serve && c.Want != Refuse && c.Want != Either {
			t.Errorf("%s: want %v", c.Name, c.Want)
		}
	}
	total := 0
	for group, n := range want {
		total += n
		if got[group] != n {
			t.Errorf("group %s has %d cases, want %d", group, got[group], n)
		}
	}
	if len(names) != total || total != 193 {
		t.Errorf("%d cases, want 193", len(names))
	}
}

func TestJudge(t *testing.T) {
	clean := Record{Requests: []string{"GET /c HTTP/1.1"}}
	dirty := Record{Requests: []string{"GET /c HTTP/1.1"}, Findings: []string{"cl+te"}}
	ran := Record{Requests: []string{"POST /c HTTP/1.1", "GET /smuggled HTTP/1.1"}}
	for _, tt := range []struct {
		name     string
		want     Want
		statuses []int
		rec      Record
		verdict  Verdict
	}{
		{"served as wanted", Serve, []int{200}, clean, Pass},
		{"refused although valid", Serve, []int{400}, Record{}, Fail},
		{"no answer although valid", Serve, nil, Record{}, Fail},
		{"refused as wanted", Refuse, []int{400}, Record{}, Pass},
		{"closed without an answer", Refuse, nil, Record{}, Pass},
		{"served although invalid", Refuse, []int{200}, clean, Fail},
		{"0.9 answer although invalid", Refuse, []int{Garbage}, clean, Fail},
		{"either served", Either, []int{200}, clean, Pass},
		{"either refused", Either, []int{501}, Record{}, Pass},
		{"forwarded dirty and served", Either, []int{200}, dirty, Forwarded},
		{"forwarded dirty, answer refused", Refuse, []int{502}, dirty, Forwarded},
		{"hidden request at the origin", Either, []int{200}, ran, Smuggled},
		{"one answer too many", Either, []int{200, 200}, clean, Smuggled},
		{"refusal as second answer", Either, []int{200, 400}, clean, Pass},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := judge(Case{Name: "group/case", Want: tt.want, Answers: 1}, exchange{statuses: tt.statuses}, tt.rec)
			if r.Verdict != tt.verdict {
				t.Errorf("verdict %s (%s), want %s", r.Verdict, r.Why, tt.verdict)
			}
		})
	}
}

func TestFinalStatuses(t *testing.T) {
	const ok = "HTTP/1.1 200 OK\r\n"
	for _, tt := range []struct {
		name, wire string
		bodyless   bool
		want       []int
	}{
		{"nothing", "", false, nil},
		{"one", ok + "Content-Length: 3\r\n\r\nabc", false, []int{200}},
		{"two", ok + "content-length: 3\r\n\r\nabcHTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", false, []int{200, 404}},
		{"interim is not final", "HTTP/1.1 100 Continue\r\n\r\n" + ok + "Content-Length: 0\r\n\r\n", false, []int{200}},
		{"chunked, then one more", ok + "Transfer-Encoding: chunked\r\n\r\n5;x\r\n0\r\n\r\n\r\n0\r\nA: b\r\n\r\n" + ok + "Content-Length: 0\r\n\r\n", false, []int{200, 200}},
		{"chunked, unfinished", ok + "Transfer-Encoding: chunked\r\n\r\n5\r\nab", false, []int{200}},
		{"HEAD has a length and no body", ok + "Content-Length: 9\r\n\r\n" + ok + "Content-Length: 9\r\n\r\n", true, []int{200, 200}},
		{"304 has no body", "HTTP/1.1 304 Not Modified\r\n\r\n" + ok + "Content-Length: 0\r\n\r\n", false, []int{304, 200}},
		{"body to the end", ok + "\r\nHTTP/1.1 200 OK\r\n\r\n", false, []int{200}},
		{"head not whole", ok + "Content-Le", false, nil},
		{"half a version", "HTT", false, nil},
		{"HTTP/0.9", "b=0", false, []int{Garbage}},
		{"text behind an answer", ok + "Content-Length: 0\r\n\r\nxx", false, []int{200}},
		{"short status line", "HTTP/1.1\r\n\r\n", false, []int{0}},
		{"length that lies", ok + "Content-Length: 99999999999999999999\r\n\r\nab", false, []int{200}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := finalStatuses([]byte(tt.wire), tt.bodyless); !slices.Equal(got, tt.want) {
				t.Errorf("statuses %v, want %v", got, tt.want)
			}
		})
	}
}

func TestFirstStatus(t *testing.T) {
	for _, tt := range []struct {
		name, block string
		want        int
	}{
		{"empty", "", 0},
		{"indexed 200", "\x88", 200},
		{"indexed 404", "\x8d\x88", 404},
		{"indexed, other name", "\x82", 0},
		{"after a table size update", "\x3f\xe1\x1f\x8c", 400},
		{"RFC 7541 C.5.1: literal 302, indexed", "\x48\x03302", 302},
		{"RFC 7541 C.6.1: literal 302, Huffman", "\x48\x82\x64\x02", 302},
		{"RFC 7541 C.6.2: literal 307, Huffman", "\x48\x83\x64\x0e\xff", 307},
		{"literal 502, not indexed", "\x08\x03502", 502},
		{"literal name", "\x00\x07:status\x03431", 431},
		{"other name first", "\x00\x01a\x03200", 0},
		{"value cut off", "\x08\x0350", 0},
		{"value is no number", "\x08\x0320x", 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := firstStatus([]byte(tt.block)); got != tt.want {
				t.Errorf("status %d, want %d", got, tt.want)
			}
		})
	}
}

func FuzzAnswerParsers(f *testing.F) {
	f.Add([]byte("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n7fffffff\r\nx"))
	f.Add([]byte("\x48\x82\x64\x02"))
	f.Add([]byte("\x3f\xff\xff\xff\xff\xff\xff"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if n := len(finalStatuses(b, false)); n > len(b)/4+1 {
			t.Errorf("%d answers in %d bytes", n, len(b))
		}
		if s := firstStatus(b); s < 0 || s > 999 {
			t.Errorf("status %d", s)
		}
	})
}
