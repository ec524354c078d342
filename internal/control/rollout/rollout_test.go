package rollout

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/fleet"
	"github.com/relais-edge/relais/internal/manifest"
)

func version(n int64) Version {
	return Version{n, manifest.Ref{Digest: manifest.Of(fmt.Append(nil, n)), Size: 10}}
}

// scene is PoPs that do what they are told, unless a test says otherwise.
type scene struct {
	t        rapid.TB
	policy   Policy
	state    State
	now      time.Time
	revision uint64
	places   []Place
	deaf     map[string]bool   // alive, and does not confirm
	dies     map[string]int64  // of which revision
	refuses  map[string]string // any but version 1
	ill      func(p *Place, v Version)
	events   []Event
}

func newScene(t rapid.TB, n int) *scene {
	policy := DefaultPolicy()
	for i := range policy.Rings {
		policy.Rings[i].Wait = 10 * time.Second
	}
	policy.Patience, policy.Hurry, policy.Gate.Requests = 15*time.Second, 2*time.Second, 100
	f := &scene{t: t, policy: policy, now: time.Date(2026, 11, 27, 12, 0, 0, 0, time.UTC), deaf: map[string]bool{}, dies: map[string]int64{}, refuses: map[string]string{}}
	for i := range n {
		f.places = append(f.places, Place{Pop: fmt.Sprintf("pop%03d", i), Alive: true})
	}
	f.state.Stable = version(1)
	return f
}

// step looks once and has the PoPs obey.
func (f *scene) step() {
	before := f.state.clone()
	next, events := Step(&f.state, &Input{Organization: "acme", Policy: &f.policy, Places: f.places, Now: f.now, Revision: f.revision + 1})
	if again, e := Step(&before, &Input{Organization: "acme", Policy: &f.policy, Places: f.places, Now: f.now, Revision: f.revision + 1}); fmt.Sprintf("%+v", e) != fmt.Sprintf("%+v", events) || again.At("pop000") != next.At("pop000") {
		f.t.Fatal("the same input gives something else")
	}
	if len(events) > 0 {
		f.revision++
	}
	f.events = append(f.events, events...)
	entered := next.Moving != nil && next.Moving.At == f.revision && len(events) > 0
	f.state = next
	for i := range f.places {
		p := &f.places[i]
		if entered {
			p.Before, p.Since = p.Before.Add(p.Since), fleet.Sample{}
		}
		v := f.state.At(p.Pop)
		if d, ok := f.dies[p.Pop]; ok && d == v.Revision {
			p.Alive, p.Confirmed = false, f.revision
		}
		p.Refused = ""
		if why := f.refuses[p.Pop]; why != "" && v.Revision != 1 {
			p.Refused = why
		}
		if p.Alive && !f.deaf[p.Pop] {
			p.Confirmed = f.revision
		}
		if f.ill != nil {
			f.ill(p, v)
		}
	}
}

func (f *scene) run(d time.Duration) {
	for end := f.now.Add(d); f.now.Before(end); f.now = f.now.Add(time.Second) {
		f.step()
	}
}

func (f *scene) offer(n int64, emergency bool) {
	if !f.state.Offer(version(n), emergency, f.now) {
		f.t.Fatalf("revision %d is not taken in", n)
	}
}

func (f *scene) kinds() (list []Kind) {
	for _, e := range f.events {
		list = append(list, e.Kind)
	}
	return list
}

func (f *scene) want(kinds ...Kind) {
	f.t.Helper()
	if got := f.kinds(); !slices.Equal(got, kinds) {
		f.t.Fatalf("%v, want %v: %v", got, kinds, f.events)
	}
}

func TestAChangeGoesRingByRing(t *testing.T) {
	f := newScene(t, 200)
	f.offer(2, false)
	var sizes []int
	for range 60 {
		f.step()
		if m := f.state.Moving; m != nil && (len(sizes) == 0 || sizes[len(sizes)-1] != len(m.Pops)) {
			sizes = append(sizes, len(m.Pops))
		}
		f.now = f.now.Add(time.Second)
	}
	f.want(Began, Advanced, Advanced, Advanced, Finished)
	if !slices.Equal(sizes, []int{1, 2, 20, 200}) {
		t.Errorf("rings of %v", sizes)
	}
	if f.state.Stable != version(2) || f.state.Moving != nil || !slices.Equal(f.state.Proved, []Version{version(1)}) {
		t.Errorf("%+v", f.state)
	}
}

func TestWhatDoesNotWaitTakesOneStepARing(t *testing.T) {
	f := newScene(t, 20)
	f.policy.Rings = []Ring{{Share: 1}}
	f.offer(2, false)
	f.step()
	if len(f.state.Moving.Pops) != 20 {
		t.Fatalf("%+v", f.state.Moving)
	}
	f.step()
	f.want(Began, Finished)
}

func TestEachOrganizationHasAnotherCanary(t *testing.T) {
	f := newScene(t, 20)
	seen := map[string]bool{}
	for i := range 100 {
		s := State{Stable: version(1)}
		s.Offer(version(2), false, f.now)
		s, _ = Step(&s, &Input{Organization: fmt.Sprint("shop", i), Policy: &f.policy, Places: f.places, Now: f.now, Revision: 1})
		seen[s.Moving.Pops[0]] = true
	}
	if len(seen) < 15 {
		t.Errorf("100 organizations begin at %d of 20 PoPs", len(seen))
	}
}

func TestABadChangeIsTakenBackFromItsFirstPoP(t *testing.T) {
	for name, bad := range map[string]struct {
		do  func(f *scene)
		why string
	}{
		"refused": {func(f *scene) {
			for i := range f.places {
				f.refuses[f.places[i].Pop] = "part 3 is damaged"
			}
		}, "part 3 is damaged"},
		"dies": {func(f *scene) {
			for i := range f.places {
				f.dies[f.places[i].Pop] = 2
			}
		}, "nothing is heard"},
		"stuck": {func(f *scene) {
			for i := range f.places {
				f.deaf[f.places[i].Pop] = true
			}
		}, "does not confirm"},
		"errors": {func(f *scene) {
			f.ill = func(p *Place, v Version) {
				p.Since.Requests += 100
				p.Since.Errors++
				if v.Revision == 2 {
					p.Since.Errors += 12
				}
			}
		}, "errors"},
		"blocked buyers": {func(f *scene) {
			f.ill = func(p *Place, v Version) {
				p.Since.Requests += 100
				p.Since.Known += 50
				if v.Revision == 2 {
					p.Since.Blocked += 2
				}
			}
		}, "known to be good"},
		"slow": {func(f *scene) {
			f.ill = func(p *Place, v Version) {
				p.Since.Requests += 100
				p.Since.Latency[20] += 90
				if v.Revision == 2 {
					p.Since.Latency[23] += 10
				} else {
					p.Since.Latency[20] += 10
				}
			}
		}, "latency"},
		"misses": {func(f *scene) {
			f.ill = func(p *Place, v Version) {
				p.Since.Requests += 100
				p.Since.Lookups += 100
				p.Since.Misses += 5
				if v.Revision == 2 {
					p.Since.Misses += 60
				}
			}
		}, "misses"},
		"processors": {func(f *scene) {
			f.ill = func(p *Place, v Version) {
				p.Calm.CPU, p.Load.CPU = .86, .86 // all are busy
				if v.Revision == 2 {
					p.Load.CPU = .95
				}
			}
		}, "processors"},
		"memory": {func(f *scene) {
			f.ill = func(p *Place, v Version) {
				p.Calm.Memory, p.Load.Memory = .3, .35
				if v.Revision == 2 {
					p.Load.Memory = .95
				}
			}
		}, "memory"},
	} {
		t.Run(name, func(t *testing.T) {
			f := newScene(t, 200)
			bad.do(f)
			f.offer(2, false)
			f.run(40 * time.Second)
			f.want(Began, Undone)
			r := f.state.Refused
			if r == nil || r.Pops != 1 || !strings.Contains(r.Why, bad.why) || f.state.Stable != version(1) {
				t.Errorf("%+v", r)
			}
			if f.state.Offer(version(2), false, f.now) {
				t.Error("what was taken back is taken in again")
			}
		})
	}
}

func TestWhatIsBadEverywhereIsNoFaultOfTheChange(t *testing.T) {
	f := newScene(t, 200)
	for i := range f.places {
		f.places[i].Before = fleet.Sample{Requests: 1000, Errors: 400}
	}
	f.ill = func(p *Place, _ Version) { // an origin is down
		p.Since.Requests += 100
		p.Since.Errors += 40
		p.Calm.CPU, p.Load.CPU = .9, .9
	}
	f.offer(2, false)
	f.run(40 * time.Second)
	if f.state.Stable != version(2) {
		t.Errorf("%v", f.events)
	}
}

func TestOnePoPAloneIsHeldAgainstItself(t *testing.T) {
	for _, errors := range []int64{0, 20} {
		f := newScene(t, 1)
		f.places[0].Before = fleet.Sample{Requests: 10_000, Errors: 10}
		f.ill = func(p *Place, v Version) {
			if v.Revision == 2 {
				p.Since.Requests += 100
				p.Since.Errors += errors
			}
		}
		f.offer(2, false)
		f.run(20 * time.Second)
		if undone := f.state.Refused != nil; undone != (errors > 0) {
			t.Errorf("%d errors of 100: %v", errors, f.events)
		}
	}
}

func TestFewRequestsSayNothing(t *testing.T) {
	f := newScene(t, 200)
	for i := range f.places {
		f.places[i].Before.Requests = 1000
	}
	f.ill = func(p *Place, v Version) {
		if v.Revision == 2 && p.Since.Requests < 5 {
			p.Since.Requests++
			p.Since.Errors++
		}
	}
	f.offer(2, false)
	f.run(12 * time.Second)
	if f.state.Refused != nil {
		t.Errorf("%v", f.events)
	}
}

func TestTheWayBackNeedsNoRings(t *testing.T) {
	f := newScene(t, 200)
	f.offer(2, false)
	f.run(40 * time.Second)
	f.events = nil
	back := version(1)
	back.Revision = 3 // the former documents, as a new revision
	f.policy.Freezes = []Freeze{{From: f.now.Add(-time.Hour), Why: "Black Friday"}}
	if !f.state.Offer(back, false, f.now) {
		t.Fatal("not taken in")
	}
	f.step()
	f.want(Finished)
	if f.state.At("pop100") != back {
		t.Errorf("%+v", f.state)
	}
}

func TestTheWayBackFromAChangeUnderWay(t *testing.T) {
	f := newScene(t, 200)
	f.offer(2, false)
	f.run(15 * time.Second)
	back := version(1)
	back.Revision = 3
	f.state.Offer(back, true, f.now)
	f.events = nil
	f.step()
	f.want(Undone, Finished)
	if f.state.At(f.places[0].Pop) != back || f.state.Moving != nil {
		t.Errorf("%+v", f.state)
	}
}

func TestAFreezeHoldsAllButTheEmergencyLane(t *testing.T) {
	f := newScene(t, 200)
	f.policy.Freezes = []Freeze{{From: f.now, To: f.now.Add(time.Hour), Why: "Black Friday"}}
	f.offer(2, false)
	f.run(5 * time.Minute)
	f.want(Waits)
	if !strings.Contains(f.events[0].Text, "Black Friday") {
		t.Errorf("%v", f.events)
	}
	f.offer(3, true)
	f.events = nil
	f.run(15 * time.Second)
	f.want(Began, Advanced, Advanced, Advanced, Finished)
	f.events = nil
	f.offer(4, false)
	f.run(time.Hour + time.Minute)
	f.want(Waits, Began, Advanced, Advanced, Advanced, Finished)
}

func TestFreezesByTheClockOnTheWall(t *testing.T) {
	paris, err := time.LoadLocation("Europe/Paris")
	if err != nil {
		t.Fatal(err)
	}
	night := Freeze{Weekdays: []time.Weekday{time.Friday}, Start: 22 * time.Hour, End: 6 * time.Hour, Location: paris}
	for text, holds := range map[string]bool{
		"2026-11-27T20:59:00Z": false, "2026-11-27T21:00:00Z": true, "2026-11-28T04:59:00Z": true, "2026-11-28T05:00:00Z": false,
		"2026-11-27T04:00:00Z": false, "2026-07-03T20:00:00Z": true, "2026-07-03T19:59:00Z": false,
	} {
		at, err := time.Parse(time.RFC3339, text)
		if err != nil {
			t.Fatal(err)
		}
		if night.holds(at) != holds {
			t.Errorf("%s: %v", text, !holds)
		}
	}
}

func TestTheNewestGoesNextAndNoneBetween(t *testing.T) {
	f := newScene(t, 200)
	f.offer(2, false)
	f.run(15 * time.Second)
	f.offer(3, false)
	f.offer(4, false)
	f.run(2 * time.Minute)
	if f.state.Stable != version(4) || !slices.Equal(f.state.Proved, []Version{version(2), version(1)}) {
		t.Errorf("%+v", f.state)
	}
}

func TestWhatEveryPoPHasIsReplacedAtOnce(t *testing.T) {
	f := newScene(t, 1)
	f.offer(2, false)
	f.run(3 * time.Second)
	f.offer(3, false)
	f.offer(4, false)
	f.step()
	f.want(Began, Replaced)
	if at := f.state.At("pop000"); at != version(4) {
		t.Errorf("%+v", at)
	}
	f.ill = func(p *Place, v Version) {
		n := int64(0)
		if v == version(4) {
			n = 100
		}
		p.Since = p.Since.Add(fleet.Sample{Requests: 100, Errors: n})
	}
	f.places[0].Before = fleet.Sample{Requests: 10000}
	f.run(20 * time.Second)
	if s := f.state; s.Stable != version(1) || s.Moving != nil || s.Refused == nil || s.Refused.Version != version(4) {
		t.Errorf("a newer one that fails: %+v", s)
	}
	f.ill = nil
	f.offer(5, false)
	f.run(3 * time.Second)
	f.state.Paused = "by hand"
	f.offer(6, false)
	f.run(20 * time.Second)
	if at := f.state.At("pop000"); at != version(5) {
		t.Errorf("while it is held: %+v", at)
	}
	f.state.Paused = ""
	f.run(30 * time.Second)
	if s := f.state; s.Stable != version(6) || s.Moving != nil {
		t.Errorf("in the end: %+v", s)
	}
}

func TestAPoPThatWasAwayBeforeHoldsUpNothing(t *testing.T) {
	f := newScene(t, 200)
	for i := range 60 {
		f.places[i].Alive = false
	}
	f.offer(2, false)
	f.run(2 * time.Minute)
	if f.state.Stable != version(2) {
		t.Fatalf("%v", f.events)
	}
	if !slices.Contains(f.kinds(), Unheard) {
		t.Error("nobody is told of those that are away")
	}
}

func TestARingOfLabels(t *testing.T) {
	f := newScene(t, 20)
	for i := range f.places {
		f.places[i].Labels = map[string]string{"stage": []string{"try", "real"}[min(i/3, 1)], "n": fmt.Sprint(i)}
	}
	f.policy.Rings = []Ring{{Labels: map[string]string{"stage": "try"}, Wait: time.Second}, {Labels: map[string]string{"stage": "none"}}, {Pops: 5, Wait: time.Second}}
	f.offer(2, false)
	f.step()
	if got := f.state.Moving.Pops; !slices.Equal(got, []string{"pop000", "pop001", "pop002"}) {
		t.Fatalf("%v", got)
	}
	f.run(10 * time.Second)
	f.want(Began, Advanced, Advanced, Finished)
}

func TestAFirstBundleWaitsForNobodysVisitors(t *testing.T) {
	f := newScene(t, 200)
	f.state = State{}
	f.offer(1, false)
	f.run(12 * time.Second)
	f.want(Began, Advanced, Advanced, Advanced, Finished)
}

func TestWhoWantsToDecideIsAsked(t *testing.T) {
	f := newScene(t, 200)
	f.policy.Hold = true
	for i := range f.places {
		f.refuses[f.places[i].Pop] = "no"
	}
	f.offer(2, false)
	f.run(time.Minute)
	f.want(Began, Held)
	if len(f.state.Moving.Pops) != 1 || f.state.Paused == "" {
		t.Errorf("%+v", f.state)
	}
}

func TestTheDefaultsOfADocumentAreAPolicy(t *testing.T) {
	p := DefaultPolicy()
	if len(p.Rings) != 3 || p.Rings[1].Share != .01 || p.Gate.Slow <= 1 || p.Gate.Requests <= 0 || p.Hold || p.FrozenToo || p.Hurry <= 0 {
		t.Errorf("%+v", p)
	}
	s := &v1.RolloutPolicySpec{Freeze: []v1.FreezeWindow{{Name: "nights", From: "22:00", To: "06:00", TimeZone: "Europe/Paris"}}}
	f := PolicyOf(s).Freezes[0]
	if !f.holds(time.Date(2026, 7, 3, 20, 0, 0, 0, time.UTC)) || f.holds(time.Date(2026, 7, 3, 19, 59, 0, 0, time.UTC)) || len(f.Weekdays) != 7 {
		t.Errorf("%+v", f)
	}
}

func TestPausedStaysWhereItIs(t *testing.T) {
	f := newScene(t, 200)
	f.offer(2, false)
	f.run(5 * time.Second)
	f.state.Paused = "by ada"
	f.run(5 * time.Minute)
	f.want(Began)
	for i := range f.places {
		f.refuses[f.places[i].Pop] = "no" // and is still taken back
	}
	f.run(2 * time.Second)
	f.want(Began, Undone)
}

func TestAReplayCanRefuse(t *testing.T) {
	f := newScene(t, 200)
	f.policy.Replay = ReplayGate{On: true, Blocked: .01, Failed: .01}
	f.offer(2, false)
	f.run(10 * time.Second)
	f.want(Waits)
	f.state.Waiting.Replayed = &Verdict{Requests: 1000, Blocked: 5, Known: 1}
	f.run(10 * time.Second)
	f.want(Waits, Denied)
	if f.state.Refused.Pops != 0 {
		t.Errorf("%+v", f.state.Refused)
	}
	f.offer(3, false)
	f.step()
	f.state.Waiting.Replayed = &Verdict{Requests: 1000, Blocked: 5}
	f.run(time.Minute)
	if f.state.Stable != version(3) {
		t.Errorf("%v", f.events)
	}
}

// TestNoMoreThanItsRingIsTouched plays random fleets, faults and changes.
func TestNoMoreThanItsRingIsTouched(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := newScene(t, rapid.IntRange(1, 120).Draw(t, "PoPs"))
		bad := map[int64]bool{}
		f.ill = func(p *Place, v Version) {
			p.Since.Requests += 100
			if bad[v.Revision] {
				p.Since.Errors += 50
			}
		}
		next := int64(1)
		for range rapid.IntRange(1, 300).Draw(t, "seconds") {
			switch rapid.IntRange(0, 19).Draw(t, "what") {
			case 0:
				next++
				bad[next] = rapid.Bool().Draw(t, "bad")
				f.state.Offer(version(next), rapid.Bool().Draw(t, "urgent"), f.now)
			case 1:
				p := &f.places[rapid.IntRange(0, len(f.places)-1).Draw(t, "PoP")]
				p.Alive = !p.Alive
			case 2:
				f.state.Paused = map[bool]string{true: "by ada"}[rapid.Bool().Draw(t, "paused")]
			}
			f.step()
			f.now = f.now.Add(time.Second)
			with := map[int64]int{}
			for i := range f.places {
				with[f.state.At(f.places[i].Pop).Revision]++
			}
			if len(with) > 2 {
				t.Fatalf("%d versions at once", len(with))
			}
			for revision, n := range with {
				if bad[revision] && n > 1 && f.places != nil && len(f.places) > 1 && f.state.Moving != nil && f.state.Moving.Ring > 0 && f.state.Paused == "" && alive(f) {
					t.Fatalf("%d PoPs have what is bad: %+v", n, f.state.Moving)
				}
			}
			if m := f.state.Moving; m != nil && !slices.IsSorted(m.Pops) {
				t.Fatal("not sorted")
			}
		}
	})
}

// alive says whether all PoPs of the fleet are.
func alive(f *scene) bool {
	return !slices.ContainsFunc(f.places, func(p Place) bool { return !p.Alive })
}
