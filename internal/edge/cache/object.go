package cache

import (
	"bytes"
	"errors"
	"sync/atomic"
	"time"

	"github.com/relais-edge/relais/internal/edge/cache/purge"
	"github.com/relais-edge/relais/internal/edge/cache/semantics"
	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/stage"
)

// object is a stored answer. It does not change once others can see it, except for retryAt.
type object struct {
	semantics.Life
	fields message.Fields
	status int
	body   []byte
	// parts are what is stored of a partial answer, in order; then size is the length of the whole.
	parts []piece
	size  int64 // of the whole, where it is not that of body; -1 when it is not known
	// headOnly says that it answers HEAD only.
	headOnly bool
	// tags are the hashes of its tags and cache groups, and names the tags as text (purge.Names).
	tags  []uint64
	names []byte
	// born is the number of the last purge when it was asked for, and softened that of the soft purge
	// which Lifetime obeys.
	born, softened uint64
	// seen is the number of a purge up to which none names it. A hint, as retryAt is.
	seen atomic.Uint64
	// route is the name of the route that asked for it: two routes of one site may lead the
	// same URI to different origins.
	route string
	// selector and selected say which requests it is for.
	selector, selected []byte
	older              *object // the next variant under the same key
	// retryAt is when the origin may be asked again after it failed to validate, in
	// nanoseconds since 1970. A hint, so that it may be lost when the object is copied.
	retryAt atomic.Int64
	// full says that it did not fail, but that there was no room.
	full atomic.Bool
}

// objectCost is what an object costs beside fields and body, fieldCost what a line does, and partCost
// what a part does beside its bytes.
const (
	objectCost = 640
	fieldCost  = 20
	partCost   = 32
)

// cost is an estimate of the object's memory in bytes, within the rounding of the allocator.
func (o *object) cost() int64 {
	n := objectCost + int64(o.fields.Size()+fieldCost*o.fields.Len()+cap(o.body)+len(o.selector)+len(o.selected)+8*len(o.tags)+len(o.names))
	for i := range o.parts {
		n += int64(cap(o.parts[i].data) + partCost)
	}
	return n
}

// length is that of the whole body; -1 when it is not known.
func (o *object) length() int64 {
	if o.headOnly || o.partial() {
		return o.size
	}
	return int64(len(o.body))
}

// takeContent makes the stored bytes of p those of o.
func (o *object) takeContent(p *object) {
	o.body, o.parts, o.size, o.headOnly = p.body, p.parts, p.size, p.headOnly
}

// variants is what is stored under one key. It does not change.
type variants struct {
	newest *object
	n      int
	cost   int64
	// search is what is kept under a path in place of objects.
	search *searchRule
	// passUntil says that answers under this key could not be stored, so that requests do not
	// wait for each other; in nanoseconds since 1970.
	passUntil int64
}

// setCost is what variants cost beside their objects.
const setCost = 32

// first is the newest object, or nil.
func (v *variants) first() *object {
	if v == nil {
		return nil
	}
	return v.newest
}

// find returns the newest object that is for x (RFC 9111 section 4.1), or nil, and what purges say of
// it: the verdict of one that is nil is why there is none.
func (s *Stage) find(l *local, v *variants, x *stage.Exchange) (*object, purge.Verdict) {
	var selector []byte
	var why purge.Verdict
	have := false
	m := l.rule.mark
	for o := v.newest; o != nil; o = o.older {
		if o.route != x.Route.Name || o.headOnly && x.In.Method != message.HEAD {
			continue
		}
		var verdict purge.Verdict
		if m.Last() > o.seen.Load() {
			at := placeOf(x, l.key, l.aliased)
			verdict = purged(m, o, &at)
		}
		if !have || !bytes.Equal(selector, o.selector) {
			selector, have = o.selector, true
			l.selected = semantics.AppendSelected(l.selected[:0], selector, &x.In.Fields)
		}
		if bytes.Equal(l.selected, o.selected) {
			if verdict.Hard <= o.born {
				return o, verdict
			}
			why = verdict
		}
	}
	return nil, why
}

// isFor says whether the object is for x.
func (o *object) isFor(l *local, x *stage.Exchange) bool {
	if o.route != x.Route.Name {
		return false
	}
	l.selected = semantics.AppendSelected(l.selected[:0], o.selector, &x.In.Fields)
	return bytes.Equal(l.selected, o.selected)
}

// with returns v with o as the newest, in the place of the one for the same requests, and at
// most limit objects. V may be nil.
func (v *variants) with(o *object, limit int) *variants {
	out := &variants{newest: o, n: 1, cost: setCost + o.cost()}
	if v != nil {
		out.keep(v.newest, o, limit)
	}
	return out
}

// without returns v without o, or nil when nothing is left.
func (v *variants) without(o *object, limit int) *variants {
	if v == nil {
		return nil
	}
	out := &variants{cost: setCost, passUntil: v.passUntil}
	out.keep(v.newest, o, limit)
	if out.n == 0 && out.passUntil == 0 {
		return nil
	}
	return out
}

// keep appends copies of the objects from first on that are not for the requests of o. The
// copies share fields and body.
func (v *variants) keep(first, o *object, limit int) {
	tail := &v.newest
	for *tail != nil {
		tail = &(*tail).older
	}
	for ; first != nil && v.n < limit; first = first.older {
		if first == o || first.sameRequests(o) {
			continue
		}
		c := first.copy()
		*tail, tail = c, &c.older
		v.n++
		v.cost += c.cost()
	}
}

// sameRequests says whether both objects are for the same requests.
func (o *object) sameRequests(p *object) bool {
	return o.route == p.route && bytes.Equal(o.selector, p.selector) && bytes.Equal(o.selected, p.selected)
}

func (o *object) copy() *object {
	c := &object{
		Life: o.Life, fields: o.fields, status: o.status,
		route: o.route, selector: o.selector, selected: o.selected,
		tags: o.tags, names: o.names, born: o.born, softened: o.softened,
	}
	c.takeContent(o)
	c.retryAt.Store(o.retryAt.Load())
	c.full.Store(o.full.Load())
	c.seen.Store(o.seen.Load())
	return c
}

// failed notes that the origin could not be asked; full, that this was for want of room.
func (o *object) failed(now time.Time, full bool) {
	o.full.Store(full)
	o.retryAt.Store(now.Add(retryAfter).UnixNano())
}

// standsIn says whether the whole answer may be used in the place of e (RFC 5861 section 4, RFC 9111 section
// 4.2.4). When no origin was asked for want of room one that is still fresh may be used as well: that the request
// prefers a validated one (RFC 9111 section 5.2.1.4) cannot be had.
func (o *object) standsIn(e *stage.Error, now time.Time) bool {
	if o == nil || o.partial() || e.Side == stage.SideClient || !semantics.ErrorStatus(e.Status) {
		return false
	}
	return o.spare(now) || errors.Is(e, stage.ErrFull) && o.standsInForRoom(now)
}

// standsInForRoom says whether the answer may be used while there is no room at any origin.
func (o *object) standsInForRoom(now time.Time) bool {
	return o != nil && !o.partial() && (o.spare(now) || !o.NoCache && o.Age(now) < o.Lifetime)
}

// spare says whether the answer may be used stale while no origin can be asked.
func (o *object) spare(now time.Time) bool { return o.UsableOnError(now) || o.UsableDisconnected(now) }

// resting says whether the origin failed only just now.
func (o *object) resting(now time.Time) bool { return now.UnixNano() < o.retryAt.Load() }

// fieldsOf puts the lines of an answer that may be stored into kept, and those that only its
// own client gets into own: fields that a no-cache or private names (RFC 9111 sections
// 5.2.2.4, 5.2.2.7). A missing or wrong Date is set to when the answer came (RFC 9110 section 6.6.1).
func fieldsOf(kept, own, src *message.Fields, c *semantics.Control, came time.Time) {
	kept.Reset()
	own.Reset()
	for i := range src.Len() {
		id, name, value := src.At(i)
		switch {
		case !semantics.Kept(src, id, name):
		case c.Has(semantics.FieldLists) && c.Restricted(src, name):
			own.AddLine(name, value)
		default:
			kept.AddLine(name, value)
		}
	}
	if _, ok := semantics.ParseDate(kept.Get(message.Date), came); !ok {
		var buf [32]byte
		kept.Set(message.Date, semantics.AppendDate(buf[:0], came))
	}
}

// mergeFields makes dst the fields of old as a 304, or a 200 to HEAD, updates them (RFC 9111
// section 3.2). Set-Cookie goes to own when the stored answer has none: it is for one client.
func mergeFields(dst, own, old, fresh *message.Fields) {
	dst.Reset()
	for i := range old.Len() {
		id, name, value := old.At(i)
		if !updated(fresh, id, name) {
			dst.AddLine(name, value)
		}
	}
	cookies := old.Has(message.SetCookie)
	for i := range fresh.Len() {
		id, name, value := fresh.At(i)
		switch {
		case !semantics.Updates(fresh, id, name):
		case id == message.SetCookie && !cookies:
			own.AddLine(name, value)
		default:
			dst.AddLine(name, value)
		}
	}
}

// updated says whether fresh has a line that takes the place of the named field.
func updated(fresh *message.Fields, id message.ID, name []byte) bool {
	if id != message.Other {
		return fresh.Has(id) && semantics.Updates(fresh, id, name)
	}
	for i := range fresh.Len() {
		fid, n, _ := fresh.At(i)
		if fid == message.Other && len(n) == len(name) && bytes.EqualFold(n, name) {
			return semantics.Updates(fresh, id, name)
		}
	}
	return false
}
