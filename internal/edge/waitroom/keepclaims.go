package waitroom

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
)

// The file of claims: a mark with its version, epoch and last number called, the two tables, and a CRC-32 of all
// that. All numbers are big-endian.
const (
	claimsMark  = "rqc1"
	claimsHead  = len(claimsMark) + 4 + 8
	claimsBytes = claimsHead + claimWindow/8 + 4*ownerWindow + 4
)

var errClaims = errors.New("it is not whole, or of another version")

// loadClaims takes up who came, where the last process left it.
func (l *line) loadClaims(path string) error {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, int64(claimsBytes)+1))
	if err != nil {
		return err
	}
	return l.setClaims(b)
}

func (l *line) setClaims(b []byte) error {
	if len(b) != claimsBytes || string(b[:len(claimsMark)]) != claimsMark ||
		binary.BigEndian.Uint32(b[claimsBytes-4:]) != crc32.ChecksumIEEE(b[:claimsBytes-4]) {
		return errClaims
	}
	at := b[len(claimsMark):]
	if binary.BigEndian.Uint32(at) != l.epoch {
		return nil // of a line that was
	}
	called := binary.BigEndian.Uint64(at[4:])
	at = b[claimsHead:]
	l.mu.Lock()
	defer l.mu.Unlock()
	c := claims{used: make([]uint64, claimWindow/64), owner: make([]uint32, ownerWindow)}
	for i := range c.used {
		c.used[i] = binary.BigEndian.Uint64(at[8*i:])
	}
	at = at[claimWindow/8:]
	for i := range c.owner {
		c.owner[i] = binary.BigEndian.Uint32(at[4*i:])
	}
	if now := l.called.Load(); now > called { // nobody of those called since is known to have come
		c.forget(called, now)
	}
	l.claims = c
	return nil
}

// saveClaims writes who came, when somebody did since the last time.
func (l *line) saveClaims(path string) error {
	b := l.claimsFile()
	if b == nil {
		return nil
	}
	err := os.WriteFile(path+".new", b, 0o600)
	if err == nil {
		err = os.Rename(path+".new", path)
	}
	if err != nil {
		l.mu.Lock()
		l.claims.moved = true
		l.mu.Unlock()
	}
	return err
}

// claimsFile is what the file holds; nil when nobody came since it was written.
func (l *line) claimsFile() []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.claims.moved {
		return nil
	}
	l.claims.moved = false
	b := append(make([]byte, 0, claimsBytes), claimsMark...)
	b = binary.BigEndian.AppendUint32(b, l.epoch)
	b = binary.BigEndian.AppendUint64(b, l.called.Load())
	for _, w := range l.claims.used {
		b = binary.BigEndian.AppendUint64(b, w)
	}
	for _, o := range l.claims.owner {
		b = binary.BigEndian.AppendUint32(b, o)
	}
	return binary.BigEndian.AppendUint32(b, crc32.ChecksumIEEE(b))
}
