package purge

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/relais-edge/relais/internal/bus"
	"github.com/relais-edge/relais/internal/control/store"
	entry "github.com/relais-edge/relais/internal/edge/cache/purge"
	"github.com/relais-edge/relais/internal/fleet"
	"github.com/relais-edge/relais/test/postgres"
)

func TestOverPostgres(t *testing.T) {
	postgres.Again(t, map[string]func(*testing.T){
		"TestAPurgeReachesAllPoPsAndHasAReceipt":        TestAPurgeReachesAllPoPsAndHasAReceipt,
		"TestTwoControlPlanesAtOnceLeaveNoGap":          TestTwoControlPlanesAtOnceLeaveNoGap,
		"TestWhatIsLostIsMadeUpFor":                     TestWhatIsLostIsMadeUpFor,
		"TestRestartsForgetNothing":                     TestRestartsForgetNothing,
		"TestARestoredBackupBeginsAnEpoch":              TestARestoredBackupBeginsAnEpoch,
		"TestAPoPThatKnowsMoreBeginsAnEpoch":            TestAPoPThatKnowsMoreBeginsAnEpoch,
		"TestAPoPBeyondTheLogTakesEverythingForPurged":  TestAPoPBeyondTheLogTakesEverythingForPurged,
		"TestAnswersFitMessages":                        TestAnswersFitMessages,
		"TestRates":                                     TestRates,
		"TestAReceiptTellsWhoDoesNotObey":               TestAReceiptTellsWhoDoesNotObey,
		"TestOrdersThatAreRefused":                      TestOrdersThatAreRefused,
		"TestWhoeverGoesAwayTakesNothingFromOthers":     TestWhoeverGoesAwayTakesNothingFromOthers,
		"TestWithoutAConnectionAReceiptIsBlind":         TestWithoutAConnectionAReceiptIsBlind,
		"TestAStoreThatDoesNotWriteLeavesNoNumberGiven": TestAStoreThatDoesNotWriteLeavesNoNumberGiven,
		"TestWhateverBreaksEveryPurgeIsObeyed":          TestWhateverBreaksEveryPurgeIsObeyed,
	}, "TestNoOrderReachesBeyondItsOrganization", "TestEchoes", "TestHearing", "TestBoundsOfMemory")
}

func TestAPurgeReachesAllPoPsAndHasAReceipt(t *testing.T) {
	w := newWorld(t)
	a, b := w.plane("a"), w.plane("b")
	a.sites(t, [2]string{"acme", "shop"})
	pops := w.pops(a, 3)
	r := a.must(t, tags("x", "y"))
	if r.Last != r.First+1 || r.Epoch != a.Newest().Epoch || r.Organization != "acme" || r.Author != "ann" || len(r.Pops) != 3 || time.Since(r.Time).Abs() > time.Hour {
		t.Fatalf("%+v", r)
	}
	var states []string
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	done, err := a.Wait(ctx, *r, func(r *Receipt) {
		states = append(states, fmt.Sprint(r.state("pop0"), r.state("pop1"), r.state("pop2")))
	})
	if err != nil || !done.Done() || len(states) == 0 || states[len(states)-1] != "obeysobeysobeys" {
		t.Fatal(err, states)
	}
	for _, p := range pops {
		if got := p.since(); !slices.Equal(got, []string{"x", "y"}) {
			t.Errorf("%s: %q", p.name, got)
		}
	}
	for _, p := range done.Pops {
		if p.Time == nil || p.Seen.IsZero() || p.Time.Before(r.Time.Add(-time.Second)) {
			t.Errorf("%+v", p)
		}
	}
	// Another control plane knows the same, and an older number keeps its time when newer ones are obeyed.
	a.obeyed(t, a.must(t, tags("z")))
	old, err := a.Receipt(t.Context(), r.Last)
	if err != nil || !old.Pops[0].Time.Equal(*done.Pops[0].Time) {
		t.Fatalf("%v %+v, was %+v", err, old, done)
	}
	until(t, "the other control plane hears it too", func() bool {
		other, err := b.Receipt(t.Context(), r.First)
		return err == nil && other.Done() && len(other.Pops) == 3 && other.Author == "ann" && other.First == r.First && other.Time.Equal(r.Time)
	})
	if b.Newest() != a.Newest() {
		t.Error(b.Newest(), a.Newest())
	}
	if _, err := a.Receipt(t.Context(), 1000); !errors.Is(err, store.ErrNotFound) {
		t.Error(err)
	}
}

func TestTwoControlPlanesAtOnceLeaveNoGap(t *testing.T) {
	w := newWorld(t)
	planes := []*plane{w.plane("a"), w.plane("b")}
	planes[0].sites(t, [2]string{"acme", "shop"})
	pops := w.pops(planes[0], 3)
	var wg sync.WaitGroup
	var mu sync.Mutex
	given := map[uint64]string{}
	for i := range 8 {
		wg.Go(func() {
			for k := range 10 {
				var names []string
				for j := range 1 + (i+k)%3 {
					names = append(names, fmt.Sprintf("t%d-%d-%d", i, k, j))
				}
				r, err := planes[i%2].Purge(t.Context(), tags(names...))
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				for j, n := range names {
					given[r.First+uint64(j)] = n
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	var want []string
	log := planes[0].log(t)
	for i, x := range log {
		if x.number != uint64(i+1) {
			t.Fatalf("entry %d has number %d", i, x.number)
		}
		var e entry.Entry
		if err := json.Unmarshal(x.entry, &e); err != nil || e.Value != given[x.number] {
			t.Fatalf("number %d is %+v, and was given to %q", x.number, e, given[x.number])
		}
		want = append(want, e.Value)
	}
	if len(log) != len(given) {
		t.Fatalf("%d in the log, %d given", len(log), len(given))
	}
	last, err := planes[1].Receipt(t.Context(), uint64(len(log)))
	if err != nil {
		t.Fatal(err)
	}
	planes[1].obeyed(t, last)
	for _, p := range pops {
		if got := p.since(); !slices.Equal(got, want) {
			t.Errorf("%s: %d purges, want %d in the order of the log", p.name, len(got), len(want))
		}
	}
}

func TestWhatIsLostIsMadeUpFor(t *testing.T) {
	w := newWorld(t)
	c := w.plane("a")
	c.sites(t, [2]string{"acme", "shop"})
	p := w.pops(c, 1)[0]
	// The first message is lost: what is sent again soon after brings it.
	c.mute.Store(true)
	left := 1
	c.lossy.set(func(subject string, _ []byte) bool {
		left--
		return subject == bus.AllPurge && left >= 0
	})
	c.obeyed(t, c.must(t, tags("a")))
	c.mute.Store(false)
	// All are lost: the heartbeat tells.
	c.lossy.set(func(subject string, _ []byte) bool { return subject == bus.AllPurge })
	c.obeyed(t, c.must(t, tags("b", "c")))
	// One in the middle is lost: the next one shows it.
	nth := 0
	c.lossy.set(func(subject string, _ []byte) bool {
		nth++
		return subject == bus.AllPurge && nth == 2
	})
	c.obeyed(t, c.must(t, tags("d", "e", "f")))
	// The connection is cut: what was purged meanwhile is asked for.
	c.lossy.set(nil)
	p.end.Cut()
	r := c.must(t, tags("g"))
	p.end.Mend()
	c.obeyed(t, r)
	if got := p.since(); !slices.Equal(got, []string{"a", "b", "c", "d", "e", "f", "g"}) {
		t.Errorf("%q", got)
	}
}

func TestRestartsForgetNothing(t *testing.T) {
	w := newWorld(t)
	a := w.plane("a")
	a.sites(t, [2]string{"acme", "shop"})
	pops := w.pops(a, 2)
	p := pops[0]
	r := a.obeyed(t, a.must(t, tags("a")))
	p.stop()
	a.must(t, tags("b", "c"))
	w.run(p)
	last, err := a.Receipt(t.Context(), r.Last+2)
	if err != nil {
		t.Fatal(err)
	}
	a.obeyed(t, last)
	if got := p.since(); !slices.Equal(got, []string{"a", "b", "c"}) {
		t.Errorf("a PoP that was away: %q", got)
	}
	until(t, "acknowledgements are written down", func() bool {
		var list []ack
		err := a.store.View(t.Context(), func(r *store.Reader) (err error) {
			list, err = readAcks(t.Context(), r)
			return err
		})
		return err == nil && len(list) == 2 && list[0].at == a.Newest() && list[1].at == a.Newest()
	})
	for _, p := range pops {
		p.stop()
	}
	epoch := a.Newest().Epoch
	a.stop()
	b := w.plane("a")
	if b.Newest() != (fleet.PurgePosition{Epoch: epoch, Number: last.Last}) {
		t.Fatalf("%+v after a restart, was %d and %+v", b.Newest(), epoch, last)
	}
	again, err := b.Receipt(t.Context(), last.Last)
	if err != nil || again.state("pop0") != Obeys || again.state("pop1") != Obeys {
		t.Fatalf("%v %+v", err, again)
	}
	next := b.must(t, tags("d"))
	if next.First != last.Last+1 || next.state("pop0") != Waiting {
		t.Errorf("%+v: a PoP that was there a moment ago is waited for", next)
	}
	for _, p := range pops {
		w.run(p)
	}
	b.obeyed(t, next)
	if got := p.since(); !slices.Equal(got, []string{"a", "b", "c", "d"}) {
		t.Errorf("%q", got)
	}
}

func TestARestoredBackupBeginsAnEpoch(t *testing.T) {
	w := newWorld(t)
	a := w.plane("a")
	a.sites(t, [2]string{"acme", "shop"})
	a.must(t, tags("a"))
	var backup bytes.Buffer
	if err := a.store.Backup(t.Context(), &backup); err != nil {
		t.Fatal(err)
	}
	p := w.pops(a, 1)[0]
	before := a.obeyed(t, a.must(t, tags("b", "c"))) // which the backup does not know
	a.stop()
	w.dsn = w.database()
	empty := w.open()
	if err := empty.Restore(t.Context(), &backup); err != nil {
		t.Fatal(err)
	}
	if err := empty.Close(); err != nil {
		t.Fatal(err)
	}
	b := w.plane("b")
	// Its first numbers are those of b and c, and yet none is taken for them.
	r := b.obeyed(t, b.must(t, tags("d", "e")))
	if r.Epoch <= before.Epoch || r.First != before.First {
		t.Fatalf("%+v after %+v", r, before)
	}
	list := p.purged()
	last := slices.Index(list, "c")
	if last < 0 || !slices.Contains(list[last:], "*") {
		t.Errorf("%q: everything counts as purged in a new epoch", list)
	}
	b.obeyed(t, b.must(t, tags("f")))
	if list := p.purged(); list[len(list)-1] != "f" {
		t.Errorf("%q", list)
	}
}

// rewind puts the log back, as a copy of the database's files would.
func (p *plane) rewind(t *testing.T, number uint64) {
	t.Helper()
	_, err := p.store.Update(t.Context(), store.Change{Author: "test"}, func(tx *store.Tx) error {
		_, err := tx.Exec(t.Context(), "rewind", "UPDATE purge_head SET number = $1", int64(number))
		if err == nil {
			_, err = tx.Exec(t.Context(), "rewind", "DELETE FROM purge_log WHERE number > $1", int64(number))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestAPoPThatKnowsMoreBeginsAnEpoch(t *testing.T) {
	w := newWorld(t)
	a := w.plane("a")
	a.sites(t, [2]string{"acme", "shop"})
	p := w.pops(a, 1)[0]
	r := a.obeyed(t, a.must(t, tags("a", "b", "c")))
	a.stop()
	s := &plane{store: w.open()}
	s.rewind(t, r.First)
	b := w.plane("b")
	until(t, "a new epoch begins", func() bool { return b.Newest().Epoch > r.Epoch })
	n := b.obeyed(t, b.must(t, tags("d")))
	if list := p.purged(); n.First != r.First+1 || !slices.Contains(list[slices.Index(list, "c"):], "*") {
		t.Errorf("%+v %q", n, list)
	}
	// A PoP that lies begins no epoch a moment after.
	liar := w.bus.JoinAs(bus.PopRights("liar"))
	defer liar.Close()
	epoch := b.Newest().Epoch
	say := func(at fleet.PurgePosition) {
		data, _ := json.Marshal(&fleet.Purged{PurgePosition: at})
		if err := liar.Publish(bus.Up("liar", bus.Purged), data); err != nil {
			t.Fatal(err)
		}
	}
	say(fleet.PurgePosition{Epoch: epoch, Number: 1 << 62})
	say(fleet.PurgePosition{Epoch: 1 << 62, Number: 5})
	until(t, "the lie is heard", func() bool {
		b.mu.Lock()
		defer b.mu.Unlock()
		return b.pops["liar"] != nil && b.pops["liar"].at.Epoch == 1<<62 && b.claims["liar"].at.Number == 1<<62
	})
	for i := range 3 {
		b.obeyed(t, b.must(t, tags(fmt.Sprint("e", i))), "liar")
		time.Sleep(look) // a look each; nothing is waited for
	}
	if got := b.Newest().Epoch; got != epoch {
		t.Errorf("epoch %d after %d", got, epoch)
	}
	if r, err := b.Receipt(t.Context(), b.Newest().Number); err != nil || r.state("liar") == Obeys {
		t.Errorf("%v %+v", err, r)
	}
}

func TestAPoPBeyondTheLogTakesEverythingForPurged(t *testing.T) {
	w := newWorld(t)
	a := w.plane("a", func(c *Config) { c.Limits.Entries, c.Limits.Age = 3, time.Hour })
	a.sites(t, [2]string{"acme", "shop"})
	p := w.pops(a, 1)[0]
	a.obeyed(t, a.must(t, tags("a", "b")))
	p.stop()
	a.must(t, tags("c", "d", "e", "f", "g"))
	tidy := func() {
		t.Helper()
		// Whoever leads does the same each minute.
		_, err := a.store.Update(t.Context(), store.Change{Author: "test"}, func(tx *store.Tx) error {
			_, err := trim(t.Context(), tx, tx.Now().Add(-time.Hour), 3)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	tidy()
	if log := a.log(t); len(log) != 3 || log[0].number != 5 {
		t.Fatalf("%d, the first is %d", len(log), log[0].number)
	}
	w.run(p)
	last, err := a.Receipt(t.Context(), 7)
	if err != nil {
		t.Fatal(err)
	}
	a.obeyed(t, last)
	if got := p.purged(); got[len(got)-1] != "*" {
		t.Errorf("%q", got)
	}
	if _, err := a.Receipt(t.Context(), 4); !errors.Is(err, store.ErrNotFound) {
		t.Error(err)
	}
	// By age all go, and numbers go on.
	w.setClock(func() time.Time { return time.Now().Add(2 * time.Hour) })
	tidy()
	if n := len(a.log(t)); n != 0 {
		t.Fatal(n)
	}
	r := a.obeyed(t, a.must(t, tags("h")))
	if got := p.since(); r.First != 8 || !slices.Equal(got, []string{"h"}) {
		t.Errorf("%d %q: who is where the log ends misses nothing", r.First, got)
	}
}

func TestAnswersFitMessages(t *testing.T) {
	w := newWorld(t)
	a := w.plane("a")
	a.sites(t, [2]string{"acme", "shop"})
	p := w.pops(a, 1)[0]
	p.stop()
	n := 0
	for range 5 {
		o := &Order{Author: "ann", Organization: "acme", Site: "shop"}
		for range 20 { // as JSON each has 6 bytes for one of these
			o.Entries = append(o.Entries, entry.Entry{Kind: entry.Group, Value: fmt.Sprint(n, strings.Repeat("<", 8<<10))})
			n++
		}
		a.must(t, o)
	}
	answer, err := a.after(t.Context(), fleet.PurgePosition{Epoch: a.Newest().Epoch})
	if data, _ := json.Marshal(answer); err != nil || len(data) > bus.MaxData || len(answer.Purges) < 10 || len(answer.Purges) == n {
		t.Fatalf("%v: %d bytes, %d purges", err, len(data), len(answer.Purges))
	}
	w.run(p)
	last, err := a.Receipt(t.Context(), uint64(n))
	if err != nil {
		t.Fatal(err)
	}
	a.obeyed(t, last)
	for i, v := range p.since() {
		if !strings.HasPrefix(v, fmt.Sprint(i, "<")) || i == n {
			t.Fatalf("entry %d is %.10s", i, v)
		}
	}
	if len(p.since()) != n {
		t.Error(len(p.since()))
	}
}

func TestRates(t *testing.T) {
	w := newWorld(t)
	now := time.Now().Truncate(time.Minute)
	w.setClock(func() time.Time { return now })
	a := w.plane("a", func(c *Config) { c.Limits.PerMinute = 5 })
	b := w.plane("b", func(c *Config) { c.Limits.PerMinute = 5 })
	a.sites(t, [2]string{"acme", "shop"}, [2]string{"other", "shop"})
	a.must(t, tags("a", "b", "c"))
	if _, err := b.Purge(t.Context(), tags("d", "e", "f")); !errors.Is(err, ErrOften) {
		t.Error(err)
	}
	b.must(t, tags("d", "e"))
	if _, err := a.Purge(t.Context(), tags("f")); !errors.Is(err, ErrOften) {
		t.Error(err)
	}
	o := tags("x")
	o.Organization = "other"
	a.must(t, o)
	w.setClock(func() time.Time { return now.Add(time.Minute) })
	if r := a.must(t, tags("f", "g", "h", "i", "j")); r.First != 7 {
		t.Errorf("what was refused had a number: %+v", r)
	}
}

func TestAReceiptTellsWhoDoesNotObey(t *testing.T) {
	w := newWorld(t)
	a := w.plane("a")
	a.sites(t, [2]string{"acme", "shop"})
	pops := w.pops(a, 3)
	pops[1].broken(errors.New("the disk is full"))
	r := a.must(t, tags("a"))
	ctx, cancel := context.WithCancel(t.Context())
	got, err := a.Wait(ctx, *r, func(r *Receipt) {
		if r.state("pop0") == Obeys && r.state("pop2") == Obeys {
			cancel()
		}
	})
	if !errors.Is(err, context.Canceled) || got.Done() || got.state("pop1") != Waiting {
		t.Fatalf("%v %+v", err, got)
	}
	pops[2].stop()
	until(t, "who is not heard of is away", func() bool {
		r, err := a.Receipt(t.Context(), r.Last)
		return err == nil && r.state("pop1") == Waiting && r.state("pop2") == Obeys && !a.alive("pop2")
	})
	next := a.must(t, tags("b"))
	if next.state("pop2") != Away || next.state("pop1") != Waiting {
		t.Errorf("%+v", next)
	}
	pops[1].broken(nil)
	a.obeyed(t, next, "pop2")
	if got, err := a.Wait(t.Context(), *next, nil); err != nil || got.state("pop2") != Away {
		t.Errorf("%v %+v: who is away is not waited for", err, got)
	}
	w.run(pops[2])
	until(t, "who comes back obeys", func() bool {
		r, err := a.Receipt(t.Context(), next.Last)
		return err == nil && r.state("pop2") == Obeys
	})
}

func (p *plane) alive(pop string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.pops[pop].alive(time.Now())
}

func TestOrdersThatAreRefused(t *testing.T) {
	w := newWorld(t)
	a := w.plane("a")
	a.sites(t, [2]string{"acme", "shop"}, [2]string{"other", "market"})
	for name, change := range map[string]func(*Order){
		"nobody":              func(o *Order) { o.Author = "" },
		"no organization":     func(o *Order) { o.Organization = "" },
		"slash":               func(o *Order) { o.Organization = "acme/shop" },
		"slash in the site":   func(o *Order) { o.Site = "shop/x" },
		"nothing":             func(o *Order) { o.Entries = nil },
		"too much":            func(o *Order) { o.Entries = slices.Repeat(o.Entries, MaxEntries+1) },
		"another's site":      func(o *Order) { o.Site = "market" },
		"no such site":        func(o *Order) { o.Site = "none" },
		"another project":     func(o *Order) { o.Project = "p" },
		"no site":             func(o *Order) { o.Site = "" },
		"entry of another":    func(o *Order) { o.Entries[0].Site = "other/market" },
		"entry not a tag":     func(o *Order) { o.Entries[0].Value = "a b" },
		"not in UTF-8":        func(o *Order) { o.Entries[0].Value = "a\xff" },
		"everything":          func(o *Order) { o.Entries[0] = entry.Entry{Kind: entry.All} },
		"other organization":  func(o *Order) { o.Entries[0] = entry.Entry{Kind: entry.Organization, Site: "other"} },
		"site with a value":   func(o *Order) { o.Entries[0].Kind = entry.Site },
		"unknown kind":        func(o *Order) { o.Entries[0].Kind = 99 },
		"prefix with a query": func(o *Order) { o.Entries[0] = entry.Entry{Kind: entry.Prefix, Value: "/a?b"} },
		"broken path":         func(o *Order) { o.Entries[0] = entry.Entry{Kind: entry.Path, Value: "/%zz"} },
		"no path":             func(o *Order) { o.Entries[0] = entry.Entry{Kind: entry.URL, Value: "a"} },
		"too many bytes": func(o *Order) {
			o.Entries = slices.Repeat([]entry.Entry{{Kind: entry.URL, Value: "/?" + strings.Repeat("v", 15<<10)}}, 100)
		},
	} {
		o := tags("x")
		change(o)
		if r, err := a.Purge(t.Context(), o); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v %+v", name, err, r)
		}
	}
	if n := len(a.log(t)); n != 0 || a.Newest().Number != 0 {
		t.Errorf("%d entries of what was refused", n)
	}
	a.must(t, &Order{Author: "op", Organization: "op", Operator: true, Entries: []entry.Entry{{Kind: entry.All}}})
	a.must(t, &Order{Author: "ann", Organization: "acme", Entries: []entry.Entry{{Kind: entry.Organization}}})
	a.must(t, &Order{Author: "ann", Organization: "acme", Site: "shop", Entries: []entry.Entry{
		{Kind: entry.URL, Host: "Shop.Example.", Value: "/a/../b%2dc?", Number: 7, Time: time.Now()}, {Kind: entry.Site, Soft: true},
	}})
	var got []string
	for _, x := range a.log(t) {
		got = append(got, string(x.entry))
	}
	want := []string{`{"kind":"all"}`, `{"kind":"organization","site":"acme"}`, `{"kind":"url","site":"acme/shop","host":"shop.example","value":"/b-c"}`, `{"kind":"site","site":"acme/shop","soft":true}`}
	if !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
}

func TestWhoeverGoesAwayTakesNothingFromOthers(t *testing.T) {
	w := newWorld(t)
	a := w.plane("a")
	a.sites(t, [2]string{"acme", "shop"})
	a.turn <- struct{}{} // somebody's commit takes long
	gone, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	errs := make([]error, 3)
	for i, ctx := range []context.Context{t.Context(), gone, t.Context()} {
		wg.Go(func() { _, errs[i] = a.Purge(ctx, tags(fmt.Sprint("t", i))) })
		until(t, "it is in line", func() bool {
			a.mu.Lock()
			defer a.mu.Unlock()
			return len(a.queue) == i+1
		})
	}
	cancel()
	until(t, "who went is not in line", func() bool {
		a.mu.Lock()
		defer a.mu.Unlock()
		return len(a.queue) == 2 && a.queued.entries == 2
	})
	<-a.turn
	wg.Wait()
	if errs[0] != nil || !errors.Is(errs[1], context.Canceled) || errs[2] != nil {
		t.Error(errs)
	}
	if n := len(a.log(t)); n != 2 {
		t.Error(n)
	}
}

func TestWithoutAConnectionAReceiptIsBlind(t *testing.T) {
	w := newWorld(t)
	a := w.plane("a")
	a.sites(t, [2]string{"acme", "shop"})
	p := w.pops(a, 1)[0]
	a.end.Cut()
	r := a.must(t, tags("a"))
	if !r.Blind || r.Done() {
		t.Errorf("%+v", r)
	}
	until(t, "all are away", func() bool { return !a.alive("pop0") })
	if r, err := a.Receipt(t.Context(), r.Last); err != nil || !r.Blind || r.Done() || r.state("pop0") != Away {
		t.Errorf("%v %+v: nobody knows", err, r)
	}
	a.end.Mend()
	until(t, "the PoP obeys", func() bool {
		r, err := a.Receipt(t.Context(), r.Last)
		return err == nil && r.Done() && r.state("pop0") == Obeys
	})
	if got := p.since(); !slices.Equal(got, []string{"a"}) {
		t.Errorf("%q", got)
	}
}

func TestAStoreThatDoesNotWriteLeavesNoNumberGiven(t *testing.T) {
	w := newWorld(t)
	a := w.plane("a")
	a.sites(t, [2]string{"acme", "shop"})
	a.must(t, tags("a"))
	at := a.Newest()
	a.stop() // closes its store
	if r, err := a.Purge(t.Context(), tags("b")); err == nil || r != nil {
		t.Fatalf("%+v", r)
	}
	b := w.plane("b")
	if b.Newest() != at || a.Newest() != at {
		t.Error(b.Newest(), a.Newest(), at)
	}
	if r := b.must(t, tags("c")); r.First != at.Number+1 {
		t.Errorf("%+v", r)
	}
}

func TestNoOrderReachesBeyondItsOrganization(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		name := rapid.SampledFrom([]string{"", "acme", "acme2", "other", "shop", "a/b", "acme/shop", "other/shop", "/"})
		o := &Order{Author: "ann", Organization: name.Draw(t, "organization"), Site: name.Draw(t, "site")}
		for range rapid.IntRange(0, 3).Draw(t, "n") {
			o.Entries = append(o.Entries, entry.Entry{
				Kind: entry.Kind(rapid.IntRange(0, 11).Draw(t, "kind")), Site: name.Draw(t, "of"), Host: rapid.SampledFrom([]string{"", "H.example"}).Draw(t, "host"),
				Value: rapid.OneOf(rapid.SampledFrom([]string{"", "/", "/a/../b", "tag", "/x?y"}), rapid.String()).Draw(t, "value"), Soft: rapid.Bool().Draw(t, "soft"),
			})
		}
		list, err := o.entries()
		if err != nil {
			return
		}
		if len(list) != len(o.Entries) {
			t.Fatal("an entry is lost")
		}
		for i, data := range list {
			var e entry.Entry
			if err := json.Unmarshal(data, &e); err != nil {
				t.Fatalf("%s: %v", data, err)
			}
			ok := e.Check() == nil && e.Kind == o.Entries[i].Kind && e.Soft == o.Entries[i].Soft
			switch e.Kind {
			case entry.All:
				ok = false
			case entry.Organization:
				ok = ok && e.Site == o.Organization
			default:
				ok = ok && e.Site == o.Organization+"/"+o.Site && !strings.Contains(o.Organization, "/")
			}
			if !ok {
				t.Fatalf("%+v becomes %s", o, data)
			}
		}
	})
}
