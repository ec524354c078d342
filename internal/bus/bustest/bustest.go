// Package bustest is the conformance suite of bus.Bus: what every way to carry messages has to do.
package bustest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/relais-edge/relais/internal/bus"
)

// patience is how long anything may take on a busy machine.
const patience = time.Minute

// Bed is a bus to try.
type Bed struct {
	// Join gives another end, which is closed when the test ends.
	Join func(t *testing.T, r bus.Rights) bus.Bus
	// Break takes the connections of all ends away; Mend lets them come again.
	Break, Mend func(t *testing.T)
}

// Run proves a bus. Each call of lay gives a new one.
func Run(t *testing.T, lay func(t *testing.T) Bed) {
	for _, c := range []struct {
		name string
		test func(*testing.T, Bed)
	}{
		{"messages come in order, to all who subscribed", order},
		{"wildcards match words", wildcards},
		{"one of a group gets each message", groups},
		{"a request is answered", requests},
		{"nobody answers at once", nobody},
		{"a request ends with its context", requestEnds},
		{"a message that is too large is refused", tooLarge},
		{"what is no subject is refused", subjects},
		{"nothing of a message is shared", notShared},
		{"a slow handle drops the oldest, and is counted", slow},
		{"a closed subscription hears nothing", closeSubscription},
		{"a handle closes its own subscription", closeWithin},
		{"a closed end is closed", closeEnd},
		{"subscriptions hold over a break, and nothing old comes", breaks},
		{"a request under way ends with its connection", breakRequest},
		{"an end may do what its rights say, and no more", denied},
		{"an answer goes to an inbox alone", inboxes},
		{"subscriptions are bounded", bounded},
		{"nothing stays running", leaks},
	} {
		t.Run(c.name, func(t *testing.T) { c.test(t, lay(t)) })
	}
}

// Until waits for what becomes true by itself.
func Until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for late := time.Now().Add(patience); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(late) {
			t.Fatalf("not within %s: %s", patience, what)
		}
	}
}

// Up waits until an end is connected.
func Up(t *testing.T, b bus.Bus) {
	t.Helper()
	up, _ := b.Connected()
	select {
	case <-up:
	case <-time.After(patience):
		t.Fatal("not connected")
	}
}

// probe is data that is published until it arrives: ends of a cluster learn of each other's subscriptions in their own time.
const probe = "probe"

// Ear collects what a subscription hears.
type Ear struct {
	bus.Subscription
	mu     sync.Mutex
	heard  []bus.Message
	probed int
}

// Listen subscribes.
func Listen(t *testing.T, b bus.Bus, subject, group string) *Ear {
	t.Helper()
	e := &Ear{}
	sub, err := b.Subscribe(subject, group, 10_000, func(m bus.Message) {
		e.mu.Lock()
		defer e.mu.Unlock()
		if string(m.Data) == probe {
			e.probed++
			return
		}
		e.heard = append(e.heard, m)
	})
	if err != nil {
		t.Fatal(err)
	}
	e.Subscription = sub
	return e
}

// Reach publishes probes until all of these ears heard one.
func Reach(t *testing.T, from bus.Bus, subject string, ears ...*Ear) {
	t.Helper()
	for _, e := range ears {
		e.mu.Lock()
		e.probed = 0
		e.mu.Unlock()
	}
	for _, e := range ears {
		Until(t, "a message on "+subject+" arrives", func() bool {
			_ = from.Publish(subject, []byte(probe)) // it may be away for a moment
			e.mu.Lock()
			defer e.mu.Unlock()
			return e.probed > 0
		})
	}
}

// Texts are the data that came.
func (e *Ear) Texts() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	var out []string
	for _, m := range e.heard {
		out = append(out, string(m.Data))
	}
	return out
}

// Await waits for so many messages, and gives them.
func (e *Ear) Await(t *testing.T, n int) []string {
	t.Helper()
	Until(t, fmt.Sprint(n, " messages arrive"), func() bool { return len(e.Texts()) >= n })
	return e.Texts()
}

func publish(t *testing.T, b bus.Bus, subject, data string) {
	t.Helper()
	if err := b.Publish(subject, []byte(data)); err != nil {
		t.Fatalf("publish to %s: %v", subject, err)
	}
}

func (bed Bed) control(t *testing.T) bus.Bus {
	t.Helper()
	b := bed.Join(t, bus.ControlRights())
	Up(t, b)
	return b
}

func (bed Bed) pop(t *testing.T, name string) bus.Bus {
	t.Helper()
	b := bed.Join(t, bus.PopRights(name))
	Up(t, b)
	return b
}

func order(t *testing.T, bed Bed) {
	a, b := bed.control(t), bed.pop(t, "paris")
	ears := []*Ear{Listen(t, a, "all.purge", ""), Listen(t, b, "all.purge", ""), Listen(t, b, "all.purge", "")}
	Reach(t, a, "all.purge", ears...)
	const n = 2000
	for i := range n {
		publish(t, a, "all.purge", fmt.Sprint(i))
	}
	for _, e := range ears {
		for i, got := range e.Await(t, n) {
			if got != fmt.Sprint(i) {
				t.Fatalf("%s at place %d", got, i)
			}
		}
	}
}

func wildcards(t *testing.T, bed Bed) {
	a, b := bed.control(t), bed.control(t)
	one, rest, plain, other := Listen(t, b, "up.*.beat", ""), Listen(t, b, "up.>", ""), Listen(t, b, "up.paris.beat", ""), Listen(t, b, "up.rome.beat", "")
	Reach(t, a, "up.paris.beat", one, rest, plain)
	Reach(t, a, "up.rome.beat", other)
	for _, s := range []string{"up.paris.beat", "up.rome.beat", "up.rome.beat.more", "up.rome.usage"} {
		publish(t, a, s, s)
	}
	last := "up.rome.usage"
	if got := rest.Await(t, 4); fmt.Sprint(got) != "[up.paris.beat up.rome.beat up.rome.beat.more "+last+"]" {
		t.Errorf("> heard %v", got)
	}
	for _, c := range []struct {
		ear  *Ear
		want string
	}{{one, "[up.paris.beat up.rome.beat]"}, {plain, "[up.paris.beat]"}, {other, "[up.rome.beat]"}} {
		Until(t, "heard "+c.want, func() bool { return fmt.Sprint(c.ear.Texts()) == c.want })
	}
	if rest.heard[0].Subject != "up.paris.beat" {
		t.Errorf("the subject is %s", rest.heard[0].Subject)
	}
}

func groups(t *testing.T, bed Bed) {
	a := bed.control(t)
	var members []*Ear
	for range 3 {
		members = append(members, Listen(t, bed.control(t), "up.*.usage", bus.Control))
	}
	alone, another := Listen(t, bed.control(t), "up.*.usage", ""), Listen(t, bed.control(t), "up.*.usage", "another")
	Reach(t, a, "up.paris.usage", append([]*Ear{alone, another}, members...)...)
	const n = 300
	for i := range n {
		publish(t, a, "up.paris.usage", fmt.Sprint(i))
	}
	alone.Await(t, n)
	another.Await(t, n)
	count := func() (sum int) {
		for _, m := range members {
			sum += len(m.Texts())
		}
		return sum
	}
	Until(t, "each message is at a member", func() bool { return count() >= n })
	seen := map[string]int{}
	for _, m := range members {
		if len(m.Texts()) == 0 {
			t.Error("a member got nothing")
		}
		for _, s := range m.Texts() {
			if seen[s]++; seen[s] > 1 {
				t.Errorf("%s came twice", s)
			}
		}
	}
}

func requests(t *testing.T, bed Bed) {
	a, b := bed.control(t), bed.pop(t, "paris")
	answer := func(m bus.Message) {
		if m.Respond == nil {
			return
		}
		if err := m.Respond(append([]byte("to "), m.Data...)); err != nil {
			t.Errorf("respond: %v", err)
		}
		_ = m.Respond([]byte("again")) // only the first counts
	}
	serve(t, a, "up.*.table", bus.Control, answer)
	serve(t, b, "down.paris.order", "", answer)
	for _, c := range []struct {
		from    bus.Bus
		subject string
	}{{b, "up.paris.table"}, {a, "down.paris.order"}} {
		if got := ask(t, c.from, c.subject, "first"); got != "to first" {
			t.Errorf("the answer is %q", got)
		}
		var all sync.WaitGroup
		for i := range 50 {
			all.Go(func() {
				got, err := c.from.Request(t.Context(), c.subject, fmt.Append(nil, i))
				if err != nil || string(got) != fmt.Sprint("to ", i) {
					t.Errorf("%d: %q, %v", i, got, err)
				}
			})
		}
		all.Wait()
	}
	publish(t, b, "up.paris.table", "no answer is waited for")
}

func serve(t *testing.T, b bus.Bus, subject, group string, handle func(bus.Message)) {
	t.Helper()
	if _, err := b.Subscribe(subject, group, 1000, handle); err != nil {
		t.Fatal(err)
	}
}

// ask asks until somebody is there to answer.
func ask(t *testing.T, b bus.Bus, subject, data string) (answer string) {
	t.Helper()
	Until(t, "somebody answers on "+subject, func() bool {
		ctx, end := context.WithTimeout(t.Context(), patience)
		defer end()
		got, err := b.Request(ctx, subject, []byte(data))
		if err != nil && !errors.Is(err, bus.ErrNobody) && !errors.Is(err, bus.ErrAway) {
			t.Fatal(err)
		}
		answer = string(got)
		return err == nil
	})
	return answer
}

func nobody(t *testing.T, bed Bed) {
	a := bed.control(t)
	ctx, end := context.WithTimeout(t.Context(), patience)
	defer end()
	if _, err := a.Request(ctx, "down.nowhere.order", nil); !errors.Is(err, bus.ErrNobody) {
		t.Errorf("%v", err)
	}
}

func requestEnds(t *testing.T, bed Bed) {
	a, b := bed.control(t), bed.pop(t, "x")
	asked := make(chan bus.Message, 1000)
	serve(t, a, "up.*.blob", "", func(m bus.Message) { asked <- m })
	ctx, end := context.WithCancel(t.Context())
	result := make(chan error, 1)
	go func() {
		for {
			_, err := b.Request(ctx, "up.x.blob", nil)
			if !errors.Is(err, bus.ErrNobody) {
				result <- err
				return
			}
		}
	}()
	m := <-asked
	end()
	if err := <-result; !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	if err := m.Respond([]byte("late")); err != nil {
		t.Errorf("a late answer: %v", err)
	}
	if _, err := b.Request(ctx, "up.x.blob", nil); !errors.Is(err, context.Canceled) {
		t.Errorf("with a context that ended: %v", err)
	}
}

func tooLarge(t *testing.T, bed Bed) {
	a := bed.control(t)
	ear := Listen(t, a, "all.purge", "")
	Reach(t, a, "all.purge", ear)
	if err := a.Publish("all.purge", make([]byte, bus.MaxData+1)); !errors.Is(err, bus.ErrTooLarge) {
		t.Errorf("publish: %v", err)
	}
	if _, err := a.Request(t.Context(), "all.purge", make([]byte, bus.MaxData+1)); !errors.Is(err, bus.ErrTooLarge) {
		t.Errorf("request: %v", err)
	}
	if err := a.Publish("all.purge", make([]byte, bus.MaxData)); err != nil {
		t.Errorf("the largest: %v", err)
	}
	if got := ear.Await(t, 1); len(got[0]) != bus.MaxData {
		t.Errorf("%d bytes arrived", len(got[0]))
	}
	tooMuch := make(chan error, 1)
	serve(t, a, "up.*.blob", "", func(m bus.Message) {
		tooMuch <- m.Respond(make([]byte, bus.MaxData+1))
		_ = m.Respond(nil)
	})
	ask(t, bed.pop(t, "x"), "up.x.blob", "")
	if err := <-tooMuch; !errors.Is(err, bus.ErrTooLarge) {
		t.Errorf("respond: %v", err)
	}
}

func subjects(t *testing.T, bed Bed) {
	a := bed.control(t)
	for _, s := range []string{"", ".", "a..b", "a.", ".a", "a b", "a.\n", "a.*", "a.>", ">", "a.b*", "é"} {
		if err := a.Publish(s, nil); !errors.Is(err, bus.ErrSubject) {
			t.Errorf("publish to %q: %v", s, err)
		}
	}
	for _, s := range []string{"", "a..b", "a.>.b", "a.b*", "a.b>", "a\tb"} {
		if _, err := a.Subscribe(s, "", 1, func(bus.Message) {}); !errors.Is(err, bus.ErrSubject) {
			t.Errorf("subscribe to %q: %v", s, err)
		}
	}
}

func notShared(t *testing.T, bed Bed) {
	a := bed.control(t)
	one, two := Listen(t, a, "all.keys", ""), Listen(t, a, "all.keys", "")
	Reach(t, a, "all.keys", one, two)
	data := []byte("key")
	if err := a.Publish("all.keys", data); err != nil {
		t.Fatal(err)
	}
	clear(data)
	one.Await(t, 1)
	clear(one.heard[0].Data)
	if got := two.Await(t, 1); got[0] != "key" {
		t.Errorf("%q", got[0])
	}
}

func slow(t *testing.T, bed Bed) {
	a, b := bed.control(t), bed.control(t)
	const depth, n = 5, 100
	hold, entered := make(chan struct{}), make(chan struct{}, 2*n)
	var mu sync.Mutex
	var got []string
	sub, err := b.Subscribe("all.purge", "", depth, func(m bus.Message) {
		if string(m.Data) == probe {
			entered <- struct{}{}
			<-hold
			return
		}
		mu.Lock()
		defer mu.Unlock()
		got = append(got, string(m.Data))
	})
	if err != nil {
		t.Fatal(err)
	}
	quick := Listen(t, b, "all.purge", "")
	Reach(t, a, "all.purge", quick)
	Until(t, "the slow one is busy", func() bool {
		_ = a.Publish("all.purge", []byte(probe))
		return len(entered) > 0
	})
	before := sub.Dropped()
	for i := range n {
		publish(t, a, "all.purge", fmt.Sprint(i))
	}
	quick.Await(t, n) // who is slow holds up nobody
	Until(t, "the oldest are dropped", func() bool { return sub.Dropped() >= before+n-depth })
	close(hold)
	Until(t, "the newest arrive", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(got) == depth
	})
	for i, s := range got {
		if s != fmt.Sprint(n-depth+i) {
			t.Errorf("got %v", got)
			break
		}
	}
}
