package http3

import (
	"context"
	"testing"

	"github.com/quic-go/quic-go"

	"github.com/relais-edge/relais/internal/http/message"
)

func (k *crew) waiting() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return len(k.idle)
}

// TestGoroutinesGoFromConnectionToConnection: those that served one connection's requests serve the
// next one's, and who is not needed ends.
func TestGoroutinesGoFromConnectionToConnection(t *testing.T) {
	gate := make(chan struct{})
	s, addr := own(t, ServerConfig{}, &handler{serve: func(_ context.Context, r *message.Request) *message.Response {
		r.Control.MayBlock()
		<-gate
		return text(200, "x")
	}})
	const most = 20
	hold := func(n int) {
		r := dialRaw(t, addr, settings)
		before := s.Stats().Requests
		var held []*quic.Stream
		for range n {
			str := r.open(headers(get()...))
			_ = str.Close()
			held = append(held, str)
		}
		until(t, "the requests did not come", func() bool { return s.Stats().Requests == before+uint64(n) })
		if n < most && s.crew.waiting() > most-n {
			t.Error("nobody who waited serves the second connection")
		}
		for range n {
			gate <- struct{}{}
		}
		for _, str := range held {
			if got := answer(str); got != "200 x" {
				t.Error(got)
			}
		}
		_ = r.qc.CloseWithError(codeNone, "")
	}
	hold(most)
	all := func() bool { return s.crew.waiting() == most+1 } // and who accepted
	until(t, "they do not wait", all)
	hold(most / 2)
	until(t, "they do not wait again", all)
	until(t, "who is not needed stays", func() bool { s.crew.trim(); return s.crew.waiting() == 0 })
}

func TestFewWait(t *testing.T) {
	k := &crew{}
	if k.wait(&hand{}) {
		t.Error("one waits though nobody would end it")
	}
	k.begin()
	hands := make([]*hand, maxIdle)
	for i := range hands {
		hands[i] = &hand{next: make(chan *serverConn, 1)}
		if !k.wait(hands[i]) {
			t.Fatal(i)
		}
	}
	if k.wait(&hand{}) {
		t.Error("more wait than there is room for")
	}
	k.end()
	for _, h := range hands {
		if c := <-h.next; c != nil {
			t.Fatal("ended with a connection")
		}
	}
	if k.wait(hands[0]) {
		t.Error("one waits after the end")
	}
}
