package edge

import (
	"iter"
	"time"

	"github.com/relais-edge/relais/internal/bundle"
	"github.com/relais-edge/relais/internal/fleet"
	"github.com/relais-edge/relais/internal/usage"
)

// Usage gives what sites used since the last call, by site and hour, and begins anew: what is taken is the caller's to keep.
func (e *Edge) Usage(now time.Time) []usage.Record { return e.meter.Take(now) }

// Sample is how an organization's visitors fared since the process began, or since the organization had no sites. Known are the
// requests of visitors that are never challenged: with a basket, callbacks that proved who they are, verified programs.
func (e *Edge) Sample(organization string) fleet.Sample { return e.meter.Sample(organization) }

// Gauges is how loaded the process is: its share of the processors, measured while Run runs, and of the memory that it may have.
func (e *Edge) Gauges() fleet.Gauges {
	return fleet.Gauges{CPU: e.processor.Load().Share, Memory: e.memory.Share()}
}

// organizations are those that have sites in a bundle, each once or more.
func organizations(b *bundle.Bundle) iter.Seq[string] {
	return func(yield func(string) bool) {
		for _, s := range b.Sites {
			if org, _ := s.Key.Split(); !yield(org) {
				return
			}
		}
	}
}
