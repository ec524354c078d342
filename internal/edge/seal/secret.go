package seal

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Dir keeps secrets that the edge makes for itself, as files of a directory that only the edge's user may
// read. A file holds a secret a line, in hexadecimal; the first signs, the others still open. So a person
// rotates a secret by writing a new first line.
type Dir string

// secretLen is the number of random bytes of a secret.
const secretLen = 32

// maxSecrets is how many lines of a file count.
const maxSecrets = 8

// Secrets returns the secrets of that name; a first one is made at the first call. Of several processes
// that make the same secret at once, one wins and all return what it wrote.
func (d Dir) Secrets(name string) ([][]byte, error) {
	if name == "" || strings.ContainsAny(name, "/\\\x00") || name[0] == '.' {
		return nil, fmt.Errorf("%q cannot name a secret", name)
	}
	path := filepath.Join(string(d), name+".secret")
	s, err := read(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return s, err
	}
	if err := d.write(path); err != nil {
		return nil, fmt.Errorf("keeping a secret in %s: %w; let the edge's user write there, or give the secret in the document", d, err)
	}
	return read(path)
}

func read(path string) ([][]byte, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var list [][]byte
	for line := range strings.Lines(strings.TrimSpace(string(text))) {
		s, err := hex.DecodeString(strings.TrimSpace(line))
		if err != nil || len(s) < MinSecret || len(list) == maxSecrets {
			list = nil
			break
		}
		list = append(list, s)
	}
	if list == nil {
		return nil, fmt.Errorf("%s does not hold a secret in hexadecimal on each of at most %d lines; put it back, or remove it to have a new one made (visitors lose their protection then)", path, maxSecrets)
	}
	return list, nil
}

// write makes a secret and links it to path, unless path is there by then.
func (d Dir) write(path string) error {
	if err := os.MkdirAll(string(d), 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(string(d), ".secret-*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	var s [secretLen]byte
	_, _ = rand.Read(s[:]) // never fails
	_, err = f.WriteString(hex.EncodeToString(s[:]) + "\n")
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	if err := os.Link(f.Name(), path); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return syncDir(string(d))
}

func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}
