package storetest

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/relais-edge/relais/internal/control/store"
)

func testOutbox(t *testing.T, f Fixture) {
	s, ctx := open(t, f, store.Options{}), t.Context()
	put(t, s, site("before"), `{}`, store.Absent)
	if _, err := s.Messages(ctx, "pop", 0); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("a consumer that nobody knows: %v", err)
	}
	for range 2 {
		if err := s.Subscribe(ctx, "pop"); err != nil {
			t.Fatal(err)
		}
	}
	if list, err := s.Messages(ctx, "pop", 0); err != nil || len(list) != 0 {
		t.Errorf("a new consumer reads %+v, %v", list, err)
	}
	_, err := s.Update(ctx, by("ann"), func(tx *store.Tx) error {
		if err := tx.Emit(ctx, "purge", "acme", []byte(`{"host":"a"}`)); err != nil {
			return err
		}
		_, err := tx.Put(ctx, site("a"), []byte(`{}`), store.Absent)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	put(t, s, key("zeta", "", "Site", "a"), `{}`, store.Absent)
	for range 2 { // what is not acknowledged comes again
		list, err := s.Messages(ctx, "pop", 0)
		if err != nil || len(list) != 3 {
			t.Fatalf("%+v, %v", list, err)
		}
		for i, want := range []store.Message{
			{ID: 2, Position: 2, Topic: "purge", Organization: "acme"},
			{ID: 3, Position: 2, Topic: store.TopicRevision, Organization: "acme", Revision: 2},
			{ID: 4, Position: 3, Topic: store.TopicRevision, Organization: "zeta", Revision: 1},
		} {
			got := list[i]
			got.Time, got.Payload = time.Time{}, nil
			if fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("message %+v, not %+v", got, want)
			}
		}
		if string(list[0].Payload) != `{"host":"a"}` || list[1].Payload != nil {
			t.Errorf("payloads %s, %s", list[0].Payload, list[1].Payload)
		}
	}
	for _, id := range []int64{3, 2} { // never back
		if err := s.Acknowledge(ctx, "pop", id); err != nil {
			t.Fatal(err)
		}
	}
	if list, err := s.Messages(ctx, "pop", 0); err != nil || len(list) != 1 || list[0].ID != 4 {
		t.Errorf("after an acknowledgement: %+v, %v", list, err)
	}
	if err := s.Acknowledge(ctx, "pop", 99); !errors.Is(err, store.ErrInvalid) {
		t.Errorf("acknowledged what was never written: %v", err)
	}
	if n, err := s.Sweep(ctx); err != nil || n != 3 {
		t.Errorf("swept %d, %v", n, err)
	}
	if list, err := s.Messages(ctx, "pop", 0); err != nil || len(list) != 1 {
		t.Errorf("after the sweep: %+v, %v", list, err)
	}
	if err := s.Unsubscribe(ctx, "pop"); err != nil {
		t.Error(err)
	}
	if n, err := s.Sweep(ctx); err != nil || n != 1 {
		t.Errorf("without a consumer %d were swept, %v", n, err)
	}
	if c := put(t, s, site("b"), `{}`, store.Absent); c.Position != 4 {
		t.Errorf("the store's own books are in the log: %+v", c)
	}
}

// While writers commit through two ends, a consumer never sees a message before an earlier one.
func testOutboxUnderWrites(t *testing.T, f Fixture) {
	ends := []*store.Store{open(t, f, store.Options{}), open(t, f, store.Options{})}
	reader := open(t, f, store.Options{})
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := reader.Subscribe(ctx, "pop"); err != nil {
		t.Fatal(err)
	}
	const writers, each = 6, 10
	errs := make(chan error, writers)
	for w := range writers {
		go func() {
			var err error
			for i := range each {
				if err == nil {
					_, err = tryPut(ctx, ends[w%2], key(fmt.Sprint("org", w), "", "Site", fmt.Sprint(i)), `{}`, store.Absent)
				}
			}
			errs <- err
		}()
	}
	last := int64(0)
	next := map[string]int64{}
	for last < writers*each {
		if err := reader.Wait(ctx, "pop"); err != nil {
			t.Fatal(err)
		}
		list, err := reader.Messages(ctx, "pop", 7)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range list {
			if m.ID != last+1 || m.Position != m.ID || m.Revision != next[m.Organization]+1 {
				t.Fatalf("after message %d comes %+v", last, m)
			}
			last, next[m.Organization] = m.ID, m.Revision
		}
		if len(list) > 0 {
			if err := reader.Acknowledge(ctx, "pop", last); err != nil {
				t.Fatal(err)
			}
		}
	}
	for range writers {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
}

func testLost(t *testing.T, f Fixture) {
	s, ctx := open(t, f, store.Options{Limits: store.Limits{Messages: 2}}), t.Context()
	for _, c := range []string{"quick", "slow"} {
		if err := s.Subscribe(ctx, c); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 5 {
		put(t, s, site(fmt.Sprint(i)), `{}`, store.Absent)
	}
	if err := s.Acknowledge(ctx, "quick", 5); err != nil {
		t.Fatal(err)
	}
	if n, err := s.Sweep(ctx); err != nil || n != 3 {
		t.Errorf("swept %d, %v", n, err)
	}
	_, err := s.Messages(ctx, "slow", 0)
	var lost *store.LostError
	if !errors.As(err, &lost) || lost.Have != 0 || lost.Oldest != 4 || lost.Consumer != "slow" {
		t.Errorf("a slow consumer is told %v", err)
	}
	if list, err := s.Messages(ctx, "quick", 0); err != nil || len(list) != 0 {
		t.Errorf("a quick one reads %+v, %v", list, err)
	}
	if id, err := s.Skip(ctx, "slow"); err != nil || id != 5 {
		t.Errorf("skipped to %d, %v", id, err)
	}
	put(t, s, site("new"), `{}`, store.Absent)
	if list, err := s.Messages(ctx, "slow", 0); err != nil || len(list) != 1 || list[0].ID != 6 {
		t.Errorf("after a skip: %+v, %v", list, err)
	}
}

func testWait(t *testing.T, f Fixture) {
	s, other := open(t, f, store.Options{}), open(t, f, store.Options{})
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := s.Wait(ctx, "nobody"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("a consumer that nobody knows waits: %v", err)
	}
	if err := s.Subscribe(ctx, "pop"); err != nil {
		t.Fatal(err)
	}
	for i, writer := range []*store.Store{s, other, s} {
		came := make(chan error, 1)
		go func() { came <- s.Wait(ctx, "pop") }()
		select {
		case err := <-came:
			t.Fatalf("came back with nothing to read: %v", err)
		default:
		}
		put(t, writer, site(fmt.Sprint(i)), `{}`, store.Absent)
		if err := <-came; err != nil {
			t.Fatal(err)
		}
		if err := s.Acknowledge(ctx, "pop", int64(i+1)); err != nil {
			t.Fatal(err)
		}
	}
	gone := errors.New("gone")
	short, end := context.WithCancelCause(ctx)
	end(gone)
	if err := s.Wait(short, "pop"); !errors.Is(err, gone) && !errors.Is(err, context.Canceled) {
		t.Errorf("a wait that was ended says %v", err)
	}
}
