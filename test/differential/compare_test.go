package differential

import (
	"bytes"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
)

// pair is a case and the two reactions to it.
type pair struct {
	*kase
	own, std *reaction
	differs  []difference
}

// difference is one way in which two reactions differ.
type difference struct{ aspect, own, std string }

// Verdicts other than a status of the edge's own.
const (
	served = "served" // by the origin
	closed = "closed" // without an answer
	broken = "cut"    // the answer is not whole, and can be seen not to be
)

// verdict is what became of the first request.
func (re *reaction) verdict() string {
	switch {
	case len(re.answers) == 0 && len(re.asked) > 0:
		return broken
	case len(re.answers) == 0:
		return closed
	}
	a := re.answers[0]
	switch {
	case !a.whole && !a.bare(): // net/http ends the connection with a reset under its own pages
		return broken
	case a.fields.count(strings.ToLower(fromField)) > 0:
		return served
	}
	return strconv.Itoa(a.status)
}

// bare says that net/http answered by itself: none of our pages is without Proxy-Status.
func (a *answer) bare() bool {
	return a.status >= 400 && a.fields.get("connection") == "close" &&
		a.fields.count("proxy-status")+a.fields.count("x-request-id")+a.fields.count(strings.ToLower(fromField)) == 0
}

// requests are those of the origin that were whole, in the name of id.
func (re *reaction) requests(id string) (out []*request) {
	for _, r := range re.asked {
		if r.whole && r.fields.get(strings.ToLower(caseField)) == id {
			out = append(out, r)
		}
	}
	return out
}

// compare finds all differences. After another verdict nothing else is comparable.
func (p *pair) compare() {
	p.differs = nil
	own, std := p.own.verdict(), p.std.verdict()
	if p.note("verdict", own, std); own != std || own == broken {
		return
	}
	p.note("answers", strconv.Itoa(len(p.own.answers)), strconv.Itoa(len(p.std.answers)))
	p.note("stray bytes", fmt.Sprintf("%.40q", p.own.stray), fmt.Sprintf("%.40q", p.std.stray))
	for i := range min(len(p.own.answers), len(p.std.answers)) {
		prefix := ""
		if i > 0 {
			prefix = "after: "
		}
		p.compareAnswers(prefix, p.own.answers[i], p.std.answers[i])
	}
	p.compareRequests("origin: ", p.first())
	p.compareRequests("origin after: ", p.after())
}

func (p *pair) note(aspect, own, std string) {
	if own != std {
		p.differs = append(p.differs, difference{aspect, own, std})
	}
}

func (p *pair) compareAnswers(prefix string, own, std *answer) {
	p.note(prefix+"status", strconv.Itoa(own.status), strconv.Itoa(std.status))
	p.note(prefix+"version", own.version, std.version)
	if own.bare() != std.bare() {
		p.note(prefix+"page", fmt.Sprintf("bare %v", own.bare()), fmt.Sprintf("bare %v", std.bare()))
		return
	}
	p.note(prefix+"reason", own.reason, std.reason)
	p.note(prefix+"interim", fmt.Sprint(own.interim), fmt.Sprint(std.interim))
	p.note(prefix+"framing", own.framing, std.framing)
	p.compareFields(prefix+"field ", p.stable(own.fields), p.stable(std.fields))
	p.compareFields(prefix+"trailer ", own.trailer, std.trailer)
	p.note(prefix+"whole", fmt.Sprint(own.whole), fmt.Sprint(std.whole))
	if own.whole && std.whole {
		p.note(prefix+"body", short(own.stableBody()), short(std.stableBody()))
	}
}

// stable leaves out what is never the same twice.
func (p *pair) stable(f fields) fields {
	return slices.DeleteFunc(f.sorted(), func(l line) bool {
		switch l.name {
		case "date":
			return !strings.HasPrefix(extras("date"), "Date: "+l.value) // the origin's own
		case "x-request-id", "server-timing":
			return true
		}
		return false
	})
}

// stableBody is the body without the request's id.
func (a *answer) stableBody() []byte {
	if id := a.fields.get("x-request-id"); id != "" {
		return bytes.ReplaceAll(a.body, []byte(id), []byte("ID"))
	}
	return a.body
}

func short(b []byte) string {
	if len(b) > 60 {
		sum := uint32(2166136261)
		for _, c := range b {
			sum = (sum ^ uint32(c)) * 16777619
		}
		return fmt.Sprintf("%q… %d bytes, sum %08x", b[:40], len(b), sum)
	}
	return fmt.Sprintf("%q", b)
}

// compareFields compares lines name by name.
func (p *pair) compareFields(prefix string, own, std fields) {
	values := func(f fields, name string) string {
		var v []string
		for _, l := range f {
			if l.name == name {
				v = append(v, strconv.Quote(l.value))
			}
		}
		return strings.Join(v, " ")
	}
	var names []string
	for _, l := range append(slices.Clone(own), std...) {
		if !slices.Contains(names, l.name) {
			names = append(names, l.name)
			p.note(prefix+l.name, values(own, l.name), values(std, l.name))
		}
	}
}

func (p *pair) compareRequests(prefix, id string) {
	own, std := p.own.requests(id), p.std.requests(id)
	if p.plan.Get("bad") != "" && len(own) > 0 && len(std) > 0 {
		own, std = own[:1], std[:1] // whether it was asked again depends on the connection's age
	}
	p.note(prefix+"requests", strconv.Itoa(len(own)), strconv.Itoa(len(std)))
	for i := range min(len(own), len(std)) {
		o, s := own[i], std[i]
		p.note(prefix+"method", o.method, s.method)
		p.note(prefix+"target", o.target, s.target)
		p.note(prefix+"framing", o.framing, s.framing)
		p.note(prefix+"body", short(o.body), short(s.body))
		p.compareFields(prefix+"field ", p.stable(o.fields), p.stable(s.fields))
		p.compareFields(prefix+"trailer ", o.trailer, s.trailer)
	}
}

// invariants hold for both engines whatever the other does. It returns what is broken.
func (c *kase) invariants(re *reaction, own bool) (bad []string) {
	say := func(format string, args ...any) { bad = append(bad, fmt.Sprintf(format, args...)) }
	if re.hung {
		say("no end of the reaction within %v", patience)
	}
	if re.breach != "" {
		say("the edge broke the protocol: %s", re.breach)
	}
	sent := 1
	if c.next != nil {
		sent = 2
	}
	if len(re.answers) > sent {
		say("%d answers to %d requests", len(re.answers), sent)
	}
	if len(re.stray) > 0 && own {
		say("a body with the answer to HEAD (RFC 9110 section 9.3.2): %.60q", re.stray)
	}
	for i, a := range re.answers {
		for _, what := range c.page(a, own) {
			say("answer %d: %s", i, what)
		}
		if i+1 < len(re.answers) && strings.EqualFold(a.fields.get("connection"), "close") {
			say("answer %d says close and another one follows (RFC 9112 section 9.6)", i)
		}
	}
	for _, what := range c.reached(re) {
		say("%s", what)
	}
	return bad
}

// page holds an answer against what every answer of ours must have.
func (c *kase) page(a *answer, own bool) (bad []string) {
	if a.bare() && !own {
		return nil
	}
	if a.fields.get("x-request-id") == "" && a.status != 101 {
		bad = append(bad, fmt.Sprintf("status %d without X-Request-Id", a.status))
	}
	from := a.fields.count(strings.ToLower(fromField)) > 0
	if !from && a.fields.get("proxy-status") == "" {
		bad = append(bad, fmt.Sprintf("status %d of our own without Proxy-Status", a.status))
	}
	if _, err := http.ParseTime(a.fields.get("date")); err != nil && a.status != 101 {
		bad = append(bad, fmt.Sprintf("status %d with Date %q (RFC 9110 section 6.6.1)", a.status, a.fields.get("date")))
	}
	if !from && a.whole && a.framing == framingClose {
		bad = append(bad, "a page of our own that only the end of the connection ends")
	}
	return bad
}

// reached checks what came to the origin.
func (c *kase) reached(re *reaction) (bad []string) {
	first, after := re.requests(c.first()), re.requests(c.after())
	verdict := re.verdict()
	if len(re.requests(c.smuggled())) > 0 {
		bad = append(bad, "a request that hides in a body reached the origin")
	}
	refused := verdict != served && verdict != broken && verdict != "502"
	switch {
	case refused && len(first) > 0:
		bad = append(bad, "the request got "+verdict+" and reached the origin")
	case verdict == served && len(first) == 0 && !c.plan.Has("refuse"):
		bad = append(bad, "the request was served and the origin was not asked")
	case len(first) > 1 && (c.plan.Get("bad") == "" || !c.repeatable()):
		bad = append(bad, fmt.Sprintf("the origin was asked %d times", len(first)))
	}
	if len(after) > 0 && len(re.answers) < 2 {
		bad = append(bad, "the origin was asked the next request, which was not answered")
	}
	if c.framing == framingLength && len(first) > 0 && !bytes.Equal(first[0].body, c.body) {
		bad = append(bad, "the origin got another body: "+short(first[0].body))
	}
	return bad
}

// repeatable says whether an edge may send a request again (RFC 9110 section 9.2.2).
func (c *kase) repeatable() bool {
	return c.method != "POST" && c.method != "PATCH" || bytes.Contains(c.head, []byte("Idempotency-Key"))
}

// expected says whether our own core answered a case as its grammar demands.
func (c *kase) expected(re *reaction) string {
	got := re.verdict()
	faults := c.faults()
	if len(faults) == 0 {
		want := []string{served}
		switch c.plan.Get("bad") {
		case "line", "lengths", "both":
			want = []string{"502"}
		case "short", "chunk":
			want = []string{broken}
			if s := c.plan.Get("status"); c.method == "HEAD" || s == "204" || s == "304" {
				want = []string{served} // there is no body
			}
		}
		if c.has("head cut short") {
			want = []string{closed}
		}
		if !slices.Contains(want, got) {
			return fmt.Sprintf("our own core: %s, want %v", got, want)
		}
		return ""
	}
	var want []string
	for _, o := range faults {
		for _, s := range o.statuses {
			want = append(want, strconv.Itoa(s))
		}
	}
	if c.has("head cut short") {
		want = append(want, closed)
	}
	if !slices.Contains(want, got) {
		return fmt.Sprintf("our own core: %s, want %v", got, want)
	}
	return ""
}
