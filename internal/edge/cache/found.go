package cache

import (
	"io"
	"sync"
	"sync/atomic"

	"github.com/relais-edge/relais/internal/edge/cache/purge"
	"github.com/relais-edge/relais/internal/edge/cache/semantics"
	"github.com/relais-edge/relais/internal/edge/cache/store"
	"github.com/relais-edge/relais/internal/edge/cache/store/segment"
	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/stage"
)

// hold is a record that is held. It is counted: an exchange and the flights that it began may need it longer
// than each other. The record's room is not used again before the last has let go.
type hold struct {
	ref  store.Ref
	post store.Ref // the signpost that led to it
	n    atomic.Int32
	own  *object    // that of the look-up
	hash store.Hash // of the record
	mu   sync.Mutex // of ref.ReadAt, which several may want
	bufs *sync.Pool
	buf  *[readBlock]byte // a small body that was read from a disk
}

// take holds it for one more. Who calls holds it already.
func (h *hold) take() { h.n.Add(1) }

// release lets go, and says whether nobody holds it any more.
func (h *hold) release() bool {
	if h.n.Add(-1) > 0 {
		return false
	}
	h.drop()
	return true
}

func (h *hold) drop() {
	h.ref.Release()
	h.post.Release()
	if h.buf != nil {
		h.bufs.Put(h.buf)
		h.buf = nil
	}
}

// readAt fills p with bytes of the record's body from off on.
func (h *hold) readAt(p []byte, off int64) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	n, err := h.ref.ReadAt(p, off)
	if n == len(p) {
		return n, nil
	}
	if err == nil || err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// file says where up to n bytes of the record's body from off on lie in a file.
func (h *hold) file(off, n int64, to *segment.Span) (bool, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.ref.File(off, n, to)
}

// sendsFiles says whether the kernel may send x's answer from a file.
func sendsFiles(x *stage.Exchange) bool {
	if x == nil || x.In == nil {
		return false
	}
	c, ok := x.In.Control.(message.FileSender)
	return ok && c.SendsFiles()
}

// found is an object that a look-up found, with the record that it lies in.
type found struct {
	object object
	held   hold
	id     []byte // of a variant
	hint   []byte // how the newest answer under the key varies, while something is held
	path   lookupPath
}

// open makes the object of the record that is held; false when it is not for x. Head says that one for HEAD will do.
func (f *found) open(s *Stage, x *stage.Exchange, head bool) bool {
	o := &f.object
	route, err := o.decode(f.held.ref.Head())
	if err != nil || string(route) != x.Route.Name || o.headOnly && !head {
		return false
	}
	o.route = x.Route.Name
	return f.lay(s, x)
}

// lay finds the body of the object, for x, which may be nil.
func (f *found) lay(s *Stage, x *stage.Exchange) bool {
	o, ref := &f.object, &f.held.ref
	f.held.own = o
	o.hold, o.enrolled, o.tags, o.org = &f.held, false, o.tags[:0], nil
	o.seen.Store(max(o.born, s.seen.get(o)))
	n := ref.Len()
	switch {
	case o.partial():
		return o.stored() == n
	case o.headOnly:
		return n == 0
	}
	o.size = n
	if p, ok := ref.Slice(0, n); ok {
		if int64(len(p)) == n {
			o.body = p
		}
		return true
	}
	if n > readBlock || n == 0 {
		return true
	}
	if n >= leastFile && sendsFiles(x) {
		var span segment.Span
		switch ok, err := f.held.file(0, n, &span); {
		case err != nil:
			return false
		case ok && int64(len(span.Lead))+span.Len == n:
			return true
		}
	}
	// A small one is read at once, so that damage is a miss and not an answer that breaks off.
	if f.held.buf == nil {
		f.held.bufs = &s.blocks
		f.held.buf = s.blocks.Get().(*[readBlock]byte)
	}
	b := f.held.buf[:n]
	if _, err := f.held.readAt(b, 0); err != nil {
		return false
	}
	o.body = b
	return true
}

// look holds the record under a hash and a key, for x unless it is a peek, which is no request.
func (f *found) look(s *Stage, x *stage.Exchange, h store.Hash, key []byte, peek bool) bool {
	if peek {
		return f.peek(s, h, key)
	}
	f.held.hash = h
	return s.tiers.Find(h, key, &f.held.ref, x)
}

func (f *found) peek(s *Stage, h store.Hash, key []byte) bool {
	f.held.hash = h
	return s.tiers.Peek(h, key, &f.held.ref)
}

// reuse returns what the exchange may put a look-up's result in; what it had is let go.
func (l *local) reuse(which **found) *found {
	f := *which
	if f != nil && f.held.n.Load() > 0 {
		if !f.held.release() {
			f = nil // a flight has it
		}
	}
	if f == nil {
		f = new(found)
		*which = f
	}
	f.held.n.Store(1)
	f.hint = nil
	return f
}

// End implements message.Ender: what was found is let go.
func (l *local) End(message.Outcome) {
	l.armed = false
	for _, which := range [...]**found{&l.found, &l.second} {
		if f := *which; f != nil && f.held.n.Load() > 0 && !f.held.release() {
			*which = nil
		}
	}
	for _, h := range l.more {
		h.release()
	}
	clear(l.more)
	l.more = l.more[:0]
}

// arm has what is found let go at the exchange's end.
func (l *local) arm(x *stage.Exchange) {
	if !l.armed {
		l.armed = true
		x.OnEnd(l)
	}
}

// keepHold holds a flight's record until the exchange's end.
func (l *local) keepHold(x *stage.Exchange, o *object) {
	if o.hold == nil {
		return
	}
	o.hold.take()
	l.more = append(l.more, o.hold)
	l.arm(x)
}

// find returns the newest object that is for x (RFC 9111 section 4.1), or nil, and what purges say of
// it: the verdict of one that is nil is why there is none. Seen says that something is under the key. The
// object is good until the exchange's end, or the next look-up into f.
func (s *Stage) find(l *local, x *stage.Exchange, f *found, peek bool) (o *object, why purge.Verdict, seen bool) {
	f.path = lookupPath{hash: l.hash, variant: l.hash, version: s.tiers.Version(l.hash)}
	if !f.look(s, x, l.hash, l.key, peek) {
		return nil, why, false
	}
	l.arm(x)
	if f.held.ref.Kind() != kindSignpost {
		if !peek {
			s.tiers.Use(l.rule.org, l.hash, &f.held.ref)
		}
		if !f.open(s, x, x.In.Method == message.HEAD) {
			return nil, why, true
		}
		f.hint, f.path.only = f.object.selector, true
		l.selected = semantics.AppendSelected(l.selected[:0], f.object.selector, &x.In.Fields)
		o, why = s.judge(l, x, f)
		return o, why, true
	}
	f.held.ref, f.held.post = f.held.post, f.held.ref
	return s.follow(l, x, f, peek)
}

// follow finds the newest of the variants that the signpost in f leads to (RFC 9111 section 4).
func (s *Stage) follow(l *local, x *stage.Exchange, f *found, peek bool) (o *object, why purge.Verdict, seen bool) {
	p := signpost{b: f.held.post.Head()}
	if !p.open() {
		return nil, why, true
	}
	first := p
	best, came, last, ways := -1, int64(0), -1, 0
	for i := 0; ; i++ {
		route, selector, ok := p.next()
		if !ok {
			break
		}
		if string(route) != x.Route.Name {
			continue
		}
		if ways++; f.hint == nil {
			f.hint = selector
		}
		got, v := s.variant(l, x, f, p.generation, selector, peek)
		if got != nil && (best < 0 || got.Came > came) {
			best, came = i, got.Came
		}
		if v.Hard > 0 {
			why = v
		}
		if o, last = got, i; got != nil {
			why = v
		}
	}
	if best < 0 {
		return nil, why, true
	}
	f.path.only = ways == 1
	if last == best {
		return o, why, true
	}
	for i := 0; ; i++ { // several fit, and another was looked at last
		if _, selector, ok := first.next(); !ok || i == best {
			o, why = s.variant(l, x, f, first.generation, selector, true)
			return o, why, true
		}
	}
}

// variant looks one up.
func (s *Stage) variant(l *local, x *stage.Exchange, f *found, generation uint64, selector []byte, peek bool) (*object, purge.Verdict) {
	l.selected = semantics.AppendSelected(l.selected[:0], selector, &x.In.Fields)
	f.id = variantID(f.id[:0], generation, x.Route.Name, selector, l.selected)
	f.path.variant = s.tiers.Derive(l.hash, f.id)
	f.path.versions = s.tiers.Version(f.path.variant)
	if !f.look(s, x, f.path.variant, l.key, peek) {
		return nil, purge.Verdict{}
	}
	if !peek {
		s.tiers.Use(l.rule.org, f.held.hash, &f.held.ref)
	}
	if !f.open(s, x, x.In.Method == message.HEAD) || string(f.object.selector) != string(selector) {
		return nil, purge.Verdict{}
	}
	return s.judge(l, x, f)
}

// judge says whether the object that was found is for x, of which l.selected is what it selects, and what purges say
// of it.
func (s *Stage) judge(l *local, x *stage.Exchange, f *found) (*object, purge.Verdict) {
	o := &f.object
	if string(l.selected) != string(o.selected) {
		return nil, purge.Verdict{}
	}
	m := l.rule.mark
	before := o.seen.Load()
	if o.born > s.purges.Last() {
		return nil, purge.Verdict{} // by the numbers of a log that is gone
	}
	if m.Last() <= before {
		return o, purge.Verdict{}
	}
	o.enrol(m, x)
	at := placeOf(x, l.key, l.aliased)
	v := purged(m, o, &at)
	if v.Hard > o.born {
		return nil, v
	}
	if now := o.seen.Load(); now > before {
		s.seen.put(o, now)
	}
	return o, v
}

// enrol hashes the tags and groups of an object that was found.
func (o *object) enrol(m *purge.Mark, x *stage.Exchange) {
	if o.enrolled || o.hold == nil {
		return
	}
	o.enrolled, o.tags = true, o.appendTags(o.tags[:0], m, x)
}

// appendTags appends the hashes of what is told of tags and groups as text.
func (o *object) appendTags(dst []uint64, m *purge.Mark, x *stage.Exchange) []uint64 {
	if o.fields.Has(message.CacheGroups) {
		dst = o.appendGroups(dst, m, x)
	}
	for i, start := 0, 0; i < len(o.names); i++ {
		if o.names[i] == '\n' {
			dst = append(dst, m.TagHash(o.names[start:i]))
			start = i + 1
		}
	}
	return dst
}

func (o *object) appendGroups(dst []uint64, m *purge.Mark, x *stage.Exchange) []uint64 {
	origin := appendOrigin(nil, x)[len(x.Site.Key)+1:]
	semantics.Groups(&o.fields, message.CacheGroups, func(name []byte) {
		dst = append(dst, m.GroupHash(origin, name), m.GroupHash(nil, name))
	})
	return dst
}

// seenSlots is a power of two.
const seenSlots = 1 << 14

// seenTable remembers, of records that were asked for of late, up to which purge none names them. A slot has two
// words that are written one after the other: what was torn between two writers says nothing.
type seenTable [seenSlots]struct{ key, seen atomic.Uint64 }

// seenKey is of one head of one body.
func (o *object) seenKey() uint64 {
	k := o.id ^ o.softened*0x9e3779b97f4a7c15 ^ o.born*0xc2b2ae3d27d4eb4f ^ uint64(o.Came)*0x165667b19e3779f9
	return k ^ k>>29
}

func (t *seenTable) get(o *object) uint64 {
	k := o.seenKey()
	e := &t[k%seenSlots]
	if n := e.seen.Load(); e.key.Load() == k^n {
		return n
	}
	return 0
}

func (t *seenTable) put(o *object, n uint64) {
	k := o.seenKey()
	e := &t[k%seenSlots]
	e.key.Store(k ^ n)
	e.seen.Store(n)
}
