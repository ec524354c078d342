//go:build linux

// Command cacheindex fills the index of the cache and the sketch of its admission policy with
// made-up objects, and says what one costs: memory, time, and the collector's pause. It exits 1
// when a goal is missed.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/relais-edge/relais/internal/edge/cache/store/admission"
	"github.com/relais-edge/relais/internal/edge/cache/store/index"
)

const usage = `Usage: go run ./bench/cacheindex [-objects 65000000]

Fills an index and a sketch with so many made-up objects (hashes of the numbers
from 1, one record behind the other). Times are of the CPU, on one goroutine;
the collector's are also of the clock: thirty forced collections, of which the
shortest is judged.

Flags:
`

// Goals for each object, and for the collector whatever the number.
const (
	goalBytes = 1.05e9 / 65e6 // resident, index and sketch: 1.05 GB for 65 million
	goalIndex = 10.0          // of the index alone
	goalPause = 5 * time.Millisecond
)

// judgeResident is from how many objects on resident memory is judged: below, what the process
// itself takes, some MB, weighs too much, and the memory of index and sketch is judged.
const judgeResident = 10_000_000

var (
	errShort = errors.New("a goal of memory is short, or an object is missing")
	errPause = errors.New("the collector takes longer than its goal")
)

func main() {
	f := flag.NewFlagSet("cacheindex", flag.ExitOnError)
	f.Usage = func() {
		fmt.Fprint(f.Output(), usage)
		f.PrintDefaults()
	}
	objects := f.Int("objects", 1_000_000, "how many; at least 100000")
	_ = f.Parse(os.Args[1:]) // ExitOnError
	if err := run(*objects, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "cacheindex:", err)
		os.Exit(1)
	}
}

func run(objects int, w io.Writer) error {
	if objects < 100_000 {
		return fmt.Errorf("%d objects, want at least 100000", objects)
	}
	before, err := resident()
	if err != nil {
		return err
	}
	x, err := index.New(index.Config{Objects: objects})
	if err != nil {
		return err
	}
	p, err := admission.New(admission.Config{Objects: objects})
	if err != nil {
		return errors.Join(err, x.Close())
	}
	pause, err := fill(x, p, uint64(objects), before, w)
	if err == nil && pause > goalPause {
		err = errPause
	}
	return errors.Join(err, x.Close(), p.Close())
}

// maxProbes is how many look-ups are timed, or as many as there are objects.
const maxProbes = 3_000_000

// fill measures, and gives the shortest pause of the collector.
func fill(x *index.Index, p *admission.Policy, n uint64, before int64, w io.Writer) (pause time.Duration, err error) {
	refused, missed, wrong, probes := 0, 0, 0, min(n, maxProbes)
	insert := timed(n, func(i uint64) {
		if !x.Insert(mix(i+1), index.Entry{Location: index.Location(i), Class: 7}) {
			refused++
		}
	})
	touch := timed(n, func(i uint64) { p.Touch(mix(i + 1)) })
	hit := timed(probes, func(i uint64) {
		j := mix(i) % n
		c := x.Lookup(mix(j + 1))
		if !slices.Contains(c.Entries[:c.N], index.Entry{Location: index.Location(j), Class: 7}) {
			missed++
		}
	})
	miss := timed(probes, func(i uint64) { wrong += x.Lookup(mix(n + i + 1)).N })
	p.Keep(mix(1), 16<<10) // from now on there is a threshold
	admit := timed(probes, func(i uint64) { p.Admit(mix(mix(i)%n+1), 16<<10) })
	keep := timed(probes, func(i uint64) { p.Keep(mix(mix(i)%n+1), 16<<10) })
	replace := timed(probes, func(i uint64) {
		j := mix(i) % n
		x.Replace(mix(j+1), index.Location(j), index.Location(j))
	})
	pauses, cpu := collect()
	after, err := resident()
	if err != nil {
		return 0, err
	}
	each := func(bytes int64) float64 { return float64(bytes) / float64(n) }
	fmt.Fprintf(w, "%d made-up objects\n", n)
	fmt.Fprintf(w, "  memory   index %.2f B an object, sketch %.2f; resident %.0f MB, %.2f B an object (goals: index %.0f, all %.2f)\n",
		each(x.Bytes()), each(p.Stats().Bytes), float64(after-before)/1e6, each(after-before), goalIndex, goalBytes)
	fmt.Fprintf(w, "  index    insert %d ns, look-up %d ns, in vain %d ns, replace %d ns; %d refused, %d missed, %.3f %% of look-ups in vain have a candidate\n",
		insert, hit, miss, replace, refused, missed, 100*float64(wrong)/float64(probes))
	fmt.Fprintf(w, "  policy   touch %d ns, admit %d ns, keep %d ns\n", touch, admit, keep)
	fmt.Fprintf(w, "  full GC  %v at the least, %v in the middle of %d (goal %v), CPU %v\n",
		pauses[0], pauses[len(pauses)/2], len(pauses), goalPause, cpu)
	own := x.Bytes() + p.Stats().Bytes
	if n >= judgeResident {
		own = after - before
	}
	if refused+missed > 0 || each(x.Bytes()) > goalIndex || each(own) > goalBytes {
		return 0, errShort
	}
	return pauses[0], nil // others on the machine make the rest longer
}

// timed is the CPU time of a call, in nanoseconds, as a mean of n calls.
func timed(n uint64, call func(uint64)) int64 {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	begin := cpuTime(rusageThread)
	for i := range n {
		call(i)
	}
	return (cpuTime(rusageThread) - begin).Nanoseconds() / int64(n)
}

// Whose time getrusage(2) tells.
const (
	rusageSelf   = 0
	rusageThread = 1
)

func cpuTime(whose int) time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(whose, &u) // cannot fail with these arguments
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// collections is how many are forced.
const collections = 30

// collect forces collections and gives their times by the clock, in order, and the CPU time of one.
func collect() (pauses []time.Duration, cpu time.Duration) {
	runtime.GC() // what is left of the fill
	begin := cpuTime(rusageSelf)
	for range collections {
		begin := time.Now()
		runtime.GC()
		pauses = append(pauses, time.Since(begin))
	}
	slices.Sort(pauses)
	return pauses, (cpuTime(rusageSelf) - begin) / collections
}

// resident is the memory that the process has, in bytes.
func resident() (int64, error) {
	b, err := os.ReadFile("/proc/self/smaps_rollup")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if kb, ok := strings.CutPrefix(line, "Rss:"); ok {
			n, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(kb), "kB")), 10, 64)
			return n << 10, err
		}
	}
	return 0, errors.New("/proc/self/smaps_rollup has no line Rss")
}

// mix spreads a number over 64 bits (the finalizer of MurmurHash3).
func mix(x uint64) uint64 {
	x ^= x >> 33
	x *= 0xff51afd7ed558ccd
	x ^= x >> 33
	x *= 0xc4ceb9fe1a85ec53
	return x ^ x>>33
}
