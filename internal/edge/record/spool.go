package record

import (
	"errors"
	"io/fs"
	"os"
)

// spool is the file over which a record outlives its process: two files, of which the older is given up when
// the newer has half of the room. What the system has taken outlives a process that is killed, not a machine
// that loses its power. Two processes may write at once while one takes over from the other.
type spool struct {
	name string
	most int64
	f    *os.File
	size int64
	// torn says that the file ends in the middle of a line.
	torn bool
}

// openSpool opens the file to append to.
func openSpool(name string, most int64) (*spool, error) {
	s := &spool{name: name, most: most}
	return s, s.open()
}

// read gives what is in the file. Lines that are not whole are left out.
func (s *spool) read(take func(organization string, notable bool, line []byte)) error {
	for _, name := range [...]string{s.name + ".1", s.name} {
		f, err := os.Open(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		err = ReadRequests(f, func(q *Request) error {
			line, err := q.AppendJSON(nil)
			if err == nil {
				take(q.Organization, q.Notable(), line)
			}
			return nil
		}, func(*LineError) error { return nil })
		if err = errors.Join(err, f.Close()); err != nil {
			return err
		}
	}
	return nil
}

// open opens the newer file.
func (s *spool) open() error {
	f, err := os.OpenFile(s.name, os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err != nil {
		return errors.Join(err, f.Close())
	}
	s.f, s.size, s.torn = f, info.Size(), false
	if s.size > 0 {
		var last [1]byte
		_, err = f.ReadAt(last[:], s.size-1)
		s.torn = err != nil || last[0] != '\n'
	}
	return nil
}

// write appends a line. What a full disk has torn is ended by the line after it.
func (s *spool) write(line []byte) error {
	if s.f == nil {
		if err := s.open(); err != nil {
			return err
		}
	}
	if s.size > 0 && s.size+int64(len(line)) > s.most/2 {
		if err := s.turn(); err != nil {
			return err
		}
	}
	if s.torn {
		line = append([]byte{'\n'}, line...)
	}
	n, err := s.f.Write(line)
	s.size += int64(n)
	if n > 0 {
		s.torn = n < len(line)
	}
	return err
}

// turn makes the newer file the older one, and begins another.
func (s *spool) turn() error {
	err := s.f.Close()
	s.f = nil
	if err = errors.Join(err, os.Rename(s.name, s.name+".1")); err != nil {
		return err
	}
	return s.open()
}

func (s *spool) close() error {
	if s.f == nil {
		return nil
	}
	return s.f.Close()
}
