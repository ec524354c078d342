package store

import (
	"context"

	"github.com/relais-edge/relais/internal/edge/cache/store/segment"
)

// promotions is how many records may wait to come back to memory.
const promotions = 256

// promoteShare is the part of the memory that a record may be to come back to it: one of a sixteenth is as large as
// what leaves at once, and the kernel sends it from the disk's page cache at about the cost of memory.
const promoteShare = 16

// promotion is a record on the disk that is asked for again.
type promotion struct {
	from *tier
	hash uint64
	at   segment.Location
}

// suggest lets a record come back to memory if it was asked for before, and memory would admit it.
func (t *Tiers) suggest(o *Org, hash uint64, r *Ref) {
	if charge(r.entry.Class) > t.cfg.Memory/promoteShare || t.mem.policy.Frequency(hash) < 2 || !t.mem.policy.AdmitOf(&o.Memory, hash, charge(r.entry.Class)) {
		return
	}
	select {
	case t.promote <- promotion{r.tier, hash, r.object().At}:
	default:
		t.notPromoted.Add(1)
	}
}

func (t *Tiers) runPromotions(ctx context.Context) {
	buf := make([]byte, 64<<10)
	for {
		select {
		case <-ctx.Done():
			return
		case p := <-t.promote:
			if t.bringBack(p, buf) {
				t.promoted.Add(1)
			} else {
				t.notPromoted.Add(1)
			}
		}
	}
}

// bringBack copies a record from the disk to memory, unless it is there or was changed meanwhile.
func (t *Tiers) bringBack(p promotion, buf []byte) bool {
	var o segment.Object
	if p.from.log.Pin(p.at, &o) != nil {
		return false
	}
	defer o.Unpin()
	if o.Hash != p.hash || t.inMemory(p.hash, o.Key()) {
		return false
	}
	w, err := t.mem.log.Create(segment.Meta{Hash: o.Hash, Born: o.Born, Flags: o.Flags, Key: o.Key(), Head: o.Head(), Length: o.Len()})
	if err != nil {
		return false
	}
	defer w.Abort()
	for off := int64(0); off < o.Len(); {
		n, err := o.ReadAt(buf[:min(int64(len(buf)), o.Len()-off)], off)
		if n == 0 && err != nil || w.Append(buf[:n]) != nil {
			return false
		}
		off += int64(n)
	}
	rec, err := w.Commit(o.Len())
	if err != nil {
		return false
	}
	mu := t.lock(p.hash)
	defer mu.Unlock()
	if _, ok := p.from.entry(p.hash, p.at); !ok || t.inMemory(p.hash, o.Key()) {
		return false
	}
	return t.mem.admit(rec, recordCost+int64(len(o.Key())+len(o.Head()))+o.Len())
}

// inMemory says whether memory has a record of a key, and counts no request.
func (t *Tiers) inMemory(hash uint64, key []byte) bool {
	var r Ref
	defer r.Release()
	return t.mem.find(hash, key, &r)
}
