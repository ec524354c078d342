package screen

import (
	"flag"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"

	"github.com/relais-edge/relais/internal/edge/waf/regression"
)

type crsRequest struct {
	name string
	req  Request
}

// crsRequests are all requests of the rule set's regression tests.
func crsRequests(t testing.TB) (out []crsRequest) {
	t.Helper()
	cases, err := crsCases()
	if err != nil {
		t.Fatal(err)
	}
	for i := range cases {
		out = append(out, crsRequest{cases[i].Name, requestOf(&cases[i])})
	}
	return out
}

var crsCases = sync.OnceValues(regression.Cases)

func requestOf(c *regression.Case) Request {
	r := Request{Method: []byte(c.Method), Target: []byte(c.Target), Proto: []byte(c.Proto), Body: []byte(c.Body)}
	for _, f := range c.Fields {
		r.Fields = append(r.Fields, Field{[]byte(f.Name), []byte(f.Value)})
	}
	return r
}

func rawRequest(raw string) Request {
	c := regression.Parse(raw)
	return requestOf(&c)
}

var full = flag.Bool("full", false, "ask the engine also about what is not proved clean, and tell why")

// TestCRSRequestsThatAreProvedCleanAreQuietInTheEngine: with the screen before the engine each
// request of the regression tests gets the same rules, scores and action as without: those of
// the engine itself, or none where the engine has none.
func TestCRSRequestsThatAreProvedCleanAreQuietInTheEngine(t *testing.T) {
	reqs := crsRequests(t)
	if len(reqs) < 4600 {
		t.Fatalf("only %d requests were read", len(reqs))
	}
	for pl := 1; pl <= 4; pl++ {
		t.Run(fmt.Sprint("paranoia", pl), func(t *testing.T) {
			step := 1
			if raced {
				step = 45
			}
			s, w := newScreen(t, pl, 0), newEngine(t, pl, "")
			var quiet, clean, wrong int
			why := map[string]int{}
			for i := (pl - 1) % step; i < len(reqs); i += step {
				r := &reqs[i]
				v := s.Check(&r.req, nil)
				if v.Reason != Clean && !*full {
					continue // the engine's in any case
				}
				f := judge(w, &r.req)
				if f.quiet() {
					quiet++
				}
				switch {
				case v.Reason != Clean && f.quiet():
					why[fmt.Sprint(v.Reason, " ", v.Rule)]++
				case v.Reason == Clean:
					clean++
					if !f.quiet() {
						if wrong++; wrong < 20 {
							t.Errorf("%s is proved clean, the engine says %+v: %s %q %q %q", r.name, f, r.req.Method, r.req.Target, r.req.Fields, r.req.Body)
						}
					}
				}
			}
			t.Logf("every %d. of %d requests: proved clean %d, wrong %d", step, len(reqs), clean, wrong)
			if clean < 200/step {
				t.Error("too few are proved clean")
			}
			if *full {
				t.Logf("the engine is quiet on %d", quiet)
			}
			for _, k := range slices.SortedFunc(maps.Keys(why), func(a, b string) int { return why[b] - why[a] }) {
				t.Logf("%5d not proved: %s", why[k], k)
			}
		})
	}
}
