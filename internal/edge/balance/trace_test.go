package balance

import (
	"flag"
	"fmt"
	"testing"
)

var traceScene = flag.String("watched", "", "print a scene tick by tick")

func TestTrace(t *testing.T) {
	if *traceScene == "" {
		t.Skip("no scene named")
	}
	for _, s := range scenes(*allScenes) {
		if s.name != *traceScene {
			continue
		}
		w := newWorld(s)
		n := 0
		w.trace = func(w *world) {
			if n++; n%4 != 0 || w.now-second < s.from-200*ms {
				return
			}
			line := fmt.Sprintf("%6.2f busy %3d/%3d q %4d |", float64(w.now-second)/1e9, w.nBusy[0], w.nLive[0], w.queued(0))
			for _, e := range w.edges {
				h := e.plan[0].state
				l := &h.limiter
				line += fmt.Sprintf(" [%3d of %4.0f s%3d base %4.1f h %.2f w%4.1f l%d r%d]", h.inFlight.Load(), l.size, h.marks.Load().soft%10000, l.base/1e6, l.hunger, l.wait/1e6, e.laggardCount(), h.ramp.Load()>>rampTimeBits)
			}
			fmt.Println(line)
		}
		w.run()
	}
}

func (e *simEdge) laggardCount() (n int) {
	for _, o := range e.byAddr {
		if o.slow.Load() {
			n++
		}
	}
	return n
}

func (w *world) queued(tier int) (n int) {
	for i := range w.servers {
		if s := &w.servers[i]; s.tier == tier {
			n += len(s.queue) - s.head
		}
	}
	return n
}
