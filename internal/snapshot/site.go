// Package snapshot is what a PoP serves at one moment: an immutable table from host names to
// sites, read without a lock and swapped as a whole or one site at a time. A site is built
// when it is first asked for, so that a start costs what is used.
package snapshot

import (
	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/bundle"
)

// Site is a site as it runs. It does not change.
type Site struct {
	Key          bundle.Key
	Organization string
	Name         string
	Spec         *bundle.Site
	Routes       []Route
	// Parts are what the stages made of the site, by the stage's slot.
	Parts []any
}

// Route is a route of a Site.
type Route struct {
	Index int // in Site.Routes
	Name  string
	Spec  *v1.Route
}

// Materialiser builds the parts of a site when it is first asked for.
type Materialiser interface {
	// Materialise fills s.Parts. Old is the site of the same key that ran before, or nil:
	// what must outlive a change is taken from its parts.
	Materialise(s, old *Site) error
}
