package rollout

import (
	"cmp"
	"fmt"
	"hash/fnv"
	"io"
	"slices"
	"time"

	"github.com/relais-edge/relais/internal/fleet"
)

// Place is what is known of a PoP that serves an organization.
type Place struct {
	Pop string
	// Labels that rings choose by.
	Labels map[string]string
	// Alive: it was heard of within the time for that.
	Alive bool
	// Confirmed is the fleet's revision that it said it serves.
	Confirmed uint64
	// Refused is why it did not take the organization's bundle; empty where it did.
	Refused string
	// Before is what it counted until the change reached it, Since what it counted since. At a PoP that has no change
	// Since counts from when the ring was entered.
	Before, Since fleet.Sample
	// Calm is how loaded it was when the ring was entered, Load how loaded it is.
	Calm, Load fleet.Gauges
}

// Input is what Step decides on.
type Input struct {
	Organization string
	Policy       *Policy
	Places       []Place // in any order
	Now          time.Time
	// Revision is what the fleet's revision becomes if the step changes what a PoP serves.
	Revision uint64
}

// Event is what happened to a rollout.
type Event struct {
	Kind     Kind   `json:"kind"`
	Revision int64  `json:"revision"` // of the organization
	Text     string `json:"text"`
}

// Kind of an Event.
type Kind string

// The kinds of events.
const (
	Began    Kind = "began"
	Advanced Kind = "advanced"
	Finished Kind = "finished"
	Undone   Kind = "undone"
	Denied   Kind = "denied" // before any PoP had it
	Waits    Kind = "waits"
	Held     Kind = "held"     // a gate was not passed, and a person decides
	Replaced Kind = "replaced" // the only ring has it, and a newer one takes its place before it is proved
	Unheard  Kind = "unheard"  // a PoP is left out because nothing is heard of it
)

// Step says what becomes of a rollout. It changes nothing that it was given; where nothing happens it gives the same
// state and no events.
func Step(s *State, in *Input) (State, []Event) {
	next := s.clone()
	m := &mover{s: &next, in: in}
	if next.Moving != nil {
		m.watch()
	}
	if next.Moving == nil && next.Waiting != nil {
		m.begin()
	}
	return next, m.events
}

type mover struct {
	s      *State
	in     *Input
	events []Event
}

func (m *mover) tell(k Kind, revision int64, format string, a ...any) {
	m.events = append(m.events, Event{k, revision, fmt.Sprintf(format, a...)})
}

// begin starts what waits, unless something stands against it.
func (m *mover) begin() {
	s, w := m.s, m.s.Waiting
	if w.Index == s.Stable.Index {
		s.Stable.Revision, s.Waiting = w.Revision, nil
		m.tell(Finished, w.Revision, "is what is served already")
		return
	}
	back := s.proved(w.Version)
	if !m.may(back) {
		return
	}
	s.Waiting = nil
	if back || len(m.in.Places) == 0 {
		s.finish(w.Version)
		if back {
			m.tell(Finished, w.Revision, "goes to all PoPs at once: they all served it before")
		} else {
			m.tell(Finished, w.Revision, "no PoP serves the organization")
		}
		return
	}
	// What nobody is served yet can be worse for nobody: only the PoPs are watched.
	s.Moving = &Moving{Version: w.Version, Emergency: w.Emergency, First: s.Stable.Revision == 0, Ring: -1}
	m.advance(Began)
}

// may says whether what waits may begin, and tells why not. Back is something that every PoP served before.
func (m *mover) may(back bool) bool {
	s, w := m.s, m.s.Waiting
	if s.Paused != "" {
		m.waits("paused: " + s.Paused)
		return false
	}
	if why := m.in.Policy.frozen(m.in.Now); why != "" && (!w.Emergency || m.in.Policy.FrozenToo) && !back {
		m.waits(why)
		return false
	}
	if g := &m.in.Policy.Replay; g.On && !back && !w.Emergency {
		if w.Replayed == nil {
			m.waits("recorded requests are replayed")
			return false
		}
		if why := g.refuses(w.Replayed); why != "" {
			s.Refused = &Refused{Version: w.Version, Time: m.in.Now, Ring: -1, Why: why}
			s.Waiting = nil
			m.tell(Denied, w.Revision, "%s", why)
			return false
		}
	}
	return true
}

// waits tells why something waits, once.
func (m *mover) waits(why string) {
	if m.s.Waiting.Told != why {
		m.s.Waiting.Told = why
		m.tell(Waits, m.s.Waiting.Revision, "%s", why)
	}
}

// advance enters the next ring that adds PoPs, or finishes.
func (m *mover) advance(kind Kind) {
	mv := m.s.Moving
	for ring := mv.Ring + 1; ring <= len(m.in.Policy.Rings); ring++ {
		pops := m.members(ring)
		if len(pops) <= len(mv.Pops) {
			continue
		}
		mv.Ring, mv.Pops = ring, pops
		m.enter()
		m.tell(kind, mv.Revision, "ring %d: %d of %d PoPs", ring+1, len(mv.Pops), len(m.in.Places))
		return
	}
	v := mv.Version
	m.s.Moving = nil
	m.s.finish(v)
	m.tell(Finished, v.Revision, "all %d PoPs", len(m.in.Places))
}

// enter begins a ring, whose PoPs are chosen.
func (m *mover) enter() {
	mv := m.s.Moving
	mv.Entered, mv.At, mv.Of = m.in.Now, m.in.Revision, len(m.in.Places)
	mv.Settled, mv.Until = time.Time{}, time.Time{}
}

// members are those who have it and as many more as a ring holds: first who is alive, then by an order that is another
// for each organization, so that no PoP is everybody's first.
func (m *mover) members(ring int) []string {
	type candidate struct {
		pop  string
		rank int // 0: has it, 1: alive, 2: away
		hash uint64
	}
	size, labels := len(m.in.Places), map[string]string(nil)
	if ring < len(m.in.Policy.Rings) {
		r := &m.in.Policy.Rings[ring]
		size, labels = r.size(size), r.Labels
	}
	var pops []string
	list := make([]candidate, 0, len(m.in.Places))
	for i := range m.in.Places {
		p := &m.in.Places[i]
		c := candidate{pop: p.Pop, rank: 1}
		if _, has := slices.BinarySearch(m.s.Moving.Pops, p.Pop); has {
			c.rank = 0
		} else if !p.Alive {
			c.rank = 2
		}
		if len(labels) > 0 {
			if c.rank == 0 || covers(labels, p.Labels) {
				pops = append(pops, p.Pop)
			}
			continue
		}
		h := fnv.New64a()
		_, _ = io.WriteString(h, m.in.Organization+"\x00"+p.Pop)
		c.hash = mix(h.Sum64())
		list = append(list, c)
	}
	slices.SortFunc(list, func(a, b candidate) int {
		return cmp.Or(a.rank-b.rank, cmp.Compare(a.hash, b.hash), cmp.Compare(a.pop, b.pop))
	})
	for _, c := range list[:min(size, len(list))] {
		pops = append(pops, c.pop)
	}
	slices.Sort(pops)
	return pops
}

// covers says whether have has all labels of want.
func covers(want, have map[string]string) bool {
	for k, v := range want {
		if got, there := have[k]; !there || got != v {
			return false
		}
	}
	return true
}

// mix spreads a hash whose inputs differ in their last letters only (splitmix64's last steps).
func mix(x uint64) uint64 {
	x ^= x >> 30
	x *= 0xbf58476d1ce4e5b9
	x ^= x >> 27
	x *= 0x94d049bb133111eb
	return x ^ x>>31
}

// watch looks after what is under way.
func (m *mover) watch() {
	mv := m.s.Moving
	touched, others := m.split()
	if why := m.broken(touched); why != "" {
		m.fail(why)
		return
	}
	if why := m.unwell(touched, others); why != "" {
		m.fail(why)
		return
	}
	if urgent := m.s.Waiting; urgent != nil && urgent.Emergency && !mv.Emergency && m.s.Paused == "" {
		m.undo("a change in the emergency lane takes its place")
		m.s.Refused = nil // nothing was found against it
		return
	}
	if !m.settled(touched) || m.s.Paused != "" {
		return
	}
	if mv.Ring == 0 && len(others) == 0 && m.replaced() {
		return
	}
	if m.in.Now.Sub(mv.Settled) >= m.in.Policy.wait(mv.Ring, mv.Emergency || mv.First) {
		m.advance(Advanced)
	}
}

// replaced lets a newer bundle take the place of one that is only watched still, where the first ring is all PoPs, as
// where there is one: to wait would spare nobody, and who tries things out would wait for each. What comes back if it
// fails is what was proved before both.
func (m *mover) replaced() bool {
	s, w, mv := m.s, m.s.Waiting, m.s.Moving
	if w == nil || w.Index == s.Stable.Index || s.proved(w.Version) || !m.may(false) {
		return false
	}
	m.tell(Replaced, mv.Revision, "revision %d takes its place at all %d PoPs; if that fails, revision %d comes back", w.Revision, len(m.in.Places), s.Stable.Revision)
	mv.Version, mv.Emergency = w.Version, w.Emergency
	m.enter()
	s.Waiting = nil
	return true
}

// split parts those who have the bundle from those who do not.
func (m *mover) split() (touched, others []*Place) {
	for i := range m.in.Places {
		p := &m.in.Places[i]
		if _, has := slices.BinarySearch(m.s.Moving.Pops, p.Pop); has {
			touched = append(touched, p)
		} else {
			others = append(others, p)
		}
	}
	return touched, others
}

// silent is the share of a ring of which nothing may be heard any more: networks break for reasons of their own.
const silent = .05

// broken says which PoP did not survive the bundle.
func (m *mover) broken(touched []*Place) string {
	mv, quiet, last := m.s.Moving, 0, ""
	for _, p := range touched {
		if p.Refused != "" {
			return fmt.Sprintf("PoP %s refused it: %s", p.Pop, p.Refused)
		}
		if !p.Alive && p.Confirmed >= mv.At {
			quiet, last = quiet+1, p.Pop
		}
		if p.Alive && p.Confirmed < mv.At && m.in.Now.Sub(mv.Entered) > m.in.Policy.Patience {
			return fmt.Sprintf("PoP %s does not confirm it after %s", p.Pop, m.in.Policy.Patience)
		}
	}
	if float64(quiet) > silent*float64(len(touched)) {
		return fmt.Sprintf("nothing is heard of %d of %d PoPs since they have it, such as %s", quiet, len(touched), last)
	}
	return ""
}

// unwell says what visitors or PoPs suffer of.
func (m *mover) unwell(touched, others []*Place) string {
	var now, before, elsewhere fleet.Sample
	var drift fleet.Gauges
	for _, p := range touched {
		now, before = now.Add(p.Since), before.Add(p.Before)
	}
	for _, p := range others {
		elsewhere = elsewhere.Add(p.Since)
		drift.CPU += (p.Load.CPU - p.Calm.CPU) / float64(len(others))
		drift.Memory += (p.Load.Memory - p.Calm.Memory) / float64(len(others))
	}
	gate := &m.in.Policy.Gate
	if elsewhere.Requests < gate.Requests { // too few elsewhere: what they were before
		elsewhere = before
	}
	if why := gate.compare(now, elsewhere); why != "" {
		return why
	}
	for _, p := range touched {
		if p.Alive && p.Confirmed >= m.s.Moving.At {
			if why := gate.strained(p.Load, p.Calm, drift); why != "" {
				return "PoP " + p.Pop + ": " + why
			}
		}
	}
	return ""
}

// settled says whether all of the ring have confirmed; who is away for too long is left out.
func (m *mover) settled(touched []*Place) bool {
	mv := m.s.Moving
	if !mv.Settled.IsZero() {
		return true
	}
	var away []string
	for _, p := range touched {
		switch {
		case p.Confirmed >= mv.At:
		case !p.Alive && m.in.Now.Sub(mv.Entered) > m.in.Policy.Patience:
			away = append(away, p.Pop)
		default:
			return false
		}
	}
	if len(away) > 0 {
		if len(away) == len(touched) && len(m.in.Places) > len(touched) {
			return m.replace(away)
		}
		m.tell(Unheard, mv.Revision, "%d PoPs are left out, such as %s", len(away), away[0])
	}
	mv.Settled = m.in.Now
	mv.Until = m.in.Now.Add(m.in.Policy.wait(mv.Ring, mv.Emergency || mv.First))
	return true
}

// replace takes a ring of which nothing is heard back for others: it proved nothing.
func (m *mover) replace(away []string) bool {
	mv := m.s.Moving
	if !slices.ContainsFunc(m.in.Places, func(p Place) bool { return p.Alive }) {
		return false // nobody is heard of; wait
	}
	mv.Pops = nil
	mv.Pops = m.members(mv.Ring)
	m.enter()
	m.tell(Unheard, mv.Revision, "nothing is heard of %s; %s takes its place", away[0], mv.Pops[0])
	return false
}

// fail takes the bundle back, or holds it where the policy leaves that to a person.
func (m *mover) fail(why string) {
	if !m.in.Policy.Hold {
		m.undo(why)
		return
	}
	if m.s.Paused == "" {
		m.s.Paused = why
		m.tell(Held, m.s.Moving.Revision, "held at %d PoPs: %s", len(m.s.Moving.Pops), why)
	}
}

// undo takes the bundle back from all PoPs that have it.
func (m *mover) undo(why string) {
	mv := m.s.Moving
	m.s.Refused = &Refused{Version: mv.Version, Time: m.in.Now, Ring: mv.Ring, Pops: len(mv.Pops), Why: why}
	m.s.Moving = nil
	m.tell(Undone, mv.Revision, "taken back from %d PoPs: %s", len(mv.Pops), why)
}
