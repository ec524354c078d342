package flood

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/relais-edge/relais/internal/bundle"
)

// Status is how a site is, for a person.
type Status struct {
	Site bundle.Key `json:"site"`
	Mode string     `json:"mode"`
	// Step that is taken now: calm, stale, cache, challenge, limit or drop.
	Step string `json:"step"`
	// Hand is auto, on or off; with on and off, Until says how long.
	Hand  string     `json:"hand"`
	Until *time.Time `json:"until,omitempty"`
	// Since is when the attack began that the steps answer.
	Since *time.Time `json:"since,omitempty"`
	// Learned says that the detector knows the site well enough to tell an attack.
	Learned bool `json:"learned"`
	// Rate is requests a second, Expected what would be no surprise, Suspects those of the suspects.
	Rate     float64 `json:"rate"`
	Expected float64 `json:"expected"`
	Suspects float64 `json:"suspects"`
	// Distance of what comes from what used to come, the Bound of it, and its parts by dimension.
	Distance   float64            `json:"distance"`
	Bound      float64            `json:"bound"`
	Dimensions map[string]float64 `json:"dimensions,omitempty"`
	// Saturated says what is, in words.
	Saturated string `json:"saturated"`
	// Denied is how many addresses the packet filter drops because of the site.
	Denied int `json:"denied,omitempty"`
	// Measures are what each step did since the start.
	Measures []Measure `json:"measures"`
}

// Measure is what a step did.
type Measure struct {
	Step string `json:"step"`
	// Allowed by the policy; Banned when it was taken back for harm.
	Allowed bool `json:"allowed"`
	Banned  bool `json:"banned,omitempty"`
	// Harmed are requests of visitors with signed state on which it acted, and HarmShare those of the last
	// seconds as a share of all requests of such visitors.
	Harmed    uint64  `json:"harmed"`
	HarmShare float64 `json:"harmShare"`
}

// Status lists the sites that are watched, by key; of one site when key is not empty.
func (s *Stage) Status(key bundle.Key) []Status {
	list := []Status{}
	now, denied := s.tick.Load(), s.denials.count()
	for _, st := range s.all() {
		if key == "" || st.key == key {
			list = append(list, st.status(now))
			list[len(list)-1].Denied = denied[st.key]
		}
	}
	slices.SortFunc(list, func(a, b Status) int { return strings.Compare(string(a.Site), string(b.Site)) })
	return list
}

func (st *site) status(now uint32) Status {
	v := st.verdict.Load()
	st.mu.Lock()
	defer st.mu.Unlock()
	r := &st.report
	out := Status{
		Site: st.key, Mode: string(st.policy.mode), Step: v.step.String(), Hand: "auto", Learned: r.known,
		Rate: r.rate, Expected: r.expected, Suspects: r.suspects, Distance: r.strange, Bound: st.policy.strange,
		Saturated: r.load.String(), Dimensions: map[string]float64{},
	}
	if st.hand.holds(r.at) {
		until := st.hand.expires
		out.Hand, out.Until = "on", &until
		if st.hand.step == Calm {
			out.Hand = "off"
		}
	}
	if began := r.began; !began.IsZero() {
		out.Since = &began
	}
	for d := range dimensions {
		if r.distance[d] >= 0 {
			out.Dimensions[dimensionNames[d]] = r.excess[d]
		}
	}
	for i := Stale; i < steps; i++ {
		m := Measure{Step: i.String(), Allowed: st.policy.allowed[i], Banned: now < st.ladder.banned[i], Harmed: st.harm[i].total}
		if st.goodSeen > 0 {
			m.HarmShare = st.harm[i].recent / st.goodSeen
		}
		out.Measures = append(out.Measures, m)
	}
	return out
}

// Errors of a person's orders.
var (
	ErrNoSite = errors.New("no such site is watched; it needs a FloodPolicy and a first request")
	errStep   = errors.New("the step must be stale, cache, challenge or limit")
)

// LongestHand bounds how long a person's order holds.
const LongestHand = 30 * 24 * time.Hour

// Shield sets the hand of a person on a site, or on all when key is empty. Order is on (with a step at which all
// unknown visitors count as suspects; challenge when it is empty), off (the detector does nothing) or auto (ends
// either); until is how long.
func (s *Stage) Shield(key bundle.Key, order, step string, until time.Time) error {
	h := hand{set: true, expires: until}
	switch order {
	case "on":
		if step == "" {
			step = Challenge.String()
		}
		st, ok := stepOf(step)
		if !ok || st == Drop {
			return errStep
		}
		h.step = st
	case "off":
	case "auto":
		h = hand{}
	default:
		return fmt.Errorf("%q is not on, off or auto", order)
	}
	found := false
	for _, st := range s.all() {
		if key != "" && st.key != key {
			continue
		}
		found = true
		st.mu.Lock()
		st.hand = h
		st.publish(time.Now(), s.tick.Load())
		st.mu.Unlock()
	}
	if !found {
		return ErrNoSite
	}
	if order == "off" {
		s.denials.withdraw(s.cfg.Denier, func(d denial) bool { return key == "" || d.site == key })
	}
	return nil
}
