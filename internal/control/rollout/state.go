// Package rollout moves an organization's bundle through the PoPs ring by ring, looks after each ring whether visitors
// fare worse than at the PoPs that were not touched, and takes it back by itself where they do. What it decides is a
// pure function of a state and of what was seen (Step); the rest carries it out.
package rollout

import (
	"slices"
	"time"

	"github.com/relais-edge/relais/internal/manifest"
)

// Version is one organization's bundle.
type Version struct {
	// Revision of the organization in the store.
	Revision int64 `json:"revision"`
	// Index of the bundle. Equal documents give equal indexes, whatever their revision.
	Index manifest.Ref `json:"index"`
}

// State is where an organization's bundles are. Its zero value is an organization that has none.
type State struct {
	// Stable is served by every PoP that is not of Moving.
	Stable Version `json:"stable,omitzero"`
	// Moving is on its way; nil for none.
	Moving *Moving `json:"moving,omitempty"`
	// Waiting is the newest behind it. What lay between is never sent: it was replaced before anybody had it.
	Waiting *Waiting `json:"waiting,omitempty"`
	// Proved were stable before, the newest first. To go back to one of them needs no rings.
	Proved []Version `json:"proved,omitempty"`
	// Refused is what was taken back last.
	Refused *Refused `json:"refused,omitempty"`
	// Paused by a person: a ring is not left, nothing begins, and what is bad is still taken back.
	Paused string `json:"paused,omitempty"`
}

// Waiting is a bundle that has not begun.
type Waiting struct {
	Version
	Since     time.Time `json:"since"`
	Emergency bool      `json:"emergency,omitempty"` // passes a freeze and has short rings
	Replayed  *Verdict  `json:"replayed,omitempty"`  // what a replay said; nil: none was made
	Told      string    `json:"told,omitempty"`      // why it waits, as it was last told
}

// Moving is a bundle that some PoPs have.
type Moving struct {
	Version
	Emergency bool `json:"emergency,omitempty"`
	First     bool `json:"first,omitempty"` // the organization's first bundle
	// Ring is the number of the ring that was entered last, from 0.
	Ring int `json:"ring"`
	// Pops that have it, sorted.
	Pops []string `json:"pops"`
	// At is the fleet's revision with which the ring was entered: who confirms it has the bundle.
	At      uint64    `json:"at"`
	Entered time.Time `json:"entered"`
	// Settled is when all of the ring had confirmed; zero: not yet.
	Settled time.Time `json:"settled,omitzero"`
	// Of so many PoPs that serve the organization, and until when the ring is watched, zero before it is settled: as it was
	// when the ring was entered and settled, for people.
	Of    int       `json:"of,omitempty"`
	Until time.Time `json:"until,omitzero"`
}

// Verdict is what replaying recorded requests against a bundle said.
type Verdict struct {
	Requests int64 `json:"requests"`
	Changed  int64 `json:"changed"`           // got another answer
	Blocked  int64 `json:"blocked"`           // were let in before and are blocked now
	Known    int64 `json:"known"`             // of those, of visitors known to be good
	Failed   int64 `json:"failed"`            // answered with an error of the edge where there was none
	Missing  bool  `json:"missing,omitempty"` // there was nothing to replay
}

// Refused is a bundle that was taken back.
type Refused struct {
	Version
	Time time.Time `json:"time"`
	Ring int       `json:"ring"` // -1: before the first
	Pops int       `json:"pops"` // how many had it
	Why  string    `json:"why"`
}

// keepProved bounds the versions to which an organization can go back at once.
const keepProved = 10

// At says what a PoP shall serve; a zero Version is nothing.
func (s *State) At(pop string) Version {
	if m := s.Moving; m != nil {
		if _, there := slices.BinarySearch(m.Pops, pop); there {
			return m.Version
		}
	}
	return s.Stable
}

// Offer takes a newly compiled version in, or leaves the state as it is where it is not newer.
func (s *State) Offer(v Version, emergency bool, now time.Time) (taken bool) {
	newest := s.Stable.Revision
	for _, known := range [...]int64{s.moving().Revision, s.waiting().Revision, s.refused().Revision} {
		newest = max(newest, known)
	}
	if v.Revision <= newest {
		return false
	}
	s.Waiting = &Waiting{Version: v, Since: now, Emergency: emergency || s.waiting().Emergency}
	return true
}

func (s *State) moving() Moving {
	if s.Moving == nil {
		return Moving{}
	}
	return *s.Moving
}

func (s *State) waiting() Waiting {
	if s.Waiting == nil {
		return Waiting{}
	}
	return *s.Waiting
}

func (s *State) refused() Refused {
	if s.Refused == nil {
		return Refused{}
	}
	return *s.Refused
}

// finish makes v what every PoP serves.
func (s *State) finish(v Version) {
	if s.Stable.Index != v.Index && s.Stable.Revision > 0 {
		s.Proved = slices.DeleteFunc(s.Proved, func(p Version) bool { return p.Index == s.Stable.Index })
		s.Proved = slices.Insert(s.Proved, 0, s.Stable)
		s.Proved = s.Proved[:min(len(s.Proved), keepProved)]
	}
	s.Stable = v
}

// proved says whether every PoP served the bundle before.
func (s *State) proved(v Version) bool {
	return slices.ContainsFunc(s.Proved, func(p Version) bool { return p.Index == v.Index })
}

// clone lets Step change a state without touching the one it was given.
func (s *State) clone() State {
	c := *s
	if s.Moving != nil {
		m := *s.Moving
		m.Pops = slices.Clone(m.Pops)
		c.Moving = &m
	}
	if s.Waiting != nil {
		w := *s.Waiting
		c.Waiting = &w
	}
	c.Proved = slices.Clone(s.Proved)
	return c
}
