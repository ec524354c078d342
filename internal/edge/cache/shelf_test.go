package cache

import (
	"fmt"
	"testing"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/edge/cache/semantics"
	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/stage"
)

// onShelf is a stage with one key.
type onShelf struct {
	*rig
	key []byte
	now int64
}

func newShelf(t *testing.T) *onShelf {
	t.Helper()
	return &onShelf{rig: newRig(t, v1.CachePolicySpec{}, ok("")), key: []byte("acme/shop http://shop.example/a")}
}

func (s *onShelf) put(route, selector, language, body string) {
	s.t.Helper()
	s.now++
	o := &object{status: 200, route: route, body: []byte(body), Life: semantics.Life{Came: s.now}, org: s.s.tiers.Org("acme")}
	o.fields.AddString(message.ContentType, "text/html")
	if selector != "" {
		var f message.Fields
		f.AddString(message.AcceptLanguage, language)
		o.selector = selectorOf(selector)
		o.selected = semantics.AppendSelected(nil, o.selector, &f)
	}
	if err := s.s.shelve(s.s.tiers.HashOf(s.key), s.key, o, nil); err != nil {
		s.t.Fatal(err)
	}
}

// selectorOf is the selector of one field.
func selectorOf(name string) []byte {
	var f message.Fields
	f.AddString(message.Vary, name)
	sel, _ := semantics.AppendSelector(nil, &f, "")
	return sel
}

// look looks up, as a request on a route does.
func (s *onShelf) look(x *stage.Exchange, l *local) *object {
	l.rule = s.site.Parts[3].(*part).routes[0]
	l.key = append(l.key[:0], s.key...)
	l.hash = s.s.tiers.HashOf(l.key)
	o, _, _ := s.s.find(l, x, l.reuse(&l.found), false)
	return o
}

func (s *onShelf) ask(route int, language string) string {
	x := s.exchange("GET /a", "Accept-Language: "+language)
	defer x.End(message.Outcome{})
	x.Route = &s.site.Routes[route]
	if o := s.look(x, s.s.local(x)); o != nil {
		return string(o.body)
	}
	return ""
}

func TestVariantsAreFoundByWhatTheySelectAndGoTogether(t *testing.T) {
	s := newShelf(t)
	if got := s.ask(0, "l0"); got != "" {
		t.Fatal(got)
	}
	s.put("cached", "", "", "for all")
	if got := s.ask(0, "l0"); got != "for all" {
		t.Fatalf("%q", got)
	}
	if got := s.ask(2, "l0"); got != "" {
		t.Fatalf("another route got %q", got)
	}
	for i := range 40 {
		s.put("cached", "Accept-Language", fmt.Sprint("l", i), fmt.Sprint("in ", i))
	}
	s.put("other", "", "", "other")
	for i := range 40 {
		if got := s.ask(0, fmt.Sprint("l", i)); got != fmt.Sprint("in ", i) {
			t.Errorf("%d: %q", i, got)
		}
	}
	if got := s.ask(2, "l0"); got != "other" {
		t.Errorf("%q", got)
	}
	s.s.clear(s.s.tiers.HashOf(s.key), s.key, true)
	s.put("cached", "Accept-Language", "l1", "new")
	for i := range 3 {
		want := ""
		if i == 1 {
			want = "new"
		}
		if got := s.ask(0, fmt.Sprint("l", i)); got != want {
			t.Errorf("%d: %q is there after all were deleted", i, got)
		}
	}
}

func TestFindingOnAShelfAllocatesNothing(t *testing.T) {
	s := newShelf(t)
	s.put("cached", "Accept-Language", "en", "body")
	x := s.exchange("GET /a", "Accept-Language: en")
	l := s.s.local(x)
	if n := testing.AllocsPerRun(100, func() {
		if s.look(x, l) == nil {
			t.Fatal("not found")
		}
		x.End(message.Outcome{})
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
