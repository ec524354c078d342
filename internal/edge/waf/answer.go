package waf

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"time"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/observe"
	"github.com/relais-edge/relais/internal/stage"

	"github.com/corazawaf/coraza/v3/types"
)

// errAnswer refuses an answer.
var errAnswer = &stage.Error{Code: "waf_answer_denied", Side: stage.SideTenant, Status: 403}

// errNotShown closes the body of an answer that is refused.
var errNotShown = errors.New("the firewall refused the answer")

// maxAnswer is the most of an answer that a document may have examined.
const maxAnswer = 1 << 20

// Outcomes of answers.
const (
	answerPass = iota
	answerDeny
	answerWouldDeny
	answerEncoded // compressed, so that nothing can be said of it
	answerOverloaded
	answerFailed
)

var answerOutcomes = [...]string{"pass", "deny", "would-deny", "encoded", "overloaded", "failed"}

func (s *Stage) answerMetrics(r *observe.Registry) {
	f := r.Counters("relais_waf_answers_total", "Answers under a WAF policy with responseBytes, by what became of them.", len(s.answers), "outcome")
	for i, o := range answerOutcomes {
		s.answers[i] = f.With(o)
	}
}

// Answers returns the step that examines answers where a policy has responseBytes. It stands
// below what stores and compresses: it sees what the origin wrote, and what is stored is examined once.
func (s *Stage) Answers() stage.Stage { return (*answers)(s) }

type answers Stage

// Name implements stage.Stage.
func (a *answers) Name() string { return "waf-answer" }

// Serve implements stage.Stage.
func (a *answers) Serve(ctx context.Context, x *stage.Exchange, next stage.Handler) (*message.Response, error) {
	s := (*Stage)(a)
	pt, _ := x.Site.Parts[s.slot].(*part)
	if pt == nil {
		return next.Serve(ctx, x)
	}
	p := pt.policy(x)
	if p == nil || p.answerBytes == 0 {
		return next.Serve(ctx, x)
	}
	mode := p.gate.Mode(x)
	if mode == v1.ModeOff || x.Replayed() || p.excluded(x) { // of a replayed answer the body is not known
		return next.Serve(ctx, x)
	}
	x.Out.Del(message.AcceptEncoding) // so that the origin sends what can be examined
	r, err := next.Serve(ctx, x)
	if err != nil || !text(r) {
		return r, err
	}
	if len(r.Get(message.ContentEncoding)) > 0 {
		s.answers[answerEncoded].Inc()
		x.MarkDetail("waf-answer", answerOutcomes[answerEncoded], "the origin compressed an answer although it was not asked to, so it was not examined")
		return r, nil
	}
	outcome, detail, err := s.judgeAnswer(ctx, pt, p, x, r)
	if err != nil && outcome == answerPass { // the body's own
		r.Body.Close(err)
		return nil, err
	}
	if err != nil {
		switch {
		case x.Visitor.Step == stage.StepOrder && r.Status < 400: // the order is placed: its visitor must hear of it
			err = nil
		case mode == v1.ModeShadow:
			err = nil
		case outcome != answerDeny && x.Visitor.Class == stage.Protected:
			s.unexamined[0].Inc()
			err = nil
		case outcome != answerDeny && p.open:
			s.unexamined[1].Inc()
			err = nil
		}
		if err == nil && outcome == answerDeny {
			outcome = answerWouldDeny
		}
	}
	s.answers[outcome].Inc()
	if outcome != answerPass || detail != "" {
		x.MarkDetail("waf-answer", answerOutcomes[outcome], detail)
	}
	if err != nil {
		if r.Body != nil {
			r.Body.Close(errNotShown)
		}
		return nil, err
	}
	return r, nil
}

// text says whether an answer has a body of a type that the rules look at. Streams of events and
// tunnels are none.
func text(r *message.Response) bool {
	if r.Upgrade != nil || r.Body == nil && len(r.Bytes) == 0 {
		return false
	}
	t := r.Get(message.ContentType)
	for i, c := range t {
		if c == ';' || c == ' ' || c == '\t' {
			t = t[:i]
			break
		}
	}
	return message.EqualFold(t, "text/html") || message.EqualFold(t, "text/plain") || message.EqualFold(t, "text/xml")
}

// judgeAnswer reads what is examined of an answer's body and evaluates it. With outcome
// answerPass the error is the body's own.
func (s *Stage) judgeAnswer(ctx context.Context, pt *part, p *policy, x *stage.Exchange, r *message.Response) (outcome int, detail string, err error) {
	basket := x.Visitor.Class == stage.Protected
	x.MayBlock()
	body := r.Bytes
	if r.Body != nil {
		rest, err := pt.bodies.Read(ctx, r.Body, p.answerBytes, basket)
		if rest == nil {
			return answerPass, "", err
		}
		r.Body = rest
		x.OnEnd(rest)
		if err != nil {
			return answerOverloaded, err.Error(), errOverloaded
		}
		body, _ = rest.Held()
	}
	body = body[:min(len(body), p.answerBytes)]
	wait := s.cfg.Wait
	if p.gate.Mode(x) == v1.ModeShadow {
		wait /= 100
	}
	busy := !basket && p.spent.over(s.budgets.now(), p.cpu)
	if busy && p.bounded {
		return answerOverloaded, detailOverCPU, errOverCPU
	}
	at, outcome := s.enter(ctx, want{wait: wait, basket: basket, big: len(body) >= heavy, busy: busy})
	if outcome != pass {
		if err := ctx.Err(); err != nil {
			return answerPass, "", err
		}
		return answerOverloaded, "no place for an evaluation", errOverloaded
	}
	start := x.Lap()
	v, used, err := pt.engine.timedAnswer(p, x, r, body)
	at.leave()
	p.spent.use(s.budgets.now(), used, p.cpu)
	s.seconds.Observe((x.Lap() - start).Seconds())
	switch {
	case err != nil:
		return answerFailed, err.Error(), errFailed
	case v.deny:
		return answerDeny, v.detail, errAnswer
	}
	return answerPass, v.detail, nil
}

// timedAnswer runs the response phases and measures their CPU time.
func (e *engine) timedAnswer(p *policy, x *stage.Exchange, r *message.Response, body []byte) (v verdict, used time.Duration, err error) {
	runtime.LockOSThread() // the clock is the thread's
	defer runtime.UnlockOSThread()
	start := cpuTime()
	v, err = e.answer(p, x, r, body)
	return v, cpuTime() - start, err
}

// answer runs the response phases. Their rules look at the status, the coding and the body alone
// (TestRulesOfAnswersLookAtAnswersAlone), so that a plain request stands for the real one and only
// sets up the rule set's variables.
func (e *engine) answer(p *policy, x *stage.Exchange, r *message.Response, body []byte) (v verdict, err error) {
	defer func() {
		if r := recover(); r != nil {
			v, err = verdict{}, fmt.Errorf("the engine panicked: %v", r)
		}
	}()
	tx := e.waf.NewTransactionWithID(x.ID.String()).(transaction)
	it, err := e.answerPhases(tx, p, x, r, body)
	if err == nil {
		v.deny = it != nil
		v.detail = e.explain(tx, it, e.score(tx, "blocking_outbound_anomaly_score", p.outbound[0]), firstOfAnswers)
	}
	_ = tx.Close()
	return v, err
}

// firstOfAnswers is the first id of the rules for answers.
const firstOfAnswers = 950000

func (e *engine) answerPhases(tx transaction, p *policy, x *stage.Exchange, r *message.Response, body []byte) (*types.Interruption, error) {
	p.apply(tx, x, e.rules)
	tx.Variables().TX().Set("outbound_anomaly_score_threshold", p.outbound)
	tx.ProcessConnection("0.0.0.0", 0, "", 0)
	tx.ProcessURI("/", "GET", "HTTP/1.1")
	tx.AddRequestHeader("Host", "www.example.com")
	tx.AddRequestHeader("User-Agent", "Mozilla/5.0")
	tx.AddRequestHeader("Accept", "*/*")
	if it := tx.ProcessRequestHeaders(); it != nil {
		return nil, fmt.Errorf("rule %d refused the plain request that sets up the rules for answers", it.RuleID)
	}
	tx.AddResponseHeader("Content-Type", string(r.Get(message.ContentType)))
	if it := tx.ProcessResponseHeaders(r.Status, "HTTP/1.1"); it != nil {
		return it, nil
	}
	if it, _, err := tx.WriteResponseBody(body); it != nil || err != nil {
		return it, err
	}
	return tx.ProcessResponseBody()
}
