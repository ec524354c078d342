package cache

import (
	"context"
	"fmt"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/edge/cache/purge"
	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/stage"
)

// entries counts what the front has.
func (f *front) entries() (n int, bytes int64) {
	for i := range f.sets {
		set := &f.sets[i]
		set.mu.Lock()
		for j := range set.ways {
			if e := set.ways[j].Load(); e != nil {
				n++
				bytes += e.size
			}
		}
		set.mu.Unlock()
	}
	return n, bytes
}

// tally counts.
type tally int

func (n *tally) Inc()            { *n++ }
func (n *tally) Add(v float64)   { *n += tally(v) }
func (r *rig) fronts() *tally    { n := new(tally); r.s.m.byTier[tierFront] = n; return n }
func (n *tally) took() (was int) { was, *n = int(*n), 0; return was }

func TestWhatIsAskedForAgainIsAnsweredByTheFront(t *testing.T) {
	r := newRig(t, v1.CachePolicySpec{}, page("Vary: Accept-Encoding", "X-Own: 1"))
	fronts := r.fronts()
	r.do("GET /a", browser...)
	tier := r.do("GET /a", browser...)
	if tier.cache != "hit" || fronts.took() != 0 {
		t.Fatal(tier.cache, "by the front, before a tier had it")
	}
	r.pass(time.Second)
	for _, c := range []struct {
		line   string
		header string
		status int
		body   string
	}{
		{"GET /a", "X: y", 200, "page"},
		{"HEAD /a", "X: y", 200, ""},
		{"GET /a", `If-None-Match: "v1"`, 304, ""},
		{"GET /a", "Range: bytes=1-2", 206, "ag"},
		{"GET /a", "Cache-Control: max-age=30", 200, "page"},
	} {
		g := r.do(c.line, append([]string{c.header}, browser...)...)
		if n := fronts.took(); g.status != c.status || g.body != c.body || g.cache != "hit" || n != 1 {
			t.Errorf("%s, %s: %d %q %s, %d hits on the front", c.line, c.header, g.status, g.body, g.cache, n)
		}
		if c.status == 200 && (g.header("Age") != "1" || g.header("X-Own") != "1" || g.header("Cache-Status") != "relais; hit; ttl=59") {
			t.Errorf("%s, %s: Age %q, X-Own %q, Cache-Status %q", c.line, c.header, g.header("Age"), g.header("X-Own"), g.header("Cache-Status"))
		}
	}
	if n := len(r.origin.asked); n != 1 {
		t.Fatal(n, "requests at the origin")
	}
}

// numbered answers with how many answers there were.
type numbered struct {
	n     int
	lines []string
}

func (o *numbered) Serve(_ context.Context, x *stage.Exchange) (*message.Response, error) {
	o.n++
	resp := &x.Response
	resp.Reset()
	resp.Status = 200
	addLines(&resp.Fields, o.lines, x.Now())
	resp.SetBytes(fmt.Append(nil, "answer ", o.n))
	return resp, nil
}

func TestTheFrontHasNothingThatTheTiersDoNotStandBy(t *testing.T) {
	tag := func(value string, soft bool) func(r *rig) {
		return func(r *rig) { r.purge(purge.Entry{Kind: purge.Tag, Value: value, Soft: soft}) }
	}
	for name, c := range map[string]struct {
		change func(r *rig)
		cache  string // of the next request
	}{
		"nothing":               {func(*rig) {}, "hit"},
		"unsafe method":         {func(r *rig) { r.do("POST /a") }, "miss"},
		"purge":                 {func(r *rig) { r.purge(purge.Entry{Kind: purge.URL, Host: "shop.example", Value: "/a"}) }, "miss"},
		"purge of its tag":      {tag("t", false), "miss"},
		"soft purge of its tag": {tag("t", true), "stale"},
		"purge of another tag":  {tag("u", false), "hit"},
		"its end":               {func(r *rig) { r.pass(61 * time.Second) }, "stale"},
		"a new answer":          {func(r *rig) { r.do("GET /a", "Cache-Control: no-cache") }, "hit"},
		"another path":          {func(r *rig) { r.do("POST /b") }, "hit"},
	} {
		for _, vary := range []string{"X: y", "Vary: Accept-Encoding"} {
			t.Run(name+" "+vary, func(t *testing.T) {
				r := newRig(t, v1.CachePolicySpec{})
				fronts := r.fronts()
				o := &numbered{lines: []string{"Cache-Control: public, max-age=60, stale-while-revalidate=600", "Date: @0", "Cache-Tag: t", vary}}
				r.chain = stage.Chain(o, r.s)
				for range 3 {
					r.do("GET /a")
				}
				if n := fronts.took(); n != 1 {
					t.Fatal(n, "hits on the front")
				}
				c.change(r)
				want := "answer 1"
				if name == "a new answer" {
					want = "answer 2"
				}
				g := r.do("GET /a")
				if g.cache != c.cache || c.cache == "hit" && g.body != want {
					t.Fatalf("%s %q, want %s", g.cache, g.body, c.cache)
				}
				if c.cache != "hit" {
					want = fmt.Sprint("answer ", o.n)
				}
				r.do("GET /a")
				fronts.took()
				if g := r.do("GET /a"); g.cache != "hit" || g.body != want || fronts.took() != 1 {
					t.Fatalf("later: %s %q, want %q by the front", g.cache, g.body, want)
				}
			})
		}
	}
}

// Of two selectors the front cannot know which answer is newest (RFC 9111 section 4).
func TestTheFrontLeavesAnswersThatVaryInSeveralWaysToTheTiers(t *testing.T) {
	r := newRig(t, v1.CachePolicySpec{}, page("Vary: Accept-Language"), page("Vary: X-Device"))
	fronts := r.fronts()
	r.do("GET /a", "Accept-Language: de", "X-Device: 1")
	r.do("GET /a", "Accept-Language: fr", "X-Device: 2")
	for range 3 {
		if g := r.do("GET /a", "Accept-Language: de", "X-Device: 1"); g.cache != "hit" {
			t.Fatal(g.cache)
		}
	}
	if n := fronts.took(); n != 0 {
		t.Fatal(n, "hits on the front")
	}
}

func TestTheFrontKeepsWithinItsBytesAndLearnsWhatIsHot(t *testing.T) {
	r := newRig(t, v1.CachePolicySpec{}, reply{body: strings.Repeat("x", 1000), headers: image.headers})
	fronts := r.fronts()
	limit := int64(len(r.s.front.sets)) * frontRoom
	ask := func(path string) { r.do("GET "+path, browser...) }
	for i := range 2000 {
		ask(fmt.Sprint("/cold", i%500))
	}
	n, held := r.s.front.entries()
	if held > limit || n < 20 {
		t.Fatalf("%d entries of %d bytes, limit %d", n, held, limit)
	}
	for range 200 {
		for i := range 10 {
			ask(fmt.Sprint("/hot", i))
		}
	}
	fronts.took()
	for i := range 10 {
		ask(fmt.Sprint("/hot", i))
	}
	if n := fronts.took(); n < 8 {
		t.Fatalf("%d of 10 hot answers are in the front", n)
	}
	for i := range r.s.front.sets {
		set := &r.s.front.sets[i]
		var sum int64
		for j := range set.ways {
			if e := set.ways[j].Load(); e != nil {
				sum += e.size
			}
		}
		if sum != set.held || sum > frontRoom {
			t.Fatalf("set %d says %d bytes and has %d", i, set.held, sum)
		}
	}
}

func TestAnEntryOfTheFrontCostsWhatIsCounted(t *testing.T) {
	r := newRigWith(t, Config{MaxBytes: 256 << 20}, v1.CachePolicySpec{}, image)
	var keys [][]byte
	var founds []*found
	var l local
	x := r.exchange("GET /a", browser...)
	l.rule = r.s.partOf(x).ruleOf(x)
	for i := range 500 {
		r.do(fmt.Sprint("GET /", i), browser...)
		r.fill(x, fmt.Sprint("GET /", i), browser...)
		l.key = l.rule.append(nil, x)
		l.hash = r.s.tiers.HashOf(l.key)
		f := new(found)
		f.held.n.Store(1)
		if o, _, _ := r.s.find(&l, x, f, true); o == nil {
			t.Fatal("not found")
		}
		keys, founds = append(keys, l.key), append(founds, f)
	}
	heap := func() int64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	entries := make([]*frontEntry, len(founds))
	before, said := heap(), int64(0)
	for i, f := range founds {
		entries[i] = newFrontEntry(keys[i], f)
		said += entries[i].size
	}
	took := heap() - before
	t.Logf("%d bytes an entry, counted as %d", took/int64(len(entries)), said/int64(len(entries)))
	if took > said*21/20 {
		t.Errorf("%d bytes for %d entries, counted as %d", took, len(entries), said)
	}
	runtime.KeepAlive(entries)
	for _, f := range founds {
		f.held.release()
	}
}

// What was invalidated is served to nobody who asks later, whatever the front and its readers do meanwhile.
func TestTheFrontIsNeverBehindAnInvalidation(t *testing.T) {
	r := newRigWith(t, Config{Clock: time.Now}, v1.CachePolicySpec{})
	fronts := new(counted)
	r.s.m.byTier[tierFront] = fronts
	o := &counting{}
	r.chain = stage.Chain(o, r.s)
	var wg sync.WaitGroup
	var ended atomic.Bool
	for range 3 {
		wg.Go(func() {
			for !ended.Load() {
				least := o.held.Load()
				g := r.do("GET /a")
				if got, err := strconv.ParseInt(g.body, 10, 64); g.err != nil || err != nil || got < least {
					t.Errorf("%q, and %d was invalidated: %v %v", g.body, least, g.err, err)
					return
				}
			}
		})
	}
	for range 60 {
		for before := fronts.Load(); fronts.Load() < before+3 && !t.Failed(); {
			runtime.Gosched()
		}
		o.raise()
		r.do("POST /a")
		o.hold()
	}
	ended.Store(true)
	wg.Wait()
	r.settle()
}

// counted is a Counter for several at once.
type counted struct{ atomic.Int64 }

func (n *counted) Inc()          { n.Int64.Add(1) }
func (n *counted) Add(v float64) { n.Int64.Add(int64(v)) }
