package store

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/relais-edge/relais/internal/edge/cache/store/segment"
)

// Known is what can be known of a directory while another process has it: by which secret its keys are hashed,
// and the numbers of organizations. Its zero value knows nothing.
type Known struct {
	key   [16]byte
	names string
}

// LookInto reads what can be known of a directory of the file system that is not ours yet.
func LookInto(path string) (k Known) {
	if b := readSome(filepath.Join(path, keyName), 20); len(b) == 20 && crc32.ChecksumIEEE(b[:16]) == binary.LittleEndian.Uint32(b[16:]) {
		k.key = [16]byte(b[:16])
	}
	k.names = string(readSome(filepath.Join(path, orgsName), maxSmallFile))
	return k
}

func readSome(name string, most int64) []byte {
	f, err := os.Open(name)
	if err != nil {
		return nil
	}
	defer f.Close()
	b, _ := io.ReadAll(io.LimitReader(f, most))
	return b
}

// absent is what was forgotten while there was no disk tier: it must not come back with that.
type absent struct {
	mu   sync.Mutex
	owed map[uint64]struct{}
	many bool // more than can be remembered: nothing comes back
}

// maxAbsent bounds absent.owed.
const maxAbsent = 1 << 16

// owe remembers that a hash was forgotten; false when there is a disk tier by now.
func (t *Tiers) owe(hash uint64) bool {
	a := &t.absent
	a.mu.Lock()
	defer a.mu.Unlock()
	if t.disk.Load() != nil {
		return false
	}
	if a.owed == nil {
		a.owed = map[uint64]struct{}{}
	}
	if a.many = a.many || len(a.owed) == maxAbsent; a.many {
		a.owed = nil
	} else {
		a.owed[hash] = struct{}{}
	}
	return true
}

// ErrAttached says that there is a disk tier already, or that none was configured.
var ErrAttached = errors.New("store: a disk tier is there already, or none was configured")

// Attach takes up a disk tier of the configured size, with what an earlier process left there. What it holds under
// another secret than ours is dropped. After an error the directory is closed. One goroutine calls Attach and Detach.
func (t *Tiers) Attach(dir segment.Dir) error {
	if t.disk.Load() != nil || t.cfg.Disk <= 0 {
		return errors.Join(ErrAttached, dir.Close())
	}
	d := &tier{disk: true, stop: make(chan struct{}), stopped: make(chan struct{})}
	err := t.absent.wipe(dir)
	if err == nil {
		d.deaf, err = t.bringKey(dir)
	}
	if err == nil {
		err = t.orgs.attach(dir)
	}
	if err == nil {
		err = d.open(&t.cfg, &t.orgs, t.cfg.Disk, dir)
	}
	if err == nil {
		err = t.bring(d, dir)
	}
	if err != nil {
		t.orgs.detach()
		return errors.Join(err, dir.Close())
	}
	t.attached <- d
	return nil
}

// bring makes a disk tier that was taken up ours, without what was forgotten meanwhile. Until here who forgets
// something has not waited for it: that may be a request to change something.
func (t *Tiers) bring(d *tier, dir segment.Dir) error {
	a := &t.absent
	a.mu.Lock()
	defer a.mu.Unlock()
	now := time.Now().UnixNano()
	if a.many { // since it was taken up: nothing of it is used, now or by the next process
		if err := segment.Forget(dir); err != nil {
			return errors.Join(err, d.idx.Close(), d.policy.Close())
		}
		d.notBefore = now
	}
	for hash := range a.owed {
		c := d.idx.Lookup(hash)
		for _, e := range c.Entries[:c.N] {
			d.removeUnseen(hash, e)
		}
		d.erase(hash, now)
	}
	a.owed, a.many = nil, false
	t.disk.Store(d)
	return nil
}

// wipe forgets all that is in a directory where more was forgotten than can be remembered.
func (a *absent) wipe(dir segment.Dir) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.many {
		return nil
	}
	if err := segment.Forget(dir); err != nil {
		return err
	}
	a.many = false
	return nil
}

// bringKey makes our secret that of a directory; deaf says that it had another one, or none.
func (t *Tiers) bringKey(dir segment.Dir) (deaf bool, err error) {
	key, whole, err := readKey(dir)
	if err != nil {
		return false, fmt.Errorf("store: the key of hashes: %w", err)
	}
	if whole && key == t.key {
		return false, nil
	}
	f, err := dir.Open(keyName)
	if err == nil {
		err = writeKey(f, t.key)
	}
	if err != nil {
		return false, fmt.Errorf("store: the key of hashes: %w", err)
	}
	return true, nil
}

// Detach writes what was stored before, gives the disk tier up to another process, and goes on without. Who holds
// a record of it can go on reading. It does nothing where there is none. Run must be running, or have returned.
func (t *Tiers) Detach(ctx context.Context) error {
	d := t.disk.Swap(nil)
	if d == nil {
		return nil
	}
	close(d.stop)
	select {
	case <-d.stopped:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	t.orgs.detach()
	return d.log.Leave()
}

// runDisks runs the disk tiers that are attached, one after the other.
func (t *Tiers) runDisks(ctx context.Context) error {
	var errs []error
	for {
		select {
		case <-ctx.Done():
			select {
			case d := <-t.attached: // what was stored in it is written
				errs = append(errs, d.log.Run(ctx))
				close(d.stopped)
			default:
			}
			return errors.Join(errs...)
		case d := <-t.attached:
			within, cancel := context.WithCancel(ctx)
			watched := make(chan struct{})
			go func() {
				defer close(watched)
				select {
				case <-d.stop:
					cancel()
				case <-within.Done():
				}
			}()
			errs = append(errs, d.log.Run(within))
			close(d.stopped)
			cancel()
			<-watched
		}
	}
}
