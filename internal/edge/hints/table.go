package hints

import (
	"sync"

	"github.com/relais-edge/relais/internal/bundle"
	"github.com/relais-edge/relais/internal/observe"
)

// Bounds of the table. A site that has its share makes room among its own pages, so that one
// tenant does not push out another's.
const (
	maxPages     = 16384
	maxSitePages = 512
	maxKey       = 1 << 10
)

// table holds the links of pages, by site.
type table struct {
	evicted observe.Counter

	mu    sync.RWMutex
	sites map[bundle.Key]map[string]string
	n     int
}

func newTable(evicted observe.Counter) table {
	return table{evicted: evicted, sites: map[bundle.Key]map[string]string{}}
}

// get finds the links of a page; empty when there are none.
func (t *table) get(site bundle.Key, key []byte) string {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.sites[site][string(key)]
}

// put keeps the links of a page; none forgets it.
func (t *table) put(site bundle.Key, key, links []byte) {
	t.mu.RLock()
	old, known := t.sites[site][string(key)]
	t.mu.RUnlock()
	if old == string(links) && known == (len(links) > 0) || len(key) > maxKey {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(links) == 0 {
		t.remove(site, string(key))
		return
	}
	pages := t.sites[site]
	if _, known := pages[string(key)]; !known {
		if len(pages) >= maxSitePages {
			t.evict(site)
		} else if t.n >= maxPages {
			t.evict(t.largest())
		}
		if pages = t.sites[site]; pages == nil {
			pages = map[string]string{}
			t.sites[site] = pages
		}
		t.n++
	}
	pages[string(key)] = string(links)
}

// evict removes any page of a site. The lock is held.
func (t *table) evict(site bundle.Key) {
	for key := range t.sites[site] {
		t.remove(site, key)
		t.evicted.Inc()
		return
	}
}

// largest finds the site with most pages among a few. The lock is held.
func (t *table) largest() (site bundle.Key) {
	most, looked := 0, 0
	for key, pages := range t.sites {
		if len(pages) > most {
			site, most = key, len(pages)
		}
		if looked++; looked == 16 {
			break
		}
	}
	return site
}

func (t *table) remove(site bundle.Key, key string) {
	pages := t.sites[site]
	if _, known := pages[key]; !known {
		return
	}
	delete(pages, key)
	t.n--
	if len(pages) == 0 {
		delete(t.sites, site)
	}
}
