package edge

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/bundle"
)

// Switch turns a protection off, whatever the documents say: what a person pulls while the protection harms visitors
// and nobody can wait for a revision. Who may come at all (AccessPolicy, JwtPolicy) is no such protection.
type Switch struct {
	// Protection is one of Protections.
	Protection string
	// Organization whose sites it is off for; empty means all.
	Organization string
	// Site is one site's key; empty means all sites of the organization.
	Site bundle.Key
}

// MaxSwitches bounds how many hold at once.
const MaxSwitches = 256

// Protections are those that a Switch turns off.
func Protections() []string { return []string{"api", "bots", "flood", "ratelimit", "waf", "waitroom"} }

// SetSwitches has exactly these switches hold, from the moment it returns, also for documents that come later. On an
// error those before hold.
func (e *Edge) SetSwitches(ctx context.Context, list []Switch) error {
	if len(list) > MaxSwitches {
		return fmt.Errorf("%d protections are to be switched off; %d at once are the most: end some", len(list), MaxSwitches)
	}
	for i := range list {
		s := &list[i]
		if !slices.Contains(Protections(), s.Protection) {
			return fmt.Errorf("%q is no protection that can be switched off; write one of %s", s.Protection, strings.Join(Protections(), ", "))
		}
		if org, name := s.Site.Split(); s.Site != "" && (name == "" || s.Organization != "" && org != s.Organization) {
			return fmt.Errorf("%q is no site of the organization %q: write organization/name", s.Site, s.Organization)
		}
	}
	e.apply.Lock()
	defer e.apply.Unlock()
	before := e.switches
	e.switches = slices.Clone(list)
	if e.given == nil {
		return nil
	}
	if err := e.serve(ctx, e.given); err != nil {
		e.switches = before
		return err
	}
	return nil
}

// holds says whether a switch is for a site.
func (s *Switch) holds(site bundle.Key) bool {
	org, _ := site.Split()
	return (s.Site == "" || s.Site == site) && (s.Organization == "" || s.Organization == org)
}

// switcher makes what is served of what was given. Specs that sites share stay shared, as what a stage compiles of them
// is shared too.
type switcher struct {
	list []Switch
	made map[any]any // the spec with the protection off, by the spec
}

// switched is a bundle with the protections off that are switched off. What it was given does not change.
func switched(b *bundle.Bundle, list []Switch) *bundle.Bundle {
	if len(list) == 0 {
		return b
	}
	w := &switcher{list, map[any]any{}}
	out := *b
	out.Sites = slices.Clone(b.Sites)
	for i, s := range out.Sites {
		out.Sites[i] = w.site(s)
	}
	return &out
}

func (w *switcher) site(s *bundle.Site) *bundle.Site {
	out := s
	for i := range w.list {
		if !w.list[i].holds(s.Key) {
			continue
		}
		if out == s {
			c := *s
			out = &c
		}
		w.off(out, w.list[i].Protection)
	}
	return out
}

func (w *switcher) off(s *bundle.Site, protection string) {
	switch protection {
	case "api":
		s.API = without(w, s.API, func(p *v1.ApiPolicySpec) *v1.Mode { return &p.Mode })
	case "bots":
		s.Bots = without(w, s.Bots, func(p *v1.BotPolicySpec) *v1.Mode { return &p.Mode })
	case "ratelimit":
		s.RateLimits = without(w, s.RateLimits, func(p *v1.RateLimitSpec) *v1.Mode { return &p.Mode })
	case "waf":
		s.WAF = without(w, s.WAF, func(p *v1.WafPolicySpec) *v1.Mode { return &p.Mode })
	case "waitroom":
		s.Rooms = without(w, s.Rooms, func(p *v1.WaitingRoomSpec) *v1.Mode { return &p.Mode })
	case "flood":
		if s.Flood != nil {
			f := *s.Flood
			f.Mode = v1.ModeOff
			s.Flood = &f
		}
	}
}

// without gives specs with their mode off.
func without[S any](w *switcher, specs map[string]*S, mode func(*S) *v1.Mode) map[string]*S {
	if len(specs) == 0 {
		return specs
	}
	out := maps.Clone(specs)
	for name, spec := range specs {
		made, known := w.made[spec].(*S)
		if !known {
			c := *spec
			*mode(&c) = v1.ModeOff
			made = &c
			w.made[spec], w.made[made] = made, made
		}
		out[name] = made
	}
	return out
}
