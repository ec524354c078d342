package rollout

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/relais-edge/relais/internal/bus"
	"github.com/relais-edge/relais/internal/control/store"
	"github.com/relais-edge/relais/internal/fleet"
	"github.com/relais-edge/relais/internal/manifest"
	"github.com/relais-edge/relais/internal/observe"
)

// patience is how long what must come may take on a busy machine.
const testPatience = time.Minute

func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(testPatience); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %s: %s", testPatience, what)
		}
	}
}

// texts compiles an organization's documents of kind Text to their bodies, one part each.
type texts struct{}

func (texts) Compile(ctx context.Context, r *store.Reader, org string) (*Compiled, error) {
	page, err := r.List(ctx, store.Query{Organization: org, Kind: "Text"})
	if err != nil || len(page.Documents) == 0 {
		return nil, err
	}
	c := &Compiled{}
	var refs []manifest.Ref
	for _, d := range page.Documents {
		if strings.Contains(string(d.Body), "impossible") {
			return nil, &DocumentsError{"impossible"}
		}
		c.Parts = append(c.Parts, d.Body)
		refs = append(refs, manifest.Ref{Digest: manifest.Of(d.Body), Size: int64(len(d.Body))})
	}
	c.Index, err = json.Marshal(refs)
	return c, err
}

func (texts) Parts(index []byte) (refs []manifest.Ref, err error) {
	return refs, json.Unmarshal(index, &refs)
}

// rules are the same for everybody.
type rules struct {
	pops   []Pop
	policy *Policy
}

func (x *rules) Read(context.Context, *store.Reader) (*Rulebook, error) {
	return &Rulebook{Pops: slices.Clone(x.pops), Policy: func(string) *Policy { return x.policy }, Serves: func(org string, p *Pop) bool { return p.Labels["only"] == "" || p.Labels["only"] == org }}, nil
}
func (x *rules) Concerns(kind string) bool { return kind == "Pop" }
func (x *rules) Urgent(kind string) bool   { return kind == "KillSwitch" }

// world is a store, a bus, a conductor and PoPs.
type world struct {
	t     *testing.T
	file  string
	store *store.Store
	bus   *bus.Memory
	rules *rules
	key   ed25519.PrivateKey
	pops  []*simulated
	stop  func()
}

func newWorld(t *testing.T, n int, rings ...Ring) *world {
	ignore := goleak.IgnoreCurrent()
	t.Cleanup(func() { goleak.VerifyNone(t, ignore) })
	p := DefaultPolicy()
	p.Rings, p.Gate.Requests, p.Patience = rings, 20, 2*time.Second
	w := &world{t: t, file: filepath.Join(t.TempDir(), "store.db"), bus: &bus.Memory{}, rules: &rules{policy: &p}}
	_, w.key, _ = ed25519.GenerateKey(nil)
	for i := range n {
		w.rules.pops = append(w.rules.pops, Pop{Name: fmt.Sprintf("pop%d", i)})
	}
	w.open()
	w.begin()
	for i := range n {
		w.pops = append(w.pops, w.join(fmt.Sprintf("pop%d", i)))
	}
	t.Cleanup(func() {
		for _, p := range w.pops {
			p.leave()
		}
		w.stop()
		_ = w.store.Close()
	})
	return w
}

func (w *world) open() {
	s, err := store.OpenSQLite(w.t.Context(), w.file, store.Options{Schemas: []store.Schema{Schema()}})
	if err != nil {
		w.t.Fatal(err)
	}
	w.store = s
}

// begin starts a conductor; w.stop ends it.
func (w *world) begin() {
	end := w.bus.Join()
	c := New(Config{
		Store: w.store, Bus: end, Compiler: texts{}, Rules: w.rules, Name: "test", Logger: slog.New(slog.DiscardHandler), Metrics: observe.New(),
		Sign: func(h *manifest.Head) (*manifest.Signed, error) {
			b, err := json.Marshal(h)
			return &manifest.Signed{Head: b, Key: "k", Signature: ed25519.Sign(w.key, b)}, err
		},
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	w.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			w.t.Errorf("conductor: %v", err)
		}
		_ = end.Close()
	})
}

// write changes one text of an organization.
func (w *world) write(org, name, text string) int64 {
	w.t.Helper()
	done, err := w.store.Update(w.t.Context(), store.Change{Author: "ada"}, func(tx *store.Tx) error {
		_, err := tx.Put(w.t.Context(), store.Key{Organization: org, Kind: "Text", Name: name}, []byte(fmt.Sprintf("{%q: %q}", name, text)), store.Any)
		return err
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return done.Revisions[org]
}

func (w *world) state(org string) (s *State) {
	w.t.Helper()
	err := w.store.View(w.t.Context(), func(r *store.Reader) (err error) {
		s, err = Of(w.t.Context(), r, org)
		return err
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return s
}

// simulated is a PoP that does what an agent does, in few lines.
type simulated struct {
	w    *world
	name string
	end  *bus.End
	sub  bus.Subscription

	mu       sync.Mutex
	head     manifest.Head
	table    *manifest.Table
	blobs    map[manifest.Digest][]byte
	refuses  string // a text
	deaf     bool   // hears no head
	sample   fleet.Sample
	bad      int64 // errors of ten requests while it has something that is "bad"
	asked    int   // blobs
	quit     chan struct{}
	finished chan struct{}
}

func (w *world) join(name string) *simulated {
	p := &simulated{w: w, name: name, end: w.bus.JoinAs(bus.PopRights(name)), table: manifest.NewTable(nil), blobs: map[manifest.Digest][]byte{}, quit: make(chan struct{}), finished: make(chan struct{})}
	var err error
	p.sub, err = p.end.Subscribe(bus.Down(name, bus.Head), "", 64, func(m bus.Message) {
		var h fleet.Head
		if err := json.Unmarshal(m.Data, &h); err != nil {
			w.t.Errorf("head: %v", err)
			return
		}
		p.mu.Lock()
		if p.deaf {
			p.mu.Unlock()
			return
		}
		for _, b := range h.Blobs {
			p.blobs[manifest.Of(b)] = b
		}
		if h.Delta != nil {
			if t, err := p.table.Apply(h.Delta); err == nil {
				p.serve(&h.Signed, t)
			}
		}
		p.mu.Unlock()
		p.beat()
	})
	if err != nil {
		w.t.Fatal(err)
	}
	go func() {
		defer close(p.finished)
		for {
			p.beat()
			select {
			case <-p.quit:
				return
			case <-time.After(100 * time.Millisecond):
			}
		}
	}()
	return p
}

func (p *simulated) leave() {
	select {
	case <-p.quit:
	default:
		close(p.quit)
	}
	<-p.finished
	_ = p.sub.Close()
	_ = p.end.Close()
}

// serve takes a head over if it is newer and signed, and p.table is to be t. With p.mu.
func (p *simulated) serve(s *manifest.Signed, t *manifest.Table) {
	var h manifest.Head
	if !ed25519.Verify(p.w.key.Public().(ed25519.PublicKey), s.Head, s.Signature) || json.Unmarshal(s.Head, &h) != nil || h.Pop != p.name {
		p.w.t.Errorf("%s got a foreign head", p.name)
		return
	}
	if h.Epoch < p.head.Epoch || h.Epoch == p.head.Epoch && h.Revision <= p.head.Revision || h.Table != t.Digest() {
		return
	}
	p.head, p.table = h, t
}

func (p *simulated) beat() {
	p.mu.Lock()
	p.sample.Requests += 10
	b := fleet.Beat{Position: p.head.Position, Table: p.table.Digest(), Watched: map[string]fleet.Sample{}}
	for _, e := range p.table.Tenants() {
		text := p.text(e)
		if strings.Contains(text, "bad") {
			p.sample.Errors += p.bad
		}
		if p.refuses != "" && strings.Contains(text, p.refuses) {
			b.Refused = append(b.Refused, fleet.Refused{Organization: e.Organization, Index: e.Index.Digest, Why: "not to be read"})
		}
		b.Watched[e.Organization] = p.sample
	}
	p.mu.Unlock()
	data, err := json.Marshal(&b)
	if err != nil {
		p.w.t.Error(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	got, err := p.end.Request(ctx, bus.Up(p.name, bus.Beat), data)
	var a fleet.BeatAnswer
	if err != nil || json.Unmarshal(got, &a) != nil || a.Head == nil {
		return
	}
	p.pull(ctx, a.Head)
}

// pull asks for the table of a head.
func (p *simulated) pull(ctx context.Context, s *manifest.Signed) {
	var h manifest.Head
	if json.Unmarshal(s.Head, &h) != nil {
		return
	}
	var list []manifest.Tenant
	for after := ""; ; {
		data, _ := json.Marshal(&fleet.TableRequest{Table: h.Table, After: after})
		got, err := p.end.Request(ctx, bus.Up(p.name, bus.Table), data)
		var a fleet.TableAnswer
		if err != nil || json.Unmarshal(got, &a) != nil || a.Gone {
			return
		}
		list = append(list, a.Tenants...)
		if !a.More {
			break
		}
		after = list[len(list)-1].Organization
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.serve(s, manifest.NewTable(list))
}

// text is all that an organization has here. With p.mu.
func (p *simulated) text(e manifest.Tenant) string {
	var refs []manifest.Ref
	if json.Unmarshal(p.blob(e.Index), &refs) != nil {
		return ""
	}
	var all strings.Builder
	for _, r := range refs {
		all.Write(p.blob(r))
	}
	return all.String()
}

func (p *simulated) blob(ref manifest.Ref) []byte {
	if b := p.blobs[ref.Digest]; b != nil {
		return b
	}
	var b []byte
	for int64(len(b)) < ref.Size {
		data, _ := json.Marshal(&fleet.BlobRequest{Digest: ref.Digest, Offset: int64(len(b))})
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		got, err := p.end.Request(ctx, bus.Up(p.name, bus.Blob), data)
		cancel()
		if err != nil {
			return nil
		}
		piece, err := fleet.ReadPiece(got)
		if err != nil || len(piece) == 0 {
			return nil
		}
		b = append(b, piece...)
		p.asked++
	}
	if manifest.Of(b) != ref.Digest {
		p.w.t.Error("a blob is not what it is named")
	}
	p.blobs[ref.Digest] = b
	return b
}

func (p *simulated) has(org, text string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	e, there := p.table.Find(org)
	return there && strings.Contains(p.text(e), text)
}

func (w *world) all(org, text string) func() bool {
	return func() bool {
		return !slices.ContainsFunc(w.pops, func(p *simulated) bool { return !p.has(org, text) })
	}
}

func TestAChangeReachesEveryPoP(t *testing.T) {
	w := newWorld(t, 5, Ring{Share: 1})
	w.write("acme", "a", "one")
	until(t, "the first text everywhere", w.all("acme", "one"))
	r := w.write("acme", "a", "two")
	until(t, "the second text everywhere", w.all("acme", "two"))
	until(t, "it is stable", func() bool { return w.state("acme").Stable.Revision == r })
	w.write("other", "b", strings.Repeat("large ", 300_000)) // asked for in pieces
	until(t, "a large bundle everywhere", w.all("other", "large"))
	if w.pops[0].asked < 2 {
		t.Errorf("a blob of 2 MB came in %d pieces", w.pops[0].asked)
	}
}

func TestWhoMissesAHeadHasItFromItsHeartbeat(t *testing.T) {
	w := newWorld(t, 3, Ring{Share: 1})
	w.pops[1].mu.Lock()
	w.pops[1].deaf = true
	w.pops[1].mu.Unlock()
	w.write("acme", "a", "one")
	until(t, "everywhere", w.all("acme", "one"))
}

func TestWhatOnePoPRefusesIsTakenBack(t *testing.T) {
	w := newWorld(t, 5, Ring{Pops: 1}, Ring{Share: 1})
	w.write("acme", "a", "one")
	until(t, "everywhere", w.all("acme", "one"))
	for _, p := range w.pops {
		p.mu.Lock()
		p.refuses = "two"
		p.mu.Unlock()
	}
	w.write("acme", "a", "two")
	until(t, "taken back", func() bool { s := w.state("acme"); return s.Refused != nil && s.Moving == nil })
	if s := w.state("acme"); s.Refused.Pops != 1 || !strings.Contains(s.Refused.Why, "not to be read") {
		t.Errorf("%+v", s.Refused)
	}
	until(t, "as before", w.all("acme", "one"))
	w.write("acme", "a", "three")
	until(t, "the next goes on", w.all("acme", "three"))
}

func TestErrorsAtTheCanaryAreSeen(t *testing.T) {
	w := newWorld(t, 5, Ring{Pops: 1, Wait: time.Minute}, Ring{Share: 1})
	w.rules.policy.Hurry = 0
	w.write("acme", "a", "one")
	until(t, "everywhere", w.all("acme", "one"))
	until(t, "stable", func() bool { return w.state("acme").Moving == nil })
	for _, p := range w.pops {
		p.mu.Lock()
		p.bad = 5
		p.mu.Unlock()
	}
	w.write("acme", "a", "bad")
	until(t, "taken back", func() bool { s := w.state("acme"); return s.Refused != nil && s.Moving == nil })
	if s := w.state("acme"); s.Refused.Pops != 1 || !strings.Contains(s.Refused.Why, "errors") {
		t.Errorf("%+v", s.Refused)
	}
	until(t, "as before", w.all("acme", "one"))
}

func TestDocumentsThatMakeNoBundleAreTold(t *testing.T) {
	w := newWorld(t, 2, Ring{Share: 1})
	w.write("acme", "a", "one")
	until(t, "everywhere", w.all("acme", "one"))
	r := w.write("acme", "a", "impossible")
	until(t, "told", func() bool { s := w.state("acme"); return s.Refused != nil && s.Refused.Revision == r })
	if !w.all("acme", "one")() {
		t.Error("what was served is not served any more")
	}
}

func TestOrdersOfPeople(t *testing.T) {
	w := newWorld(t, 5, Ring{Pops: 1, Wait: time.Hour}, Ring{Share: 1})
	w.rules.policy.Hurry = 0
	give := func(do Do) {
		t.Helper()
		_, err := w.store.Update(t.Context(), store.Change{Author: "ada"}, func(tx *store.Tx) error {
			return Give(t.Context(), tx, "acme", Order{Do: do, By: "ada", Reason: "test"})
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	w.write("acme", "a", "one")
	until(t, "stable", func() bool { s := w.state("acme"); return s.Stable.Revision == 1 && s.Moving == nil })
	w.write("acme", "a", "two")
	until(t, "begun", func() bool { return w.state("acme").Moving != nil })
	give(DoPause)
	until(t, "paused", func() bool { return w.state("acme").Paused != "" })
	give(DoResume)
	give(DoAbort)
	until(t, "taken back", func() bool { s := w.state("acme"); return s.Moving == nil && s.Refused != nil })
	until(t, "as before", w.all("acme", "one"))
	w.write("acme", "a", "three")
	until(t, "begun", func() bool { return w.state("acme").Moving != nil })
	give(DoExpedite)
	until(t, "everywhere", w.all("acme", "three"))
	if _, err := w.store.Update(t.Context(), store.Change{Author: "ada"}, func(tx *store.Tx) error { return Give(t.Context(), tx, "acme", Order{Do: "explode"}) }); err == nil {
		t.Error("any order is taken")
	}
}

func TestAnotherConductorGoesOn(t *testing.T) {
	w := newWorld(t, 5, Ring{Pops: 1, Wait: time.Second}, Ring{Share: 1})
	w.rules.policy.Hurry = 0
	w.write("acme", "a", "one")
	until(t, "stable", func() bool { s := w.state("acme"); return s.Stable.Revision == 1 && s.Moving == nil })
	w.write("acme", "a", "two")
	until(t, "begun", func() bool { return w.state("acme").Moving != nil })
	w.stop()
	w.write("other", "b", "written while nobody leads")
	w.begin()
	until(t, "everywhere", w.all("acme", "two"))
	until(t, "what came meanwhile", w.all("other", "nobody leads"))
}

func TestARestoredStoreBeginsAnEpoch(t *testing.T) {
	w := newWorld(t, 3, Ring{Share: 1})
	w.write("acme", "a", "one")
	until(t, "everywhere", w.all("acme", "one"))
	backup := filepath.Join(t.TempDir(), "backup")
	if err := w.store.BackupFile(t.Context(), backup); err != nil {
		t.Fatal(err)
	}
	w.write("acme", "a", "two")
	w.write("acme", "a", "three")
	until(t, "everywhere", w.all("acme", "three"))
	w.stop()
	_ = w.store.Close()
	w.file = filepath.Join(t.TempDir(), "restored.db")
	w.open()
	in, err := os.Open(backup)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	if err := w.store.Restore(t.Context(), in); err != nil {
		t.Fatal(err)
	}
	w.begin()
	until(t, "what was restored is everywhere", w.all("acme", "one"))
	until(t, "a new epoch", func() bool { w.pops[0].mu.Lock(); defer w.pops[0].mu.Unlock(); return w.pops[0].head.Epoch == 2 })
}

func TestAPoPHasOnlyItsTenants(t *testing.T) {
	w := newWorld(t, 2, Ring{Share: 1})
	w.rules.pops[1].Labels = map[string]string{"only": "acme"}
	if _, err := w.store.Update(t.Context(), store.Change{Author: "ada"}, func(tx *store.Tx) error {
		_, err := tx.Put(t.Context(), store.Key{Organization: "operator", Kind: "Pop", Name: "pop1"}, []byte("{}"), store.Any)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	w.write("acme", "a", "one")
	w.write("other", "b", "two")
	until(t, "acme everywhere", w.all("acme", "one"))
	until(t, "other at one", func() bool { return w.pops[0].has("other", "two") })
	until(t, "settled", func() bool { s := w.state("other"); return s.Stable.Revision > 0 && s.Moving == nil })
	if w.pops[1].has("other", "") {
		t.Error("a PoP has a tenant that is not its")
	}
}
