package store

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"math/bits"
	"sync"
	"sync/atomic"
	"time"

	"github.com/relais-edge/relais/internal/edge/cache/store/admission"
	"github.com/relais-edge/relais/internal/edge/cache/store/index"
	"github.com/relais-edge/relais/internal/edge/cache/store/segment"
)

// Config says how large the tiers are.
type Config struct {
	// Memory is the size of the memory tier in bytes, at least 256 KiB.
	Memory int64
	// Disk is the size of the disk tier in bytes, in Dir; 0 is none.
	Disk int64
	Dir  segment.Dir
	// Known is what is known of a disk that is attached later, where Disk is set and Dir is not.
	Known Known
	// MeanObject is the size in bytes of an object that is expected in the mean; 8 KiB in memory
	// and on disk. Where objects are smaller the index takes up to nine times as many.
	MeanObject int64
	// MaxObject bounds a body; a quarter of the larger tier.
	MaxObject int64
	// ScrubRate is how many bytes a second of the disk are read to find damage; 0 is none.
	ScrubRate int64
	// CurveSamples is how many objects an organization's curve remembers; 512 (38 KB).
	CurveSamples int
	// Log gets the few lines that an operator must see; nil is slog.Default().
	Log *slog.Logger
}

// Tiers keeps records, a head and a body under a key, in memory and, where it is configured, on a
// disk. What is written goes to both; what memory gives up is still found on the disk, and what is
// found there and asked for again comes back to memory. All methods may be called at the same time.
type Tiers struct {
	cfg      Config
	key      [16]byte // of hash, where that is stable
	hash     hasher
	mem      tier
	disk     atomic.Pointer[tier] // nil: none
	attached chan *tier
	absent   absent
	orgs     orgs
	locks    [256]sync.Mutex // by hash: who changes what is current under it
	versions [1 << 14]atomic.Uint32
	promote  chan promotion
	wantCull chan struct{}

	hits, diskHits, misses, promoted, notPromoted, refused, outdated atomic.Int64
}

const (
	kindShift = 12
	// MaxKind is the largest kind that a record can have.
	MaxKind = 1<<4 - 1
)

const keyName = "hash.key"

// NewTiers takes the tiers up, with what an earlier process left on the disk. It starts nothing:
// without Run nothing is written to the disk or comes back from it.
func NewTiers(cfg Config) (*Tiers, error) {
	if cfg.Disk <= 0 {
		cfg.Dir, cfg.Disk = nil, 0
	}
	cfg.MeanObject = cmp.Or(cfg.MeanObject, 8<<10)
	cfg.CurveSamples = cmp.Or(cfg.CurveSamples, 512)
	t := &Tiers{promote: make(chan promotion, promotions), wantCull: make(chan struct{}, 1), attached: make(chan *tier, 1)}
	dir := cfg.Dir
	cfg.Dir = nil
	t.cfg = cfg
	if err := t.takeKey(dir); err != nil {
		return nil, err
	}
	if err := t.orgs.open(cfg.Known.names, cfg.CurveSamples); err != nil {
		return nil, err
	}
	if err := t.mem.open(&cfg, &t.orgs, cfg.Memory, nil); err != nil {
		return nil, err
	}
	if dir != nil {
		if err := t.Attach(dir); err != nil {
			return nil, errors.Join(err, t.mem.close())
		}
	}
	return t, nil
}

// takeKey finds the secret of the hashes, or makes one.
func (t *Tiers) takeKey(dir segment.Dir) (err error) {
	whole := false
	switch {
	case dir != nil:
		if t.key, whole, err = readKey(dir); err != nil {
			return fmt.Errorf("store: the key of hashes: %w", err)
		}
	case t.cfg.Disk == 0:
		t.hash = newHasher(nil)
		return nil
	default:
		t.key, whole = t.cfg.Known.key, t.cfg.Known.key != [16]byte{}
	}
	if !whole {
		_, _ = rand.Read(t.key[:]) // never fails
	}
	t.hash = newHasher(&t.key)
	return nil
}

// open makes a tier's parts. Segments are a sixteenth of it, within bounds.
func (t *tier) open(cfg *Config, a *orgs, limit int64, dir segment.Dir) error {
	t.orgs, t.owed = a, map[segment.Location]uint8{}
	most := int64(8 << 20)
	if dir != nil {
		most = 64 << 20
	}
	size := int64(1) << (bits.Len64(uint64(max(limit/16, 1))) - 1)
	objects := int(limit / cfg.MeanObject)
	var err error
	if t.idx, err = index.New(index.Config{Objects: objects}); err != nil {
		return fmt.Errorf("store: %w", err)
	}
	if t.policy, err = admission.New(admission.Config{Objects: objects}); err != nil {
		return errors.Join(fmt.Errorf("store: %w", err), t.idx.Close())
	}
	t.log, err = segment.New(segment.Config{
		Limit: limit, SegmentSize: min(max(size, 64<<10), most), MaxObject: min(cmp.Or(cfg.MaxObject, limit/4), limit/4),
		Dir: dir, ScrubRate: cfg.ScrubRate, Log: cfg.Log,
	}, t)
	if err != nil {
		return errors.Join(fmt.Errorf("store: %w", err), t.idx.Close(), t.policy.Close())
	}
	return nil
}

// MaxObject is the length of the largest body that a tier takes.
func (t *Tiers) MaxObject() int64 {
	n := t.mem.log.MaxObject()
	if t.cfg.Disk > 0 {
		n = max(n, min(cmp.Or(t.cfg.MaxObject, t.cfg.Disk/4), t.cfg.Disk/4))
	}
	return n
}

// Org finds or makes the account of an organization.
func (t *Tiers) Org(name string) *Org { return t.orgs.of(name) }

// Orgs yields the accounts.
func (t *Tiers) Orgs() iter.Seq[*Org] {
	return func(yield func(*Org) bool) {
		for i := range t.orgs.list {
			if o := t.orgs.list[i].Load(); o != nil && !yield(o) {
				return
			}
		}
	}
}

// HashOf hashes a key; a hash is good for this store only, and with a disk tier for the next process.
func (t *Tiers) HashOf(key []byte) Hash { return t.hash.of(key) }

// Derive is the hash of a variant of what is under a hash: each of any number of records under one
// key has its own place.
func (t *Tiers) Derive(h Hash, variant []byte) Hash { return t.hash.derive(h, variant) }

// Get finds what is stored under a hash and a key, counts the request, and holds the record in r,
// which is released first. It allocates nothing.
func (t *Tiers) Get(o *Org, h Hash, key []byte, r *Ref) bool {
	if !t.Find(h, key, r, nil) {
		return false
	}
	t.Use(o, h, r)
	return true
}

// Find is Get for who does not know yet whether the record is what is asked for, or only leads there: of a request
// it counts what says whether the record is to be kept, and one that finds nothing. Use counts the rest. Asks, which may
// be nil, is told before a disk is read.
func (t *Tiers) Find(h Hash, key []byte, r *Ref, asks Waiter) bool {
	r.Release()
	t.mem.policy.Touch(h.lo)
	disk := t.disk.Load()
	if disk != nil {
		disk.policy.Touch(h.lo)
	}
	if t.mem.find(h.lo, key, r) {
		return true
	}
	if disk != nil && disk.idx.Lookup(h.lo).N > 0 {
		if asks != nil {
			asks.MayBlock()
		}
		if disk.find(h.lo, key, r) {
			return true
		}
	}
	t.misses.Add(1)
	return false
}

// Waiter is who asks, and has others wait for him.
type Waiter interface {
	// MayBlock says that what follows may take long.
	MayBlock()
}

// Use counts a request that the record which Find found answers.
func (t *Tiers) Use(o *Org, h Hash, r *Ref) {
	if t.full(o) {
		o.Curve.Touch(h.lo, r.Len())
	}
	if !r.tier.disk {
		t.hits.Add(1)
		return
	}
	t.diskHits.Add(1)
	t.suggest(o, h.lo, r)
}

// Version is a number that moves whenever what is under a hash is stored, replaced, given another head or
// deleted, and now and then besides. Who keeps a copy of what it found reads it before it looks; the copy is good
// while the number is the same. A record that leaves for room, or comes back to memory, does not move it.
func (t *Tiers) Version(h Hash) uint32 { return t.versions[h.Index(len(t.versions))].Load() }

// moved says that what is under a hash has changed; the caller has the hash's lock.
func (t *Tiers) moved(h Hash) { t.versions[h.Index(len(t.versions))].Add(1) }

// Again counts a request that is answered by a copy of a record of n bytes under v, to which the one under h leads
// unless they are the same.
func (t *Tiers) Again(o *Org, h, v Hash, n int64) {
	disk := t.disk.Load()
	t.mem.policy.Touch(v.lo)
	if disk != nil {
		disk.policy.Touch(v.lo)
	}
	if h != v {
		t.mem.policy.Touch(h.lo)
		if disk != nil {
			disk.policy.Touch(h.lo)
		}
	}
	if t.full(o) {
		o.Curve.Touch(v.lo, n)
	}
	t.hits.Add(1)
}

// full says that the larger tier has come to its tail, or that there is a quota: else nothing of the organization had
// to leave yet, and more room would bring nothing.
func (t *Tiers) full(o *Org) bool {
	if o.Memory.Quota() > 0 || o.Disk.Quota() > 0 {
		return true
	}
	if disk := t.disk.Load(); disk != nil {
		return disk.policy.Full()
	}
	return t.mem.policy.Full()
}

// Peek is Get for who only wants to know what is there: it is no request, and moves nothing.
func (t *Tiers) Peek(h Hash, key []byte, r *Ref) bool {
	r.Release()
	if t.mem.find(h.lo, key, r) {
		return true
	}
	disk := t.disk.Load()
	return disk != nil && disk.find(h.lo, key, r)
}

// Delete forgets what is under a key, and keeps it from coming back after a crash. Had says that
// there may have been something. Born is the instant, as in Create.
func (t *Tiers) Delete(h Hash, key []byte, born int64) (had bool) {
	mu := t.lock(h.lo)
	defer mu.Unlock()
	defer t.moved(h)
	had = t.mem.clear(h.lo, key, 0)
	if disk := t.disk.Load(); disk == nil && t.cfg.Disk > 0 && t.owe(h.lo) {
		return had
	}
	if disk := t.disk.Load(); disk != nil && disk.clear(h.lo, key, 0) {
		disk.erase(h.lo, born)
		had = true
	}
	return had
}

// Rehead gives what is stored under a key another head; the body stays (a 304). Is, which may be nil, is asked whether a
// head that is there is of the right body, and current in the step in which the new one takes effect; false
// leaves all as it was. It is false when nothing was there. Where only one tier has it, the other is not written to.
func (t *Tiers) Rehead(m Meta, is func(head []byte) bool, current func() bool) bool {
	var to [2]reheading
	n := 0
	for _, x := range []*tier{&t.mem, t.disk.Load()} {
		if x == nil {
			continue
		}
		if to[n].prepare(x, &m, is) {
			n++
		}
	}
	mu := t.lock(m.Hash.lo)
	defer mu.Unlock()
	defer t.moved(m.Hash)
	now := current == nil || current()
	done := false
	for _, x := range to[:n] {
		if now && x.tier.idx.Replace(m.Hash.lo, x.old, index.Location(x.rec.At)) && x.tier.remains(x.rec) {
			done = true
		} else {
			x.tier.erase(m.Hash.lo, m.Born)
		}
	}
	return done
}

// reheading is a new head that is not yet current.
type reheading struct {
	tier *tier
	old  index.Location
	rec  segment.Record
}

func (x *reheading) prepare(t *tier, m *Meta, is func(head []byte) bool) bool {
	var r Ref
	defer r.Release()
	if !t.find(m.Hash.lo, m.Key, &r) || is != nil && !is(r.Head()) {
		return false
	}
	meta := m.segment()
	meta.Flags = r.object().Flags
	rec, err := t.log.Rehead(r.object().At, meta)
	x.tier, x.old, x.rec = t, r.entry.Location, rec
	return err == nil
}

func (t *Tiers) lock(hash uint64) *sync.Mutex {
	mu := &t.locks[hash>>32%uint64(len(t.locks))]
	mu.Lock()
	return mu
}

// Run makes room, writes to the disk and reads it for damage, brings back to memory what is asked for
// again, until ctx ends. What was stored before is then on the disk.
func (t *Tiers) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	var errs [2]error
	wg.Go(func() { errs[0] = t.mem.log.Run(ctx) })
	wg.Go(func() { errs[1] = t.runDisks(ctx) })
	wg.Go(func() { t.runPromotions(ctx) })
	t.keep(ctx)
	wg.Wait()
	return errors.Join(errs[:]...)
}

// curveAge is after how long curves forget half of what they saw.
const curveAge = time.Hour

// keep does what is due now and then.
func (t *Tiers) keep(ctx context.Context) {
	every := time.NewTicker(time.Second)
	defer every.Stop()
	old := time.NewTicker(curveAge)
	defer old.Stop()
	var culls culls
	for {
		select {
		case <-ctx.Done():
			return
		case <-every.C:
			t.mem.policy.Grow(t.mem.idx.Len())
			if disk := t.disk.Load(); disk != nil {
				disk.policy.Grow(disk.idx.Len())
			}
		case <-old.C:
			for i := range t.orgs.list {
				if o := t.orgs.list[i].Load(); o != nil {
					o.Curve.Age()
				}
			}
		case <-t.wantCull:
			culls.cull(t, time.Now())
		}
	}
}

// Between two segments that are looked through for what is above a quota: who stays there must not keep the store busy.
const (
	cullMemory = 50 * time.Millisecond
	cullDisk   = time.Second
)

// culls is how far that has come in each tier, and when it was done last.
type culls struct {
	memory, disk     uint64
	onMemory, onDisk time.Time
	disks            *tier // of disk
}

// cull goes on by a segment in each tier where somebody is above his quota: what is kept of him goes by its worth where
// the log's tail moves, and a log that is not full would keep what he stored first, and nothing newer.
func (c *culls) cull(t *Tiers, now time.Time) {
	below := t.disk.Load()
	if c.disks != below {
		c.disks, c.disk = below, 0
	}
	mem, disk := now.Sub(c.onMemory) >= cullMemory, below != nil && now.Sub(c.onDisk) >= cullDisk
	for i := range t.orgs.list {
		o := t.orgs.list[i].Load()
		if o == nil {
			break // they are numbered without gaps
		}
		if mem && o.Memory.Over() {
			c.memory, c.onMemory, mem = t.mem.cull(c.memory), now, false
		}
		if disk && o.Disk.Over() {
			c.disk, c.onDisk, disk = below.cull(c.disk), now, false
		}
	}
}

// Close gives up memory and files. Run must have returned, and nobody may use the store.
func (t *Tiers) Close() error {
	err := t.mem.close()
	if disk := t.disk.Load(); disk != nil {
		err = errors.Join(err, disk.close())
	}
	return errors.Join(err, t.orgs.close())
}
