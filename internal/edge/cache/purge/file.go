package purge

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"
)

// File is a Log in one file. Entries are appended; who calls Sync first writes for all who wait. When
// the file has many, it is written anew with those that still say something. What a crash tore off at
// its end is cut off; damage in the middle makes everything before it count as purged.
type File struct {
	path  string
	limit int

	mu       sync.Mutex
	cond     sync.Cond
	f        *os.File
	state    State
	pending  []byte // appended and not written
	waiting  int    // entries in pending
	written  uint64 // numbers up to here are kept
	size     int64  // of the file
	writing  bool
	closed   bool
	failures int   // to write
	err      error // the last of them
	crowded  int   // so many entries are compacted
	damaged  bool  // when it was opened
}

// Damaged says that not all of the file could be read when it was opened, so that what is older than the
// next good entry counts as purged.
func (l *File) Damaged() bool { return l.damaged }

var _ Log = (*File)(nil)

// beginning is when numbers began: the first second of 2025. A log that is begun anew begins with the
// seconds since, times maxWaiting.
const beginning = 1735689600

// maxWaiting is how many entries may wait to be written. Numbers go on from beyond it after a restart,
// as some of those that were lost may be on objects that were not.
const maxWaiting = 1 << 16

// OpenFile opens the log at path, or begins one. It keeps about limit entries.
func OpenFile(path string, limit int) (*File, error) { return openFile(path, limit, time.Now()) }

func openFile(path string, limit int, now time.Time) (*File, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("purge log: %w", err)
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("purge log: %w", err)
	}
	l := &File{path: path, limit: max(limit, 4), crowded: max(limit, 4), f: f}
	l.cond.L = &l.mu
	if err := l.recover(now); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("purge log %s: %w", path, err)
	}
	return l, nil
}

// recover reads the file from its beginning, mends it, and finds where numbers go on.
func (l *File) recover(now time.Time) error {
	b, err := os.ReadFile(l.path)
	if err != nil {
		return err
	}
	head, n, ok := readRecord(b)
	if ok {
		l.state.ID, l.state.Base, ok = parseHeader(head)
	}
	if !ok {
		// A new log, or one that cannot be read. Its numbers are beyond all that one before it can have
		// given, so that everything older counts as purged.
		l.damaged = len(b) > 0
		first := uint64(max(now.Unix()-beginning, 0)) << 16
		l.state = State{ID: newID(), Base: first, Last: first}
		l.written = first
		return l.rewrite(appendHeader(nil, l.state.ID, first))
	}
	last, damaged, disorder, end := l.state.Base, false, false, n
	for at := n; at < len(b); {
		payload, n, ok := readRecord(b[at:])
		var e Entry
		if ok {
			e, ok = parseEntry(payload)
		}
		if !ok {
			next := bytes.IndexByte(b[at+1:], recordMark)
			if next < 0 {
				break
			}
			at += 1 + next
			damaged = true
			continue
		}
		if damaged { // there is something good behind it, so it is no torn end
			l.state.Base, damaged, l.damaged = max(last, e.Number-1), false, true
		}
		disorder = disorder || e.Number <= last // of two processes, at an upgrade
		last = max(last, e.Number)
		l.state.Entries++
		at += n
		end = at
	}
	l.state.Last = last + maxWaiting
	l.written = l.state.Last
	if disorder || l.state.Base != baseOf(head) {
		return l.rewrite(l.good(b[:end]))
	}
	l.size = int64(end)
	if end < len(b) {
		if err := l.f.Truncate(l.size); err != nil {
			return err
		}
	}
	return nil
}

func baseOf(head []byte) uint64 {
	_, base, _ := parseHeader(head)
	return base
}

// good is what can be read of a file after its base, in order, as a file.
func (l *File) good(b []byte) []byte {
	out := appendHeader(nil, l.state.ID, l.state.Base)
	var list []Entry
	for at := 0; at < len(b); {
		payload, n, ok := readRecord(b[at:])
		if !ok {
			at++
			continue
		}
		if e, ok := parseEntry(payload); ok && e.Number > l.state.Base {
			list = append(list, e)
		}
		at += n
	}
	slices.SortStableFunc(list, func(a, b Entry) int { return cmp.Compare(a.Number, b.Number) })
	for i := range list {
		out = appendRecord(out, list[i].append(nil))
	}
	l.state.Entries = len(list)
	return out
}

// rewrite puts content in the place of the file, whole or not at all.
func (l *File) rewrite(content []byte) error {
	tmp := l.path + ".new"
	f, err := os.OpenFile(tmp, os.O_RDWR|os.O_CREATE|os.O_TRUNC|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = os.Rename(tmp, l.path)
	}
	if err != nil {
		_ = f.Close()
		return err
	}
	_ = l.f.Close()
	l.f, l.size = f, int64(len(content))
	return syncFolder(filepath.Dir(l.path))
}

// syncFolder keeps a new name in a folder.
func syncFolder(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// Append implements Log.
func (l *File) Append(e Entry) (uint64, error) {
	if err := e.Check(); err != nil {
		return 0, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for l.waiting >= maxWaiting && !l.closed {
		if err := l.flush(); err != nil {
			return 0, err
		}
	}
	if l.closed {
		return 0, errClosed
	}
	l.state.Last++
	e.Number = l.state.Last
	var b [256]byte
	l.pending = appendRecord(l.pending, e.append(b[:0]))
	l.waiting++
	l.state.Entries++
	return e.Number, nil
}

// Sync implements Log.
func (l *File) Sync(_ context.Context, number uint64) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for number = min(number, l.state.Last); l.written < number; {
		if l.closed {
			return errClosed
		}
		if err := l.flush(); err != nil {
			return err
		}
	}
	return nil
}

// flush writes what is pending, or waits for who does. The lock is held, and given up meanwhile.
func (l *File) flush() error {
	if l.writing {
		failures := l.failures
		l.cond.Wait()
		if l.failures != failures {
			return l.err
		}
		return nil
	}
	l.writing = true
	b, n, last := l.pending, l.waiting, l.state.Last
	l.pending, l.waiting = nil, 0
	l.mu.Unlock()
	_, err := l.f.Write(b)
	if err == nil {
		err = l.f.Sync()
	}
	if err != nil {
		// What was half written is taken off again, and tried anew with what comes next.
		_ = l.f.Truncate(l.size)
	}
	l.mu.Lock()
	if err == nil {
		l.written = last
		l.size += int64(len(b))
		if l.state.Entries-l.waiting > l.crowded {
			if err := l.compact(); err != nil {
				l.crowded += l.limit / 2 // the file grows until that works
			} else {
				l.crowded = l.limit
			}
		}
	} else {
		err = fmt.Errorf("purge log: %w", err)
		l.pending, l.waiting = append(b, l.pending...), l.waiting+n
		l.err = err
		l.failures++
	}
	l.writing = false
	l.cond.Broadcast()
	return err
}

// compact writes the file anew with what still says something. The lock is held.
func (l *File) compact() error {
	b, err := os.ReadFile(l.path)
	if err != nil {
		return err
	}
	var at []int
	for i := 0; i < len(b); {
		_, n, ok := readRecord(b[i:])
		if !ok {
			return errors.New("it cannot be read back")
		}
		if i > 0 {
			at = append(at, i)
		}
		i += n
	}
	keep := compact(len(at), l.limit/2, func(i int) (Entry, bool) {
		p, _, _ := readRecord(b[at[i]:])
		return parseEntry(p)
	})
	base := max(l.state.Base, keep.base)
	out := appendHeader(make([]byte, 0, len(b)/2), l.state.ID, base)
	for _, i := range keep.index {
		p, _, _ := readRecord(b[at[i]:])
		out = appendRecord(out, p)
	}
	if err := l.rewrite(out); err != nil {
		return err
	}
	l.state.Base, l.state.Entries = base, len(keep.index)+l.waiting
	return nil
}

// After implements Log. It sees what is kept.
func (l *File) After(number uint64, limit int) ([]Entry, error) {
	f, size, base, err := l.view()
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if number < base {
		return nil, &Compacted{base}
	}
	r := bufio.NewReaderSize(io.NewSectionReader(f, 0, size), 64<<10)
	var out []Entry
	for buf := []byte(nil); len(out) < limit; {
		if buf, err = nextRecord(r, buf); err == io.EOF {
			break
		} else if err != nil {
			return nil, fmt.Errorf("purge log: %w", err)
		}
		if e, ok := parseEntry(buf[recordHead:]); ok && e.Number > number {
			out = append(out, e)
		}
	}
	return out, nil
}

// view opens the file as it is now: a compaction puts another one in its place.
func (l *File) view() (*os.File, int64, uint64, error) {
	if err := l.Sync(context.Background(), ^uint64(0)); err != nil {
		return nil, 0, 0, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	f, err := os.Open(l.path)
	return f, l.size, l.state.Base, err
}

// nextRecord reads one record into buf.
func nextRecord(r *bufio.Reader, buf []byte) ([]byte, error) {
	head, err := r.Peek(recordHead)
	if err != nil {
		if len(head) == 0 && err == io.EOF {
			return nil, io.EOF
		}
		return nil, io.ErrUnexpectedEOF
	}
	size := int(head[1]) | int(head[2])<<8 | int(head[3])<<16 | int(head[4])<<24
	if size > maxRecord || size < 0 {
		return nil, errors.New("a record is damaged")
	}
	if n := recordHead + size; cap(buf) < n {
		buf = make([]byte, n)
	} else {
		buf = buf[:n]
	}
	if _, err := io.ReadFull(r, buf); err != nil {
		return nil, err
	}
	if _, _, ok := readRecord(buf); !ok {
		return nil, errors.New("a record is damaged")
	}
	return buf, nil
}

// State implements Log.
func (l *File) State() State {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.state
}

// Close writes what is pending and closes the file.
func (l *File) Close() error {
	err := l.Sync(context.Background(), ^uint64(0))
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return err
	}
	l.closed = true
	return errors.Join(err, l.f.Close())
}
