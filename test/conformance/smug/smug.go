// Package smug is a battery of ambiguous HTTP messages for reverse proxies. It
// sends hand-made bytes to a proxy, counts the answers on the wire, and is the
// origin behind the proxy, so that it sees exactly what was forwarded.
//
// A dead proxy refuses everything and so passes most cases: look at the group
// "baseline" first, and at Report.Dead.
package smug

import "fmt"

// Host is the authority that every case asks for. The proxy under test must
// route it to the Recorder.
const Host = "edge.test"

// Want is what a proxy must do with a case.
type Want byte

const (
	// Serve: the message is valid; it is served and forwarded clean.
	Serve Want = 'A'
	// Refuse: the message is answered with 4xx or 5xx, a stream error or a close.
	Refuse Want = 'R'
	// Either: refused, or served in a normalised form that two parsers cannot
	// read differently.
	Either Want = 'N'
)

// String is the want in one word.
func (w Want) String() string {
	switch w {
	case Serve:
		return "serve"
	case Refuse:
		return "refuse"
	case Either:
		return "either"
	}
	return fmt.Sprintf("Want(%d)", byte(w))
}

// Verdict is the outcome of a case.
type Verdict string

// The verdicts, from good to bad.
const (
	// Pass: as wanted.
	Pass Verdict = "pass"
	// Fail: served what must be refused, or refused what must be served.
	Fail Verdict = "FAIL"
	// Forwarded: bytes that two parsers can read differently reached the origin.
	Forwarded Verdict = "FWD"
	// Smuggled: a hidden request ran.
	Smuggled Verdict = "SMUGGLE"
)

// Case is one hand-made message. Exactly one of Raw and H2 is set.
type Case struct {
	Name    string   // group/what, without spaces; unique
	Want    Want     // what a proxy must do
	Rule    string   // where the expectation comes from
	Raw     string   // the bytes of an HTTP/1 connection
	Answers int      // final answers that a right server gives when it serves
	H2      *Request // a request for an HTTP/2 connection with prior knowledge
}

// Request is an HTTP/2 request that need not be valid.
type Request struct {
	Fields  []Field
	Body    string
	Trailer []Field // nil: no trailer section
}

// Field is a field line of a Request. Nothing is checked or lower-cased.
type Field struct{ Name, Value string }

// Group is the part of the name before the slash.
func (c Case) Group() string {
	for i := range len(c.Name) {
		if c.Name[i] == '/' {
			return c.Name[:i]
		}
	}
	return c.Name
}

// Result is what one case showed.
type Result struct {
	Name     string   `json:"name"`
	Want     string   `json:"want"`
	Verdict  Verdict  `json:"verdict"`
	Why      string   `json:"why,omitempty"`
	Rule     string   `json:"rule"`
	Statuses []int    `json:"statuses"` // final answers on the wire; Garbage for bytes that are no HTTP/1 answer
	Closed   bool     `json:"closed"`   // the proxy closed the connection (HTTP/2: GOAWAY or close)
	Requests []string `json:"requests"` // request lines that reached the origin
	Findings []string `json:"findings"` // ambiguities in them
}

// judge compares what was seen with what the case wants.
func judge(c Case, seen exchange, rec Record) Result {
	r := Result{
		Name: c.Name, Want: c.Want.String(), Verdict: Pass, Rule: c.Rule,
		Statuses: seen.statuses, Closed: seen.closed,
		Requests: rec.Requests, Findings: rec.Findings,
	}
	served := 0
	for _, s := range seen.statuses {
		if s == Garbage || (s >= 200 && s < 400) {
			served++
		}
	}
	switch {
	case rec.hidden() || (served > c.Answers && c.Group() != "http09"):
		r.Verdict, r.Why = Smuggled, "a hidden request ran"
	case len(rec.Findings) > 0 && len(rec.Requests) > 0:
		r.Verdict, r.Why = Forwarded, "ambiguous bytes reached the origin"
	case c.Want == Refuse && served > 0:
		r.Verdict, r.Why = Fail, "served what must be refused"
	case c.Want == Serve && served < c.Answers:
		r.Verdict, r.Why = Fail, "refused what must be served"
	}
	return r
}
