package waitroom

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"github.com/relais-edge/relais/internal/edge/budget"
)

// leastAhead is how many numbers are skipped after a restart at least: those that may have been given after the
// last time the line was written.
const leastAhead = 64

// kept is a line as its file has it.
type kept struct {
	Room   string `json:"room"`
	Epoch  uint32 `json:"epoch"`
	Issued uint64 `json:"issued"`
	Called uint64 `json:"called"`
	// Ahead is how many numbers may have been given since; 0 after a stop in good order.
	Ahead uint64 `json:"ahead,omitempty"`
}

// claimsEnd is the end of the name of the file of who came.
const claimsEnd = ".claims"

// path is a room's file. Its name is a hash, as that of a room may be anything.
func (r *room) path(dir string) string {
	return filepath.Join(dir, strconv.FormatUint(budget.Fold([]byte(r.key)), 16)+".json")
}

// load takes up the line where the last process left it. A file that cannot be read begins a new line; the
// error says so.
func (r *room) load(dir string) error {
	if dir == "" {
		return nil
	}
	b, err := os.ReadFile(r.path(dir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	var k kept
	if err == nil {
		err = json.Unmarshal(b, &k)
	}
	if err == nil && (k.Room != r.key || k.Called > k.Issued || k.Issued > 1<<62 || k.Ahead > 1<<32) {
		err = errors.New("it is of another room, or its numbers cannot be")
	}
	if err != nil {
		return fmt.Errorf("waiting room %s begins a new line: %s: %w", r.key, r.path(dir), err)
	}
	l := r.line
	l.epoch = k.Epoch
	l.issued.Store(k.Issued + k.Ahead)
	l.called.Store(k.Called)
	if k.Issued == k.Called { // nobody waited
		l.called.Store(k.Issued + k.Ahead)
	}
	r.saved = k
	if err := l.loadClaims(r.path(dir) + claimsEnd); err != nil {
		return fmt.Errorf("waiting room %s does not know who came before this start, who may so come once more: %s: %w", r.key, r.path(dir)+claimsEnd, err)
	}
	return nil
}

// save writes the line when it moved. Last says that no number is given any more.
func (r *room) save(dir string, last bool) error {
	if dir == "" {
		return nil
	}
	l := r.line
	k := kept{Room: r.key, Epoch: l.epoch, Called: l.called.Load(), Issued: l.issued.Load()}
	if k.Issued == 0 {
		return nil
	}
	if !last {
		k.Ahead = max(leastAhead, 2*(k.Issued-min(r.saved.Issued, k.Issued)))
	}
	if k == r.saved {
		return nil
	}
	b, err := json.Marshal(k)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	path := r.path(dir)
	if err := os.WriteFile(path+".new", append(b, '\n'), 0o600); err != nil {
		return err
	}
	if err := os.Rename(path+".new", path); err != nil {
		return err
	}
	r.saved = k
	return nil
}
