package cache

import (
	"bytes"

	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/observe"
	"github.com/relais-edge/relais/internal/stage"
)

// result is what the cache did for a request.
type result uint8

const (
	resultHit         result = iota // from the store, fresh
	resultStale                     // from the store, stale
	resultMiss                      // fetched
	resultCollapsed                 // fetched for another request
	resultRevalidated               // stored, and the origin said that it is still good
	resultExpired                   // stored, and the origin gave another one
	resultPass                      // fetched for this request only
	resultBypass                    // not looked up
	numResults
)

var resultNames = [numResults]string{"hit", "stale", "miss", "collapsed", "revalidated", "expired", "pass", "bypass"}

// forward is why a request went to the origin (RFC 9211 section 2.2).
type forward uint8

const (
	fwdNone forward = iota
	fwdBypass
	fwdMethod
	fwdURIMiss
	fwdVaryMiss
	fwdRequest
	fwdStale
	fwdPartial
)

var forwardNames = [...]string{"", "bypass", "method", "uri-miss", "vary-miss", "request", "stale", "partial"}

// missed says why nothing was found for x: nothing is under the key that a purge has left, or what is there is for
// other requests.
func (s *Stage) missed(l *local, x *stage.Exchange, seen bool) forward {
	left := false
	if seen {
		at := placeOf(x, l.key, l.aliased)
		s.eachStored(l, x, func(o *object) bool {
			left = purged(l.rule.mark, o, &at).Hard <= o.born
			return !left
		})
	}
	if left {
		return fwdVaryMiss
	}
	return fwdURIMiss
}

// Where an answer lies, in metrics.byTier.
const (
	tierMemory = iota
	tierDisk
	tierFront
)

type metrics struct {
	results    [numResults]observe.Counter
	stored     observe.Counter
	truncated  observe.Counter
	tooLarge   observe.Counter
	tooMany    observe.Counter
	slow       observe.Counter
	invalid    observe.Counter
	background observe.Counter
	parts      observe.Counter
	groups     observe.Counter
	disguised  observe.Counter
	echoed     observe.Counter
	untagged   observe.Counter
	purges     observe.Counter
	unkept     observe.Counter
	unstored   observe.Counter
	byTier     [3]observe.Counter
}

func newMetrics(r *observe.Registry, s *Stage) *metrics {
	m := &metrics{}
	results := r.Counters("relais_cache_requests_total", "Requests by what the cache did for them.", int(numResults), "result")
	for i := range m.results {
		m.results[i] = results.With(resultNames[i])
	}
	events := r.Counters("relais_cache_events_total", "What happened to answers on their way into the cache.", 16, "event")
	m.stored = events.With("stored")
	m.truncated = events.With("truncated")
	m.tooLarge = events.With("too_large")
	m.tooMany = events.With("too_many_fills")
	m.slow = events.With("slow_reader_dropped")
	m.invalid = events.With("invalidated")
	m.parts = events.With("part_stored")
	m.groups = events.With("group_invalidated")
	m.untagged = events.With("tags_refused")
	m.unkept = events.With("purge_not_kept")
	m.unstored = events.With("not_admitted")
	m.purges = r.Counters("relais_cache_purges_total", "Purges, by command, API and PURGE.", 1).With()
	r.GaugeFunc("relais_cache_purge_keys", "Purged things that are told apart.", func() float64 { return float64(s.purges.Keys()) })
	m.disguised = events.With("type_mismatch")
	m.echoed = events.With("echo")
	s.learner.bounded = events.With("not_compared")
	m.background = events.With("background_refused")
	byTier := r.Counters("relais_cache_tier_hits_total", "Answers from the store, by where they lay: in memory, on the disk, or as a copy in front of both.", 3, "tier")
	m.byTier = [3]observe.Counter{tierMemory: byTier.With("memory"), tierDisk: byTier.With("disk"), tierFront: byTier.With("front")}
	tierMetrics(r, s)
	r.GaugeFunc("relais_cache_fills", "Fetches that run.", func() float64 {
		s.mu.Lock()
		defer s.mu.Unlock()
		return float64(len(s.running))
	})
	return m
}

// tier counts an answer by where it lies.
func (m *metrics) tier(o *object) {
	switch {
	case o.hold == nil:
		m.byTier[tierFront].Inc()
	case o.hold.ref.InMemory():
		m.byTier[tierMemory].Inc()
	default:
		m.byTier[tierDisk].Inc()
	}
}

// done notes what the cache did.
func (s *Stage) done(x *stage.Exchange, r result, detail string) {
	x.CacheStatus = resultNames[r]
	x.MarkDetail("cache", resultNames[r], detail)
	if x.Visitor.Background {
		return // it is nobody's request
	}
	s.m.results[r].Inc()
	if p := s.partOf(x); p != nil {
		p.site.results[r].Add(1)
	}
}

// status appends our member to Cache-Status, behind those of caches nearer to the origin (RFC
// 9211 section 2).
type status struct {
	fwd       forward
	code      int // of the origin's answer, where it is not the answer's own
	stored    bool
	collapsed bool
	ttl       int64 // with a hit only
	detail    string
	key       []byte // nil when it is not told
}

func (s *Stage) addStatus(f *message.Fields, st *status) {
	f.Begin(message.CacheStatus)
	f.Append(s.cfg.Name)
	if st.fwd == fwdNone {
		f.Append("; hit; ttl=")
		f.AppendInt(st.ttl)
	} else {
		f.Append("; fwd=")
		f.Append(forwardNames[st.fwd])
		if st.code != 0 {
			f.Append("; fwd-status=")
			f.AppendInt(int64(st.code))
		}
		if st.stored {
			f.Append("; stored")
		}
		if st.collapsed {
			f.Append("; collapsed")
		}
	}
	if st.key != nil {
		appendKey(f, st.key)
	}
	if st.detail != "" {
		f.Append("; detail=")
		f.Append(st.detail)
	}
	f.End()
}

// told is l's key for Cache-Status where the policy wants it, without the site, which is no client's business.
func (l *local) told() []byte {
	if !l.rule.tellsKey {
		return nil
	}
	_, key, _ := bytes.Cut(l.key, []byte{' '})
	return key
}

// appendKey appends the key as a String (RFC 9211 section 2.8, RFC 9651 section 3.3.3).
func appendKey(f *message.Fields, key []byte) {
	f.Append(`; key="`)
	for i, c := range key {
		switch {
		case c == '"' || c == '\\':
			f.Append("\\")
			f.AppendBytes(key[i : i+1])
		case c < 0x20 || c > 0x7e:
			f.Append("?")
		default:
			f.AppendBytes(key[i : i+1])
		}
	}
	f.Append(`"`)
}
