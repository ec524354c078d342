// Package meter counts what each site uses in each hour, for the usage records, and how each organization's visitors fare, for the
// gates of rollouts: a few atomic additions to a request, and no allocation. What a protection refused is counted apart.
package meter

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/snapshot"
	"github.com/relais-edge/relais/internal/stage"
	"github.com/relais-edge/relais/internal/usage"
)

// hours is how many hours there are counters for, by the lowest bits of the hour.
const hours = 4

// Meter counts for all sites of an edge. Its zero value is none; make one with New.
type Meter struct {
	slot    stage.Slot
	classes *classes

	mu            sync.Mutex
	live          map[*cells]struct{} // those that have something, or had at the last Take
	services      map[string]*cells   // by key
	organizations map[string]*health
}

// New makes a meter with a slot of its own.
func New(slot stage.Slot) *Meter {
	return &Meter{slot: slot, classes: newClasses(), live: map[*cells]struct{}{}, services: map[string]*cells{}, organizations: map[string]*health{}}
}

// cells are a site's counters for this hour, the two before and the next, whose first request may end before a Take that
// began in this one does. They live as long as anybody
// who may count has them, so that no count is lost when a site goes, and take no memory in the meter while nothing is counted.
type cells struct {
	organization, site string
	hour               [hours][usage.Fields]atomic.Int64
	listed             atomic.Bool
	health             *health // of the organization; nil of a service
}

// Compile implements stage.Compiler. A site that changes keeps its counters.
func (m *Meter) Compile(site *snapshot.Site, old stage.Part) (stage.Part, error) {
	if c, ok := old.(*cells); ok {
		return c, nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return &cells{organization: site.Organization, site: site.Name, health: m.healthOf(site.Organization)}, nil
}

// The places of the counters in usage.Counts.List.
const (
	requests = iota
	bytesIn
	bytesOut
	cacheHits
	fetches
	orders
	refused
	refusedBytesIn
	refusedBytesOut
)

// Watch counts the bytes of a request's body as they pass. Call it before any stage reads that.
func (m *Meter) Watch(x *stage.Exchange) {
	if x.In.Body == nil {
		return
	}
	b, _ := x.Local[m.slot].(*promptBody)
	if b == nil {
		b = &promptBody{}
		x.Local[m.slot] = b
	}
	b.inner, b.prompt, b.size, b.on = x.In.Body, nil, 0, true
	if p, ok := x.In.Body.(message.Prompt); ok {
		b.prompt, x.In.Body = p, b
		return
	}
	x.In.Body = &b.body
}

// body counts what passes.
type body struct {
	inner message.Body
	size  int64
	on    bool // until its request was counted
}

// Next implements message.Body.
func (b *body) Next(ctx context.Context) ([]byte, error) {
	p, err := b.inner.Next(ctx)
	b.size += int64(len(p))
	return p, err
}

// Close implements message.Body.
func (b *body) Close(cause error) { b.inner.Close(cause) }

// promptBody is a body that knows whether it has bytes at hand.
type promptBody struct {
	body
	prompt message.Prompt
}

// Ready implements message.Prompt.
func (b *promptBody) Ready() bool { return b.prompt.Ready() }

// Count counts a request that has ended, in the hour of its end.
func (m *Meter) Count(x *stage.Exchange, o message.Outcome) {
	var in int64
	if b, ok := x.Local[m.slot].(*promptBody); ok && b.on {
		in, b.on = b.size, false
	}
	if x.Site == nil {
		return
	}
	c, _ := x.Site.Parts[m.slot].(*cells)
	if c == nil {
		return
	}
	at := &c.hour[hourOf(x)%hours]
	if Refused(x) {
		at[refused].Add(1)
		add(&at[refusedBytesIn], in)
		add(&at[refusedBytesOut], o.Body)
	} else {
		at[requests].Add(1)
		add(&at[bytesIn], in)
		add(&at[bytesOut], o.Body)
		if x.CacheStatus == "hit" {
			at[cacheHits].Add(1)
		}
		if x.Visitor.Ordered {
			at[orders].Add(1)
		}
	}
	m.counted(c)
}

// hourOf is that of the request's end, as far as its clock was read.
func hourOf(x *stage.Exchange) usage.Hour { return usage.HourOf(x.Now()) }

func add(n *atomic.Int64, d int64) {
	if d > 0 {
		n.Add(d)
	}
}

// counted has Take look at c. It is called after the addition: whoever finds c listed knows that a Take comes which sees it.
func (m *Meter) counted(c *cells) {
	if c.listed.Load() {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	c.listed.Store(true)
	m.live[c] = struct{}{}
}

// Refused says whether a protection refused or challenged the request.
func Refused(x *stage.Exchange) bool {
	if e := x.Failure; e != nil {
		switch e.Code {
		case "http_request_denied":
			return e.Side == stage.SideTenant
		case "bot_denied", "honeypot", "waf_over_budget", "waf_answer_denied", "challenge_limit", "connection_limit_reached":
			return true
		}
		return false
	}
	if x.Tries > 0 || x.CacheStatus != "" {
		return false
	}
	for _, mark := range x.Trail.Marks() {
		if mark.Stage == "challenge" && (mark.Code == "asked" || mark.Code == "wrong" || mark.Code == "early") {
			return true
		}
	}
	return false
}

// Connection counts a connection or UDP session of a service that is over.
func (m *Meter) Connection(organization, service string, in, out int64, at time.Time) {
	key := organization + "/" + service
	m.mu.Lock()
	c := m.services[key]
	if c == nil {
		c = &cells{organization: organization, site: usage.ServicePrefix + service}
		m.services[key] = c
	}
	m.mu.Unlock()
	to := &c.hour[usage.HourOf(at)%hours]
	to[requests].Add(1)
	add(&to[bytesIn], in)
	add(&to[bytesOut], out)
	m.counted(c)
}

// Fetches is a stage that counts what is sent to origins, for visitors and for the cache. It stands above the balancer.
func (m *Meter) Fetches() stage.Stage { return fetchStage{m} }

type fetchStage struct{ m *Meter }

// Name implements stage.Stage.
func (fetchStage) Name() string { return "meter" }

// Serve implements stage.Stage.
func (f fetchStage) Serve(ctx context.Context, x *stage.Exchange, next stage.Handler) (*message.Response, error) {
	before := x.Tries
	resp, err := next.Serve(ctx, x)
	if n := x.Tries - before; n > 0 && x.Site != nil {
		if c, _ := x.Site.Parts[f.m.slot].(*cells); c != nil {
			c.hour[hourOf(x)%hours][fetches].Add(int64(n))
			f.m.counted(c)
		}
	}
	return resp, err
}

// Take gives what was counted since the last Take, and begins anew. Now is the time; Take is to be called at least once in
// each hour: beyond that, counts of an hour may stand in another one, and none are lost.
func (m *Meter) Take(now time.Time) []usage.Record {
	this := usage.HourOf(now)
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []usage.Record
	for c := range m.live {
		before := len(out)
		out = c.take(out, this)
		if len(out) > before {
			continue
		}
		// Nothing came: it is looked at again when something does. Who counted while it was still listed is seen by the
		// second look.
		c.listed.Store(false)
		delete(m.live, c)
		out = c.take(out, this)
	}
	for key, c := range m.services {
		if _, ok := m.live[c]; !ok {
			delete(m.services, key)
		}
	}
	return out
}

// take empties the counters.
func (c *cells) take(out []usage.Record, this usage.Hour) []usage.Record {
	for hour := this - 2; hour <= this+1; hour++ {
		var v [usage.Fields]int64
		some := false
		for i := range v {
			v[i] = c.hour[hour%hours][i].Swap(0)
			some = some || v[i] != 0
		}
		if some {
			out = append(out, usage.Record{Slot: usage.Slot{Organization: c.organization, Site: c.site, Hour: hour}, Counts: usage.CountsOf(v)})
		}
	}
	return out
}
