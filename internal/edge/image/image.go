package image

import (
	"cmp"
	"errors"
	"runtime"
	"slices"
	"time"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/observe"
	"github.com/relais-edge/relais/internal/snapshot"
	"github.com/relais-edge/relais/internal/stage"
)

// Config of a Stage. The zero value of a field but Slot means its default.
type Config struct {
	// Slot is the stage's place in sites and exchanges.
	Slot stage.Slot
	// Workers is how many pictures are made at once; by default half of the processors, and at least one.
	Workers int
	// Queue is how many may wait for a worker, and QueueShare how many of them for one organization.
	Queue, QueueShare int
	// MaxMemory bounds what originals and the pictures made of them take at once, in bytes, by an estimate
	// from their heads.
	MaxMemory int64
}

// Defaults of Config.
const (
	DefaultQueue      = 64
	DefaultQueueShare = 32
	DefaultMaxMemory  = 256 << 20
)

const (
	// maxSide bounds the sides of what is made.
	maxSide = 4096
	// maxAVIF is the most pixels of an AVIF: beyond it the work takes seconds, and the original's format is taken.
	maxAVIF = 5 << 18
	// brief is how long an original is stored that stands in for what could not be made now.
	brief = 10 * time.Second
)

// The sizes and qualities where a policy names none.
var (
	defaultSizes     = []int{64, 128, 256, 384, 512, 640, 828, 1080, 1280, 1600, 1920, 2560}
	defaultQualities = []int{50, 65, 80, 90}
)

// Stage makes pictures. It stands below the cache. It implements stage.Stage and stage.Compiler.
type Stage struct {
	slot   stage.Slot
	pool   *pool
	memory *budget
	codec  codec
	m      *metrics
}

var (
	_ stage.Stage    = (*Stage)(nil)
	_ stage.Compiler = (*Stage)(nil)
)

// New returns a stage. It starts nothing; a goroutine runs while a picture is made.
func New(cfg Config, m *observe.Registry) *Stage {
	workers := cmp.Or(cfg.Workers, max(1, runtime.GOMAXPROCS(0)/2))
	queue := cmp.Or(cfg.Queue, DefaultQueue)
	s := &Stage{
		slot:   cfg.Slot,
		pool:   newPool(workers, queue, cmp.Or(cfg.QueueShare, min(DefaultQueueShare, queue))),
		memory: &budget{max: cmp.Or(cfg.MaxMemory, DefaultMaxMemory)},
		codec:  library{},
	}
	s.m = newMetrics(m, s)
	return s
}

// Name implements stage.Stage.
func (s *Stage) Name() string { return "image" }

// rule is a v1.ImagePolicy as it runs.
type rule struct {
	name                       string
	widths, heights, qualities []int // sorted
	prefer                     []format
	base                       form
	presets                    []preset
	presetsOnly, refuse        bool
	refusal                    *stage.Error
	maxSource, maxPixels       int64
	timeout                    time.Duration
	targeted                   []string // fields that a cache in front of us obeys
}

type preset struct {
	name string
	form
}

// part is what the stage makes of a site: a rule for each route that has one.
type part struct{ routes []*rule }

// Compile implements stage.Compiler.
func (s *Stage) Compile(site *snapshot.Site, _ stage.Part) (stage.Part, error) {
	p := &part{routes: make([]*rule, len(site.Routes))}
	any := false
	for i := range site.Routes {
		spec := site.Routes[i].Spec
		if spec.Images == "" {
			continue
		}
		doc := site.Spec.Images[spec.Images]
		if doc == nil {
			return nil, errors.New("route " + site.Routes[i].Name + ": ImagePolicy " + spec.Images + " is not in the site's bundle")
		}
		r := newRule(spec.Images, doc)
		r.targeted = []string{"CDN-Cache-Control"}
		if c := site.Spec.Caches[spec.Cache]; c != nil && len(c.TargetedFields) > 0 {
			r.targeted = c.TargetedFields
		}
		p.routes[i], any = r, true
	}
	if !any {
		return nil, nil
	}
	return p, nil
}

func newRule(name string, d *v1.ImagePolicySpec) *rule {
	r := &rule{
		name: name, widths: sorted(d.Widths, defaultSizes), heights: sorted(d.Heights, defaultSizes), qualities: sorted(d.Qualities, defaultQualities),
		presetsOnly: d.PresetsOnly, refuse: d.Other == "refuse",
		maxSource: cmp.Or(int64(d.MaxSource), 20<<20), maxPixels: cmp.Or(int64(d.MaxPixels), 25_000_000),
		timeout: cmp.Or(d.Timeout.Std(), 5*time.Second),
	}
	names := d.Formats
	if len(names) == 0 {
		names = []string{formatNames[webpFormat]}
	}
	for _, n := range names {
		if f := formatNamed(n); f == webpFormat && withWebP || f == avifFormat && withAVIF {
			r.prefer = append(r.prefer, f)
		}
	}
	r.base = formOf(&d.Default, form{quality: 80, format: auto})
	for i := range d.Presets {
		r.presets = append(r.presets, preset{d.Presets[i].Name, formOf(&d.Presets[i].ImageForm, form{
			fit: r.base.fit, quality: r.base.quality, format: r.base.format,
		})})
	}
	r.refusal = refusalOf(r)
	return r
}

func sorted(list, absent []int) []int {
	if len(list) == 0 {
		return absent
	}
	list = slices.Clone(list)
	slices.Sort(list)
	return list
}

// formOf is a form with what it does not say taken from another.
func formOf(d *v1.ImageForm, other form) form {
	f := form{width: d.Width, height: d.Height, fit: other.fit, quality: cmp.Or(d.Quality, other.quality), format: other.format}
	for k := range fits {
		if d.Fit == fitNames[k] {
			f.fit = k
		}
	}
	if d.Format != "" {
		f.format = formatNamed(d.Format)
	}
	return f
}

func formatNamed(name string) format {
	for f := range formats {
		if formatNames[f] == name {
			return f
		}
	}
	return auto
}

// rule is that of the exchange's route; nil for none.
func (s *Stage) rule(x *stage.Exchange) *rule {
	if x.Site == nil || x.Route == nil || int(s.slot) >= len(x.Site.Parts) {
		return nil
	}
	p, _ := x.Site.Parts[s.slot].(*part)
	if p == nil {
		return nil
	}
	return p.routes[x.Route.Index]
}

// local is what the stages keep in an exchange from one request to the next.
type local struct {
	query, text, tag []byte
}

func (s *Stage) local(x *stage.Exchange) *local {
	l, _ := x.Local[s.slot].(*local)
	if l == nil {
		l = new(local)
		x.Local[s.slot] = l
	}
	return l
}
