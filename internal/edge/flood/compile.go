package flood

import (
	"cmp"
	"fmt"
	"time"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/observe"
	"github.com/relais-edge/relais/internal/snapshot"
	"github.com/relais-edge/relais/internal/stage"
)

// part is what the stage made of a site.
type part struct {
	site   *site
	policy *policy
}

// DefaultSites is how many sites are watched at once where a Config says nothing: 26 KiB each.
const DefaultSites = 4096

// bounds are the distances from which what comes is not what used to come, by sensitivity.
var bounds = map[string]float64{"low": 1.2, "normal": 0.8, "high": 0.5}

// Compile implements stage.Compiler. What was learned is the stage's and outlives the documents.
func (s *Stage) Compile(sn *snapshot.Site, _ stage.Part) (stage.Part, error) {
	spec := sn.Spec.Flood
	if spec == nil {
		return nil, nil
	}
	p, err := compile(spec)
	if err != nil {
		return nil, fmt.Errorf("flood: site %s: %w", sn.Key, err)
	}
	p.allowed[Challenge] = p.allowed[Challenge] && s.cfg.Challenger != nil
	st := s.site(sn, p)
	if st == nil {
		s.unwatched.Inc()
		return nil, nil
	}
	st.last.Store(sn)
	st.mu.Lock()
	defer st.mu.Unlock()
	st.policy = p
	return &part{st, p}, nil
}

// compile makes a policy of a document.
func compile(spec *v1.FloodPolicySpec) (*policy, error) {
	p := &policy{
		mode:    cmp.Or(spec.Mode, v1.ModeEnforce),
		warmUp:  cmp.Or(spec.WarmUp.Std(), 10*time.Minute),
		hold:    ticksOf(cmp.Or(spec.Hold.Std(), 20*time.Second)),
		strange: bounds[cmp.Or(spec.Sensitivity, "normal")],
		harm:    0.001,
		narrow:  newNarrow(spec.Cache.Paths, spec.Cache.Parameters),
		trusted: newTrusted(spec.Trusted),
	}
	if p.strange == 0 {
		return nil, fmt.Errorf("FloodPolicy: sensitivity %q is not low, normal or high", spec.Sensitivity)
	}
	if spec.Harm != nil {
		p.harm = spec.Harm.Fraction()
	}
	if spec.Expires != nil {
		p.expires = spec.Expires.Time
	}
	p.addressR = fourths(cmp.Or(spec.Limits.Address, 2))
	p.groupR = fourths(cmp.Or(spec.Limits.Network, 20))
	for _, name := range spec.Steps {
		step, ok := stepOf(name)
		if !ok {
			return nil, fmt.Errorf("FloodPolicy: step %q is not known", name)
		}
		p.allowed[step] = true
	}
	if len(spec.Steps) == 0 {
		for i := range p.allowed {
			p.allowed[i] = true
		}
	}
	p.allowed[Cache] = p.allowed[Cache] && p.narrow != nil
	return p, nil
}

func ticksOf(d time.Duration) uint32 { return uint32(max(1, d/tickEvery)) }

// fourths is a rate in requests a second as fourths of a request a tick, at least one.
func fourths(perSecond int) uint8 {
	return uint8(min(max(1, perSecond*4*int(tickEvery/time.Millisecond)/1000), 252))
}

// site finds or makes what is known of a site; nil when there are too many.
func (s *Stage) site(sn *snapshot.Site, p *policy) *site {
	s.mu.Lock()
	defer s.mu.Unlock()
	if st := s.sites[sn.Key]; st != nil {
		return st
	}
	if len(s.sites) >= s.cfg.Sites && !s.dropOldest() {
		return nil
	}
	st := &site{key: sn.Key, hash: hashKey(s.seed, string(sn.Key)), counters: s.metrics.site(string(sn.Key)), policy: p}
	st.verdict.Store(&verdicts{})
	st.used.Store(s.tick.Load())
	s.sites[sn.Key] = st
	return st
}

// idle is after how many ticks without a request a site may give its place to another: an hour.
const idle = 7200

// dropOldest gives up what is known of the site that rested longest, if that was long.
func (s *Stage) dropOldest() bool {
	var oldest *site
	now := s.tick.Load()
	for _, st := range s.sites {
		if oldest == nil || now-st.used.Load() > now-oldest.used.Load() {
			oldest = st
		}
	}
	if oldest == nil || now-oldest.used.Load() < idle {
		return false
	}
	s.metrics.forget(string(oldest.key))
	delete(s.sites, oldest.key)
	return true
}

// siteCounters are a site's metrics.
type siteCounters struct {
	step      observe.Gauge
	strange   observe.Gauge
	takenBack observe.Counter
	acted     [steps]observe.Counter
	harmed    [steps]observe.Counter
	would     [steps]observe.Counter
}

// metrics are the stage's families.
type metrics struct {
	step, strange    *observe.Family[observe.Gauge]
	takenBack        *observe.Family[observe.Counter]
	requests, harmed *observe.Family[observe.Counter]
}

func newMetrics(r *observe.Registry) *metrics {
	const most = DefaultSites
	return &metrics{
		step:      r.Gauges("relais_flood_step", "The step of the measures against a flood: 0 calm, 1 stale, 2 cache, 3 challenge, 4 limit, 5 drop.", most, "site"),
		strange:   r.Gauges("relais_flood_distance", "How far what comes is from what used to come.", most, "site"),
		takenBack: r.Counters("relais_flood_taken_back_total", "Steps that were taken back because they did harm to known visitors.", most, "site"),
		requests:  r.Counters("relais_flood_requests_total", "Requests on which a step acted, or in mode shadow would have.", most*2*int(steps), "site", "step", "outcome"),
		harmed:    r.Counters("relais_flood_harmed_total", "The same, of visitors with signed state.", most*int(steps), "site", "step"),
	}
}

func (m *metrics) site(key string) siteCounters {
	c := siteCounters{step: m.step.With(key), strange: m.strange.With(key), takenBack: m.takenBack.With(key)}
	for i := range steps {
		c.acted[i] = m.requests.With(key, i.String(), "act")
		c.would[i] = m.requests.With(key, i.String(), "would-act")
		c.harmed[i] = m.harmed.With(key, i.String())
	}
	return c
}

func (m *metrics) forget(key string) {
	m.step.Forget(key)
	m.strange.Forget(key)
	m.takenBack.Forget(key)
	for i := range steps {
		m.requests.Forget(key, i.String(), "act")
		m.requests.Forget(key, i.String(), "would-act")
		m.harmed.Forget(key, i.String())
	}
}
