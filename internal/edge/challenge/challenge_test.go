package challenge

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/bundle"
	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/observe"
	"github.com/relais-edge/relais/internal/snapshot"
	"github.com/relais-edge/relais/internal/stage"
)

// guard is a stage that challenges everybody, with the site behind it.
type guard struct{ c stage.Challenger }

func (g *guard) Serve(_ context.Context, x *stage.Exchange) (*message.Response, error) {
	if !g.c.Passed(x) {
		if r := g.c.Challenge(x, 0); r != nil {
			return r, nil
		}
	}
	r := &x.Response
	r.Reset()
	r.Status = 200
	return r, nil
}

func challengeSpec() *v1.Challenge {
	return &v1.Challenge{
		Effort: 8, Wait: v1.Duration(10 * time.Second), Lifetime: v1.Duration(30 * time.Minute), Cookie: "rc",
		Header: "Relais-Pass", Secret: "0123456789abcdef",
	}
}

type rig struct {
	t    testing.TB
	st   *Stage
	site *snapshot.Site
	reg  *observe.Registry
}

// counted is how often an outcome was counted.
func (g *rig) counted(outcome string) (n int) {
	g.t.Helper()
	w := httptest.NewRecorder()
	g.reg.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
	for l := range strings.Lines(w.Body.String()) {
		if v, ok := strings.CutPrefix(l, `relais_challenge_total{outcome="`+outcome+`",site="o/shop"} `); ok {
			n, _ = strconv.Atoi(strings.TrimSpace(v))
		}
	}
	return n
}

func newRig(t testing.TB) *rig { return newRigOf(t, challengeSpec()) }

func newRigOf(t testing.TB, spec *v1.Challenge) *rig {
	t.Helper()
	reg := observe.New()
	g := &rig{t: t, st: New(5, nil, reg), reg: reg}
	g.st.used = newFilter(time.Now().Unix() - 1000)
	g.site = &snapshot.Site{Key: "o/shop", Spec: &bundle.Site{Challenge: spec}, Routes: []snapshot.Route{{Spec: &v1.Route{}}}, Parts: make([]any, stage.Slots)}
	p, err := g.st.Compile(g.site, nil)
	if err != nil {
		t.Fatal(err)
	}
	g.site.Parts[5] = p
	return g
}

// client is a browser or a program.
type client struct {
	g                           *rig
	addr, agent, cookie, header string
	class                       stage.Class
	x                           *stage.Exchange
	r                           *message.Response
	err                         error
	blocked                     bool // it keeps no cookies
}

type text struct{ s string }

func (b *text) Next(context.Context) ([]byte, error) { return []byte(b.s), io.EOF }
func (b *text) Close(error)                          {}

func (c *client) do(method, path, accept, body string) *client {
	in := &message.Request{Secure: true, ContentLength: int64(len(body))}
	in.SetMethod([]byte(method))
	p, q, has := strings.Cut(path, "?")
	in.SetPath([]byte(p))
	if has {
		in.SetQuery([]byte(q))
	}
	in.AddString(message.Accept, accept)
	if c.agent != "" {
		in.AddString(message.UserAgent, c.agent)
	}
	if c.cookie != "" {
		in.AddString(message.Cookie, "rc="+c.cookie)
	}
	if c.header != "" {
		in.SetLine("Relais-Pass", []byte(c.header))
	}
	if body != "" {
		in.Body = &text{body}
	}
	if c.addr == "" {
		c.addr = "192.0.2.1"
	}
	c.x = &stage.Exchange{In: in, Path: []byte(p), Site: c.g.site, Route: &c.g.site.Routes[0], Start: time.Now(), Client: netip.MustParseAddr(c.addr)}
	c.x.ID[0] = byte(time.Now().UnixNano())
	c.x.Visitor.Class = c.class
	c.r, c.err = c.g.st.Serve(context.Background(), c.x, &guard{c.g.st})
	if c.r != nil && !c.blocked {
		if v, ok := strings.CutPrefix(string(c.r.Get(message.SetCookie)), "rc="); ok {
			c.cookie, _, _ = strings.Cut(v, ";")
		}
	}
	return c
}

// puzzle is what a program is told.
type told struct {
	Puzzle, Seed, Submit, Header string
	Parts, Bits                  int
}

func (c *client) told() (p told) {
	c.g.t.Helper()
	if err := json.Unmarshal(c.r.Bytes, &p); err != nil {
		c.g.t.Fatalf("%s: %v", c.r.Bytes, err)
	}
	return p
}

func (c *client) solve(p told, to string) *client {
	return c.send(p.Puzzle, Solve(p.Seed, p.Bits+partBits), to)
}

func (c *client) send(puzzle, solution, to string) *client {
	return c.do("POST", Path, "text/html", url.Values{"p": {puzzle}, "s": {solution}, "to": {to}}.Encode())
}

func TestWorkOpensTheDoorAndLeadsBack(t *testing.T) {
	g := newRig(t)
	c := &client{g: g, agent: "b/1"}
	if c.do("GET", "/a?q=1", "application/json", ""); c.r.Status != 403 || string(c.r.Lookup("Relais-Challenge")) != "required" {
		t.Fatalf("%d", c.r.Status)
	}
	p := c.told()
	if p.Submit != Path || p.Parts != Parts || p.Bits != 5 || p.Header != "Relais-Pass" {
		t.Errorf("%+v", p)
	}
	if c.solve(p, "/a?q=1"); c.r.Status != 303 || string(c.r.Get(message.Location)) != "/a?q=1" || c.cookie == "" {
		t.Fatalf("%d %q %s", c.r.Status, c.r.Get(message.Location), c.r.Bytes)
	}
	if c.do("GET", "/a?q=1", "text/html", ""); c.r.Status != 200 {
		t.Errorf("%d after the work", c.r.Status)
	}
}

func TestAPuzzleIsGoodOnce(t *testing.T) {
	g := newRig(t)
	c := &client{g: g}
	c.do("GET", "/", "application/json", "")
	p := c.told()
	if c.solve(p, "/"); c.r.Status != 303 {
		t.Fatal(c.r.Status)
	}
	d := &client{g: g}
	if d.solve(p, "/"); d.r.Status != 403 || d.cookie != "" {
		t.Errorf("a puzzle that was used gave %d", d.r.Status)
	}
}

func TestWhatDoesNotSolve(t *testing.T) {
	g := newRig(t)
	c := &client{g: g}
	c.do("GET", "/", "application/json", "")
	p := c.told()
	good := Solve(p.Seed, p.Bits+partBits)
	other := good // another first number, which by chance may be good too
	for other = "9" + other; solved([]byte(p.Puzzle), []byte(other), p.Bits+partBits); other = "9" + other {
	}
	for _, c := range []struct{ name, puzzle, solution string }{
		{"no numbers", p.Puzzle, "x"},
		{"too few numbers", p.Puzzle, good[:strings.LastIndexByte(good, '-')]},
		{"too many numbers", p.Puzzle, good + "-1"},
		{"a hyphen at the end", p.Puzzle, good + "-"},
		{"wrong numbers", p.Puzzle, "1-2-3-4-5-6-7-8"},
		{"another first number", p.Puzzle, other},
		{"a sign", p.Puzzle, "+" + good},
		{"long numbers", p.Puzzle, strings.Repeat("1", 13) + good},
		{"a forged puzzle", strings.Replace(p.Puzzle, p.Puzzle[5:6], "z", 1), good},
		{"no puzzle", "", good},
		{"nothing", "", ""},
	} {
		d := &client{g: g}
		if d.send(c.puzzle, c.solution, "/"); d.err != nil || d.r.Status != 403 || d.cookie != "" {
			t.Errorf("%s: %v %d", c.name, d.err, d.r.Status)
		}
	}
	far := &client{g: g, addr: "198.51.100.1", agent: "other"}
	if far.send(p.Puzzle, good, "/"); far.r.Status != 403 {
		t.Error("a puzzle was solved for another address and another User-Agent")
	}
	if d := (&client{g: g}).do("POST", Path, "text/html", strings.Repeat("x", maxForm+1)); !errors.Is(d.err, errLong) {
		t.Errorf("a long form: %v", d.err)
	}
	if d := (&client{g: g}).do("DELETE", Path, "text/html", ""); d.err == nil {
		t.Error("DELETE is taken")
	}
	if d := (&client{g: g}).send(p.Puzzle, good, "/"); d.r.Status != 303 {
		t.Error("the good numbers do not solve, so the test shows nothing")
	}
}

func TestAPuzzleEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig(t)
		c := &client{g: g}
		c.do("GET", "/", "application/json", "")
		p := c.told()
		time.Sleep((puzzleLife + 1) * time.Second)
		if c.solve(p, "/"); c.r.Status != 403 {
			t.Errorf("a puzzle is good after its time: %d", c.r.Status)
		}
	})
}

func TestWithoutScriptsOneWaitsAndPresses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig(t)
		c := &client{g: g}
		c.do("GET", "/", "application/json", "")
		p := c.told()
		if c.send(p.Puzzle, "", "/x"); c.r.Status != 403 || string(c.r.Get(message.RetryAfter)) != "10" || !strings.Contains(string(c.r.Bytes), p.Puzzle) {
			t.Errorf("pressed at once: %d, Retry-After %q", c.r.Status, c.r.Get(message.RetryAfter))
		}
		time.Sleep(10 * time.Second)
		if c.send(p.Puzzle, "", "/x"); c.r.Status != 303 || c.cookie == "" {
			t.Errorf("pressed after the time: %d", c.r.Status)
		}
		g.site.Parts[5].(*part).wait = 0 // as if the time were over each time
		n := 0
		for range 100 {
			g.st.cleared = newCleared()
			d := &client{g: g}
			p := d.do("GET", "/", "application/json", "").told()
			if d.send(p.Puzzle, "", "/"); d.err == nil && d.r.Status == 303 {
				n++
			}
		}
		if n != waitsPerMinute-1 {
			t.Errorf("an address got %d proofs in a minute by waiting, want %d", n, waitsPerMinute-1)
		}
	})
}

func TestAProofIsBoundSoftly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig(t)
		c := &client{g: g, agent: "b/1"}
		c.do("GET", "/", "application/json", "")
		c.solve(c.told(), "/")
		for _, d := range []struct {
			addr, agent string
			status      int
		}{
			{"192.0.2.1", "b/1", 200}, {"198.51.100.1", "b/1", 200}, {"192.0.2.99", "b/2", 200}, {"198.51.100.1", "b/2", 403},
		} {
			e := &client{g: g, addr: d.addr, agent: d.agent, cookie: c.cookie}
			if e.do("GET", "/", "text/html", ""); e.r.Status != d.status {
				t.Errorf("%s %s: %d, want %d", d.addr, d.agent, e.r.Status, d.status)
			}
		}
		passed := 0
		for range 1000 {
			e := &client{g: g, addr: "192.0.2.77", agent: "b/1", cookie: c.cookie}
			if e.do("GET", "/", "text/html", ""); e.r.Status == 200 {
				passed++
			}
		}
		if passed > 320 {
			t.Errorf("one proof let %d requests pass at once", passed)
		}
	})
}

func TestCookiesBlocked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig(t)
		c := &client{g: g, agent: "b/1", blocked: true}
		c.do("GET", "/", "application/json", "")
		if c.solve(c.told(), "/"); c.cookie != "" || c.r.Status != 303 {
			t.Fatal("the test's client keeps cookies")
		}
		if c.do("GET", "/", "text/html", ""); c.r.Status != 200 {
			t.Error("who solved without cookies is asked again")
		}
		if d := (&client{g: g, agent: "b/2"}).do("GET", "/", "text/html", ""); d.r.Status != 403 {
			t.Error("another browser at the same address passes")
		}
		time.Sleep(clearedLife + time.Second)
		if c.do("GET", "/", "text/html", ""); c.r.Status != 403 {
			t.Error("it is remembered for longer than said")
		}
	})
}

func TestProgramsGetTheProofInAField(t *testing.T) {
	g := newRig(t)
	c := &client{g: g, blocked: true}
	p := c.do("GET", "/", asJSON, "").told()
	c.do("POST", Path, asJSON, url.Values{"p": {p.Puzzle}, "s": {Solve(p.Seed, p.Bits+partBits)}}.Encode())
	var got struct{ Pass, Header string }
	if err := json.Unmarshal(c.r.Bytes, &got); err != nil || got.Header != "Relais-Pass" {
		t.Fatalf("%s %v", c.r.Bytes, err)
	}
	g.st.cleared = newCleared()
	d := &client{g: g, header: got.Pass}
	if d.do("GET", "/", asJSON, ""); d.r.Status != 200 {
		t.Error("the proof in the field does not pass")
	}
	d.x.Out.CopyFrom(d.x.In)
	d.x.Out.AddString(message.Cookie, "rc=1; b=2")
	if g.st.Strip(d.x, &d.x.Out.Fields); d.x.Out.Lookup("Relais-Pass") != nil || string(d.x.Out.Get(message.Cookie)) != "b=2" {
		t.Error("the origin sees the proof")
	}
}

const asJSON = "application/json"

func TestWhoHasABasketIsNeverChallenged(t *testing.T) {
	g := newRig(t)
	if c := (&client{g: g, class: stage.Protected}).do("GET", "/", "text/html", ""); c.r.Status != 200 {
		t.Errorf("%d", c.r.Status)
	}
	c := &client{g: g}
	c.do("GET", "/", "text/html", "")
	if c.x.Visitor.Bot = "searcher"; !g.st.Passed(c.x) || g.st.Challenge(c.x, 20) != nil {
		t.Error("a verified bot is challenged")
	}
}

func TestItLeadsOnlyBackToThisHost(t *testing.T) {
	for _, c := range []struct{ to, want string }{
		{"/a/b?c=d&e=%20", "/a/b?c=d&e=%20"},
		{"", "/"},
		{"//evil.test/", "/"},
		{"/\\evil.test", "/"},
		{"https://evil.test/", "/"},
		{"javascript:alert(1)", "/"},
		{"/a\r\nSet-Cookie: x=y", "/"},
		{"/ä", "/"},
		{"/\"><script>", "/"},
		{"/" + strings.Repeat("a", 5000), "/"},
	} {
		if got := safeTarget([]byte(c.to)); got != c.want {
			t.Errorf("%q leads to %q, want %q", c.to, got, c.want)
		}
	}
}

func TestThePage(t *testing.T) {
	g := newRig(t)
	c := (&client{g: g}).do("GET", `/a?b="<script>`, "text/html", "")
	page := string(c.r.Bytes)
	for _, want := range []string{`<html lang="en">`, `role="status"`, `<button type="submit">`, `aria-label="`, `action="` + Path + `"`, `value="/a?b=&#34;&lt;script&gt;"`} {
		if !strings.Contains(page, want) {
			t.Errorf("the page has no %s", want)
		}
	}
	if p := string(c.r.Get(message.ContentSecurityPolicy)); !strings.Contains(p, "default-src 'none'") || !strings.Contains(p, "worker-src blob:") {
		t.Error(p)
	}
	c = (&client{g: g}).do("POST", "/order", "text/html", "x=1")
	if !strings.Contains(string(c.r.Bytes), `name="to" value="/"`) {
		t.Error("a form that was sent would be asked for as a page")
	}
}

func TestTheFilterNeverForgetsWhatMayStillBeUsed(t *testing.T) {
	f := newFilter(0)
	now := int64(1000)
	type used struct{ nonce, issued uint64 }
	var list []used
	for i := range uint64(200_000) {
		if i%200 == 0 {
			now++
		}
		if u := (used{i, uint64(now - 5)}); f.use(1, u.nonce, int64(u.issued), now) {
			list = append(list, u)
		}
	}
	if len(list) < 190_000 {
		t.Errorf("of 200,000 new puzzles %d were taken", len(list))
	}
	for _, u := range list {
		if now-int64(u.issued) <= puzzleLife && f.use(1, u.nonce, int64(u.issued), now) {
			t.Fatalf("puzzle %d was taken twice", u.nonce)
		}
	}
	if !f.use(2, list[len(list)-1].nonce, now, now) {
		t.Error("sites share puzzles")
	}
}

func FuzzForm(f *testing.F) {
	f.Add("p=1&s=2&to=%2fa")
	f.Add("%&=&p")
	f.Fuzz(func(t *testing.T, body string) {
		form, err := readForm(context.Background(), &message.Request{Body: &text{body}})
		if err != nil {
			return
		}
		if to := safeTarget(form.to); to[0] != '/' || len(to) > 1 && to[1] == '/' {
			t.Fatalf("%q leads to %q", body, to)
		}
		if solved([]byte("x"), form.solution, mostWork) {
			t.Fatalf("%q solves", form.solution)
		}
	})
}
