package pop

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/bundle"
	"github.com/relais-edge/relais/internal/bundle/wire"
	"github.com/relais-edge/relais/internal/observe"
)

// stand is an edge that remembers what it was given, and takes no site of a name.
type stand struct {
	refuse  string
	serving *bundle.Bundle
}

func (s *stand) Apply(_ context.Context, b *bundle.Bundle) error {
	for _, site := range b.Sites {
		if _, name := site.Key.Split(); name == s.refuse {
			return errors.New("the edge does not take it")
		}
	}
	s.serving = b
	return nil
}

func (s *stand) serves() string {
	var words []string
	for _, site := range s.serving.Sites {
		words = append(words, fmt.Sprint(site.Key, site.Hostnames))
	}
	return strings.Join(words, " ")
}

func newTenants(e Applier) *Tenants {
	return NewTenants(TenantsConfig{Platform: "default", Edge: e, Logger: slog.New(slog.DiscardHandler), Metrics: observe.New()})
}

// through sends a bundle over the wire.
func through(t *testing.T, l Loader, org string, sites ...*bundle.Site) *bundle.Bundle {
	t.Helper()
	index, parts, err := wire.Encode(&bundle.Bundle{Format: bundle.Format, Organization: org, Sites: sites}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if refs, err := l.Parts(index); err != nil || len(refs) != len(parts) {
		t.Fatal(refs, err)
	}
	b, err := l.Decode(org, index, parts)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func shopSite(org, name string, hosts ...string) *bundle.Site {
	return &bundle.Site{Key: bundle.NewKey(org, name), Hostnames: hosts, Routes: []v1.Route{{Name: "all"}}}
}

func TestTenantsAreServedTogether(t *testing.T) {
	e := &stand{}
	l := newTenants(e)
	first := map[string]*bundle.Bundle{
		"a": through(t, l, "a", shopSite("a", "s", "x")),
		"b": through(t, l, "b", shopSite("b", "s", "x", "y")),
	}
	if err := l.ApplyTenants(t.Context(), first); err != nil {
		t.Fatal(err)
	}
	if got := e.serves(); got != "a/s[x] b/s[y]" {
		t.Error(got)
	}
	was := e.serving
	if err := l.ApplyTenants(t.Context(), map[string]*bundle.Bundle{"c": through(t, l, "c", shopSite("c", "s", "z"))}); err != nil {
		t.Fatal(err)
	}
	if got := e.serves(); got != "a/s[x] b/s[y] c/s[z]" || !slices.Equal(e.serving.Sites[:2], was.Sites) {
		t.Error("what did not change is something else:", got)
	}
	if err := l.ApplyTenants(t.Context(), map[string]*bundle.Bundle{"a": nil}); err != nil {
		t.Fatal(err)
	}
	if got := e.serves(); got != "b/s[x y] c/s[z]" {
		t.Error(got)
	}
	if len(l.readers) != 2 {
		t.Errorf("%d readers of 2 organizations", len(l.readers))
	}
}

func TestWhatTheEdgeRefusesChangesNothing(t *testing.T) {
	e := &stand{refuse: "bad"}
	l := newTenants(e)
	if err := l.ApplyTenants(t.Context(), map[string]*bundle.Bundle{"a": through(t, l, "a", shopSite("a", "s", "x"))}); err != nil {
		t.Fatal(err)
	}
	bad := map[string]*bundle.Bundle{"a": nil, "b": through(t, l, "b", shopSite("b", "bad", "x"))}
	if err := l.ApplyTenants(t.Context(), bad); err == nil {
		t.Fatal("it is taken")
	}
	ports := &bundle.Bundle{Format: bundle.Format, Organization: "b", Listeners: []bundle.Listener{{Key: "b/l"}}}
	if err := l.ApplyTenants(t.Context(), map[string]*bundle.Bundle{"b": ports}); err == nil || !strings.Contains(err.Error(), "opens ports") {
		t.Error(err)
	}
	if err := l.ApplyTenants(t.Context(), map[string]*bundle.Bundle{"c": through(t, l, "c", shopSite("c", "s", "x"))}); err != nil {
		t.Fatal(err)
	}
	if got := e.serves(); got != "a/s[x] c/s[]" {
		t.Error("a has lost its place in the line:", got)
	}
}
