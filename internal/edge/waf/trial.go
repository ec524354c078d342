package waf

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"strconv"
	"strings"
	"time"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/edge/waf/regression"
	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/snapshot"
	"github.com/relais-edge/relais/internal/stage"
)

// Trial judges requests outside of an edge, by the same engine, to prove what a policy does. It
// may be used by several goroutines.
type Trial struct{ engine *engine }

// NewTrial compiles the rules, in about 0.3 s and 20 MiB.
func NewTrial() (*Trial, error) {
	e, err := newEngine()
	if err != nil {
		return nil, fmt.Errorf("waf: %w", err)
	}
	return &Trial{e}, nil
}

// Judge is a policy on trial.
type Judge struct {
	engine *engine
	policy *policy
}

// Judge compiles a policy; its mode does not matter.
func (t *Trial) Judge(spec *v1.WafPolicySpec) (*Judge, error) {
	p, err := t.engine.compile(spec)
	if err != nil {
		return nil, err
	}
	return &Judge{t.engine, p}, nil
}

// Judgement is what a policy says of a request.
type Judgement struct {
	Denied bool
	Detail string
	hits   []hit
	direct int
}

// Concerns says that one of some rules hit.
func (j *Judgement) Concerns(rules []string) bool {
	for i := range j.hits {
		for _, r := range rules {
			if r == strconv.Itoa(j.hits[i].Rule) {
				return true
			}
		}
	}
	for _, r := range rules {
		if j.direct != 0 && r == strconv.Itoa(j.direct) {
			return true
		}
	}
	return false
}

// Judge evaluates one request.
func (j *Judge) Judge(q *regression.Case) (Judgement, error) {
	x := exchangeOf(q)
	body := q.Body
	if len(body) > j.policy.bodyBytes {
		body = body[:j.policy.bodyBytes]
	}
	cut := len(body) < len(q.Body)
	var r sheet
	r.fill(x, []byte(body), cut)
	v, err := j.engine.evaluate(j.policy, x, &r, cut)
	return Judgement{v.deny, v.detail, v.hits, v.direct}, err
}

// Smallest lists the fewest exclusions that let a denied request pass.
func (j *Judge) Smallest(q *regression.Case, is *Judgement) []v1.WafExclusion {
	if !is.Denied {
		return nil
	}
	threshold, _ := strconv.Atoi(j.policy.threshold[0])
	path, _, _ := strings.Cut(q.Target, "?")
	return smallest(is.hits, threshold, is.direct, q.Method, path)
}

// nothing is a body that was read already.
type nothing struct{}

func (nothing) Next(context.Context) ([]byte, error) { return nil, io.EOF }
func (nothing) Close(error)                          {}

func exchangeOf(q *regression.Case) *stage.Exchange {
	r := &message.Request{Proto: protoOf(q.Proto)}
	r.SetMethod([]byte(q.Method))
	path, query, has := strings.Cut(q.Target, "?")
	r.SetPath([]byte(path))
	if has {
		r.SetQuery([]byte(query))
	}
	host := ""
	for _, f := range q.Fields {
		if strings.EqualFold(f.Name, "host") {
			host = f.Value
		}
		r.AddLine([]byte(f.Name), []byte(f.Value))
	}
	r.SetAuthority([]byte(host))
	if q.Body != "" {
		r.Body, r.ContentLength = nothing{}, int64(len(q.Body))
	}
	x := &stage.Exchange{In: r, Site: &snapshot.Site{}, Route: &snapshot.Route{Spec: &v1.Route{}}, Start: time.Now(), Client: netip.AddrFrom4([4]byte{198, 51, 100, 1})}
	x.SetHost([]byte(host))
	x.SetPath([]byte(path))
	return x
}

func protoOf(s string) message.Proto {
	for _, p := range []message.Proto{message.HTTP10, message.HTTP2, message.HTTP3} {
		if p.String() == s {
			return p
		}
	}
	return message.HTTP11
}
