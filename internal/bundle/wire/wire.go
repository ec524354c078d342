// Package wire is the form in which one organization's bundle is sent and kept: an index, which names a head and parts by
// their content. Listeners and services are in the head; sites and certificates are in the part that the hash of their
// name says, so that the change of one site is a new index and one new part, however many there are.
//
// Head and parts are JSON in zstd. A spec that sites of a part share stands there once. The bytes depend on the bundle
// and the number of parts alone, for one version of this program.
//
// A reader takes what a version newer or older by one has written: it leaves fields alone that it does not know, and
// takes those that are absent for empty. A field whose absence would make a site be served wrongly is for a new Format,
// which readers refuse by its number.
package wire

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/bits"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/bundle"
	"github.com/relais-edge/relais/internal/manifest"
)

// Format is the number of this form.
const Format = 1

// Bounds. What is beyond them is neither written nor read.
const (
	// MaxIndex bounds an index, in bytes.
	MaxIndex = 4 << 20
	// MaxBlob bounds a head or part as it is sent, MaxPart as it is read, in bytes.
	MaxBlob = 16 << 20
	MaxPart = 32 << 20
	// MaxBundle bounds head and parts as they are read, in bytes.
	MaxBundle = 1 << 30
	// MaxParts bounds the parts, beside the head.
	MaxParts = 1 << 13
	// MaxSites bounds the sites of an organization, and its certificates.
	MaxSites = 1_000_000
	// maxValues bounds the objects and lists of a part, and maxDepth how far they stand in one another.
	maxValues = 400_000
	maxDepth  = 64
)

// A part is divided above crowded sites or certificates, and joined with another below sparse. What is between them
// keeps one site that comes and goes from changing all parts each time.
const (
	crowded = 256
	sparse  = 64
)

// ErrFormat: it has a form that this version does not read.
var ErrFormat = errors.New("of a format that is not known")

// Index names the blobs of a bundle.
type Index struct {
	Format       int    `json:"format"`
	Organization string `json:"organization"`
	// Head is absent without listeners and services.
	Head *manifest.Ref `json:"head,omitempty"`
	// Parts are a power of two, or none.
	Parts []manifest.Ref `json:"parts,omitempty"`
}

// ReadIndex reads an index.
func ReadIndex(data []byte) (*Index, error) {
	if len(data) > MaxIndex {
		return nil, fmt.Errorf("the index has %d bytes; %d are the most", len(data), MaxIndex)
	}
	if err := scan(data, MaxIndex); err != nil {
		return nil, fmt.Errorf("the index: %w", err)
	}
	x := &Index{}
	if err := json.Unmarshal(data, x); err != nil {
		return nil, fmt.Errorf("the index: %w", err)
	}
	if x.Format != Format {
		return nil, fmt.Errorf("the index is %w: %d, and this version reads %d", ErrFormat, x.Format, Format)
	}
	if n := len(x.Parts); n > MaxParts || bits.OnesCount(uint(n)) > 1 {
		return nil, fmt.Errorf("the index has %d parts, and not a power of two up to %d", n, MaxParts)
	}
	for i, r := range x.refs() {
		if r.Size < 1 || r.Size > MaxBlob {
			return nil, fmt.Errorf("blob %d of the index has %d bytes, and not 1 to %d", i, r.Size, MaxBlob)
		}
	}
	return x, nil
}

// refs are the blobs in their order.
func (x *Index) refs() []manifest.Ref {
	refs := make([]manifest.Ref, 0, len(x.Parts)+1)
	if x.Head != nil {
		refs = append(refs, *x.Head)
	}
	return append(refs, x.Parts...)
}

// Parts are the blobs that an index names, in the order in which Encode gives and Decode takes them.
func Parts(index []byte) ([]manifest.Ref, error) {
	x, err := ReadIndex(index)
	if err != nil {
		return nil, err
	}
	return x.refs(), nil
}

// specs of a head or part, by the field of a site and the name of the document. Floods have the digest of their text for
// a name.
type specs map[string]map[string]json.RawMessage

// floods is where the specs of FloodPolicies stand: a site has at most one, and not its name.
const floods = "floods"

// head has what opens ports.
type head struct {
	Format    int               `json:"format"`
	Listeners []bundle.Listener `json:"listeners,omitempty"`
	// Services are without their pool, which is in Specs by its name.
	Services []bundle.Service `json:"services,omitempty"`
	Specs    specs            `json:"specs,omitempty"`
}

// part has sites and certificates, each in the order of their keys.
type part struct {
	Format       int                  `json:"format"`
	Sites        []site               `json:"sites,omitempty"`
	Certificates []bundle.Certificate `json:"certificates,omitempty"`
	Specs        specs                `json:"specs,omitempty"`
}

// site is a site without its specs.
type site struct {
	bundle.Site
	// Use names the specs, as they stand in the part.
	Use map[string][]string `json:"use,omitempty"`
	// Certificates that the site names for its hosts.
	Certificates []bundle.Key `json:"certificates,omitempty"`
}

// place is the part in which a name stands, of n parts: the first bits of FNV-1a, which is mixed once more as its first
// bits say little of the last letters.
func place(key bundle.Key, n int) int {
	if n <= 1 {
		return 0
	}
	_, name := key.Split()
	h := uint64(14695981039346656037)
	for i := range len(name) {
		h = (h ^ uint64(name[i])) * 1099511628211
	}
	h ^= h >> 33
	h *= 0xff51afd7ed558ccd
	h ^= h >> 33
	h *= 0xc4ceb9fe1a85ec53
	h ^= h >> 33
	return int(h >> (64 - bits.TrailingZeros(uint(n))))
}

// divide gives the number of parts for some items, where before parts were.
func divide(items, before int) int {
	if items == 0 {
		return 0
	}
	n := max(before, 1)
	for items > crowded*n {
		n *= 2
	}
	for n > 1 && items < sparse*n {
		n /= 2
	}
	return n
}

// kind is one of the maps of a site.
type kind interface {
	// take moves the specs of a site to a table, and gives their names.
	take(s *bundle.Site, to *table) (field string, names []string, err error)
	// put moves the specs that a site names back.
	put(s *bundle.Site, use map[string][]string, from *library) error
}

type kindOf[S any] struct {
	field string
	of    func(*bundle.Site) *map[string]*S
}

// kinds of specs. The names are part of the form.
func kinds() []kind {
	return []kind{
		kindOf[v1.OriginPoolSpec]{"pools", func(s *bundle.Site) *map[string]*v1.OriginPoolSpec { return &s.Pools }},
		kindOf[v1.AccessPolicySpec]{"access", func(s *bundle.Site) *map[string]*v1.AccessPolicySpec { return &s.Access }},
		kindOf[v1.JwtPolicySpec]{"jwt", func(s *bundle.Site) *map[string]*v1.JwtPolicySpec { return &s.JWT }},
		kindOf[v1.ApiPolicySpec]{"api", func(s *bundle.Site) *map[string]*v1.ApiPolicySpec { return &s.API }},
		kindOf[v1.RateLimitSpec]{"rateLimits", func(s *bundle.Site) *map[string]*v1.RateLimitSpec { return &s.RateLimits }},
		kindOf[v1.WafPolicySpec]{"waf", func(s *bundle.Site) *map[string]*v1.WafPolicySpec { return &s.WAF }},
		kindOf[v1.VisitorPolicySpec]{"visitors", func(s *bundle.Site) *map[string]*v1.VisitorPolicySpec { return &s.Visitors }},
		kindOf[v1.WaitingRoomSpec]{"rooms", func(s *bundle.Site) *map[string]*v1.WaitingRoomSpec { return &s.Rooms }},
		kindOf[v1.BotPolicySpec]{"bots", func(s *bundle.Site) *map[string]*v1.BotPolicySpec { return &s.Bots }},
		kindOf[v1.CachePolicySpec]{"caches", func(s *bundle.Site) *map[string]*v1.CachePolicySpec { return &s.Caches }},
		kindOf[v1.ImagePolicySpec]{"images", func(s *bundle.Site) *map[string]*v1.ImagePolicySpec { return &s.Images }},
	}
}
