package virtual

import (
	"math/rand/v2"
	"slices"
	"testing"
)

func TestEventsComeInOrderOfTime(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	var q Events
	var want, got []int64
	for range 5000 {
		if len(q) > 0 && r.IntN(3) == 0 {
			e := q.Pop()
			for _, o := range q {
				if o.At < e.At {
					t.Fatalf("%d came before %d", e.At, o.At)
				}
			}
			got = append(got, e.At)
			continue
		}
		at := r.Int64N(1000)
		want = append(want, at)
		q.Push(Event{At: at})
	}
	for len(q) > 0 {
		got = append(got, q.Pop().At)
	}
	slices.Sort(want)
	slices.Sort(got)
	if !slices.Equal(want, got) {
		t.Error("events were lost or made up")
	}
}

func TestALineIsServedInOrder(t *testing.T) {
	var l Line
	if !l.Enter(1, 2) || !l.Enter(2, 2) || l.Enter(3, 2) || l.Enter(4, 2) || l.Len() != 4 || l.Busy != 2 {
		t.Fatalf("two slots: %+v", l)
	}
	for _, want := range []int32{3, 4} {
		if id, ok := l.Leave(); !ok || id != want {
			t.Errorf("next is %d, %v; want %d", id, ok, want)
		}
	}
	if _, ok := l.Leave(); ok || l.Busy != 1 || l.Len() != 1 {
		t.Errorf("nobody waits: %+v", l)
	}
	for i := range int32(5000) { // the queue's memory is used again
		l.Enter(i, 1)
	}
	for i := range int32(5000) {
		if id, ok := l.Leave(); !ok || id != i {
			t.Fatalf("request %d: %d, %v", i, id, ok)
		}
	}
	if l.Enter(7, 1); l.Len() != 2 {
		t.Errorf("%d there", l.Len())
	}
	if l.Clear(); l.Len() != 0 || !l.Enter(8, 1) {
		t.Errorf("after a crash: %+v", l)
	}
}
