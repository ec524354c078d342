package store

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/relais-edge/relais/internal/edge/cache/store/index"
	"github.com/relais-edge/relais/internal/edge/cache/store/segment"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// rig is a store under test with one organization.
type rig struct {
	*Tiers
	t   testing.TB
	org *Org
	end func()
}

func take(t testing.TB, cfg Config, path string) *rig {
	t.Helper()
	cfg.Log = slog.New(slog.NewTextHandler(io.Discard, nil))
	if path != "" {
		d, err := segment.OpenDir(path)
		if err != nil {
			t.Fatal(err)
		}
		cfg.Dir = d
	}
	s, err := NewTiers(cfg)
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{Tiers: s, t: t, org: s.Org("acme"), end: func() {}}
	t.Cleanup(func() { r.stop() })
	return r
}

// run starts the store's work; stop ends it and the store.
func (r *rig) run() {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- r.Run(ctx) }()
	r.end = func() {
		cancel()
		if err := <-done; err != nil {
			r.t.Error(err)
		}
	}
}

func (r *rig) stop() {
	if r.end == nil {
		return
	}
	r.end()
	r.end = nil
	if err := r.Close(); err != nil {
		r.t.Error(err)
	}
}

func (r *rig) put(key, head string, body []byte, born int64) error {
	k := []byte(key)
	w := r.Create(Meta{Org: r.org, Hash: r.HashOf(k), Key: k, Head: []byte(head), Born: born, Length: int64(len(body))})
	for rest := body; len(rest) > 0; {
		n := min(len(rest), 5000)
		w.Append(rest[:n])
		rest = rest[n:]
	}
	return w.Commit(int64(len(body)), nil)
}

// get reads a record whole; head is empty on a miss.
func (r *rig) get(key string) (head string, body []byte, inMemory bool) {
	r.t.Helper()
	var ref Ref
	defer ref.Release()
	k := []byte(key)
	if !r.Get(r.org, r.HashOf(k), k, &ref) {
		return "", nil, false
	}
	if string(ref.Key()) != key {
		r.t.Fatalf("asked for %q, got %q", key, ref.Key())
	}
	body = make([]byte, ref.Len())
	if n, err := ref.ReadAt(body, 0); n < len(body) {
		r.t.Fatalf("%s: %d of %d bytes: %v", key, n, len(body), err)
	}
	return string(ref.Head()), body, ref.InMemory()
}

func filled(seed, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(seed + i*7 + i>>8)
	}
	return b
}

func TestSipHashHasTheValuesOfItsReference(t *testing.T) {
	// From the authors' vectors of SipHash-2-4-128: key 00 01 … 0f, messages 00 01 ….
	for n, want := range []Hash{
		{lo: 0xe6a825ba047f81a3, hi: 0x930255c71472f66d},
		{lo: 0x44af996bd8c187da, hi: 0x45fc229b11597634},
	} {
		if got := sip(0x0706050403020100, 0x0f0e0d0c0b0a0908, []byte{0, 1, 2}[:n]); got != want {
			t.Errorf("%d bytes: %x, want %x", n, got, want)
		}
	}
}

func TestWhatIsStoredIsFoundReplacedAndDeleted(t *testing.T) {
	for _, c := range []struct {
		name string
		disk int64
	}{{"memory", 0}, {"memory and disk", 16 << 20}} {
		t.Run(c.name, func(t *testing.T) {
			path := ""
			if c.disk > 0 {
				path = t.TempDir()
			}
			r := take(t, Config{Memory: 4 << 20, Disk: c.disk}, path)
			for _, size := range []int{0, 1, 1000, 300_000} {
				key := fmt.Sprint("size ", size)
				if h, _, _ := r.get(key); h != "" {
					t.Fatal("an empty store has", key)
				}
				for v := range 3 {
					head, body := fmt.Sprint("head ", v), filled(v, size)
					if err := r.put(key, head, body, int64(v+1)); err != nil {
						t.Fatal(err)
					}
					h, b, mem := r.get(key)
					if h != head || !bytes.Equal(b, body) || !mem {
						t.Fatalf("%s version %d: head %q, %d bytes, memory %v", key, v, h, len(b), mem)
					}
				}
				var ref Ref
				before := r.Stats()
				if !r.Peek(r.HashOf([]byte(key)), []byte(key), &ref) || string(ref.Head()) != "head 2" || r.Stats().Hits != before.Hits {
					t.Fatal("a look that is no request finds nothing, or counts")
				}
				ref.Release()
				if n := r.mem.idx.Len(); n != 1 {
					t.Fatalf("%d entries for one key", n)
				}
				if got := r.org.Memory.Objects(); got != 1 {
					t.Fatalf("%d objects are counted", got)
				}
				k := []byte(key)
				if !r.Delete(r.HashOf(k), k, 9) || r.Delete(r.HashOf(k), k, 9) {
					t.Fatal("deleted is not so")
				}
				if h, _, _ := r.get(key); h != "" {
					t.Fatal(key, "is there after it was deleted")
				}
				if r.org.Memory.Bytes() != 0 || r.org.Disk.Bytes() != 0 {
					t.Fatalf("nothing is stored and yet %d and %d bytes", r.org.Memory.Bytes(), r.org.Disk.Bytes())
				}
			}
		})
	}
}

func TestVariantsOfAKeyHaveTheirOwnPlaces(t *testing.T) {
	r := take(t, Config{Memory: 4 << 20}, "")
	k := []byte("one key")
	base := r.HashOf(k)
	for i := range 40 {
		h := r.Derive(base, fmt.Append(nil, "variant ", i))
		w := r.Create(Meta{Org: r.org, Hash: h, Key: k, Head: fmt.Append(nil, i), Kind: 3, Length: 0})
		if err := w.Commit(0, nil); err != nil {
			t.Fatal(i, err)
		}
	}
	var ref Ref
	for i := range 40 {
		if !r.Get(r.org, r.Derive(base, fmt.Append(nil, "variant ", i)), k, &ref) || string(ref.Head()) != fmt.Sprint(i) || ref.Kind() != 3 {
			t.Fatal(i, "is not found")
		}
	}
	if r.Get(r.org, base, k, &ref) {
		t.Error("a variant is found under the key itself")
	}
	ref.Release()
}

func TestARecordThatWasInvalidatedWhileItCameIsNotStored(t *testing.T) {
	path := t.TempDir()
	r := take(t, Config{Memory: 4 << 20, Disk: 16 << 20}, path)
	if err := r.put("k", "old", filled(1, 10), 1); err != nil {
		t.Fatal(err)
	}
	k := []byte("k")
	no := func() bool { return false }
	w := r.Create(Meta{Org: r.org, Hash: r.HashOf(k), Key: k, Head: []byte("new"), Born: 2, Length: 0})
	if err := w.Commit(0, no); err != ErrOutdated {
		t.Fatal(err)
	}
	if h, _, _ := r.get("k"); h != "old" {
		t.Errorf("found %q", h)
	}
	if r.Rehead(Meta{Org: r.org, Hash: r.HashOf(k), Key: k, Head: []byte("newer"), Born: 3}, nil, no) {
		t.Error("a head that is not current took effect")
	}
	if h, _, _ := r.get("k"); h != "old" {
		t.Errorf("found %q", h)
	}
}

func TestABodyWithAnotherLengthIsNotStored(t *testing.T) {
	r := take(t, Config{Memory: 4 << 20}, "")
	k := []byte("k")
	w := r.Create(Meta{Org: r.org, Hash: r.HashOf(k), Key: k, Length: 10})
	w.Append([]byte("short"))
	if err := w.Commit(10, nil); err != segment.ErrLength {
		t.Error(err)
	}
	if h := r.mem.idx.Len(); h != 0 {
		t.Error("stored")
	}
}

func TestANewHeadLeavesTheBodyInBothTiers(t *testing.T) {
	for _, size := range []int{100, 200_000} {
		path := t.TempDir()
		r := take(t, Config{Memory: 4 << 20, Disk: 16 << 20}, path)
		body := filled(3, size)
		if err := r.put("k", "old", body, 1); err != nil {
			t.Fatal(err)
		}
		k := []byte("k")
		if !r.Rehead(Meta{Org: r.org, Hash: r.HashOf(k), Key: k, Head: []byte("a new head"), Born: 2}, nil, nil) {
			t.Fatal("no new head")
		}
		if h, b, mem := r.get("k"); h != "a new head" || !bytes.Equal(b, body) || !mem {
			t.Fatalf("%q, %d bytes", h, len(b))
		}
		if !r.mem.idx.Delete(r.HashOf(k).lo, r.location("k")) {
			t.Fatal("memory keeps it")
		}
		if h, b, mem := r.get("k"); h != "a new head" || !bytes.Equal(b, body) || mem {
			t.Fatalf("on the disk: %q, %d bytes, memory %v", h, len(b), mem)
		}
		if r.Rehead(Meta{Org: r.org, Hash: r.HashOf([]byte("x")), Key: []byte("x")}, nil, nil) {
			t.Error("what is not stored has a new head")
		}
	}
}

func TestWhatMemoryGivesUpIsFoundOnTheDiskAndComesBack(t *testing.T) {
	path := t.TempDir()
	r := take(t, Config{Memory: 1 << 20, Disk: 64 << 20}, path)
	r.run()
	const n = 800 // of 4 KB
	for i := range n {
		key := fmt.Sprint("k", i)
		_, _, _ = r.get(key)
		for r.put(key, "head", filled(i, 4000), 1) == ErrNotKept {
			time.Sleep(time.Millisecond) // the disk is behind
		}
	}
	miss, disk := 0, 0
	for i := range n {
		h, b, mem := r.get(fmt.Sprint("k", i))
		switch {
		case h == "":
			miss++
		case !bytes.Equal(b, filled(i, 4000)):
			t.Fatal(i, "has another's body")
		case !mem:
			disk++
		}
	}
	if miss > n/20 || disk < n/2 {
		t.Fatalf("of %d: %d missed, %d on the disk: %+v", n, miss, disk, r.Stats())
	}
	for i := 0; ; i++ {
		if _, _, mem := r.get("k3"); mem {
			break
		}
		if i > 2000 {
			t.Fatalf("asked for again and again, and never in memory: %+v", r.Stats())
		}
		time.Sleep(time.Millisecond)
	}
	if r.Stats().Promoted == 0 {
		t.Error("not counted")
	}
}

func TestTheDiskIsWarmAfterARestartAndWhatWasForgottenStaysSo(t *testing.T) {
	path := t.TempDir()
	r := take(t, Config{Memory: 8 << 20, Disk: 64 << 20}, path)
	r.run()
	other := r.Org("other")
	for i := range 300 {
		if err := r.put(fmt.Sprint("k", i), fmt.Sprint("old ", i), filled(i, 2000), 1); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 100 {
		k := fmt.Append(nil, "k", i)
		r.Delete(r.HashOf(k), k, 2)
	}
	for i := 100; i < 200; i++ {
		if err := r.put(fmt.Sprint("k", i), fmt.Sprint("new ", i), filled(i+1, 2000), 2); err != nil {
			t.Fatal(err)
		}
	}
	bytesBefore := r.org.Disk.Bytes()
	r.stop()
	r = take(t, Config{Memory: 8 << 20, Disk: 64 << 20}, path)
	if r.Org("other").number != other.number || r.org.number == other.number {
		t.Error("an organization has another number now")
	}
	lost := 0
	for i := range 300 {
		h, b, mem := r.get(fmt.Sprint("k", i))
		want, body := fmt.Sprint("old ", i), filled(i, 2000)
		switch {
		case i < 100:
			want, body = "", nil
		case i < 200:
			want, body = fmt.Sprint("new ", i), filled(i+1, 2000)
		}
		if h == "" && want != "" {
			lost++ // a mark takes all with its tag along
		} else if h != want || !bytes.Equal(b, body) || mem {
			t.Fatalf("%d: %q, want %q", i, h, want)
		}
	}
	if lost > 3 {
		t.Errorf("%d of 200 are lost", lost)
	}
	if got := r.org.Disk.Bytes(); got < bytesBefore/2 || got > 2*bytesBefore {
		t.Errorf("%d bytes are counted, %d before the restart", got, bytesBefore)
	}
	r.stop()
	// With another secret nothing is found, and nothing is taken for another's.
	if err := os.WriteFile(path+"/"+keyName, []byte("torn"), 0o600); err != nil {
		t.Fatal(err)
	}
	r = take(t, Config{Memory: 8 << 20, Disk: 64 << 20}, path)
	if h, _, _ := r.get("k250"); h != "" || r.disk.Load().idx.Len() != 0 {
		t.Errorf("found %q, %d entries", h, r.disk.Load().idx.Len())
	}
}

func TestAQuotaHoldsWhileTheLogIsNotFull(t *testing.T) {
	r := take(t, Config{Memory: 32 << 20, MeanObject: 2048}, "")
	const quota = 4 << 20
	r.org.Memory.SetQuota(quota)
	other := r.Org("other")
	for i := range 1000 {
		k := fmt.Append(nil, "other ", i)
		w := r.Create(Meta{Org: other, Hash: r.HashOf(k), Key: k, Length: 1000})
		w.Append(filled(i, 1000))
		if err := w.Commit(1000, nil); err != nil {
			t.Fatal(err)
		}
	}
	late := 0
	var c culls
	now := time.Now()
	for i := range 12_000 {
		key := fmt.Sprint("k", i)
		r.get(key)
		if r.put(key, "head", filled(i, 1000), 1) == nil && i > 8000 {
			late++
		}
		if n := r.org.Memory.Bytes(); n > quota+quota/20 {
			t.Fatalf("%d bytes of %d after %d", n, quota, i)
		}
		select {
		case <-r.wantCull: // as Run does
			now = now.Add(cullMemory / 10)
			c.cull(r.Tiers, now)
		default:
		}
	}
	if late == 0 {
		t.Errorf("nothing newer is stored once the quota is reached: %+v", r.Stats())
	}
	if r.org.Memory.Bytes() < quota/4 {
		t.Errorf("only %d bytes of %d are used", r.org.Memory.Bytes(), quota)
	}
	if st := r.Stats().Memory; other.Memory.Objects() != 1000 || r.mem.policy.Full() || st.Culled == 0 || st.Log.Rewritten > 0 {
		t.Errorf("the other has %d of 1000 objects, and the log is full: %v; %+v", other.Memory.Objects(), r.mem.policy.Full(), st)
	}
}

// Run with -race.
func TestManyAtOnceNeverGetAnothersBody(t *testing.T) {
	r := take(t, Config{Memory: 1 << 20, Disk: 8 << 20}, t.TempDir())
	r.run()
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(g), 2))
			var ref Ref
			defer ref.Release()
			buf := make([]byte, 9000)
			for i := range 3000 {
				n := rng.IntN(600)
				k := fmt.Append(nil, "k", n)
				h := r.HashOf(k)
				switch {
				case rng.IntN(40) == 0:
					r.Delete(h, k, int64(i))
				case rng.IntN(40) == 0:
					r.Rehead(Meta{Org: r.org, Hash: h, Key: k, Head: fmt.Append(nil, n), Born: int64(i)}, nil, nil)
				case r.Get(r.org, h, k, &ref):
					b := buf[:ref.Len()]
					if m, err := ref.ReadAt(b, 0); m < len(b) {
						t.Errorf("%d: %d of %d bytes: %v", n, m, len(b), err)
					} else if string(ref.Head()) != fmt.Sprint(n) || !bytes.Equal(b, filled(n, n*15)) {
						t.Errorf("%d: another's answer: %q", n, ref.Head())
					}
				default:
					_ = r.put(string(k), fmt.Sprint(n), filled(n, n*15), int64(i))
				}
			}
		})
	}
	wg.Wait()
	if s := r.Stats(); s.Hits == 0 || s.Memory.Damaged+s.Disk.Damaged > 0 {
		t.Errorf("%+v", s)
	}
}

func TestAHitAllocatesNothing(t *testing.T) {
	r := take(t, Config{Memory: 4 << 20, Disk: 16 << 20}, t.TempDir())
	for _, key := range []string{"in memory", "on the disk"} {
		if err := r.put(key, "head", filled(1, 1000), 1); err != nil {
			t.Fatal(err)
		}
	}
	d := []byte("on the disk")
	r.mem.idx.Delete(r.HashOf(d).lo, r.location("on the disk"))
	var ref Ref
	buf := make([]byte, 1000)
	for _, key := range []string{"in memory", "on the disk", "nowhere"} {
		k := []byte(key)
		if n := testing.AllocsPerRun(200, func() {
			if r.Get(r.org, r.HashOf(k), k, &ref) {
				_, _ = ref.ReadAt(buf, 0)
			} else if key != "nowhere" {
				t.Fatal("gone")
			}
			ref.Release()
		}); n != 0 {
			t.Errorf("%s: %v allocations", key, n)
		}
	}
}

func TestConfigIsChecked(t *testing.T) {
	for name, cfg := range map[string]Config{
		"memory": {Memory: 100}, "curve": {Memory: 1 << 20, CurveSamples: 1},
	} {
		if s, err := NewTiers(cfg); err == nil {
			_ = s.Close()
			t.Errorf("%s: no error", name)
		}
	}
}

func TestOrganizationsBeyondTheLimitShareOneAccount(t *testing.T) {
	r := take(t, Config{Memory: 1 << 20, CurveSamples: 256}, "")
	for i := range MaxOrgs + 10 {
		r.Org(fmt.Sprint("org ", i))
	}
	a, b := r.Org("one more"), r.Org("and one")
	if a != b || a.Name() != "" || r.Org("org 7").Name() != "org 7" || r.Org("a\nb") != a {
		t.Errorf("%q %q", a.Name(), b.Name())
	}
}

func (r *rig) location(key string) (at index.Location) {
	var ref Ref
	defer ref.Release()
	k := []byte(key)
	if r.mem.find(r.HashOf(k).lo, k, &ref) {
		return ref.entry.Location
	}
	r.t.Fatal(key, "is not in memory")
	return 0
}

// What a record costs in memory beside key, head and body, with objects of 1 KB.
func TestTheCostOfAnObjectInMemory(t *testing.T) {
	const n, head, body = 60_000, 350, 1000
	r := take(t, Config{Memory: 100 << 20, MeanObject: 1600}, "")
	b := filled(1, body)
	for i := range n {
		if err := r.put(fmt.Sprintf("acme/shop https shop.example /img/%016d.jpg", i), string(b[:head]), b, 1); err != nil {
			t.Fatal(err)
		}
	}
	s := r.Stats().Memory
	k := len(fmt.Sprintf("acme/shop https shop.example /img/%016d.jpg", 1))
	log := float64(s.Log.Bytes) / n
	sum := log + float64(s.Index.Bytes)/n + float64(s.Admission.Bytes)/n - float64(k+head+body)
	t.Logf("%.1f bytes an object beside key, head and body: log %.1f, index %.1f, sketch %.1f",
		sum, log-float64(k+head+body), float64(s.Index.Bytes)/n, float64(s.Admission.Bytes)/n)
	if sum > 96 {
		t.Errorf("%.1f bytes", sum)
	}
}

func BenchmarkTiersGet(b *testing.B) {
	r := take(b, Config{Memory: 256 << 20, MeanObject: 1500}, "")
	keys := make([][]byte, 1<<16)
	body := filled(1, 1000)
	for i := range keys {
		keys[i] = fmt.Appendf(nil, "acme/shop https://shop.example/img/%d.jpg", i)
		if err := r.put(string(keys[i]), "head", body, 1); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		i := rand.IntN(len(keys))
		var ref Ref
		defer ref.Release()
		for pb.Next() {
			k := keys[i&(len(keys)-1)]
			if !r.Get(r.org, r.HashOf(k), k, &ref) {
				b.Fail()
			}
			i += 7919
		}
	})
}

func BenchmarkTiersPut(b *testing.B) {
	r := take(b, Config{Memory: 64 << 20, MeanObject: 1500}, "")
	body := filled(1, 1000)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		_ = r.put(fmt.Sprint("acme/shop https://shop.example/img/", i), "head", body, 1)
	}
}

// A copy of the files, one after the other while they are written to, is worse than what a kill -9 leaves.
func TestWhatACrashLeavesHasNoWrongBodies(t *testing.T) {
	path := t.TempDir()
	r := take(t, Config{Memory: 1 << 20, Disk: 4 << 20}, path)
	r.run()
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		rng := rand.New(rand.NewPCG(8, 8))
		for v := 1; ; v++ {
			select {
			case <-stop:
				return
			default:
			}
			n := rng.IntN(300)
			key := fmt.Sprint("k", n)
			r.get(key)
			if rng.IntN(10) == 0 {
				r.Delete(r.HashOf([]byte(key)), []byte(key), int64(v))
			} else {
				_ = r.put(key, fmt.Sprint(n, " ", v), filled(n+v, n*20), int64(v))
			}
			if v%50 == 0 {
				time.Sleep(time.Millisecond) // let the disk come along
			}
		}
	})
	found := 0
	for range 6 {
		for before := r.disk.Load().log.Stats().Written; r.disk.Load().log.Stats().Written < before+200_000; {
			time.Sleep(time.Millisecond)
		}
		left := t.TempDir()
		if err := os.CopyFS(left, os.DirFS(path)); err != nil {
			t.Fatal(err)
		}
		again := take(t, Config{Memory: 1 << 20, Disk: 4 << 20}, left)
		for n := range 300 {
			key := fmt.Sprint("k", n)
			var ref Ref
			if !again.Get(again.org, again.HashOf([]byte(key)), []byte(key), &ref) {
				continue
			}
			var of, v int
			if _, err := fmt.Sscan(string(ref.Head()), &of, &v); err != nil || of != n {
				t.Fatalf("%s has the head %q", key, ref.Head())
			}
			body := make([]byte, ref.Len())
			if _, err := ref.ReadAt(body, 0); (err == nil || len(body) == 0) && !bytes.Equal(body, filled(n+v, n*20)) {
				t.Fatalf("%s version %d has a wrong body", key, v)
			}
			ref.Release()
			found++
		}
		again.stop()
	}
	close(stop)
	wg.Wait()
	if found < 200 {
		t.Errorf("only %d records were found", found)
	}
	t.Log(found, "records in 6 copies")
}

// slowDir is a directory that takes its time to tell what it holds.
type slowDir struct {
	segment.Dir
	asked, tell chan struct{}
	once        sync.Once
}

func (d *slowDir) List() ([]segment.FileInfo, error) {
	d.once.Do(func() {
		close(d.asked)
		<-d.tell
	})
	return d.Dir.List()
}

func TestWhoForgetsDoesNotWaitForADiskThatIsTakenUp(t *testing.T) {
	for _, many := range []bool{false, true} {
		path := t.TempDir()
		r := take(t, Config{Memory: 4 << 20, Disk: 16 << 20}, path)
		r.run()
		for i := range 10 {
			if err := r.put(fmt.Sprint("k", i), "head", filled(i, 1000), 1); err != nil {
				t.Fatal(err)
			}
		}
		r.stop()
		r = take(t, Config{Memory: 4 << 20, Disk: 16 << 20, Known: LookInto(path)}, "")
		inner, err := segment.OpenDir(path)
		if err != nil {
			t.Fatal(err)
		}
		dir := &slowDir{Dir: inner, asked: make(chan struct{}), tell: make(chan struct{})}
		attached := make(chan error)
		go func() { attached <- r.Attach(dir) }()
		<-dir.asked
		k := []byte("k3")
		r.Delete(r.HashOf(k), k, 2)
		if many {
			for i := range maxAbsent {
				k := fmt.Append(nil, "other ", i)
				r.Delete(r.HashOf(k), k, 2)
			}
		}
		close(dir.tell)
		if err := <-attached; err != nil {
			t.Fatal(err)
		}
		if h, _, _ := r.get("k3"); h != "" {
			t.Error("what was forgotten meanwhile is back")
		}
		if h, _, _ := r.get("k4"); (h != "") == many {
			t.Errorf("more was forgotten than can be remembered: %v; of another there is %q", many, h)
		}
		r.run()
		r.stop()
		r = take(t, Config{Memory: 4 << 20, Disk: 16 << 20}, path)
		if h, _, _ := r.get("k3"); h != "" {
			t.Error("what was forgotten is back after a restart")
		}
		if h, _, _ := r.get("k4"); (h != "") == many {
			t.Errorf("after a restart: %v, %q", many, h)
		}
	}
}
