package v1

import (
	"strconv"
	"strings"
)

// CacheWarm fetches stored answers before somebody has to wait for them. The bounds hold for each site in each edge;
// with several policies of a site the first one by name says them.
type CacheWarm struct {
	// AfterPurge fetches the answers that are asked for most again when a purge ended them; never does so only
	// where the purge asks for it.
	AfterPurge string `json:"afterPurge,omitempty" schema:"enum=always|never,default=always"`
	// Objects bounds how many answers are fetched after a purge.
	Objects int `json:"objects,omitempty" schema:"default=100,min=1,max=1000"`
	// Rate bounds the fetches in a second.
	Rate int `json:"rate,omitempty" schema:"default=20,min=1,max=10000"`
	// InFlight bounds the fetches at once.
	InFlight int `json:"inFlight,omitempty" schema:"default=2,min=1,max=64"`
	// Links follow also fetches what an answer that was fetched so names as rel=preload or rel=prefetch in its Link fields, of the
	// same host only.
	Links string `json:"links,omitempty" schema:"enum=follow|ignore,default=ignore"`
}

// CacheFeed says what an event of the price and stock feed purges.
type CacheFeed struct {
	// Tags that are purged for an event with a sku; {sku} stands for it.
	Tags []string `json:"tags,omitempty" schema:"maxItems=8,maxLength=256"`
	// URLs that are purged for an event with a sku, with every query: /path or host/path; {sku} stands for it.
	URLs []string `json:"urls,omitempty" schema:"maxItems=8,maxLength=1024"`
	// Purge hard removes what is named, soft makes it stale.
	Purge string `json:"purge,omitempty" schema:"enum=hard|soft,default=hard"`
}

// CacheTrial compares pages as visitors get them with those for nobody, to learn which could be cached. It
// stores and changes nothing.
type CacheTrial struct {
	// Percent of the pages that origins answer.
	Percent *Percent `json:"percent,omitempty" schema:"default=1%"`
	// Rate bounds the requests to origins in a second, of all routes of the site in each edge.
	Rate int `json:"rate,omitempty" schema:"default=2,min=1,max=100"`
	// Keep names cookies that are those of a session and never sent again, beside the names that look so; a
	// trailing * matches any ending.
	Keep []string `json:"keep,omitempty" schema:"maxItems=64,maxLength=128"`
	// Exclude are path prefixes that are left alone, beside those that look like actions.
	Exclude []string `json:"exclude,omitempty" schema:"maxItems=64,format=path,maxLength=1024"`
}

// Sku is what stands for an event's sku in the templates of a CacheFeed.
const Sku = "{sku}"

func (c *checker) cacheFeed(f *CacheFeed) {
	if len(f.Tags) == 0 && len(f.URLs) == 0 {
		c.add("", "maps a sku to nothing", "give tags or urls, such as tags: [\"product-"+Sku+"\"]")
	}
	check := func(field string, list []string) {
		for i, t := range list {
			rest := strings.ReplaceAll(t, Sku, "")
			at := field + "[" + strconv.Itoa(i) + "]"
			switch {
			case !strings.Contains(t, Sku):
				c.add(at, quote(t)+" is the same for every event", "write "+Sku+" where the sku stands")
			case strings.ContainsAny(rest, "{}"):
				c.add(at, quote(t)+" has braces that stand for nothing", "the only one that is known is "+Sku)
			case field == "urls" && strings.ContainsAny(rest, "?#"):
				c.add(at, quote(t)+" has a query", "leave it away: every query is purged")
			case field == "tags" && strings.ContainsAny(rest, ", \t"):
				c.add(at, quote(t)+" is no tag", "leave commas and spaces away")
			}
		}
	}
	check("tags", f.Tags)
	check("urls", f.URLs)
}
