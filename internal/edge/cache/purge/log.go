package purge

import (
	"context"
	"errors"
	"fmt"
	"sync"
)

// Log keeps purges in their order, for who comes later: this process after a restart, and other places
// that follow. Numbers rise and have gaps, which mean nothing. Methods may be called at once.
type Log interface {
	// Append numbers an entry and adds it. It is safe from a crash once Sync for its number returns.
	Append(e Entry) (number uint64, err error)
	// Sync returns when the entries up to number are kept.
	Sync(ctx context.Context, number uint64) error
	// After returns up to limit entries with larger numbers, in order; none when there are none. It fails
	// with *Compacted when entries after number, which nothing newer repeats, are no longer there.
	After(number uint64, limit int) ([]Entry, error)
	// State says where the log begins and ends.
	State() State
	Close() error
}

// State of a log.
type State struct {
	// ID tells this log from another that once was in its place: numbers of one mean nothing in another.
	ID string `json:"id"`
	// Base is the number up to which entries may be gone for good: what is older counts as purged.
	Base uint64 `json:"base"`
	// Last is the number that counts as the newest. It is beyond that of the last entry after a
	// restart, so that no number is given twice.
	Last    uint64 `json:"last"`
	Entries int    `json:"entries"`
}

// Compacted says that a log no longer knows all purges after a number: what is older than Base is to be
// purged, and Base is the number to go on from.
type Compacted struct{ Base uint64 }

// Error implements error.
func (c *Compacted) Error() string {
	return fmt.Sprintf("the purge log begins after number %d: drop everything older, and go on from there", c.Base)
}

var errClosed = errors.New("the purge log is closed")

// DefaultEntries is how many entries a log keeps, unless told otherwise.
const DefaultEntries = 1 << 20

// Memory is a Log that a restart forgets.
type Memory struct {
	mu     sync.Mutex
	list   []Entry
	state  State
	limit  int
	closed bool
}

var _ Log = (*Memory)(nil)

// NewMemory returns a log of at most limit entries.
func NewMemory(limit int) *Memory { return &Memory{limit: max(limit, 2), state: State{ID: newID()}} }

// Append implements Log.
func (m *Memory) Append(e Entry) (uint64, error) {
	if err := e.Check(); err != nil {
		return 0, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return 0, errClosed
	}
	m.state.Last++
	e.Number = m.state.Last
	if len(m.list) == m.limit {
		keep := compact(len(m.list), m.limit/2, func(i int) (Entry, bool) { return m.list[i], true })
		m.state.Base = max(m.state.Base, keep.base)
		kept := make([]Entry, 0, m.limit)
		for _, i := range keep.index {
			kept = append(kept, m.list[i])
		}
		m.list = kept
	}
	m.list = append(m.list, e)
	m.state.Entries = len(m.list)
	return e.Number, nil
}

// Sync implements Log.
func (m *Memory) Sync(context.Context, uint64) error { return nil }

// After implements Log.
func (m *Memory) After(number uint64, limit int) ([]Entry, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if number < m.state.Base {
		return nil, &Compacted{m.state.Base}
	}
	var out []Entry
	for i := range m.list {
		if m.list[i].Number > number && len(out) < limit {
			out = append(out, m.list[i])
		}
	}
	return out, nil
}

// State implements Log.
func (m *Memory) State() State {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.state
}

// Close implements Log.
func (m *Memory) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
	return nil
}

// kept is what a compaction leaves: the places of entries, in order, and the number up to which
// entries are gone that nothing newer repeats.
type kept struct {
	index []int
	base  uint64
}

// compact finds which of n entries are kept, at most limit: of those that purge the same the newest, and
// none that a newer one covers. At gives an entry; false where it cannot be read.
func compact(n, limit int, at func(i int) (Entry, bool)) kept {
	type name struct {
		kind             Kind
		soft             bool
		site, host, text string
	}
	seen := make(map[name]struct{}, min(n, limit))
	var out kept
	all := false
	for i := n - 1; i >= 0 && !all; i-- {
		e, ok := at(i)
		if !ok {
			continue
		}
		covered := false
		for _, by := range [...]name{
			{e.Kind, false, e.Site, e.Host, e.Value},
			{e.Kind, e.Soft, e.Site, e.Host, e.Value},
			{kind: Site, site: e.Site},
			{kind: Organization, site: organization(e.Site)},
		} {
			// A site is covered by its organization, never the other way round.
			if by.kind == Site && e.Kind <= Site || by.kind == Organization && e.Kind <= Organization {
				continue
			}
			if _, covered = seen[by]; covered {
				break
			}
		}
		if covered {
			continue
		}
		if len(out.index) == limit {
			out.base = e.Number
			break
		}
		seen[name{e.Kind, e.Soft, e.Site, e.Host, e.Value}] = struct{}{}
		out.index = append(out.index, i)
		all = e.Kind == All && !e.Soft
	}
	for i, j := 0, len(out.index)-1; i < j; i, j = i+1, j-1 {
		out.index[i], out.index[j] = out.index[j], out.index[i]
	}
	return out
}
