package wire

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/klauspost/compress/zstd"

	"github.com/relais-edge/relais/internal/bundle"
	"github.com/relais-edge/relais/internal/manifest"
)

// errLarge: a part is to be divided.
var errLarge = errors.New("too large to be sent")

// Encode writes the bundle of one organization: an index, and the blobs that it names, in the order of Parts. Before is
// the index that it replaces, or nil; it says how many parts there are already.
func Encode(b *bundle.Bundle, before *Index) (index []byte, parts [][]byte, err error) {
	return encode(b, before, MaxPart)
}

// encode is Encode for parts of a size.
func encode(b *bundle.Bundle, before *Index, largest int) (index []byte, parts [][]byte, err error) {
	fail := func(err error) ([]byte, [][]byte, error) {
		return nil, nil, fmt.Errorf("bundle of %.64q: %w", b.Organization, err)
	}
	if err := b.Check(b.Organization); err != nil {
		return fail(err)
	}
	if len(b.Sites) > MaxSites || len(b.Certificates) > MaxSites {
		return fail(fmt.Errorf("has %d sites and %d certificates; %d of each are the most", len(b.Sites), len(b.Certificates), MaxSites))
	}
	// Most organizations are small: a large window would cost more than what it is for.
	z, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(1<<20))
	if err != nil {
		return fail(err)
	}
	w := &encoder{bundle: b, largest: largest, zstd: z, written: map[any]json.RawMessage{}, hosts: map[bundle.Key][]bundle.Key{}}
	for i := range b.Hosts {
		w.hosts[b.Hosts[i].Site] = b.Hosts[i].Certificates
	}
	if err := w.divided(before); err != nil {
		return fail(err)
	}
	x := &Index{Format: Format, Organization: b.Organization, Parts: refs(w.parts)}
	parts = w.parts
	if len(b.Listeners)+len(b.Services) > 0 {
		h, err := w.head()
		if err != nil {
			return fail(fmt.Errorf("listeners and services: %w", err))
		}
		x.Head = &refs([][]byte{h})[0]
		parts = slices.Insert(parts, 0, h)
	}
	if w.bytes > MaxBundle {
		return fail(fmt.Errorf("has %d bytes; %d are the most", w.bytes, MaxBundle))
	}
	if index, err = json.Marshal(x); err != nil {
		return fail(err)
	}
	return index, parts, nil
}

func refs(blobs [][]byte) []manifest.Ref {
	refs := make([]manifest.Ref, len(blobs))
	for i, b := range blobs {
		refs[i] = manifest.Ref{Digest: manifest.Of(b), Size: int64(len(b))}
	}
	return refs
}

type encoder struct {
	bundle  *bundle.Bundle
	largest int // of a head or part, in bytes before it is compressed
	zstd    *zstd.Encoder
	written map[any]json.RawMessage     // specs by their pointers
	hosts   map[bundle.Key][]bundle.Key // certificates by the site that names them
	parts   [][]byte
	bytes   int // of head and parts before they were compressed
}

// divided writes as many parts as it takes for each to be small enough.
func (w *encoder) divided(before *Index) error {
	was := 0
	if before != nil {
		was = len(before.Parts)
	}
	n := divide(max(len(w.bundle.Sites), len(w.bundle.Certificates)), was)
	if n > MaxParts {
		return fmt.Errorf("needs %d parts; %d are the most", n, MaxParts)
	}
	for {
		most := w.largest
		if n < was { // parts that would soon be divided again stay
			most /= 2
		}
		err := w.all(n, most)
		if err == nil || !errors.Is(err, errLarge) || n == MaxParts {
			return err
		}
		n *= 2
	}
}

// all writes n parts.
func (w *encoder) all(n, most int) error {
	w.parts, w.bytes = make([][]byte, n), 0
	sites, certificates := make([][]*bundle.Site, n), make([][]bundle.Certificate, n)
	for _, s := range w.bundle.Sites {
		i := place(s.Key, n)
		sites[i] = append(sites[i], s)
	}
	for _, c := range w.bundle.Certificates {
		i := place(c.Key, n)
		certificates[i] = append(certificates[i], c)
	}
	for i := range n {
		p := &part{Format: Format, Certificates: certificates[i], Sites: make([]site, 0, len(sites[i]))}
		t := &table{specs{}, w.written}
		for _, s := range sites[i] {
			out, err := w.site(s, t)
			if err != nil {
				return fmt.Errorf("site %s: %w", s.Key, err)
			}
			p.Sites = append(p.Sites, out)
		}
		p.Specs = t.specs
		var err error
		if w.parts[i], err = w.blob(p, most); err == nil {
			continue
		}
		if len(p.Sites) == 1 && most == w.largest { // it would not fit alone
			err = fmt.Errorf("site %s: %s", p.Sites[0].Key, err)
		}
		return err
	}
	return nil
}

// site is what a part has of a site.
func (w *encoder) site(s *bundle.Site, t *table) (site, error) {
	out := site{Site: *s, Certificates: w.hosts[s.Key]}
	use := func(field string, names ...string) {
		if len(names) == 0 {
			return
		}
		if out.Use == nil {
			out.Use = map[string][]string{}
		}
		out.Use[field] = names
	}
	for _, k := range kinds() {
		field, names, err := k.take(&out.Site, t)
		if err != nil {
			return out, err
		}
		use(field, names...)
	}
	if s.Flood != nil {
		raw, err := t.write(s.Flood)
		if err != nil {
			return out, err
		}
		name := manifest.Of(raw).String()[:32]
		out.Flood = nil
		use(floods, name)
		return out, t.put(floods, name, raw)
	}
	return out, nil
}

func (w *encoder) head() ([]byte, error) {
	h := &head{Format: Format, Listeners: w.bundle.Listeners, Services: slices.Clone(w.bundle.Services)}
	t := &table{specs{}, w.written}
	for i := range h.Services {
		s := &h.Services[i]
		raw, err := t.write(s.Pool)
		if err != nil {
			return nil, err
		}
		if err := t.put("pools", s.Spec.Pool, raw); err != nil {
			return nil, err
		}
		s.Pool = nil
	}
	h.Specs = t.specs
	return w.blob(h, w.largest)
}

// blob writes a head or part.
func (w *encoder) blob(x any, most int) ([]byte, error) {
	raw, err := marshal(x)
	if err != nil {
		return nil, err
	}
	if err := scan(raw, most); err != nil {
		return nil, fmt.Errorf("%w: it %w", errLarge, err)
	}
	w.bytes += len(raw)
	out := w.zstd.EncodeAll(raw, nil)
	if len(out) > MaxBlob {
		return nil, fmt.Errorf("%w: it has %d bytes compressed; %d are the most", errLarge, len(out), MaxBlob)
	}
	return out, nil
}

// marshal writes JSON, and < as it is.
func marshal(x any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(x); err != nil {
		return nil, err
	}
	raw := bytes.TrimSuffix(b.Bytes(), []byte("\n"))
	if mangled(raw) {
		return nil, errors.New("a text is not UTF-8")
	}
	return raw, nil
}

// table gathers the specs of a part.
type table struct {
	specs   specs
	written map[any]json.RawMessage
}

// write gives the text of a spec, which is made once for all parts.
func (t *table) write(spec any) (json.RawMessage, error) {
	if raw, known := t.written[spec]; known {
		return raw, nil
	}
	raw, err := marshal(spec)
	if err != nil {
		return nil, err
	}
	t.written[spec] = raw
	return raw, nil
}

// put adds a spec. Documents of a kind have a name each, so two of one name are a fault.
func (t *table) put(field, name string, raw json.RawMessage) error {
	if t.specs[field] == nil {
		t.specs[field] = map[string]json.RawMessage{}
	}
	if is, there := t.specs[field][name]; there && !bytes.Equal(is, raw) {
		return fmt.Errorf("%s: two specs have the name %.320q", field, name)
	}
	t.specs[field][name] = raw
	return nil
}

// take implements kind.
func (k kindOf[S]) take(s *bundle.Site, to *table) (field string, names []string, err error) {
	all := k.of(s)
	for name, spec := range *all {
		if spec == nil {
			return "", nil, fmt.Errorf("%s: %.320q is nothing", k.field, name)
		}
		raw, err := to.write(spec)
		if err != nil {
			return "", nil, fmt.Errorf("%s: %.320q: %w", k.field, name, err)
		}
		if err := to.put(k.field, name, raw); err != nil {
			return "", nil, err
		}
		names = append(names, name)
	}
	*all = nil
	slices.Sort(names)
	return k.field, names, nil
}
