package pop

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/relais-edge/relais/internal/fleet"
	"github.com/relais-edge/relais/internal/manifest"
)

// disk keeps states and blobs. Every file is there whole or not at all, as far as this process dies; what a power cut
// tears is found by its digest. So nothing waits for the disk before it is served.
type disk struct {
	dir string
	mu  sync.Mutex
}

const (
	stateDir  = "states"
	blobDir   = "blobs"
	keysFile  = "keys.json"
	purgeFile = "purged.json"
	trialFile = "trial.json"
)

func openDisk(dir string) (*disk, error) {
	for _, d := range []string{stateDir, blobDir} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o700); err != nil {
			return nil, err
		}
	}
	d := &disk{dir: dir}
	d.sweepTemporary()
	return d, nil
}

// sweepTemporary removes what a process before this one was writing when it died.
func (d *disk) sweepTemporary() {
	for _, sub := range []string{".", stateDir, blobDir} {
		entries, _ := os.ReadDir(filepath.Join(d.dir, sub))
		for _, e := range entries {
			if strings.HasSuffix(e.Name(), ".tmp") {
				_ = os.Remove(filepath.Join(d.dir, sub, e.Name()))
			}
		}
	}
}

// write puts data into a file, whole or not at all.
func (d *disk) write(name string, data []byte) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	path := filepath.Join(d.dir, name)
	tmp := path + ".tmp"
	if err := os.WriteFile(tmp, data, 0o600); err != nil {
		_ = os.Remove(tmp)
		return err
	}
	return os.Rename(tmp, path)
}

// sealed is JSON with its digest before it, so that what was torn is not read.
func sealed(v any) ([]byte, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	return append([]byte(manifest.Of(b).String()+"\n"), b...), nil
}

var errTorn = errors.New("is not whole")

func (d *disk) read(name string, to any) error {
	data, err := os.ReadFile(filepath.Join(d.dir, name))
	if err != nil {
		return err
	}
	const n = 2 * len(manifest.Digest{})
	if len(data) <= n || data[n] != '\n' || manifest.Of(data[n+1:]).String() != string(data[:n]) {
		return fmt.Errorf("%s %w", name, errTorn)
	}
	return json.Unmarshal(data[n+1:], to)
}

func (d *disk) writeSealed(name string, v any) error {
	b, err := sealed(v)
	if err != nil {
		return err
	}
	return d.write(name, b)
}

func stateName(p manifest.Position) string {
	return filepath.Join(stateDir, fmt.Sprintf("%020d-%020d.json", p.Epoch, p.Revision))
}

// put keeps a state.
func (d *disk) put(s *state) error { return d.writeSealed(stateName(s.head.Position), s) }

// list gives the states that can be read, the newest first.
func (d *disk) list() (all []*state) {
	entries, _ := os.ReadDir(filepath.Join(d.dir, stateDir))
	for _, e := range entries {
		s := &state{}
		if d.read(filepath.Join(stateDir, e.Name()), s) != nil || json.Unmarshal(s.Signed.Head, &s.head) != nil {
			continue
		}
		s.table = manifest.NewTable(s.Tenants)
		if s.table.Digest() == s.head.Table {
			all = append(all, s)
		}
	}
	slices.SortFunc(all, func(a, b *state) int {
		return cmp.Or(cmp.Compare(b.head.Epoch, a.head.Epoch), cmp.Compare(b.head.Revision, a.head.Revision))
	})
	return all
}

func (d *disk) blobPath(g manifest.Digest) string { return filepath.Join(blobDir, g.String()) }

// blob reads a blob that is whole; nil otherwise.
func (d *disk) blob(ref manifest.Ref) []byte {
	data, err := os.ReadFile(filepath.Join(d.dir, d.blobPath(ref.Digest)))
	if err != nil || manifest.Of(data) != ref.Digest {
		return nil
	}
	return data
}

func (d *disk) putBlob(data []byte) error { return d.write(d.blobPath(manifest.Of(data)), data) }

// sweep removes states beyond those that are kept, and blobs that none of these names. It gives the bytes of blobs that
// stay.
func (d *disk) sweep(keep int, parts func(index []byte) ([]manifest.Ref, error)) int64 {
	all := d.list()
	named := map[string]bool{}
	for i, s := range all {
		if i > keep {
			_ = os.Remove(filepath.Join(d.dir, stateName(s.head.Position)))
			continue
		}
		for _, t := range s.Tenants {
			d.name(t.Index, named, parts)
		}
		for _, h := range s.Held {
			d.name(h.Index, named, parts)
		}
	}
	var bytes int64
	entries, _ := os.ReadDir(filepath.Join(d.dir, blobDir))
	for _, e := range entries {
		if !named[e.Name()] {
			_ = os.Remove(filepath.Join(d.dir, blobDir, e.Name()))
		} else if info, err := e.Info(); err == nil {
			bytes += info.Size()
		}
	}
	return bytes
}

func (d *disk) name(index manifest.Ref, named map[string]bool, parts func([]byte) ([]manifest.Ref, error)) {
	if index.Size == 0 || named[index.Digest.String()] {
		return
	}
	named[index.Digest.String()] = true
	if data := d.blob(index); data != nil {
		refs, _ := parts(data)
		for _, r := range refs {
			named[r.Digest.String()] = true
		}
	}
}

func (d *disk) keys() *manifest.KeySet {
	set := &manifest.KeySet{}
	if d.read(keysFile, set) != nil {
		return nil
	}
	return set
}

func (d *disk) purged() (p fleet.PurgePosition, known bool) {
	return p, d.read(purgeFile, &p) == nil
}

// trial remembers starts with a state of which it is not known yet whether it is good.
type trial struct {
	manifest.Position
	Starts  int   `json:"starts"`            // that ended before it was
	Process int64 `json:"process,omitempty"` // when the process that tried last began
	// Refused is a state that was given up, until Again.
	Refused manifest.Position `json:"refused"`
	Again   time.Time         `json:"again,omitzero"`
}

func (d *disk) trial() (t trial) {
	_ = d.read(trialFile, &t)
	return t
}

func (d *disk) setTrial(t trial) error { return d.writeSealed(trialFile, &t) }
