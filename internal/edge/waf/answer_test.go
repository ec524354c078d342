package waf

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/stage"
)

// page is an origin's answer.
type page struct {
	r      message.Response
	status int
	fields []string
	body   *chunks
	bytes  string
	accept string // what it was asked for
}

func (p *page) Serve(_ context.Context, x *stage.Exchange) (*message.Response, error) {
	p.accept = string(x.Out.Get(message.AcceptEncoding))
	p.r.Reset()
	p.r.Status, p.r.ContentLength = p.status, -1
	for i := 0; i < len(p.fields); i += 2 {
		p.r.SetLine(p.fields[i], []byte(p.fields[i+1]))
	}
	if p.body != nil {
		p.r.Body = p.body
	} else {
		p.r.SetBytes([]byte(p.bytes))
	}
	return &p.r, nil
}

// readAll reads an answer's body to its end.
func readAll(t *testing.T, r *message.Response) string {
	t.Helper()
	if r.Body == nil {
		return string(r.Bytes)
	}
	var b strings.Builder
	for {
		p, err := r.Body.Next(context.Background())
		b.Write(p)
		if err == io.EOF {
			r.Body.Close(nil)
			return b.String()
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

const leak = `<html><?php echo "Hello World!\n" ?></html>`

func TestAnswersAreExamined(t *testing.T) {
	html := []string{"Content-Type", "text/html; charset=utf-8"}
	some := new(v1.Size(1000))
	for _, c := range []struct {
		name   string
		spec   v1.WafPolicySpec
		fields []string
		body   []string
		change func(*stage.Exchange)
		denied bool
		code   string // of the mark
	}{
		{"a leak", v1.WafPolicySpec{ResponseBytes: some}, html, []string{leak[:12], leak[12:]}, nil, true, "deny"},
		{"in memory", v1.WafPolicySpec{ResponseBytes: some}, html, nil, nil, true, "deny"},
		{"not asked for", v1.WafPolicySpec{}, html, []string{leak}, nil, false, ""},
		{"nothing", v1.WafPolicySpec{ResponseBytes: some}, html, []string{"<html>", "</html>"}, nil, false, ""},
		{"beyond the bytes", v1.WafPolicySpec{ResponseBytes: new(v1.Size(8))}, html, []string{"<html>", "<!-- 8 -->", leak}, nil, false, ""},
		{"an image", v1.WafPolicySpec{ResponseBytes: some}, []string{"Content-Type", "image/png"}, []string{leak}, nil, false, ""},
		{"events", v1.WafPolicySpec{ResponseBytes: some}, []string{"Content-Type", "text/event-stream"}, []string{leak}, nil, false, ""},
		{"compressed", v1.WafPolicySpec{ResponseBytes: some}, append(slices.Clone(html), "Content-Encoding", "gzip"), []string{leak}, nil, false, "encoded"},
		{"shadow", v1.WafPolicySpec{ResponseBytes: some, Protection: v1.Protection{Mode: v1.ModeShadow}}, html, []string{leak}, nil, false, "would-deny"},
		{"off", v1.WafPolicySpec{ResponseBytes: some, Protection: v1.Protection{Mode: v1.ModeOff}}, html, []string{leak}, nil, false, ""},
		{"threshold", v1.WafPolicySpec{ResponseBytes: some, OutboundThreshold: 100}, html, []string{leak}, nil, false, "pass"},
		{"excluded", v1.WafPolicySpec{ResponseBytes: some, Exclusions: []v1.WafExclusion{{Rules: []string{"953120"}, Path: "/x"}}}, html, []string{leak}, nil, false, ""},
		{"excluded elsewhere", v1.WafPolicySpec{ResponseBytes: some, Exclusions: []v1.WafExclusion{{Rules: []string{"953120"}, Path: "/y"}}}, html, []string{leak}, nil, true, "deny"},
		{"an order", v1.WafPolicySpec{ResponseBytes: some}, html, []string{leak}, func(x *stage.Exchange) { x.Visitor.Step = stage.StepOrder }, false, "would-deny"},
		{"a basket", v1.WafPolicySpec{ResponseBytes: some}, html, []string{leak}, func(x *stage.Exchange) { x.Visitor.Class = stage.Protected }, true, "deny"},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := newRig(t, Config{}, c.spec)
			x := g.exchange(request{target: "/x"})
			if c.change != nil {
				c.change(x)
			}
			x.Out.SetLine("Accept-Encoding", []byte("gzip"))
			o := &page{status: 200, fields: c.fields, bytes: leak}
			sent := leak
			if c.body != nil {
				o.body, sent = &chunks{parts: slices.Clone(c.body)}, strings.Join(c.body, "")
			}
			r, err := g.st.Answers().Serve(context.Background(), x, o)
			if (err != nil) != c.denied {
				t.Fatalf("%v %v", err, x.Trail.Marks())
			}
			code := ""
			for _, m := range x.Trail.Marks() {
				code = m.Code
				if m.Stage != "waf-answer" || m.Code != "encoded" && !strings.Contains(m.Detail, "953120") || strings.Contains(m.Detail, "Hello") {
					t.Errorf("%+v", m)
				}
			}
			if code != c.code {
				t.Errorf("marked %q, want %q", code, c.code)
			}
			if want := map[bool]string{true: "", false: "gzip"}[c.spec.ResponseBytes != nil && c.spec.Mode != v1.ModeOff]; o.accept != want {
				t.Errorf("the origin was asked for %q", o.accept)
			}
			if c.denied {
				if e := stage.AsError(err); e.Code != "waf_answer_denied" || e.Status != 403 || o.body != nil && !o.body.closed {
					t.Errorf("%+v", e)
				}
			} else if got := readAll(t, r); got != sent {
				t.Errorf("%q became %q", sent, got)
			}
			x.End(message.Outcome{})
			if n := g.st.bodies.Used(); n != 0 || len(g.st.common) != 0 {
				t.Errorf("%d bytes and %d places kept", n, len(g.st.common))
			}
		})
	}
}

func TestAnswersThatCannotBeJudged(t *testing.T) {
	spec := v1.WafPolicySpec{ResponseBytes: new(v1.Size(1000))}
	ask := func(g *rig, basket bool, err error) (*message.Response, *chunks, error) {
		x := g.exchange(request{target: "/x", basket: basket})
		o := &page{status: 200, fields: []string{"Content-Type", "text/html"}, body: &chunks{parts: []string{"<html>"}, err: err}}
		r, err := g.st.Answers().Serve(context.Background(), x, o)
		x.End(message.Outcome{})
		return r, o.body, err
	}
	full := func(spec v1.WafPolicySpec) *rig {
		g := newRig(t, Config{Concurrent: 1, Wait: time.Millisecond}, spec)
		g.st.common <- struct{}{}
		g.st.basket <- struct{}{}
		return g
	}
	if _, body, err := ask(full(spec), false, nil); err == nil || stage.AsError(err).Code != "waf_overloaded" || !body.closed {
		t.Errorf("no place: %v", err)
	}
	if r, _, err := ask(full(spec), true, nil); err != nil || r == nil {
		t.Errorf("with a basket: %v", err)
	}
	spec.OnFailure = "open"
	g := full(spec)
	if r, _, err := ask(g, false, nil); err != nil || r == nil || g.sample(`relais_waf_unexamined_total{why="policy"}`) != "1" || g.sample(`relais_waf_answers_total{outcome="overloaded"}`) != "1" {
		t.Errorf("open: %v", err)
	}
	boom := errors.New("boom")
	if _, body, err := ask(newRig(t, Config{}, spec), false, boom); !errors.Is(err, boom) || !body.closed {
		t.Errorf("a body that fails: %v", err)
	}
}

// TestRulesOfAnswersLookAtAnswersAlone: so that a plain request may stand for the real one.
func TestRulesOfAnswersLookAtAnswersAlone(t *testing.T) {
	e, err := shared()
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, r := range e.rules {
		if r.id < firstOfAnswers {
			continue
		}
		n++
		for _, v := range r.variables {
			if !slices.Contains([]string{"RESPONSE_BODY", "RESPONSE_STATUS", "TX"}, v) {
				t.Errorf("rule %d looks at %s", r.id, v)
			}
		}
	}
	if n < 30 {
		t.Errorf("%d rules for answers", n)
	}
}

// TestAnswersAreJudgedAsByStockCoraza: on the answers of the rule set's own tests the same rules
// match and the same are refused, at each level.
func TestAnswersAreJudgedAsByStockCoraza(t *testing.T) {
	e, err := shared()
	if err != nil {
		t.Fatal(err)
	}
	all, err := cases()
	if err != nil {
		t.Fatal(err)
	}
	rules := func(tx transaction) (ids []int) {
		for _, m := range tx.MatchedRules() {
			if id := m.Rule().ID(); id >= firstOfAnswers && id < 959000 && m.Message() != "" {
				ids = append(ids, id)
			}
		}
		return ids
	}
	for pl := 1; pl <= 4; pl++ {
		w := stock(t, pl)
		p, err := e.compile(&v1.WafPolicySpec{Paranoia: pl, ResponseBytes: new(v1.Size(1000))})
		if err != nil {
			t.Fatal(err)
		}
		g := newRig(t, Config{}, v1.WafPolicySpec{})
		n, found, denied := 0, 0, 0
		for i := range all {
			c := &all[i]
			var d struct {
				Body    string `json:"body"`
				Encoded string `json:"encodedBody"`
				Status  int    `json:"status"`
			}
			if c.Rule < firstOfAnswers || json.Unmarshal([]byte(c.Body), &d) != nil {
				continue
			}
			if b, err := base64.StdEncoding.DecodeString(d.Encoded); err == nil && len(b) > 0 {
				d.Body = string(b)
			}
			if n++; raced && n%20 != pl {
				continue
			}
			x := g.exchange(request{target: "/"})
			var s sheet
			s.fill(x, nil, false)
			r := &message.Response{Status: max(d.Status, 200)}
			r.SetLine("Content-Type", []byte("text/html; charset=utf-8"))
			tx := w.NewTransaction().(transaction)
			head(tx, x, &s)
			if tx.ProcessRequestHeaders() != nil {
				t.Fatal("the request is refused")
			}
			if _, err := tx.ProcessRequestBody(); err != nil {
				t.Fatal(err)
			}
			tx.AddResponseHeader("Content-Type", "text/html; charset=utf-8")
			it := tx.ProcessResponseHeaders(r.Status, "HTTP/1.1")
			if it == nil {
				if it, _, err = tx.WriteResponseBody([]byte(d.Body)); it == nil && err == nil {
					it, err = tx.ProcessResponseBody()
				}
			}
			own := e.waf.NewTransaction().(transaction)
			got, err2 := e.answerPhases(own, p, x, r, []byte(d.Body))
			if err != nil || err2 != nil || (it == nil) != (got == nil) || !slices.Equal(rules(tx), rules(own)) {
				t.Errorf("level %d, %s: %v %v %v, stock Coraza %v %v %v", pl, c.Name, rules(own), got, err2, rules(tx), it, err)
			}
			if len(rules(tx)) > 0 {
				found++
			}
			if it != nil {
				denied++
			}
			_, _ = tx.Close(), own.Close()
		}
		t.Logf("level %d: %d answers, rules match in %d, %d are refused", pl, n, found, denied)
		if !raced && (found < 50 || denied < 50) {
			t.Errorf("level %d: rules match in %d, %d are refused", pl, found, denied)
		}
	}
}
