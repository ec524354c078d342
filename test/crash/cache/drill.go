package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/relais-edge/relais/internal/edge/cache/store/segment"
)

// fact is what the child said last of a hash.
type fact struct {
	version int64
	erased  bool
	said    time.Time
}

// drill is what was said by the children, and what was found of it.
type drill struct {
	s     settings
	rng   *rand.Rand
	mu    sync.Mutex
	facts map[uint64]fact

	kills, stored, read, damaged, missed int
	expected, lost, back, corrupt        int
	slowest                              time.Duration
}

func newDrill(s settings) *drill {
	return &drill{s: s, rng: rand.New(rand.NewPCG(s.seed, 1)), facts: map[uint64]fact{}}
}

func (d *drill) logDir() string { return filepath.Join(d.s.dir, "log") }

// spawn starts a child and gives each line it says to hear.
func spawn(ctx context.Context, role string, hear func(kind byte, hash uint64, version int64)) (kill func() error, err error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, self)
	cmd.Env = append(os.Environ(), childRole+"="+role)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	heard := make(chan struct{})
	go func() {
		defer close(heard)
		in := bufio.NewScanner(out)
		for in.Scan() {
			var kind byte
			var hash uint64
			var version int64
			if n, _ := fmt.Sscanf(in.Text(), "%c %d %d", &kind, &hash, &version); n == 3 {
				hear(kind, hash, version)
			}
		}
	}()
	return func() error {
		err := cmd.Process.Kill() // SIGKILL
		<-heard
		_ = cmd.Wait()
		return err
	}, nil
}

// round lets a child write for a while, kills it, and reads back what it left.
func (d *drill) round(ctx context.Context, i int) error {
	opened := make(chan struct{}, 1)
	kill, err := spawn(ctx, fmt.Sprintf("write %s %d", d.logDir(), d.s.seed*1000+uint64(i)), func(kind byte, hash uint64, version int64) {
		if kind == 'O' {
			opened <- struct{}{}
			return
		}
		d.hear(kind, hash, version)
	})
	if err != nil {
		return err
	}
	select {
	case <-opened:
	case <-time.After(30 * time.Second):
		return errors.Join(errors.New("the child did not start"), kill())
	}
	select {
	case <-time.After(time.Duration(200+d.rng.IntN(1300)) * time.Millisecond):
	case <-ctx.Done():
	}
	at := time.Now()
	if err := errors.Join(kill(), ctx.Err()); err != nil {
		return err
	}
	d.kills++
	good, err := d.readBack()
	if err != nil {
		return err
	}
	d.judge(good, at.Add(-time.Second))
	if i%4 == 0 {
		d.damaged++
		if err := d.damage(); err != nil {
			return err
		}
		after, err := d.readBack()
		if err != nil {
			return err
		}
		d.missed += max(0, len(good)-len(after))
		good = after
	}
	d.settle(good, i%4 == 0)
	return nil
}

func (d *drill) hear(kind byte, hash uint64, version int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch kind {
	case 'W':
		d.stored++
		d.facts[hash] = fact{version, false, time.Now()}
	case 'E':
		d.facts[hash] = fact{version, true, time.Now()}
	case 'R':
		if f := d.facts[hash]; f.version == version && !f.erased {
			delete(d.facts, hash)
		}
	}
}

// readBack opens what is there and reads all of it. It returns the versions that have whole bodies.
func (d *drill) readBack() (map[uint64]int64, error) {
	x := newIndex()
	start := time.Now()
	l, err := open(d.logDir(), config(), x)
	if err != nil {
		return nil, err
	}
	d.slowest = max(d.slowest, time.Since(start))
	good := map[uint64]int64{}
	var o segment.Object
	var got, want []byte
	for hash, r := range x.at {
		if l.Pin(r.At, &o) != nil {
			continue
		}
		if !bytes.Equal(o.Key(), keyOf(o.Hash)) || !bytes.Equal(o.Head(), headOf(o.Hash, o.Born)) {
			d.corrupt++
			continue
		}
		want = bodyOf(want, o.Hash, o.Born)
		if int64(cap(got)) < o.Len() {
			got = make([]byte, o.Len())
		}
		got = got[:o.Len()]
		n, err := o.ReadAt(got, 0)
		d.read++
		if !bytes.Equal(got[:n], want[:min(n, len(want))]) || err == nil && n != len(want) {
			d.corrupt++
			continue
		}
		if (err == nil || err == io.EOF) && n == len(want) && o.Hash == hash {
			good[hash] = o.Born
		}
	}
	o.Unpin()
	return good, l.Close()
}

// judge counts what was said before an instant and is not there, or there again.
func (d *drill) judge(good map[uint64]int64, before time.Time) {
	for hash, f := range d.facts {
		switch {
		case f.said.After(before):
		case f.erased:
			if v, ok := good[hash]; ok && v < f.version {
				d.back++
			}
		default:
			d.expected++
			if good[hash] < f.version {
				d.lost++
			}
		}
	}
}

// settle takes what is there as what the next child has. What was erased must stay away, but
// damage may have hit the mark that says so.
func (d *drill) settle(good map[uint64]int64, damaged bool) {
	for hash, f := range d.facts {
		// What was erased within the last second may rightly be there.
		if _, there := good[hash]; !f.erased || damaged || there {
			delete(d.facts, hash)
		} else {
			d.facts[hash] = fact{version: f.version, erased: true}
		}
	}
	for hash, v := range good {
		d.facts[hash] = fact{version: v}
	}
}

// damage flips bits, clears sectors and cuts files short.
func (d *drill) damage() error {
	names, err := filepath.Glob(filepath.Join(d.logDir(), "0*"))
	if err != nil {
		return err
	}
	for range 3 + d.rng.IntN(12) {
		if err := d.damageOne(names[d.rng.IntN(len(names))]); err != nil {
			return err
		}
	}
	return nil
}

func (d *drill) damageOne(name string) error {
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || info.Size() == 0 {
		return err
	}
	at := d.rng.Int64N(info.Size())
	switch d.rng.IntN(8) {
	case 0:
		return f.Truncate(at)
	case 1:
		_, err = f.WriteAt(make([]byte, min(512, info.Size()-at)), at)
	default:
		b := make([]byte, 1)
		if _, err = f.ReadAt(b, at); err == nil {
			b[0] ^= 1 << d.rng.IntN(8)
			_, err = f.WriteAt(b, at)
		}
	}
	return err
}

// million times the start of a log of many objects whose writer was killed.
func million(ctx context.Context, s settings) (started, error) {
	dir := filepath.Join(s.dir, "million")
	defer os.RemoveAll(dir)
	full := make(chan struct{}, 1)
	kill, err := spawn(ctx, fmt.Sprintf("fill %s %d", dir, s.objects), func(byte, uint64, int64) { full <- struct{}{} })
	if err != nil {
		return started{}, err
	}
	select {
	case <-full:
	case <-time.After(5 * time.Minute):
		err = errors.New("the log was not filled in five minutes")
	case <-ctx.Done():
		err = ctx.Err()
	}
	if err := errors.Join(err, kill()); err != nil {
		return started{}, err
	}
	best := started{wall: time.Hour}
	for range starts {
		x := newFlat(s.objects)
		before := cpu()
		start := time.Now()
		l, err := open(dir, segment.Config{Limit: fillLimit(s.objects)}, x)
		if err != nil {
			return started{}, err
		}
		if wall := time.Since(start); wall < best.wall {
			best = started{wall, cpu() - before, x.n}
		}
		if err := l.Close(); err != nil {
			return started{}, err
		}
	}
	return best, nil
}

// starts is how often a start is timed; the fastest counts, because the machine may be busy.
const starts = 5

// flat is an index of 16 bytes an object, as one is in service.
type flat struct {
	index
	slots []struct{ hash, at uint64 }
	n     int
}

func newFlat(objects int) *flat {
	n := 1024
	for n < objects*3/2 {
		n *= 2
	}
	return &flat{slots: make([]struct{ hash, at uint64 }, n)}
}

func (x *flat) Found(r segment.Record) {
	for i := (r.Hash ^ r.Hash>>29) & uint64(len(x.slots)-1); ; i = (i + 1) & uint64(len(x.slots)-1) {
		s := &x.slots[i]
		if s.at == 0 {
			x.n++
		} else if s.hash != r.Hash {
			continue
		}
		s.hash, s.at = r.Hash, uint64(r.At)
		return
	}
}

// started is how a start went.
type started struct {
	wall, cpu time.Duration
	found     int
}

// cpu is what this process has used.
func cpu() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
