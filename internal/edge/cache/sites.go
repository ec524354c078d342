package cache

import (
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/relais-edge/relais/internal/edge/cache/purge"
)

// siteState is what is counted of a site. It outlives changes of the site.
type siteState struct {
	results [numResults]atomic.Int64
	saved   atomic.Int64 // bytes of bodies that came from the store
	stored  atomic.Int64 // answers stored
	dead    atomic.Int64 // look-ups that found what a purge had killed
	_       [64]byte
}

// maxSites bounds the sites that are counted one by one; those that come after are counted together.
const maxSites = 1 << 17

// sites are the counts by site.
type sites struct {
	mu  sync.Mutex
	all map[string]*siteState
}

// others is the name of the sites that are counted together.
const others = "(others)"

func (s *sites) of(key string) *siteState {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.all == nil {
		s.all = map[string]*siteState{}
	}
	st := s.all[key]
	if st == nil {
		if len(s.all) >= maxSites {
			key = others
			if st = s.all[key]; st != nil {
				return st
			}
		}
		st = new(siteState)
		s.all[key] = st
	}
	return st
}

// SiteStats is what the cache did for a site since the start.
type SiteStats struct {
	Site     string           `json:"site"`
	Requests int64            `json:"requests"`
	Results  map[string]int64 `json:"results"`
	// HitRatio is the part of the requests that were looked up and cost no origin anything: hits, stale
	// answers and those who waited for the fetch of another.
	HitRatio float64 `json:"hitRatio"`
	// BytesSaved are bytes of bodies that came from the store.
	BytesSaved int64 `json:"bytesSaved"`
	Stored     int64 `json:"stored"`
	// Purged are look-ups that found an answer which a purge had ended.
	Purged int64 `json:"purged"`
}

// EdgeStats is the cache of an edge.
type EdgeStats struct {
	// Of all sites together: keys with something stored, bytes, the limit, keys given up for room,
	// answers larger than is taken.
	Objects   int64       `json:"objects"`
	Bytes     int64       `json:"bytes"`
	Limit     int64       `json:"limit"`
	Evicted   int64       `json:"evicted"`
	Refused   int64       `json:"refused"`
	PurgeLog  purge.State `json:"purgeLog"`
	PurgeKeys int         `json:"purgeKeys"`
	Sites     []SiteStats `json:"sites"`
}

// SiteStats tells what was counted, of one site or, when it is empty, of all that were asked for.
func (s *Stage) SiteStats(site string) EdgeStats {
	st := s.store.Stats()
	out := EdgeStats{
		Objects: st.Entries, Bytes: st.Bytes, Limit: st.Limit, Evicted: st.Evicted, Refused: st.Refused,
		PurgeLog: s.cfg.Purges.State(), PurgeKeys: s.purges.Keys(), Sites: []SiteStats{},
	}
	s.sites.mu.Lock()
	defer s.sites.mu.Unlock()
	for key, c := range s.sites.all {
		if site == "" || site == key {
			out.Sites = append(out.Sites, c.stats(key))
		}
	}
	slices.SortFunc(out.Sites, func(a, b SiteStats) int { return strings.Compare(a.Site, b.Site) })
	return out
}

func (c *siteState) stats(key string) SiteStats {
	out := SiteStats{Site: key, Results: map[string]int64{}, BytesSaved: c.saved.Load(), Stored: c.stored.Load(), Purged: c.dead.Load()}
	var good, looked int64
	for i := range c.results {
		n := c.results[i].Load()
		if n == 0 {
			continue
		}
		out.Requests += n
		out.Results[resultNames[i]] = n
		switch result(i) {
		case resultBypass:
			continue
		case resultHit, resultStale, resultCollapsed:
			good += n
		}
		looked += n
	}
	if looked > 0 {
		out.HitRatio = float64(good) / float64(looked)
	}
	return out
}
