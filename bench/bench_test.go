package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestParseLoad(t *testing.T) {
	r, err := parseLoad([]byte("Running 1s test\n  80 requests in 1.00s\n\nresult 80 1000000 99 1 2 3 4 5 250\n"))
	if err != nil {
		t.Fatal(err)
	}
	if r.requests != 80 || r.elapsed.Seconds() != 1 || r.errors != 10 || r.badStatus != 5 || r.p50 != 250 {
		t.Errorf("parsed %+v", r)
	}
	for _, bad := range []string{"", "unable to connect", "\nresult 1 2", "\nresult 0 1000000 0 9 0 0 0 0 0\n", "\nresult x 1 1 1 1 1 1 1 1\n"} {
		if _, err := parseLoad([]byte(bad)); err == nil {
			t.Errorf("%q taken for a result", bad)
		}
	}
}

func TestMedianIsOfEachFigureAndAddsErrors(t *testing.T) {
	m := median([]sample{
		{CPUMicros: 9, PerSecond: 1, SocketErrors: 1},
		{CPUMicros: 1, PerSecond: 3, BadStatus: 2},
		{CPUMicros: 5, PerSecond: 2},
		{CPUMicros: 6, PerSecond: 10},
	})
	if m.CPUMicros != 5.5 || m.PerSecond != 2.5 || m.BadStatus != 2 || m.SocketErrors != 1 {
		t.Errorf("median %+v", m)
	}
	if m := median(nil); m != (sample{}) {
		t.Errorf("median of nothing %+v", m)
	}
}

func TestAWrongAnswerIsVoidNotFast(t *testing.T) {
	good := sample{LogBytes: 80, OriginShare: 1}
	hit := sample{LogBytes: 80}
	for _, tt := range []struct {
		name   string
		cached bool
		s      sample
		void   string
	}{
		{"proxied", false, good, ""},
		{"hit", true, hit, ""},
		{"bad status", true, sample{LogBytes: 80, BadStatus: 1}, "1 answers of 400"},
		{"socket error", true, sample{LogBytes: 80, SocketErrors: 3}, "3 socket errors"},
		{"no hit", true, good, "no cache hit"},
		{"hit in place of a proxied request", false, hit, "reached the backend"},
		{"no access log", true, sample{}, "access log"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := benchCase{cached: tt.cached}.verdict(tt.s)
			if (tt.void == "") != (got == "") || !strings.Contains(got, tt.void) {
				t.Errorf("verdict %q, want %q", got, tt.void)
			}
		})
	}
}

func measured(name string, cpu float64, void string) rowResult {
	return rowResult{Name: name, Void: void, Median: sample{CPUMicros: cpu}, Samples: []sample{{CPUMicros: cpu}}}
}

func TestGoals(t *testing.T) {
	all := func(string) bool { return true }
	for _, tt := range []struct {
		name   string
		rows   []rowResult
		wanted func(string) bool
		line   string
		short  bool
	}{
		{"reached", []rowResult{measured("nginx", 12.4, ""), measured("relais", 8, "")}, all, "bench-tls1k/nginx  measured 1.55  goal 1.15  peer nginx 12.4us vs 8.0us  ok", false},
		{"missed", []rowResult{measured("nginx", 10, ""), measured("relais", 10, "")}, all, "measured 1.00  goal 1.15  peer nginx 10.0us vs 10.0us  short", true},
		{"void is not fast", []rowResult{measured("nginx", 12, ""), measured("relais", 1, "404")}, all, "not measured  goal 1.15  peer nginx  short", true},
		{"peer void", []rowResult{measured("nginx", 12, "x"), measured("relais", 1, "")}, all, "short", true},
		{"left out", []rowResult{measured("nginx", 12, "")}, func(r string) bool { return r == "nginx" }, "left out by -only", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var out bytes.Buffer
			short := check(&out, map[string]*caseResult{"tls1k": {Rows: tt.rows}}, tt.wanted)
			if short != tt.short || !strings.Contains(out.String(), tt.line) || strings.Count(out.String(), "\n") != 1 {
				t.Errorf("short %v, printed %q, want %q", short, out.String(), tt.line)
			}
		})
	}
}

// TestARatioIsOfNeighbours: a burst on the machine that meets one round of both does not count.
func TestARatioIsOfNeighbours(t *testing.T) {
	row := func(name string, cpu ...float64) rowResult {
		r := rowResult{Name: name}
		for _, c := range cpu {
			r.Samples = append(r.Samples, sample{CPUMicros: c})
		}
		return r
	}
	ours, peer := row("relais", 5, 10, 5, 20, 20), row("nginx", 10, 20, 10, 40, 90)
	if got := ours.ratioTo(peer); got != 2 {
		t.Errorf("ratio %v, want 2", got)
	}
	if got := ours.ratioTo(row("nginx")); got != 0 {
		t.Errorf("ratio %v without rounds", got)
	}
}

func TestGoalsNameCasesAndRows(t *testing.T) {
	for _, g := range goals() {
		found := false
		for _, c := range cases() {
			for _, r := range c.rows {
				found = found || (c.name == g.test && r.name == g.peer)
			}
		}
		if !found {
			t.Errorf("%s: no row %q in a case %q", g.name(), g.peer, g.test)
		}
	}
}

func TestSaveKeepsTheCasesThatDidNotRun(t *testing.T) {
	dir := t.TempDir()
	first := &results{Versions: map[string]string{"nginx": "1"}, Cases: map[string]*caseResult{
		"hit1k": {Rows: []rowResult{measured("nginx", 10, ""), measured("varnish", 20, "")}},
		"tls1k": {Rows: []rowResult{measured("nginx", 30, "")}},
	}}
	if err := first.save(dir); err != nil {
		t.Fatal(err)
	}
	second := &results{Versions: map[string]string{}, Cases: map[string]*caseResult{"tls1k": {Rows: []rowResult{measured("nginx", 31, ""), measured("caddy", 0, "answers 500")}}}}
	if err := second.save(dir); err != nil {
		t.Fatal(err)
	}
	md, err := os.ReadFile(filepath.Join(dir, "bench.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"| varnish | 20.00 | 20.00-20.00 | 0.50 |", "| nginx | 31.00 |", "| caddy | void: answers 500 |"} {
		if !strings.Contains(string(md), want) {
			t.Errorf("no %q in\n%s", want, md)
		}
	}
	var back results
	b, _ := os.ReadFile(filepath.Join(dir, "bench.json"))
	if err := json.Unmarshal(b, &back); err != nil || len(back.Cases) != 2 || back.Versions["nginx"] != "1" {
		t.Errorf("read back %+v, %v", back, err)
	}
}

func TestEveryServerCanBeConfigured(t *testing.T) {
	s, err := newSite(t.TempDir(), "/bin/relais", "127.0.0.1:5514", 3)
	if err != nil {
		t.Fatal(err)
	}
	all := servers(s)
	used := map[string]bool{}
	for _, c := range cases() {
		for _, r := range c.rows {
			used[r.server] = true
			if _, err := s.Port(r.port); err != nil {
				t.Errorf("%s, %s: %v", c.name, r.name, err)
			}
		}
	}
	for name, v := range all {
		if !used[name] {
			t.Errorf("server %s is in no case", name)
		}
		commands, err := v.specs(s)
		if err != nil || len(commands) == 0 {
			t.Errorf("%s: %v, %v", name, commands, err)
		}
		if _, err := s.Port(v.await); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	doc, err := os.ReadFile(filepath.Join(s.Dir, "relais.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(doc), "kind: Site"); n != 3 || !strings.Contains(string(doc), `["site-00001.bench.test", localhost]`) {
		t.Errorf("%d sites in\n%s", n, doc)
	}
	if s.host() != "site-00001.bench.test" {
		t.Errorf("host %s", s.host())
	}
}

func TestFlags(t *testing.T) {
	s, err := parse([]string{"run", "-case", "hit1k,tls1k", "-only", "nginx,relais", "-rounds", "2"})
	if err != nil {
		t.Fatal(err)
	}
	chosen, err := s.choose()
	if err != nil || len(chosen) != 2 {
		t.Fatalf("%d cases, %v", len(chosen), err)
	}
	if got := serversOf(chosen, s.wanted); strings.Join(got, " ") != "nginx relais" {
		t.Errorf("servers %v", got)
	}
	for _, bad := range [][]string{{"start"}, {"-rounds", "0"}, {"hit1k"}, {"run", "x"}} {
		if _, err := parse(bad); err == nil {
			t.Errorf("%v accepted", bad)
		}
	}
	for _, bad := range []settings{{cases: []string{"hit"}}, {only: []string{"apache"}}} {
		if _, err := bad.choose(); err == nil || !strings.Contains(err.Error(), "there are") {
			t.Errorf("%+v: error %v does not list what there is", bad, err)
		}
	}
}

func TestTwoRunsDoNotDisturbEachOther(t *testing.T) {
	root := t.TempDir()
	release, err := alone(root)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := alone(root); err == nil {
		t.Error("two runs at once")
	}
	release()
	release, err = alone(root)
	if err != nil {
		t.Fatal(err)
	}
	release()
}

func TestSyslogSinkCounts(t *testing.T) {
	s, err := newSyslogSink()
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	s.bytes.Add(7)
	if s.Written() != 7 || s.Empty() != nil || s.Written() != 0 {
		t.Error("does not count from zero after Empty")
	}
}

func TestFileLog(t *testing.T) {
	f := fileLog(filepath.Join(t.TempDir(), "log"))
	if err := f.Empty(); err != nil || f.Written() != 0 {
		t.Errorf("a log that is not there yet: %v, %d bytes", err, f.Written())
	}
	if err := os.WriteFile(string(f), []byte("line\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if f.Written() != 5 {
		t.Errorf("%d bytes", f.Written())
	}
	if err := f.Empty(); err != nil || f.Written() != 0 {
		t.Errorf("%v, %d bytes after Empty", err, f.Written())
	}
}

func TestParseH2load(t *testing.T) {
	report := "finished in 2.00s, 100.00 req/s, 1.00MB/s\n" +
		"requests: 200 total, 210 started, 200 done, 198 succeeded, 2 failed, 0 errored, 0 timeout\n" +
		"status codes: 196 2xx, 0 3xx, 1 4xx, 1 5xx\n"
	l, err := parseH2load([]byte(report), 2*time.Second)
	if err != nil || l.requests != 198 || l.errors != 2 || l.badStatus != 2 {
		t.Errorf("%+v, %v", l, err)
	}
	if _, err := parseH2load([]byte("Could not connect"), time.Second); err == nil {
		t.Error("no report passes for one")
	}
}
