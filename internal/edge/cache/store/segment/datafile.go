package segment

import (
	"errors"
	"io/fs"
	"os"
	"syscall"
)

// openFile is a segment's data file.
type openFile struct {
	File
	raw syscall.RawConn // nil when the kernel does not know it
	fd  uintptr         // with raw; good while the segment is pinned
}

// readAt is io.ReaderAt. What is in the page cache is read at once.
func (f *openFile) readAt(p []byte, off int64) (int, error) {
	if f.raw != nil && readNow(f.fd, p, off) {
		return len(p), nil
	}
	return f.File.ReadAt(p, off)
}

// open gives the data file, which stays open.
func (d *diskPart) open() (*openFile, error) {
	if f := d.file.Load(); f != nil {
		return f, nil
	}
	d.opening.Lock()
	defer d.opening.Unlock()
	if f := d.file.Load(); f != nil {
		return f, nil
	}
	file, err := d.dir.Open(d.data)
	if err != nil {
		return nil, err
	}
	f := &openFile{File: file}
	if sends, ok := file.(interface{ OS() *os.File }); ok {
		if raw, err := sends.OS().SyscallConn(); err == nil {
			f.raw, f.fd = raw, sends.OS().Fd()
		}
	}
	d.file.Store(f)
	return f, nil
}

// renew makes the data file a new one. Of the last life's there may be pages on their way to clients: the kernel has
// no copy of what it sends from a file, so they must not be written over. As long as it needs them they stay, and
// a process that gave the directory up, and still reads, has the old file.
func (d *diskPart) renew() error {
	d.opening.Lock()
	defer d.opening.Unlock()
	if f := d.file.Swap(nil); f != nil {
		f.Close()
	}
	if err := d.dir.Remove(d.data); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
