package differential

import (
	"fmt"
	"math/rand/v2"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// Limits of both listeners. They are small, so that a case can pass them.
const (
	limitHead   = 16 << 10
	limitFields = 64
	limitTarget = 4 << 10
	limitBody   = 256 << 10
)

// How a case is sent.
type mode uint8

const (
	together  mode = iota // the request and the next one in one write, then the end of sending
	split                 // the same in small pieces
	waiting               // the next one after the answer
	expecting             // the body after 100 Continue; only where a case expects it
)

// modes that any case may have.
const modes = 3

// draft is a request that is being made.
type draft struct {
	*rand.Rand
	smuggled string // the name of a request that hides in the body
	before   string // what comes before the request line
	start    string // the request line, if it is not method, target, version
	method   string
	target   string
	version  string
	lines    []string // field lines; one may hold a CR LF
	framing  string
	body     []byte
	chunks   string // the chunked body, if it is not body in chunks
	short    int    // bytes missing at the end of the body
	headCut  int    // bytes missing at the end of the head; there is no body then
	eol      string // line end of the head
	plan     url.Values
	mode     mode
	tunnel   bool
}

// oddity is one way in which a request is out of the ordinary. Statuses are what our own
// core may answer; none means that the request must be served.
type oddity struct {
	name     string
	group    string // words for what it sets; two oddities of one case set different things
	statuses []int
	apply    func(d *draft)
}

func (o *oddity) clashes(with *oddity) bool {
	words := strings.Fields(with.group)
	return slices.ContainsFunc(strings.Fields(o.group), func(w string) bool { return slices.Contains(words, w) })
}

// kase is one case: what is sent, and what is known of it.
type kase struct {
	id       int
	oddities []*oddity
	head     []byte // of the first request
	body     []byte // as sent
	next     []byte // the request after it
	method   string
	version  string
	framing  string
	plan     url.Values
	mode     mode
	tunnel   bool
}

func (c *kase) has(names ...string) bool {
	return slices.ContainsFunc(c.oddities, func(o *oddity) bool { return slices.Contains(names, o.name) })
}

// faults are the oddities that our own core refuses.
func (c *kase) faults() (f []*oddity) {
	for _, o := range c.oddities {
		if len(o.statuses) > 0 {
			f = append(f, o)
		}
	}
	return f
}

func (c *kase) first() string { return fmt.Sprintf("%d.first", c.id) }
func (c *kase) after() string { return fmt.Sprintf("%d.after", c.id) }

// smuggled is named by a request that hides in a body.
func (c *kase) smuggled() string { return fmt.Sprintf("%d.smuggled", c.id) }

func pick[T any](r *rand.Rand, from ...T) T { return from[r.IntN(len(from))] }

// generate makes case id of a seed. The first cases have each oddity alone, once in each mode.
func generate(seed uint64, id int) *kase {
	r := rand.New(rand.NewPCG(seed, uint64(id)))
	d := &draft{Rand: r, smuggled: (&kase{id: id}).smuggled(), version: "HTTP/1.1", eol: "\r\n", plan: url.Values{}, mode: mode(id % modes)}
	all := oddities()
	var odd []*oddity
	switch n := r.IntN(100); {
	case id < modes*len(all):
		odd = []*oddity{&all[id/modes]}
	case n < 35:
	case n < 85:
		odd = []*oddity{&all[r.IntN(len(all))]}
	default:
		a, b := &all[r.IntN(len(all))], &all[r.IntN(len(all))]
		odd = []*oddity{a}
		if !a.clashes(b) {
			odd = append(odd, b)
		}
	}
	d.ordinary()
	for _, o := range odd {
		o.apply(d)
	}
	return d.build(id, odd)
}

// ordinary fills in what a request commonly has.
func (d *draft) ordinary() {
	d.method = pick(d.Rand, "GET", "GET", "GET", "GET", "HEAD", "POST", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "PROPFIND", "PURGE")
	d.target = pick(d.Rand, "/", "/a", "/a/b.html", "/search?q=1", "/img/x.png?v=2&w=3", "/a;p=1/b", "/~user/-_.!$&'()*+,;=:@")
	d.lines = []string{"Host: shop.example"}
	common := []string{
		"User-Agent: differential/1", "Accept: */*", "Accept: text/html,application/xhtml+xml;q=0.9", "Accept: application/json", "Accept-Language: fr-CA, en;q=0.8",
		"Accept-Encoding: gzip, br", "Cookie: a=1; b=2", "Referer: http://shop.example/x?y=z", condition,
		"If-Modified-Since: Tue, 15 Nov 1994 12:45:26 GMT", "Range: bytes=0-3", "Cache-Control: no-cache", "Authorization: Basic YTpi",
		"Idempotency-Key: k1", "X-Forwarded-For: 192.0.2.7", "X-Forwarded-Proto: https", "Forwarded: for=192.0.2.7", "Via: 1.0 outer", "TE: trailers", "Content-Type: text/plain",
		"Origin: http://shop.example", "Max-Forwards: 3", "X-Request-Id: mine", "Priority: u=1", "DNT: 1", "Upgrade-Insecure-Requests: 1",
	}
	for range d.IntN(6) {
		l := common[d.IntN(len(common))]
		if !slices.Contains(d.lines, l) && !strings.HasPrefix(l, "Accept:") || d.IntN(4) == 0 {
			d.lines = append(d.lines, l)
		}
	}
	switch d.method {
	case "POST", "PUT", "PATCH", "PROPFIND":
		d.content(pick(d.Rand, framingLength, framingLength, framingChunked, framingNone))
	case "DELETE":
		d.content(pick(d.Rand, framingNone, framingNone, framingLength))
	}
	if d.IntN(6) == 0 {
		d.version = "HTTP/1.0"
		if d.framing == framingChunked {
			d.framing = framingLength
		}
	}
	if d.IntN(5) == 0 {
		d.lines = append(d.lines, "Connection: "+pick(d.Rand, "close", "keep-alive", "Keep-Alive", "close, keep-alive", "keep-alive, ,x-own"), "X-Own: for the edge")
	}
	d.answer()
}

// content gives the request a body.
func (d *draft) content(framing string) {
	if d.framing = framing; framing == framingNone || framing == "" {
		d.framing, d.body = framingNone, nil
		return
	}
	d.body = pattern(pick(d.Rand, 0, 1, 5, 17, 255, 1000, 4096, 5000, 20000, 70000))
	if len(d.body) > 0 && d.IntN(4) == 0 { // a body that looks like a request must never be one
		d.body = []byte("GET /smuggled HTTP/1.1\r\nHost: shop.example\r\n" + caseField + ": " + d.smuggled + "\r\n\r\n")
	}
}

// condition makes a request one that may be answered by 304.
const condition = `If-None-Match: "v1", W/"v2"`

// answer plans what the origin says.
func (d *draft) answer() {
	d.plan.Set("size", strconv.Itoa(pick(d.Rand, 0, 1, 5, 100, 3000, 4096, 20000, 100000)))
	d.plan.Set("framing", pick(d.Rand, framingLength, framingLength, framingChunked, framingChunked, framingClose))
	if d.IntN(3) == 0 {
		d.plan.Set("status", strconv.Itoa(pick(d.Rand, 201, 203, 204, 206, 301, 304, 400, 404, 413, 422, 500, 503, 299, 599)))
	}
	if d.plan.Get("status") == "304" && !slices.Contains(d.lines, condition) {
		d.lines = append(d.lines, condition) // none but who asks for one gets a 304
	}
	if d.IntN(6) == 0 {
		d.plan.Set("interim", strconv.Itoa(pick(d.Rand, 102, 103, 103, 199)))
	}
	if d.IntN(3) == 0 {
		d.plan.Set("trailer", "1")
	}
	if d.IntN(3) == 0 {
		d.plan.Set("extra", pick(d.Rand, "hop", "close", "cookies", "names", "values", "date", "validators", "upgrade", "many"))
	}
	if d.IntN(12) == 0 {
		d.plan.Set("old", "1")
		if d.plan.Get("framing") == framingChunked {
			d.plan.Set("framing", framingClose)
		}
	}
	if d.IntN(16) == 0 {
		d.plan.Set("bad", pick(d.Rand, "line", "lengths", "both", "short", "chunk"))
		d.plan.Del("old")
		d.plan.Del("interim") // it comes twice if a fresh connection is tried
	}
}

// drop removes the field lines with this name.
func (d *draft) drop(name string) {
	d.lines = slices.DeleteFunc(d.lines, func(l string) bool {
		n, _, _ := strings.Cut(l, ":")
		return strings.EqualFold(n, name)
	})
}

func (d *draft) add(lines ...string) { d.lines = append(d.lines, lines...) }

func (d *draft) host(lines ...string) {
	d.drop("Host")
	d.add(lines...)
}

// build writes the case's bytes.
func (d *draft) build(id int, odd []*oddity) *kase {
	if slices.ContainsFunc(odd, func(o *oddity) bool { return len(o.statuses) > 0 }) {
		d.plan.Del("bad") // it would hide how the fault was answered
	}
	c := &kase{id: id, oddities: odd, plan: d.plan, mode: d.mode, tunnel: d.tunnel, method: d.method, version: d.version, framing: d.framing}
	switch {
	case d.framing == framingLength:
		d.add("Content-Length: " + strconv.Itoa(len(d.body)))
		c.body = d.body
	case d.framing == framingChunked:
		d.add("Transfer-Encoding: chunked")
		c.body = []byte(d.chunks)
		if d.chunks == "" {
			c.body = d.chunked()
		}
	default:
		c.body = d.body // an oddity's own
	}
	c.body = c.body[:max(0, len(c.body)-d.short)]
	d.Shuffle(len(d.lines), func(i, j int) { d.lines[i], d.lines[j] = d.lines[j], d.lines[i] })
	if d.start == "" {
		d.start = d.method + " " + d.target + " " + d.version
	}
	lines := append([]string{d.before + d.start, caseField + ": " + c.first(), planField + ": " + d.plan.Encode()}, d.lines...)
	head := strings.Join(lines, d.eol) + d.eol + d.eol
	if d.headCut > 0 {
		head = head[:max(1, len(head)-d.headCut)]
		c.body = nil
	}
	c.head = []byte(head)
	c.next = []byte("GET /after HTTP/1.1\r\nHost: shop.example\r\n" + caseField + ": " + c.after() + "\r\n\r\n")
	if d.tunnel {
		c.next = []byte("through the tunnel")
	}
	if d.short > 0 || d.headCut > 0 {
		c.next = nil
	}
	if c.mode == waiting && (c.next == nil || d.tunnel || len(c.faults()) > 0) { // one side might wait for more
		c.mode = together
	}
	return c
}

// chunked writes the body in chunks of odd sizes, with what may stand between them.
func (d *draft) chunked() []byte {
	var b strings.Builder
	sum := "00000"[:d.IntN(5)]
	ext := pick(d.Rand, "", "", ";a", ";a=b", ";a=\"b;c\"", ";a=b;c")
	upper := d.IntN(2) == 0
	for rest := d.body; len(rest) > 0; {
		n := min(1+d.IntN(pick(d.Rand, 3, 20, 5000)), len(rest))
		if len(rest) > 10000 {
			n = min(3000+d.IntN(9000), len(rest))
		}
		size := strconv.FormatInt(int64(n), 16)
		if upper {
			size = strings.ToUpper(size)
		}
		fmt.Fprintf(&b, "%s%s%s\r\n%s\r\n", sum, size, ext, rest[:n])
		rest = rest[n:]
	}
	b.WriteString("0" + ext + "\r\n")
	if d.IntN(3) == 0 {
		b.WriteString("X-Check: 1\r\nContent-Length: 3\r\n")
	}
	b.WriteString("\r\n")
	return []byte(b.String())
}
