package waitroom

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/relais-edge/relais/internal/observe"
)

// A million who wait cost nothing that ten do not.
func TestAMillionWaitersFitIn64MB(t *testing.T) {
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	s := New(Config{}, observe.New())
	l := newLine()
	for range 1_000_000 {
		l.take()
	}
	l.mu.Lock()
	l.call(1000)
	l.mu.Unlock()
	for n := range uint64(1000) {
		come(l, n+1)
	}
	for i := range int64(5000) {
		l.second(i * 10)
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if l.waiting() != 999_000 {
		t.Errorf("%d wait", l.waiting())
	}
	grew := int64(after.HeapAlloc) - int64(before.HeapAlloc)
	t.Logf("a stage with a line of 1,000,000 has %d KiB", grew>>10)
	if grew > 4<<20 {
		t.Errorf("a stage with a line of 1,000,000 has %d bytes", grew)
	}
	runtime.KeepAlive(s)
	runtime.KeepAlive(l)
}

func TestTheLineIsCalledInItsOrderAndNobodyBeyondIt(t *testing.T) {
	l := newLine()
	for range 10 {
		l.take()
	}
	l.mu.Lock()
	l.call(3)
	l.mu.Unlock()
	if l.called.Load() != 3 || l.waiting() != 7 || !l.open() {
		t.Errorf("called %d, waiting %d", l.called.Load(), l.waiting())
	}
	l.mu.Lock()
	l.call(100)
	l.mu.Unlock()
	if l.called.Load() != 10 || l.open() {
		t.Errorf("called %d of 10", l.called.Load())
	}
}

// crowd simulates visitors before a shop, a second at a time.
type crowd struct {
	l      *line
	share  float64 // of those called who come
	places float64 // requests a second that the pools take
	each   float64 // requests a second of one visitor inside
	stay   int     // seconds that one stays
	inside []int   // who came, by second
	served uint64
	full   int
}

// second lets a second pass and returns how many came.
func (c *crowd) second(i int) int {
	want := 0.0
	for s := max(0, i-c.stay); s < i; s++ {
		want += float64(c.inside[s]) * c.each
	}
	came := 0
	for c.served < c.l.called.Load() {
		c.served++
		if rand.Float64() < c.share {
			come(c.l, c.served)
			came++
		}
	}
	c.inside = append(c.inside, came)
	free := max(0, 1-want/c.places)
	if want > c.places {
		c.l.full.Add(uint64(want-c.places) + 1)
		c.full++
	}
	for range 4 {
		c.l.step(250*time.Millisecond, space{free, min(want, c.places)}, 0)
	}
	c.l.second(int64(i))
	return came
}

func TestTheRateFollowsWhatTheTiersTake(t *testing.T) {
	for _, share := range []float64{1, 0.5, 0.1} {
		// 100 requests a second, each visitor one in five seconds for a minute: 8.3 visitors a second.
		c := &crowd{l: newLine(), share: share, places: 100, each: 0.2, stay: 60}
		for range 1_000_000 {
			c.l.take()
		}
		total := 0
		for i := range 600 {
			n := c.second(i)
			if i >= 300 {
				total += n
			}
		}
		rate := float64(total) / 300
		t.Logf("%.0f %% come: %.1f visitors a second, of 8.3 that fit; %d of 600 seconds full", share*100, rate, c.full)
		if rate < 4 || rate > 12 {
			t.Errorf("%.0f %% come: %.1f visitors a second, of 8.3 that fit", share*100, rate)
		}
	}
}

func TestWhoDoesNotComeDoesNotHoldTheLine(t *testing.T) {
	wait := func(share float64) int {
		c := &crowd{l: newLine(), share: share, places: 1e9, each: 1, stay: 1}
		for range 20_000 {
			c.l.take()
		}
		for i := range 3600 {
			for range 4 {
				c.l.step(250*time.Millisecond, space{1, 0}, 10) // at most ten visitors a second
			}
			for c.served < c.l.called.Load() {
				if c.served++; rand.Float64() < share {
					come(c.l, c.served)
				}
			}
			if c.l.second(int64(i)); !c.l.open() {
				return i
			}
		}
		return 3600
	}
	all, few := wait(1), wait(0.1)
	t.Logf("20,000 at 10 a second: %d s when all come, %d s when one in ten does", all, few)
	if all < 1800 || all > 2300 || few > all/4 {
		t.Errorf("20,000 at 10 a second: %d s when all come, %d s when one in ten does", all, few)
	}
}

func TestRestartNeitherLosesPlacesNorLetsEverybodyIn(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "rooms")
	a := &room{key: "o/shop\x00r", line: newLine()}
	for range 5000 {
		a.line.take()
	}
	a.line.mu.Lock()
	a.line.call(700)
	a.line.mu.Unlock()
	if err := a.save(dir, false); err != nil {
		t.Fatal(err)
	}
	for range 40 { // given after the line was written; then the process is killed
		a.line.take()
	}
	b := &room{key: a.key, line: newLine()}
	if err := b.load(dir); err != nil {
		t.Fatal(err)
	}
	if b.line.called.Load() != 700 {
		t.Errorf("%d may go in after the restart, want the 700 of before", b.line.called.Load())
	}
	for _, n := range []uint64{1, 700, 701, 5000, 5040} {
		tk := ticket{epoch: a.line.epoch, number: n}
		if got := b.line.place(&tk); got != n {
			t.Errorf("place %d is %d after the restart", n, got)
		}
	}
	if n := b.line.take(); n <= 5040 {
		t.Errorf("place %d is given a second time", n)
	}
	if err := b.save(dir, true); err != nil {
		t.Fatal(err)
	}
	c := &room{key: a.key, line: newLine()}
	if err := c.load(dir); err != nil || c.line.issued.Load() != b.line.issued.Load() {
		t.Errorf("after a stop in good order %d places, want %d; %v", c.line.issued.Load(), b.line.issued.Load(), err)
	}
}

func TestASpoiltFileBeginsANewLineAndSaysSo(t *testing.T) {
	for _, text := range []string{"", "{", `{"room":"another","issued":5}`, `{"room":"o/shop\u0000r","issued":5,"called":9}`, `{"room":"o/shop\u0000r","issued":9223372036854775807}`} {
		dir := t.TempDir()
		r := &room{key: "o/shop\x00r", line: newLine()}
		if err := os.WriteFile(r.path(dir), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := r.load(dir); err == nil || r.line.issued.Load() != 0 {
			t.Errorf("%q: %v, %d places", text, err, r.line.issued.Load())
		}
	}
}

func TestATicketOfAnotherEdgeFindsThePlaceOfItsTime(t *testing.T) {
	l := newLine()
	for i := range int64(100) {
		for range 5 {
			l.take()
		}
		l.second(1000 + 10*i)
	}
	for _, c := range []struct {
		arrived uint32
		want    uint64
	}{{999, 0}, {1000, 5}, {1009, 5}, {1010, 10}, {1500, 255}, {99999, 500}} {
		if got := l.place(&ticket{epoch: l.epoch + 1, number: 77, arrived: c.arrived}); got != c.want {
			t.Errorf("who came at %d has place %d, want %d", c.arrived, got, c.want)
		}
	}
}

// come has a number that was called go in.
func come(l *line, number uint64) {
	l.admit(number, 0, 0)
	l.enter(number, 0)
}
