package waf

import (
	"flag"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"path"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	crs "github.com/corazawaf/coraza-coreruleset/v4"
	"github.com/corazawaf/coraza/v3"
	"github.com/corazawaf/coraza/v3/experimental/plugins/plugintypes"
	"github.com/corazawaf/coraza/v3/types"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/edge/waf/regression"
	"github.com/relais-edge/relais/internal/edge/waf/screen"
	"github.com/relais-edge/relais/internal/stage"
)

var full = flag.Bool("full", false, "compare on all requests of the regression tests at every paranoia level")

// finding is what an engine says of a request.
type finding struct {
	rules  []int // detection rules, in order
	scores string
	action string
}

func (f *finding) quiet() bool { return len(f.rules) == 0 && f.scores == "0 0 0 0" && f.action == "" }

func (f *finding) same(o *finding) bool {
	return slices.Equal(f.rules, o.rules) && f.scores == o.scores && f.action == o.action
}

func findingOf(tx types.Transaction, it *types.Interruption) (f finding) {
	for _, m := range tx.MatchedRules() {
		if id := m.Rule().ID(); m.Message() != "" && id >= 910000 && id < 949000 || id == ruleParse || id == ruleMultipart {
			f.rules = append(f.rules, id)
		}
	}
	vars := tx.(plugintypes.TransactionState).Variables().TX()
	var scores [4]string
	for pl := range scores {
		scores[pl] = "0"
		for _, v := range vars.Get(fmt.Sprintf("inbound_anomaly_score_pl%d", pl+1)) {
			scores[pl] = v
		}
	}
	f.scores = strings.Join(scores[:], " ")
	if it != nil {
		f.action = fmt.Sprint(it.Action, it.Status)
	}
	return f
}

// stock is Coraza as its users set it up, at a level, without what we put around it.
func stock(t testing.TB, pl int) coraza.WAF {
	t.Helper()
	w, err := coraza.NewWAF(coraza.NewWAFConfig().WithRootFS(crs.FS).WithDirectives(`Include @coraza.conf-recommended
SecRuleEngine On
SecAuditEngine Off
Include @crs-setup.conf.example
` + fmt.Sprintf(`SecAction "id:900000,phase:1,pass,t:none,nolog,setvar:tx.blocking_paranoia_level=%d,setvar:tx.detection_paranoia_level=%d"`, pl, pl) + `
Include @owasp_crs/*.conf
SecRuleRemoveById 905100 905110
`))
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func stockFinding(w coraza.WAF, x *stage.Exchange, s *sheet) finding {
	tx := w.NewTransaction().(transaction)
	defer func() { _ = tx.Close() }()
	head(tx, x, s)
	it := tx.ProcessRequestHeaders()
	if it == nil {
		it, _ = examineBody(tx, s.Body, false)
	}
	return findingOf(tx, it)
}

// ownFinding is what the stage's engine says under a policy.
func ownFinding(e *engine, p *policy, x *stage.Exchange, s *sheet) finding {
	tx := e.waf.NewTransaction().(transaction)
	defer func() { _ = tx.Close() }()
	p.apply(tx, x, e.rules)
	head(tx, x, s)
	it := tx.ProcessRequestHeaders()
	if it == nil {
		it, _ = examineBody(tx, s.Body, false)
	}
	return findingOf(tx, it)
}

var cases = sync.OnceValues(regression.Cases)

func sheetOf(c *regression.Case) *sheet {
	s := &sheet{}
	s.Method, s.Target, s.Proto = []byte(c.Method), []byte(c.Target), []byte(c.Proto)
	if c.Body != "" {
		s.Body = []byte(c.Body)
	}
	for _, f := range c.Fields {
		s.Fields = append(s.Fields, screen.Field{Name: []byte(f.Name), Value: []byte(f.Value)})
	}
	return s
}

func (c caseRun) String() string { return fmt.Sprintf("%s: %s %q", c.Name, c.Method, c.Target) }

type caseRun struct{ *regression.Case }

// TestVerdictsAreStockCorazas: on the requests of the rule set's own tests, screen, overlay and
// engine together give the same detection rules, scores and action as stock Coraza, at each
// level. Each ninth request without -full.
func TestVerdictsAreStockCorazas(t *testing.T) {
	all, err := cases()
	if err != nil {
		t.Fatal(err)
	}
	step := 9
	switch {
	case *full:
		step = 1
	case raced:
		step = 90
	}
	for pl := 1; pl <= 4; pl++ {
		t.Run(fmt.Sprint("paranoia", pl), func(t *testing.T) {
			t.Parallel()
			g := newRig(t, Config{}, v1.WafPolicySpec{Paranoia: pl})
			p, w, x := g.site.Parts[5].(*part).routes[0], stock(t, pl), g.exchange(request{target: "/"})
			n, quiet, clean, wrong := 0, 0, 0, 0
			for i := (pl - 1) % step; i < len(all); i += step {
				s := sheetOf(&all[i])
				want := stockFinding(w, x, s)
				n++
				if want.quiet() {
					quiet++
				}
				got := finding{scores: "0 0 0 0"}
				if g.st.proved(p, x, s) {
					clean++
				} else {
					got = ownFinding(g.st.engine, p, x, s)
				}
				if !got.same(&want) {
					if wrong++; wrong < 20 {
						t.Errorf("%v: %+v, stock Coraza %+v", caseRun{&all[i]}, got, want)
					}
				}
			}
			t.Logf("%d of %d requests: stock Coraza is quiet on %d, proved clean %d, different %d", n, len(all), quiet, clean, wrong)
		})
	}
}

// TestOverlaysProveNothingWrong: under random exclusions, what the screen proves with their
// overlay is quiet in the engine with the same exclusions; and the overlay proves more.
func TestOverlaysProveNothingWrong(t *testing.T) {
	all, err := cases()
	if err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 1))
	targets := []string{"", "", "ARGS", "ARGS:/./", "ARGS:var", "ARGS:payload", "ARGS_NAMES", "REQUEST_HEADERS:User-Agent", "REQUEST_HEADERS", "REQUEST_COOKIES", "REQUEST_COOKIES:/^[a-m]/", "REQUEST_URI", "REQUEST_HEADERS:Referer", "ARGS:x", "REQUEST_BODY", "FILES", "XML:/*"}
	tags := []string{"attack-sqli", "attack-xss", "attack-rce", "attack-lfi", "attack-protocol", "attack-injection-php", "paranoia-level/1", "paranoia-level/2"}
	policies, per := 12, 60
	switch {
	case *full:
		policies, per = 100, 100
	case raced:
		policies, per = 4, 40
	}
	checked, clean, more := 0, 0, 0
	for range policies {
		spec := v1.WafPolicySpec{Paranoia: 1 + r.IntN(4)}
		for range 1 + r.IntN(5) {
			x := v1.WafExclusion{Target: targets[r.IntN(len(targets))]}
			switch r.IntN(4) {
			case 0:
				x.Tags = []string{tags[r.IntN(len(tags))]}
			case 1:
				c := &all[r.IntN(len(all))]
				x.Rules = []string{fmt.Sprint(c.Rule)}
			case 2:
				x.Rules = []string{"920000-943999"}
			default:
				x.Rules = []string{fmt.Sprintf("%d-%d", 920000+1000*r.IntN(10), 932000+1000*r.IntN(13))}
			}
			if x.Target == "" && x.Rules == nil && x.Tags == nil {
				continue
			}
			spec.Exclusions = append(spec.Exclusions, x)
		}
		for i := range spec.Exclusions {
			if rs := spec.Exclusions[i].Rules; len(rs) == 1 {
				if from, to, ok := strings.Cut(rs[0], "-"); ok && from > to {
					rs[0] = to + "-" + from
				}
			}
		}
		g := newRig(t, Config{}, spec)
		p, x := g.site.Parts[5].(*part).routes[0], g.exchange(request{target: "/"})
		for range per {
			c := &all[r.IntN(len(all))]
			s := sheetOf(c)
			checked++
			if !g.st.proved(p, x, s) {
				continue
			}
			clean++
			if p.screen.Check(&s.Request, nil).Reason != screen.Clean {
				more++
			}
			if f := ownFinding(g.st.engine, p, x, s); !f.quiet() {
				t.Errorf("%v is proved clean under %+v, the engine says %+v", caseRun{c}, spec.Exclusions, f)
			}
		}
	}
	t.Logf("%d requests, %d proved clean, %d of them thanks to the overlay", checked, clean, more)
	if more == 0 && !raced {
		t.Error("no overlay proves more")
	}
}

// TestOneRuleStandsBehindASkip: to remove such a rule would let the skip fall on the next.
func TestOneRuleStandsBehindASkip(t *testing.T) {
	id := regexp.MustCompile(`id:'?(\d+)`)
	var behind []string
	err := fs.WalkDir(crs.FS, ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasPrefix(path.Base(p), "REQUEST-") {
			return err
		}
		b, err := fs.ReadFile(crs.FS, p)
		if i := strings.Index(string(b), "skip:"); i >= 0 {
			behind = append(behind, id.FindStringSubmatch(string(b[i:]))[1])
			if strings.Contains(string(b[i+1:]), "skip:") || b[i+len("skip:")] != '1' {
				t.Errorf("%s skips more than once", p)
			}
		}
		return err
	})
	if err != nil || !slices.Equal(behind, []string{fmt.Sprint(ruleBehindSkip)}) {
		t.Errorf("%v %v", behind, err)
	}
	g := newRig(t, Config{}, v1.WafPolicySpec{Exclusions: []v1.WafExclusion{{Rules: []string{"920540"}}}})
	q := request{method: "POST", target: "/api", fields: append([]string{"Content-Type", jsonType}, unproved...), body: []string{`{"a":"%41"}`}} // 920230 of level 2
	if err, m, _ := g.do(q); err != nil || m.Code != "pass" || strings.Contains(m.Detail, "920230") {
		t.Errorf("%v %v", err, m)
	}
	q.body = []string{`{"a":"x"}`}
	q.target = `/?q=\u0041`
	q.fields[1] = form
	if err, m, _ := g.do(q); err != nil || strings.Contains(m.Detail, "920540") {
		t.Errorf("the exclusion does not hold: %v %v", err, m)
	}
}

// TestDetectionAboveBlocking: rules between the two levels are shown and do not block.
func TestDetectionAboveBlocking(t *testing.T) {
	q := request{method: "POST", target: "/api", fields: []string{"Content-Type", jsonType}, body: []string{`{"a":"%41%41 -- ;drop"}`}}
	for _, c := range []struct {
		blocking, detection int
		denied, shown       bool
	}{{1, 0, false, false}, {1, 2, false, true}, {1, 4, false, true}, {4, 0, true, true}} {
		g := newRig(t, Config{}, v1.WafPolicySpec{Paranoia: c.blocking, DetectionParanoia: c.detection})
		err, m, _ := g.do(q)
		if (err != nil) != c.denied || strings.Contains(m.Detail, "920230") != c.shown {
			t.Errorf("%+v: %v %v", c, err, m)
		}
	}
}

// TestTenThousandOverlays: a site's policy is small and quickly made, because sites share rules
// and screens.
func TestTenThousandOverlays(t *testing.T) {
	e, err := shared()
	if err != nil {
		t.Fatal(err)
	}
	spec := func(i int) *v1.WafPolicySpec {
		s := &v1.WafPolicySpec{Paranoia: 1 + i%2, InboundThreshold: 5 + i%20, BodyBytes: new(v1.Size(128 << 10))}
		for k := range 20 {
			x := v1.WafExclusion{Path: fmt.Sprintf("/shop%d/p%d", i, k), Methods: []string{"POST"}}
			switch k % 4 {
			case 0:
				x.Rules = []string{fmt.Sprintf("9421%02d", k), "932000-932999"}
			case 1:
				x.Tags, x.Target = []string{"attack-sqli", "attack-xss"}, fmt.Sprintf("ARGS:field%d", k)
			case 2:
				x.Target = fmt.Sprintf("REQUEST_COOKIES:pref%d", i)
			case 3:
				x.Tags, x.Target = []string{"attack-rce"}, fmt.Sprintf(`ARGS:/^json\.items\.\d+\.f%d$/`, k)
			}
			s.Exclusions = append(s.Exclusions, x)
		}
		return s
	}
	for i := range 2 {
		if _, err := e.compile(spec(i)); err != nil { // makes the screens
			t.Fatal(err)
		}
	}
	n := 10_000
	if testing.Short() || raced {
		n = 500
	}
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	kept := make([]*policy, n)
	before, slowest := heap(), time.Duration(0)
	from := time.Now()
	for i := range kept {
		start := time.Now()
		if kept[i], err = e.compile(spec(i)); err != nil {
			t.Fatal(err)
		}
		slowest = max(slowest, time.Since(start))
	}
	took, size := time.Since(from), (heap()-before)/uint64(n)
	runtime.KeepAlive(kept)
	t.Logf("%d sites with 20 exclusions each: %d bytes and %v each, the slowest %v", n, size, took/time.Duration(n), slowest)
	if size > 64<<10 {
		t.Errorf("%d bytes a site", size)
	}
}
