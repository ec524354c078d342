package challenge

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"time"

	"github.com/relais-edge/relais/internal/edge/budget"
	"github.com/relais-edge/relais/internal/edge/cookie"
	"github.com/relais-edge/relais/internal/edge/notice"
	"github.com/relais-edge/relais/internal/edge/seal"
	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/observe"
	"github.com/relais-edge/relais/internal/stage"
)

// name of the stage, in trails.
const name = "challenge"

// Path is where solutions are sent, on every site.
const Path = "/.well-known/relais/challenge"

// Secrets keeps secrets that the edge makes for itself; seal.Dir does.
type Secrets interface {
	// Secrets returns the secrets of that name, at least 16 bytes each, of which the first signs.
	Secrets(name string) ([][]byte, error)
}

// Stage serves puzzles and takes solutions. It implements stage.Stage, stage.Compiler and stage.Challenger.
type Stage struct {
	slot    stage.Slot
	secrets Secrets
	used    *filter
	waits   *budget.Table // of those who press the button
	tries   *budget.Table // of solutions
	passes  *budget.Table // of proofs
	spread  *budget.Spread
	cleared *cleared
	clock   *seal.Clock
	counter *observe.Family[observe.Counter]
}

var (
	_ stage.Stage      = (*Stage)(nil)
	_ stage.Compiler   = (*Stage)(nil)
	_ stage.Challenger = (*Stage)(nil)
)

const (
	maxSeries  = 100_000
	budgetSets = 1 << 12
	maxForm    = 8 << 10 // bytes of a solution that is sent
	// waitsPerMinute and triesPerMinute are what an address may have; its network has four times as many.
	waitsPerMinute = 60
	triesPerMinute = 600
	networkShare   = 4
	// A proof is good for proofNetworks networks at a time, of which one that is not used for proofWindow makes room.
	proofNetworks = 4
	proofWindow   = 10 * time.Minute
)

// What is counted.
const (
	outAsked = iota
	outSolved
	outWaited
	outWrong
	outPassed
	outSpread
	outCount
)

var outcomes = [outCount]string{"asked", "solved", "waited", "wrong", "passed", "spread"}

// New returns the stage. Secrets may be nil; then only sites that give one can challenge.
func New(slot stage.Slot, secrets Secrets, r *observe.Registry) *Stage {
	s := &Stage{
		slot: slot, secrets: secrets, clock: seal.NewClock(nil), spread: budget.NewSpread(budgetSets, proofNetworks, proofWindow),
		waits: budget.New(budgetSets), tries: budget.New(budgetSets), passes: budget.New(budgetSets), cleared: newCleared(),
		counter: r.Counters("relais_challenge_total", "Challenges and their solutions, by what became of them.", maxSeries, "site", "outcome"),
	}
	s.used = newFilter(s.clock.Steady(time.Now()))
	return s
}

// Name implements stage.Stage.
func (s *Stage) Name() string { return name }

// memo is what the stage keeps in an exchange.
type memo struct {
	id     stage.RequestID
	asked  bool
	passed bool
	buf    []byte
}

func (s *Stage) memory(x *stage.Exchange) *memo {
	m, _ := x.Local[s.slot].(*memo)
	if m == nil {
		m = &memo{}
		x.Local[s.slot] = m
	}
	if m.id != x.ID {
		m.id, m.asked, m.passed = x.ID, false, false
	}
	return m
}

// Serve implements stage.Stage: it takes solutions, on a path of its own.
func (s *Stage) Serve(ctx context.Context, x *stage.Exchange, next stage.Handler) (*message.Response, error) {
	if len(x.Path) != len(Path) || string(x.Path) != Path {
		return next.Serve(ctx, x)
	}
	p, _ := x.Site.Parts[s.slot].(*part)
	if p == nil {
		return next.Serve(ctx, x)
	}
	switch x.In.Method {
	case message.POST:
		return s.take(ctx, x, p)
	case message.GET, message.HEAD:
		return s.ask(x, p, p.effort, "/", stateNew, 0), nil
	}
	return nil, errMethod
}

var (
	errMethod = &stage.Error{Code: "http_request_error", Side: stage.SideClient, Status: 405, Err: errors.New("a solution is sent with POST")}
	errLong   = &stage.Error{Code: "http_request_error", Side: stage.SideClient, Status: 413, Err: errors.New("a solution is shorter than 8 KiB")}
	errMany   = &stage.Error{
		Code: "challenge_limit", Side: stage.SideTenant, Status: 429, RetryAfter: 10 * time.Second, Err: errors.New("more solutions come from this address than one may send in a minute"),
	}
)

// Passed implements stage.Challenger.
func (s *Stage) Passed(x *stage.Exchange) bool {
	if x.Visitor.Exempt() {
		return true
	}
	p, _ := x.Site.Parts[s.slot].(*part)
	if p == nil {
		return true // who cannot challenge cannot hold up
	}
	m := s.memory(x)
	if m.asked {
		return m.passed
	}
	m.asked, m.passed = true, s.bears(x, p)
	if m.passed {
		p.metrics[outPassed].Inc()
		x.Mark(name, "passed")
	}
	return m.passed
}

// bears says whether x bears a proof that is good.
func (s *Stage) bears(x *stage.Exchange, p *part) bool {
	if v := x.In.Lookup(p.header); p.header != "" && v != nil && s.good(x, p, v) {
		return true
	}
	c := cookie.Read(&x.In.Fields, p.cookie)
	for v := c.Next(); v != nil; v = c.Next() {
		if s.good(x, p, v) {
			return true
		}
	}
	return s.cleared.take(p.hash, x)
}

func (s *Stage) good(x *stage.Exchange, p *part, text []byte) bool {
	t, ok := parseProof(text, p.proofs)
	if !ok || s.clock.Expiry(x.Start) >= int64(t.expires) || !fits(x, t.id, t.network, t.client) {
		return false
	}
	if n, _ := binding(x, t.id); !s.spread.Use(p.hash^t.id, x.Client, 0, x.Start) && n != t.network {
		p.metrics[outSpread].Inc()
		x.MarkDetail(name, "spread", "the proof is used from four other networks within ten minutes")
		return false
	}
	return s.passes.Take(s.passes.Key(p.hash, t.id), p.use, x.Start)
}

// Challenge implements stage.Challenger.
func (s *Stage) Challenge(x *stage.Exchange, effort int) *message.Response {
	p, _ := x.Site.Parts[s.slot].(*part)
	if p == nil || x.Visitor.Exempt() {
		return nil
	}
	if effort == 0 {
		effort = p.effort
	}
	to := "/"
	if x.In.Method.Safe() {
		to = string(x.In.Path())
		if x.In.HasQuery() {
			to += "?" + string(x.In.Query())
		}
	}
	p.metrics[outAsked].Inc()
	x.Mark(name, "asked")
	return s.ask(x, p, min(max(effort, leastWork), mostWork), to, stateNew, 0)
}

// ask makes a new puzzle and its page.
func (s *Stage) ask(x *stage.Exchange, p *part, effort int, to string, st state, left int) *message.Response {
	z := puzzle{effort: effort, issued: uint32(s.clock.Steady(x.Start)), nonce: rand.Uint64()}
	z.network, z.client = binding(x, z.nonce)
	return p.page(x, sheet{text: z.append(nil, p.puzzles), effort: effort, to: to, state: st, left: left})
}

// form is a solution as it is sent.
type form struct{ puzzle, solution, to []byte }

// take judges a solution.
func (s *Stage) take(ctx context.Context, x *stage.Exchange, p *part) (*message.Response, error) {
	if !s.tries.Take(s.tries.Address(p.hash, x.Client), budget.PerMinute(triesPerMinute), x.Start) ||
		!s.tries.Take(s.tries.Network(p.hash, x.Client), budget.PerMinute(triesPerMinute*networkShare), x.Start) {
		return nil, errMany
	}
	f, err := readForm(ctx, x.In)
	if err != nil {
		return nil, err
	}
	to := safeTarget(f.to)
	z, ok := parsePuzzle(f.puzzle, p.puzzles)
	now := s.clock.Steady(x.Start)
	age := now - int64(z.issued)
	switch {
	case !ok:
		return s.wrong(x, p, p.effort, to, "the puzzle is not of this site"), nil
	case age > puzzleLife || age < -puzzleLife:
		return s.wrong(x, p, z.effort, to, "the puzzle is too old"), nil
	case !fits(x, z.nonce, z.network, z.client):
		return s.wrong(x, p, z.effort, to, "the puzzle was made for another address and another User-Agent"), nil
	}
	waited := len(f.solution) == 0
	if waited {
		if left := p.wait - age; left > 0 { // the same puzzle, so that the time goes on
			x.Mark(name, "early")
			return p.page(x, sheet{text: f.puzzle, effort: z.effort, to: to, state: stateEarly, left: int(left)}), nil
		}
		if !s.waits.Take(s.waits.Address(p.hash, x.Client), budget.PerMinute(waitsPerMinute), x.Start) ||
			!s.waits.Take(s.waits.Network(p.hash, x.Client), budget.PerMinute(waitsPerMinute*networkShare), x.Start) {
			return nil, errMany
		}
	} else if !solved(f.puzzle, f.solution, z.effort) {
		return s.wrong(x, p, z.effort, to, "the numbers do not solve the puzzle"), nil
	}
	if !s.used.use(p.hash, z.nonce, int64(z.issued), now) {
		return s.wrong(x, p, z.effort, to, "the puzzle was used, or is older than is remembered"), nil
	}
	return s.grant(x, p, to, waited), nil
}

func (s *Stage) wrong(x *stage.Exchange, p *part, effort int, to, why string) *message.Response {
	p.metrics[outWrong].Inc()
	x.MarkDetail(name, "wrong", why)
	x.Noted = true
	return s.ask(x, p, min(max(effort, leastWork), mostWork), to, stateAgain, 0)
}

// grant gives the proof and leads back.
func (s *Stage) grant(x *stage.Exchange, p *part, to string, waited bool) *message.Response {
	now := s.clock.Unix(x.Start)
	t := proof{waited: waited, issued: uint32(now), expires: uint32(now + p.lifetime), id: rand.Uint64()}
	t.network, t.client = binding(x, t.id)
	text := t.append(nil, p.proofs)
	s.spread.Use(p.hash^t.id, x.Client, 0, x.Start) // its first network
	s.cleared.put(p.hash, x)
	code := outSolved
	if waited {
		code = outWaited
	}
	p.metrics[code].Inc()
	x.Mark(name, outcomes[code])
	r := &x.Response
	r.Reset()
	r.AddString(message.CacheControl, "no-store")
	if notice.FormFor(x.In) == notice.JSON {
		r.Status = 200
		r.AddString(message.ContentType, "application/json")
		r.AddLine([]byte(p.header), text)
		b := append([]byte(`{"pass":"`), text...)
		b = append(b, `","header":"`+p.header+"\"}\n"...)
		r.SetBytes(b)
		return r
	}
	r.Status = 303
	r.AddString(message.Location, to)
	cookie.Set(&r.Fields, p.cookie, text, p.lifetime, x.In.Secure)
	r.SetBytes(nil)
	return r
}

// readForm reads a solution, as a browser's form sends it.
func readForm(ctx context.Context, in *message.Request) (f form, err error) {
	if in.ContentLength > maxForm {
		return f, errLong
	}
	var b []byte
	for in.Body != nil {
		chunk, err := in.Body.Next(ctx)
		b = append(b, chunk...)
		if len(b) > maxForm {
			return f, errLong
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return f, err
		}
	}
	for pair := range bytes.SplitSeq(b, []byte{'&'}) {
		k, v, _ := bytes.Cut(pair, []byte{'='})
		v = unescape(v)
		switch string(k) {
		case "p":
			f.puzzle = v
		case "s":
			f.solution = v
		case "to":
			f.to = v
		}
	}
	return f, nil
}

// unescape undoes the encoding of a form; what is badly encoded stays as it is.
func unescape(v []byte) []byte {
	out := make([]byte, 0, len(v))
	for i := 0; i < len(v); i++ {
		switch c := v[i]; {
		case c == '+':
			out = append(out, ' ')
		case c == '%' && i+2 < len(v) && nibble(v[i+1]) < 16 && nibble(v[i+2]) < 16:
			out = append(out, nibble(v[i+1])<<4|nibble(v[i+2]))
			i += 2
		default:
			out = append(out, c)
		}
	}
	return out
}

func nibble(c byte) byte {
	switch {
	case c >= '0' && c <= '9':
		return c - '0'
	case c >= 'a' && c <= 'f':
		return c - 'a' + 10
	case c >= 'A' && c <= 'F':
		return c - 'A' + 10
	}
	return 16
}

// safeTarget is where to lead back: a path of this host, and never another one's address.
func safeTarget(to []byte) string {
	if len(to) == 0 || to[0] != '/' || len(to) > 4096 || len(to) > 1 && (to[1] == '/' || to[1] == '\\') {
		return "/"
	}
	for _, c := range to {
		if c <= ' ' || c >= 0x7f || c == '\\' || c == '"' || c == '<' || c == '>' {
			return "/"
		}
	}
	return string(to)
}

// Strip removes the proofs of x's site from the fields f of a request, which an origin has no use for.
func (s *Stage) Strip(x *stage.Exchange, f *message.Fields) {
	p, _ := x.Site.Parts[s.slot].(*part)
	if p == nil {
		return
	}
	if p.header != "" {
		f.DelLine(p.header)
	}
	if f.Has(message.Cookie) {
		m := s.memory(x)
		m.buf = cookie.Strip(m.buf, f, p.names)
	}
}
