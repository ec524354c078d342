package cache

import (
	"bytes"
	"sync/atomic"
	"time"

	"github.com/relais-edge/relais/internal/edge/cache/semantics"
	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/stage"
)

// complete makes of a 206 that holds what was missing, and of what is stored, the whole answer (RFC
// 9111 section 3.4). False says that they do not fit together.
func (fl *flight) complete(resp *message.Response, came time.Time) bool {
	o := fl.prior
	missing := o.missing()
	span, size, ok := semantics.ContentRange(&resp.Fields)
	if !ok || resp.Status != 206 || span != missing || size != o.size || !semantics.SameRepresentation(&resp.Fields, &o.fields, came) ||
		resp.ContentLength >= 0 && resp.ContentLength != span.Len() {
		return false
	}
	var merged, own message.Fields
	mergeFields(&merged, &own, &o.fields, &resp.Fields)
	if v := resp.Get(message.Age); v != nil {
		merged.Add(message.Age, v)
	}
	if !resp.Has(message.Date) {
		merged.Del(message.Date)
	}
	for i := range own.Len() {
		_, name, value := own.At(i)
		merged.AddLine(name, value)
	}
	b := &spliced{inner: resp.Body, left: span.Len()}
	if resp.Body == nil {
		b.inner, b.left = &piecewise{rest: []chunk{{data: resp.Bytes}}}, span.Len()
	}
	b.before.hold, b.before.bufs, b.after.hold, b.after.bufs = o.hold, &fl.s.blocks, o.hold, &fl.s.blocks
	if missing.First > 0 {
		b.before.rest = o.pieces(nil, semantics.Span{First: 0, Last: missing.First - 1})
	}
	if missing.Last < size-1 {
		b.after.rest = o.pieces(nil, semantics.Span{First: missing.Last + 1, Last: size - 1})
	}
	resp.Fields.CopyFrom(&merged)
	resp.Status, resp.ContentLength, resp.Bytes, resp.Body = 200, size, nil, b
	fl.completed = true
	return true
}

// withPart is what is stored once o, which has one part, is in the place of old, which may be nil; nil when it adds
// nothing. Last is the number of the last purge of the site: what may have been purged since it was stored is no
// part of anything.
func withPart(old, o *object, limit int64, last uint64) *object {
	if old == nil || old.headOnly || old.seen.Load() < min(last, o.born) || old.softened > 0 || old.status != 200 || old.length() != o.size ||
		!semantics.SameRepresentation(&old.fields, &o.fields, time.Unix(0, o.Came)) {
		return o
	}
	if !old.partial() {
		return nil
	}
	if old.stored()+o.stored() > limit {
		return o
	}
	parts, whole, ok := union(old, o)
	if !ok {
		return o
	}
	n := o.copy()
	var own message.Fields
	n.fields = message.Fields{}
	mergeFields(&n.fields, &own, &old.fields, &o.fields)
	n.parts, n.body = parts, whole
	if len(n.names) == 0 {
		n.names = bytes.Clone(old.names)
	}
	return n
}

// maxRanging is how many ranges of what is not stored go through at once, for one key. Those who come
// while so many are under way wait for one fetch of the whole.
const maxRanging = 4

// ranging counts them, by a part of the key's hash.
type ranging [1024]atomic.Int32

// enter says whether x's range may go through; then its end is counted too.
func (r *ranging) enter(l *local, x *stage.Exchange) bool {
	n := &r[l.hash.Index(len(r))]
	if n.Add(1) > maxRanging {
		n.Add(-1)
		return false
	}
	l.ranging.n = n
	x.OnEnd(&l.ranging)
	return true
}

// rangeEnd takes a range that went through off the count. It implements message.Ender.
type rangeEnd struct{ n *atomic.Int32 }

// End implements message.Ender.
func (r *rangeEnd) End(message.Outcome) { r.n.Add(-1) }
