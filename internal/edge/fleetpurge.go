package edge

import (
	"context"
	"encoding/json"
	"strings"

	"github.com/relais-edge/relais/internal/edge/cache/purge"
	"github.com/relais-edge/relais/internal/edge/route"
	"github.com/relais-edge/relais/internal/observe"
	"github.com/relais-edge/relais/internal/snapshot"
)

// FleetPurges makes purges hold that a control plane numbered. Its entries are JSON of a purge.Entry; sites are
// organization/name.
//
// An entry is never refused, as those that come after it would wait for it for good: one that this version does not understand,
// or that names what cannot be found here, is taken for the least that surely holds what it means.
type FleetPurges struct {
	e       *Edge
	widened observe.Counter
}

// FleetPurges gives the end that an agent of a control plane has purges made at.
func (e *Edge) FleetPurges(m *observe.Registry) *FleetPurges {
	return &FleetPurges{e, m.Counters("relais_fleet_purges_widened_total", "Purges of the control plane that were taken for a wider one, because this edge does not understand them or has not got their site.", 1).With()}
}

// Purge makes entries hold. When it returns nil they hold, and do so after a crash; with an error they may hold until a restart.
func (p *FleetPurges) Purge(ctx context.Context, entries [][]byte) error {
	if len(entries) == 0 {
		return nil
	}
	sites := map[string]*snapshot.Site{} // each is found once
	find := func(key string) *snapshot.Site {
		site, known := sites[key]
		if !known {
			site, _ = p.e.siteOf(key) // nil: there is none, or it cannot be built
			sites[key] = site
		}
		return site
	}
	list := make([]purge.Entry, 0, len(entries))
	for _, data := range entries {
		e := p.read(data)
		if e.Kind == purge.URL && find(e.Site) == nil {
			// What counts of its query is not known, and answers may be kept of when it was served here.
			e.Kind = purge.Path
			e.Value, _, _ = strings.Cut(e.Value, "?")
			p.widened.Inc()
		}
		list = append(list, e)
	}
	_, err := p.e.cache.PurgeOf(ctx, find, list)
	return err
}

// PurgeAll takes everything for stale.
func (p *FleetPurges) PurgeAll(ctx context.Context) error {
	_, err := p.e.cache.Purge(ctx, nil, purge.Entry{Kind: purge.All, Soft: true})
	return err
}

// read gives the entry that data is, or a wider one.
func (p *FleetPurges) read(data []byte) purge.Entry {
	var w struct {
		Kind, Site, Host, Value string
		Soft                    bool
	}
	if json.Unmarshal(data, &w) != nil {
		p.widened.Inc()
		return purge.Entry{Kind: purge.All, Soft: true}
	}
	e := purge.Entry{Site: w.Site, Host: strings.ToLower(w.Host), Value: w.Value, Soft: w.Soft}
	if e.Kind.UnmarshalText([]byte(w.Kind)) == nil && normal(&e) && e.Check() == nil {
		return e
	}
	p.widened.Inc()
	wide := purge.Entry{Kind: purge.Site, Site: w.Site, Soft: w.Soft}
	switch {
	case w.Site == "":
		return purge.Entry{Kind: purge.All, Soft: true}
	case !strings.Contains(w.Site, "/"):
		wide.Kind = purge.Organization
	}
	if wide.Check() != nil {
		return purge.Entry{Kind: purge.All, Soft: true}
	}
	return wide
}

// normal brings the path of an entry to its normal form, or says that it has none.
func normal(e *purge.Entry) bool {
	switch e.Kind {
	case purge.URL, purge.Path, purge.Prefix:
	default:
		return true
	}
	path, query, asked := strings.Cut(e.Value, "?")
	if asked && e.Kind != purge.URL || !strings.HasPrefix(path, "/") {
		return false
	}
	b, ok := route.NormalizePath(nil, []byte(path))
	if !ok {
		return false
	}
	e.Value = string(b)
	if query != "" {
		e.Value += "?" + query
	}
	return true
}
