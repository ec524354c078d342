package main

import (
	"bufio"
	"errors"
	"io"
	"math/rand/v2"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"

	"github.com/relais-edge/relais/internal/edge/waf/regression"
)

func TestTheStageLetsShoppersPassAndRefusesAttacks(t *testing.T) {
	b, err := newStage(0).level(1)
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range kinds {
		if _, denied, err := b.ask(requestsOf(k.name, 0, 8)); err != nil || denied > 0 {
			t.Errorf("%s: %d refused, %v", k.name, denied, err)
		}
	}
	if all, clean := b.proved(); all != 8*len(kinds) || clean != all {
		t.Errorf("%d of %d proved clean", clean, all)
	}
	attack := requestsOf("page", 0, 1)
	attack[0].Target += "&q=1'%20UNION%20SELECT%20password%20FROM%20users--%20-"
	if _, denied, err := b.ask(attack); err != nil || denied != 1 {
		t.Errorf("the attack: %d refused, %v", denied, err)
	}
}

func TestHostileRequestsAreMade(t *testing.T) {
	cases, err := regression.Cases()
	if err != nil {
		t.Fatal(err)
	}
	for i, h := range hostile {
		a := &attacker{rand.New(rand.NewPCG(uint64(i), 1)), cases}
		first, second := h.make(a), h.make(a)
		if first.Method == "" || h.name != "attacks" && string(messageOf(&first)) == string(messageOf(&second)) {
			t.Errorf("%s: %q, then %q", h.name, messageOf(&first), messageOf(&second))
		}
	}
}

func TestFramingDeliversWhatHTTPReads(t *testing.T) {
	for _, c := range []struct {
		fields, body, want string
		ok                 bool
	}{
		{"", "abc", "", true},
		{"Content-Length: 2", "abc", "ab", true},
		{"content-length: 3", "abc", "abc", true},
		{"Content-Length: 4", "abc", "abc", false},
		{"Content-Length: x", "abc", "abc", false},
		{"Content-Length: 3|Content-Length: 3", "abc", "abc", false},
		{"Transfer-Encoding: chunked", "3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n", "abcde", true},
		{"Transfer-Encoding: chunked", "3\r\nab", "3\r\nab", false},
		{"Transfer-Encoding: chunked", "abc", "abc", false},
		{"Transfer-Encoding: gzip", "abc", "abc", false},
		{"Transfer-Encoding: chunked|Content-Length: 3", "0\r\n\r\n", "0\r\n\r\n", false},
	} {
		q := regression.Case{Body: c.body}
		for f := range strings.SplitSeq(c.fields, "|") {
			if k, v, ok := strings.Cut(f, ": "); ok {
				q.Fields = append(q.Fields, regression.Field{Name: k, Value: v})
			}
		}
		if got, ok := framed(&q); got != c.want || ok != c.ok {
			t.Errorf("%q %q: %q %v", c.fields, c.body, got, ok)
		}
	}
}

func TestAnswersAreTheOriginsOrTheServers(t *testing.T) {
	o := "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nX-Origin: yes\r\nContent-Length: 2\r\n\r\nab" +
		"HTTP/1.1 403 Forbidden\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\nHTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n"
	in := bufio.NewReader(strings.NewReader(o))
	for _, want := range []answer{{200, true, false}, {403, false, false}, {400, false, true}} {
		if got, err := readAnswer(in, "GET"); err != nil || got != want {
			t.Errorf("%+v %v, want %+v", got, err, want)
		}
	}
	if _, err := readAnswer(in, "GET"); err != io.EOF {
		t.Error(err)
	}
}

func TestTallyLeavesEarlyRefusalsOut(t *testing.T) {
	cases := make([]regression.Case, 5)
	for i := range cases {
		cases[i].Name = string(rune('a' + i))
	}
	got := tally(cases, []verdict{denied, passed, denied, passed, denied},
		[]outcome{{denied, ""}, {passed, ""}, {passed, ""}, {denied, ""}, {early, "400"}})
	if got.compared != 4 || got.agree != 2 || strings.Join(got.loose, "") != "c" || strings.Join(got.strict, "") != "d" || got.early["400"] != 1 {
		t.Errorf("%+v", got)
	}
}

func TestALineIsShortBelowItsGoalOrWithoutAFigure(t *testing.T) {
	r := &report{}
	r.most("a", 1.10, 1.10, "%.2f", "p")
	r.least("b", 70, 70, "%.0f", "p")
	var out strings.Builder
	if r.lines(&out) || strings.Count(out.String(), " ok") != 2 {
		t.Error(out.String())
	}
	r.most("c", 1.11, 1.10, "%.2f", "p")
	if !r.lines(&out) {
		t.Error("above the goal is ok")
	}
	r = &report{}
	r.missing("d", errors.New("not there"))
	if !r.lines(&out) {
		t.Error("what is missing is ok")
	}
}

func TestRatiosAreOfTheSameRound(t *testing.T) {
	ours, peer := contender{micro: []float64{1, 10, 2}}, contender{micro: []float64{100, 1000, 400}}
	if got := ours.times(&peer); got != 100 {
		t.Error(got)
	}
	if median([]float64{4, 1, 3, 2}) != 2.5 || median(nil) != 0 {
		t.Error("median")
	}
}

func TestFlagsThatMeanNothingAreRefused(t *testing.T) {
	for _, args := range [][]string{{"-parts", "x"}, {"-rounds", "0"}, {"y"}} {
		if _, err := parse(args); err == nil {
			t.Errorf("%q is taken", args)
		}
	}
	s, err := parse([]string{"-parts", "cost,sites"})
	if err != nil || len(s.parts) != 2 {
		t.Errorf("%+v %v", s, err)
	}
}

// TestFirstContactIsFromAnotherSourceEachTime: who repeats is screened no more after some in vain, who is new always.
func TestFirstContactIsFromAnotherSourceEachTime(t *testing.T) {
	attack := requestsOf("page", 0, 24)
	for i := range attack {
		attack[i].Target += "&q=1'%20UNION%20SELECT%20password%20FROM%20users--%20-"
	}
	for _, first := range []bool{false, true} {
		b, err := newStage(0).level(1)
		if err != nil {
			t.Fatal(err)
		}
		if first {
			b.client = netip.Addr{}
		}
		if _, denied, err := b.ask(attack); err != nil || denied != len(attack) {
			t.Errorf("%d refused, %v", denied, err)
		}
		w := httptest.NewRecorder()
		b.reg.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
		if screened := strings.Contains(w.Body.String(), `relais_waf_screen_total{verdict="matched"} 24`); screened != first {
			t.Errorf("first contact %v: all screened is %v", first, screened)
		}
	}
}
