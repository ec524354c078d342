package main

import (
	"context"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/relais-edge/relais/test/proc"
)

const (
	// idleConns are held open while memory is read.
	idleConns = 10_000
	// idleRest is how long they have been silent then.
	idleRest = 3 * time.Second
)

// visitIdle measures what an idle connection costs: a server that was started anew is asked once
// on each connection, and its memory before is taken from its memory after.
func (b *bench) visitIdle(ctx context.Context, c benchCase, r row) (sample, error) {
	b.running[r.server].stop()
	v, err := servers(b.site)[r.server].start(ctx, b.site, b.sink)
	b.running[r.server] = v
	if err != nil {
		return sample{}, err
	}
	o, err := newOpener(b.site, c.address(r, b.site.ports[r.port]))
	if err != nil {
		return sample{}, err
	}
	for range 20 { // what is made at first use is not the connections'
		if _, _, err := o.open(ctx, false); err != nil {
			return sample{}, err
		}
	}
	time.Sleep(idleRest)
	if err := v.access.Empty(); err != nil {
		return sample{}, err
	}
	before := proc.Memory(v.pids()...)
	s := sample{Requests: idleConns}
	held := hold(ctx, o, &s)
	defer func() {
		for _, nc := range held {
			_ = nc.Close()
		}
	}()
	time.Sleep(idleRest)
	after := proc.Memory(v.pids()...)
	s.MemoryMiB = float64(after) / (1 << 20)
	s.ConnKiB = float64(after-before) / idleConns / (1 << 10)
	s.LogBytes = float64(v.access.Written()) / idleConns
	return s, v.dead()
}

// hold opens the connections and asks once on each.
func hold(ctx context.Context, o *opener, s *sample) []net.Conn {
	var mu sync.Mutex
	var held []net.Conn
	var wg sync.WaitGroup
	const openers = 16
	for i := range openers {
		wg.Go(func() {
			for range (idleConns + openers - 1 - i) / openers {
				nc, status, err := o.open(ctx, true)
				mu.Lock()
				switch {
				case err != nil:
					s.SocketErrors++
				case status >= 400:
					s.BadStatus++
				default:
					held = append(held, nc)
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return held
}

// idleTable shows the memory of idle connections.
func (c *caseResult) idleTable(name string) string {
	t := fmt.Sprintf("\n## %s\n%s. %s, %d rounds.\n\n| server | KiB a connection | memory MiB | errors |\n|---|---|---|---|\n", name, c.About, c.When, c.Rounds)
	for _, r := range c.Rows {
		if r.Void != "" {
			t += fmt.Sprintf("| %s | void: %s | | |\n", r.Name, r.Void)
			continue
		}
		t += fmt.Sprintf("| %s | %.1f | %.0f | %d |\n", r.Name, r.Median.ConnKiB, r.Median.MemoryMiB, r.Median.BadStatus+r.Median.SocketErrors)
	}
	return t
}
