package bustest

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/relais-edge/relais/internal/bus"
)

func closeSubscription(t *testing.T, bed Bed) {
	a, b := bed.control(t), bed.control(t)
	ear, other := Listen(t, b, "all.purge", ""), Listen(t, b, "all.purge", "")
	Reach(t, a, "all.purge", ear, other)
	publish(t, a, "all.purge", "before")
	ear.Await(t, 1)
	for range 2 {
		if err := ear.Close(); err != nil {
			t.Fatal(err)
		}
	}
	publish(t, a, "all.purge", "after")
	other.Await(t, 2)
	if got := ear.Texts(); len(got) != 1 {
		t.Errorf("heard %v", got)
	}
}

func closeWithin(t *testing.T, bed Bed) {
	a := bed.control(t)
	var calls atomic.Int64
	var once sync.Once
	given := make(chan bus.Subscription, 1)
	done := make(chan struct{})
	sub, err := a.Subscribe("all.purge", "", 10, func(bus.Message) {
		calls.Add(1)
		once.Do(func() {
			ear := <-given
			go func() {
				defer close(done)
				if err := ear.Close(); err != nil {
					t.Error(err)
				}
			}()
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	other := Listen(t, a, "all.purge", "")
	Reach(t, a, "all.purge", other)
	given <- sub
	<-done
	before := calls.Load()
	publish(t, a, "all.purge", "after")
	other.Await(t, 1)
	if n := calls.Load(); n != before {
		t.Errorf("%d calls after its end", n-before)
	}
}

func closeEnd(t *testing.T, bed Bed) {
	a, b := bed.control(t), bed.control(t)
	running, release := make(chan struct{}, 1), make(chan struct{})
	var mu sync.Mutex
	over := false
	sub, err := b.Subscribe("all.purge", "", 10, func(bus.Message) {
		select {
		case running <- struct{}{}:
		default:
		}
		<-release
		mu.Lock()
		defer mu.Unlock()
		if over {
			t.Error("a handle runs after Close returned")
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	Until(t, "the handle runs", func() bool {
		_ = a.Publish("all.purge", nil)
		return len(running) > 0
	})
	_, down := b.Connected()
	closed := make(chan error)
	go func() {
		err := b.Close()
		mu.Lock()
		over = true
		mu.Unlock()
		closed <- err
	}()
	<-down
	close(release)
	if err := <-closed; err != nil {
		t.Error(err)
	}
	if err := b.Close(); err != nil {
		t.Errorf("again: %v", err)
	}
	if err := sub.Close(); err != nil {
		t.Errorf("its subscription: %v", err)
	}
	_, subscribe := b.Subscribe("all.purge", "", 1, func(bus.Message) {})
	_, request := b.Request(t.Context(), "all.purge", nil)
	for _, err := range []error{b.Publish("all.purge", nil), subscribe, request} {
		if !errors.Is(err, bus.ErrClosed) {
			t.Errorf("%v", err)
		}
	}
	up, down := b.Connected()
	<-down
	select {
	case <-up:
		t.Error("a closed end says that it is connected")
	default:
	}
	publish(t, a, "all.purge", "the others go on")
}

func breaks(t *testing.T, bed Bed) {
	a, b := bed.control(t), bed.pop(t, "paris")
	ear := Listen(t, b, "all.purge", "")
	gone := Listen(t, b, "all.keys", "")
	Reach(t, a, "all.purge", ear)
	for round := range 3 {
		_, downA := a.Connected()
		_, downB := b.Connected()
		bed.Break(t)
		<-downA
		<-downB
		if err := a.Publish("all.purge", []byte("old")); !errors.Is(err, bus.ErrAway) {
			t.Errorf("publish without a connection: %v", err)
		}
		if _, err := b.Request(t.Context(), "up.paris.beat", nil); !errors.Is(err, bus.ErrAway) {
			t.Errorf("request without a connection: %v", err)
		}
		if round == 0 {
			if err := gone.Close(); err != nil {
				t.Error(err)
			}
		}
		during := Listen(t, b, "down.paris.head", "")
		bed.Mend(t)
		Up(t, a)
		Up(t, b)
		Reach(t, a, "all.purge", ear)
		Reach(t, a, "down.paris.head", during)
		publish(t, a, "all.keys", "nobody subscribes")
		publish(t, a, "all.purge", fmt.Sprint("new ", round))
		ear.Await(t, round+1)
		if err := during.Close(); err != nil {
			t.Error(err)
		}
	}
	if got := fmt.Sprint(ear.Texts()); got != "[new 0 new 1 new 2]" {
		t.Errorf("heard %s", got)
	}
	if got := gone.Texts(); len(got) > 0 {
		t.Errorf("a subscription that was closed while away heard %v", got)
	}
}

func breakRequest(t *testing.T, bed Bed) {
	a, b := bed.control(t), bed.pop(t, "paris")
	asked := make(chan struct{}, 1000)
	serve(t, a, "up.*.blob", "", func(bus.Message) { asked <- struct{}{} })
	result := make(chan error, 1)
	go func() {
		for {
			_, err := b.Request(t.Context(), "up.paris.blob", nil)
			if !errors.Is(err, bus.ErrNobody) {
				result <- err
				return
			}
		}
	}()
	<-asked
	bed.Break(t)
	if err := <-result; !errors.Is(err, bus.ErrAway) {
		t.Errorf("%v", err)
	}
	bed.Mend(t)
}

func denied(t *testing.T, bed Bed) {
	p := bed.pop(t, "paris")
	for _, s := range []string{"up.rome.beat", "down.paris.head", "all.purge", "peer.rome.limits", "up.paris", "_INBOX.pop.rome.x", "$SYS.x"} {
		if err := p.Publish(s, nil); !errors.Is(err, bus.ErrDenied) {
			t.Errorf("publish to %s: %v", s, err)
		}
		if _, err := p.Request(t.Context(), s, nil); !errors.Is(err, bus.ErrDenied) {
			t.Errorf("request on %s: %v", s, err)
		}
	}
	for _, s := range []string{"up.paris.beat", "up.>", "down.rome.head", "down.*.head", "down.>", ">", "*.purge", "_INBOX.>", "*.>"} {
		if _, err := p.Subscribe(s, "", 1, func(bus.Message) {}); !errors.Is(err, bus.ErrDenied) {
			t.Errorf("subscribe to %s: %v", s, err)
		}
	}
	for _, s := range []string{"up.paris.beat", "peer.paris.limits"} {
		if err := p.Publish(s, nil); err != nil {
			t.Errorf("publish to %s: %v", s, err)
		}
	}
	for _, s := range []string{"down.paris.>", "down.paris.head", "all.>", "all.purge", "peer.*.limits", "peer.>"} {
		if _, err := p.Subscribe(s, "", 1, func(bus.Message) {}); err != nil {
			t.Errorf("subscribe to %s: %v", s, err)
		}
	}
}

func inboxes(t *testing.T, bed Bed) {
	a, asked := bed.control(t), make(chan bool, 1000)
	serve(t, a, "up.*.blob", "", func(m bus.Message) { asked <- m.Respond != nil })
	ctx, end := context.WithCancel(t.Context())
	over := make(chan struct{})
	go func() { // nobody but the PoP itself is answered there, so it waits
		defer close(over)
		_, _ = a.Request(ctx, "up.paris.blob", nil)
	}()
	if <-asked {
		t.Error("an answer that a PoP asks for would go to another")
	}
	end()
	<-over
	for _, c := range []struct {
		subject, inbox string
		want           bool
	}{
		{"up.paris.beat", "_INBOX.pop.paris.x.1", true},
		{"up.paris.beat", "_INBOX.pop.rome.x.1", false},
		{"up.paris.beat", "_INBOX.pop.paris", false},
		{"up.paris.beat", "down.rome.head", false},
		{"up.paris.beat", "all.purge", false},
		{"peer.paris.limits", "up.rome.usage", false},
		{"down.paris.order", "_INBOX.control.x.1", true},
		{"down.paris.order", "all.purge", false},
	} {
		if got := bus.MayAnswer(c.subject, c.inbox); got != c.want {
			t.Errorf("%s asks for an answer on %s: %v", c.subject, c.inbox, got)
		}
	}
}

func bounded(t *testing.T, bed Bed) {
	a := bed.control(t)
	var last bus.Subscription
	for i := range bus.MaxSubscriptions {
		s, err := a.Subscribe(fmt.Sprint("all.x", i), "", 1, func(bus.Message) {})
		if err != nil {
			t.Fatal(err)
		}
		last = s
	}
	if _, err := a.Subscribe("all.more", "", 1, func(bus.Message) {}); err == nil {
		t.Error("there is no bound")
	}
	if err := last.Close(); err != nil {
		t.Error(err)
	}
	ear := Listen(t, a, "all.more", "")
	Reach(t, a, "all.more", ear)
}

func leaks(t *testing.T, bed Bed) {
	bed.control(t)
	before := runtime.NumGoroutine()
	for range 5 {
		b := bed.control(t)
		ear := Listen(t, b, "all.purge", "")
		Reach(t, b, "all.purge", ear)
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	}
	Until(t, "goroutines end", func() bool { return runtime.NumGoroutine() <= before })
}
