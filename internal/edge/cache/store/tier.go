package store

import (
	"bytes"
	"sync"
	"sync/atomic"

	"github.com/relais-edge/relais/internal/edge/cache/store/admission"
	"github.com/relais-edge/relais/internal/edge/cache/store/index"
	"github.com/relais-edge/relais/internal/edge/cache/store/segment"
)

// tier is a log, the index of what is in it, and the policy of what stays. It is the log's Owner:
// whether a record is current is what the index says, and every change of that is one step of the index.
type tier struct {
	log    *segment.Log
	idx    *index.Index
	policy *admission.Policy
	orgs   *orgs
	disk   bool
	// deaf says that what is found has hashes of another secret.
	deaf bool
	// notBefore is when what is found must at least be born.
	notBefore int64
	// stop is closed when a disk is given up, and stopped when nothing is written to it any more.
	stop, stopped chan struct{}

	// owed are records that left the index by their tag alone, so that whose they were is not yet
	// known. They are taken from their shares when they come to the tail.
	mu   sync.Mutex
	owed map[segment.Location]uint8 // to the classes
	owes atomic.Int32

	found, erased, stale, damaged, unmarked, crowded, lost, culled atomic.Int64
}

func (t *tier) share(flags uint16) *admission.Share {
	o := t.orgs.at(flags)
	if t.disk {
		return &o.Disk
	}
	return &o.Memory
}

// charge is what a record counts in its share: it must follow from the entry alone.
func charge(class uint8) int64 { return index.ClassBytes(class) }

// entry finds the entry of a record that the log tells of.
func (t *tier) entry(hash uint64, at segment.Location) (index.Entry, bool) {
	c := t.idx.Lookup(hash)
	for _, e := range c.Entries[:c.N] {
		if e.Location == index.Location(at) {
			return e, true
		}
	}
	return index.Entry{}, false
}

// insert makes a record current; size is that of the record whole.
func (t *tier) insert(r segment.Record, size int64) bool {
	class := index.Class(size)
	if !t.idx.Insert(r.Hash, index.Entry{Location: index.Location(r.At), Class: class}) {
		t.crowded.Add(1)
		return false
	}
	t.share(r.Flags).Add(charge(class))
	return true
}

// admit is insert for a record that was just committed. Who was kept waiting so long since that the log
// has come round, or the disk has failed, finds that it has left: the entry would be of a place that is another's.
func (t *tier) admit(r segment.Record, size int64) bool {
	return t.insert(r, size) && t.remains(r)
}

// remains says whether a record that was just made current is still in the log, and forgets it if not.
func (t *tier) remains(r segment.Record) bool {
	var o segment.Object
	defer o.Unpin()
	if t.log.Pin(r.At, &o) == nil && o.Hash == r.Hash {
		return true
	}
	t.stale.Add(1)
	if e, ok := t.entry(r.Hash, r.At); ok {
		t.remove(r.Hash, e, r.Flags)
	}
	return false
}

// remove makes a record garbage; false when it was already.
func (t *tier) remove(hash uint64, e index.Entry, flags uint16) bool {
	if !t.idx.Delete(hash, e.Location) {
		return false
	}
	t.share(flags).Remove(charge(e.Class))
	return true
}

// erase keeps older records of a hash from coming back after a crash.
func (t *tier) erase(hash uint64, born int64) {
	if t.disk && t.log.Erase(hash, born) != nil {
		t.unmarked.Add(1)
	}
}

// Found implements segment.Owner. Of an earlier record with the same hash nothing is known but its
// tag: both stay, and a look-up takes the younger. An erased one takes all with its tag along, which
// of two hundred such costs one object.
func (t *tier) Found(r segment.Record) {
	if t.deaf {
		return
	}
	c := t.idx.Lookup(r.Hash)
	switch {
	case r.Erased:
		for _, e := range c.Entries[:c.N] {
			t.removeUnseen(r.Hash, e)
		}
		t.erased.Add(1)
		return
	case c.N == index.MaxCandidates:
		t.removeUnseen(r.Hash, c.Entries[0])
	}
	if t.insert(r, r.Size) {
		t.found.Add(1)
	}
}

// Retire implements segment.Owner.
func (t *tier) Retire(r segment.Record) bool {
	e, ok := t.entry(r.Hash, r.At)
	if !ok {
		t.settle(r)
		return false
	}
	if t.policy.KeepOf(t.share(r.Flags), r.Hash, charge(e.Class)) {
		return true
	}
	t.remove(r.Hash, e, r.Flags)
	return false
}

// Moved implements segment.Owner.
func (t *tier) Moved(r segment.Record, to segment.Location) bool {
	return t.idx.Replace(r.Hash, index.Location(r.At), index.Location(to))
}

// Lost implements segment.Owner. What it replaced may still be in the log.
func (t *tier) Lost(r segment.Record) {
	if r.Erased {
		t.unmarked.Add(1)
	} else if e, ok := t.entry(r.Hash, r.At); ok && t.remove(r.Hash, e, r.Flags) {
		t.lost.Add(1)
		t.erase(r.Hash, r.Born)
	}
}

// Gone implements segment.Owner. Whose they were is not known, so what they count in shares stays counted until the next
// start.
func (t *tier) Gone(from, to segment.Location) {
	t.lost.Add(int64(t.idx.Sweep(func(e index.Entry) bool {
		return e.Location >= index.Location(from) && e.Location < index.Location(to)
	})))
}

// cull has those who are above their quota give up what is worth least to them of one segment, the oldest that is
// younger than a sequence, and returns its sequence. Nobody else's is touched, and nothing is written again.
func (t *tier) cull(after uint64) uint64 {
	return t.log.Visit(after, func(r segment.Record) {
		share := t.share(r.Flags)
		if share.Quota() == 0 {
			return
		}
		e, ok := t.entry(r.Hash, r.At)
		if !ok || t.policy.Spare(share, r.Hash, charge(e.Class)) || !t.remove(r.Hash, e, r.Flags) {
			return
		}
		t.culled.Add(1)
		t.erase(r.Hash, r.Born) // else it could come back after a crash that followed what forgets it
	})
}

// lookups bounds how often a look-up is made again because what it found moved meanwhile.
const lookups = 4

// find pins the youngest record of a key in r. It allocates nothing.
func (t *tier) find(hash uint64, key []byte, r *Ref) bool {
	for range lookups {
		c := t.idx.Lookup(hash)
		again, have := false, false
		for _, e := range c.Entries[:c.N] {
			o := &r.objects[1-r.at]
			o.Large = t.disk && charge(e.Class) > segment.LargeRecord
			switch err := t.log.Pin(segment.Location(e.Location), o); {
			case err == segment.ErrGone:
				again = true
				continue
			case err == segment.ErrCorrupt:
				if !t.drop(hash, e) {
					again = true // it has moved, and its place is another's
				}
				continue
			case err != nil: // the disk cannot be read
				continue
			}
			if o.Hash != hash || !bytes.Equal(o.Key(), key) || o.Born < t.notBefore || have && r.objects[r.at].Born >= o.Born {
				o.Unpin()
				continue
			}
			r.objects[r.at].Unpin()
			r.at, have = 1-r.at, true
			r.tier, r.entry = t, e
		}
		if have || !again {
			return have
		}
	}
	return false
}

// maxOwed bounds tier.owed; what is beyond stays counted.
const maxOwed = 1 << 16

// removeUnseen is remove for a record that is not read.
func (t *tier) removeUnseen(hash uint64, e index.Entry) bool {
	if !t.idx.Delete(hash, e.Location) {
		return false
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.owed) < maxOwed {
		t.owed[segment.Location(e.Location)] = e.Class
		t.owes.Store(int32(len(t.owed)))
	}
	return true
}

// settle takes a record at the tail from its share, if that is owed.
func (t *tier) settle(r segment.Record) {
	if t.owes.Load() == 0 {
		return
	}
	t.mu.Lock()
	class, ok := t.owed[r.At]
	delete(t.owed, r.At)
	t.owes.Store(int32(len(t.owed)))
	t.mu.Unlock()
	if ok {
		t.share(r.Flags).Remove(charge(class))
	}
}

// drop removes a damaged record, of which only the entry is known.
func (t *tier) drop(hash uint64, e index.Entry) bool {
	if !t.removeUnseen(hash, e) {
		return false
	}
	if !t.disk {
		t.stale.Add(1) // memory has no damage, but an entry can come too late
		return true
	}
	t.damaged.Add(1)
	t.erase(hash, 0)
	return true
}

// clear removes all records of a key but the one at keep, and says whether there may be one in the log.
func (t *tier) clear(hash uint64, key []byte, keep segment.Location) (had bool) {
	var o segment.Object
	defer o.Unpin()
	for range lookups {
		again := false
		c := t.idx.Lookup(hash)
		for _, e := range c.Entries[:c.N] {
			if e.Location == index.Location(keep) {
				continue
			}
			had = true
			err := t.log.Pin(segment.Location(e.Location), &o)
			if err != nil {
				// Moved: look again. Not to be read: it goes, for it may be the one.
				if err == segment.ErrGone {
					again = true
				} else {
					t.drop(hash, e)
				}
				continue
			}
			if o.Hash == hash && bytes.Equal(o.Key(), key) && !t.remove(hash, e, o.Flags) {
				again = true
			}
		}
		if !again {
			break
		}
	}
	return had
}

// close gives up the memory and the files. Nobody may use the tier any more.
func (t *tier) close() error {
	err := t.log.Close()
	if e := t.idx.Close(); err == nil {
		err = e
	}
	if e := t.policy.Close(); err == nil {
		err = e
	}
	return err
}
