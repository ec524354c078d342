package differential

import (
	"flag"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
)

var (
	count  = flag.Int("cases", defaultCount, "how many cases")
	seed   = flag.Uint64("seed", defaultSeed, "of the cases")
	grep   = flag.String("grep", "", "tell in full only the failures that contain this")
	only   = flag.Int("case", -1, "one case alone, told in full")
	update = flag.Bool("update", false, "write docs/differences.md")
)

const (
	defaultCount = 3000
	defaultSeed  = 1

	workers = 6
	batch   = 3000 // cases of one edge
)

// play sends cases to both engines of one edge.
func play(t *testing.T, cases []*kase) []*pair {
	b := newBed(t)
	pairs := make([]*pair, len(cases))
	next := make(chan int)
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for i := range next {
				p := &pair{kase: cases[i]}
				var both sync.WaitGroup
				both.Go(func() { p.std = b.std.send(p.kase) })
				p.own = b.own.send(p.kase)
				both.Wait()
				pairs[i] = p
			}
		})
	}
	for i := range cases {
		next <- i
	}
	close(next)
	wg.Wait()
	b.stop() // now the origins have read all that will ever come
	for _, p := range pairs {
		for _, side := range []struct {
			re *reaction
			o  *origin
		}{{p.own, b.own.origin}, {p.std, b.std.origin}} {
			for _, id := range []string{p.first(), p.after(), p.smuggled()} {
				side.re.asked = append(side.re.asked, side.o.seen[id]...)
				delete(side.o.seen, id)
			}
		}
		p.compare()
	}
	for name, o := range map[string]*origin{"own": b.own.origin, "std": b.std.origin} {
		for _, what := range o.breaches {
			t.Errorf("engine %s sent to the origin what is ambiguous or no request: %s", name, what)
		}
		for id := range o.seen {
			t.Errorf("engine %s asked the origin in the name of no case: %q", name, id)
		}
	}
	return pairs
}

// uncovered returns the differences that no rule covers, and counts those that one does.
func uncovered(p *pair, rules []rule, hits []int) (left []difference) {
	for _, d := range p.differs {
		i := slices.IndexFunc(rules, func(r rule) bool { return r.covers(p, d) })
		if i < 0 {
			left = append(left, d)
		} else {
			hits[i]++
		}
	}
	return left
}

func (r *rule) covers(p *pair, d difference) bool {
	return slices.Contains(r.Aspects, d.aspect) && r.applies(p, d)
}

func (p *pair) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s mode %d plan %s\n  head %.700q\n  body %.200q (%d bytes)", p.names(), p.mode, p.plan.Encode(), p.head, p.body, len(p.body))
	for _, side := range []struct {
		name string
		re   *reaction
	}{{"own", p.own}, {"std", p.std}} {
		fmt.Fprintf(&b, "\n  %s: %s", side.name, side.re.verdict())
		for _, a := range side.re.answers {
			fmt.Fprintf(&b, "\n    %s %d %s interim %v %.400v %s %s", a.version, a.status, a.reason, a.interim, a.fields, a.framing, short(a.body))
		}
		for _, r := range side.re.asked {
			fmt.Fprintf(&b, "\n    asked %s %.100s %.600v %s %s", r.method, r.target, r.fields, r.framing, short(r.body))
		}
	}
	return b.String()
}

func TestEnginesGiveTheSameAnswersOrADifferenceThatIsListed(t *testing.T) {
	rules := known()
	hits := make([]int, len(rules))
	failures := 0
	kinds := map[string]int{}
	fail := func(p *pair, format string, args ...any) {
		what := fmt.Sprintf(format, args...)
		kinds[fmt.Sprintf("%.90s %s", what, p.names())]++
		if failures++; !strings.Contains(what, *grep) || failures > 10 && *only < 0 && *grep == "" {
			return
		}
		t.Errorf("%s\n  again: go test ./test/differential -seed %d -case %d\n  %s", what, *seed, p.id, p)
	}
	for from := 0; from < *count; from += batch {
		var cases []*kase
		for id := from; id < min(from+batch, *count); id++ {
			if *only < 0 || id == *only {
				cases = append(cases, generate(*seed, id))
			}
		}
		for _, p := range play(t, cases) {
			if *only >= 0 {
				t.Logf("%s\n  differences: %v", p, p.differs)
			}
			if what := p.expected(p.own); what != "" {
				fail(p, "%s", what)
			}
			for _, what := range p.invariants(p.own, true) {
				fail(p, "engine relais: %s", what)
			}
			for _, what := range p.invariants(p.std, false) {
				fail(p, "engine std: %s", what)
			}
			for _, d := range uncovered(p, rules, hits) {
				fail(p, "%s differs: own %s, std %s", d.aspect, d.own, d.std)
			}
		}
	}
	if failures > 1 {
		t.Errorf("%d failures in all:", failures)
		for _, kind := range slices.Sorted(maps.Keys(kinds)) {
			t.Logf("%5d %s", kinds[kind], kind)
		}
	}
	if *only >= 0 || *seed != defaultSeed || *count < defaultCount {
		// Another run may by chance have no case for a rule.
		return
	}
	for i, r := range rules {
		if hits[i] == 0 && !r.Timing {
			t.Errorf("the rule %q covered nothing: take it off the list", r.Name)
		}
	}
}

// names of the oddities.
func (c *kase) names() string {
	var names []string
	for _, o := range c.oddities {
		names = append(names, o.name)
	}
	return fmt.Sprintf("%q", names)
}

func TestThePageOfDifferencesIsTheList(t *testing.T) {
	const name = "../../docs/differences.md"
	want := page(known())
	if *update {
		if err := os.WriteFile(name, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(name)
	if err != nil || string(got) != want {
		t.Errorf("%s is not what the list says (%v): go test ./test/differential -update", name, err)
	}
}
