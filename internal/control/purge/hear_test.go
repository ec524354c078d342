package purge

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/relais-edge/relais/internal/bus"
	"github.com/relais-edge/relais/internal/fleet"
	"github.com/relais-edge/relais/internal/observe"
)

func TestEchoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var got []string
		begin := time.Now()
		e := newEcho(func(data []byte) {
			mu.Lock()
			defer mu.Unlock()
			got = append(got, fmt.Sprint(time.Since(begin).Milliseconds(), " ", string(data)))
		})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			e.run(ctx)
			close(done)
		}()
		want := func(what string, list ...string) {
			t.Helper()
			time.Sleep(time.Second)
			synctest.Wait()
			mu.Lock()
			defer mu.Unlock()
			if !slices.Equal(got, list) {
				t.Errorf("%s: %q", what, got)
			}
			got, begin = nil, time.Now()
		}
		e.sent([]byte("a"), 5)
		want("the last one twice", "10 a", "30 a")
		for i := range 100 {
			e.sent(fmt.Append(nil, i), 5)
			time.Sleep(4 * time.Millisecond)
		}
		mu.Lock()
		n := len(got)
		mu.Unlock()
		if n != 0 {
			t.Errorf("%d beside many", n)
		}
		time.Sleep(100 * time.Millisecond)
		synctest.Wait()
		mu.Lock()
		if len(got) != 2 || !strings.HasSuffix(got[0], " 99") || !strings.HasSuffix(got[1], " 99") {
			t.Errorf("after many: %q", got)
		}
		got, begin = nil, time.Now()
		mu.Unlock()
		e.sent([]byte(strings.Repeat("x", maxEcho+1)), 5)
		want("a marker for a large one", `10 {"epoch":5,"number":0,"entry":null}`, `30 {"epoch":5,"number":0,"entry":null}`)
		cancel()
		<-done
	})
}

// deaf is a Service without a store, to be told things.
func deaf() *Service {
	s := New(Config{Metrics: observe.New(), Bus: (&bus.Memory{}).Join()})
	s.newest = fleet.PurgePosition{Epoch: 7, Number: 10}
	return s
}

func beat(pop string, at fleet.PurgePosition) bus.Message {
	data, _ := json.Marshal(&fleet.Beat{Purged: at, Version: "x"})
	return bus.Message{Subject: bus.Up(pop, bus.Beat), Data: data}
}

func TestHearing(t *testing.T) {
	at := func(epoch, number uint64) fleet.PurgePosition {
		return fleet.PurgePosition{Epoch: epoch, Number: number}
	}
	s := deaf()
	ackd := func(pop string, p fleet.PurgePosition) {
		data, _ := json.Marshal(&fleet.Purged{PurgePosition: p})
		s.hearPurged(bus.Message{Subject: bus.Up(pop, bus.Purged), Data: data})
	}
	check := func(what string, number uint64, want State) {
		t.Helper()
		r := &Receipt{First: number, Last: number}
		s.fill(r)
		if got := r.state("p"); got != want {
			t.Errorf("%s: %s, want %s", what, got, want)
		}
	}
	s.hearBeat(beat("p", at(0, 0)))
	check("it has nothing yet", 1, Waiting)
	ackd("p", at(7, 9))
	check("up to 9", 9, Obeys)
	check("not 10", 10, Waiting)
	ackd("p", at(7, 10))
	s.hearBeat(beat("p", at(7, 9)))
	check("a heartbeat that is older than an acknowledgement", 10, Obeys)
	s.hearBeat(beat("p", at(7, 9)))
	check("a PoP that went back says so twice", 10, Waiting)
	ackd("p", at(7, 10))
	ackd("p", at(7, 9))
	ackd("p", at(7, 9))
	check("an acknowledgement goes back by no repetition", 10, Obeys)
	ackd("p", at(7, 12))
	check("more than is known here", 12, Waiting)
	if s.Newest() != at(7, 10) {
		t.Error("a PoP gives numbers")
	}
	data, _ := json.Marshal(&fleet.Purge{PurgePosition: at(7, 12), Entry: []byte("{}")})
	s.hearPurge(bus.Message{Data: data})
	check("until it is known", 12, Obeys)
	s.hearPurge(bus.Message{Data: []byte(`{"epoch":9,"number":0,"entry":null}`)})
	if s.Newest() != at(7, 12) {
		t.Error("a marker is a purge")
	}
	ackd("p", at(6, 12))
	check("an epoch that is over", 1, Waiting)
	s.mu.Lock()
	s.advance(at(8, 12))
	s.mu.Unlock()
	ackd("p", at(8, 12))
	check("who is in the newest epoch purged all before it", 3, Obeys)
	for _, m := range []bus.Message{{Subject: "up.p.beat", Data: []byte("x")}, {Subject: "up.p.purged", Data: []byte("{")}, {Subject: "up"}, {}} {
		s.hearBeat(m)
		s.hearPurged(m)
		s.hearPurge(m)
		s.answer(t.Context(), m)
	}
	check("nothing that is not well formed", 12, Obeys)
	if len(s.pops) != 1 {
		t.Error(len(s.pops))
	}
}

func TestBoundsOfMemory(t *testing.T) {
	s := deaf()
	for i := range MaxPops + 100 {
		s.hearBeat(beat(fmt.Sprint("p", i), fleet.PurgePosition{Epoch: 7, Number: uint64(i)}))
	}
	if len(s.pops) != MaxPops || len(s.claims) > MaxPops {
		t.Error(len(s.pops), len(s.claims))
	}
	s.newest.Number = 1 << 20
	for i := range 3 * maxMarks {
		s.hear("p1", fleet.PurgePosition{Epoch: 7, Number: uint64(5000 + i)}, false)
	}
	p := s.pops["p1"]
	if len(p.marks) > maxMarks || p.since(5000) != nil || p.since(uint64(5000+3*maxMarks-1)) == nil {
		t.Error(len(p.marks), p.marks[0])
	}
	if len(p.marks) == 0 || p.since(p.after) != nil || p.since(p.after+1) == nil {
		t.Error(p.after)
	}
	s = deaf()
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for range MaxWaiters {
		wg.Go(func() { _, _ = s.Wait(ctx, Receipt{Last: 1 << 30}, nil) })
	}
	until(t, "all wait", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.waiters == MaxWaiters
	})
	if _, err := s.Wait(ctx, Receipt{Last: 1 << 30}, nil); !errors.Is(err, ErrBusy) {
		t.Error(err)
	}
	cancel()
	wg.Wait()
	s.turn <- struct{}{}
	s.queued = weight{maxWaiting, 0}
	if _, err := s.Purge(t.Context(), tags("x")); !errors.Is(err, ErrBusy) {
		t.Error(err)
	}
	s.queued = weight{0, maxWaitingBytes}
	if _, err := s.Purge(t.Context(), tags("x")); !errors.Is(err, ErrBusy) {
		t.Error(err)
	}
}
