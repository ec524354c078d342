package waf

import (
	"context"
	"math/rand/v2"
	"slices"
	"strconv"
	"time"

	"github.com/relais-edge/relais/internal/edge/waf/screen"
	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/stage"
)

// Verdicts of the screen besides its own reasons.
const (
	screenOff     = screen.Reasons + iota // there is none, or an exclusion forbids to rely on it
	screenFailed                          // it panicked
	screenDoubted                         // a rule is in force of which a proof was wrong
	screenVain                            // not asked, since it was in vain for the source's last ones
	screenVerdicts
)

// clean says that the engine need not be asked. With vain the screen was not asked, since it was in vain for the last requests of
// the source: who is to be refused for a reason of ours must be shown to it first.
func (s *Stage) clean(p *policy, x *stage.Exchange, r *sheet) (clean, vain bool) {
	if x.Visitor.Class == stage.Protected || x.Replayed() {
		return s.proved(p, x, r), false
	}
	source := s.budgets.source(x.Client)
	vain, some := s.budgets.vain(source)
	if vain && len(s.common) < cap(s.common) { // else what is clean would wait
		s.screens[screenVain].Inc()
		return false, true
	}
	switch v := s.verdict(p, x, r); {
	case v == int(screen.Clean):
		if some {
			s.budgets.screened(source, true)
		}
		return true, false
	case v != screenOff && v != screenDoubted && !r.Opaque: // these cost nothing
		s.budgets.screened(source, false)
	}
	return false, false
}

// proved says that no rule of the policy's level matches, so that the engine need not be asked.
func (s *Stage) proved(p *policy, x *stage.Exchange, r *sheet) bool {
	return s.verdict(p, x, r) == int(screen.Clean)
}

// verdict is what the screen says of a request, and counts it.
func (s *Stage) verdict(p *policy, x *stage.Exchange, r *sheet) int {
	v := s.screened(p, x, r)
	s.screens[v].Inc()
	return v
}

// screened is what the screen says of a request.
func (s *Stage) screened(p *policy, x *stage.Exchange, r *sheet) (verdict int) {
	defer func() {
		if recover() != nil {
			verdict = screenFailed
		}
	}()
	switch {
	case p.screen == nil || !p.overlay(x, &r.overlay):
		return screenOff
	case s.doubts(p, &r.overlay):
		return screenDoubted
	}
	return int(p.screen.Check(&r.Request, &r.overlay).Reason)
}

// Outcomes of proofs that were checked.
const (
	proofRight = iota
	proofWrong
	proofFailed  // the engine failed
	proofDropped // another one was waiting
)

var proofOutcomes = [...]string{"right", "wrong", "failed", "dropped"}

// defaultSample is of how many proofs one is checked; rest is how many times as long as a check
// took none is made, so that checks use a hundredth of a CPU at most.
const (
	defaultSample = 10_000
	rest          = 99
)

// sample is a request that was proved clean, in memory of its own.
type sample struct {
	x      stage.Exchange
	conn   message.Conn
	sheet  sheet
	cut    bool
	engine *engine
	policy *policy
}

// sample keeps one of many requests that were proved clean for Run. The request does not wait.
func (s *Stage) sample(pt *part, p *policy, x *stage.Exchange, r *sheet, cut bool) {
	if x.Replayed() || rand.IntN(s.cfg.Sample) != 0 {
		return
	}
	if len(s.samples) == cap(s.samples) {
		s.proofs[proofDropped].Inc()
		return
	}
	q := &sample{cut: cut, engine: pt.engine, policy: p}
	x.ForkInto(&q.x)
	if c := x.In.Conn; c != nil {
		q.conn.Peer, q.conn.Local = c.Peer, c.Local
		q.x.In.Conn = &q.conn
	}
	q.x.Replay(1) // so that the engine tells all that it finds
	q.sheet.copyOf(r)
	select {
	case s.samples <- q:
	default:
		s.proofs[proofDropped].Inc()
	}
}

// Run asks the engine about a sample of the requests that were proved clean, until ctx ends.
func (s *Stage) Run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case q := <-s.samples:
			start := time.Now()
			s.check(q)
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(rest * time.Since(start)):
			}
		}
	}
}

// check asks the engine whether a proof was right.
func (s *Stage) check(q *sample) {
	v, err := q.engine.evaluate(q.policy, &q.x, &q.sheet, q.cut)
	switch {
	case err != nil:
		s.proofs[proofFailed].Inc()
	case v.deny || v.detail != "":
		s.proofs[proofWrong].Inc()
		s.doubt(q, v.detail)
	default:
		s.proofs[proofRight].Inc()
	}
}

// Doubt is a rule of which the screen proved, wrongly, that it does not match. From then on every
// request is the engine's where the rule is in force, until the process ends.
type Doubt struct {
	// Rule is its id; 0 when it is not known which one it is, and then nothing is proved any more.
	Rule  int       `json:"rule"`
	Since time.Time `json:"since"`
	// Request is the id of the request, Site whose it was, and Detail what matched, redacted.
	Request string `json:"request"`
	Site    string `json:"site"`
	Detail  string `json:"detail"`

	number, level int // in the engine; of paranoia
}

// Doubts lists the rules of which a proof was wrong; it is empty when all is well.
func (s *Stage) Doubts() []Doubt {
	if list := s.doubted.Load(); list != nil {
		return slices.Clone(*list)
	}
	return nil
}

// doubts says whether a rule is in force of which a proof was wrong.
func (s *Stage) doubts(p *policy, o *screen.Overlay) bool {
	list := s.doubted.Load()
	if list == nil {
		return false
	}
	level, _ := strconv.Atoi(p.detection[0])
	return slices.ContainsFunc(*list, func(d Doubt) bool {
		return d.Rule == 0 || d.level <= level && !o.Removed(d.number)
	})
}

// doubt remembers the rules that matched in a request that was proved clean. Only Run calls it.
func (s *Stage) doubt(q *sample, detail string) {
	list := s.Doubts()
	d := Doubt{Since: time.Now(), Request: q.x.ID.String(), Site: string(q.x.Site.Key), Detail: detail}
	var ids []int
	if q.x.Verdict != nil {
		ids = q.x.Verdict.Rules
	}
	if len(ids) == 0 {
		ids = []int{0}
	}
	for _, id := range ids {
		if slices.ContainsFunc(list, func(have Doubt) bool { return have.Rule == id }) {
			continue
		}
		d.Rule, d.number, d.level = id, -1, 0
		if i, r := q.engine.number(id); r != nil {
			d.number, d.level = i, r.level
		}
		list = append(list, d)
	}
	s.doubted.Store(&list)
	s.cfg.Logger.Error("the firewall's screen let a request pass in which a rule matches; from now on Coraza examines every request where that rule is in force",
		"rules", ids, "request", d.Request, "site", d.Site, "detail", detail)
}
