package main

import (
	"errors"

	"github.com/relais-edge/relais/internal/edge/cache/store/admission"
	"github.com/relais-edge/relais/internal/edge/cache/store/index"
)

// unit is what locations count, in bytes.
const unit = 64

// relais is a FIFO log with our index and our policy. Of the log only heads of records are here:
// the bytes of the objects are simulated.
type relais struct {
	capacity, used int64
	index          *index.Index
	policy         *admission.Policy
	records        map[index.Location]request // by place, as a log would have them
	order          []index.Location           // from tail to head
	head           index.Location
	written        int64 // bytes of new records
	rewritten      int64 // bytes of records written again
	failed         int   // records that the index had no room for
}

// newRelais makes a log for objects of mean bytes; as a real one, it must guess how many it will hold.
func newRelais(capacity, mean int64, cfg admission.Config) (*relais, error) {
	objects := int(capacity / mean)
	x, err := index.New(index.Config{Objects: objects})
	if err != nil {
		return nil, err
	}
	cfg.Objects = objects
	p, err := admission.New(cfg)
	if err != nil {
		return nil, err
	}
	return &relais{capacity: capacity, index: x, policy: p, records: map[index.Location]request{}}, nil
}

func (l *relais) close() error {
	return errors.Join(l.index.Close(), l.policy.Close())
}

func (l *relais) request(r request) bool {
	hash := mix(uint64(r.id))
	l.policy.Touch(hash)
	c := l.index.Lookup(hash)
	for _, e := range c.Entries[:c.N] {
		if l.records[e.Location].id == r.id {
			return true
		}
	}
	if !l.policy.Admit(hash, int64(r.size)) {
		return false
	}
	for l.used+int64(r.size) > l.capacity {
		l.reclaim()
	}
	at := l.append(r)
	if !l.index.Insert(hash, index.Entry{Location: at, Class: index.Class(int64(r.size))}) {
		l.failed++ // a dead record until the tail comes to it
	}
	l.written += int64(r.size)
	l.used += int64(r.size)
	l.policy.Grow(l.index.Len())
	return false
}

// append writes a record at the head of the log.
func (l *relais) append(r request) index.Location {
	at := l.head
	l.head += index.Location((r.size + unit - 1) / unit)
	l.records[at] = r
	l.order = append(l.order, at)
	return at
}

// reclaim writes the record at the tail again, or gives it up.
func (l *relais) reclaim() {
	at := l.order[0]
	l.order = l.order[1:]
	r := l.records[at]
	delete(l.records, at)
	hash := mix(uint64(r.id))
	if !l.policy.Keep(hash, int64(r.size)) {
		l.index.Delete(hash, at)
		l.used -= int64(r.size)
		return
	}
	l.rewritten += int64(r.size)
	if !l.index.Replace(hash, at, l.append(r)) {
		l.failed++
	}
}
