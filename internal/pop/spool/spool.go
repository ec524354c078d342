// Package spool keeps usage records on the PoP's disk until the control plane has them: what Append has acknowledged
// outlives kill -9 and a loss of power, and is counted once however often it is sent.
package spool

import (
	"cmp"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/relais-edge/relais/internal/usage"
)

// Bounds.
const (
	defaultBytes = 256 << 20
	maxSegments  = 100_000
	leastBytes   = 64 << 10
)

// ErrFull says that the spool has no room: nothing was stored, and what was to be is the caller's to keep.
var ErrFull = errors.New("the spool is full")

// Config of a Spool.
type Config struct {
	Dir   string // made when it is missing
	Pop   string
	Bytes int64 // on disk, all files together; 0: 256 MiB
	// Report tells of damage; nil for nobody.
	Report func(msg string, args ...any)

	write func(*os.File, []byte) error // for tests of full disks; nil: to the file
}

// Spool is a folder of segments. Each Append makes one, which is never changed: it is there whole or not at all. Each Spool
// that is opened has an id of its own, under which it numbers its records, so that neither a wiped disk, nor one that was set
// back to an old copy, nor two processes of an upgrade ever give one number to two records.
type Spool struct {
	cfg Config
	id  usage.SpoolID

	mu      sync.Mutex
	next    int64                   // number of the next record
	ordinal uint64                  // of the next segment
	acked   map[usage.SpoolID]int64 // of segments that are acknowledged in part
	damaged int64
}

// segment is a file: ORDINAL-SPOOL-FIRST-LAST.usage
type segment struct {
	name        string
	ordinal     uint64
	spool       usage.SpoolID
	first, last int64
	size        int64
}

const (
	ending        = ".usage"
	endingDamaged = ".damaged"
	endingTemp    = ".tmp"
)

// Open opens the spool in a folder. Unfinished segments of a process that was killed go.
func Open(cfg Config) (*Spool, error) {
	if cfg.Bytes == 0 {
		cfg.Bytes = defaultBytes
	}
	if cfg.Bytes < leastBytes {
		return nil, fmt.Errorf("usage spool: %d bytes are too few; give it %d or more", cfg.Bytes, leastBytes)
	}
	if cfg.Report == nil {
		cfg.Report = func(string, ...any) {}
	}
	if cfg.write == nil {
		cfg.write = func(f *os.File, b []byte) error {
			_, err := f.Write(b)
			return err
		}
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("usage spool: %w; give a folder that this user may write", err)
	}
	s := &Spool{cfg: cfg, next: 1, acked: map[usage.SpoolID]int64{}}
	_, _ = rand.Read(s.id[:]) // never fails
	probe := usage.Batch{Pop: cfg.Pop, Spool: s.id, Records: []usage.Record{{Sequence: 1, Slot: usage.Slot{Organization: "o", Site: "s", Hour: 500_000}}}}
	if err := probe.Check(); err != nil {
		return nil, fmt.Errorf("usage spool: %w; name the PoP with lower-case letters, digits, dots and dashes", err)
	}
	list, _, err := s.scan()
	if err != nil {
		return nil, err
	}
	for _, g := range list {
		s.ordinal = max(s.ordinal, g.ordinal+1)
	}
	return s, s.removeTemps()
}

// ID is the id under which this Spool numbers what is appended.
func (s *Spool) ID() usage.SpoolID { return s.id }

// removeTemps removes segments that never became any. One that another process is writing is written again by it.
func (s *Spool) removeTemps() error {
	list, err := filepath.Glob(filepath.Join(s.cfg.Dir, "*"+endingTemp))
	if err != nil {
		return fmt.Errorf("usage spool: %w", err)
	}
	for _, name := range list {
		if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("usage spool: %w", err)
		}
	}
	return nil
}

// scan lists the segments, the oldest first, and the bytes of all files.
func (s *Spool) scan() (list []segment, bytes int64, err error) {
	entries, err := os.ReadDir(s.cfg.Dir)
	if err != nil {
		return nil, 0, fmt.Errorf("usage spool: %w", err)
	}
	for _, e := range entries {
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue // it was acknowledged meanwhile
		}
		if err != nil {
			return nil, 0, fmt.Errorf("usage spool: %w", err)
		}
		bytes += info.Size()
		if g, ok := parseName(e.Name()); ok {
			g.size = info.Size()
			list = append(list, g)
		}
	}
	slices.SortFunc(list, func(a, b segment) int {
		return cmp.Or(cmp.Compare(a.ordinal, b.ordinal), cmp.Compare(a.name, b.name))
	})
	return list, bytes, nil
}

func parseName(name string) (g segment, ok bool) {
	base, ok := strings.CutSuffix(name, ending)
	parts := strings.Split(base, "-")
	if !ok || len(parts) != 4 {
		return g, false
	}
	var errs [4]error
	g.name = name
	g.ordinal, errs[0] = strconv.ParseUint(parts[0], 16, 64)
	g.spool, errs[1] = usage.ParseSpoolID(parts[1])
	g.first, errs[2] = strconv.ParseInt(parts[2], 10, 64)
	g.last, errs[3] = strconv.ParseInt(parts[3], 10, 64)
	return g, errors.Join(errs[:]...) == nil && g.first > 0 && g.last >= g.first
}

// Append stores records and returns when they outlive a loss of power: that is their acknowledgement. After an error
// nothing is stored, and the records are still the caller's.
func (s *Spool) Append(records []usage.Record) error {
	if len(records) == 0 {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	first := s.next
	data, err := s.encode(records, first)
	if err != nil {
		return err
	}
	list, bytes, err := s.scan()
	if err != nil {
		return err
	}
	if bytes+int64(len(data)) > s.cfg.Bytes || len(list) >= maxSegments {
		return fmt.Errorf("%w: %d bytes in %d segments, of %d bytes", ErrFull, bytes, len(list), s.cfg.Bytes)
	}
	last := first + int64(len(records)) - 1
	name := fmt.Sprintf("%016x-%s-%d-%d", s.ordinal, s.id, first, last)
	if err := s.put(name, data); err != nil {
		return fmt.Errorf("usage spool: %w", err)
	}
	s.next = last + 1
	s.ordinal++
	return nil
}

// encode writes batches, each with its length before it.
func (s *Spool) encode(records []usage.Record, first int64) ([]byte, error) {
	var data []byte
	for part := range slices.Chunk(records, usage.MaxRecords) {
		b := usage.Batch{Pop: s.cfg.Pop, Spool: s.id, Records: slices.Clone(part)}
		for i := range b.Records {
			b.Records[i].Sequence = first
			first++
		}
		at := len(data)
		data = append(data, 0, 0, 0, 0)
		var err error
		if data, err = b.Append(data); err != nil {
			return nil, fmt.Errorf("usage spool: %w", err)
		}
		binary.LittleEndian.PutUint32(data[at:], uint32(len(data)-at-4))
	}
	return data, nil
}

// put makes a file, whole or not at all.
func (s *Spool) put(name string, data []byte) error {
	path := filepath.Join(s.cfg.Dir, name)
	f, err := os.OpenFile(path+endingTemp, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	err = s.cfg.write(f, data)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, os.Remove(path+endingTemp))
	}
	if err := os.Rename(path+endingTemp, path+ending); err != nil {
		_ = os.Remove(path + endingTemp) // perhaps it is gone: then that is the reason
		return err
	}
	if err := syncDir(s.cfg.Dir); err != nil {
		// The number is given again, so that the segment, should it outlive this, is not counted beside its successor.
		return errors.Join(err, os.Remove(path+ending))
	}
	return nil
}

func syncDir(name string) error {
	d, err := os.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// Next gives the oldest records that are not acknowledged, up to limit and of one spool; nil when there are none. It gives
// the same ones until they are.
func (s *Spool) Next(limit int) (*usage.Batch, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	list, _, err := s.scan()
	if err != nil {
		return nil, err
	}
	for _, g := range list {
		acked := s.acked[g.spool]
		if g.last <= acked {
			if err := s.remove(g); err != nil {
				return nil, err
			}
			continue
		}
		b, err := s.read(g, acked)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue // another process was told that it is acknowledged
		case errors.Is(err, usage.ErrInvalid):
			if err := s.setAside(g, err); err != nil {
				return nil, err
			}
			continue
		case err != nil:
			return nil, fmt.Errorf("usage spool: %w", err)
		}
		if limit > 0 && len(b.Records) > limit {
			b.Records = b.Records[:limit]
		}
		return b, nil
	}
	return nil, nil
}

// read gives the records of a segment after a number, of its first batch that has any.
func (s *Spool) read(g segment, after int64) (*usage.Batch, error) {
	data, err := os.ReadFile(filepath.Join(s.cfg.Dir, g.name))
	if err != nil {
		return nil, err
	}
	want := g.first
	var found *usage.Batch
	for len(data) > 0 {
		if len(data) < 4 || uint64(binary.LittleEndian.Uint32(data)) > uint64(len(data)-4) {
			return nil, fmt.Errorf("%w: the segment is cut", usage.ErrInvalid)
		}
		n := binary.LittleEndian.Uint32(data)
		b, err := usage.ReadBatch(data[4 : 4+n])
		if err != nil {
			return nil, err
		}
		if b.Pop != s.cfg.Pop || b.Spool != g.spool || b.First() != want {
			return nil, fmt.Errorf("%w: the segment holds records of another", usage.ErrInvalid)
		}
		want = b.Last() + 1
		data = data[4+n:]
		if found == nil && b.Last() > after {
			b.Records = b.Records[max(after+1-b.First(), 0):]
			found = b
		}
	}
	if want != g.last+1 {
		return nil, fmt.Errorf("%w: the segment is cut", usage.ErrInvalid)
	}
	return found, nil
}

// setAside keeps a damaged segment out of the way, for a person to look at.
func (s *Spool) setAside(g segment, why error) error {
	s.damaged++
	s.cfg.Report("a segment of usage records is damaged; they are lost, and the segment is set aside", "file", filepath.Join(s.cfg.Dir, g.name),
		"records", g.last-g.first+1, "err", why)
	from := filepath.Join(s.cfg.Dir, g.name)
	if err := os.Rename(from, from+endingDamaged); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("usage spool: %w", err)
	}
	return nil
}

// Acknowledge says that the control plane has the records of a spool up to a number, for good. They are removed.
func (s *Spool) Acknowledge(id usage.SpoolID, sequence int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	list, _, err := s.scan()
	if err != nil {
		return err
	}
	s.acked[id] = max(s.acked[id], sequence)
	left := false
	for _, g := range list {
		switch {
		case g.spool != id:
		case g.last > s.acked[id]:
			left = true
		default:
			err = errors.Join(err, s.remove(g))
		}
	}
	if !left && id != s.id && err == nil {
		delete(s.acked, id)
	}
	return err
}

func (s *Spool) remove(g segment) error {
	if err := os.Remove(filepath.Join(s.cfg.Dir, g.name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("usage spool: %w", err)
	}
	return nil
}

// Stats are what a spool holds.
type Stats struct {
	Segments int
	Bytes    int64 // with what is damaged
	Records  int64 // that wait
	Damaged  int64 // segments that could not be read, since it was opened
}

// Stats counts what is there.
func (s *Spool) Stats() (Stats, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	list, bytes, err := s.scan()
	st := Stats{Segments: len(list), Bytes: bytes, Damaged: s.damaged}
	for _, g := range list {
		st.Records += g.last - max(g.first-1, min(s.acked[g.spool], g.last))
	}
	return st, err
}
