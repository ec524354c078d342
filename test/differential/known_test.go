package differential

import (
	"slices"
	"strconv"
	"strings"
)

// rule is a difference that is known and allowed. It covers a difference whose aspect is one
// of its own when applies says that both reactions are as described.
type rule struct {
	Name    string
	Section string // of the RFC that allows both, or says which is better
	Why     string
	Aspects []string
	// Timing says that the rule may cover nothing in a run: what it covers is a race.
	Timing  bool
	applies func(p *pair, d difference) bool
}

var verdictOnly = []string{"verdict"}

// known are all known differences. Where our own core is wrong it is mended and not listed.
func known() []rule {
	rules := accepted()
	rules = append(rules, codes()...)
	return append(rules, shapes()...)
}

// lenient is a rule for what our own core refuses and net/http serves.
func lenient(name, section, why string, oddities ...string) rule {
	return rule{Name: name, Section: section, Why: why, Aspects: verdictOnly, applies: func(p *pair, _ difference) bool {
		return slices.ContainsFunc(p.faults(), func(o *oddity) bool {
			return slices.Contains(oddities, o.name) && o.allows(p.own.verdict())
		}) && (p.std.verdict() == served || p.std.reset())
	}}
}

func (o *oddity) allows(verdict string) bool {
	return slices.ContainsFunc(o.statuses, func(s int) bool { return strconv.Itoa(s) == verdict })
}

// reset says that the first answer is complete but for the end of the connection that ends
// it, in whose place came a reset.
func (re *reaction) reset() bool {
	return len(re.answers) == 1 && !re.answers[0].whole && re.answers[0].framing == framingClose
}

func accepted() []rule {
	return []rule{
		lenient("line ends of bare LF", "RFC 9112 section 2.2",
			"A recipient may take a bare LF for the end of a line. Proxies disagree on it, which smugglers use, so we answer 400.",
			"lines end with bare LF", "field value with bare LF"),
		lenient("folded field lines", "RFC 9112 section 5.2",
			"A server must answer 400 or put spaces in place of the fold. We answer 400, net/http puts a space.",
			"field folded", "field folded with a tab", "Host folded", "Transfer-Encoding folded"),
		lenient("Content-Length repeated with one value", "RFC 9110 section 8.6",
			"A recipient may refuse it or take it as one. We answer 400, net/http takes it as one.",
			"Content-Length twice, equal"),
		lenient("Content-Length and Transfer-Encoding together", "RFC 9112 section 6.1",
			"A server may refuse it or go by Transfer-Encoding alone. We answer 400, net/http drops Content-Length.",
			"Content-Length and chunked"),
		lenient("Transfer-Encoding on HTTP/1.0", "RFC 9112 section 6.1",
			"The framing must be treated as faulty. We answer 400, net/http takes the field away before we see it.",
			"Transfer-Encoding on HTTP/1.0"),
		lenient("empty Host on HTTP/1.0", "RFC 9110 section 4.2.1",
			"An http URI without host is invalid, so we answer 400. Net/http does not tell an empty Host from none, which HTTP/1.0 allows.",
			"Host empty", "Host empty on HTTP/1.0"),
		lenient("Host differs from an absolute-form target", "RFC 9112 section 3.2.2",
			"A server goes by the target and ignores Host, as net/http does; a client must send both equal (section 3.2). Two names in one request poison caches and logs, so we are stricter and answer 400.",
			"absolute-form with another host"),
		lenient("long chunk extensions", "RFC 9112 section 7.1.1",
			"A recipient ought to limit chunk extensions. Ours is 256 bytes a line, net/http's 4,096.",
			"chunk extension too long"),
		lenient("control bytes in a chunk extension", "RFC 9112 section 7.1.1",
			"They are outside the grammar. We answer 400, net/http passes over them.",
			"chunk extension with NUL"),
		lenient("space behind a chunk size", "RFC 9112 section 7.1",
			"It is outside the grammar where no extension follows. We answer 400, net/http trims it.",
			"chunk size with a space behind"),
		lenient("loose trailer sections", "RFC 9112 section 7.1.2",
			"Folds, bare LF, over 64 lines, and framing fields of no sense in a trailer: we answer 400, net/http reads them and we drop what must not be there.",
			"trailer folded", "trailer of too many fields", "trailer with a bad framing field", "trailer with bare LF"),
		{
			Name: "empty line before a request", Section: "RFC 9112 section 2.2", Aspects: verdictOnly,
			Why: "A server should ignore at least one empty line. We ignore one, net/http does so only after a POST.",
			applies: func(p *pair, _ difference) bool {
				return p.has("empty line before the request") && len(p.faults()) == 0 && p.own.verdict() != "400" && p.std.verdict() == "400" && p.std.answers[0].bare()
			},
		},
	}
}

// codingFault says that Transfer-Encoding is wrong in a way to which we answer 400.
func (p *pair) codingFault() bool {
	return slices.ContainsFunc(p.faults(), func(o *oddity) bool { return strings.HasPrefix(o.name, "Transfer-Encoding") && o.allows("400") })
}

func codes() []rule {
	return []rule{
		{
			Name: "400 or 501 for Transfer-Encoding", Section: "RFC 9112 section 6.1", Aspects: verdictOnly,
			Why: "501 is for codings that are not understood. We answer 400 where the value is no list of codings, or chunked is there twice; net/http answers 501 to all.",
			applies: func(p *pair, _ difference) bool {
				return p.own.verdict() == "400" && p.std.verdict() == "501" && p.std.answers[0].bare() &&
					p.codingFault()
			},
		},
		{
			Name: "414 or 431 for a target beyond the head", Section: "RFC 9110 section 15.5.15", Aspects: verdictOnly,
			Why: "A target over the limit of the whole head passes both limits. We name the target, net/http the head.",
			applies: func(p *pair, _ difference) bool {
				return p.has("target far too long") && p.own.verdict() == "414" && p.std.verdict() == "431"
			},
		},
		{
			Name: "which of several faults is named", Section: "RFC 9110 section 15.5",
			Aspects: []string{"verdict", "body", "field content-length", "field content-type", "field connection", "answers", "origin after: requests"},
			Why:     "No order of checks is prescribed. Each engine answers to a fault that is there.",
			applies: func(p *pair, _ difference) bool {
				names := func(verdict string) bool {
					return slices.ContainsFunc(p.faults(), func(o *oddity) bool { return o.allows(verdict) })
				}
				// The empty line is a fault to net/http, and each bad coding is 501.
				return len(p.faults()) > 0 && len(p.oddities) > 1 && names(p.own.verdict()) && (names(p.std.verdict()) ||
					p.std.verdict() == "400" && p.has("empty line before the request") || p.std.verdict() == "501" && p.codingFault())
			},
		},
		{
			Name: "head cut short", Section: "RFC 9112 section 8", Aspects: verdictOnly,
			Why: "A server may answer before it closes. Net/http answers 400, we close: who left does not read.",
			applies: func(p *pair, _ difference) bool {
				return p.has("head cut short") && p.own.verdict() == closed && p.std.verdict() == "400" && p.std.answers[0].bare()
			},
		},
	}
}

func shapes() []rule {
	return []rule{
		{
			Name: "net/http's own pages", Section: "RFC 9110 section 15.5", Aspects: []string{"page", "after: page"},
			Why: "What net/http refuses before our code sees it gets its own page: the same status, but no request id, no Proxy-Status and no Content-Length.",
			applies: func(p *pair, d difference) bool {
				return d.own == "bare false" && d.std == "bare true"
			},
		},
		{
			Name: "net/http's own pages for HEAD", Section: "RFC 9110 section 9.3.2", Aspects: []string{"stray bytes"},
			Why: "An answer to HEAD must not have a body. Net/http's own pages have one.",
			applies: func(p *pair, _ difference) bool {
				return p.method == "HEAD" && len(p.own.stray) == 0 && p.std.answers[0].bare()
			},
		},
		{
			Name: "net/http closes after its own pages", Section: "RFC 9112 section 9.3", Aspects: []string{"answers", "origin after: requests"},
			Why: "After a path with a broken percent-encoding the framing is clear, so we keep the connection; net/http closes it.",
			applies: func(p *pair, _ difference) bool {
				return len(p.own.answers) == 2 && len(p.std.answers) == 1 && p.std.answers[0].bare() && p.own.verdict() == "400" &&
					p.has("percent-encoding broken", "percent-encoding cut", "percent-encoding of NUL")
			},
		},
		{
			Name: "net/http closes after a chunked body", Section: "RFC 9112 section 6.1", Aspects: []string{"answers", "origin after: requests", "field connection"},
			Why: "Net/http hides a Content-Length beside chunked, so that engine: std cannot tell and closes after every chunked body. We see both, and keep the connection.",
			applies: func(p *pair, _ difference) bool {
				return strings.Contains(strings.ToLower(string(p.head)), "transfer-encoding") && len(p.own.answers) == 2 && len(p.std.answers) == 1
			},
		},
		{
			Name: "close and keep-alive together on HTTP/1.0", Section: "RFC 9112 section 9.3", Aspects: []string{"answers", "origin after: requests", "field connection"},
			Why: "The connection must end if close is there. Net/http lets keep-alive win on HTTP/1.0.",
			applies: func(p *pair, _ difference) bool {
				h := strings.ToLower(string(p.head))
				return p.version == "HTTP/1.0" && strings.Contains(h, "close") && strings.Contains(h, "keep-alive") && len(p.own.answers) == 1
			},
		},
		{
			Name: "version of answers to HTTP/1.0", Section: "RFC 9110 section 2.5", Aspects: []string{"version"},
			Why:     "A server should name the highest version it conforms to. We say HTTP/1.1, net/http says HTTP/1.0.",
			applies: func(p *pair, d difference) bool { return p.version == "HTTP/1.0" && d.std == "HTTP/1.0" },
		},
		{
			Name: "Connection: close to HTTP/1.0", Section: "RFC 9112 section 9.6", Aspects: []string{"field connection"},
			Why:     "A server that closes should say so. Net/http leaves it out where closing is the version's default.",
			applies: func(p *pair, d difference) bool { return p.version == "HTTP/1.0" && d.own == `"close"` && d.std == "" },
		},
		{
			Name: "Connection: close before a broken body", Section: "RFC 9112 section 9.6", Aspects: []string{"field connection"},
			Why: "Net/http reads a body that nobody wants before it answers, so it can say that it closes. We answer first, and close when the body turns out to be broken.",
			applies: func(p *pair, d difference) bool {
				return d.own == "" && d.std == `"close"` && p.own.verdict() == "400" && len(p.own.answers) == 1 &&
					slices.ContainsFunc(p.faults(), func(o *oddity) bool { return strings.Contains(o.name, "chunk") || strings.HasPrefix(o.name, "trailer") })
			},
		},
		{
			Name: "reason phrases", Section: "RFC 9112 section 4", Aspects: []string{"reason"},
			Why:     "A client should ignore them. We use those of RFC 9110 and none for unregistered codes; net/http has older ones and makes some up.",
			applies: func(p *pair, d difference) bool { return true },
		},
		{
			Name: "Content-Type of 304", Section: "RFC 9110 section 15.4.5", Aspects: []string{"field content-type"},
			Why:     "It is not among the fields that 304 must have, and allowed. We pass the origin's on, net/http drops it.",
			applies: func(p *pair, d difference) bool { return p.own.answers[0].status == 304 && d.std == "" },
		},
		{
			Name: "reset under the last answer", Section: "RFC 9112 section 9.6", Aspects: verdictOnly, Timing: true,
			Why: "A server should close in stages, so that a client that has sent more reads its answer. We do, net/http closes at once, and the client may see a reset in place of the end.",
			applies: func(p *pair, _ difference) bool {
				return p.own.verdict() == served && p.std.reset() && len(p.next) > 0 && slices.Equal(p.own.answers[0].body, p.std.answers[0].body)
			},
		},
	}
}

// page writes the list for readers.
func page(rules []rule) string {
	var b strings.Builder
	b.WriteString("# Differences between the engines\n\n" +
		"A Listener with `engine: std` serves HTTP/1 through net/http, as a fallback and as the twin that our own core is held against. " +
		"The test in `test/differential` sends the same generated requests to both; any difference between the two reactions that is not in this table fails it, and so does a line that nothing shows any more. " +
		"\"We\" is our own core. `go test ./test/differential -update` writes this page.\n\n" +
		"| difference | source | which, and why |\n|---|---|---|\n")
	for _, r := range rules {
		b.WriteString("| " + r.Name + " | " + r.Section + " | " + r.Why + " |\n")
	}
	b.WriteString("\nNot compared: the values of Date, X-Request-Id and Server-Timing, and the order of fields of different names (RFC 9110 section 5.3). " +
		"A body that breaks off may or may not have begun to reach the origin; it never arrives there as whole. " +
		"Names of fields are compared without regard to case.\n")
	return b.String()
}
