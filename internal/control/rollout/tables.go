package rollout

import (
	"maps"
	"slices"
	"strings"

	"github.com/relais-edge/relais/internal/manifest"
)

// Pop is a PoP as its document states it.
type Pop struct {
	Name     string
	Region   string
	Labels   map[string]string
	Draining bool
}

// Rulebook is what documents say of how changes move. It is not changed once it was made.
type Rulebook struct {
	Pops []Pop // by name
	// Policy of an organization.
	Policy func(organization string) *Policy
	// Serves says whether a PoP serves an organization. It depends on the PoP's name and labels alone.
	Serves func(organization string, p *Pop) bool
}

// tables are what PoPs shall serve at one revision of the fleet. PoPs that shall serve the same share one table.
type tables struct {
	book   *Rulebook
	states map[string]*State
	orgs   []string // sorted
	moving []string // of these, those under way; sorted
	built  map[string]*manifest.Table
}

func newTables(book *Rulebook, states map[string]*State) *tables {
	t := &tables{book: book, states: states, orgs: slices.Sorted(maps.Keys(states)), built: map[string]*manifest.Table{}}
	for _, org := range t.orgs {
		if states[org].Moving != nil {
			t.moving = append(t.moving, org)
		}
	}
	return t
}

// of gives a PoP's table.
func (t *tables) of(p *Pop) *manifest.Table {
	k := t.key(p)
	if known := t.built[k]; known != nil {
		return known
	}
	list := make([]manifest.Tenant, 0, len(t.orgs))
	for _, org := range t.orgs {
		v := t.states[org].At(p.Name)
		if v.Revision > 0 && t.book.Serves(org, p) {
			list = append(list, manifest.Tenant{Organization: org, Revision: v.Revision, Index: v.Index})
		}
	}
	table := manifest.NewTable(list)
	t.built[k] = table
	return table
}

// key is the same for PoPs with the same table: those with equal labels that are in the same rings.
func (t *tables) key(p *Pop) string {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(p.Labels)) {
		b.WriteString(name + "\x00" + p.Labels[name] + "\x00")
	}
	b.WriteByte(0)
	for _, org := range t.moving {
		if _, in := slices.BinarySearch(t.states[org].Moving.Pops, p.Name); in {
			b.WriteString(org + "\x00")
		}
	}
	return b.String()
}
