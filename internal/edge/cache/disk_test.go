package cache

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/edge/cache/purge"
	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/stage"
)

// diskRig is a stage with a disk, that runs.
type diskRig struct {
	*rig
	stop func()
}

// startOn starts a stage on a folder: its store in disk, its purges in purges.
func startOn(t *testing.T, folder string, log *slog.Logger) *diskRig {
	t.Helper()
	l, err := purge.OpenFile(filepath.Join(folder, "purges"), 1000)
	if err != nil {
		t.Fatal(err)
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	d := &diskRig{rig: &rig{t: t, real: true}}
	d.s, err = New(Config{Slot: 3, MaxBytes: 8 << 20, Disk: Disk{filepath.Join(folder, "disk"), MinDisk}, Purges: l, Logger: log})
	if err != nil {
		t.Fatal(err)
	}
	d.origin = &origin{replies: []reply{ok("")}, clock: time.Now}
	d.chain = stage.Chain(d.origin, d.s)
	d.site = newSite(t, d.s, "acme/shop", v1.CachePolicySpec{})
	ctx, cancel := context.WithCancel(t.Context())
	ran := make(chan error, 1)
	go func() { ran <- d.s.Run(ctx) }()
	stopped := false
	d.stop = func() {
		if stopped {
			return
		}
		stopped = true
		d.settle()
		cancel()
		if err := <-ran; err != nil {
			t.Error(err)
		}
		if err := d.s.tiers.Close(); err != nil {
			t.Error(err)
		}
		_ = l.Close()
	}
	t.Cleanup(d.stop)
	return d
}

// again is a start on the same folder: memory has nothing.
func (d *diskRig) again(t *testing.T, folder string) *diskRig {
	t.Helper()
	d.stop()
	return startOn(t, folder, nil)
}

// content is the one body of a path.
func content(path string, n int) string {
	rng := rand.NewPCG(uint64(n), uint64(len(path)))
	b := make([]byte, 0, n+8)
	for len(b) < n {
		b = binary.LittleEndian.AppendUint64(b, rng.Uint64())
	}
	return string(b[:n])
}

var sizes = []int{0, 10, 3000, 65_536, 65_537, 400_000}

func (d *diskRig) fillWith(headers ...string) {
	for _, n := range sizes {
		path := fmt.Sprint("/", n)
		d.origin.replies = []reply{{body: content(path, n), headers: append([]string{"Cache-Control: max-age=600", `ETag: "x"`}, headers...)}}
		if g := d.do("GET " + path); g.err != nil || g.body != content(path, n) {
			d.t.Fatalf("%s: %v", path, g.err)
		}
		d.settle()
	}
	d.origin.asked = nil
}

func TestWhatIsOnTheDiskIsServedAfterARestart(t *testing.T) {
	folder := t.TempDir()
	d := startOn(t, folder, nil)
	d.fillWith("Vary: Accept-Language", "Cache-Tag: all")
	d = d.again(t, folder)
	for _, n := range sizes {
		path := fmt.Sprint("/", n)
		want := content(path, n)
		g := d.do("GET " + path)
		if g.err != nil || g.cache != "hit" || g.body != want || g.header("ETag") != `"x"` {
			t.Fatalf("%s: %s, %v, %d bytes", path, g.cache, g.err, len(g.body))
		}
		if n < 100 {
			continue
		}
		at := n - 17
		if g := d.do("GET "+path, fmt.Sprintf("Range: bytes=%d-%d", at, at+9)); g.status != 206 || g.cache != "hit" || g.body != want[at:at+10] {
			t.Errorf("%s: a range: %d %s %q", path, g.status, g.cache, g.body)
		}
		if g := d.do("GET "+path, fmt.Sprintf("Range: bytes=0-0,%d-%d", at, at+9)); g.status != 206 || g.err != nil || !strings.Contains(g.body, "\r\n\r\n"+want[at:at+10]+"\r\n--") {
			t.Errorf("%s: two ranges: %d %s %v", path, g.status, g.cache, g.err)
		}
		if g := d.do("GET "+path, `If-None-Match: "x"`); g.status != 304 {
			t.Errorf("%s: %d", path, g.status)
		}
		if g := d.do("HEAD " + path); g.cache != "hit" {
			t.Errorf("%s: HEAD: %s", path, g.cache)
		}
	}
	if len(d.origin.asked) != 0 {
		t.Errorf("the origin was asked: %v", d.origin.asked)
	}
	if st := d.s.Stats(); st.DiskHits == 0 {
		t.Errorf("%+v", st)
	}
}

func TestAPartOnTheDiskIsCompletedAfterARestart(t *testing.T) {
	folder := t.TempDir()
	d := startOn(t, folder, nil)
	d.origin.ranges = true
	d.origin.replies = []reply{{body: digits, headers: []string{"Cache-Control: max-age=600", `ETag: "x"`}}}
	d.do("GET /a", "Range: bytes=2-5")
	d = d.again(t, folder)
	if g := d.do("GET /a", "Range: bytes=3-4"); g.cache != "hit" || g.body != "34" {
		t.Errorf("%s %q", g.cache, g.body)
	}
	d.origin.replies = []reply{{status: 206, body: digits[6:], headers: []string{"Cache-Control: max-age=600", `ETag: "x"`, "Content-Range: bytes 6-9/10"}}}
	d.origin.ranges = false
	if g := d.do("GET /a", "Range: bytes=6-9"); g.status != 206 || g.body != "6789" {
		t.Errorf("%d %q", g.status, g.body)
	}
	d = d.again(t, folder)
	if g := d.do("GET /a", "Range: bytes=4-7"); g.cache != "hit" || g.body != "4567" {
		t.Errorf("put together: %s %q %v", g.cache, g.body, d.origin.asked)
	}
}

func TestWhatWasInvalidatedStaysSoAfterARestart(t *testing.T) {
	for name, do := range map[string]func(d *diskRig){
		"POST": func(d *diskRig) {
			for _, n := range sizes {
				d.do(fmt.Sprint("POST /", n))
			}
		},
		"tag":  func(d *diskRig) { d.purge(purge.Entry{Kind: purge.Tag, Value: "all"}) },
		"site": func(d *diskRig) { d.purge(purge.Entry{Kind: purge.Site}) },
		"tag, softly": func(d *diskRig) {
			d.purge(purge.Entry{Kind: purge.Tag, Value: "all", Soft: true})
		},
		"group": func(d *diskRig) {
			d.origin.replies = []reply{{headers: []string{`Cache-Group-Invalidation: "g"`}}}
			d.do("POST /elsewhere")
		},
	} {
		t.Run(name, func(t *testing.T) {
			folder := t.TempDir()
			d := startOn(t, folder, nil)
			d.fillWith("Cache-Tag: all", `Cache-Groups: "g"`)
			do(d)
			d = d.again(t, folder)
			d.origin.replies = []reply{{body: "new", headers: []string{"Cache-Control: no-store"}}}
			for _, n := range sizes {
				if g := d.do(fmt.Sprint("GET /", n)); g.cache == "hit" || g.cache == "stale" {
					t.Errorf("%d: %s", n, g.cache)
				}
			}
		})
	}
}

func TestDamageOnTheDiskIsNeverServed(t *testing.T) {
	folder := t.TempDir()
	d := startOn(t, folder, nil)
	d.fillWith("Vary: Accept-Language")
	d.stop()
	files, err := filepath.Glob(filepath.Join(folder, "disk", "*.data"))
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	rng := rand.New(rand.NewPCG(1, 2))
	broken := 0
	for round := range 5 {
		for _, name := range files {
			b, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			for range 1 + round*8 {
				if used := bytes.TrimRight(b, "\x00"); len(used) > 0 {
					b[rng.IntN(len(used))] ^= 1 << rng.IntN(8)
				}
			}
			if err := os.WriteFile(name, b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		d = startOn(t, folder, nil)
		for _, n := range sizes {
			path := fmt.Sprint("/", n)
			want := content(path, n)
			d.origin.replies = []reply{{body: want, headers: []string{"Cache-Control: no-store"}}}
			g := d.do("GET " + path)
			if !strings.HasPrefix(want, g.body) || g.err == nil && len(g.body) != n {
				t.Fatalf("round %d: %s: %s: %d bytes that are not its own, %v", round, path, g.cache, len(g.body), g.err)
			}
			if g.cache != "hit" || g.err != nil {
				broken++
			}
		}
		d.stop()
	}
	if broken == 0 {
		t.Error("no damage was met")
	}
}

func TestTheDiskGoesFromOneProcessToTheNext(t *testing.T) {
	folder := t.TempDir()
	first := startOn(t, folder, nil)
	first.fillWith()
	second := startOn(t, folder, nil)
	if st := second.s.Stats(); st.HasDisk {
		t.Fatal("two have the disk")
	}
	if g := second.do("GET /10"); g.cache != "miss" {
		t.Errorf("%s", g.cache)
	}
	second.do("POST /3000") // it has no disk yet
	first.s.Seal()
	for i := 0; !second.s.Stats().HasDisk; i++ {
		if i > 1000 {
			t.Fatal("the disk is not taken over")
		}
		time.Sleep(10 * time.Millisecond)
	}
	if g := second.do("GET /3000"); g.cache == "hit" {
		t.Error("what was invalidated without the disk came back with it")
	}
	for _, n := range sizes[3:] {
		path := fmt.Sprint("/", n)
		if g := second.do("GET " + path); g.cache != "hit" || g.body != content(path, n) {
			t.Errorf("%s: %s", path, g.cache)
		}
		if g := first.do("GET " + path); g.body != content(path, n) && g.cache == "hit" {
			t.Errorf("who drains: %s: %s", path, g.cache)
		}
	}
}

func TestWithoutTheDiskTheEdgeGoesOnFromMemory(t *testing.T) {
	folder := t.TempDir()
	if err := os.WriteFile(filepath.Join(folder, "disk"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	d := startOn(t, folder, slog.New(slog.NewTextHandler(&out, nil)))
	d.origin.replies = []reply{ok("Cache-Control: max-age=60")}
	d.do("GET /a")
	if g := d.do("GET /a"); g.cache != "hit" {
		t.Errorf("%s", g.cache)
	}
	d.stop()
	if n := strings.Count(out.String(), "answers are stored in memory only"); n != 1 {
		t.Errorf("said %d times: %s", n, out.String())
	}
	if d.s.attachFailures.Load() == 0 {
		t.Error("not counted")
	}
	if _, err := New(Config{MaxBytes: 8 << 20, Disk: Disk{folder, 1 << 20}}); err == nil {
		t.Error("a disk of 1 MiB is taken")
	}
	if _, err := New(Config{MaxBytes: 1000}); err == nil {
		t.Error("memory of 1,000 bytes is taken")
	}
}

func TestAHitOnTheDiskAllocatesNothing(t *testing.T) {
	folder := t.TempDir()
	d := startOn(t, folder, nil)
	d.fillWith()
	d = d.again(t, folder)
	x := d.exchange("GET /10")
	in := x.In
	l := d.s.local(x)
	want := content("/10", 10)
	one := func() {
		l.rule = d.site.Parts[3].(*part).routes[0]
		x.Reset()
		x.In, x.Site, x.Route = in, d.site, &d.site.Routes[0]
		x.SetHost([]byte("shop.example"))
		l.key = l.rule.append(l.key[:0], x)
		l.hash = d.s.tiers.HashOf(l.key)
		o, _, _ := d.s.find(l, x, l.reuse(&l.found), true) // a request would bring it back to memory
		if o == nil || o.hold.ref.InMemory() || string(o.body) != want {
			t.Fatal("not found on the disk")
		}
		x.End(message.Outcome{})
	}
	one()
	// The least of many, as the store's own work allocates now and then, and the race detector takes from pools at random.
	least := math.Inf(1)
	for range 200 {
		least = min(least, testing.AllocsPerRun(1, one))
	}
	if least != 0 {
		t.Errorf("%v allocations", least)
	}
}

// patience counts how often others are not to wait.
type patience struct{ n int }

func (p *patience) MayBlock()                   { p.n++ }
func (p *patience) Inform(int, *message.Fields) {}

func TestNobodyElseWaitsForALookUpOnTheDisk(t *testing.T) {
	folder := t.TempDir()
	d := startOn(t, folder, nil)
	d.fillWith()
	ask := func() int {
		p := &patience{}
		x := d.exchange("GET /3000")
		x.In.Control = p
		if g := d.send(t.Context(), x); g.cache != "hit" {
			t.Fatal(g.cache, g.err)
		}
		return p.n
	}
	if n := ask(); n > 0 {
		t.Error("a hit in memory may block")
	}
	d = d.again(t, folder)
	if ask() == 0 {
		t.Error("a disk is read, and others wait")
	}
}

func TestABodyThatIsPutTogetherEndsWhereWhatIsStoredCannotBeRead(t *testing.T) {
	r := newRig(t, v1.CachePolicySpec{}, ok("Cache-Control: max-age=600"))
	r.do("GET /a")
	x := r.exchange("GET /a")
	l := r.s.probe(x, r.s.ruleFor(x))
	f := new(found)
	f.held.n.Store(1)
	defer f.held.release()
	if !f.peek(r.s, l.hash, l.key) {
		t.Fatal("not stored")
	}
	b := &spliced{before: piecewise{rest: []chunk{{off: f.held.ref.Len(), n: 10}}, hold: &f.held, bufs: &r.s.blocks}}
	if p, err := b.Next(t.Context()); err == nil || err == io.EOF {
		t.Errorf("%q, %v", p, err)
	}
}

func TestAnOrganizationKeepsWithinItsQuota(t *testing.T) {
	const quota = 1 << 20
	for name, quotas := range map[string]map[string]Quota{
		"its own":             {"acme": {Memory: quota}, AnyOrg: {Memory: 1}},
		"each one's":          {AnyOrg: {Memory: quota}},
		"another's":           {"other": {Memory: 1}},
		"its own is no bound": {"acme": {}, AnyOrg: {Memory: 1}},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRigWith(t, Config{Quotas: quotas}, v1.CachePolicySpec{}, reply{body: content("/", 10_000), headers: []string{"Cache-Control: max-age=600"}})
			for i := range 300 {
				r.do(fmt.Sprint("GET /a?", i))
			}
			st := r.s.SiteStats("").Organizations
			if len(st) != 1 || st[0].Organization != "acme" {
				t.Fatalf("%+v", st)
			}
			bounded := strings.HasPrefix(name, "each") || name == "its own"
			if bounded && (st[0].MemoryQuota != quota || st[0].Memory > quota+quota/20 || st[0].Memory < quota/2) || !bounded && (st[0].MemoryQuota != 0 || st[0].Memory < 2*quota) {
				t.Errorf("%+v", st[0])
			}
		})
	}
}
