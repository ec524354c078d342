package snapshot

import (
	"fmt"
	"runtime/debug"
	"sync"
	"sync/atomic"

	"github.com/relais-edge/relais/internal/bundle"
)

// Entry is a site of a table, built when it is first asked for.
type Entry struct {
	spec *bundle.Site
	m    Materialiser

	mu       sync.Mutex // held while the site is built
	built    atomic.Pointer[outcome]
	before   atomic.Pointer[Entry] // whose state is taken over; nil once the site is built
	reported atomic.Bool
}

// outcome of building a site: the site, or the one that ran before with the error.
type outcome struct {
	site *Site
	err  error
}

// newEntry makes an entry that takes over from the one before, which may be nil.
func newEntry(s *bundle.Site, m Materialiser, before *Entry) *Entry {
	e := &Entry{spec: s, m: m}
	if before == nil {
		return e
	}
	// An entry that was never built has nothing to hand on, but the one before it may have. It is kept
	// all the same, as a request under way may still build it; what is kept before it is only the
	// nearest that was built, so that many changes of a site that nobody visits leave no chain.
	if before.built.Load() == nil {
		for p := before.before.Load(); p != nil && p.built.Load() == nil; p = before.before.Load() {
			before.before.CompareAndSwap(p, p.before.Load())
		}
	}
	e.before.Store(before)
	return e
}

// Key of the site.
func (e *Entry) Key() bundle.Key { return e.spec.Key }

// Spec is the compiled site. It is not to be changed.
func (e *Entry) Spec() *bundle.Site { return e.spec }

// Site gives the site as it runs, and builds it at the first call; calls at the same time wait for the
// one that builds. When that fails, every call gives the error, and beside it the site of the same key
// that ran before, to be served on; it is nil when there was none.
func (e *Entry) Site() (*Site, error) {
	if o := e.built.Load(); o != nil {
		return o.site, o.err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if o := e.built.Load(); o != nil {
		return o.site, o.err
	}
	old := e.inherited()
	o := &outcome{site: newSite(e.spec)}
	if o.err = materialise(e.m, o.site, old); o.err != nil {
		o.site = old
	}
	e.built.Store(o)
	e.before.Store(nil)
	return o.site, o.err
}

// Built gives the site if it runs already; nil otherwise. It never builds.
func (e *Entry) Built() *Site {
	if o := e.built.Load(); o != nil {
		return o.site
	}
	return nil
}

// Report is true for one caller only: the one that logs the error of Site.
func (e *Entry) Report() bool { return !e.reported.Swap(true) }

// inherited finds the site that ran last under the key.
func (e *Entry) inherited() *Site {
	for p := e.before.Load(); p != nil; p = p.before.Load() {
		if o := p.built.Load(); o != nil {
			return o.site
		}
	}
	return nil
}

func newSite(b *bundle.Site) *Site {
	s := &Site{Key: b.Key, Spec: b, Routes: make([]Route, len(b.Routes))}
	s.Organization, s.Name = b.Key.Split()
	for i := range b.Routes {
		s.Routes[i] = Route{Index: i, Name: b.Routes[i].Name, Spec: &b.Routes[i]}
	}
	return s
}

// materialise calls m; a panic of one site's part is that site's error and no one else's.
func materialise(m Materialiser, s, old *Site) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("site %s: panic while it was built: %v\n%s", s.Key, r, debug.Stack())
		}
	}()
	if err := m.Materialise(s, old); err != nil {
		return fmt.Errorf("site %s: %w", s.Key, err)
	}
	return nil
}
