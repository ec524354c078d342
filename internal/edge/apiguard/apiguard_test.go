package apiguard

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/bundle"
	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/observe"
	"github.com/relais-edge/relais/internal/openapi"
	"github.com/relais-edge/relais/internal/snapshot"
	"github.com/relais-edge/relais/internal/stage"
)

const slot = 3

const document = `{"openapi":"3.1.0","paths":{
"/orders":{"post":{"requestBody":{"required":true,"content":{"application/json":{"schema":{"type":"object","required":["sku"],"properties":{"sku":{"type":"string"}}}}}}}},
"/orders/{id}":{"get":{"parameters":[{"name":"id","in":"path","required":true,"schema":{"type":"integer"}}]}}}}`

// text is a body in pieces.
type text struct {
	pieces []string
	err    error // in place of the end
	closed bool
}

func (b *text) Next(context.Context) ([]byte, error) {
	if len(b.pieces) == 0 {
		if b.err != nil {
			return nil, b.err
		}
		return nil, io.EOF
	}
	p := b.pieces[0]
	b.pieces = b.pieces[1:]
	return []byte(p), nil
}

func (b *text) Close(error) { b.closed = true }

// last answers, and reads the body as an origin would.
type last struct {
	r    message.Response
	body string
}

func (l *last) Serve(ctx context.Context, x *stage.Exchange) (*message.Response, error) {
	l.body = ""
	for x.In.Body != nil {
		b, err := x.In.Body.Next(ctx)
		l.body += string(b)
		if err == io.EOF {
			x.In.Body.Close(nil)
			break
		}
		if err != nil {
			return nil, err
		}
	}
	return &l.r, nil
}

type bed struct {
	*Stage
	site *snapshot.Site
	last last
}

func specOf(change func(*v1.ApiPolicySpec)) *v1.ApiPolicySpec {
	size := v1.Size(128)
	s := &v1.ApiPolicySpec{Mode: v1.ModeEnforce, Document: &v1.ApiDocument{Inline: document}, Unknown: "report", Baskets: "pass", BodyBytes: &size, Oversize: "pass", Discovery: "on"}
	if change != nil {
		change(s)
	}
	return s
}

func newBed(t testing.TB, change func(*v1.ApiPolicySpec)) *bed {
	t.Helper()
	b := &bed{Stage: New(Config{Slot: slot}, observe.New())}
	b.last.r.Status = 200
	b.use(t, specOf(change))
	return b
}

func (b *bed) use(t testing.TB, spec *v1.ApiPolicySpec) {
	t.Helper()
	var old stage.Part
	if b.site != nil {
		old = b.site.Parts[slot]
	}
	b.site = &snapshot.Site{
		Key: "o/shop", Spec: &bundle.Site{API: map[string]*v1.ApiPolicySpec{"p": spec}},
		Routes: []snapshot.Route{{Index: 0, Name: "a", Spec: &v1.Route{Policies: v1.Policies{API: "p"}}}},
		Parts:  make([]any, stage.Slots),
	}
	p, err := b.Compile(b.site, old)
	if err != nil {
		t.Fatal(err)
	}
	b.site.Parts[slot] = p
}

func (b *bed) exchange(method, path string, body *text, fields ...string) *stage.Exchange {
	r := &message.Request{}
	r.SetMethod([]byte(method))
	r.SetPath([]byte(path))
	for _, f := range fields {
		n, v, _ := strings.Cut(f, ": ")
		r.AddLine([]byte(n), []byte(v))
	}
	if body != nil {
		r.Body, r.ContentLength = body, -1
	}
	return &stage.Exchange{In: r, Path: r.Path(), Site: b.site, Route: &b.site.Routes[0], Start: time.Now()}
}

// ask gives the status, the mark's code and its detail.
func (b *bed) ask(x *stage.Exchange) (int, string, string) {
	_, err := b.Serve(context.Background(), x, &b.last)
	x.End(message.Outcome{})
	m := stage.Mark{}
	if marks := x.Trail.Marks(); len(marks) > 0 {
		m = marks[0]
	}
	if err != nil {
		return stage.AsError(err).Status, m.Code, m.Detail
	}
	return 200, m.Code, m.Detail
}

const isJSON = "Content-Type: application/json"

func TestRequestsAreJudgedByTheDocument(t *testing.T) {
	long := &text{pieces: []string{`{"sku":"`, strings.Repeat("a", 100), strings.Repeat("a", 100), `"}`}}
	for _, c := range []struct {
		name   string
		change func(*v1.ApiPolicySpec)
		method string
		path   string
		body   *text
		status int
		code   string
		says   string
	}{
		{"good", nil, "GET", "/orders/7", nil, 200, "pass", "/orders/{id}"},
		{"good body in pieces", nil, "POST", "/orders", &text{pieces: []string{`{"sk`, `u":"a"}`}}, 200, "pass", ""},
		{"bad parameter", nil, "GET", "/orders/x", nil, 400, "deny", "GET /orders/{id}: path id is of type string"},
		{"bad body", nil, "POST", "/orders", &text{pieces: []string{`{}`}}, 400, "deny", "lacks sku"},
		{"no body", nil, "POST", "/orders", nil, 400, "deny", "body is missing"},
		{"deep body", nil, "POST", "/orders", &text{pieces: []string{strings.Repeat("[", 120)}}, 400, "deny", "nested too deep"},
		{"unknown path", nil, "GET", "/wp-admin", nil, 200, "unknown", "relais api endpoints"},
		{"unknown path, passed", func(s *v1.ApiPolicySpec) { s.Unknown = "pass" }, "GET", "/wp-admin", nil, 200, "unknown", ""},
		{"unknown path, refused", func(s *v1.ApiPolicySpec) { s.Unknown = "refuse" }, "GET", "/wp-admin", nil, 404, "deny", "not in the document"},
		{"unknown method, refused", func(s *v1.ApiPolicySpec) { s.Unknown = "refuse" }, "DELETE", "/orders/7", nil, 405, "deny", "method"},
		{"preflight", func(s *v1.ApiPolicySpec) { s.Unknown = "refuse" }, "OPTIONS", "/orders/7", nil, 200, "unknown", ""},
		{"HEAD", func(s *v1.ApiPolicySpec) { s.Unknown = "refuse" }, "HEAD", "/orders/7", nil, 200, "pass", ""},
		{"shadow", func(s *v1.ApiPolicySpec) { s.Mode = v1.ModeShadow }, "GET", "/orders/x", nil, 200, "would-deny", "path id"},
		{"off", func(s *v1.ApiPolicySpec) { s.Mode = v1.ModeOff }, "GET", "/orders/x", nil, 200, "", ""},
		{"long body", nil, "POST", "/orders", long, 200, "oversize", "bodyBytes"},
		{"long body, rejected", func(s *v1.ApiPolicySpec) { s.Oversize = "reject" }, "POST", "/orders", &text{pieces: []string{strings.Repeat("a", 200)}}, 413, "deny", "longer than bodyBytes"},
		{"bodies are not checked", func(s *v1.ApiPolicySpec) { *s.BodyBytes = 0 }, "POST", "/orders", &text{pieces: []string{`{}`}}, 200, "pass", ""},
		{"without a document", func(s *v1.ApiPolicySpec) { s.Document = nil; s.Mode = v1.ModeShadow }, "GET", "/x", nil, 200, "", ""},
	} {
		b := newBed(t, c.change)
		want := ""
		if c.body != nil {
			want = strings.Join(c.body.pieces, "")
		}
		status, code, says := b.ask(b.exchange(c.method, c.path, c.body, isJSON))
		if status != c.status || code != c.code || !strings.Contains(says, c.says) {
			t.Errorf("%s: %d %s %q, want %d %s %q", c.name, status, code, says, c.status, c.code, c.says)
		}
		if status == 200 && b.last.body != want {
			t.Errorf("%s: the origin got %q, want %q", c.name, b.last.body, want)
		}
		if n := b.bodies.Used(); n != 0 {
			t.Errorf("%s: %d bytes are still counted", c.name, n)
		}
	}
}

func TestAnOrderIsNotLostToTheDocument(t *testing.T) {
	for baskets, want := range map[string]string{"pass": "200 basket", "refuse": "400 deny"} {
		b := newBed(t, func(s *v1.ApiPolicySpec) { s.Baskets = baskets })
		x := b.exchange("POST", "/orders", &text{pieces: []string{`{"wrong":1}`}}, isJSON)
		x.Visitor.Class = stage.Protected
		status, code, _ := b.ask(x)
		if got := fmt.Sprint(status, " ", code); got != want {
			t.Errorf("baskets: %s: %s, want %s", baskets, got, want)
		}
		if status == 200 && (b.last.body != `{"wrong":1}` || !x.Noted) {
			t.Errorf("the origin got %q, noted %v", b.last.body, x.Noted)
		}
	}
}

func TestRFC9110Section15_5_6A405SaysWhatIsAllowed(t *testing.T) {
	b := newBed(t, func(s *v1.ApiPolicySpec) { s.Unknown = "refuse" })
	_, err := b.Serve(t.Context(), b.exchange("DELETE", "/orders", nil), &b.last)
	if e := stage.AsError(err); e.Status != 405 || string(e.Fields.Lookup("Allow")) != "POST" {
		t.Errorf("%+v", e)
	}
}

func TestABodyThatFailsEndsTheRequestWithItsOwnError(t *testing.T) {
	b := newBed(t, nil)
	broken := errors.New("the visitor is gone")
	_, err := b.Serve(t.Context(), b.exchange("POST", "/orders", &text{pieces: []string{`{"s`}, err: broken}, isJSON), &b.last)
	if !errors.Is(err, broken) {
		t.Error(err)
	}
	if n := b.bodies.Used(); n != 0 {
		t.Errorf("%d bytes are still counted", n)
	}
}

func TestMemoryForBodiesIsBoundedAndABasketPasses(t *testing.T) {
	for class, want := range map[stage.Class]int{stage.Anonymous: 503, stage.Protected: 200} {
		b := newBed(t, nil)
		b.Stage = New(Config{Slot: slot, BodyMemory: 4}, observe.New())
		b.site = nil
		b.use(t, specOf(nil))
		x := b.exchange("POST", "/orders", &text{pieces: []string{`{"sku":`, `"a"}`}}, isJSON)
		x.Visitor.Class = class
		if status, code, _ := b.ask(x); status != want {
			t.Errorf("%s: %d %s", class, status, code)
		}
	}
}

func TestAnOrganizationHasItsPartOfTheMemoryForBodies(t *testing.T) {
	b := newBed(t, nil)
	b.Stage = New(Config{Slot: slot, BodyMemory: 1000}, observe.New())
	b.site = nil
	b.use(t, specOf(nil))
	other := "p"
	for b.bodies.Account("o") == b.bodies.Account(other) {
		other += "p" // one in thousands shares the account
	}
	ask := func() (int, string, string) {
		return b.ask(b.exchange("POST", "/orders", &text{pieces: []string{`{"sku":"` + strings.Repeat("a", 90) + `"}`}}, isJSON))
	}
	for organization, want := range map[string]int{"o": 503, other: 200} {
		kept, err := b.bodies.Account(organization).Read(t.Context(), &text{pieces: []string{strings.Repeat("x", 700)}}, 1000, false)
		if err != nil {
			t.Fatal(err)
		}
		if status, code, says := ask(); status != want || (want == 503) != strings.Contains(says, "part") {
			t.Errorf("%s has 700 of 1000 bytes: %d %s %q", organization, status, code, says)
		}
		kept.Close(nil)
	}
}

func TestADocumentThatIsWrongDoesNotComeIntoService(t *testing.T) {
	b := newBed(t, nil)
	site := *b.site
	site.Spec = &bundle.Site{API: map[string]*v1.ApiPolicySpec{"p": specOf(func(s *v1.ApiPolicySpec) { s.Document.Inline = `{"openapi":"2.0"}` })}}
	if _, err := b.Compile(&site, nil); err == nil {
		t.Error("it was taken")
	}
}

func TestPathsBecomeTemplates(t *testing.T) {
	for path, want := range map[string]string{
		"/":               "/",
		"/products/42":    "/products/{id}",
		"/v1/products":    "/v1/products",
		"/api/v2.1/x":     "/api/v2.1/x",
		"/a/2024-01-31/b": "/a/{id}/b",
		"/u/6ba7b810-9dad-11d1-80b4-00c04fd430c8": "/u/{id}",
		"/c/d41d8cd98f00b204e9800998ecf8427e":     "/c/{id}",
		"/o/507f1f77bcf86cd799439011/items":       "/o/{id}/items",
		"/e/01ARZ3NDEKTSV4RRFFQ69G5FAV":           "/e/{id}",
		"/m/jane@example.com":                     "/m/{id}",
		"/s/eyJhbGciOiJIUzI1NiJ9Zx0":              "/s/{id}",
		"/n/Z%C3%BCrich":                          "/n/{id}",
		"/x/SKU12345":                             "/x/{id}",
		"/deadbeef/feedface":                      "/deadbeef/feedface",
		"/checkout/payment-methods":               "/checkout/payment-methods",
		"/files/main.js":                          "/files/main.js",
		"/a//b/":                                  "/a//b/",
		"/" + strings.Repeat("x/", 40):            "/" + strings.Repeat("x/", 16) + "{more}",
	} {
		if got := string(appendTemplate(nil, []byte(path))); got != want {
			t.Errorf("%s is %s, want %s", path, got, want)
		}
	}
}

func TestEndpointsAreFoundAndToldApartFromTheDocument(t *testing.T) {
	b := newBed(t, nil)
	for i := range 20 {
		b.ask(b.exchange("GET", fmt.Sprintf("/orders/%d", i), nil))
		b.ask(b.exchange("POST", fmt.Sprintf("/basket/%d/items", i), nil))
	}
	b.ask(b.exchange("GET", "/orders/x", nil))
	list, ok := b.Endpoints("o/shop")
	if !ok || len(list) != 1 {
		t.Fatal(list)
	}
	rows := map[string]Endpoint{}
	for _, e := range list[0].Endpoints {
		rows[e.Method+" "+e.Template] = e
	}
	if e := rows["GET /orders/{id}"]; !e.Documented || e.Requests != 21 || e.Status[2] != 20 || e.Status[4] != 1 {
		t.Errorf("%+v", e)
	}
	if e := rows["POST /basket/{id}/items"]; e.Documented || e.Requests != 20 || e.Last.IsZero() {
		t.Errorf("%+v", e)
	}
	if e, ok := rows["POST /orders"]; !ok || e.Requests != 0 {
		t.Errorf("an endpoint that nobody asked for is not listed: %+v", e)
	}
	// The counts outlive a change of the document.
	b.use(t, specOf(func(s *v1.ApiPolicySpec) {
		s.Document.Inline = `{"openapi":"3.1.0","paths":{"/basket/{id}/items":{"post":{}}}}`
	}))
	b.ask(b.exchange("POST", "/basket/1/items", nil))
	list, _ = b.Endpoints("o/shop")
	for _, e := range list[0].Endpoints {
		switch e.Method + " " + e.Template {
		case "POST /basket/{id}/items":
			if !e.Documented || e.Requests != 21 {
				t.Errorf("%+v", e)
			}
		case "GET /orders/{id}":
			if e.Documented || e.Requests != 21 {
				t.Errorf("%+v", e)
			}
		default:
			t.Errorf("%+v", e)
		}
	}
	if b.Forget(func(string) bool { return false }); len(b.tables) != 0 {
		t.Error("the table of a site that is gone is kept")
	}
}

func TestTheTableIsBoundedAndWhoLooksForHolesWashesNothingAway(t *testing.T) {
	b := newBed(t, func(s *v1.ApiPolicySpec) { s.Document, s.Mode = nil, v1.ModeShadow })
	for i := range 300 {
		b.ask(b.exchange("GET", "/good/"+word(i), nil))
	}
	b.last.r.Status = 404
	for i := range 5_000 {
		b.ask(b.exchange("GET", "/bad/"+word(i), nil))
	}
	list, _ := b.Endpoints("o/shop")
	good := 0
	for _, e := range list[0].Endpoints {
		if strings.HasPrefix(e.Template, "/good/") {
			good++
		}
	}
	if n := len(list[0].Endpoints); n > maxRows || good != 300 || list[0].Others == 0 {
		t.Errorf("%d rows, %d of them good, %d others", n, good, list[0].Others)
	}
}

// word is a different word of letters for each i.
func word(i int) string {
	b := []byte("ghijk")
	for k := range b {
		b[k] = byte('g' + i%20)
		i /= 20
	}
	return string(b)
}

func TestADraftIsADocumentThatHoldsWhatItWasMadeOf(t *testing.T) {
	b := newBed(t, func(s *v1.ApiPolicySpec) { s.Document, s.Mode = nil, v1.ModeShadow })
	for _, p := range []string{"/orders/7/items/8", "/orders/7", "/7/8", "/plain"} {
		b.ask(b.exchange("GET", p, nil))
	}
	b.last.r.Status = 404
	b.ask(b.exchange("GET", "/wp-admin", nil))
	list, _ := b.Endpoints("o/shop")
	draft := Draft(list)
	if !json.Valid(draft) || strings.Contains(string(draft), "wp-admin") || !strings.Contains(string(draft), "/orders/{orderId}/items/{itemId}") {
		t.Errorf("%s", draft)
	}
	a, err := openapi.Compile(draft, "")
	if err != nil {
		t.Fatal(err)
	}
	var m openapi.Match
	for _, p := range []string{"/orders/1/items/2", "/orders/3", "/1/2", "/plain"} {
		if a.Find("GET", []byte(p), &m); m.Operation == nil {
			t.Errorf("%s is not in the draft", p)
		}
	}
}

func TestThePassPathOfAKnownEndpointAllocatesNothing(t *testing.T) {
	b := newBed(t, nil)
	x := b.exchange("GET", "/orders/7", nil)
	ask := func() {
		x.Trail = stage.Trail{}
		if _, err := b.Serve(context.Background(), x, &b.last); err != nil {
			t.Fatal(err)
		}
	}
	ask()
	if n := testing.AllocsPerRun(200, ask); n >= 1 && !race {
		t.Errorf("%v allocations", n)
	}
}

func FuzzTemplate(f *testing.F) {
	f.Add("/products/42/x")
	f.Add("//%2f/\x00/..")
	f.Fuzz(func(t *testing.T, path string) {
		got := appendTemplate(nil, []byte(path))
		if len(got) > maxTemplate+len(path)+8 || strings.Count(string(got), "/") > strings.Count(path, "/") {
			t.Fatalf("%q is %q", path, got)
		}
		if len(got) > maxTemplate+64+8+strings.Count(path, "/") {
			t.Fatalf("%d bytes", len(got))
		}
	})
}

// Most origins read a body whatever its Content-Encoding, and Upgrade of a request with a body means nothing.
func TestNoFieldOfARequestKeepsItsBodyFromBeingChecked(t *testing.T) {
	b := newBed(t, nil)
	for field, want := range map[string]int{"Content-Encoding: gzip": 415, "Content-Encoding: identity": 400, "Upgrade: websocket": 400, "Content-Type: text/plain": 400} {
		_, err := b.Serve(t.Context(), b.exchange("POST", "/orders", &text{pieces: []string{`{}`}}, isJSON, field), &b.last)
		e := stage.AsError(err)
		if err == nil || e.Status != want {
			t.Errorf("%s: %+v, want %d", field, e, want)
		} else if want == 415 && string(e.Fields.Lookup("Accept-Encoding")) != "identity" { // RFC 9110 section 12.5.3
			t.Errorf("%s: does not say what is taken", field)
		}
	}
}

func TestRowsOfDocumentsThatAreGoneAreBounded(t *testing.T) {
	b := newBed(t, nil)
	for round := range 3 {
		var paths []string
		for i := range maxRows {
			paths = append(paths, fmt.Sprintf(`"/r%d/%s":{"get":{}}`, round, word(i)))
		}
		b.use(t, specOf(func(s *v1.ApiPolicySpec) {
			s.Document.Inline = `{"openapi":"3.1.0","paths":{` + strings.Join(paths, ",") + `}}`
		}))
		for i := range maxRows {
			b.ask(b.exchange("GET", fmt.Sprintf("/r%d/%s", round, word(i)), nil))
		}
	}
	b.use(t, specOf(nil))
	list, _ := b.Endpoints("o/shop")
	found := 0
	for _, e := range list[0].Endpoints {
		if !e.Documented {
			found++
		}
	}
	if found != maxRows || list[0].GaveWay != 2*maxRows {
		t.Errorf("%d rows of no document, %d gave way", found, list[0].GaveWay)
	}
}

func TestRequestsAndReloadsMeetWithoutHarm(t *testing.T) {
	b := newBed(t, nil)
	site, route := b.site, b.site.Routes[0]
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for i := range 200 {
				x := b.exchange("POST", "/orders", &text{pieces: []string{`{"sku":"a"}`}}, isJSON)
				if x.Site, x.Route = site, &route; i%2 == 1 {
					x = b.exchange("GET", "/"+word(i), nil)
					x.Site, x.Route = site, &route
				}
				if _, err := b.Serve(context.Background(), x, &last{r: message.Response{Status: 200}}); err != nil {
					t.Error(err)
				}
				x.End(message.Outcome{})
			}
		})
	}
	part := site.Parts[slot]
	for i := range 50 {
		next := *site
		next.Spec = &bundle.Site{API: map[string]*v1.ApiPolicySpec{"p": specOf(func(s *v1.ApiPolicySpec) { s.BasePath = fmt.Sprintf("/v%d", i) })}}
		p, err := b.Compile(&next, part)
		if err != nil {
			t.Fatal(err)
		}
		part = p
		b.Endpoints("o/shop")
	}
	wg.Wait()
	if n := b.bodies.Used(); n != 0 {
		t.Errorf("%d bytes are still counted", n)
	}
}
