package segment

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// File is what the log needs of a file. A File that has a method OS() *os.File can be sent
// by the kernel; see Object.File.
type File interface {
	io.ReaderAt
	io.WriterAt
	Truncate(size int64) error
	Sync() error
	Close() error
}

// FileInfo names a file and its length in bytes.
type FileInfo struct {
	Name string
	Size int64
}

// Dir is a flat directory that one process uses at a time.
type Dir interface {
	// Open opens a file for reading and writing, and makes it when there is none.
	Open(name string) (File, error)
	List() ([]FileInfo, error)
	Rename(from, to string) error
	Remove(name string) error
	// Close gives up the directory to the next process.
	Close() error
}

// ErrInUse says that another process has the directory; it gives it up when it ends.
var ErrInUse = errors.New("segment: the directory is in use by another process")

type osDir struct {
	path string
	lock *os.File
}

type osFile struct{ *os.File }

// OS gives the file to those who let the kernel send it.
func (f osFile) OS() *os.File { return f.File }

// OpenDir takes a directory of the file system, and makes it when there is none. A second
// process gets ErrInUse until the first has closed it or died.
func OpenDir(path string) (Dir, error) {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, err
	}
	lock, err := os.OpenFile(filepath.Join(path, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if readOnly(err) {
		lock, err = os.Open(path) // a directory can be locked too
	}
	if err != nil {
		return nil, err
	}
	if err := flock(lock); err != nil {
		lock.Close()
		return nil, err
	}
	return &osDir{path, lock}, nil
}

func readOnly(err error) bool { return errors.Is(err, fs.ErrPermission) || isReadOnly(err) }

func (d *osDir) Open(name string) (File, error) {
	p := filepath.Join(d.path, name)
	f, err := os.OpenFile(p, os.O_RDWR|os.O_CREATE, 0o600)
	if readOnly(err) {
		f, err = os.Open(p) // to read; each write says that it cannot
	}
	if err != nil {
		return nil, err
	}
	return osFile{f}, nil
}

func (d *osDir) List() ([]FileInfo, error) {
	es, err := os.ReadDir(d.path)
	if err != nil {
		return nil, err
	}
	var out []FileInfo
	for _, e := range es {
		if info, err := e.Info(); err == nil && info.Mode().IsRegular() {
			out = append(out, FileInfo{e.Name(), info.Size()})
		}
	}
	return out, nil
}

func (d *osDir) Rename(from, to string) error {
	return os.Rename(filepath.Join(d.path, from), filepath.Join(d.path, to))
}
func (d *osDir) Remove(name string) error { return os.Remove(filepath.Join(d.path, name)) }
func (d *osDir) Close() error             { return d.lock.Close() }
