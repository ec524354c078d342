package waf

import (
	"context"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/edge/waf/regression"
)

// Proof says what an exclusion loses of the rule set's own attack tests.
type Proof struct {
	// Tests is how many requests there are, Denied how many of them the policy denies without any
	// exclusion.
	Tests  int `json:"tests"`
	Denied int `json:"denied"`
	// Lost are the tests that pass because of the exclusion when they are sent to its path as
	// they are written; Aimed those that pass when what they carry is sent as its target.
	Lost  []string `json:"lost"`
	Aimed []string `json:"aimed"`
}

// MuchLost is the share of the denied tests from which a proof says that too much is lost.
const MuchLost = 0.01

// Share is the part of the denied tests that are lost as they are written.
func (p *Proof) Share() float64 { return share(len(p.Lost), p.Denied) }

// AimedShare is the part of the denied tests that are lost when they are aimed.
func (p *Proof) AimedShare() float64 { return share(len(p.Aimed), p.Denied) }

func share(n, of int) float64 {
	if of == 0 {
		return 0
	}
	return float64(n) / float64(of)
}

// Prover replays the attack tests.
type Prover struct {
	trial *Trial
	cases []regression.Case
	bare  map[string][]Judgement // of each case without exclusions, by what the policy says else
}

// NewProver reads the tests. Every is 1 for all of them, n for each nth.
func NewProver(t *Trial, every int) (*Prover, error) {
	all, err := regression.Cases()
	if err != nil {
		return nil, err
	}
	p := &Prover{trial: t, bare: map[string][]Judgement{}}
	for i := 0; i < len(all); i += max(every, 1) {
		p.cases = append(p.cases, all[i])
	}
	return p, nil
}

// Prove says what adding exclusions to a policy loses. All of add is taken together. It takes
// some seconds of CPU, most of them for the first proof of a policy.
func (p *Prover) Prove(ctx context.Context, spec *v1.WafPolicySpec, add []v1.WafExclusion) (*Proof, error) {
	bare, err := p.baseline(ctx, spec)
	if err != nil {
		return nil, err
	}
	with := *spec
	with.Exclusions = append(slices.Clone(spec.Exclusions), add...)
	before, err := p.trial.Judge(spec)
	if err != nil {
		return nil, err
	}
	after, err := p.trial.Judge(&with)
	if err != nil {
		return nil, err
	}
	out := &Proof{Tests: len(p.cases), Lost: []string{}, Aimed: []string{}}
	var candidates []int
	for i := range bare {
		if bare[i].Denied {
			out.Denied++
			if slices.ContainsFunc(add, func(x v1.WafExclusion) bool { return len(x.Rules) == 0 || bare[i].Concerns(x.Rules) }) {
				candidates = append(candidates, i)
			}
		}
	}
	lost := make([][2]bool, len(candidates))
	err = each(ctx, len(candidates), func(k int) error {
		c := &p.cases[candidates[k]]
		for i := range add {
			x := &add[i]
			written := c.On(x.Path)
			if l, err := loses(before, after, &written); err != nil {
				return err
			} else if l {
				lost[k][0] = true
			}
			for _, m := range methods(x) {
				for _, aimed := range c.Aimings(m, x.Path, x.Target) {
					if l, err := loses(before, after, &aimed); err != nil {
						return err
					} else if l {
						lost[k][1] = true
						break
					}
				}
			}
		}
		return nil
	})
	for k, i := range candidates {
		if lost[k][0] {
			out.Lost = append(out.Lost, p.cases[i].Name)
		}
		if lost[k][1] {
			out.Aimed = append(out.Aimed, p.cases[i].Name)
		}
	}
	return out, err
}

func methods(x *v1.WafExclusion) []string {
	if len(x.Methods) == 0 {
		return []string{"GET", "POST"}
	}
	return x.Methods
}

func loses(before, after *Judge, q *regression.Case) (bool, error) {
	v, err := before.Judge(q)
	if err != nil || !v.Denied {
		return false, err
	}
	v, err = after.Judge(q)
	return !v.Denied, err
}

// baseline judges every case by the policy without its exclusions.
func (p *Prover) baseline(ctx context.Context, spec *v1.WafPolicySpec) ([]Judgement, error) {
	key := strconv.Itoa(spec.Paranoia) + " " + strconv.Itoa(spec.InboundThreshold) + " " + v1.Value(spec.BodyBytes).String()
	if have := p.bare[key]; have != nil {
		return have, nil
	}
	without := *spec
	without.Exclusions = nil
	j, err := p.trial.Judge(&without)
	if err != nil {
		return nil, err
	}
	out := make([]Judgement, len(p.cases))
	err = each(ctx, len(out), func(i int) (err error) {
		out[i], err = j.Judge(&p.cases[i])
		out[i].Detail = ""
		return err
	})
	if err != nil {
		return nil, err
	}
	p.bare[key] = out
	return out, nil
}

// each calls do for 0 to n-1, on all CPUs, until one fails or ctx ends.
func each(ctx context.Context, n int, do func(int) error) error {
	var next atomic.Int64
	var once sync.Once
	var first error
	var wg sync.WaitGroup
	for range min(runtime.GOMAXPROCS(0), n) {
		wg.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= n {
					return
				}
				err := ctx.Err()
				if err == nil {
					err = do(i)
				}
				if err != nil {
					once.Do(func() { first = err })
					next.Store(int64(n))
					return
				}
			}
		})
	}
	wg.Wait()
	return first
}
