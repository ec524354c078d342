package purge

import (
	"hash/maphash"
	"sync"
	"sync/atomic"
)

// Epochs know the last purge of everything that was purged, within a bound. Reading takes no lock and
// allocates nothing.
type Epochs struct {
	seed  maphash.Seed
	table atomic.Pointer[table]
	last  atomic.Uint64 // the number up to which purges are applied
	floor atomic.Uint64 // of the purges up to it nothing is known: what is older counts as purged
	wide  atomic.Uint64 // the last purge that is not of one site
	sites [siteSlots]siteMark

	mu         sync.Mutex // one writer at a time
	maxBuckets int
}

// siteSlots is how many sites are told apart before a look is taken into the table.
const siteSlots = 1 << 12

// siteMark says when anything of the sites of a slot was purged, and when it was by place and not by tag.
type siteMark struct{ any, places atomic.Uint64 }

// DefaultKeys is how many purged things are told apart, unless told otherwise.
const DefaultKeys = 1 << 20

// minBuckets is the size of a table that has not grown.
const minBuckets = 256

// NewEpochs returns epochs that tell about keys purged things apart, rounded up to a power of two; the
// memory for that, some 64 bytes each, is taken as it is needed.
func NewEpochs(keys int) *Epochs {
	e := &Epochs{seed: maphash.MakeSeed(), maxBuckets: minBuckets}
	for e.maxBuckets*ways/2 < keys {
		e.maxBuckets *= 2
	}
	e.table.Store(newTable(minBuckets))
	return e
}

// Last is the number up to which purges are applied. What is asked for from now on is younger.
func (e *Epochs) Last() uint64 { return e.last.Load() }

// Keys is how many purged things are told apart now.
func (e *Epochs) Keys() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.table.Load().used
}

// Begin says that nothing is known of the purges up to floor, and that those up to last are applied.
func (e *Epochs) Begin(floor, last uint64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.floor.Store(max(e.floor.Load(), floor))
	e.wide.Store(max(e.wide.Load(), floor))
	e.last.Store(max(e.last.Load(), last))
}

// Mark is a site's own place in the epochs.
type Mark struct {
	e    *Epochs
	m    *siteMark
	site string
	org  string
}

// Mark finds the place of a site. It outlives changes of the site.
func (e *Epochs) Mark(site string) *Mark {
	return &Mark{e: e, m: e.markOf(site), site: site, org: organization(site)}
}

func (e *Epochs) markOf(site string) *siteMark {
	return &e.sites[maphash.String(e.seed, site)%siteSlots]
}

// Apply makes a purge hold. Numbers rise from one to the next; at is its time in seconds since 1970.
// When it returns, whoever asks finds what it names dead or stale.
func (e *Epochs) Apply(p *Entry) {
	e.mu.Lock()
	defer e.mu.Unlock()
	v := Verdict{Hard: p.Number}
	if p.Soft {
		v = Verdict{Soft: p.Number, SoftAt: uint32(max(p.Time.Unix(), 0))}
	}
	e.set(e.hash(p.Kind, p.Site, p.Host, p.Value), v)
	if p.Kind == URL { // answers under a No-Vary-Search rule have no query of their own
		path := p.Value
		for i := range len(path) {
			if path[i] == '?' {
				path = path[:i]
				break
			}
		}
		e.set(e.hash(anyQuery, p.Site, p.Host, path), v)
	}
	switch p.Kind {
	case All, Organization:
		e.wide.Store(max(e.wide.Load(), p.Number))
	case Tag, Group:
		raise(&e.markOf(p.Site).any, p.Number)
	default:
		m := e.markOf(p.Site)
		raise(&m.places, p.Number)
		raise(&m.any, p.Number)
	}
	e.last.Store(max(e.last.Load(), p.Number))
}

func raise(n *atomic.Uint64, to uint64) { n.Store(max(n.Load(), to)) }

// anyQuery is the kind of the second hash of a URL.
const anyQuery = numKinds

func (e *Epochs) set(h uint64, v Verdict) {
	t := e.table.Load()
	// Grown at a quarter, one bucket in 270 has more than it holds.
	if t.used >= len(t.buckets)*ways/4 && len(t.buckets) < e.maxBuckets {
		t = t.grown()
		t.set(h, v)
		e.table.Store(t)
		return
	}
	t.set(h, v)
}

// hash begins with the site, so that no tenant's purge is another's.
func (e *Epochs) hash(k Kind, site, host, value string) uint64 {
	var h maphash.Hash
	h.SetSeed(e.seed)
	begin(&h, k, site)
	_, _ = h.WriteString(host)
	_ = h.WriteByte(0)
	if k == Prefix {
		value = trimSlashes(value)
	}
	_, _ = h.WriteString(value)
	return notZero(h.Sum64())
}

func begin(h *maphash.Hash, k Kind, site string) {
	_, _ = h.WriteString(site)
	_ = h.WriteByte(0)
	_ = h.WriteByte(byte(k))
}

func trimSlashes(s string) string {
	for len(s) > 0 && s[len(s)-1] == '/' {
		s = s[:len(s)-1]
	}
	return s
}

func notZero(h uint64) uint64 {
	if h == 0 {
		return 1
	}
	return h
}

// TagHash is what a stored answer keeps of a tag.
func (m *Mark) TagHash(tag []byte) uint64 { return m.hash(Tag, nil, tag) }

// GroupHash is what a stored answer keeps of a cache group of an origin.
func (m *Mark) GroupHash(origin, group []byte) uint64 { return m.hash(Group, origin, group) }

func (m *Mark) hash(k Kind, host, value []byte) uint64 {
	var h maphash.Hash
	h.SetSeed(m.e.seed)
	begin(&h, k, m.site)
	_, _ = h.Write(host)
	_ = h.WriteByte(0)
	_, _ = h.Write(value)
	return notZero(h.Sum64())
}

// Last is the number of the last purge that may concern the site.
func (m *Mark) Last() uint64 { return max(m.m.any.Load(), m.e.wide.Load()) }

// Since says whether there was a purge by place after the number.
func (m *Mark) Since(number uint64) bool {
	return m.m.places.Load() > number || m.e.wide.Load() > number
}

// Tags is the last purge of any of the hashes.
func (m *Mark) Tags(hashes []uint64) (v Verdict) {
	t := m.e.table.Load()
	for _, h := range hashes {
		v = v.And(t.last(h))
	}
	return v
}

// Place is where a request finds its answer.
type Place struct {
	Host, Path []byte // in their normal form
	Query      []byte // what counts of it, without ?
	// AnyQuery says that the answer is under a No-Vary-Search rule: it may be for several queries.
	AnyQuery bool
}

// Place is the last purge of a place: of everything, of the site, the host, the path, each prefix of it
// by path elements, and the URL.
func (m *Mark) Place(p *Place) Verdict {
	v := Verdict{Hard: m.e.floor.Load()}
	if m.e.wide.Load() > 0 {
		v = v.And(m.one(All, "")).And(m.one(Organization, m.org))
	}
	if m.m.places.Load() == 0 {
		return v
	}
	v = v.And(m.one(Site, m.site))
	v = v.And(m.e.table.Load().last(m.hash(Host, p.Host, nil)))
	v = m.under(v, p, nil)
	return m.under(v, p, p.Host)
}

func (m *Mark) one(k Kind, site string) Verdict {
	return m.e.table.Load().last(m.e.hash(k, site, "", ""))
}

// under looks at path, URL and prefixes with one way to write the host.
func (m *Mark) under(v Verdict, p *Place, host []byte) Verdict {
	t := m.e.table.Load()
	v = v.And(t.last(m.hash(Path, host, p.Path)))
	var h maphash.Hash
	h.SetSeed(m.e.seed)
	if p.AnyQuery {
		v = v.And(t.last(m.hash(anyQuery, host, p.Path)))
	} else {
		begin(&h, URL, m.site)
		_, _ = h.Write(host)
		_ = h.WriteByte(0)
		_, _ = h.Write(p.Path)
		if len(p.Query) > 0 {
			_ = h.WriteByte('?')
			_, _ = h.Write(p.Query)
		}
		v = v.And(t.last(notZero(h.Sum64())))
		h.Reset()
	}
	begin(&h, Prefix, m.site)
	_, _ = h.Write(host)
	_ = h.WriteByte(0)
	n, at := 0, 0
	for i := 0; i <= len(p.Path) && n <= MaxSegments; i++ {
		if i < len(p.Path) && p.Path[i] != '/' {
			continue
		}
		_, _ = h.Write(p.Path[at:i])
		at = i
		v = v.And(t.last(notZero(h.Sum64())))
		n++
	}
	return v
}
