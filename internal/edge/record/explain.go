package record

import (
	"net/netip"
	"slices"
	"time"

	"github.com/relais-edge/relais/internal/stage"
)

// Explanation says what happened to one request, and why.
type Explanation struct {
	ID      string    `json:"id"`
	Time    time.Time `json:"time"`
	Client  string    `json:"client"`
	Proto   string    `json:"proto"`
	Method  string    `json:"method"`
	Host    string    `json:"host"`
	Path    string    `json:"path"`
	Status  int       `json:"status"`
	Bytes   int64     `json:"bytes"`
	Millis  float64   `json:"ms"`
	Site    string    `json:"site,omitempty"`
	Route   string    `json:"route,omitempty"`
	Visitor string    `json:"visitor"`
	Cache   string    `json:"cache,omitempty"`
	Pool    string    `json:"pool,omitempty"`
	Tier    string    `json:"tier,omitempty"`
	Origin  string    `json:"origin,omitempty"`
	Tries   int       `json:"tries,omitempty"`
	Spill   string    `json:"spill,omitempty"` // why it is not in the first tier, or in its basket's
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
				e := s.explain()
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
	out := append(r.notable.last(n), r.ordinary.last(n)...)
	slices.SortStableFunc(out, func(a, b Explanation) int { return b.Time.Compare(a.Time) })
	return out[:min(n, len(out))]
}

func (t *track) last(n int) []Explanation {
	end := t.next.Load()
	out := make([]Explanation, 0, min(n, len(t.slots)))
	for i := uint64(1); i <= uint64(len(t.slots)) && i <= end && len(out) < n; i++ {
		s := &t.slots[(end-i)%uint64(len(t.slots))]
		s.mu.Lock()
		if s.used {
			out = append(out, s.explain())
		}
		s.mu.Unlock()
	}
	return out
}

func (s *slot) explain() Explanation {
	client := netip.AddrFrom16(s.client)
	if s.is4 {
		client = client.Unmap()
	}
	e := Explanation{
		ID: s.id.String(), Time: s.start, Client: client.String(), Proto: s.proto.String(),
		Method: string(s.text[:s.cut[0]]), Host: string(s.text[s.cut[0]:s.cut[1]]), Path: string(s.text[s.cut[1]:s.cut[2]]),
		Status: s.end.Status, Bytes: s.end.Body, Millis: millis(s.took), Site: s.site, Route: s.route,
		Visitor: s.class.String(), Cache: s.cache, Pool: s.pool, Tier: s.tier, Origin: s.origin, Tries: s.tries, Spill: s.spill, Full: s.full,
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
