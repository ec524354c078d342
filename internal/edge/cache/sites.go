package cache

import (
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/relais-edge/relais/internal/edge/cache/purge"
	"github.com/relais-edge/relais/internal/edge/cache/store"
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
	// Disk is the disk tier; nil without one.
	Disk *DiskStats `json:"disk,omitempty"`
	// Organizations are those with something stored, of those that are told apart.
	Organizations []OrgStats  `json:"organizations"`
	Sites         []SiteStats `json:"sites"`
}

// DiskStats is the disk tier.
type DiskStats struct {
	Folder string `json:"folder"`
	// Off says that it takes no writes, or cannot be had: the edge goes on from memory.
	Off     bool  `json:"off"`
	Objects int64 `json:"objects"`
	Bytes   int64 `json:"bytes"`
	Limit   int64 `json:"limit"`
	Evicted int64 `json:"evicted"`
	Errors  int64 `json:"errors"`
	// Damaged are records whose checksums were wrong; none was served.
	Damaged int64 `json:"damaged"`
}

// OrgStats is what an organization has of the store, and what more would give it.
type OrgStats struct {
	Organization string `json:"organization"`
	Memory       int64  `json:"memory"` // bytes
	Disk         int64  `json:"disk"`   // bytes
	Objects      int64  `json:"objects"`
	// What it may have; 0 is as much as there is.
	MemoryQuota int64 `json:"memoryQuota,omitempty"`
	DiskQuota   int64 `json:"diskQuota,omitempty"`
	// Now is the share of its requests that a cache with what it has would have answered, as an LRU cache does, by an
	// estimate of the last hours, and More those with a tenth, as much, and 10 GB more.
	Now  float64 `json:"hitRatioOfSize"`
	More []Gain  `json:"more"`
}

// Gain is what so many bytes more would give.
type Gain struct {
	Bytes    int64   `json:"bytes"`
	Requests float64 `json:"hitRatio"`  // more, by request
	Volume   float64 `json:"byteRatio"` // more, by byte
}

func (s *Stage) diskStats(st *store.TiersStats) *DiskStats {
	d := &s.cfg.Disk
	if d.Dir == "" {
		return nil
	}
	l := &st.Disk.Log
	return &DiskStats{
		Folder: d.Dir, Off: !st.HasDisk || l.Off, Objects: st.Disk.Index.Objects, Bytes: l.Bytes, Limit: d.Bytes,
		Evicted: st.Disk.Admission.Dropped, Errors: l.ReadErrors + l.WriteErrors + l.SyncErrors + s.attachFailures.Load(), Damaged: st.Disk.Damaged + st.Disk.Lost,
	}
}

func (s *Stage) orgStats(site string) []OrgStats {
	only, _, _ := strings.Cut(site, "/")
	out := []OrgStats{}
	for o := range s.tiers.Orgs() {
		if site != "" && o.Name() != only || o.Memory.Objects()+o.Disk.Objects() == 0 {
			continue
		}
		has := max(o.Memory.Bytes(), o.Disk.Bytes())
		g := OrgStats{
			Organization: o.Name(), Memory: o.Memory.Bytes(), Disk: o.Disk.Bytes(), Objects: max(o.Memory.Objects(), o.Disk.Objects()),
			MemoryQuota: o.Memory.Quota(), DiskQuota: o.Disk.Quota(), Now: o.Curve.At(has).Objects,
		}
		for _, more := range [...]int64{has / 10, has, 10e9} {
			r := o.Curve.Gain(has, has+more)
			g.More = append(g.More, Gain{more, r.Objects, r.Bytes})
		}
		out = append(out, g)
	}
	return out
}

// SiteStats tells what was counted, of one site or, when it is empty, of all that were asked for.
func (s *Stage) SiteStats(site string) EdgeStats {
	st := s.tiers.Stats()
	out := EdgeStats{
		Objects: int64(st.Memory.Index.Objects), Bytes: st.Memory.Log.Bytes, Limit: st.Memory.Log.Limit, Evicted: st.Memory.Admission.Dropped, Refused: st.Refused,
		PurgeLog: s.cfg.Purges.State(), PurgeKeys: s.purges.Keys(), Sites: []SiteStats{},
		Disk: s.diskStats(&st), Organizations: s.orgStats(site),
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

// looked counts the requests that were looked up, and those among them that cost no origin anything.
func (c *siteState) looked() (good, looked int64) {
	for i := range c.results {
		n := c.results[i].Load()
		switch result(i) {
		case resultBypass:
			continue
		case resultHit, resultStale, resultCollapsed:
			good += n
		}
		looked += n
	}
	return good, looked
}

func (c *siteState) stats(key string) SiteStats {
	out := SiteStats{Site: key, Results: map[string]int64{}, BytesSaved: c.saved.Load(), Stored: c.stored.Load(), Purged: c.dead.Load()}
	good, looked := c.looked()
	for i := range c.results {
		n := c.results[i].Load()
		if n == 0 {
			continue
		}
		out.Requests += n
		out.Results[resultNames[i]] = n
	}
	if looked > 0 {
		out.HitRatio = float64(good) / float64(looked)
	}
	return out
}
