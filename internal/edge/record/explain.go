package record

import (
	"net/netip"
	"slices"
	"time"

	"github.com/relais-edge/relais/internal/stage"
)

// Explanation says what happened to one request, and why.
type Explanation struct {
	ID     string    `json:"id"`
	Time   time.Time `json:"time"`
	Client string    `json:"client"`
	// Country is where the client is, by the files of places, and ASN the number of the network.
	Country string  `json:"country,omitempty"`
	ASN     uint32  `json:"asn,omitempty"`
	Proto   string  `json:"proto"`
	Method  string  `json:"method"`
	Host    string  `json:"host"`
	Path    string  `json:"path"`
	Status  int     `json:"status"`
	Bytes   int64   `json:"bytes"`
	Millis  float64 `json:"ms"`
	// Revision is that of the documents in service when the request ended.
	Revision string `json:"revision,omitempty"`
	Site     string `json:"site,omitempty"`
	Route    string `json:"route,omitempty"`
	Visitor  string `json:"visitor"`
	// Score says how much like a program the visitor looks, 0 to 100; the decisions say why.
	Score  uint8  `json:"score,omitempty"`
	Bot    string `json:"bot,omitempty"` // the verified program that the visitor is
	JA4    string `json:"ja4,omitempty"` // fingerprint of its TLS
	Cache  string `json:"cache,omitempty"`
	Pool   string `json:"pool,omitempty"`
	Tier   string `json:"tier,omitempty"`
	Origin string `json:"origin,omitempty"`
	Tries  int    `json:"tries,omitempty"`
	Spill  string `json:"spill,omitempty"` // why it is not in the first tier, or in its basket's
	// Full is what became of the request when no tier had room: waited, stale, room or page.
	Full      string     `json:"full,omitempty"`
	Code      string     `json:"code,omitempty"`
	Side      string     `json:"side,omitempty"`
	Cause     string     `json:"cause,omitempty"`
	Abort     string     `json:"abort,omitempty"`
	Decisions []Decision `json:"decisions"`
	// Service is set for a connection or UDP session of a service; there is no method, path or status then.
	Service *Service `json:"service,omitempty"`
}

// Decision is what one stage decided, Millis after the request's head had come.
type Decision struct {
	Stage  string  `json:"stage"`
	Code   string  `json:"code"`
	Detail string  `json:"detail,omitempty"`
	Millis float64 `json:"ms"`
}

// Find explains the request with that id, if it is still in the ring.
func (r *Ring) Find(id stage.RequestID) (Explanation, bool) {
	for _, t := range []*track{&r.notable, &r.ordinary} {
		for i := range t.slots {
			s := &t.slots[i]
			s.mu.Lock()
			if s.used && s.id == id {
				e := r.explain(s)
				s.mu.Unlock()
				return e, true
			}
			s.mu.Unlock()
		}
	}
	return Explanation{}, false
}

// Last explains up to n requests, the newest first.
func (r *Ring) Last(n int) []Explanation {
	out := append(r.last(&r.notable, n), r.last(&r.ordinary, n)...)
	slices.SortStableFunc(out, func(a, b Explanation) int { return b.Time.Compare(a.Time) })
	return out[:min(n, len(out))]
}

func (r *Ring) last(t *track, n int) []Explanation {
	end := t.next.Load()
	out := make([]Explanation, 0, min(n, len(t.slots)))
	for i := uint64(1); i <= uint64(len(t.slots)) && i <= end && len(out) < n; i++ {
		s := &t.slots[(end-i)%uint64(len(t.slots))]
		s.mu.Lock()
		if s.used {
			out = append(out, r.explain(s))
		}
		s.mu.Unlock()
	}
	return out
}

// explain says what is known of a slot, and where its client is.
func (r *Ring) explain(s *slot) Explanation {
	e := s.explain()
	if r.where != nil {
		client := netip.AddrFrom16(s.client)
		e.Country, e.ASN = r.where(client.Unmap())
	}
	return e
}

func (s *slot) explain() Explanation {
	client := netip.AddrFrom16(s.client)
	if s.is4 {
		client = client.Unmap()
	}
	e := Explanation{
		ID: s.id.String(), Time: s.start, Client: client.String(), Proto: s.proto.String(),
		Method: string(s.text[:s.cut[0]]), Host: string(s.text[s.cut[0]:s.cut[1]]), Path: string(s.text[s.cut[1]:s.cut[2]]),
		Status: s.end.Status, Bytes: s.end.Body, Millis: millis(s.took), Revision: s.revision, Site: s.site, Route: s.route,
		Visitor: s.class.String(), Score: s.score, Bot: s.bot, JA4: s.ja4, Cache: s.cache, Pool: s.pool, Tier: s.tier, Origin: s.origin, Tries: s.tries, Spill: s.spill, Full: s.full,
	}
	if c := s.connection; c != nil {
		e.Proto, e.Code, e.Cause, e.Service = c.Proto, c.Code, c.Cause, c
	}
	if s.err != nil {
		e.Code, e.Side = s.err.Code, s.err.Side.String()
		if s.err.Err != nil {
			e.Cause = s.err.Err.Error()
		}
	}
	if s.end.Err != nil {
		e.Abort = s.end.Err.Error()
	}
	for _, m := range s.marks {
		e.Decisions = append(e.Decisions, Decision{m.Stage, m.Code, m.Detail, millis(m.At)})
	}
	return e
}

func millis(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
