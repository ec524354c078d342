package waitroom

import (
	"context"
	"encoding/json"
	"errors"
	"net/netip"
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

// shop is what lies behind the room: the balance stage with its full pools, in short.
type shop struct {
	full   bool
	stage  *Stage
	served int
	fields string
	seen   stage.Visitor
}

// Serve answers as the stage above the full pool does.
func (s *shop) Serve(ctx context.Context, x *stage.Exchange) (*message.Response, error) {
	s.seen = x.Visitor
	r, err := s.stage.Line().Serve(ctx, x, (*tiers)(s))
	if err != nil && errors.Is(err, stage.ErrFull) {
		if r := s.stage.Answer(x, "o/shop"); r != nil {
			x.Full = "room"
			return r, nil
		}
	}
	return r, err
}

type tiers shop

func (t *tiers) Serve(_ context.Context, x *stage.Exchange) (*message.Response, error) {
	if t.full {
		return nil, &stage.Error{Code: "destination_unavailable", Status: 503, Err: stage.ErrFull}
	}
	t.served++
	r := &x.Response
	r.Reset()
	r.Status = 200
	if n, v, ok := strings.Cut(t.fields, ": "); ok {
		r.AddLine([]byte(n), []byte(v))
	}
	return r, nil
}

// pools are as much space as the test says.
type pools struct {
	free, limit int64
	perSecond   float64
}

func (p *pools) Space(bundle.Key) (int64, int64, float64, bool) {
	return p.free, p.limit, p.perSecond, true
}

func roomSpec() *v1.WaitingRoomSpec {
	return &v1.WaitingRoomSpec{
		When: "overflow", Session: v1.Duration(10 * time.Minute), Refresh: v1.Duration(20 * time.Second),
		TicketsPerMinute: 100, Cookie: "rq", Header: "Relais-Ticket", Secret: "0123456789abcdef",
	}
}

type rig struct {
	t     *testing.T
	reg   *observe.Registry
	st    *Stage
	site  *snapshot.Site
	shop  *shop
	pools *pools
}

func newRig(t *testing.T, spec *v1.WaitingRoomSpec, dir string) *rig {
	t.Helper()
	g := &rig{t: t, reg: observe.New(), shop: &shop{}, pools: &pools{50, 100, 100}}
	g.st = New(Config{Slot: 3, Dir: dir, Pools: g.pools}, g.reg)
	g.shop.stage = g.st
	g.site = &snapshot.Site{
		Key: "o/shop", Organization: "o", Spec: &bundle.Site{Rooms: map[string]*v1.WaitingRoomSpec{"r": spec}},
		Routes: []snapshot.Route{{Spec: &v1.Route{Pool: "shop", Policies: v1.Policies{WaitingRoom: "r"}}}}, Parts: make([]any, stage.Slots),
	}
	p, err := g.st.Compile(g.site, nil)
	if err != nil {
		t.Fatal(err)
	}
	g.site.Parts[3] = p
	return g
}

func (g *rig) policy() *policy { return g.site.Parts[3].(*part).routes[0] }

func (g *rig) line() *line { return g.policy().room.line }

// exchange asks for a page with a ticket.
func (g *rig) exchange(ticket, addr string) *stage.Exchange {
	in := &message.Request{}
	in.SetMethod([]byte("GET"))
	in.AddString(message.Cookie, "rq="+ticket)
	return &stage.Exchange{
		In: in, Path: []byte("/sale"), Site: g.site, Route: &g.site.Routes[0], Start: time.Now(), Client: netip.MustParseAddr(addr),
	}
}

// call lets n in.
func (g *rig) call(n uint64) {
	l := g.line()
	l.mu.Lock()
	l.call(n)
	l.mu.Unlock()
}

// visitor is a browser or a program before the room.
type visitor struct {
	g      *rig
	class  stage.Class
	accept string
	cookie string
	field  string
	addr   string
	agent  string
	r      *message.Response
	x      *stage.Exchange
}

func (v *visitor) get() (waits bool) {
	in := &message.Request{Secure: true}
	in.SetMethod([]byte("GET"))
	in.SetPath([]byte("/sale"))
	if v.accept != "" {
		in.AddString(message.Accept, v.accept)
	}
	if v.cookie != "" {
		in.AddString(message.Cookie, "a=b; rq="+v.cookie)
	}
	if v.agent != "" {
		in.AddString(message.UserAgent, v.agent)
	}
	if v.field != "" {
		in.SetLine("Relais-Ticket", []byte(v.field))
	}
	v.x = &stage.Exchange{In: in, Path: []byte("/sale"), Host: []byte("shop.test"), Site: v.g.site, Route: &v.g.site.Routes[0], Start: time.Now()}
	v.x.Visitor.Class = v.class
	if v.addr == "" {
		v.addr = "192.0.2.1"
	}
	v.x.Client = netip.MustParseAddr(v.addr)
	r, err := v.g.st.Serve(context.Background(), v.x, v.g.shop)
	if err != nil {
		v.r = nil
		return false
	}
	v.r = r
	if c, ok := strings.CutPrefix(string(r.Get(message.SetCookie)), "rq="); ok {
		v.cookie, _, _ = strings.Cut(c, ";")
	}
	if f := r.Lookup("Relais-Ticket"); f != nil {
		v.field = string(f)
	}
	return r.Status == 503
}

func (v *visitor) place(t *testing.T) uint64 {
	t.Helper()
	var page struct {
		Position uint64 `json:"position"`
	}
	if err := json.Unmarshal(v.r.Bytes, &page); err != nil {
		t.Fatalf("%s: %v", v.r.Bytes, err)
	}
	return page.Position
}

const asJSON = "application/json"

func TestTheRoomOpensWhenAllIsFullAndClosesWhenAllAreIn(t *testing.T) {
	g := newRig(t, roomSpec(), "")
	a, b := &visitor{g: g, accept: asJSON}, &visitor{g: g, accept: asJSON}
	if a.get() || a.cookie != "" {
		t.Fatal("there is a line before anything is full")
	}
	g.shop.full = true
	if !a.get() || a.place(t) != 1 || !b.get() || b.place(t) != 2 {
		t.Fatalf("the first two are %s", b.r.Bytes)
	}
	g.shop.full = false
	c := &visitor{g: g, accept: asJSON}
	if !c.get() || c.place(t) != 3 {
		t.Error("one who came later gets past those who wait")
	}
	if !a.get() || a.place(t) != 1 {
		t.Error("asking again changes the place")
	}
	g.call(1)
	if a.get() || a.cookie == "" {
		t.Error("the first is not let in when called")
	}
	if !b.get() || b.place(t) != 1 || !c.get() || c.place(t) != 2 {
		t.Error("the others do not move up")
	}
	for range 5 {
		if a.get() {
			t.Error("one who is in waits again")
		}
	}
	g.call(10)
	if b.get() || c.get() || g.line().open() {
		t.Error("the line is not over")
	}
	d := &visitor{g: g}
	if d.get() || d.cookie != "" {
		t.Error("there is a line when nobody waits")
	}
}

func TestWhoIsProtectedOrVerifiedNeverWaits(t *testing.T) {
	for _, when := range []string{"overflow", "always"} {
		spec := roomSpec()
		spec.When = when
		g := newRig(t, spec, "")
		g.shop.full = true
		(&visitor{g: g}).get()
		g.shop.full = false
		if v := (&visitor{g: g, class: stage.Protected}); v.get() {
			t.Errorf("%s: a visitor with a basket waits", when)
		}
		if v := (&visitor{g: g, class: stage.Known}); !v.get() {
			t.Errorf("%s: one who is only known does not", when)
		}
		g.shop.full = true
		if v := (&visitor{g: g, class: stage.Protected}); v.get() || v.r != nil {
			t.Errorf("%s: a visitor with a basket gets the room's page", when)
		}
	}
}

func TestOneWhoWasLetInAndFindsNoRoomKeepsThePlace(t *testing.T) {
	g := newRig(t, roomSpec(), "")
	g.shop.full = true
	a := &visitor{g: g, accept: asJSON}
	a.get()
	g.call(1)
	if !a.get() || a.place(t) != 0 || g.line().full.Load() != 1 {
		t.Errorf("%s, told full %d times", a.r.Bytes, g.line().full.Load())
	}
	g.shop.full = false
	if a.get() {
		t.Error("not let in when there was room again")
	}
}

func TestARoomThatIsAlwaysOnKeepsItsHours(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		spec := roomSpec()
		spec.When = "always"
		spec.From, spec.Until = &v1.Time{Time: time.Now().Add(time.Hour)}, &v1.Time{Time: time.Now().Add(2 * time.Hour)}
		g := newRig(t, spec, "")
		if (&visitor{g: g}).get() {
			t.Error("it is on before its time")
		}
		time.Sleep(time.Hour)
		v := &visitor{g: g}
		if !v.get() || g.shop.served != 1 {
			t.Error("it is not on at its time")
		}
		g.call(1)
		if v.get() || g.shop.served != 2 {
			t.Error("who was called is not let in")
		}
		time.Sleep(11 * time.Minute)
		if v.cookie = "x"; !v.get() {
			t.Error("not on in the middle of its time")
		}
		time.Sleep(time.Hour)
		if (&visitor{g: g}).get() {
			t.Error("it is on after its time")
		}
	})
}

func TestAPassEndsWhenItIsNotUsed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		spec := roomSpec()
		spec.When = "always"
		g := newRig(t, spec, "")
		v := &visitor{g: g}
		v.get()
		g.call(1)
		for range 10 { // used, it is renewed
			if v.get() {
				t.Fatal("waits though it has a pass")
			}
			time.Sleep(6 * time.Minute)
		}
		time.Sleep(5 * time.Minute)
		if !v.get() {
			t.Error("a pass that was not used for longer than the session is good")
		}
	})
}

func TestForgedAndSharedTickets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		spec := roomSpec()
		spec.When = "always"
		g := newRig(t, spec, "")
		v := &visitor{g: g, accept: asJSON}
		v.get()
		good := v.cookie
		for _, c := range []string{"", "x", good[:len(good)-1], strings.Replace(good, good[8:9], "z", 1)} {
			f := &visitor{g: g, accept: asJSON, cookie: c}
			if f.get(); f.place(t) == 1 {
				t.Errorf("the ticket %q has the place of another", c)
			}
		}
		other := newRig(t, &v1.WaitingRoomSpec{When: "always", Cookie: "rq", Secret: "fedcba9876543210", Session: spec.Session, Refresh: spec.Refresh, TicketsPerMinute: 1}, "")
		w := &visitor{g: other, accept: asJSON, cookie: good}
		if w.get(); w.place(t) != 1 || w.cookie == good {
			t.Error("a ticket of another secret is taken")
		}
		// A pass that a swarm shares is good for one person's requests.
		g.call(1)
		v.get()
		in := 0
		for range 1000 {
			s := &visitor{g: g, cookie: v.cookie}
			if !s.get() {
				in++
			}
		}
		if in > 320 {
			t.Errorf("one pass let %d requests in at once", in)
		}
	})
}

func TestPlacesOfASourceAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig(t, roomSpec(), "")
		g.shop.full = true
		for range 150 {
			(&visitor{g: g}).get()
		}
		if n := g.line().issued.Load(); n != 100 {
			t.Errorf("an address took %d places in a minute, want 100", n)
		}
		v := &visitor{g: g, addr: "198.51.100.1", accept: asJSON}
		if v.get(); v.place(t) != 101 {
			t.Errorf("another address: %s", v.r.Bytes)
		}
	})
}

func TestAppsCarryTheTicketInAField(t *testing.T) {
	g := newRig(t, roomSpec(), "")
	g.shop.full = true
	v := &visitor{g: g, accept: asJSON, field: "new"}
	if !v.get() || v.cookie != "" || v.field == "new" {
		t.Fatalf("field %q, cookie %q", v.field, v.cookie)
	}
	g.shop.full = false
	g.call(1)
	if v.get() {
		t.Error("not let in")
	}
	v.x.Out.CopyFrom(v.x.In)
	v.x.Out.AddString(message.Cookie, "rq=1; b=2")
	g.st.Strip(v.x, &v.x.Out.Fields)
	if v.x.Out.Lookup("Relais-Ticket") != nil || string(v.x.Out.Get(message.Cookie)) != "b=2" {
		t.Error("the origin sees the ticket")
	}
}

func TestShadowHoldsNobody(t *testing.T) {
	spec := roomSpec()
	spec.When, spec.Mode = "always", v1.ModeShadow
	g := newRig(t, spec, "")
	v := &visitor{g: g}
	if v.get() || v.r.Has(message.SetCookie) || len(v.x.Trail.Marks()) != 1 || v.x.Trail.Marks()[0].Code != "would-wait" {
		t.Errorf("%v", v.x.Trail.Marks())
	}
}

func TestThePage(t *testing.T) {
	g := newRig(t, roomSpec(), "")
	g.shop.full = true
	v := &visitor{g: g, accept: "text/html,*/*;q=0.8"}
	v.get()
	page := string(v.r.Bytes)
	for _, want := range []string{`<html lang="en">`, `<h1>You are in the line</h1>`, `role="status"`, `<noscript><meta http-equiv="refresh" content="`, `id="place">1<`, `</html>`} {
		if !strings.Contains(page, want) {
			t.Errorf("the page has no %s", want)
		}
	}
	for _, f := range []struct{ name, want string }{{"Cache-Control", "no-store"}, {"Retry-After", "20"}, {"Relais-Room", "waiting; position=1"}} {
		if got := string(v.r.Lookup(f.name)); got != f.want {
			t.Errorf("%s is %q, want %q", f.name, got, f.want)
		}
	}
	if !strings.Contains(string(v.r.Get(message.ContentSecurityPolicy)), "default-src 'none'") || !strings.Contains(string(v.r.Get(message.SetCookie)), "HttpOnly; SameSite=Lax; Secure") {
		t.Errorf("%q %q", v.r.Get(message.ContentSecurityPolicy), v.r.Get(message.SetCookie))
	}
	spec := roomSpec()
	spec.Page = v1.Page{HTML: "<p>${request.host}: ${room.position}, ${room.wait} s, ${room.refresh} ${client.ip}", JSON: `{"n":${room.position}}`, Text: "n ${room.position}"}
	g = newRig(t, spec, "")
	g.shop.full = true
	for _, c := range []struct{ accept, want string }{
		{"text/html", "<p>shop.test: 1,  s, 20 ${client.ip}"}, {asJSON, `{"n":2}`}, {"*/*", "n 3"},
	} {
		v := &visitor{g: g, accept: c.accept}
		if v.get(); string(v.r.Bytes) != c.want {
			t.Errorf("%s: %q, want %q", c.accept, v.r.Bytes, c.want)
		}
	}
}

func TestRunMovesTheLineAndKeepsIt(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		spec := roomSpec()
		spec.When, spec.NewPerMinute, spec.TicketsPerMinute = "always", 60, 100000
		g := newRig(t, spec, dir)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- g.st.Run(ctx) }()
		last := &visitor{g: g, accept: asJSON}
		for range 100 {
			last = &visitor{g: g, accept: asJSON}
			last.get()
		}
		begun := time.Now()
		for n := 0; last.get(); n++ {
			var page struct{ Wait, RetryAfter int64 }
			if err := json.Unmarshal(last.r.Bytes, &page); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Duration(page.RetryAfter) * time.Second)
			if n > 1000 {
				t.Fatal("the last one never comes in")
			}
		}
		// Of the hundred only the last one comes, so that more are called than sixty a minute.
		if d := time.Since(begun); d > 2*time.Minute {
			t.Errorf("the last of a hundred waited %s", d)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		again := newRig(t, spec, dir)
		if a, b := again.line(), g.line(); a.issued.Load() != b.issued.Load() || a.called.Load() != b.called.Load() || a.epoch != b.epoch {
			t.Errorf("after a restart %d of %d are in, before %d of %d", a.called.Load(), a.issued.Load(), b.called.Load(), b.issued.Load())
		}
	})
}
