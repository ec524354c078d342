package store

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/relais-edge/relais/internal/edge/cache/store/admission"
	"github.com/relais-edge/relais/internal/edge/cache/store/curve"
	"github.com/relais-edge/relais/internal/edge/cache/store/segment"
)

// MaxOrgs bounds the organizations that are told apart; those beyond share one account without a quota.
const MaxOrgs = 1 << 12

// Org is the account of an organization: what it has in each tier, what it may have, and what a cache
// of another size would have hit for it.
type Org struct {
	// Memory and Disk are safe for concurrent use; their quotas may be set at any time.
	Memory, Disk admission.Share
	// Curve is of the requests that Get and Writer saw.
	Curve *curve.Curve

	name   string
	number uint16
}

// Name is the organization's name; empty for the account of those that are not told apart.
func (o *Org) Name() string { return o.name }

// orgs numbers the organizations. A record has a number only, so the numbers are kept in a file
// beside the records, a name a line. A number is never given to another.
type orgs struct {
	list [MaxOrgs]atomic.Pointer[Org] // 0 is those that are not told apart

	mu      sync.Mutex
	byName  map[string]*Org
	n       int
	file    segment.File // nil without a disk tier
	written int64
	samples int
}

const orgsName = "organizations"

// open begins with names that are known, a line each.
func (a *orgs) open(names string, samples int) error {
	a.byName, a.n, a.samples = map[string]*Org{}, 1, samples
	if err := a.add(0, ""); err != nil {
		return err
	}
	return a.append(names)
}

func (a *orgs) append(names string) error {
	whole := strings.LastIndexByte(names, '\n') + 1 // the last line may be torn
	for name := range strings.Lines(names[:whole]) {
		if a.n == MaxOrgs {
			break
		}
		if err := a.add(a.n, strings.TrimSuffix(name, "\n")); err != nil {
			return err
		}
		a.n++
	}
	return nil
}

// attach reads the names that an earlier process left, and adds those that it did not know. Where both
// know another name by a number ours counts, and what is there of the other is counted as ours.
func (a *orgs) attach(dir segment.Dir) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	b, f, err := readAll(dir, orgsName)
	if err != nil {
		return fmt.Errorf("store: the names of organizations: %w", err)
	}
	whole := string(b[:strings.LastIndexByte(string(b), '\n')+1])
	ours := ""
	for i := 1; i < a.n; i++ {
		ours += a.list[i].Load().name + "\n"
	}
	if theirs, more := strings.CutPrefix(whole, ours); more {
		err = a.append(theirs)
		ours += theirs
	} else if _, err = f.WriteAt([]byte(ours), 0); err == nil {
		err = f.Truncate(int64(len(ours)))
	}
	if err != nil {
		return errors.Join(fmt.Errorf("store: the names of organizations: %w", err), f.Close())
	}
	if a.file != nil {
		_ = a.file.Close()
	}
	a.file, a.written = f, int64(len(ours))
	return nil
}

// detach goes on without the file.
func (a *orgs) detach() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.file != nil {
		_ = a.file.Close()
		a.file = nil
	}
}

func (a *orgs) add(number int, name string) error {
	c, err := curve.New(curve.Config{Samples: a.samples})
	if err != nil {
		return fmt.Errorf("store: %w", err)
	}
	o := &Org{Curve: c, name: name, number: uint16(number)}
	a.list[number].Store(o)
	a.byName[name] = o
	return nil
}

// of finds or makes an account.
func (a *orgs) of(name string) *Org {
	a.mu.Lock()
	defer a.mu.Unlock()
	if o := a.byName[name]; o != nil {
		return o
	}
	others := a.list[0].Load()
	if a.n == MaxOrgs || strings.ContainsRune(name, '\n') {
		return others
	}
	if a.file != nil {
		line := name + "\n"
		if _, err := a.file.WriteAt([]byte(line), a.written); err != nil {
			return others // without its number on the disk, another's records could be counted as its own
		}
		a.written += int64(len(line))
	}
	if a.add(a.n, name) != nil {
		return others
	}
	a.n++
	return a.byName[name]
}

// at is the account of a record's number.
func (a *orgs) at(flags uint16) *Org {
	if o := a.list[flags&(MaxOrgs-1)].Load(); o != nil {
		return o
	}
	return a.list[0].Load()
}

func (a *orgs) close() error {
	if a.file == nil {
		return nil
	}
	return errors.Join(a.file.Sync(), a.file.Close())
}

// maxSmallFile bounds what is read of the store's own small files.
const maxSmallFile = 2 << 20

// readAll opens a file, makes it when there is none, and reads it.
func readAll(dir segment.Dir, name string) ([]byte, segment.File, error) {
	var size int64
	list, err := dir.List()
	if err != nil {
		return nil, nil, err
	}
	for _, f := range list {
		if f.Name == name {
			size = min(f.Size, maxSmallFile)
		}
	}
	f, err := dir.Open(name)
	if err != nil {
		return nil, nil, err
	}
	b := make([]byte, size)
	if n, err := f.ReadAt(b, 0); n < len(b) {
		return nil, nil, errors.Join(fmt.Errorf("%s: %w", name, err), f.Close())
	}
	return b, f, nil
}
