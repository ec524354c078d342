package segment

import (
	"errors"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
)

var errIO = errors.New("input/output error")

// fake is a Dir in memory that remembers every change since the last Sync of its file, so that
// a crash can be made at any byte, with or without the power going too.
type fake struct {
	mu    sync.Mutex
	files map[string]*fakeFile
	log   []change // all changes in their order
	fail  func(op, name string) error
}

type fakeFile struct {
	dir  *fake
	name string
	data []byte
}

type change struct {
	file     *fakeFile
	name     string
	truncate bool
	remove   bool
	off      int64
	data     []byte
	synced   bool
}

func newFake() *fake { return &fake{files: map[string]*fakeFile{}} }

func (d *fake) failing(op, name string) error {
	if d.fail != nil {
		return d.fail(op, name)
	}
	return nil
}

func (d *fake) Open(name string) (File, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f := d.files[name]
	if f == nil {
		if err := d.failing("create", name); err != nil {
			return nil, err
		}
		f = &fakeFile{dir: d, name: name}
		d.files[name] = f
	}
	return f, nil
}

func (d *fake) List() ([]FileInfo, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	var out []FileInfo
	for _, n := range slices.Sorted(maps.Keys(d.files)) {
		out = append(out, FileInfo{n, int64(len(d.files[n].data))})
	}
	return out, nil
}

func (d *fake) Rename(from, to string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.files[from] == nil {
		return errIO
	}
	d.files[to] = d.files[from]
	d.files[to].name = to
	delete(d.files, from)
	return nil
}

func (d *fake) Remove(name string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	f := d.files[name]
	if f == nil {
		return fs.ErrNotExist
	}
	if err := d.failing("remove", name); err != nil {
		return err
	}
	d.log = append(d.log, change{file: f, name: name, remove: true})
	delete(d.files, name)
	return nil
}

func (d *fake) Close() error { return nil }

func (f *fakeFile) ReadAt(p []byte, off int64) (int, error) {
	f.dir.mu.Lock()
	defer f.dir.mu.Unlock()
	if err := f.dir.failing("read", f.name); err != nil {
		return 0, err
	}
	if off >= int64(len(f.data)) {
		return 0, io.EOF
	}
	n := copy(p, f.data[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (f *fakeFile) apply(c *change) {
	if c.truncate {
		f.data = f.data[:min(int64(len(f.data)), c.off)]
		return
	}
	if need := c.off + int64(len(c.data)); need > int64(len(f.data)) {
		f.data = append(f.data, make([]byte, need-int64(len(f.data)))...)
	}
	copy(f.data[c.off:], c.data)
}

func (f *fakeFile) WriteAt(p []byte, off int64) (int, error) {
	f.dir.mu.Lock()
	defer f.dir.mu.Unlock()
	if err := f.dir.failing("write", f.name); err != nil {
		n := len(p) / 2 // a failing disk may have taken some
		f.apply(&change{off: off, data: p[:n]})
		return n, err
	}
	c := change{file: f, name: f.name, off: off, data: slices.Clone(p)}
	f.dir.log = append(f.dir.log, c)
	f.apply(&c)
	return len(p), nil
}

func (f *fakeFile) Truncate(size int64) error {
	f.dir.mu.Lock()
	defer f.dir.mu.Unlock()
	if err := f.dir.failing("write", f.name); err != nil {
		return err
	}
	c := change{file: f, name: f.name, truncate: true, off: size}
	f.dir.log = append(f.dir.log, c)
	f.apply(&c)
	return nil
}

func (f *fakeFile) Sync() error {
	f.dir.mu.Lock()
	defer f.dir.mu.Unlock()
	if err := f.dir.failing("sync", f.name); err != nil {
		return err
	}
	for i := range f.dir.log {
		if f.dir.log[i].file == f {
			f.dir.log[i].synced = true
		}
	}
	return nil
}

func (f *fakeFile) Close() error { return nil }

// killed is the directory as kill -9 leaves it after the first n bytes of what was written.
func (d *fake) killed(n int) *fake {
	out := newFake()
	for i := range d.log {
		c := d.log[i]
		if n <= 0 {
			break
		}
		if !c.truncate && len(c.data) > n {
			c.data = c.data[:n]
		}
		n -= max(len(c.data), 1)
		if c.remove {
			delete(out.files, c.name)
			continue
		}
		out.file(c.file.name).apply(&c)
	}
	return out
}

func (d *fake) file(name string) *fakeFile {
	if d.files[name] == nil {
		d.files[name] = &fakeFile{dir: d, name: name}
	}
	return d.files[name]
}

// powerless is the directory as a power cut leaves it after the first n changes: what was
// synced by then, and of the rest any sectors at all.
func (d *fake) powerless(n int, rng *rand.Rand, synced []bool) *fake {
	const sector = 512
	out := newFake()
	odds := rng.IntN(5)
	for i := range d.log[:n] {
		c := d.log[i]
		if c.remove { // where it was not kept what follows is written over the old file, which is worse than two files
			if rng.IntN(4) < odds {
				delete(out.files, c.name)
			}
			continue
		}
		f := out.file(c.file.name)
		if synced[i] {
			f.apply(&c)
			continue
		}
		if c.truncate {
			if rng.IntN(4) < odds {
				f.apply(&c)
			}
			continue
		}
		for off := int64(0); off < int64(len(c.data)); {
			to := min((c.off+off)/sector*sector+sector-c.off, int64(len(c.data)))
			if rng.IntN(4) < odds {
				f.apply(&change{off: c.off + off, data: c.data[off:to]})
			}
			off = to
		}
	}
	return out
}

// syncedAt gives for each change whether it was synced by now.
func (d *fake) syncedNow() []bool {
	out := make([]bool, len(d.log))
	for i := range d.log {
		out[i] = d.log[i].synced
	}
	return out
}

func (d *fake) written() (n int) {
	for _, c := range d.log {
		n += max(len(c.data), 1)
	}
	return n
}
