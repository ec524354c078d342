// Package geo says where addresses are: their country and the autonomous system that announces them, from MMDB
// files that the operator names (MaxMind's GeoIP and GeoLite, IPinfo's, DB-IP's and others of that form). Files are
// read again when they change; one that cannot be read changes nothing.
package geo

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/oschwald/maxminddb-golang/v2"

	"github.com/relais-edge/relais/internal/observe"
)

// Limits.
const (
	maxFiles = 8
	maxBytes = 1 << 30 // of a file, which is kept in memory
	// remembered records of a file; a record is what all addresses of a country, or of a network, share.
	remembered = 1 << 12
)

// Config of Places.
type Config struct {
	// Files are asked in order: the first that knows the country, and the first that knows the network, counts.
	Files []string
	// Every is how often the files are looked at; 0 means every 10 s.
	Every time.Duration
	// Report is told when a file was read anew or could not be; nil for nobody.
	Report func(msg string, args ...any)
}

// Places finds places. The methods may be called by many at once.
type Places struct {
	cfg     Config
	files   []*file
	reloads observe.Counter
	failed  observe.Counter
}

// file is one database and what was read of it.
type file struct {
	name string
	at   atomic.Pointer[database]
	seen stamp
}

type database struct {
	reader  *maxminddb.Reader
	records [remembered]atomic.Pointer[record]
}

// record is what a database says of an address.
type record struct {
	offset  uintptr
	country string
	asn     uint32
}

type stamp struct {
	size int64
	mod  time.Time
}

// New reads the files. Its metric is relais_geoip_reloads_total by result: good or failed.
func New(cfg Config, m *observe.Registry) (*Places, error) {
	if len(cfg.Files) > maxFiles {
		return nil, fmt.Errorf("there are more than %d files of places", maxFiles)
	}
	if cfg.Every == 0 {
		cfg.Every = 10 * time.Second
	}
	if cfg.Report == nil {
		cfg.Report = func(string, ...any) {}
	}
	c := m.Counters("relais_geoip_reloads_total", "Files of places that had changed and were read again, by result: good or failed.", 2, "result")
	p := &Places{cfg: cfg, reloads: c.With("good"), failed: c.With("failed")}
	for _, name := range cfg.Files {
		f := &file{name: name}
		if err := f.load(); err != nil {
			return nil, err
		}
		p.files = append(p.files, f)
	}
	return p, nil
}

// load reads the file.
func (f *file) load() error {
	info, err := os.Stat(f.name)
	if err != nil {
		return fmt.Errorf("places: %w", err)
	}
	f.seen = stamp{info.Size(), info.ModTime()}
	if !info.Mode().IsRegular() || info.Size() > maxBytes {
		return fmt.Errorf("places: %s is not a file of at most 1 GiB", f.name)
	}
	b, err := os.ReadFile(f.name) // not mapped: a file that is cut short while it is read would end the process
	if err != nil {
		return fmt.Errorf("places: %w", err)
	}
	r, err := maxminddb.OpenBytes(b)
	if err != nil {
		return fmt.Errorf("places: %s is not a database in MMDB form: %w", f.name, err)
	}
	db := &database{reader: r}
	if err := db.try(); err != nil {
		return fmt.Errorf("places: %s cannot be searched: %w", f.name, err)
	}
	f.at.Store(db)
	return nil
}

// try looks some addresses up, so that a broken file is found before it is used.
func (d *database) try() error {
	if d.reader.Metadata.NodeCount == 0 {
		return errors.New("it is empty")
	}
	for _, a := range [...]string{"1.1.1.1", "8.8.8.8", "81.2.69.142", "193.0.6.139", "2001:4860:4860::8888"} {
		r := d.reader.Lookup(netip.MustParseAddr(a))
		if err := r.Err(); err != nil && !strings.Contains(err.Error(), "IPv6 address in an IPv4") {
			return err
		}
	}
	return nil
}

// Run reads files again that have changed, until ctx ends.
func (p *Places) Run(ctx context.Context) error {
	tick := time.NewTicker(p.cfg.Every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			p.Reload()
		}
	}
}

// Reload reads again what has changed. A file that cannot be read is tried again when it has changed once more.
func (p *Places) Reload() {
	for _, f := range p.files {
		info, err := os.Stat(f.name)
		if err != nil || (stamp{info.Size(), info.ModTime()}) == f.seen {
			continue // one that is gone is being replaced
		}
		if err := f.load(); err != nil {
			p.failed.Inc()
			p.cfg.Report("a file of places cannot be read; what was read before holds", "err", err)
			continue
		}
		p.reloads.Inc()
		p.cfg.Report("a file of places was read anew", "file", f.name, "built", f.at.Load().reader.Metadata.BuildTime().UTC().Format(time.DateOnly))
	}
}

// Find gives the country of an address as two letters, empty when it is not known, and the number of its
// autonomous system, 0 when it is not known. It allocates nothing for records that it has met.
func (p *Places) Find(a netip.Addr) (country string, asn uint32) {
	if !a.IsValid() {
		return "", 0
	}
	a = a.Unmap().WithZone("")
	for _, f := range p.files {
		r := f.at.Load().find(a)
		if r == nil {
			continue
		}
		if country == "" {
			country = r.country
		}
		if asn == 0 {
			asn = r.asn
		}
	}
	return country, asn
}

func (d *database) find(a netip.Addr) *record {
	found := d.reader.Lookup(a)
	if !found.Found() {
		return nil
	}
	at := found.Offset()
	place := &d.records[(at*0x9e3779b1)>>7%remembered]
	if r := place.Load(); r != nil && r.offset == at {
		return r
	}
	r := read(&found)
	r.offset = at
	place.Store(r)
	return r
}

// read reads a record in the forms that are about.
func read(found *maxminddb.Result) *record {
	r := &record{}
	for _, path := range [...][]any{{"country", "iso_code"}, {"country_code"}, {"country"}, {"registered_country", "iso_code"}} {
		var s string
		if found.DecodePath(&s, path...) == nil && len(s) == 2 {
			r.country = strings.ToUpper(s)
			break
		}
	}
	var n uint32
	if found.DecodePath(&n, "autonomous_system_number") == nil && n > 0 {
		r.asn = n
		return r
	}
	for _, path := range [...]string{"asn", "as_number"} {
		var s string
		if found.DecodePath(&s, path) == nil {
			if v, err := strconv.ParseUint(strings.TrimPrefix(strings.ToUpper(s), "AS"), 10, 32); err == nil {
				r.asn = uint32(v)
			}
		} else if found.DecodePath(&n, path) == nil {
			r.asn = n
		}
	}
	return r
}
