package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/netip"
	"net/url"
	"strconv"
	"strings"

	"github.com/relais-edge/relais/internal/edge/waf/regression"
	"github.com/relais-edge/relais/internal/edge/waf/traffic"
)

// goalSlower is how many times as much as the engine alone the stage may take on traffic that was made against it.
const goalSlower = 1.10

// attacker makes requests that are to cost the stage much and the engine little.
type attacker struct {
	r     *rand.Rand
	cases []regression.Case // of the rule set's tests, where pieces of attacks come from
}

// hostile lists what the attacker makes, by what it aims at.
var hostile = []struct {
	name, about string
	make        func(a *attacker) regression.Case
}{
	{"attacks", "requests of the rule set's regression tests", func(a *attacker) regression.Case { return a.cases[a.r.IntN(len(a.cases))] }},
	{"new values", "memo: every value, field name and cookie is new", (*attacker).newValues},
	{"words", "automaton: 4 KB of words that rules look for, without an attack", func(a *attacker) regression.Case {
		return a.jsonBody(a.text(4000, []string{"select ", "on ", "union", "<a ", "or ", "(x) ", "exec.", "char ", "from, ", "/* ", "=a ", "{b "}))
	}},
	{"states", "expressions: texts that ask for new states", func(a *attacker) regression.Case {
		return a.query(6, func() string { return a.text(60, stateWords) })
	}},
	{"short states", "expressions: one short text that asks for new states, in a lean request", func(a *attacker) regression.Case {
		return a.query(1, func() string { return a.text(120, stateWords) })
	}},
	{"encodings", "transformations: nested encodings, so that each chain has an output of its own", func(a *attacker) regression.Case {
		return a.query(4, a.nested)
	}},
	{"many values", "150 short arguments, each new", func(a *attacker) regression.Case {
		return a.query(150, func() string { return traffic.Hex(a.r, 6) + []string{"", "-", "'", ".x", " or"}[a.r.IntN(5)] })
	}},
	{"pieces", "40 arguments with pieces of attacks", func(a *attacker) regression.Case { return a.query(40, a.piece) }},
	{"long form", "a form of 6 KB of pieces", func(a *attacker) regression.Case {
		var b strings.Builder
		for b.Len() < 6000 {
			b.WriteString(url.QueryEscape(a.piece()))
		}
		return a.post("application/x-www-form-urlencoded", "a="+b.String())
	}},
	{"broken JSON", "JSON that ends in the middle, which the engine refuses unread, behind a long query and cookie", func(a *attacker) regression.Case {
		c := a.query(30, func() string { return a.text(200, stateWords) })
		c.Fields[3].Value = "a=" + strings.ReplaceAll(a.text(6000, stateWords), ";", "")
		return a.with(c, "application/json", `{"a":"b"`)
	}},
	{"broken XML", "XML that breaks at its end, which the engine refuses unread", func(a *attacker) regression.Case {
		var b strings.Builder
		b.WriteString("<o>")
		for b.Len() < 8000 {
			fmt.Fprintf(&b, "<i n=\"%s\">%s</i>", traffic.Hex(a.r, 8), strings.NewReplacer("<", "", "&", "").Replace(a.text(40, stateWords)))
		}
		return a.post("application/xml", b.String()+"</o><")
	}},
	{"broken parts", "multipart whose last part breaks, which the engine refuses", func(a *attacker) regression.Case {
		var b strings.Builder
		for i := 0; b.Len() < 8000; i++ {
			fmt.Fprintf(&b, "--xX\r\nContent-Disposition: form-data; name=\"a%d\"\r\n\r\n%s\r\n", i, a.text(60, stateWords))
		}
		return a.post("multipart/form-data; boundary=xX", b.String()+"--xX\r\nContent-Disp")
	}},
	{"lean GET", "the cheapest request for the engine that the screen cannot prove", func(a *attacker) regression.Case {
		c := a.lean()
		c.Target = "/?" + traffic.Hex(a.r, 4) + "=1'or'1"
		return c
	}},
}

// stateWords are what many expressions begin with, and what goes on without ending a match.
var stateWords = []string{
	"select ", "union ", "or ", "and ", "<a ", "<img ", "on", "=", "'", "\"", "(", ")", "--", "/*", "*/", "../", "$", "{", "}", "%27", "char", "x", "1", "é", ";", "|", "cat ", "exec", "`", "^", ",",
	"echo ", "if ", "for ", "&", "!", "~", "\\", "@", "[", "]", ":", "php", "java", "ldap", "http", "0x", "a", "e", "n", "\t", "\n", "concat", "when ", "case ", "style", "src",
}

func (a *attacker) text(n int, words []string) string {
	var b strings.Builder
	for b.Len() < n {
		b.WriteString(words[a.r.IntN(len(words))])
	}
	return b.String()
}

// lean is a request with no more fields than the rules ask for, which costs the engine least.
func (a *attacker) lean() regression.Case {
	return regression.Case{Method: "GET", Target: "/a", Proto: "HTTP/1.1", Fields: []regression.Field{
		{Name: "Host", Value: "shop.example"}, {Name: "User-Agent", Value: "x"}, {Name: "Accept", Value: "*/*"}, {Name: "Cookie", Value: "a=b"},
	}}
}

func (a *attacker) query(n int, value func() string) regression.Case {
	c := a.lean()
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "%c%s%d=%s", "?&"[min(i, 1)], traffic.Hex(a.r, 3), i, url.QueryEscape(value()))
	}
	c.Target += b.String()
	return c
}

func (a *attacker) with(c regression.Case, contentType, body string) regression.Case {
	c.Method, c.Body = "POST", body
	c.Fields = append(c.Fields, regression.Field{Name: "Content-Type", Value: contentType}, regression.Field{Name: "Content-Length", Value: strconv.Itoa(len(body))})
	return c
}

func (a *attacker) post(contentType, body string) regression.Case {
	return a.with(a.lean(), contentType, body)
}

func (a *attacker) jsonBody(text string) regression.Case {
	quoted, _ := json.Marshal(text) // of a string: no error
	return a.post("application/json", `{"a":`+string(quoted)+`}`)
}

func (a *attacker) newValues() regression.Case {
	c := traffic.Request("fresh", a.r.IntN(1<<40))
	for i := range c.Fields {
		if f := &c.Fields[i]; f.Name == "User-Agent" || strings.HasPrefix(f.Name, "Sec-") || f.Name == "X-Forwarded-For" {
			f.Value = traffic.Hex(a.r, 40)
		}
	}
	for range 20 {
		c.Fields = append(c.Fields, regression.Field{Name: "X-" + traffic.Hex(a.r, 10), Value: traffic.Hex(a.r, 60)})
	}
	return c
}

// piece is a part of an attack, odd where encodings and case allow it.
func (a *attacker) piece() string {
	src := &a.cases[a.r.IntN(len(a.cases))]
	p := src.Body
	if p == "" || a.r.IntN(3) == 0 {
		p = src.Target
	}
	if u, err := url.QueryUnescape(p); err == nil && a.r.IntN(2) == 0 {
		p = u
	}
	if len(p) > 4 {
		from := a.r.IntN(len(p) - 2)
		p = p[from:min(len(p), from+2+a.r.IntN(24))]
	}
	return p
}

// nested is a text in several encodings, one inside the other.
func (a *attacker) nested() string {
	var b strings.Builder
	for b.Len() < 150 {
		b.WriteString([]string{"%2527", "\\u0041", "&#x61;", "&lt;", "/*x*/", "\\x61", "%u0073", "+", "\\141", "/./", "//", "^a", "\"\"", "é", "%c3%a9", "YWJj", "--x\n", "#a\n", "\x00", "%00", "A ", "\\"}[a.r.IntN(22)])
	}
	return b.String()
}

// assault is the stage under attack, beside the engine alone.
type assault struct {
	one, many    *bed // one source that repeats; a new one for each request
	stock, short *engine
	cases        []regression.Case
	worst        float64 // ratio at first contact
	of           string
}

func newAssault() (t *assault, err error) {
	t = &assault{}
	if t.cases, err = regression.Cases(); err != nil {
		return nil, err
	}
	if t.one, err = newStage(0).level(1); err != nil {
		return nil, err
	}
	if t.many, err = newStage(0).level(1); err != nil { // another one: what a screen has seen costs it less
		return nil, err
	}
	t.many.client = netip.Addr{}
	if t.stock, err = newEngine(1, false); err != nil {
		return nil, err
	}
	t.short, err = newEngine(1, true)
	return t, err
}

// against measures what hostile traffic costs in the stage, beside the engine alone.
func (s *settings) against(ctx context.Context, r *report, out io.Writer) error {
	t, err := newAssault()
	if err != nil {
		return err
	}
	r.table("Cost of hostile requests", fmt.Sprintf("Made to defeat memo, automaton, expressions or the order of work; level 1; new requests in each of %d alternating rounds. Each row has one source that sends all of it, as who attacks does: after eight requests in a row that were screened in vain, the stage screens one of eight. In first contact every request comes from a source that was never seen, so that all are screened. Stock is Coraza as its users set it up, SecRxPreFilter off, which is its default. Parts is the stage's cost divided by stock's, the median of the rounds' ratios.", s.rounds),
		"traffic", "stage µs", "first contact µs", "stock Coraza µs", "with SecRxPreFilter µs", "stage / stock", "first contact / stock", "stage / SecRxPreFilter", "proved clean at first contact")
	for i := range hostile {
		if err := s.assail(ctx, t, i, r, out); err != nil {
			return err
		}
	}
	r.most("hostile first contact, worst", t.worst, goalSlower, "%.3f", t.of)
	return nil
}

// assail measures one row.
func (s *settings) assail(ctx context.Context, t *assault, i int, r *report, out io.Writer) error {
	h, a := &hostile[i], &attacker{rand.New(rand.NewPCG(uint64(i), 77)), t.cases}
	t.one.client = netip.AddrFrom4([4]byte{198, 51, 100, byte(i)})
	const visit = 24
	ours := &contender{name: h.name + ", stage", who: t.one, visit: visit}
	first := &contender{name: h.name + ", first contact", who: t.many, visit: visit}
	peer := &contender{name: h.name + ", stock", who: t.stock, visit: visit}
	filtered := &contender{name: h.name + ", prefilter", who: t.short, visit: visit}
	made := map[int][]regression.Case{}
	all, clean := t.many.proved()
	err := alternate(ctx, s.rounds, []*contender{ours, first, peer, filtered}, func(round, n int) []regression.Case {
		if made[round] == nil {
			for range n {
				made[round] = append(made[round], h.make(a))
			}
		}
		return made[round]
	})
	if err != nil {
		return err
	}
	allNow, cleanNow := t.many.proved()
	ratio, ratioFirst := peer.times(ours), peer.times(first)
	cell := func(c *contender) string { return fmt.Sprintf("%.0f (%s)", median(c.micro), c.span()) }
	r.row(h.name+": "+h.about, cell(ours), cell(first), cell(peer), fmt.Sprintf("%.0f", median(filtered.micro)), fmt.Sprintf("%.3f", ratio),
		fmt.Sprintf("%.3f", ratioFirst), fmt.Sprintf("%.3f", filtered.times(ours)), fmt.Sprintf("%d of %d", cleanNow-clean, allNow-all))
	fmt.Fprintf(out, "hostile %s: stage %.0f us, stock %.0f us, %.3f; first contact %.0f us, %.3f\n", h.name, median(ours.micro), median(peer.micro), ratio, median(first.micro), ratioFirst)
	r.most("hostile "+h.name, ratio, goalSlower, "%.3f", fmt.Sprintf("stock Coraza %.0f us = 1", median(peer.micro)))
	if ratioFirst > t.worst {
		t.worst, t.of = ratioFirst, fmt.Sprintf("stock Coraza %.0f us = 1, %s", median(peer.micro), h.name)
	}
	return nil
}
