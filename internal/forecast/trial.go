package forecast

import (
	"context"
	"fmt"
	"math"
	"slices"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/edge/balance"
	"github.com/relais-edge/relais/internal/virtual"
)

// The spans of a trial in virtual time: the balancer learns what its tiers are like at half of the load, then
// it has the recorded load, then the change comes and settles, and then what came of it is measured.
const (
	learning     = 5 * second
	warming      = 12 * second
	measuringNow = 8 * second
	settling     = 16 * second
	maxSettling  = 90 * second
	measuring    = 20 * second
	maxMeasuring = 600 * second
	// enoughAsked is how many requests a measurement wants; a quiet pool is measured for longer.
	enoughAsked = 4000
)

// trial is the simulation of one pool.
type trial struct {
	base     *base
	spec     *v1.OriginPoolSpec
	aims     *aims
	factor   float64
	budget   float64
	where    balance.Where
	seed     uint64
	progress func(float64)

	scale    float64  // the world is so many times smaller
	planned  []string // warnings of the plan
	w        *world
	pool     Pool
	unknown  map[string]bool // tiers whose times are not known
	settle   int64
	window   int64
	learnNow int64
}

func (t *trial) warnf(format string, args ...any) {
	t.pool.Warnings = append(t.pool.Warnings, fmt.Sprintf(format, args...))
}

// plan sets the spans and the scale.
func (t *trial) plan() {
	rate := t.base.rate.All()
	then := rate * t.factor
	t.settle = settling
	if len(t.aims.down) > 0 {
		t.settle = max(t.settle, min(detect(&t.spec.Health)+settling, maxSettling))
	}
	t.learnNow = min(max(measuringNow, int64(enoughAsked/4/rate*1e9)), maxMeasuring)
	t.window = min(max(measuring, int64(enoughAsked/then*1e9)), maxMeasuring)
	n := (rate*float64(learning/2+warming+t.learnNow) + then*float64(t.settle+t.window)) / 1e9
	if t.scale = 1; n > t.budget {
		t.scale = n / t.budget
		t.planned = append(t.planned, fmt.Sprintf("the load is simulated %.1f times smaller, its tiers with it, so that it takes a bounded time; spills begin a little early in a smaller tier", t.scale))
	}
}

// run makes the forecast of the pool.
func (t *trial) run(ctx context.Context) (*Pool, error) {
	t.plan()
	now, err := t.calibrate(ctx)
	if err != nil {
		return nil, err
	}
	w := t.w
	end := float64(learning + warming + t.learnNow + t.settle + t.window)
	more := func() error {
		t.progress(float64(w.now-second) / end)
		return ctx.Err()
	}
	for i := range w.servers {
		w.servers[i].others *= t.factor
		if w.tiers[w.servers[i].tier].reports { // what others take is not there for this edge
			s := &w.servers[i]
			s.slots = max(1, s.slots-int(s.others*(1-1/t.factor)))
		}
	}
	early := w.measureFrom()
	w.load(scaled(t.base.rate, t.factor/t.scale))
	w.fail(t.aims.down, &t.spec.Health)
	if err := w.run(w.now+t.settle, more); err != nil {
		return nil, err
	}
	w.stop()
	then := w.measureFrom()
	if err := w.run(w.now+t.window, more); err != nil {
		return nil, err
	}
	for i := range w.tiers {
		if n := float64(w.tiers[i].inFlight); n > 1.2*then.inFlight(i, w.now) && n > 100 {
			t.warnf("%s: what waits there grows on and on; more are too late with each second", w.tiers[i].name)
		}
	}
	w.stop()
	t.progress(1)
	t.tell(now, early, then)
	return &t.pool, nil
}

// batches are how many requests a visitor may send at once. Real ones come in bursts, a page and what is on it.
var batches = []int{1, 2, 4, 8, 16, 32}

// calibrate makes a world at the recorded load whose tiers spill as was recorded, as nearly as it can: with so many
// requests at once. It returns what that world is like.
func (t *trial) calibrate(ctx context.Context) (*measure, error) {
	best, least := 1, math.Inf(1)
	for _, n := range batches {
		m, err := t.present(ctx, n)
		if err != nil {
			return nil, err
		}
		wrong, few := t.wrong(m)
		if wrong < least {
			best, least = n, wrong
		} else if wrong > least {
			break
		}
		if wrong <= wrongSpill || !few || len(t.aims.slots) > 0 {
			if best == n {
				t.sayBatch(n)
				return m, nil
			}
			break
		}
	}
	m, err := t.present(ctx, best)
	t.sayBatch(best)
	return m, err
}

func (t *trial) sayBatch(n int) {
	if n > 1 {
		t.warnf("requests were recorded to come in bursts; the model has them come %d at once, so that as many spill as was recorded", n)
	}
}

// wrong is by how much the spills of a world differ from those recorded, as a share of all requests, and whether they
// are too few.
func (t *trial) wrong(m *measure) (share float64, few bool) {
	was, is := 0.0, 0.0
	for i := range m.tiers {
		is += m.tiers[i].spills.All() / m.seconds() * t.scale
	}
	for _, b := range t.base.tiers {
		was += b.spills.All()
	}
	return math.Abs(was-is) / t.base.rate.All(), is < was
}

// present makes a world and runs it up to the end of the recorded load.
func (t *trial) present(ctx context.Context, batch int) (*measure, error) {
	t.pool = Pool{Key: string(t.base.key), Warnings: slices.Clone(t.planned), WasRefused: rounded(t.base.refused, 1)}
	if err := t.build(); err != nil {
		return nil, err
	}
	w := t.w
	w.batch = batch
	w.load(scaled(t.base.rate, 0.5/t.scale))
	if err := w.run(w.now+learning, ctx.Err); err != nil {
		return nil, err
	}
	w.load(scaled(t.base.rate, 1/t.scale))
	if err := w.run(w.now+warming, ctx.Err); err != nil {
		return nil, err
	}
	m := w.measureFrom()
	err := w.run(w.now+t.learnNow, ctx.Err)
	w.stop()
	return m, err
}

// build makes the world of the pool.
func (t *trial) build() error {
	w := newWorld(t.seed)
	t.w, t.unknown = w, map[string]bool{}
	spec := *t.spec
	spec.Tiers = slices.Clone(t.spec.Tiers)
	for i := range spec.Tiers {
		tier := &spec.Tiers[i]
		tier.Origins = slices.Clone(tier.Origins)
		tier.Subset = 0
		found := 0
		for j := range tier.Origins {
			o := &tier.Origins[j]
			if o.Expand || o.SRV != "" {
				found++
			}
			o.Address, o.Expand, o.SRV = address(o), false, ""
			if o.InFlight > 0 {
				o.InFlight = max(1, int(math.Round(float64(o.InFlight)/t.scale)))
			}
		}
		if found > 0 {
			t.warnf("%s: %d of its origins are found by DNS; each name counts as one origin", balance.TierName(t.spec, i), found)
		}
		if n := v1.Value(tier.Capacity.InFlight); n > 0 {
			tier.Capacity.InFlight = new(max(1, int(math.Round(float64(n)/t.scale))))
		}
		t.addTier(i, tier)
	}
	t.borrowTimes()
	var err error
	if w.model, err = balance.NewModel(&spec, t.where, w.clock); err != nil {
		return fmt.Errorf("pool %s: %w", t.base.key, err)
	}
	w.q.Push(virtual.Event{At: w.now + int64(balance.TickOfModel), Kind: evTick})
	return nil
}

// queueShare and leastQueue are what the limit that is found lets wait: a share of the 95th percentile, and ms.
const (
	queueShare = 0.12
	leastQueue = 4.0
)

// worked is how many requests at once a tier worked on that was full at times, and how long one takes there without a
// wait, in ms; hold is how long one is in flight.
func (b *baseTier) worked(hold float64) (slots, work float64) {
	work = b.ease
	if work <= 0 {
		// Some wait there, as long as a limit lets them.
		work = max(hold/2, hold-max(queueShare*b.p95, leastQueue))
	}
	if b.full > 0 {
		return b.full * work / 1000, work // Little's law
	}
	return b.found, work
}

// addTier makes a tier's servers of what is known of it.
func (t *trial) addTier(i int, tier *v1.Tier) {
	name, w := balance.TierName(t.spec, i), t.w
	b := t.base.tiers[name]
	if b == nil {
		b = &baseTier{}
	}
	hold := b.hold
	if hold <= 0 && b.p50 > 0 {
		s := sigma(b.p50, b.p95)
		hold = b.p50 * math.Exp(s*s/2)
	}
	slots, source := float64(v1.Value(t.spec.Tiers[i].Capacity.InFlight)), "told"
	if slots == 0 {
		source = "unknown"
	}
	if b.found > 0 || b.full > 0 && slots == 0 {
		if n, work := b.worked(hold); slots == 0 || n < slots {
			slots, hold, source = n, work, "found"
		}
	}
	if b.reported > 0 {
		slots, source = max(1, b.reported-b.others), "reported"
	}
	if n := t.aims.slots[name]; n > 0 {
		slots, source = float64(n), "flag"
	}
	if b.full > 0 && slots > 0 {
		// It answered so many a second, which so many at once can do no slower (Little's law): the rest of the time
		// that was seen they had waited.
		hold = min(hold, slots/b.full*1000)
	}
	wt := worldTier{name: name, reports: source == "reported", sigma: sigma(b.p50, b.p95)}
	if b.p50 <= 0 {
		wt.sigma = 0.8
	}
	if hold > 0 {
		wt.median = hold * milli / math.Exp(wt.sigma*wt.sigma/2)
	}
	w.index[name] = len(w.tiers)
	w.tiers = append(w.tiers, wt)
	t.addServers(tier, slots/t.scale, b.others/t.scale)
	down := 0
	for j := range tier.Origins {
		if t.aims.down[tier.Origins[j].Address] {
			down++
		}
	}
	t.pool.Tiers = append(t.pool.Tiers, Tier{Name: name, Origins: len(tier.Origins), Failed: down, Slots: int(math.Round(slots)), Source: source})
}

// addServers shares slots among the origins by weight.
func (t *trial) addServers(tier *v1.Tier, slots, others float64) {
	w, sum, before := t.w, 0.0, 0.0
	weight := func(j int) float64 {
		if tier.Origins[j].Weight == nil {
			return 1
		}
		return float64(*tier.Origins[j].Weight)
	}
	for j := range tier.Origins {
		sum += weight(j)
	}
	for j := range tier.Origins {
		part := weight(j) / max(sum, 1e-9)
		s := server{tier: len(w.tiers) - 1, address: tier.Origins[j].Address, up: true, slots: manySlots, others: others * part}
		if slots > 0 {
			after := before + slots*part
			s.slots = max(1, int(math.Round(after)-math.Round(before)))
			before = after
		}
		w.at[s.address] = int32(len(w.servers))
		w.servers = append(w.servers, s)
	}
}

// borrowTimes gives tiers of which no time is known that of the first one that has some.
func (t *trial) borrowTimes() {
	w := t.w
	k := slices.IndexFunc(w.tiers, func(x worldTier) bool { return x.median > 0 })
	for i := range w.tiers {
		if w.tiers[i].median > 0 {
			continue
		}
		t.unknown[w.tiers[i].name] = true
		w.tiers[i].median, w.tiers[i].sigma = 50*milli, 0.8
		if k >= 0 {
			w.tiers[i].median, w.tiers[i].sigma = w.tiers[k].median, w.tiers[k].sigma
		}
	}
}

// tell makes the result of what was measured.
func (t *trial) tell(now, early, then *measure) {
	p, s := &t.pool, then.seconds()
	p.Asked = rounded(then.asked, t.scale/s)
	p.Lost = Lost{Refused: rounded(then.refused, t.scale/s), Failed: rounded(then.failed, t.scale/s), Late: rounded(then.gaveUp, t.scale/s)}
	p.Transition = Transition{Seconds: float64(t.settle) / 1e9, Lost: rounded(early.lost(), t.scale)}
	var price NowThen
	known := true
	for i := range p.Tiers {
		tier := &p.Tiers[i]
		t.sides(tier, i, then)
		if each := float64(t.spec.Tiers[i].Price); each > 0 {
			tier.PricePerHour = &NowThen{round(tier.Now.Rate.All() * each * 3600), round(tier.Then.Rate.All() * each * 3600)}
			price.Now += tier.PricePerHour.Now
			price.Then += tier.PricePerHour.Then
		}
		if t.unknown[tier.Name] && tier.Then.Rate.All() > 0 {
			known = false
			t.warnf("%s: how long it takes to answer is not known; its time is taken to be that of another tier", tier.Name)
		}
	}
	if price.Now+price.Then > 0 {
		p.PricePerHour = &NowThen{round(price.Now), round(price.Then)}
	}
	if known && now.answers > 0 && then.answers > 0 {
		p.Extra = &Extra{Mean: round(then.mean() - now.mean()), P95: round(then.percentile(0.95) - now.percentile(0.95))}
	}
	t.doubt(now)
	order := balance.Waterfall(t.spec, t.where)
	slices.SortStableFunc(p.Tiers, func(a, b Tier) int { return slices.Index(order, a.Name) - slices.Index(order, b.Name) })
}

// sides fills in a tier as recorded and as forecast.
func (t *trial) sides(tier *Tier, i int, then *measure) {
	if b := t.base.tiers[tier.Name]; b != nil {
		tier.Now = Side{Rate: rounded(b.rate, 1), InFlight: round(b.inFlight), Spills: roundedSpills(b.spills, 1), Mean: round(b.hold)}
		for _, l := range []float64{b.reported, b.found, float64(v1.Value(t.spec.Tiers[i].Capacity.InFlight))} {
			if l > 0 && (tier.Now.Limit == 0 || l < tier.Now.Limit) {
				tier.Now.Limit = round(l)
			}
		}
		if tier.Now.Limit == 0 {
			tier.Now.Limit = float64(tier.Slots)
		}
	}
	m, s := &then.tiers[i], then.seconds()
	tier.Then = Side{Rate: rounded(m.sent, t.scale/s), InFlight: round(m.area / (s * 1e9) * t.scale), Spills: roundedSpills(m.spills, t.scale/s)}
	if m.answers > 0 {
		tier.Then.Mean = round(m.took / m.answers / milli)
	}
	switch up := tier.Origins - tier.Failed; {
	case up == 0:
	case m.limited > 0:
		tier.Then.Limit = round(m.limit / m.limited * t.scale)
	case tier.Slots > 0:
		tier.Then.Limit = round(float64(tier.Slots) * float64(up) / float64(tier.Origins))
	}
}

// How far the model of the present may be from what was recorded without a word about it.
const (
	wrongFlight = 0.2
	wrongSpill  = 0.05
)

// doubt says on what the answer rests that nobody knows for sure.
func (t *trial) doubt(now *measure) {
	for i := range t.pool.Tiers {
		tier := &t.pool.Tiers[i]
		b := t.base.tiers[tier.Name]
		if b == nil {
			b = &baseTier{}
		}
		full := ref(tier.Name, string(t.base.key))
		switch {
		case tier.Failed == tier.Origins:
		case tier.Source == "unknown" && tier.Then.Rate.All() > 0:
			t.warnf("%s: no limit is known. More than %.0f at once has not been seen, and the answer has it take %.0f as quickly; say what it takes with --capacity %s=N",
				tier.Name, math.Ceil(b.most), math.Ceil(tier.Then.InFlight), full)
		case tier.Source == "found":
			t.warnf("%s: its limit of %d at once is an estimate from how long answers took; if you know better say so with --capacity %s=N", tier.Name, tier.Slots, full)
		}
		was, is := b.inFlight, now.tiers[i].area/(now.seconds()*1e9)*t.scale
		if d := math.Abs(was - is); d > wrongFlight*max(was, is) && d > 4 && tier.Source != "flag" {
			t.warnf("%s: the model has %.0f in flight at the recorded load, and %.0f were recorded; take its figures as rough", tier.Name, is, was)
		}
		was, is = b.spills.All(), now.tiers[i].spills.All()/now.seconds()*t.scale
		if d := math.Abs(was - is); d > wrongSpill*t.base.rate.All() && tier.Source != "flag" {
			t.warnf("%s: the model has %.0f requests a second spill there at the recorded load, and %.0f were recorded; take its figures as rough", tier.Name, is, was)
		}
	}
	if len(t.aims.down) > 0 && !t.w.model.Checked() {
		t.warnf("the pool has no active check, so that what fails is found by failed requests alone, and tried again after each health.passive.ejection")
	}
}

// ref is how --capacity names a tier.
func ref(tier, key string) string { return key + "/" + tier }

func scaled(r balance.ByClass, by float64) balance.ByClass {
	return balance.ByClass{Anonymous: r.Anonymous * by, Known: r.Known * by, Basket: r.Basket * by}
}

func rounded(r balance.ByClass, by float64) balance.ByClass {
	return balance.ByClass{Anonymous: round(r.Anonymous * by), Known: round(r.Known * by), Basket: round(r.Basket * by)}
}

func roundedSpills(s balance.Spills, by float64) balance.Spills {
	return balance.Spills{
		Soft: round(s.Soft * by), Hard: round(s.Hard * by), Unhealthy: round(s.Unhealthy * by),
		Tried: round(s.Tried * by), Stayed: round(s.Stayed * by), Sticky: round(s.Sticky * by),
	}
}
