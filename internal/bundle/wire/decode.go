package wire

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/klauspost/compress/zstd"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/bundle"
	"github.com/relais-edge/relais/internal/manifest"
)

// Decode reads the bundle of an organization of an index and the blobs that it names, in the order of Parts. Specs that
// are the same are shared.
func Decode(organization string, index []byte, parts [][]byte) (*bundle.Bundle, error) {
	return NewReader(organization).Decode(index, parts)
}

// Reader reads bundles of one organization, one after another. Parts that the last one had too are not read again: what
// is in them stands in the next bundle by the same pointers. It is not safe for concurrent use.
type Reader struct {
	organization string
	read         map[manifest.Digest]*content
}

// NewReader makes a reader that has read nothing.
func NewReader(organization string) *Reader { return &Reader{organization: organization} }

// content is what was read of a part.
type content struct {
	sites        []*bundle.Site
	certificates []bundle.Certificate
	hosts        []bundle.CertificateHosts
}

// Decode is as the function.
func (r *Reader) Decode(index []byte, parts [][]byte) (*bundle.Bundle, error) {
	b, read, err := r.decode(index, parts)
	if err != nil {
		return nil, fmt.Errorf("bundle of %.64q: %w", r.organization, err)
	}
	r.read = read
	return b, nil
}

func (r *Reader) decode(index []byte, parts [][]byte) (*bundle.Bundle, map[manifest.Digest]*content, error) {
	x, err := ReadIndex(index)
	if err != nil {
		return nil, nil, err
	}
	if x.Organization != r.organization {
		return nil, nil, fmt.Errorf("the index is of organization %.64q", x.Organization)
	}
	all := x.refs()
	if len(all) != len(parts) {
		return nil, nil, fmt.Errorf("the index names %d blobs, and %d came", len(all), len(parts))
	}
	for i, ref := range all {
		if int64(len(parts[i])) != ref.Size || manifest.Of(parts[i]) != ref.Digest {
			return nil, nil, fmt.Errorf("blob %d is not the one that the index names", i)
		}
	}
	d, err := newDecoder()
	if err != nil {
		return nil, nil, err
	}
	defer d.zstd.Close()
	b := &bundle.Bundle{Format: bundle.Format, Organization: r.organization}
	if x.Head != nil {
		if err := d.head(b, parts[0]); err != nil {
			return nil, nil, fmt.Errorf("listeners and services: %w", err)
		}
		parts = parts[1:]
	}
	read := make(map[manifest.Digest]*content, len(parts))
	for i, data := range parts {
		ref := x.Parts[i].Digest
		c := r.read[ref]
		if c == nil {
			if c, err = d.part(data); err != nil {
				return nil, nil, fmt.Errorf("part %d: %w", i, err)
			}
		}
		if err := c.join(b, i, len(parts)); err != nil {
			return nil, nil, fmt.Errorf("part %d: %w", i, err)
		}
		read[ref] = c
	}
	sort(b)
	return b, read, b.Check(r.organization)
}

// join adds what a part has to a bundle.
func (c *content) join(b *bundle.Bundle, i, n int) error {
	for _, s := range c.sites {
		if place(s.Key, n) != i {
			return fmt.Errorf("site %.320q belongs to another part", s.Key)
		}
	}
	for j := range c.certificates {
		if k := c.certificates[j].Key; place(k, n) != i {
			return fmt.Errorf("certificate %.320q belongs to another part", k)
		}
	}
	b.Sites, b.Certificates, b.Hosts = append(b.Sites, c.sites...), append(b.Certificates, c.certificates...), append(b.Hosts, c.hosts...)
	if len(b.Sites) > MaxSites || len(b.Certificates) > MaxSites {
		return fmt.Errorf("%d sites or certificates are the most", MaxSites)
	}
	return nil
}

func sort(b *bundle.Bundle) {
	slices.SortFunc(b.Sites, func(x, y *bundle.Site) int { return cmp.Compare(x.Key, y.Key) })
	slices.SortFunc(b.Certificates, func(x, y bundle.Certificate) int { return cmp.Compare(x.Key, y.Key) })
	slices.SortFunc(b.Hosts, func(x, y bundle.CertificateHosts) int { return cmp.Compare(x.Site, y.Site) })
}

type decoder struct {
	zstd *zstd.Decoder
	left int // bytes that the bundle may still have
	made map[made]any
}

// made names a spec by its kind and the digest of its text.
type made struct {
	kind string
	text manifest.Digest
}

func newDecoder() (*decoder, error) {
	z, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(MaxPart), zstd.WithDecoderMaxMemory(MaxPart))
	if err != nil {
		return nil, err
	}
	return &decoder{z, MaxBundle, map[made]any{}}, nil
}

// open gives the JSON of a blob, in which nothing is without bounds.
func (d *decoder) open(data []byte) ([]byte, error) {
	if err := d.zstd.Reset(bytes.NewReader(data)); err != nil {
		return nil, err
	}
	most := min(MaxPart, d.left)
	raw, err := io.ReadAll(io.LimitReader(d.zstd, int64(most)+1))
	if err != nil {
		return nil, fmt.Errorf("is not zstd, or beyond its bounds: %w", err)
	}
	if len(raw) > most {
		return nil, fmt.Errorf("has more than %d bytes; %d are the most of a part, and %d of a bundle", most, MaxPart, MaxBundle)
	}
	d.left -= len(raw)
	return raw, scan(raw, most)
}

func (d *decoder) head(b *bundle.Bundle, data []byte) error {
	raw, err := d.open(data)
	if err != nil {
		return err
	}
	h := &head{}
	if err := unmarshal(raw, h, &h.Format); err != nil {
		return err
	}
	lib := &library{h.Specs, d.made, map[[2]string]any{}}
	for i := range h.Services {
		s := &h.Services[i]
		if s.Pool != nil {
			return fmt.Errorf("service %.320q: the pool stands in it", s.Key)
		}
		if s.Pool, err = find[v1.OriginPoolSpec](lib, "pools", s.Spec.Pool); err != nil {
			return fmt.Errorf("service %.320q: %w", s.Key, err)
		}
	}
	b.Listeners, b.Services = h.Listeners, h.Services
	return nil
}

func (d *decoder) part(data []byte) (*content, error) {
	raw, err := d.open(data)
	if err != nil {
		return nil, err
	}
	p := &part{}
	if err := unmarshal(raw, p, &p.Format); err != nil {
		return nil, err
	}
	c := &content{certificates: p.Certificates}
	lib := &library{p.Specs, d.made, map[[2]string]any{}}
	for i := range p.Sites {
		in := &p.Sites[i]
		s := in.Site // of its own, so that a site that goes does not keep its part
		if err := lib.site(&s, in.Use); err != nil {
			return nil, fmt.Errorf("site %.320q: %w", s.Key, err)
		}
		c.sites = append(c.sites, &s)
		if len(in.Certificates) > 0 {
			c.hosts = append(c.hosts, bundle.CertificateHosts{
				Site: s.Key, Listeners: s.Listeners, Hostnames: bundle.OwnHostnames(s.Hostnames), Certificates: in.Certificates,
			})
		}
	}
	return c, nil
}

// unmarshal reads a head or part.
func unmarshal(raw []byte, to any, format *int) error {
	if err := json.Unmarshal(raw, to); err != nil {
		return err
	}
	if *format != Format {
		return fmt.Errorf("is %w: %d, and this version reads %d", ErrFormat, *format, Format)
	}
	return nil
}

// library has the specs of a part.
type library struct {
	specs specs
	made  map[made]any
	found map[[2]string]any // by kind and name, so that a text is looked at once
}

func (l *library) site(s *bundle.Site, use map[string][]string) (err error) {
	for _, k := range kinds() {
		if err := k.put(s, use, l); err != nil {
			return err
		}
	}
	if s.Flood != nil {
		return errors.New("the spec of its flood policy stands in it")
	}
	switch names := use[floods]; len(names) {
	case 0:
	case 1:
		s.Flood, err = find[v1.FloodPolicySpec](l, floods, names[0])
	default:
		err = fmt.Errorf("names %d flood policies", len(names))
	}
	return err
}

// put implements kind.
func (k kindOf[S]) put(s *bundle.Site, use map[string][]string, from *library) error {
	all := k.of(s)
	if len(*all) > 0 {
		return fmt.Errorf("specs of %s stand in it", k.field)
	}
	*all = nil
	names := use[k.field]
	if len(names) == 0 {
		return nil
	}
	*all = make(map[string]*S, len(names))
	for _, name := range names {
		spec, err := find[S](from, k.field, name)
		if err != nil {
			return err
		}
		(*all)[name] = spec
	}
	return nil
}

// find gives a spec; those with one text are one.
func find[S any](l *library, field, name string) (*S, error) {
	at := [2]string{field, name}
	if spec, known := l.found[at].(*S); known {
		return spec, nil
	}
	raw, there := l.specs[field][name]
	if !there || bytes.Equal(raw, []byte("null")) {
		return nil, fmt.Errorf("%s: there is no spec %.320q", field, name)
	}
	id := made{field, manifest.Of(raw)}
	spec, known := l.made[id].(*S)
	if !known {
		spec = new(S)
		if err := json.Unmarshal(raw, spec); err != nil {
			return nil, fmt.Errorf("%s: %.320q: %w", field, name, err)
		}
		l.made[id] = spec
	}
	l.found[at] = spec
	return spec, nil
}
