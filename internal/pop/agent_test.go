package pop

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/relais-edge/relais/internal/bundle"
	"github.com/relais-edge/relais/internal/bus"
	"github.com/relais-edge/relais/internal/fleet"
	"github.com/relais-edge/relais/internal/manifest"
	"github.com/relais-edge/relais/internal/observe"
	"github.com/relais-edge/relais/internal/pop/orders"
)

// loader serves texts: a bundle is the key of a site that is its text.
type loader struct {
	mu      sync.Mutex
	serving map[string]string
	applied int
	refuse  string // a text that the edge does not take
}

func (l *loader) Parts(index []byte) (refs []manifest.Ref, err error) {
	return refs, json.Unmarshal(index, &refs)
}

func (l *loader) Decode(_ string, _ []byte, parts [][]byte) (*bundle.Bundle, error) {
	text := string(slices.Concat(parts...))
	switch {
	case strings.Contains(text, "broken"):
		return nil, errors.New("broken")
	case strings.Contains(text, "panic"):
		panic("at the disco")
	}
	return &bundle.Bundle{Sites: []*bundle.Site{{Key: bundle.Key(text)}}}, nil
}

func (l *loader) ApplyTenants(_ context.Context, changed map[string]*bundle.Bundle) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, b := range changed {
		if b != nil && l.refuse != "" && strings.Contains(string(b.Sites[0].Key), l.refuse) {
			return errors.New("the edge does not take it")
		}
	}
	l.applied++
	if l.serving == nil {
		l.serving = map[string]string{}
	}
	for org, b := range changed {
		if b == nil {
			delete(l.serving, org)
		} else {
			l.serving[org] = string(b.Sites[0].Key)
		}
	}
	return nil
}

func (l *loader) serves() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return fmt.Sprint(l.serving)
}

// switcher remembers what is switched off.
type switcher struct {
	mu   sync.Mutex
	list []string
}

func (s *switcher) Switch(_ context.Context, list []orders.Order) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.list = nil
	for _, o := range list {
		s.list = append(s.list, o.Protection)
	}
	return nil
}

func (s *switcher) on() string {
	synctest.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	return fmt.Sprint(s.list)
}

// purger remembers what was purged.
type purger struct {
	mu   sync.Mutex
	list []string
	all  int
	err  error
}

func (p *purger) Purge(_ context.Context, entries [][]byte) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err != nil {
		return p.err
	}
	for _, e := range entries {
		p.list = append(p.list, string(e))
	}
	return nil
}

func (p *purger) PurgeAll(context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.all++
	return nil
}

// control is a scripted control plane.
type control struct {
	t      *testing.T
	bus    bus.Memory
	end    *bus.End
	signer *manifest.Signer
	set    manifest.KeySet

	mu      sync.Mutex
	at      manifest.Position
	table   *manifest.Table
	blobs   map[manifest.Digest][]byte
	beats   []fleet.Beat
	reports []fleet.Report
	purges  []fleet.Purge
	base    uint64 // purges up to it are forgotten
	purged  fleet.PurgePosition
	mute    bool // answers no heartbeat
	tear    int  // answers that come torn
}

func newControl(t *testing.T) *control {
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	c := &control{t: t, signer: manifest.NewSigner(key), at: manifest.Position{Epoch: 1}, table: manifest.NewTable(nil), blobs: map[manifest.Digest][]byte{}}
	c.set = manifest.KeySet{Number: 1, Keys: []manifest.Key{{Public: c.signer.Public()}}}
	c.end = c.bus.Join()
	for what, handle := range map[string]func(bus.Message){bus.Beat: c.beat, bus.Table: c.askedTable, bus.Blob: c.askedBlob, bus.Purges: c.askedPurges, bus.Purged: c.hearPurged, bus.Report: c.hearReport} {
		if _, err := c.end.Subscribe(bus.Up("*", what), "", 100, handle); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { _ = c.end.Close() })
	return c
}

func (c *control) answer(m bus.Message, v any) {
	data, err := json.Marshal(v)
	if err != nil {
		c.t.Error(err)
	}
	_ = m.Respond(data)
}

func (c *control) beat(m bus.Message) {
	var b fleet.Beat
	if err := json.Unmarshal(m.Data, &b); err != nil {
		c.t.Error(err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mute {
		return
	}
	c.beats = append(c.beats, b)
	a := fleet.BeatAnswer{Purge: fleet.PurgePosition{Epoch: 1, Number: c.base + uint64(len(c.purges))}}
	if b.Table != c.table.Digest() {
		a.Head = c.head()
	}
	c.answer(m, &a)
}

// head signs what is to be served. With c.mu.
func (c *control) head() *manifest.Signed {
	s, err := c.signer.Sign(&manifest.Head{Format: manifest.Format, Pop: "fra1", Position: c.at, Issued: time.Now(), Table: c.table.Digest(), Tenants: len(c.table.Tenants())})
	if err != nil {
		c.t.Error(err)
	}
	return s
}

func (c *control) askedTable(m bus.Message) {
	var q fleet.TableRequest
	_ = json.Unmarshal(m.Data, &q)
	c.mu.Lock()
	defer c.mu.Unlock()
	var list []manifest.Tenant
	for _, t := range c.table.Tenants() {
		if t.Organization > q.After && len(list) < 2 {
			list = append(list, t)
		}
	}
	all := c.table.Tenants()
	more := len(list) > 0 && list[len(list)-1] != all[len(all)-1]
	c.answer(m, &fleet.TableAnswer{Tenants: list, More: more, Gone: q.Table != c.table.Digest()})
}

func (c *control) askedBlob(m bus.Message) {
	var q fleet.BlobRequest
	_ = json.Unmarshal(m.Data, &q)
	c.mu.Lock()
	defer c.mu.Unlock()
	b, there := c.blobs[q.Digest]
	if c.tear > 0 {
		c.tear--
		_ = m.Respond([]byte{7})
		return
	}
	if !there || q.Offset > int64(len(b)) {
		_ = m.Respond(fleet.PieceAnswer(nil))
		return
	}
	_ = m.Respond(fleet.PieceAnswer(b[q.Offset:min(int64(len(b)), q.Offset+fleet.Piece)]))
}

func (c *control) askedPurges(m bus.Message) {
	var q fleet.PurgesRequest
	_ = json.Unmarshal(m.Data, &q)
	c.mu.Lock()
	defer c.mu.Unlock()
	a := fleet.PurgesAnswer{Newest: fleet.PurgePosition{Epoch: 1, Number: c.base + uint64(len(c.purges))}, Forgotten: q.After.Epoch != 1 || q.After.Number < c.base}
	for _, p := range c.purges {
		if p.Number > q.After.Number {
			a.Purges = append(a.Purges, p)
		}
	}
	c.answer(m, &a)
}

func (c *control) hearPurged(m bus.Message) {
	var p fleet.Purged
	_ = json.Unmarshal(m.Data, &p)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.purged = p.PurgePosition
}

func (c *control) hearReport(m bus.Message) {
	var r fleet.Report
	_ = json.Unmarshal(m.Data, &r)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reports = append(c.reports, r)
}

func (c *control) reported(kind fleet.ReportKind, text string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.ContainsFunc(c.reports, func(r fleet.Report) bool { return r.Kind == kind && strings.Contains(r.Text, text) })
}

// set wants texts to be served, by organization, and gives a head with all that it takes.
func (c *control) want(texts map[string]string) *fleet.Head {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at.Revision++
	var list []manifest.Tenant
	h := &fleet.Head{}
	for _, org := range slices.Sorted(maps.Keys(texts)) {
		part := []byte(texts[org])
		index, _ := json.Marshal([]manifest.Ref{{Digest: manifest.Of(part), Size: int64(len(part))}})
		c.blobs[manifest.Of(part)], c.blobs[manifest.Of(index)] = part, index
		h.Blobs = append(h.Blobs, part, index)
		list = append(list, manifest.Tenant{Organization: org, Revision: int64(c.at.Revision), Index: manifest.Ref{Digest: manifest.Of(index), Size: int64(len(index))}})
	}
	next := manifest.NewTable(list)
	h.Delta = manifest.Between(c.table, next)
	c.table = next
	h.Signed = *c.head()
	return h
}

func (c *control) send(h *fleet.Head) {
	data, err := json.Marshal(h)
	if err != nil {
		c.t.Error(err)
	}
	if err := c.end.Publish(bus.Down("fra1", bus.Head), data); err != nil {
		c.t.Error(err)
	}
}

// place is a PoP under test.
type place struct {
	*Agent
	loader   *loader
	purger   *purger
	switcher *switcher
	end      *bus.End
	stop     func()
}

func (c *control) start(dir string) *place {
	p := &place{loader: &loader{}, purger: &purger{}, switcher: &switcher{}, end: c.bus.JoinAs(bus.PopRights("fra1"))}
	a, err := NewAgent(AgentConfig{Pop: "fra1", Dir: dir, Keys: c.set, Bus: p.end, Loader: p.loader, Purger: p.purger, Switcher: p.switcher, Version: "test", Logger: slog.New(slog.DiscardHandler), Metrics: observe.New()})
	if err != nil {
		c.t.Fatal(err)
	}
	p.Agent = a
	return p
}

// run follows; p.stop ends it as kill -9 would.
func (c *control) run(p *place) *place {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- p.Agent.Run(ctx) }()
	p.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			c.t.Error(err)
		}
		_ = p.end.Close()
	})
	return p
}

func scene(t *testing.T, f func(t *testing.T, c *control, dir string)) {
	t.Helper()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		c := newControl(t)
		f(t, c, dir)
		_ = c.end.Close()
		time.Sleep(time.Minute) // what was to settle has
	})
}

func (p *place) want(t *testing.T, texts map[string]string) {
	t.Helper()
	synctest.Wait()
	if got := p.loader.serves(); got != fmt.Sprint(texts) {
		t.Errorf("serves %s, want %v (%s)", got, texts, p.State().Problem)
	}
}

func TestAHeadIsServedAtOnceAndTold(t *testing.T) {
	scene(t, func(t *testing.T, c *control, dir string) {
		p := c.run(c.start(dir))
		defer p.stop()
		time.Sleep(5 * time.Second)
		texts := map[string]string{"a": "one", "b": "two", "c": "three"}
		c.send(c.want(texts))
		p.want(t, texts) // no time went by
		if last := c.last(); last.Position != c.at || last.Table != c.table.Digest() {
			t.Errorf("%+v", last)
		}
		n := p.loader.applied
		texts = map[string]string{"a": "one", "b": "new"}
		c.send(c.want(texts))
		p.want(t, texts)
		if p.loader.applied != n+1 {
			t.Errorf("applied %d times", p.loader.applied-n)
		}
	})
}

func TestWhatWasMissedIsAskedFor(t *testing.T) {
	scene(t, func(t *testing.T, c *control, dir string) {
		p := c.run(c.start(dir))
		defer p.stop()
		texts := map[string]string{"a": "one", "b": "two", "c": "three", "d": strings.Repeat("x", 2*fleet.Piece+7)}
		c.want(texts) // nobody is told
		c.mu.Lock()
		c.tear = 3
		c.mu.Unlock()
		time.Sleep(3 * time.Second)
		p.want(t, texts)
		h := c.want(map[string]string{"a": "four"})
		h.Delta.From, h.Blobs = manifest.Of(nil), nil // of another table
		c.send(h)
		time.Sleep(time.Second)
		p.want(t, map[string]string{"a": "four"})
	})
}

func TestACutOfADayIsMadeUpForAtOnce(t *testing.T) {
	scene(t, func(t *testing.T, c *control, dir string) {
		p := c.run(c.start(dir))
		defer p.stop()
		c.send(c.want(map[string]string{"a": "one"}))
		synctest.Wait()
		p.end.Cut()
		time.Sleep(24 * time.Hour)
		p.want(t, map[string]string{"a": "one"})
		c.want(map[string]string{"a": "two"})
		c.purge("x")
		p.end.Mend()
		p.want(t, map[string]string{"a": "two"}) // no time went by
		if !slices.Equal(p.purged(), []string{`"x"`}) && p.stale() == 0 {
			t.Errorf("purged %v", p.purged())
		}
	})
}

func TestOlderForeignUnsignedAndOversizedHeadsAreRefusedAndReported(t *testing.T) {
	scene(t, func(t *testing.T, c *control, dir string) {
		p := c.run(c.start(dir))
		defer p.stop()
		old := c.want(map[string]string{"a": "old"})
		c.send(old)
		synctest.Wait()
		good := map[string]string{"a": "good"}
		c.send(c.want(good))
		p.want(t, good)
		c.mu.Lock()
		c.mute = true
		c.mu.Unlock()
		_, key, _ := ed25519.GenerateKey(nil)
		thief := manifest.NewSigner(key)
		evil := func(s *manifest.Signer, change func(*manifest.Head)) *fleet.Head {
			h := manifest.Head{Format: manifest.Format, Pop: "fra1", Position: manifest.Position{Epoch: 1, Revision: 99}, Table: manifest.NewTable(nil).Digest()}
			change(&h)
			signed, _ := s.Sign(&h)
			return &fleet.Head{Signed: *signed}
		}
		for text, h := range map[string]*fleet.Head{
			"not newer":    old,
			"not trusted":  evil(thief, func(*manifest.Head) {}),
			"another PoP":  evil(c.signer, func(h *manifest.Head) { h.Pop = "ams1" }),
			"format":       evil(c.signer, func(h *manifest.Head) { h.Format = 7 }),
			"well formed":  {Signed: manifest.Signed{Head: []byte("{}")}},
			"does not fit": {Signed: manifest.Signed{Head: []byte("{}"), Key: good1(c), Signature: make([]byte, 64)}},
			"tenants":      evil(c.signer, func(h *manifest.Head) { h.Tenants = 1 << 40 }),
		} {
			c.send(h)
			synctest.Wait()
			if !c.reported(fleet.ReportRefused, text) {
				t.Errorf("%q is not reported", text)
			}
			p.want(t, good)
		}
		if err := c.end.Publish(bus.Down("fra1", bus.Head), []byte("{")); err != nil {
			t.Fatal(err)
		}
		p.want(t, good)
	})
}

// last is the newest heartbeat, once all is quiet.
func (c *control) last() fleet.Beat {
	synctest.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.beats[len(c.beats)-1]
}

// obeyed is the newest purge that was acknowledged.
func (c *control) obeyed() uint64 {
	synctest.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.purged.Number
}

// purged is what was, once all is quiet.
func (p *place) purged() []string {
	synctest.Wait()
	p.purger.mu.Lock()
	defer p.purger.mu.Unlock()
	return slices.Clone(p.purger.list)
}

// stale is how often everything was taken for stale.
func (p *place) stale() int {
	synctest.Wait()
	p.purger.mu.Lock()
	defer p.purger.mu.Unlock()
	return p.purger.all
}

func good1(c *control) string { return manifest.KeyID(c.signer.Public()) }

func TestABadBundleIsHeldAlone(t *testing.T) {
	for _, bad := range []string{"broken", "panic", "not wanted"} {
		scene(t, func(t *testing.T, c *control, dir string) {
			p := c.run(c.start(dir))
			defer func() { p.stop() }()
			p.loader.refuse = "not wanted"
			c.send(c.want(map[string]string{"a": "one", "b": "one"}))
			synctest.Wait()
			c.send(c.want(map[string]string{"a": bad, "b": "two", "new": bad}))
			p.want(t, map[string]string{"a": "one", "b": "two"})
			last := c.last()
			if last.Position != c.at || len(last.Refused) != 2 || !c.reported(fleet.ReportRefused, "") {
				t.Errorf("%s: %+v", bad, last)
			}
			n := p.loader.applied
			time.Sleep(time.Minute)
			p.want(t, map[string]string{"a": "one", "b": "two"})
			if p.loader.applied != n {
				t.Errorf("%s: tried %d times again", bad, p.loader.applied-n)
			}
			p.stop() // and a start does not forget
			p = c.start(dir)
			p.loader.refuse = "not wanted"
			if err := p.Boot(t.Context()); err != nil {
				t.Fatal(err)
			}
			c.run(p)
			p.want(t, map[string]string{"a": "one", "b": "two"})
			c.send(c.want(map[string]string{"a": "three", "b": "two", "new": "one"}))
			p.want(t, map[string]string{"a": "three", "b": "two", "new": "one"})
			if s := p.State(); len(s.Held) != 0 {
				t.Errorf("%s: %v", bad, s.Held)
			}
		})
	}
}

func TestItServesWithoutAControlPlane(t *testing.T) {
	scene(t, func(t *testing.T, c *control, dir string) {
		p := c.run(c.start(dir))
		c.send(c.want(map[string]string{"a": "one"}))
		c.send(c.want(map[string]string{"a": "two"}))
		synctest.Wait()
		p.stop()
		_ = c.end.Close()
		time.Sleep(24 * time.Hour)
		p = c.start(dir)
		if err := p.Boot(t.Context()); err != nil {
			t.Fatal(err)
		}
		p.want(t, map[string]string{"a": "two"})
	})
}

func TestAFreshPoPHasNothing(t *testing.T) {
	scene(t, func(t *testing.T, c *control, dir string) {
		if err := c.start(dir).Boot(t.Context()); !errors.Is(err, ErrNothing) {
			t.Errorf("%v", err)
		}
	})
}

func TestTwoFailedStartsFallBack(t *testing.T) {
	scene(t, func(t *testing.T, c *control, dir string) {
		p := c.run(c.start(dir))
		c.send(c.want(map[string]string{"a": "good"}))
		synctest.Wait()
		time.Sleep(time.Minute)
		c.send(c.want(map[string]string{"a": "deadly"}))
		p.want(t, map[string]string{"a": "deadly"})
		p.stop() // the process dies of it
		p = c.start(dir)
		if err := p.Boot(t.Context()); err != nil {
			t.Fatal(err)
		}
		p.want(t, map[string]string{"a": "deadly"}) // once may be chance
		p = c.start(dir)                            // and again
		if err := p.Boot(t.Context()); err != nil {
			t.Fatal(err)
		}
		p.want(t, map[string]string{"a": "good"})
		c.run(p)
		defer p.stop()
		time.Sleep(time.Minute)
		p.want(t, map[string]string{"a": "good"}) // the control plane offers it in vain
		if p.State().Problem == "" {
			t.Error("nobody is told why")
		}
		c.send(c.want(map[string]string{"a": "mended"}))
		p.want(t, map[string]string{"a": "mended"})
	})
}

func TestWhatIsTornOnTheDiskIsNotServed(t *testing.T) {
	scene(t, func(t *testing.T, c *control, dir string) {
		p := c.run(c.start(dir))
		c.send(c.want(map[string]string{"a": "one", "b": "one"}))
		synctest.Wait()
		c.send(c.want(map[string]string{"a": "two", "b": "two"}))
		synctest.Wait()
		p.stop()
		tear := func(name string, n int64) {
			if err := os.Truncate(filepath.Join(dir, name), n); err != nil {
				t.Fatal(err)
			}
		}
		tear(filepath.Join(blobDir, manifest.Of([]byte("two")).String()), 1)
		p = c.start(dir)
		if err := p.Boot(t.Context()); err != nil {
			t.Fatal(err)
		}
		p.want(t, map[string]string{"a": "one", "b": "one"}) // nothing of the newer one is whole
		p = c.start(dir)
		tear(stateName(c.at), 100)
		if err := p.Boot(t.Context()); err != nil {
			t.Fatal(err)
		}
		p.want(t, map[string]string{"a": "one", "b": "one"})
		c.run(p)
		defer p.stop()
		time.Sleep(3 * time.Second)
		p.want(t, map[string]string{"a": "two", "b": "two"})
	})
}

func TestATenantThatIsNotWholeComesFromTheControlPlane(t *testing.T) {
	scene(t, func(t *testing.T, c *control, dir string) {
		p := c.run(c.start(dir))
		c.send(c.want(map[string]string{"a": "one", "b": "two"}))
		synctest.Wait()
		p.stop()
		if err := os.Remove(filepath.Join(dir, blobDir, manifest.Of([]byte("two")).String())); err != nil {
			t.Fatal(err)
		}
		p = c.start(dir)
		if err := p.Boot(t.Context()); err != nil {
			t.Fatal(err)
		}
		p.want(t, map[string]string{"a": "one"})
		c.run(p)
		defer p.stop()
		time.Sleep(3 * time.Second)
		p.want(t, map[string]string{"a": "one", "b": "two"})
	})
}

// purge numbers a purge; who is told, is the caller's.
func (c *control) purge(name string) fleet.Purge {
	c.mu.Lock()
	defer c.mu.Unlock()
	entry, _ := json.Marshal(name)
	p := fleet.Purge{PurgePosition: fleet.PurgePosition{Epoch: 1, Number: c.base + uint64(len(c.purges)) + 1}, Entry: entry}
	c.purges = append(c.purges, p)
	return p
}

func (c *control) tell(p fleet.Purge) {
	data, _ := json.Marshal(&p)
	if err := c.end.Publish(bus.AllPurge, data); err != nil {
		c.t.Error(err)
	}
}

func TestPurgesHoldInOrderAndWithoutAGap(t *testing.T) {
	scene(t, func(t *testing.T, c *control, dir string) {
		p := c.run(c.start(dir))
		time.Sleep(2 * time.Second)
		if p.stale() != 1 {
			t.Error("what an edge stored before it joined is taken for good")
		}
		c.tell(c.purge("1"))
		synctest.Wait()
		if len(p.purged()) != 1 || c.obeyed() != 1 {
			t.Errorf("at once: %v, %v", p.purged(), c.obeyed())
		}
		c.purge("2") // lost
		c.tell(c.purge("3"))
		synctest.Wait()
		if !slices.Equal(p.purged(), []string{`"1"`, `"2"`, `"3"`}) || c.obeyed() != 3 {
			t.Errorf("%v, %v", p.purged(), c.obeyed())
		}
		c.tell(c.purges[0]) // again
		c.purge("4")        // the last is lost
		time.Sleep(1500 * time.Millisecond)
		if len(p.purged()) != 4 {
			t.Errorf("%v", p.purged())
		}
		p.stop()
		for i := range 10 {
			c.purge(fmt.Sprint("away ", i))
		}
		p = c.run(c.start(dir))
		synctest.Wait()
		if len(p.purged()) != 10 || c.obeyed() != 14 {
			t.Errorf("what came while it was away: %v", p.purged())
		}
		p.stop()
		c.mu.Lock()
		c.base, c.purges = 100, nil
		c.mu.Unlock()
		c.purge("101")
		p = c.run(c.start(dir))
		defer p.stop()
		time.Sleep(2 * time.Second)
		if p.stale() != 1 || c.obeyed() != 101 {
			t.Errorf("beyond the log: %d, %v", p.stale(), c.obeyed())
		}
	})
}

func TestAPurgeThatDoesNotHoldIsNotAcknowledged(t *testing.T) {
	scene(t, func(t *testing.T, c *control, dir string) {
		p := c.run(c.start(dir))
		defer p.stop()
		time.Sleep(2 * time.Second)
		p.purger.mu.Lock()
		p.purger.err = errors.New("disk full")
		p.purger.mu.Unlock()
		c.tell(c.purge("1"))
		time.Sleep(10 * time.Second)
		if c.obeyed() != 0 || p.State().Problem != "disk full" {
			t.Errorf("%v, %q", c.purged, p.State().Problem)
		}
		p.purger.mu.Lock()
		p.purger.err = nil
		p.purger.mu.Unlock()
		time.Sleep(2 * time.Second)
		if c.obeyed() != 1 {
			t.Errorf("%v", c.obeyed())
		}
	})
}

func TestKeysAreRenewedAndKept(t *testing.T) {
	scene(t, func(t *testing.T, c *control, dir string) {
		p := c.run(c.start(dir))
		synctest.Wait()
		_, key, _ := ed25519.GenerateKey(nil)
		fresh := manifest.NewSigner(key)
		set, err := c.signer.SignKeys(&manifest.KeySet{Number: 2, Keys: []manifest.Key{{Public: fresh.Public()}}})
		if err != nil {
			t.Fatal(err)
		}
		data, _ := json.Marshal(set)
		if err := c.end.Publish(bus.AllKeys, data); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if last := c.last(); last.Keys != 2 {
			t.Errorf("%+v", last)
		}
		p.stop()
		c.signer = fresh
		p = c.run(c.start(dir))
		defer p.stop()
		c.send(c.want(map[string]string{"a": "signed by the new key"}))
		p.want(t, map[string]string{"a": "signed by the new key"})
	})
}

func TestAPersonAtThePoPHasTheLastWordForADay(t *testing.T) {
	scene(t, func(t *testing.T, c *control, dir string) {
		p := c.run(c.start(dir))
		defer func() { p.stop() }()
		c.send(c.want(map[string]string{"a": "one"}))
		synctest.Wait()
		first := c.at
		c.send(c.want(map[string]string{"a": "two", "b": "two"}))
		synctest.Wait()
		give := func(to manifest.Position, d time.Duration) error {
			_, err := p.Orders().Give(orders.Order{Act: orders.Rollback, To: to, Owner: "ada", Reason: "the shop is down", Until: time.Now().Add(d), Local: true})
			return err
		}
		if err := give(first, 30*time.Hour); !errors.Is(err, orders.ErrOrder) {
			t.Errorf("for more than a day: %v", err)
		}
		if err := give(first, time.Hour); err != nil {
			t.Fatal(err)
		}
		p.want(t, map[string]string{"a": "one"})
		c.send(c.want(map[string]string{"a": "three"}))
		time.Sleep(15 * time.Minute)
		p.want(t, map[string]string{"a": "one"})
		p.stop() // and it outlives the process
		p = c.start(dir)
		if err := p.Boot(t.Context()); err != nil {
			t.Fatal(err)
		}
		c.run(p)
		time.Sleep(15 * time.Minute)
		p.want(t, map[string]string{"a": "one"})
		if last := c.last(); !strings.Contains(last.Pinned, "the shop is down") || !c.reported(fleet.ReportOrdered, "ada") {
			t.Errorf("%+v", last)
		}
		time.Sleep(31 * time.Minute)
		p.want(t, map[string]string{"a": "three"}) // reconciled
	})
}

func TestTheControlPlaneOrdersAndEndsOrders(t *testing.T) {
	scene(t, func(t *testing.T, c *control, dir string) {
		p := c.run(c.start(dir))
		defer p.stop()
		c.send(c.want(map[string]string{"a": "one"}))
		synctest.Wait()
		ask := func(o orders.Order) string {
			data, _ := json.Marshal(&o)
			got, err := c.end.Request(t.Context(), bus.Down("fra1", bus.Order), data)
			if err != nil {
				t.Fatal(err)
			}
			return string(got)
		}
		if text := ask(orders.Order{ID: "x", Act: orders.Switch, Protection: "waf", Owner: "ada", Reason: "blocks buyers", Until: time.Now().Add(time.Hour)}); text != "" {
			t.Fatal(text)
		}
		if got := p.switcher.on(); got != "[waf]" {
			t.Errorf("switched off: %s", got)
		}
		if text := ask(orders.Order{Act: "explode", Owner: "ada", Reason: "x", Until: time.Now().Add(time.Hour)}); text == "" {
			t.Error("any order is taken")
		}
		if text := ask(orders.Order{ID: "x"}); text != "" {
			t.Fatal(text)
		}
		if got := p.switcher.on(); got != "[]" {
			t.Errorf("switched off: %s", got)
		}
	})
}

// TestWhatEndsTheProcessBeforeItIsServedIsCountedToo: reading a bundle may be enough.
func TestWhatEndsTheProcessBeforeItIsServedIsCountedToo(t *testing.T) {
	scene(t, func(t *testing.T, c *control, dir string) {
		p := c.run(c.start(dir))
		c.send(c.want(map[string]string{"a": "good"}))
		synctest.Wait()
		time.Sleep(time.Minute)
		p.stop()
		c.want(map[string]string{"a": "deadly"})
		c.mu.Lock()
		c.mute = true
		deadly := c.at
		c.mu.Unlock()
		for i, wants := range []bool{true, true, false} {
			p = c.start(dir)
			if err := p.Boot(t.Context()); err != nil {
				t.Fatal(err)
			}
			if err := p.try(deadly); (err == nil) != wants { // and then the process dies
				t.Errorf("try %d: %v", i, err)
			}
			time.Sleep(time.Second)
		}
		p.want(t, map[string]string{"a": "good"})
	})
}

func TestAFullDiskKeepsNothingFromBeingServed(t *testing.T) {
	scene(t, func(t *testing.T, c *control, dir string) {
		p := c.run(c.start(dir))
		defer p.stop()
		time.Sleep(time.Second)
		for _, d := range []string{stateDir, blobDir} {
			if err := os.RemoveAll(filepath.Join(dir, d)); err != nil {
				t.Fatal(err)
			}
		}
		c.send(c.want(map[string]string{"a": "one"}))
		p.want(t, map[string]string{"a": "one"})
	})
}
