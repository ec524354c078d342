// Package record keeps the trail of a request: a line in the access log, counters, and the
// last requests in memory so that each can be explained. It sees every visitor alike and
// delays none: what cannot be written at once is dropped and counted.
package record

import (
	"sync/atomic"
	"time"

	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/observe"
	"github.com/relais-edge/relais/internal/snapshot"
	"github.com/relais-edge/relais/internal/stage"
)

// maxSeries bounds the sites that have counters of their own.
const maxSeries = 2000

// Recorder records requests.
type Recorder struct {
	slot stage.Slot
	log  *Log // nil for no access log
	// where is nil when nobody knows where visitors are.
	where Where
	ring  *Ring
	// keeper keeps requests for replays; nil for none.
	keeper *Keeper
	m      families
	// refused counts what was no request at all.
	refused *observe.Family[observe.Counter]
	errors  *observe.Family[observe.Counter]
	full    *observe.Family[observe.Counter]

	revision atomic.Pointer[string] // of the documents in service

	// Totals of all sites, for a live line.
	Requests, Hits, Spilled, Blocked, Errors atomic.Uint64
}

type families struct {
	requests *observe.Family[observe.Counter]
	bytes    *observe.Family[observe.Counter]
	cache    *observe.Family[observe.Counter]
	duration *observe.Family[observe.Histogram]
}

// New returns a recorder. Log may be nil.
func New(slot stage.Slot, log *Log, ring *Ring, m *observe.Registry) *Recorder {
	r := &Recorder{
		slot: slot, log: log, ring: ring,
		m: families{
			requests: m.Counters("relais_requests_total", "Requests answered, by site and class of status.", maxSeries*6, "site", "status"),
			bytes:    m.Counters("relais_response_body_bytes_total", "Bytes of answers' bodies, by site.", maxSeries, "site"),
			cache:    m.Counters("relais_request_cache_total", "Requests by what the cache did, by site.", maxSeries*len(cacheResults), "site", "result"),
			duration: m.Histograms("relais_request_duration_seconds", "Time from the request's head to the answer's last byte, by site.", maxSeries,
				[]float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30}, "site"),
		},
		refused: m.Counters("relais_refused_total", "Bytes received that were no acceptable request, by code.", 64, "code"),
		errors:  m.Counters("relais_errors_total", "Requests that ended in an error page, by code and side.", 256, "code", "side"),
		full:    m.Counters("relais_full_total", "Requests for which no tier had room, by what they got: waited (and served), stale, room or page.", maxSeries*4, "site", "answer"),
	}
	r.SetRevision("")
	return r
}

// Keep has requests kept for replays too. Call it before the first request.
func (r *Recorder) Keep(k *Keeper) {
	k.revision = &r.revision
	r.keeper = k
}

// SetRevision names the documents that are in service from now on.
func (r *Recorder) SetRevision(name string) { r.revision.Store(&name) }

// Watch notes what of a request is gone at its end: its body. Call it before any stage reads that.
func (r *Recorder) Watch(x *stage.Exchange) {
	if r.keeper != nil {
		r.keeper.watch(x)
	}
}

// Locate has the access log say where visitors are. Call it before the first request.
func (r *Recorder) Locate(w Where) { r.where = w }

// part holds a site's counters.
type part struct {
	status   [6]observe.Counter // by hundreds; 0 for none sent
	bytes    observe.Counter
	duration observe.Histogram
	cache    [len(cacheResults)]observe.Counter
	routes   []string // what the access log says of the site and each route
}

var statusNames = [6]string{"none", "1xx", "2xx", "3xx", "4xx", "5xx"}

// cacheResults are the values of Exchange.CacheStatus that have a counter.
var cacheResults = [...]string{"hit", "miss", "stale", "revalidated", "bypass", "pass", "collapsed"}

// Compile implements stage.Compiler.
func (r *Recorder) Compile(site *snapshot.Site, old stage.Part) (stage.Part, error) {
	p, name := &part{}, string(site.Key)
	if before, ok := old.(*part); ok {
		*p = *before // the series go on
		p.name(site)
		return p, nil
	}
	p.name(site)
	for i, s := range statusNames {
		p.status[i] = r.m.requests.With(name, s)
	}
	p.bytes = r.m.bytes.With(name)
	p.duration = r.m.duration.With(name)
	for i, c := range cacheResults {
		p.cache[i] = r.m.cache.With(name, c)
	}
	return p, nil
}

func (p *part) name(site *snapshot.Site) {
	p.routes = make([]string, len(site.Routes))
	for i := range site.Routes {
		b := appendQuoted([]byte(`,"site":`), string(site.Key))
		p.routes[i] = string(appendQuoted(append(b, `,"route":`...), site.Routes[i].Name))
	}
}

// Record records a request that has ended.
func (r *Recorder) Record(x *stage.Exchange, o message.Outcome) {
	took := x.Lap()
	var p *part
	if x.Site != nil {
		p, _ = x.Site.Parts[r.slot].(*part)
	}
	r.count(x, p, o, took)
	if r.ring != nil {
		r.ring.add(x, o, took, *r.revision.Load())
	}
	if r.keeper != nil {
		r.keeper.keep(x, o, took)
	}
	if r.log == nil {
		return
	}
	l := &memoryOf(x, r.slot).line
	if l.buf == nil {
		l.buf = make([]byte, 0, 1024)
	}
	r.log.Write(l.request(x, p, o, took, r.where))
}

func (r *Recorder) count(x *stage.Exchange, p *part, o message.Outcome, took time.Duration) {
	r.Requests.Add(1)
	switch {
	case x.CacheStatus == "hit":
		r.Hits.Add(1)
	case x.Spilled:
		r.Spilled.Add(1)
	}
	if e := x.Failure; e != nil {
		r.errors.With(e.Code, e.Side.String()).Inc()
		if e.Side == stage.SideTenant && (o.Status == 403 || o.Status == 429) {
			r.Blocked.Add(1)
		}
	}
	if o.Status >= 500 || o.Err != nil {
		r.Errors.Add(1)
	}
	if p == nil {
		return
	}
	p.status[min(o.Status/100, 5)].Inc()
	p.bytes.Add(float64(o.Body))
	p.duration.Observe(took.Seconds())
	if x.Full != "" {
		r.full.With(string(x.Site.Key), x.Full).Inc()
	}
	if x.CacheStatus != "" {
		for i := range cacheResults {
			if x.CacheStatus == cacheResults[i] {
				p.cache[i].Inc()
				break
			}
		}
	}
}

// Refused records bytes that were no acceptable request.
func (r *Recorder) Refused(conn *message.Conn, id stage.RequestID, status int, code, detail string) {
	r.refused.With(code).Inc()
	if r.ring != nil {
		r.ring.addRefused(conn, id, status, code, detail)
	}
	if r.log == nil {
		return
	}
	l := line{buf: make([]byte, 0, 512)}
	l.time(`{"time":`, time.Now())
	l.str(`,"id":`, id.String())
	if conn != nil {
		l.str(`,"client":`, conn.Client.String())
		l.str(`,"listener":`, conn.Listener)
	}
	l.num(`,"status":`, int64(status))
	l.str(`,"code":`, code)
	l.str(`,"detail":`, detail)
	r.log.Write(l.end())
}

// request writes the line of a request. Fields without a value are left out.
func (l *line) request(x *stage.Exchange, p *part, o message.Outcome, took time.Duration, where Where) []byte {
	in := x.In
	l.time(`{"time":`, x.Start)
	l.raw(`,"id":"`)
	l.buf = append(l.buf, x.IDText()...)
	l.raw(`","client":"`)
	l.buf = x.Client.AppendTo(l.buf)
	l.raw(protoKeys[in.Proto])
	if where != nil {
		country, asn := where(x.Client)
		l.str(`,"country":`, country)
		if asn > 0 {
			l.num(`,"asn":`, int64(asn))
		}
	}
	l.bytes(`,"method":`, in.MethodName())
	l.bytes(`,"host":`, in.Authority())
	l.bytes(`,"path":`, in.Path())
	l.bytes(`,"query":`, in.Query())
	if len(x.Variant) > 0 {
		l.bytes(`,"variant":`, x.Variant)
	}
	l.num(`,"status":`, int64(o.Status))
	l.num(`,"bytes":`, o.Body)
	l.millis(`,"ms":`, took)
	if p != nil && x.Route != nil {
		l.raw(p.routes[x.Route.Index])
	}
	if x.Visitor.Class != stage.Anonymous {
		l.str(`,"visitor":`, x.Visitor.Class.String())
	}
	if x.Visitor.Score > 0 {
		l.num(`,"score":`, int64(x.Visitor.Score))
	}
	l.str(`,"bot":`, x.Visitor.Bot)
	if in.Conn != nil && in.Conn.TLS != nil {
		l.str(`,"ja4":`, in.Conn.TLS.JA4)
	}
	l.str(`,"cache":`, x.CacheStatus)
	if x.Tries > 0 {
		l.str(`,"pool":`, x.Pool)
		l.str(`,"tier":`, x.Tier)
		l.str(`,"origin":`, x.Origin)
		l.str(`,"spill":`, x.Spill)
	}
	l.str(`,"full":`, x.Full)
	if x.Tries > 1 {
		l.num(`,"tries":`, int64(x.Tries))
	}
	if x.Failure != nil {
		l.str(`,"code":`, x.Failure.Code)
	}
	if o.Err != nil {
		l.str(`,"abort":`, o.Err.Error())
	}
	l.bytes(`,"userAgent":`, in.Get(message.UserAgent))
	l.bytes(`,"referer":`, in.Get(message.Referer))
	return l.end()
}

// protoKeys close the client and say the version.
var protoKeys = [...]string{
	message.HTTP10: `","proto":"HTTP/1.0"`, message.HTTP11: `","proto":"HTTP/1.1"`,
	message.HTTP2: `","proto":"HTTP/2"`, message.HTTP3: `","proto":"HTTP/3"`,
}
