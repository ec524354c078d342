package cache

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/relais-edge/relais/internal/edge/cache/store"
)

// Kinds of records. Under the hash of a key is an answer that is for all requests of its route, or a signpost: a
// generation and the selectors of the answers there are, each of which is a variant with a hash of its own. Who
// deletes the signpost deletes them all: the next one has another generation.
const (
	kindAnswer   = 1
	kindSignpost = 2
)

// maxSelectors bounds the selectors of a signpost, those of all routes together: each is a look-up.
const maxSelectors = 4

// variantID names a variant; each part begins with its length, so that no two have one name.
func variantID(dst []byte, generation uint64, route string, selector, selected []byte) []byte {
	dst = binary.LittleEndian.AppendUint64(dst, generation)
	dst = append(binary.AppendUvarint(dst, uint64(len(route))), route...)
	return appendBytes(appendBytes(dst, selector), selected)
}

// shelve stores an object as the newest for its requests, in the place of the one that was. Current is asked when
// that takes effect; false leaves all as it was.
func (s *Stage) shelve(h store.Hash, key []byte, o *object, current func() bool) error {
	variant, generation, needed := s.point(h, key, o, current)
	err := s.put(variant, key, o, current)
	if err == nil {
		s.noteVariant(h, key, o, generation, needed)
	}
	return err
}

// put writes the record of an object.
func (s *Stage) put(variant store.Hash, key []byte, o *object, current func() bool) error {
	m := store.Meta{Org: o.org, Hash: variant, Key: key, Head: appendHead(nil, o), Born: o.Came, Kind: kindAnswer}
	if o.hold != nil && o.hold.hash == variant && s.tiers.Rehead(m, func(head []byte) bool { return headID(head) == o.id }, current) {
		return nil
	}
	setHeadID(m.Head, rand.Uint64()|1)
	content := o.content()
	m.Length = content.length()
	w := s.tiers.Create(m)
	defer w.Abort()
	content.bufs = &s.blocks
	defer content.Close(nil)
	for len(content.rest) > 0 {
		p, err := content.Next(context.Background())
		if len(p) == 0 && err != nil {
			return err
		}
		w.Append(p)
	}
	return w.Commit(m.Length, current)
}

// content is all that is stored of the body.
func (o *object) content() *piecewise {
	b := &piecewise{hold: o.hold}
	switch {
	case o.headOnly:
	case len(o.parts) > 0:
		for i := range o.parts {
			if len(o.parts[i].data) > 0 {
				b.rest = append(b.rest, chunk{data: o.parts[i].data})
			}
		}
	case len(o.lay) > 0:
		b.rest = append(b.rest, chunk{n: o.stored()})
	case o.body != nil:
		if len(o.body) > 0 {
			b.rest = append(b.rest, chunk{data: o.body})
		}
	case o.length() > 0:
		b.rest = append(b.rest, chunk{n: o.length()})
	}
	return b
}

// point finds the place of an answer, and makes the signpost of its key name its selector where the key needs
// one: the answer has a selector, or another route's answer is there, or a signpost.
func (s *Stage) point(h store.Hash, key []byte, o *object, current func() bool) (variant store.Hash, generation uint64, needed bool) {
	var alone *object // is now one of several
	f := new(found)
	f.held.n.Store(1)
	defer f.held.release()
	// One at a time, and not while what is under the key is cleared: a signpost that is written after that
	// must not be of the old generation.
	mu := s.pointing(h)
	mu.Lock()
	defer func() {
		mu.Unlock()
		if alone != nil {
			_ = s.put(s.tiers.Derive(h, variantID(nil, generation, alone.route, alone.selector, alone.selected)), key, alone, current)
		}
	}()
	r := &f.held.ref
	var old signpost
	there := f.peek(s, h, key)
	if there && r.Kind() == kindSignpost {
		old.b = r.Head()
		there = old.open()
	} else if there {
		there = false
		route, err := f.object.decode(r.Head())
		f.object.route = string(route)
		if err == nil && !f.object.sameRequests(o) && f.lay(s, nil) {
			alone, f.object.org = &f.object, o.org
		}
		needed = alone != nil && alone.route != o.route
	}
	if !there && !needed && len(o.selector) == 0 {
		alone = nil
		return h, 0, false
	}
	generation = rand.Uint64()
	b := appendWay(appendSignpost(nil, generation), o.route, o.selector)
	if alone != nil {
		b = appendWay(b, alone.route, alone.selector)
	}
	isFirst := false
	if there {
		generation = old.generation
		b = appendWay(appendSignpost(nil, generation), o.route, o.selector)
		for n := 1; n < maxSelectors; {
			route, sel, ok := old.next()
			if !ok {
				break
			}
			if string(route) != o.route || !bytes.Equal(sel, o.selector) {
				b = appendWay(b, string(route), sel)
				n++
			} else if n == 1 {
				isFirst = true
			}
		}
	}
	variant = s.tiers.Derive(h, variantID(nil, generation, o.route, o.selector, o.selected))
	if isFirst {
		return variant, generation, true
	}
	w := s.tiers.Create(store.Meta{Org: o.org, Hash: h, Key: key, Head: b, Born: o.Came, Kind: kindSignpost})
	if w.Commit(0, current) != nil { // without it the variant is not found, which is a miss
		alone = nil
	}
	return variant, generation, true
}

// pointing is the lock of who changes the signpost of a key.
func (s *Stage) pointing(h store.Hash) *sync.Mutex { return &s.points[h.Index(len(s.points))] }

// signpostVersion is the version of a signpost's bytes: version 1, generation 8, and for each selector the route
// of its answers and itself, behind their lengths.
const signpostVersion = 1

func appendSignpost(dst []byte, generation uint64) []byte {
	return binary.LittleEndian.AppendUint64(append(dst, signpostVersion), generation)
}

func appendWay(dst []byte, route string, selector []byte) []byte {
	dst = append(binary.AppendUvarint(dst, uint64(len(route))), route...)
	return appendBytes(dst, selector)
}

// signpost reads a signpost.
type signpost struct {
	b          []byte
	generation uint64
	n          int
}

func (p *signpost) open() bool {
	if len(p.b) < 9 || p.b[0] != signpostVersion {
		return false
	}
	p.generation, p.b = binary.LittleEndian.Uint64(p.b[1:]), p.b[9:]
	return true
}

func (p *signpost) next() (route, selector []byte, ok bool) {
	if len(p.b) == 0 || p.n == maxSelectors {
		return nil, nil, false
	}
	p.n++
	r := headReader{b: p.b}
	route, selector = r.bytes(), r.bytes()
	p.b = r.b
	return route, selector, !r.bad
}

// same finds what is stored for the requests of o. Who calls lets the hold go, when it is not nil.
func (s *Stage) same(h store.Hash, key []byte, o *object) *object {
	f := new(found)
	f.held.n.Store(1)
	ok := f.peek(s, h, key)
	if ok && f.held.ref.Kind() == kindSignpost {
		p := signpost{b: f.held.ref.Head()}
		ok = p.open()
		variant := s.tiers.Derive(h, variantID(nil, p.generation, o.route, o.selector, o.selected))
		ok = ok && f.peek(s, variant, key)
	}
	if ok {
		p := &f.object
		route, err := p.decode(f.held.ref.Head())
		p.route = string(route)
		if err == nil && p.sameRequests(o) && f.lay(s, nil) {
			return p
		}
	}
	f.held.release()
	return nil
}

// soften gives what is stored in o's place a head that is stale since the soft purge of v.
func (s *Stage) soften(l *local, o *object, v softness) *object {
	c := o.copy()
	c.softened, c.Lifetime = v.number, v.life
	m := store.Meta{Org: l.rule.org, Hash: o.hold.hash, Key: l.key, Head: appendHead(nil, c), Born: o.Came, Kind: kindAnswer}
	// Only in the place of the head that was looked at: a newer one may be of another answer.
	was := bytes.Clone(o.hold.ref.Head())
	s.tiers.Rehead(m, func(head []byte) bool { return bytes.Equal(head, was) }, nil)
	return c
}

// softness is the number of a soft purge and the lifetime that ends with it.
type softness struct {
	number uint64
	life   time.Duration
}

// unkept says that an answer was to be stored and is not, by no fault of its own.
func unkept(err error) bool { return err != nil && !errors.Is(err, store.ErrOutdated) }
