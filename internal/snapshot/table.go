package snapshot

import (
	"hash/maphash"
	"maps"
	"strings"
	"sync/atomic"

	"github.com/relais-edge/relais/internal/bundle"
)

// shards is how many parts a table has, so that a change of one site copies a small part of it.
const shards = 256

// maxHost is the length of the longest host name (RFC 1035 section 2.3.4).
const maxHost = 253

// Table finds the site of a host. It does not change; With and Without make another that shares all
// that stayed the same.
type Table struct {
	seed  maphash.Seed
	m     Materialiser
	hosts [shards]map[string]*binding // exact names, and .name for *.name
	keys  [shards]map[bundle.Key]*Entry
	any   *binding // for *
	wild  int      // how many wildcard names there are
	sites int
}

// binding is a site that has a host on some listeners. It does not change.
type binding struct {
	entry *Entry
	next  *binding // another site with the same host on other listeners
}

// Build makes a table of the bundle's sites. A site whose compiled form is the same in old, which may be
// nil, is taken over as it is, running or not; one that changed gets the state of the one before when it
// is first asked for. The materialiser is the same for the life of a process. Build reads the bundle's
// sites later too: they must not be changed.
func Build(b *bundle.Bundle, old *Table, m Materialiser) *Table {
	t := &Table{seed: maphash.MakeSeed(), m: m}
	if old != nil {
		t.seed = old.seed
	}
	for i := range shards {
		t.hosts[i] = make(map[string]*binding, 2*len(b.Sites)/shards)
		t.keys[i] = make(map[bundle.Key]*Entry, len(b.Sites)/shards)
	}
	known := comparer{}
	for _, s := range b.Sites {
		before := old.entry(s.Key)
		e := before
		if before == nil || !known.sites(before.spec, s) {
			e = newEntry(s, m, before)
		}
		t.keys[t.keyShard(s.Key)][s.Key] = e
		t.sites++
		for _, h := range s.Hostnames {
			t.bind(h, e)
		}
	}
	return t
}

// Sites gives the number of sites.
func (t *Table) Sites() int { return t.sites }

// Entry finds a site by its key; nil when there is none.
func (t *Table) Entry(key bundle.Key) *Entry { return t.entry(key) }

func (t *Table) entry(key bundle.Key) *Entry {
	if t == nil {
		return nil
	}
	return t.keys[t.keyShard(key)][key]
}

// Entries yields every site, in no order.
func (t *Table) Entries() func(yield func(*Entry) bool) {
	return func(yield func(*Entry) bool) {
		for _, shard := range t.keys {
			for _, e := range shard {
				if !yield(e) {
					return
				}
			}
		}
	}
}

// Lookup finds the site that serves a host on a listener: the one with the exact name, else the one with
// the longest wildcard above it, else the one for every host; nil when there is none. The host is in
// lower case, without a port and without a last dot. It allocates nothing, and what it costs depends on
// the number of labels, not of sites.
func (t *Table) Lookup(host []byte, listener bundle.Key) *Entry {
	if len(host) > maxHost || len(host) > 0 && host[0] == '.' {
		return t.any.on(listener)
	}
	if b := t.hosts[t.hostShard(host)][string(host)]; b != nil {
		if e := b.on(listener); e != nil {
			return e
		}
	}
	if t.wild > 0 {
		for i, c := range host {
			if c != '.' || i == 0 {
				continue
			}
			if b := t.hosts[t.hostShard(host[i:])][string(host[i:])]; b != nil {
				if e := b.on(listener); e != nil {
					return e
				}
			}
		}
	}
	return t.any.on(listener)
}

// on finds the binding's site that a listener serves.
func (b *binding) on(listener bundle.Key) *Entry {
	for ; b != nil; b = b.next {
		if len(b.entry.spec.Listeners) == 0 {
			return b.entry
		}
		for _, l := range b.entry.spec.Listeners {
			if l == listener {
				return b.entry
			}
		}
	}
	return nil
}

// With gives a table in which the site stands in the place of the one with its key, if there is one.
// A site whose compiled form is the same gives the same table.
func (t *Table) With(site *bundle.Site) *Table {
	before := t.entry(site.Key)
	if before != nil && (comparer{}).sites(before.spec, site) {
		return t
	}
	n, w := t.writer()
	if before != nil {
		w.remove(before)
	}
	w.put(newEntry(site, t.m, before))
	return n
}

// Without gives a table without the site of a key.
func (t *Table) Without(key bundle.Key) *Table {
	before := t.entry(key)
	if before == nil {
		return t
	}
	n, w := t.writer()
	w.remove(before)
	return n
}

// writer changes a new table, copying each shard before the first change.
type writer struct {
	t           *Table
	hosts, keys [shards]bool // which are copies
}

func (t *Table) writer() (*Table, *writer) {
	n := *t
	return &n, &writer{t: &n}
}

func (w *writer) host(name string) {
	if i := w.t.hostShard([]byte(hostKey(name))); !w.hosts[i] {
		w.t.hosts[i], w.hosts[i] = maps.Clone(w.t.hosts[i]), true
	}
}

func (w *writer) key(k bundle.Key) map[bundle.Key]*Entry {
	i := w.t.keyShard(k)
	if !w.keys[i] {
		w.t.keys[i], w.keys[i] = maps.Clone(w.t.keys[i]), true
	}
	return w.t.keys[i]
}

func (w *writer) put(e *Entry) {
	w.key(e.spec.Key)[e.spec.Key] = e
	w.t.sites++
	for _, h := range e.spec.Hostnames {
		w.host(h)
		w.t.bind(h, e)
	}
}

func (w *writer) remove(e *Entry) {
	delete(w.key(e.spec.Key), e.spec.Key)
	w.t.sites--
	for _, h := range e.spec.Hostnames {
		w.host(h)
		w.t.unbind(h, e)
	}
}

// hostKey is the name under which a host stands in the shards: .name for *.name.
func hostKey(name string) string { return strings.TrimPrefix(name, "*") }

// bind adds a site to a host's shard, which belongs to this table alone.
func (t *Table) bind(name string, e *Entry) {
	if name == "*" {
		t.any = &binding{e, t.any}
		return
	}
	k := hostKey(name)
	shard := t.hosts[t.hostShard([]byte(k))]
	shard[k] = &binding{e, shard[k]}
	if k != name {
		t.wild++
	}
}

func (t *Table) unbind(name string, e *Entry) {
	if name == "*" {
		t.any = t.any.without(e)
		return
	}
	k := hostKey(name)
	shard := t.hosts[t.hostShard([]byte(k))]
	if b := shard[k].without(e); b != nil {
		shard[k] = b
	} else {
		delete(shard, k)
	}
	if k != name {
		t.wild--
	}
}

// without gives the list without the bindings of a site. The list itself stays, as others read it.
func (b *binding) without(e *Entry) *binding {
	if b == nil {
		return nil
	}
	rest := b.next.without(e)
	if b.entry == e {
		return rest
	}
	return &binding{b.entry, rest}
}

func (t *Table) hostShard(host []byte) int { return int(maphash.Bytes(t.seed, host) % shards) }

func (t *Table) keyShard(k bundle.Key) int { return int(maphash.String(t.seed, string(k)) % shards) }

// Current is the table in use.
type Current struct{ p atomic.Pointer[Table] }

// Load gives the table; nil before the first Swap.
func (c *Current) Load() *Table { return c.p.Load() }

// Swap puts a table into use and gives the one before.
func (c *Current) Swap(t *Table) *Table { return c.p.Swap(t) }
