package purge

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var then = time.UnixMilli(1_760_000_000_123)

func tagged(site, tag string) Entry {
	return Entry{Time: then, Kind: Tag, Site: site, Value: tag}
}

func add(t *testing.T, l Log, e Entry) uint64 {
	t.Helper()
	n, err := l.Append(e)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func after(t *testing.T, l Log, n uint64) []Entry {
	t.Helper()
	list, err := l.After(n, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	for i := range list {
		list[i].Time = list[i].Time.UTC()
	}
	return list
}

// conforms holds what every Log has to do. Open gives an empty one.
func conforms(t *testing.T, open func(t *testing.T, limit int) Log) {
	t.Run("numbers rise and entries come back in order", func(t *testing.T) {
		l := open(t, 100)
		begin := l.State().Last
		var want []Entry
		for i := range 10 {
			e := Entry{Time: then.UTC(), Kind: URL, Site: "acme/shop", Host: "shop.example", Value: fmt.Sprintf("/a?%d", i), Soft: i%2 == 0}
			e.Number = add(t, l, e)
			want = append(want, e)
		}
		if err := l.Sync(t.Context(), want[9].Number); err != nil {
			t.Fatal(err)
		}
		if got := after(t, l, begin); !reflect.DeepEqual(got, want) {
			t.Errorf("%v, want %v", got, want)
		}
		if got := after(t, l, want[3].Number); !reflect.DeepEqual(got, want[4:]) {
			t.Errorf("from the middle: %v", got)
		}
		two, err := l.After(begin, 2)
		if err != nil || len(two) != 2 || two[1].Number != want[1].Number {
			t.Errorf("%v, %v: want the first two", two, err)
		}
		if s := l.State(); s.Last != want[9].Number || s.Entries != 10 {
			t.Errorf("%+v", s)
		}
	})
	t.Run("what is repeated is kept once", func(t *testing.T) {
		l := open(t, 100)
		begin := l.State()
		var last uint64
		for i := range 1000 {
			last = add(t, l, tagged("acme/shop", fmt.Sprintf("t%d", i%10)))
			if i%50 == 0 {
				_ = l.Sync(t.Context(), last)
			}
		}
		_ = l.Sync(t.Context(), last)
		got := map[string]uint64{}
		for _, e := range after(t, l, begin.Last) {
			got[e.Value] = e.Number
		}
		if len(got) != 10 || got["t9"] != last || got["t0"] != last-9 {
			t.Errorf("%v: want ten tags with their last numbers, up to %d", got, last)
		}
		if s := l.State(); s.Base != begin.Base || s.Entries > 200 {
			t.Errorf("%+v: nothing is lost, so the base stays", s)
		}
	})
	t.Run("what does not fit moves the base, never silently", func(t *testing.T) {
		l := open(t, 100)
		begin := l.State()
		for i := range 1000 {
			n := add(t, l, tagged("acme/shop", fmt.Sprintf("t%d", i)))
			if i%10 == 0 {
				_ = l.Sync(t.Context(), n)
			}
		}
		_ = l.Sync(t.Context(), ^uint64(0))
		s := l.State()
		if s.Base <= begin.Last || s.Entries > 120 {
			t.Fatalf("%+v", s)
		}
		var c *Compacted
		if _, err := l.After(begin.Last, 1); !errors.As(err, &c) || c.Base != s.Base {
			t.Errorf("%v: want Compacted with base %d", err, s.Base)
		}
		if list := after(t, l, s.Base); uint64(len(list)) != s.Last-s.Base {
			t.Errorf("%d entries after the base, want %d", len(list), s.Last-s.Base)
		}
	})
	t.Run("a wide purge covers older narrow ones of its site", func(t *testing.T) {
		l := open(t, 8)
		begin := l.State()
		for i := range 6 {
			add(t, l, tagged("acme/shop", fmt.Sprintf("t%d", i)))
		}
		other := add(t, l, tagged("acme/other", "x"))
		wide := add(t, l, Entry{Time: then, Kind: Site, Site: "acme/shop"})
		n := add(t, l, tagged("acme/shop", "new"))
		_ = l.Sync(t.Context(), n)
		add(t, l, tagged("acme/shop", "newer"))
		_ = l.Sync(t.Context(), ^uint64(0))
		var got []uint64
		for _, e := range after(t, l, begin.Last) {
			got = append(got, e.Number)
		}
		if !slices.Equal(got, []uint64{other, wide, n, n + 1}) || l.State().Base != begin.Base {
			t.Errorf("%v; %+v", got, l.State())
		}
	})
	t.Run("what is wrong is refused", func(t *testing.T) {
		l := open(t, 8)
		for _, e := range []Entry{{}, {Kind: Tag, Value: "x"}, tagged("s", "a b"), {Kind: Path, Site: "s", Value: "x"}, {Kind: Host, Site: "s"}, {Kind: 99, Site: "s"}} {
			if _, err := l.Append(e); err == nil {
				t.Errorf("%+v is taken", e)
			}
		}
	})
	t.Run("many at once", func(t *testing.T) {
		l := open(t, 4096)
		begin := l.State().Last
		var wg sync.WaitGroup
		for w := range 8 {
			wg.Go(func() {
				for i := range 50 {
					n, err := l.Append(tagged("acme/shop", fmt.Sprintf("t%d-%d", w, i)))
					if err == nil {
						err = l.Sync(t.Context(), n)
					}
					if err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
		if list := after(t, l, begin); len(list) != 400 {
			t.Errorf("%d entries", len(list))
		}
	})
	t.Run("closed", func(t *testing.T) {
		l := open(t, 8)
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		if _, err := l.Append(tagged("s", "x")); err == nil {
			t.Error("a closed log takes entries")
		}
	})
}

func TestLogConformanceMemory(t *testing.T) {
	conforms(t, func(_ *testing.T, limit int) Log { return NewMemory(limit) })
}

func TestLogConformanceFile(t *testing.T) {
	conforms(t, func(t *testing.T, limit int) Log { return open(t, filepath.Join(t.TempDir(), "log"), limit) })
}

func open(t *testing.T, path string, limit int) *File {
	t.Helper()
	l, err := OpenFile(path, limit)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

func TestAFileGoesOnAfterARestartAndGivesNoNumberTwice(t *testing.T) {
	path := filepath.Join(t.TempDir(), "purge", "log")
	l := open(t, path, 100)
	n := add(t, l, tagged("acme/shop", "a"))
	id := l.State().ID
	l.Close()
	l = open(t, path, 100)
	if list := after(t, l, n-1); len(list) != 1 || list[0].Value != "a" {
		t.Fatalf("%v", list)
	}
	if s := l.State(); s.ID != id || s.Last < n+maxWaiting {
		t.Errorf("%+v", s)
	}
	if m := add(t, l, tagged("acme/shop", "b")); m <= n+maxWaiting {
		t.Errorf("number %d after %d, of which some may have been lost", m, n)
	}
}

// Cut at every byte, a log has what was whole before the cut, and its base does not move.
func TestAFileTornAnywhereKeepsWhatWasWhole(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	l := open(t, path, 100)
	var ends []int64
	begin := l.State()
	for i := range 5 {
		n := add(t, l, tagged("acme/shop", fmt.Sprintf("tag%d", i)))
		_ = l.Sync(t.Context(), n)
		ends = append(ends, l.size)
	}
	l.Close()
	whole, _ := os.ReadFile(path)
	head := int64(len(appendHeader(nil, begin.ID, begin.Base)))
	for cut := head; cut <= int64(len(whole)); cut++ {
		p := filepath.Join(t.TempDir(), "cut")
		if err := os.WriteFile(p, whole[:cut], 0o600); err != nil {
			t.Fatal(err)
		}
		want := 0
		for _, e := range ends {
			if e <= cut {
				want++
			}
		}
		c := open(t, p, 100)
		if got := after(t, c, begin.Base); len(got) != want || c.State().Base != begin.Base {
			t.Fatalf("cut at %d: %d entries, want %d, %+v", cut, len(got), want, c.State())
		}
		add(t, c, tagged("acme/shop", "more"))
		if got := after(t, c, begin.Base); len(got) != want+1 {
			t.Fatalf("cut at %d: %d entries after one more", cut, len(got))
		}
		c.Close()
	}
}

// A flipped bit costs purges that were kept: what is older than the next good one counts as purged.
func TestADamagedFileNeverForgetsAPurgeSilently(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	l := open(t, path, 100)
	begin := l.State()
	var numbers []uint64
	for i := range 5 {
		numbers = append(numbers, add(t, l, tagged("acme/shop", fmt.Sprintf("tag%d", i))))
	}
	l.Close()
	whole, _ := os.ReadFile(path)
	head := len(appendHeader(nil, begin.ID, begin.Base))
	for at := 0; at < len(whole); at += 3 {
		b := append([]byte(nil), whole...)
		b[at] ^= 0x10
		p := filepath.Join(t.TempDir(), "flip")
		_ = os.WriteFile(p, b, 0o600)
		c, err := openFile(p, 100, time.Now().Add(time.Second))
		if err != nil {
			t.Fatal(err)
		}
		if at < head+(len(whole)-head)*4/5 && !c.Damaged() {
			t.Errorf("byte %d flipped: nobody hears of it", at)
		}
		s := c.State()
		e := NewEpochs(64)
		e.Begin(s.Base, s.Last)
		for _, x := range after(t, c, s.Base) {
			e.Apply(&x)
		}
		m := e.Mark("acme/shop")
		for i, n := range numbers {
			v := m.Place(&Place{Path: []byte("/")}).And(m.Tags([]uint64{m.TagHash(fmt.Appendf(nil, "tag%d", i))}))
			torn := at >= head+(len(whole)-head)*4/5 && i == 4 // the last one may look like a torn end
			if v.Hard < n && !torn {
				t.Errorf("byte %d flipped: an answer older than number %d is served (%+v, %+v)", at, n, v, s)
			}
		}
		c.Close()
	}
}

func TestALogThatIsGoneMakesEverythingOlderPurged(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	l := open(t, path, 100)
	n := add(t, l, tagged("acme/shop", "a"))
	l.Close()
	_ = os.Remove(path)
	again, err := openFile(path, 100, time.Now().Add(time.Second))
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if s := again.State(); s.Base < n {
		t.Errorf("%+v: an answer of number %d is not older", s, n)
	}
}

func TestAFileThatCannotBeWrittenSaysSoAndGoesOnLater(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	l := open(t, path, 100)
	good := l.f
	l.f, _ = os.Open(path) // only for reading
	n := add(t, l, tagged("acme/shop", "a"))
	if err := l.Sync(t.Context(), n); err == nil {
		t.Fatal("written to a file that is open for reading")
	}
	l.f.Close()
	l.f = good
	if err := l.Sync(t.Context(), n); err != nil {
		t.Fatal(err)
	}
	if list := after(t, l, n-1); len(list) != 1 {
		t.Errorf("%v", list)
	}
}

func FuzzParseEntry(f *testing.F) {
	e := Entry{Number: 7, Time: then, Kind: URL, Site: "acme/shop", Host: "shop.example", Value: "/a?b", Soft: true}
	f.Add(e.append(nil))
	f.Add([]byte{})
	f.Add([]byte{1, 1, 0x88, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		e, ok := parseEntry(b)
		if !ok {
			return
		}
		again, ok := parseEntry(e.append(nil))
		if !ok || again != e {
			t.Errorf("%+v becomes %+v", e, again)
		}
	})
}
