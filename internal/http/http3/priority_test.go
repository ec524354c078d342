package http3

import (
	"slices"
	"testing"

	"github.com/quic-go/quic-go"
)

// TestRFC9218Section72UpdatesBeforeTheirRequests shows that an update waits for its request, is
// used up by it, and that those that wait are bounded.
func TestRFC9218Section72UpdatesBeforeTheirRequests(t *testing.T) {
	s, addr := own(t, ServerConfig{}, &handler{serve: say})
	r := dialRaw(t, addr, settings)
	send := func(id uint64, p string) {
		_, _ = r.control.Write([]byte(frame(framePriorityRequest, string(appendVarint(nil, id))+p)))
	}
	waiting := func() (list []update) {
		s.watch.Each(func(c *serverConn) {
			c.mu.Lock()
			defer c.mu.Unlock()
			list = slices.Clone(c.pending)
		})
		return list
	}
	send(0, "u=5")
	send(0, "u=1, i")
	until(t, "the update was not taken", func() bool {
		w := waiting()
		return len(w) == 1 && w[0] == update{0, priority{1, true}}
	})
	if got := r.ask(headers(get("priority", "u=7")...)); got != "200 GET a / Priority=u=7 length=0" {
		t.Fatal(got)
	}
	if w := waiting(); len(w) != 0 {
		t.Errorf("the request has not used its update up: %v", w)
	}
	send(0, "u=2") // of a request that has ended
	for i := range uint64(maxPending + 8) {
		send(400+4*i, "u=2")
	}
	until(t, "the last update was not taken", func() bool {
		w := waiting()
		return len(w) > 0 && w[len(w)-1].id == quic.StreamID(400+4*(maxPending+7))
	})
	if w := waiting(); len(w) != maxPending || w[0].id != 400+4*8 {
		t.Errorf("%d updates wait, from %d on", len(w), w[0].id)
	}
}
