package rollout

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/relais-edge/relais/internal/bus"
	"github.com/relais-edge/relais/internal/control/store"
	"github.com/relais-edge/relais/internal/fleet"
	"github.com/relais-edge/relais/internal/manifest"
)

const (
	beatDepth = 8192
	// look is how often rollouts under way are looked at.
	look = 250 * time.Millisecond
	// away is after how long without a heartbeat, of which there is one a second, a PoP counts as away.
	away = 4 * time.Second
	// recent is how many bytes of blobs are at hand to be sent with a head.
	recent = 8 << 20
)

// lead is the work of the one who leads. All of it is one goroutine's.
type lead struct {
	c     *Conductor
	lease *store.Lease

	at     manifest.Position
	states map[string]*State
	book   *Rulebook
	tables *tables
	pops   map[string]*live
	marks  map[string]*marks // of organizations under way

	blobs     map[manifest.Digest][]byte // recently compiled
	blobBytes int

	beats       chan bus.Message
	tablesAsked chan bus.Message
	news        chan news
	replayed    chan replayed
	replaying   string // organization
	changed     bool   // something happened that a step may decide on
}

// live is what is known of a PoP.
type live struct {
	pop    *Pop
	seen   time.Time // zero: never, since this one leads
	beat   fleet.Beat
	should *manifest.Table
	told   *manifest.Table // with the last head that was sent
}

// news is what the outbox tells.
type news struct {
	message store.Message
	order   *Order
	rules   bool
	urgent  bool
	what    *Compiled // nil with problem: nothing is to be compiled
	problem string
	done    chan error
}

type replayed struct {
	organization string
	version      Version
	verdict      *Verdict
}

func (l *lead) load(ctx context.Context) error {
	return l.c.cfg.Store.View(ctx, func(r *store.Reader) (err error) {
		if l.at, err = position(ctx, r); err != nil {
			return err
		}
		if l.states, err = states(ctx, r); err != nil {
			return err
		}
		return l.readRules(ctx, r)
	})
}

func (l *lead) readRules(ctx context.Context, r *store.Reader) error {
	book, err := l.c.cfg.Rules.Read(ctx, r)
	if err != nil {
		return err
	}
	l.book = book
	before := l.pops
	l.pops = make(map[string]*live, len(book.Pops))
	for i := range book.Pops {
		p := &live{pop: &book.Pops[i]}
		if old := before[p.pop.Name]; old != nil {
			p.seen, p.beat, p.told = old.seen, old.beat, old.told
		}
		l.pops[p.pop.Name] = p
	}
	l.retable()
	l.changed = true
	return nil
}

// retable finds anew what each PoP should serve, and gives those for which it is another.
func (l *lead) retable() (other []*live) {
	l.tables = newTables(l.book, l.states)
	for _, p := range l.pops {
		t := l.tables.of(p.pop)
		if p.should == nil || p.should.Digest() != t.Digest() {
			other = append(other, p)
		}
		p.should = t
	}
	return other
}

// run conducts until ctx ends.
func (l *lead) run(ctx context.Context) error {
	tick := time.NewTicker(look)
	defer tick.Stop()
	sweep := time.NewTicker(time.Hour)
	defer sweep.Stop()
	keep := time.NewTicker(5 * time.Second)
	defer keep.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case m := <-l.beats:
			l.beat(m)
		case m := <-l.tablesAsked:
			l.answerTable(m)
		case n := <-l.news:
			n.done <- l.hear(ctx, &n)
		case r := <-l.replayed:
			l.take(r)
		case <-tick.C:
			l.changed = l.changed || len(l.active()) > 0
		case <-keep.C:
			if err := l.keepPops(ctx); err != nil {
				return err
			}
		case <-sweep.C:
			if err := l.sweep(ctx); err != nil {
				return err
			}
		}
		if l.changed && len(l.beats) == 0 {
			l.changed = false
			if err := l.step(ctx); err != nil {
				return err
			}
		}
	}
}

// active are the organizations with something under way.
func (l *lead) active() (orgs []string) {
	for org, s := range l.states {
		if s.Moving != nil || s.Waiting != nil {
			orgs = append(orgs, org)
		}
	}
	slices.Sort(orgs)
	return orgs
}

// step looks at all that is under way, keeps what changed in one transaction, and tells the PoPs.
func (l *lead) step(ctx context.Context) error {
	next := map[string]*State{}
	events := map[string][]Event{}
	now := l.c.cfg.Clock()
	for _, org := range l.active() {
		s := l.states[org]
		in := &Input{Organization: org, Policy: l.book.Policy(org), Places: l.places(org, s), Now: now, Revision: l.at.Revision + 1}
		after, told := Step(s, in)
		if len(told) > 0 || settledNow(s, &after) {
			next[org], events[org] = &after, told
		}
		l.replay(ctx, org, &after, in.Policy)
	}
	if len(next) == 0 {
		return nil
	}
	return l.commit(ctx, next, events, nil)
}

// settledNow says whether a step changed a state without an event.
func settledNow(before, after *State) bool {
	return before.Moving != nil && after.Moving != nil && before.Moving.Settled != after.Moving.Settled
}

// commit keeps new states, with blobs that they name, and has what follows of them follow.
func (l *lead) commit(ctx context.Context, next map[string]*State, events map[string][]Event, blobs [][]byte) error {
	at := manifest.Position{Epoch: l.at.Epoch, Revision: l.at.Revision + 1}
	kept, err := l.c.seal(blobs)
	if err != nil {
		return err
	}
	_, err = l.c.cfg.Store.Update(ctx, store.Change{Author: "rollout", Lease: l.lease}, func(tx *store.Tx) error {
		for d, b := range kept {
			if err := putBlob(ctx, tx, d, b); err != nil {
				return err
			}
		}
		for _, org := range slices.Sorted(maps.Keys(next)) {
			if err := setState(ctx, tx, org, next[org]); err != nil {
				return err
			}
			if err := tellEvents(ctx, tx, org, events[org]); err != nil {
				return err
			}
		}
		return setPosition(ctx, tx, at)
	})
	if errors.Is(err, store.ErrBusy) || errors.Is(err, store.ErrFull) || errors.Is(err, store.ErrUnavailable) {
		l.c.cfg.Logger.Warn("a step of a rollout waits for the store", "err", err)
		l.changed = true
		return nil
	}
	if err != nil {
		return err
	}
	l.at = at
	for org, s := range next {
		l.mark(org, l.states[org], s)
		l.states[org] = s
		l.c.metrics.events.Add(float64(len(events[org])))
		for _, e := range events[org] {
			l.c.cfg.Logger.Info("rollout", "organization", org, "revision", e.Revision, "event", string(e.Kind), "text", e.Text)
		}
	}
	l.announce(l.retable())
	l.changed = true // a step may be followed by the next at once
	return nil
}

// eventLog is the log of an organization's rollouts.
const eventLog = "rollout"

func tellEvents(ctx context.Context, tx *store.Tx, org string, events []Event) error {
	for _, e := range events {
		body, err := json.Marshal(e)
		if err != nil {
			return err
		}
		seq, err := tx.Append(ctx, org, eventLog, body)
		if err != nil {
			return err
		}
		if err := tx.TrimLog(ctx, org, eventLog, seq-keepEvents); err != nil {
			return err
		}
		if err := tx.Emit(ctx, "rollout", org, body); err != nil {
			return err
		}
	}
	return nil
}

// keepEvents bounds an organization's log of rollouts.
const keepEvents = 10_000

// announce sends PoPs their new manifests. Who is not reached, or misses one, differs at its next heartbeat.
func (l *lead) announce(pops []*live) {
	slices.SortFunc(pops, func(a, b *live) int { return strings.Compare(a.pop.Name, b.pop.Name) })
	type way struct{ from, to manifest.Digest }
	deltas := map[way]*fleet.Head{}
	for _, p := range pops {
		signed, err := l.sign(p)
		if err != nil {
			l.c.cfg.Logger.Error("a manifest cannot be signed", "pop", p.pop.Name, "err", err)
			continue
		}
		head := &fleet.Head{Signed: *signed}
		if p.told != nil {
			w := way{p.told.Digest(), p.should.Digest()}
			if deltas[w] == nil {
				d := manifest.Between(p.told, p.should)
				deltas[w] = &fleet.Head{Delta: d, Blobs: l.inline(d)}
			}
			head.Delta, head.Blobs = deltas[w].Delta, deltas[w].Blobs
		}
		data, err := json.Marshal(head)
		if err == nil && len(data) > bus.MaxData {
			head.Delta, head.Blobs = nil, nil
			data, err = json.Marshal(head)
		}
		if err == nil {
			err = l.c.cfg.Bus.Publish(bus.Down(p.pop.Name, bus.Head), data)
		}
		if err != nil {
			l.c.metrics.unsent.Add(1)
			p.told = nil
			continue
		}
		p.told = p.should
		l.c.metrics.announced.Add(1)
	}
}

func (l *lead) sign(p *live) (*manifest.Signed, error) {
	return l.c.cfg.Sign(&manifest.Head{
		Format: manifest.Format, Pop: p.pop.Name, Position: l.at, Issued: l.c.cfg.Clock().UTC(),
		Table: p.should.Digest(), Tenants: len(p.should.Tenants()),
	})
}

// inline are the blobs of a delta that are at hand, if all of them are few.
func (l *lead) inline(d *manifest.Delta) (list [][]byte) {
	left := fleet.Inline
	for _, t := range d.Changed {
		index := l.blobs[t.Index.Digest]
		if index == nil {
			continue
		}
		parts, err := l.c.cfg.Compiler.Parts(index)
		if err != nil {
			continue
		}
		all := [][]byte{index}
		for _, ref := range parts {
			if b := l.blobs[ref.Digest]; b != nil {
				all = append(all, b)
			}
		}
		for _, b := range all {
			if len(b) > left {
				break
			}
			left -= len(b)
			list = append(list, b)
		}
	}
	return list
}

// remember keeps blobs at hand; when they are too many it forgets all, as they can be read.
func (l *lead) remember(blobs [][]byte) {
	if l.blobs == nil || l.blobBytes > recent {
		l.blobs, l.blobBytes = map[manifest.Digest][]byte{}, 0
	}
	for _, b := range blobs {
		l.blobs[manifest.Of(b)] = b
		l.blobBytes += len(b)
	}
}

// hear takes news in.
func (l *lead) hear(ctx context.Context, n *news) error {
	if n.rules {
		if err := l.c.cfg.Store.View(ctx, func(r *store.Reader) error { return l.readRules(ctx, r) }); err != nil {
			return err
		}
		if err := l.commit(ctx, nil, nil, nil); err != nil { // a new revision for tables that are others now
			return err
		}
	}
	if n.order != nil {
		return l.obey(ctx, n.message.Organization, n.order)
	}
	if n.what == nil && n.problem == "" {
		return nil
	}
	org := n.message.Organization
	old := l.states[org]
	if old == nil {
		old = &State{}
	}
	s := old.clone()
	if n.problem != "" {
		s.Refused = &Refused{Version: Version{Revision: n.message.Revision}, Time: l.c.cfg.Clock(), Ring: -1, Why: n.problem}
		return l.commit(ctx, map[string]*State{org: &s}, map[string][]Event{org: {{Denied, n.message.Revision, n.problem}}}, nil)
	}
	v := Version{Revision: n.message.Revision, Index: manifest.Ref{Digest: manifest.Of(n.what.Index), Size: int64(len(n.what.Index))}}
	if !s.Offer(v, n.urgent, l.c.cfg.Clock()) {
		return nil
	}
	blobs := append([][]byte{n.what.Index}, n.what.Parts...)
	l.remember(blobs)
	// The first step is taken in the same transaction: what needs no ring is everywhere after one sync of the disk.
	after, events := Step(&s, &Input{Organization: org, Policy: l.book.Policy(org), Places: l.places(org, &s), Now: l.c.cfg.Clock(), Revision: l.at.Revision + 1})
	return l.commit(ctx, map[string]*State{org: &after}, map[string][]Event{org: events}, blobs)
}

// obey does what a person ordered.
func (l *lead) obey(ctx context.Context, org string, o *Order) error {
	old := l.states[org]
	if old == nil {
		return nil
	}
	s := old.clone()
	e := Event{Kind: Kind(o.Do), Revision: s.moving().Revision, Text: fmt.Sprintf("by %s: %s", o.By, o.Reason)}
	switch o.Do {
	case DoPause:
		s.Paused = e.Text
	case DoResume:
		s.Paused = ""
	case DoExpedite:
		if s.Moving != nil {
			s.Moving.Emergency = true
		}
		if s.Waiting != nil {
			s.Waiting.Emergency = true
		}
	case DoAbort:
		switch {
		case s.Moving != nil:
			s.Refused = &Refused{Version: s.Moving.Version, Time: l.c.cfg.Clock(), Ring: s.Moving.Ring, Pops: len(s.Moving.Pops), Why: "taken back " + e.Text}
			s.Moving = nil
		case s.Waiting != nil:
			e.Revision = s.Waiting.Revision
			s.Refused = &Refused{Version: s.Waiting.Version, Time: l.c.cfg.Clock(), Ring: -1, Why: "taken back " + e.Text}
			s.Waiting = nil
		default:
			return nil
		}
		s.Paused = ""
	default:
		return nil
	}
	return l.commit(ctx, map[string]*State{org: &s}, map[string][]Event{org: {e}}, nil)
}

// sweep removes blobs that nothing names.
func (l *lead) sweep(ctx context.Context) error {
	named, err := l.named(ctx)
	if err != nil {
		return forgive(ctx, err)
	}
	_, err = l.c.cfg.Store.Update(ctx, store.Change{Author: "rollout", Lease: l.lease}, func(tx *store.Tx) error {
		_, err := sweepBlobs(ctx, tx, named, tx.Now().Add(-24*time.Hour))
		return err
	})
	if errors.Is(err, store.ErrFenced) {
		return err
	}
	if err != nil {
		l.c.cfg.Logger.Warn("blobs that nobody needs are kept for now", "err", err)
	}
	return nil
}

// named are the blobs that a rollout needs, now or to go back.
func (l *lead) named(ctx context.Context) (map[manifest.Digest]bool, error) {
	named := map[manifest.Digest]bool{}
	for _, s := range l.states {
		for _, v := range append(slices.Clone(s.Proved), s.Stable, s.moving().Version, s.waiting().Version) {
			if v.Revision == 0 || named[v.Index.Digest] {
				continue
			}
			index, err := l.c.read(ctx, v.Index.Digest)
			if errors.Is(err, ErrNoBlob) {
				continue
			}
			if err != nil {
				return nil, err
			}
			named[v.Index.Digest] = true
			parts, err := l.c.cfg.Compiler.Parts(index)
			if err != nil {
				return nil, err
			}
			for _, p := range parts {
				named[p.Digest] = true
			}
		}
	}
	return named, nil
}
