package screen

import (
	"fmt"
	"math/rand/v2"
	"net/url"
	"regexp"
	"regexp/syntax"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/corazawaf/coraza/v3"
	"github.com/corazawaf/libinjection-go"
)

func TestAShopsRequestsAreProvedClean(t *testing.T) {
	for pl := 1; pl <= 2; pl++ {
		s, w := newScreen(t, pl, 0), newEngine(t, pl, "")
		var quiet, clean int
		why := map[string]int{}
		corpus := shopCorpus(400)
		if raced {
			corpus = corpus[:40]
		}
		for i := range corpus {
			c := &corpus[i]
			f, v := judge(w, &c.req), s.Check(&c.req, nil)
			if v.Reason == Clean && !f.quiet() {
				t.Errorf("level %d: %s is proved clean, the engine says %+v: %q %q", pl, c.name, f, c.req.Target, c.req.Body)
			}
			if f.quiet() {
				quiet++
				if v.Reason == Clean {
					clean++
				} else {
					why[fmt.Sprint(c.name, " ", v.Reason, " ", v.Rule)]++
				}
			}
		}
		t.Logf("level %d: the engine is quiet on %d of %d, proved clean %d; not proved: %v", pl, quiet, len(corpus), clean, why)
		if clean*100 < quiet*98 {
			t.Errorf("level %d: proved clean %d of %d", pl, clean, quiet)
		}
	}
}

func TestCoverageOfTheCoreRuleSet(t *testing.T) {
	for pl := 1; pl <= 4; pl++ {
		c := newScreen(t, pl, -1).Coverage()
		t.Logf("level %d: %+v", pl, c)
		if len(c.Always) > 0 {
			t.Errorf("level %d: nothing can be proved because of rules %v", pl, c.Always)
		}
		if c.Rules != c.Exact+len(c.Wider)+len(c.Always)+len(c.Impossible) {
			t.Errorf("level %d: %d rules, %+v", pl, c.Rules, c)
		}
	}
}

// TestAProvedRequestAllocatesNothing holds of values that were seen and of new ones, but for
// those that have to go through the library behind @detectSQLi, which allocates.
func TestAProvedRequestAllocatesNothing(t *testing.T) {
	if raced {
		t.Skip("the race detector makes pools forget")
	}
	s := newScreen(t, 1, 0)
	for _, kind := range []string{"page", "static", "form", "json"} {
		reqs := make([]Request, 50)
		for i := range reqs {
			reqs[i] = shopRequest(kind, i)
			if kind == "static" {
				reqs[i].Fields = reqs[0].Fields
			}
		}
		n, fresh := 0, int64(0)
		check := func() {
			r := &reqs[n%len(reqs)]
			if kind == "static" {
				fresh++
				r.Target = strconv.AppendInt(append(r.Target[:0], "/assets/main.css?v="...), fresh, 10)
			}
			if v := s.Check(r, nil); v.Reason != Clean {
				t.Fatalf("%s is not proved clean: %v", kind, v)
			}
			n++
		}
		for range 500 {
			check()
		}
		if a := testing.AllocsPerRun(300, check); a > 0 {
			t.Errorf("%s: %v allocations", kind, a)
		}
	}
}

// TestSeveralWorkersAgree: many goroutines on one screen, with states and memo made meanwhile,
// say what one says alone.
func TestSeveralWorkersAgree(t *testing.T) {
	reqs := crsRequests(t)
	alone, shared := newScreen(t, 1, -1), newScreen(t, 1, 1<<16)
	var want []Verdict
	var some []*Request
	for i := 0; i < len(reqs); i += 5 {
		some = append(some, &reqs[i].req)
		want = append(want, alone.Check(&reqs[i].req, nil))
	}
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for k := range some {
				i := (k + g*len(some)/4) % len(some)
				if v := shared.Check(some[i], nil); v != want[i] {
					t.Errorf("request %d: %v, alone %v", i, v, want[i])
				}
			}
		})
	}
	wg.Wait()
}

// TestHostileTextIsBounded: texts that want many states of an expression, or fill the memo, end
// in a verdict and do not stop others from being proved.
func TestHostileTextIsBounded(t *testing.T) {
	s := newScreen(t, 2, 1<<16)
	r := rand.New(rand.NewPCG(3, 3))
	pieces := []string{"select", "union", "<a ", "on", "=", "'", "\"", "(", ")", "--", "/*", "*/", "../", "$", "{", "}", "%27", " or ", "char", "x", "1", "é", ";", "|", "cat", "exec"}
	for range 300 {
		var b strings.Builder
		for b.Len() < 3000 {
			b.WriteString(pieces[r.IntN(len(pieces))])
		}
		q := shopRequest("page", 0)
		q.Target = append(q.Target, ("&q=" + url.QueryEscape(b.String()))...)
		s.Check(&q, nil)
	}
	clean := 0
	for i := range 200 {
		q := shopRequest("fresh", i)
		if s.Check(&q, nil).Reason == Clean {
			clean++
		}
	}
	if clean < 190 {
		t.Errorf("after hostile requests only %d of 200 ordinary ones are proved clean", clean)
	}
}

// TestExpressionsAreGosOwn: the automaton of states says what package regexp says.
func TestExpressionsAreGosOwn(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 5))
	for _, p := range []string{
		`(?sm)^a\b.*c$`, `(?sm)(?i)k[^x]s\b`, `(?sm)\Bfoo|\bbar\b`, `(?sm)[é-ü]+x|\x{212a}`, `(?sm)^$`, `(?sm)a{2,4}b?$`,
		`(?sm)(?i)sel(?:ect)?\s+.{0,3}from`, `(?sm)\A(?:a|ab)(?:c|bcd)\z`, `(?sm)[\s\x0b]+|\W{3}`, `(?m)^.$`, `(?sm)\pL\d`,
	} {
		re := regexp.MustCompile(p)
		tree, err := syntax.Parse(p, syntax.Perl)
		if err != nil {
			t.Fatal(err)
		}
		d, err := newDFA(tree.Simplify(), false)
		if err != nil {
			t.Fatal(err)
		}
		pieces := []string{"a", "b", "c", "x", "K", "s", "S", "ſ", "\u212a", "é", "ü", "\n", " ", "\v", "\xff", "\xc3", "foo", "bar", "select", "from", "1", "_", "-", "\ufffd"}
		for range 4000 {
			var b strings.Builder
			for range r.IntN(8) {
				b.WriteString(pieces[r.IntN(len(pieces))])
			}
			steps := 1 << 20
			got, ok := d.match([]byte(b.String()), &steps)
			if want := re.MatchString(b.String()); !ok || got != want {
				t.Fatalf("%s on %q: %v, want %v", p, b.String(), got, want)
			}
			holdsWords(t, tree.Simplify(), re, b.String())
			holdsBytes(t, tree.Simplify(), re, b.String())
		}
	}
}

// holdsWords: a text that matches holds a word of each clause.
func holdsWords(t *testing.T, tree *syntax.Regexp, re *regexp.Regexp, v string) {
	t.Helper()
	if !re.MatchString(v) || strings.ContainsAny(v, "ſ\u212a") {
		return
	}
	for _, clause := range requiredWords(tree) {
		if !slices.ContainsFunc(clause, func(w string) bool { return strings.Contains(strings.ToLower(v), w) }) {
			t.Fatalf("%s matches %q, which holds none of %q", re, v, clause)
		}
	}
}

// holdsBytes: a text that matches holds a byte of each needed set.
func holdsBytes(t *testing.T, tree *syntax.Regexp, re *regexp.Regexp, v string) {
	t.Helper()
	if !re.MatchString(v) {
		return
	}
	has, _ := newKindTable().bytesOf([]byte(v))
	for _, n := range neededBytes(tree) {
		if !n.meets(&has) {
			t.Fatalf("%s matches %q, which holds none of %x", re, v, n)
		}
	}
}

// TestPlainWordsAreNoInjection holds what is spared against the library itself.
func TestPlainWordsAreNoInjection(t *testing.T) {
	r := rand.New(rand.NewPCG(11, 11))
	pieces := []string{"a", "b", "c", "d", "e", "f", "0", "1", "9", "1e", "0x", "0b", ".", ".", "-", "-", "_", "GA1", "or", "and", "union", "select", "dec", "DE", "C", "md5", "sha1", "x1", "u2", "n'", "1f", "int4", "_utf8", "e1", "null", "2", "3d", "own3d"}
	spared := 0
	rounds := 400_000
	if raced {
		rounds = 40_000
	}
	for range rounds {
		var b []byte
		for range 1 + r.IntN(9) {
			b = append(b, pieces[r.IntN(len(pieces))]...)
		}
		if !plainWords(b) {
			continue
		}
		spared++
		if yes, print := libinjection.IsSQLi(string(b)); yes {
			t.Fatalf("%q is %s", b, print)
		}
	}
	if spared < rounds/20 {
		t.Errorf("only %d", spared)
	}
	for _, v := range []string{"union", "1-union-2", "a--b", "md5.1", "12select", "1-dec", "_utf8", "a'1"} {
		if plainWords([]byte(v)) {
			t.Errorf("%q is spared", v)
		}
	}
}

// cpuTime is what the process has used, which says more on a busy machine than a clock.
func cpuTime() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func BenchmarkScreen(b *testing.B) {
	for _, kind := range []string{"page", "fresh", "static", "form", "json"} {
		reqs := make([]Request, 20_000)
		for i := range reqs {
			reqs[i] = shopRequest(kind, i)
		}
		for _, memo := range []struct {
			name  string
			bytes int
		}{{"memo", 0}, {"cold", -1}} {
			for pl := 1; pl <= 2; pl++ {
				s := newScreen(b, pl, memo.bytes)
				for i := range 3000 {
					s.Check(&reqs[len(reqs)-1-i], nil)
				}
				b.Run(fmt.Sprintf("%s/pl%d/%s", kind, pl, memo.name), func(b *testing.B) {
					b.ReportAllocs()
					maybe, from := 0, cpuTime()
					for i := 0; b.Loop(); i++ {
						if s.Check(&reqs[i%len(reqs)], nil).Reason != Clean {
							maybe++
						}
					}
					b.ReportMetric(float64(maybe)/float64(b.N), "maybe/op")
					b.ReportMetric(float64(cpuTime()-from)/float64(b.N)/1000, "cpu-us/op")
				})
			}
		}
	}
}

func BenchmarkEngine(b *testing.B) {
	for _, pre := range []string{"Off", "On"} {
		w := newEngine(b, 1, "SecRxPreFilter "+pre+"\n")
		for _, kind := range []string{"page", "static", "form", "json"} {
			b.Run(kind+"/prefilter"+pre, func(b *testing.B) {
				b.ReportAllocs()
				reqs := make([]Request, 512)
				for i := range reqs {
					reqs[i] = shopRequest(kind, i)
				}
				from := cpuTime()
				for i := 0; b.Loop(); i++ {
					judge(w, &reqs[i%len(reqs)])
				}
				b.ReportMetric(float64(cpuTime()-from)/float64(b.N)/1000, "cpu-us/op")
			})
		}
	}
}

// TestHostileExpressionsAreBounded: what once took minutes or all memory to compile.
func TestHostileExpressionsAreBounded(t *testing.T) {
	rx := func(p string) string { return `SecRule ARGS "@rx ` + p + `" "id:1,phase:2,deny"` }
	double := "SecAction \"id:1,phase:1,nolog,pass,setvar:tx.a0=" + strings.Repeat("x", 50) + "\"\n"
	for i := range 40 {
		double += fmt.Sprintf("SecAction \"id:%d,phase:1,nolog,pass,setvar:tx.a%d=%%{tx.a%d}%%{tx.a%d}\"\n", i+2, i+1, i, i)
	}
	for name, text := range map[string]string{
		"repeated classes of letters": rx(strings.Repeat(`\pL{900}`, 100)),
		"repeated classes of ASCII":   rx(strings.Repeat("[a-p]{1000}", 100)),
		"repeated words":              rx(strings.Repeat("(?:select|union|from){300}", 50)),
		"nested groups":               rx(strings.Repeat("(?:(?:a|b)", 400) + strings.Repeat("c)", 400)),
		"a long word":                 rx(strings.Repeat("abcdefgh", 200)),
		"many alternatives":           rx(strings.Repeat("(?:ab|cd)(?:ef|gh)x|", 1500) + "z"),
		"variables that double":       double + `SecRule ARGS "@contains %{tx.a40}" "id:99,phase:2,deny"`,
	} {
		from := cpuTime()
		s, err := Compile(Config{FS: none{}, Directives: []string{text}, MemoBytes: -1})
		if err == nil {
			s.Check(&Request{Method: []byte("GET"), Target: []byte("/?a=" + strings.Repeat("abcselectunion", 200)), Proto: []byte("HTTP/1.1")}, nil)
		}
		took := cpuTime() - from
		t.Logf("%s: %v, error %.120v", name, took, err)
		if took > 2*time.Second && !raced {
			t.Errorf("%s: %v", name, took)
		}
	}
}

// TestRulesChangedByDirectives: what takes rules or targets out does so as in the engine.
func TestRulesChangedByDirectives(t *testing.T) {
	const rules = `SecRuleEngine On
SecRule ARGS|REQUEST_COOKIES "@contains bad" "id:910100,phase:2,deny,log,msg:'a',tag:'x',tag:'y z'"
SecRule ARGS_NAMES "@contains bad" "id:910101,phase:2,deny,log,msg:'b',tag:'w'"
SecRule &ARGS "@gt 2" "id:910102,phase:2,deny,log,msg:'c',tag:'c'"
SecRule ARGS:q "@contains worse" "id:910103,phase:2,deny,log,msg:'d',chain"
SecRule REQUEST_COOKIES "@contains k" "t:none"
`
	targets := []string{"/?q=bad", "/?other=bad", "/?bad=1", "/?a=1&b=2&c=3", "/?a=1&b=2&bad2=3", "/?q=worse", "/?q=fine"}
	for _, c := range []struct {
		directive string
		clean     string // which of the targets are proved clean
	}{
		{"", "0000001"},
		{"SecRuleRemoveById 910100", "1100001"},
		{"SecRuleRemoveById 910101-910103", "0011111"},
		{"SecRuleRemoveByTag x", "1100001"},
		{`SecRuleRemoveByTag "y z"`, "1100001"},
		{"SecRuleRemoveByTag y", "0000001"},
		{`SecRuleUpdateTargetById 910100 "!ARGS:q"`, "1000001"},
		{`SecRuleUpdateTargetById 910100-910101 "!ARGS:/^o/"`, "0100001"},
		{`SecRuleUpdateTargetById 910103 "!ARGS:q,!REQUEST_COOKIES"`, "0000001"},
		{`SecRuleUpdateTargetByTag x "!ARGS"`, "1100001"},
		{`SecRuleUpdateTargetByTag w "!ARGS_NAMES:bad"`, "0010001"},
		{`SecRuleUpdateTargetById 910102 "!ARGS:c"`, "0000000"},
	} {
		s, err := Compile(Config{FS: none{}, Directives: []string{rules + c.directive}})
		if err != nil {
			t.Errorf("%s: %v", c.directive, err)
			continue
		}
		w, err := coraza.NewWAF(coraza.NewWAFConfig().WithDirectives(rules + c.directive))
		if err != nil {
			t.Fatalf("%s: %v", c.directive, err)
		}
		got := ""
		for _, target := range targets {
			q := Request{Method: []byte("GET"), Target: []byte(target), Proto: []byte("HTTP/1.1"), Fields: []Field{{[]byte("Host"), []byte("x")}, {[]byte("Cookie"), []byte("s=k")}}}
			v := s.Check(&q, nil)
			if v.Reason == Clean {
				got += "1"
				compare(t, w, &q)
			} else {
				got += "0"
			}
		}
		if got != c.clean {
			t.Errorf("%s: %s, want %s", c.directive, got, c.clean)
		}
	}
	for _, bad := range []string{`SecRuleUpdateTargetById 910100 "ARGS_NAMES"`, `SecRuleUpdateTargetById 910100 910101 "!ARGS"`, "SecRuleRemoveByMsg a", `SecRuleUpdateActionById 910100 "pass"`, "SecRuleRemoveById x"} {
		if _, err := Compile(Config{FS: none{}, Directives: []string{rules + bad}}); err == nil {
			t.Errorf("%s is taken", bad)
		}
	}
}
