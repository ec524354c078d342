package cache

import (
	"bytes"
	"errors"
	"sync/atomic"
	"time"

	"github.com/relais-edge/relais/internal/edge/cache/semantics"
	"github.com/relais-edge/relais/internal/edge/cache/store"
	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/stage"
)

// object is an answer that is stored or will be. It does not change once others can see it. One that was
// found lies in the record that it holds, and is used again once nobody needs that.
type object struct {
	semantics.Life
	fields message.Fields
	status int
	// body is the whole body where it is in one piece of memory; else the record has it.
	body []byte
	// parts are what is stored of a partial answer, in order, and lay where they are in a record; then
	// size is the length of the whole.
	parts []piece
	lay   []stretch
	size  int64 // of the whole, where it is not that of body; -1 when it is not known
	hold  *hold // the record that it lies in; nil when it is not stored
	// headOnly says that it answers HEAD only.
	headOnly bool
	// tags are the hashes of its tags and cache groups, and names the tags as text (purge.Names). Of one that was
	// found tags are there once enrolled says so.
	tags     []uint64
	names    []byte
	enrolled bool
	// born is the number of the last purge when it was asked for, and softened that of the soft purge
	// which Lifetime obeys.
	born, softened uint64
	// seen is the number of a purge up to which none names it. A hint.
	seen atomic.Uint64
	// route is the name of the route that asked for it: two routes of one site may lead the
	// same URI to different origins.
	route string
	// selector and selected say which requests it is for.
	selector, selected []byte
	org                *store.Org // whose it is
	// id is of its body: a record that was given another head has the id that it had.
	id uint64
}

// length is that of the whole body; -1 when it is not known.
func (o *object) length() int64 {
	if o.headOnly || o.partial() || o.hold != nil {
		return o.size
	}
	return int64(len(o.body))
}

// takeContent makes the stored bytes of p those of o.
func (o *object) takeContent(p *object) {
	o.body, o.parts, o.lay, o.size, o.hold, o.headOnly, o.id = p.body, p.parts, p.lay, p.size, p.hold, p.headOnly, p.id
}

// isFor says whether the object is for x.
func (o *object) isFor(l *local, x *stage.Exchange) bool {
	if o.route != x.Route.Name {
		return false
	}
	l.selected = semantics.AppendSelected(l.selected[:0], o.selector, &x.In.Fields)
	return bytes.Equal(l.selected, o.selected)
}

// sameRequests says whether both objects are for the same requests.
func (o *object) sameRequests(p *object) bool {
	return o.route == p.route && bytes.Equal(o.selector, p.selector) && bytes.Equal(o.selected, p.selected)
}

func (o *object) copy() *object {
	c := &object{
		Life: o.Life, fields: o.fields, status: o.status, org: o.org,
		route: o.route, selector: o.selector, selected: o.selected,
		tags: o.tags, names: o.names, enrolled: o.enrolled, born: o.born, softened: o.softened,
	}
	c.takeContent(o)
	c.seen.Store(o.seen.Load())
	return c
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
