package cache

import (
	"time"

	"github.com/relais-edge/relais/internal/edge/cache/purge"
	"github.com/relais-edge/relais/internal/edge/cache/semantics"
	"github.com/relais-edge/relais/internal/edge/cache/store"
	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/stage"
)

// Stored is an answer that is stored, for people. Times are in seconds.
type Stored struct {
	State string `json:"state"` // fresh, stale, purged, or purged softly
	// For says which requests it is for, beside its URL and route.
	For      []string  `json:"for,omitempty"`
	Route    string    `json:"route"`
	Status   int       `json:"status"`
	HeadOnly bool      `json:"headOnly,omitempty"`
	Came     time.Time `json:"came"`
	Age      float64   `json:"age"`
	Lifetime float64   `json:"lifetime"`
	// How long it may be used stale while it is validated, and in the place of an error.
	While    float64 `json:"staleWhileRevalidate,omitempty"`
	IfError  float64 `json:"staleIfError,omitempty"`
	Validate bool    `json:"validateAlways,omitempty"` // never used without asking
	NoStale  bool    `json:"noStale,omitempty"`
	// Size of the body, of which Kept bytes are there; -1 when it is not known.
	Size int64 `json:"size"`
	Kept int64 `json:"kept"`
	// Born is the number of the last purge when it was asked for.
	Born   uint64       `json:"born"`
	Tags   []string     `json:"tags,omitempty"`
	Groups string       `json:"cacheGroups,omitempty"`
	Purge  *purge.Entry `json:"purge,omitempty"` // that ended it
	Type   string       `json:"contentType,omitempty"`
	Coding string       `json:"contentEncoding,omitempty"`
	ETag   string       `json:"etag,omitempty"`
	Used   bool         `json:"used,omitempty"` // by the request that was asked about
}

// Under is what is stored under one key.
type Under struct {
	Key string `json:"key"` // without the site
	// Rule is the No-Vary-Search rule by which the key was made, when it was.
	Rule string `json:"noVarySearch,omitempty"`
	// Pass is until when requests do not wait for each other, as an answer could not be stored.
	Pass     *time.Time `json:"passUntil,omitempty"`
	Fetching int        `json:"fetching,omitempty"` // fetches under way
	// Hits of the last five to ten minutes, by an estimate, when it is among the keys asked for most.
	Hits     *int64   `json:"hits,omitempty"`
	Variants []Stored `json:"variants"`
}

// Inspection is what is stored under a URL.
type Inspection struct {
	Site   string  `json:"site"`
	Route  string  `json:"route"`
	Policy string  `json:"policy,omitempty"` // empty where the route stores nothing
	Keys   []Under `json:"keys"`
}

// Inspect tells what is stored for the target of x, for whichever request, after the route was found.
func (s *Stage) Inspect(x *stage.Exchange) *Inspection {
	out := &Inspection{Site: string(x.Site.Key), Route: x.Route.Name, Keys: []Under{}}
	r := s.ruleFor(x)
	if r == nil {
		return out
	}
	out.Policy = r.name
	l := s.probe(x, r)
	if u := s.under(l, x); u != nil {
		out.Keys = append(out.Keys, *u)
	}
	if s.alias(l, x) {
		if u := s.under(l, x); u != nil {
			u.Rule = s.ruleText(x)
			out.Keys = append(out.Keys, *u)
		}
	}
	return out
}

func (s *Stage) ruleText(x *stage.Exchange) string {
	if r, _ := s.searchOf(nil, x, x.In.Path()); r != nil {
		return r.text
	}
	return ""
}

func (s *Stage) ruleFor(x *stage.Exchange) *rule {
	if p := s.partOf(x); p != nil {
		return p.ruleOf(x)
	}
	return nil
}

// probe makes ready to look x up, as Serve does.
func (s *Stage) probe(x *stage.Exchange, r *rule) *local {
	l := &local{rule: r, now: s.cfg.Clock(), born: s.purges.Last()}
	l.control = semantics.ParseRequest(x.In)
	r.normal.apply(&x.In.Fields, x.Visitor.Background)
	l.key = r.append(nil, x)
	l.hash = s.tiers.HashOf(l.key)
	return l
}

// under describes what is under l's key; nil when there is nothing.
func (s *Stage) under(l *local, x *stage.Exchange) *Under {
	_, key := splitKey(l.key)
	u := &Under{Key: key, Variants: []Stored{}}
	if n, ok := s.top.hitsOf(l.key); ok {
		u.Hits = &n
	}
	s.mu.Lock()
	for fl := s.flights[l.hash]; fl != nil; fl = fl.next {
		u.Fetching++
	}
	s.mu.Unlock()
	if until := s.passUntil(l.hash, l.key); until > l.now.UnixNano() {
		at := time.Unix(0, until)
		u.Pass = &at
	}
	s.eachStored(l, x, func(o *object) bool {
		u.Variants = append(u.Variants, s.stored(l, x, o))
		return true
	})
	if len(u.Variants) == 0 && u.Fetching == 0 && u.Pass == nil {
		return nil
	}
	return u
}

// eachStored calls f, until that says false, with what is stored under l's key, as far as it is known by name: the
// answer that is for all, the variants that were stored of late, and the one that is for x. An object is good during
// the call.
func (s *Stage) eachStored(l *local, x *stage.Exchange, f func(o *object) bool) {
	told := map[store.Hash]bool{}
	more := true
	tell := func(h store.Hash, route string) {
		v := new(found)
		v.held.n.Store(1)
		defer v.held.release()
		if !more || told[h] || !v.peek(s, h, l.key) || v.held.ref.Kind() == kindSignpost {
			return
		}
		told[h] = true
		in, err := v.object.decode(v.held.ref.Head())
		if v.object.route = string(in); err == nil && (route == "" || route == v.object.route) && v.lay(s, nil) {
			v.object.enrol(l.rule.mark, x)
			more = f(&v.object)
		}
	}
	if n := s.notes.Get(l.hash, l.key); n != nil {
		for i := range n.variants {
			tell(n.variants[i].hash, n.variants[i].route)
		}
	}
	tell(l.hash, "")
	var r store.Ref
	defer r.Release()
	if !s.tiers.Peek(l.hash, l.key, &r) || r.Kind() != kindSignpost {
		return
	}
	p := signpost{b: r.Head()}
	for ok := p.open(); ok; {
		var selector []byte
		if _, selector, ok = p.next(); ok {
			l.selected = semantics.AppendSelected(l.selected[:0], selector, &x.In.Fields)
			tell(s.tiers.Derive(l.hash, variantID(nil, p.generation, x.Route.Name, selector, l.selected)), "")
		}
	}
}

func (s *Stage) stored(l *local, x *stage.Exchange, o *object) Stored {
	out := Stored{
		State: "stale", For: semantics.Describe(o.selector, o.selected), Route: o.route, Status: o.status, HeadOnly: o.headOnly,
		Came: time.Unix(0, o.Came), Age: o.Age(l.now).Seconds(), Lifetime: o.Lifetime.Seconds(), While: o.While.Seconds(), IfError: o.Err.Seconds(),
		Validate: o.NoCache, NoStale: o.NoStale, Size: o.length(), Kept: o.length(), Born: o.born,
		Groups: string(o.fields.Get(message.CacheGroups)), Type: string(o.fields.Get(message.ContentType)),
		Coding: string(o.fields.Get(message.ContentEncoding)), ETag: string(o.fields.Get(message.ETag)),
	}
	switch {
	case o.partial():
		out.Kept = o.stored()
	case o.headOnly:
		out.Kept = 0
	}
	for name := range purge.Names(o.names) {
		out.Tags = append(out.Tags, string(name))
	}
	if o.Age(l.now) < o.Lifetime && !o.NoCache {
		out.State = "fresh"
	}
	at := placeOf(x, l.key, l.aliased)
	switch v := purged(l.rule.mark, o, &at); {
	case v.Hard > o.born:
		out.State, out.Purge = "purged", s.entry(v.Hard)
	case v.Soft > 0:
		out.State, out.Purge = "purged softly", s.entry(v.Soft)
	case o.softened > 0:
		out.State, out.Purge = "purged softly", s.entry(o.softened)
	}
	return out
}

// entry finds a purge in the log. One that is no longer there stands for all before it.
func (s *Stage) entry(number uint64) *purge.Entry {
	if list, err := s.cfg.Purges.After(number-1, 1); err == nil && len(list) == 1 && list[0].Number == number {
		return &list[0]
	}
	return &purge.Entry{Number: number}
}
