package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/relais-edge/relais/internal/edge/cache/store/segment"
)

// childRole is the variable that makes a process a child: "write DIR SEED" or "fill DIR OBJECTS".
const childRole = "RELAIS_CRASH_CACHE"

const (
	hashes    = 20_000
	limit     = 128 << 20
	segments  = 4 << 20
	rate      = 24 << 20 // bytes a second
	writers   = 4
	fillBytes = 256 // of log for each object of the large log, at most
)

// child does a child's work, if this process is one.
func child() bool {
	var role, dir string
	var n uint64
	if k, _ := fmt.Sscan(os.Getenv(childRole), &role, &dir, &n); k != 3 {
		return false
	}
	var err error
	if role == "write" {
		err = write(dir, n)
	} else {
		err = fill(dir, int(n))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "child:", err)
		os.Exit(1)
	}
	return true
}

func quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

func open(dir string, cfg segment.Config, owner segment.Owner) (*segment.Log, error) {
	var err error
	if cfg.Dir, err = segment.OpenDir(dir); err != nil {
		return nil, err
	}
	cfg.Log = quiet()
	l, err := segment.New(cfg, owner)
	if err != nil {
		cfg.Dir.Close()
	}
	return l, err
}

func config() segment.Config {
	return segment.Config{Limit: limit, SegmentSize: segments, QueueBytes: 16 << 20}
}

// index is an Owner that says what it loses: each line leaves the process at once, so that
// SIGKILL takes none back.
type index struct {
	mu  sync.Mutex
	at  map[uint64]segment.Record
	say func(kind byte, hash uint64, version int64)
}

func newIndex() *index {
	return &index{at: map[uint64]segment.Record{}, say: func(byte, uint64, int64) {}}
}

func (x *index) Found(r segment.Record) {
	if r.Erased {
		delete(x.at, r.Hash)
		return
	}
	x.at[r.Hash] = r
}

func (x *index) Retire(r segment.Record) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.at[r.Hash].At != r.At {
		return false
	}
	if r.Hash%5 == 0 {
		return true
	}
	delete(x.at, r.Hash)
	x.say('R', r.Hash, r.Born)
	return false
}

func (x *index) Moved(r segment.Record, to segment.Location) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.at[r.Hash].At == r.At {
		r.At = to
		x.at[r.Hash] = r
		return true
	}
	return false
}

func (x *index) Lost(r segment.Record) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.at[r.Hash].At == r.At {
		delete(x.at, r.Hash)
		x.say('R', r.Hash, r.Born)
	}
}

// Gone is told of what a damaged table no longer tells.
func (x *index) Gone(from, to segment.Location) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for h, r := range x.at {
		if r.At >= from && r.At < to {
			delete(x.at, h)
			x.say('R', h, r.Born)
		}
	}
}

// bodyOf is the one body that a version of a hash can have; its length is of the version too.
func bodyOf(b []byte, hash uint64, version int64) []byte {
	rng := rand.New(rand.NewPCG(hash, uint64(version)))
	n := 100 + rng.IntN(8000)
	switch rng.IntN(40) {
	case 0:
		n = rng.IntN(3 << 20)
	case 1, 2, 3:
		n = rng.IntN(100 << 10)
	}
	b = b[:0]
	x := rng.Uint64()
	for i := 0; i < n; i += 8 {
		x = x*6364136223846793005 + 1442695040888963407
		b = binary.LittleEndian.AppendUint64(b, x)
	}
	return b[:n]
}

func keyOf(hash uint64) []byte { return strconv.AppendUint([]byte("https://shop.example/"), hash, 16) }

func headOf(hash uint64, version int64) []byte {
	return fmt.Appendf(nil, "etag: %x-%x", hash, version)
}

// write stores objects until it is killed.
func write(dir string, seed uint64) error {
	x := newIndex()
	x.say = func(kind byte, hash uint64, version int64) {
		_, _ = os.Stdout.Write(fmt.Appendf(nil, "%c %d %d\n", kind, hash, version))
	}
	l, err := open(dir, config(), x)
	if err != nil {
		return err
	}
	go func() { _ = l.Run(context.Background()) }()
	x.say('O', 0, 0)
	var wg sync.WaitGroup
	for g := range uint64(writers) {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(seed, g))
			var body []byte
			for {
				start := time.Now()
				// A hash belongs to one writer, so that its versions come in order.
				hash := rng.Uint64N(hashes)/writers*writers + g
				version := time.Now().UnixNano()
				if rng.IntN(20) == 0 {
					x.erase(l, hash, version)
					continue
				}
				body = bodyOf(body, hash, version)
				x.storeOne(l, hash, version, body, rng)
				time.Sleep(time.Until(start.Add(time.Duration(len(body)) * time.Second * writers / rate)))
			}
		})
	}
	wg.Wait()
	return nil
}

func (x *index) erase(l *segment.Log, hash uint64, version int64) {
	x.mu.Lock()
	_, had := x.at[hash]
	delete(x.at, hash)
	x.mu.Unlock()
	if had && l.Erase(hash, version) == nil {
		x.say('E', hash, version)
	}
}

func (x *index) storeOne(l *segment.Log, hash uint64, version int64, body []byte, rng *rand.Rand) {
	w, err := l.Create(segment.Meta{Hash: hash, Born: version, Key: keyOf(hash), Head: headOf(hash, version), Length: -1})
	if err != nil {
		return
	}
	defer w.Abort()
	for p := body; len(p) > 0; {
		n := min(len(p), 1+rng.IntN(64<<10))
		if w.Append(p[:n]) != nil {
			return
		}
		p = p[n:]
	}
	r, err := w.Commit(int64(len(body)))
	if err != nil {
		return
	}
	x.mu.Lock()
	x.at[hash] = r
	x.mu.Unlock()
	x.say('W', hash, version)
}

// fill stores so many small objects, says so, and waits to be killed.
func fill(dir string, n int) error {
	l, err := open(dir, segment.Config{Limit: fillLimit(n)}, newIndex())
	if err != nil {
		return err
	}
	go func() { _ = l.Run(context.Background()) }()
	body := make([]byte, 64)
	for i := 0; i < n; {
		w, err := l.Create(segment.Meta{Hash: uint64(i) * 0x9e3779b97f4a7c15, Born: int64(i), Key: keyOf(uint64(i)), Length: 64})
		if err != nil {
			return err
		}
		if err = w.Append(body); err == nil {
			_, err = w.Commit(64)
		}
		w.Abort()
		if err == nil {
			i++
			continue
		}
		time.Sleep(time.Millisecond) // the disk is slower than we are
	}
	for before := int64(-1); before != l.Stats().Written; time.Sleep(500 * time.Millisecond) {
		before = l.Stats().Written
	}
	fmt.Println("F 0 0")
	time.Sleep(time.Hour)
	return nil
}

func fillLimit(n int) int64 { return (int64(n)*fillBytes>>26 + 6) << 26 }
