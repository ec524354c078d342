package waf

import (
	"fmt"
	"runtime"
	"slices"
	"time"

	"github.com/relais-edge/relais/internal/stage"

	"github.com/corazawaf/coraza/v3/types"
)

// question is a request for the engine.
type question struct {
	part   *part
	policy *policy
	x      *stage.Exchange
	sheet  *sheet
	cut    bool
	wait   time.Duration
	vain   bool // the screen was not asked

	verdict verdict // once it was evaluated
}

// verdict is what the engine says of a request.
type verdict struct {
	deny bool
	// detail says why, or what matched without reaching the threshold; empty when nothing did.
	detail string
	// hits are the rules that matched; nil when nothing did.
	hits []hit
	// direct is a rule that denied whatever the score; 0 when none did.
	direct int
	// demoted says that only rules that log here for now would have denied.
	demoted bool
}

// judged evaluates the request, and measures its CPU time: on a busy machine time goes by that
// is nobody's fault.
func (q *question) judged() (v verdict, used time.Duration, err error) {
	runtime.LockOSThread() // the clock is the thread's
	defer runtime.UnlockOSThread()
	start := cpuTime()
	v, err = q.part.judged(q.policy, q.x, q.sheet, q.cut)
	return v, cpuTime() - start, err
}

// unjudged ends a request that could not be judged. It passes when the screen, if it was not asked yet, proves it clean, when its
// visitor has a basket, or when the policy wants that.
func (s *Stage) unjudged(q *question, outcome int, detail string, err error) (int, string, error) {
	switch {
	case q.vain && s.proved(q.policy, q.x, q.sheet):
		return pass, "", nil
	case q.x.Visitor.Class == stage.Protected:
		s.unexamined[0].Inc()
		return outcome, detail + "; a visitor with a basket passes", nil
	case q.policy.open:
		s.unexamined[1].Inc()
		return outcome, detail + "; it passes, as the policy's onFailure says", nil
	}
	return outcome, detail, err
}

// evaluate runs the request phases on what r holds; cut says that there is more of the body. What is denied is evaluated
// once more without the hits that an exclusion takes out for the shape of their values.
func (e *engine) evaluate(p *policy, x *stage.Exchange, r *sheet, cut bool) (verdict, error) {
	v, err := e.once(p, x, r, cut)
	if err != nil || !v.deny || v.direct != 0 || len(p.shaped) == 0 {
		return v, err
	}
	out := e.fitting(p, x, v.hits)
	if len(out) == 0 {
		return v, nil
	}
	without := *p
	without.exclusions = append(slices.Clip(p.exclusions), out...)
	return e.once(&without, x, r, cut)
}

// once runs the request phases. A panic of the engine is returned as an error; its transaction is not used again.
func (e *engine) once(p *policy, x *stage.Exchange, r *sheet, cut bool) (v verdict, err error) {
	defer func() {
		if r := recover(); r != nil {
			v, err = verdict{}, fmt.Errorf("the engine panicked: %v", r)
		}
	}()
	tx := e.waf.NewTransactionWithID(x.ID.String()).(transaction)
	v, err = e.phases(tx, p, x, r, cut)
	_ = tx.Close() // fails when a temporary file is gone already
	return v, err
}

func (e *engine) phases(tx transaction, p *policy, x *stage.Exchange, r *sheet, cut bool) (v verdict, err error) {
	p.apply(tx, x, e.rules)
	head(tx, x, r)
	it := tx.ProcessRequestHeaders()
	if it == nil {
		if it, err = examineBody(tx, r.Body, cut); err != nil {
			return verdict{}, err
		}
	}
	v.deny = it != nil
	if v.detail = e.explain(tx, it, e.score(tx, "blocking_inbound_anomaly_score", p.threshold[0]), 0); v.detail != "" {
		v.hits = e.hits(tx, p.level())
	}
	if it != nil && e.rule(it.RuleID) != nil {
		v.direct = it.RuleID
	}
	if x.Replayed() {
		x.Verdict = e.found(tx, p, v.deny)
	}
	return v, nil
}

func examineBody(tx transaction, body []byte, cut bool) (*types.Interruption, error) {
	if cut {
		// The rest is not ours to judge: an end in the middle is no malformed body.
		tx.RemoveRuleByID(ruleParse)
		tx.RemoveRuleByID(ruleMultipart)
		if s, ok := tx.Variables().InboundDataError().(interface{ Set(string) }); ok {
			s.Set("1")
		}
	}
	if len(body) > 0 {
		if it, _, err := tx.WriteRequestBody(body); it != nil || err != nil {
			return it, err
		}
	}
	return tx.ProcessRequestBody()
}

// head gives the transaction the connection, the request line and the fields.
func head(tx transaction, x *stage.Exchange, r *sheet) {
	client, port := "0.0.0.0", 0
	if x.Client.IsValid() {
		client = x.Client.Unmap().WithZone("").String()
	}
	server, serverPort := "", 0
	if c := x.In.Conn; c != nil {
		port, serverPort = int(c.Peer.Port()), int(c.Local.Port())
		server = c.Local.Addr().String()
	}
	tx.ProcessConnection(client, port, server, serverPort)
	tx.ProcessURI(string(r.Target), string(r.Method), string(r.Proto))
	for i := range r.Fields {
		tx.AddRequestHeader(string(r.Fields[i].Name), string(r.Fields[i].Value))
	}
	tx.SetServerName(string(x.Host))
}
