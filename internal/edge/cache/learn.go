package cache

import (
	"hash/maphash"
	"math"
	"math/bits"
	"sync"
	"sync/atomic"
	"time"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/observe"
	"github.com/relais-edge/relais/internal/stage"
)

// Bounds of what is learned of parameters. Those with Edge are of all policies together.
const (
	maxPaths      = 512  // of a policy; beyond, one of them goes
	maxPathsEdge  = 4096 // beyond, a policy has no more than it has
	maxNames      = 128
	maxNamesEdge  = 16384
	maxEchoes     = 32
	maxLearners   = 1 << 17
	maxCompared   = 12 // parameters of a query; one with more is not looked at
	maxName       = 64 // bytes of a parameter's name
	maxExample    = 64 // bytes of a value, and of a path, that are told
	comparedWhile = 5 * time.Minute
)

// learner holds what is learned, by policy of a site. It outlives changes of the site.
type learner struct {
	seed         maphash.Seed
	bounded      observe.Counter // what was not compared, as a bound is reached
	paths, names atomic.Int64
	mu           sync.Mutex
	all          map[string]*learned
}

// of finds what is learned of a policy; nil when there are too many policies.
func (l *learner) of(site, policy string, began time.Time, stats *siteState) *learned {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.all == nil {
		l.all = map[string]*learned{}
	}
	key := site + " " + policy
	d := l.all[key]
	if d == nil && len(l.all) < maxLearners {
		d = &learned{l: l, site: site, policy: policy, began: began, stats: stats}
		d.good, d.looked = stats.looked()
		l.all[key] = d
	} else if d == nil {
		l.bounded.Inc()
	}
	return d
}

// learned is what the traffic of a policy says of its parameters: two answers of one path, whose requests differ in
// some parameters only, are the same or are not. Nothing is ever applied by itself.
type learned struct {
	l            *learner
	site, policy string
	stats        *siteState
	key          atomic.Pointer[v1.CacheKey] // the policy's

	mu           sync.Mutex
	began        time.Time
	good, looked int64 // of the site, when this began
	paths        map[uint64]*seenPath
	names        map[uint64]*seenName // by the hash of the name, so that an answer does not hold what was given up
	echoes       []Echo
	// spare counts fetches that brought what an answer that was still fresh had: they would have been hits
	// without the parameters in which they differ, of which nothing speaks against any.
	spare int64
}

// seenPath are the last answers of a path, of one kind.
type seenPath struct {
	at   [4]witness
	next int
	// unsteady says that one URL had two answers within the time for which they are compared: the path tells nothing.
	unsteady bool
}

// witness is an answer: the parameters of its request, what it was, and until when it is compared.
type witness struct {
	n            int
	names        [maxCompared]uint64
	values       [maxCompared]uint64
	body         uint64
	until, since int64
}

// seenName is what is known of a parameter.
type seenName struct {
	name          string
	values, paths sketch
	same          int64 // pairs of answers that are the same though it differs
	mixed         int64 // pairs that differ, and in more than it
	spare, alone  int64 // fetches that it alone, or with others, made necessary
	against       int64 // pairs of answers that differ, and in nothing else than it
	// The first that spoke against it: its path, and the value there.
	path, b string
}

// sketch counts different things, by linear counting (Whang et al., 1990).
type sketch [4]uint64

func (s *sketch) add(h uint64) { s[h>>40&3] |= 1 << (h >> 32 & 63) }

func (s *sketch) count() int {
	zero := 256
	for _, w := range s {
		zero -= bits.OnesCount64(w)
	}
	return int(math.Round(-256 * math.Log(max(float64(zero), 1)/256)))
}

// note compares an answer to x that is about to be stored with those of the same path and variant.
func (d *learned) note(x *stage.Exchange, o *object, w *watch, now time.Time) {
	query := x.Query()
	if d == nil || !w.whole || !d.mu.TryLock() {
		return // rather than wait: it is a sample
	}
	defer d.mu.Unlock()
	at := d.pathOf(x, o, len(query) > 0)
	if at == nil {
		if len(query) > 0 {
			d.l.bounded.Inc()
		}
		return
	}
	var e witness
	if !d.read(&e, query) {
		d.l.bounded.Inc()
		return
	}
	e.body, e.since = w.sum.Sum64(), now.UnixNano()
	e.until = now.Add(min(o.Lifetime-o.Age(now), comparedWhile)).UnixNano()
	fresh := false
	for i := range at.at {
		if p := &at.at[i]; p.since > 0 && p.until >= e.since {
			same := d.compare(at, p, &e, x)
			if same && !fresh {
				d.count(p, &e)
			}
			fresh = fresh || same
		}
	}
	for i := range at.at {
		if differing(&at.at[i], &e, nil) == 0 {
			at.at[i] = e
			return
		}
	}
	at.at[at.next] = e
	at.next = (at.next + 1) % len(at.at)
}

// pathOf finds the path of x. One is begun by a request with a query.
func (d *learned) pathOf(x *stage.Exchange, o *object, begin bool) *seenPath {
	var h maphash.Hash
	h.SetSeed(d.l.seed)
	for _, part := range [...][]byte{x.Host, x.In.Path(), o.selector, o.selected, o.fields.Get(message.ContentEncoding)} {
		_, _ = h.Write(part)
		_ = h.WriteByte(0)
	}
	_, _ = h.WriteString(o.route)
	key := h.Sum64()
	at := d.paths[key]
	if at != nil || !begin {
		return at
	}
	if len(d.paths) >= maxPaths || d.l.paths.Load() >= maxPathsEdge {
		if len(d.paths) == 0 {
			return nil
		}
		for k := range d.paths { // any one
			delete(d.paths, k)
			break
		}
	} else {
		d.l.paths.Add(1)
	}
	if d.paths == nil {
		d.paths = map[uint64]*seenPath{}
	}
	at = new(seenPath)
	d.paths[key] = at
	return at
}

// read reads a query; false when it cannot be compared.
func (d *learned) read(e *witness, query []byte) bool {
	for p := range pairs(query) {
		if len(p.name) > maxName || len(p.name) == 0 {
			return false
		}
		n, ok := d.nameOf(p.name)
		if !ok {
			return false
		}
		value := maphash.Bytes(d.l.seed, p.value) | 1 // 0 is that of a parameter that is not there
		i := 0
		for i < e.n && e.names[i] != n {
			i++
		}
		switch {
		case i < e.n:
			e.values[i] = e.values[i]*31 + value | 1 // several of one name, in their order
		case e.n == maxCompared:
			return false
		default:
			e.names[i], e.values[i] = n, value
			e.n++
		}
	}
	return true
}

// nameOf finds a parameter. When there are too many the one of which least is known goes, and never one that something
// speaks against: else who floods us with names could make that be forgotten.
func (d *learned) nameOf(name []byte) (hash uint64, ok bool) {
	h := maphash.Bytes(d.l.seed, name)
	if d.names[h] != nil {
		return h, true
	}
	if len(d.names) >= maxNames || d.l.names.Load() >= maxNamesEdge {
		var least *seenName
		var which uint64
		for k, n := range d.names {
			if n.against == 0 && (least == nil || n.same+n.mixed < least.same+least.mixed) {
				least, which = n, k
			}
		}
		if least == nil {
			return 0, false
		}
		delete(d.names, which)
	} else {
		d.l.names.Add(1)
	}
	if d.names == nil {
		d.names = map[uint64]*seenName{}
	}
	d.names[h] = &seenName{name: string(name)}
	return h, true
}

// differ gives the parameters in which two requests differ to f, with both values.
func (d *learned) differ(a, b *witness, f func(n *seenName, a, b uint64)) {
	differing(a, b, func(h, x, y uint64) {
		if n := d.names[h]; n != nil {
			f(n, x, y)
		}
	})
}

// differing counts the parameters in which two requests differ, and gives their hashes to f, which may be nil, with both values.
func differing(a, b *witness, f func(name, a, b uint64)) (count int) {
	if a.since == 0 || b.since == 0 {
		return -1
	}
	value := func(w *witness, n uint64) uint64 {
		for i := range w.n {
			if w.names[i] == n {
				return w.values[i]
			}
		}
		return 0
	}
	each := func(n, x, y uint64) {
		if x != y {
			count++
			if f != nil {
				f(n, x, y)
			}
		}
	}
	for i := range a.n {
		each(a.names[i], a.values[i], value(b, a.names[i]))
	}
	for i := range b.n {
		if value(a, b.names[i]) == 0 {
			each(b.names[i], 0, b.values[i])
		}
	}
	return count
}

// compare takes two answers of a path as evidence, and says whether they are the same.
func (d *learned) compare(at *seenPath, p, e *witness, x *stage.Exchange) bool {
	n := differing(p, e, nil)
	same := p.body == e.body
	if n == 0 {
		at.unsteady = at.unsteady || !same
		return false
	}
	if at.unsteady {
		return false
	}
	// Of several it was likely one of which little else is known; nobody is blamed where one is known to matter.
	known, most, least := false, int64(0), int64(math.MaxInt64)
	d.differ(p, e, func(s *seenName, _, _ uint64) {
		known = known || s.against > 0
		most, least = max(most, s.same), min(least, s.same)
	})
	path := maphash.Bytes(d.l.seed, x.In.Path())
	d.differ(p, e, func(s *seenName, a, b uint64) {
		switch {
		case same:
			s.same++
			s.values.add(a)
			s.values.add(b)
			s.paths.add(path)
		case n == 1:
			if s.against++; s.path == "" {
				s.path = example(x.In.Path())
				s.b = "none"
				for q := range pairs(x.Query()) {
					if string(q.name) == s.name {
						s.b = example(q.value)
					}
				}
			}
		case !known && (4*s.same <= most || 4*least > most):
			s.mixed++
		}
	})
	return same
}

// count notes that a fetch brought what was there.
func (d *learned) count(p, e *witness) {
	n, clear := 0, true
	d.differ(p, e, func(s *seenName, _, _ uint64) {
		n++
		clear = clear && s.against == 0
	})
	if clear {
		d.spare++
	}
	d.differ(p, e, func(s *seenName, _, _ uint64) {
		s.spare++
		if n == 1 {
			s.alone++
		}
	})
}

func example(b []byte) string {
	if len(b) > maxExample {
		return string(b[:maxExample]) + "…"
	}
	return string(b)
}

// pair is a parameter of a query, its name decoded.
type pair struct{ name, value []byte }

// pairs yields the parameters of a query.
func pairs(query []byte) func(yield func(pair) bool) {
	return func(yield func(pair) bool) {
		var buf [3 * maxName]byte
		for i := 0; i < len(query); {
			end := i
			for end < len(query) && query[end] != '&' {
				end++
			}
			p := query[i:end]
			i = end + 1
			if len(p) == 0 {
				continue
			}
			eq := 0
			for eq < len(p) && p[eq] != '=' {
				eq++
			}
			name := p[:eq]
			if eq < len(p) {
				eq++
			}
			if len(name) <= len(buf) {
				name = appendDecoded(buf[:0], name)
			}
			if !yield(pair{name, p[eq:]}) {
				return
			}
		}
	}
}

// echoed notes that an answer repeated what its request brought.
func (d *learned) echoed(n *needle, path []byte, now time.Time) {
	if d == nil {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for i := range d.echoes {
		if e := &d.echoes[i]; e.Kind == n.kind && e.Name == example(n.name) {
			e.Times++
			e.Path, e.Last = example(path), now
			return
		}
	}
	if len(d.echoes) == maxEchoes {
		d.echoes = append(d.echoes[:0], d.echoes[1:]...) // the oldest
	}
	d.echoes = append(d.echoes, Echo{Kind: n.kind, Name: example(n.name), Path: example(path), Times: 1, Last: now})
}
