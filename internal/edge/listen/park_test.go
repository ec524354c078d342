//go:build linux

package listen

import (
	"bufio"
	"context"
	"io"
	"net"
	"runtime"
	"testing"
	"time"

	v1 "github.com/relais-edge/relais/api/v1"
)

// idlers are connections that have asked once and are parked.
func idlers(t *testing.T, r *rig, n int) ([]net.Conn, []*bufio.Reader) {
	t.Helper()
	conns, readers := make([]net.Conn, n), make([]*bufio.Reader, n)
	for i := range n {
		conns[i] = r.dial(r.addr("a"))
		t.Cleanup(func() { _ = conns[i].Close() })
		readers[i] = bufio.NewReaderSize(conns[i], 512)
		if got := ask(t, conns[i], readers[i]); got != "200 OK" {
			t.Fatal(got)
		}
	}
	own := r.m.Listener("demo/a").own
	wait(t, func() bool { return own.Stats().Parked >= uint64(n) })
	return conns, readers
}

func TestAnIdleConnectionNeedsNoGoroutineAndKeepsItsPlace(t *testing.T) {
	const n = 100
	r := newRig(t)
	r.apply(listener("a", func(s *v1.ListenerSpec) { s.Limits.ConnectionsPerAddress = 2 * n }))
	before := runtime.NumGoroutine()
	conns, readers := idlers(t, r, n)
	wait(t, func() bool { return runtime.NumGoroutine() < before+10 })
	open := func() string { return r.metric(`relais_listener_connections{listener="demo/a"}`) }
	if got := open(); got != "100" {
		t.Errorf("%s connections are counted open", got)
	}
	r.apply(listener("a", func(s *v1.ListenerSpec) { s.Limits.ConnectionsPerAddress = 3 * n })) // other settings
	for i, nc := range conns {
		if got := ask(t, nc, readers[i]); got != "200 OK" {
			t.Fatalf("connection %d after it was idle: %s", i, got)
		}
		_ = nc.Close()
	}
	wait(t, func() bool { return open() == "0" })
	st := r.m.Listener("demo/a").state
	wait(t, func() bool {
		st.mu.Lock()
		defer st.mu.Unlock()
		return st.open.Load() == 0 && len(st.from) == 0
	})
}

func TestParkedConnectionsEndWithTheDrainAndTheProcess(t *testing.T) {
	for name, end := range map[string]func(*rig) error{
		"drain": func(r *rig) error { return r.m.Drain(context.Background()) },
		"stop":  func(r *rig) error { r.stop(); <-r.done; return nil },
	} {
		r := newRig(t)
		r.apply(listener("a"))
		conns, readers := idlers(t, r, 300)
		ended := make(chan error, 1)
		go func() { ended <- end(r) }()
		for i := range conns {
			_ = conns[i].SetDeadline(time.Now().Add(10 * time.Second))
			if _, err := readers[i].ReadByte(); err != io.EOF && !isReset(err) {
				t.Fatalf("%s: connection %d: %v", name, i, err)
			}
		}
		if err := <-ended; err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// When another process has the sockets, an idle connection may still send its next request.
func TestAParkedConnectionIsAnsweredOnceMoreAfterAHandover(t *testing.T) {
	r := newRig(t)
	r.apply(listener("a", func(s *v1.ListenerSpec) { s.Timeouts.Drain = new(v1.Duration(8 * time.Second)) }))
	conns, readers := idlers(t, r, 2)
	r.m.mu.Lock()
	r.m.handed = true
	r.m.mu.Unlock()
	drained := make(chan error, 1)
	go func() { drained <- r.m.Drain(context.Background()) }()
	wait(t, func() bool { // nobody is accepted any more
		nc, err := net.Dial("tcp", conns[0].RemoteAddr().String())
		if err == nil {
			_ = nc.Close()
		}
		return err != nil
	})
	if got := ask(t, conns[0], readers[0]); got != "200 OK" {
		t.Error(got)
	}
	for i := range conns {
		_ = conns[i].SetDeadline(time.Now().Add(10 * time.Second))
		if _, err := readers[i].ReadByte(); err != io.EOF {
			t.Errorf("connection %d: %v", i, err)
		}
	}
	if err := <-drained; err != nil {
		t.Error(err)
	}
}
