package origin

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

var errDead = errors.New("nobody is there")

// way is how the way to an address goes in a test.
type way struct {
	after time.Duration
	err   error
}

func TestRacesOfRFC8305(t *testing.T) {
	const ms = time.Millisecond
	addrs := func(list ...string) (out []netip.Addr) {
		for _, a := range list {
			out = append(out, netip.MustParseAddr(a))
		}
		return out
	}
	hang := way{time.Hour, nil}
	for _, c := range []struct {
		name       string
		six, four  []netip.Addr
		dns6, dns4 way
		ways       map[string]way
		want       string // of the connection; empty is none
		err        error
		took       time.Duration
		order      []string // of attempts
	}{
		{name: "IPv6 first (section 4)", six: addrs("2001:db8::1"), four: addrs("192.0.2.1"), want: "2001:db8::1", took: 0, order: []string{"2001:db8::1"}},
		{name: "an address that hangs costs 250 ms (section 5)", six: addrs("2001:db8::1"), four: addrs("192.0.2.1"), ways: map[string]way{"2001:db8::1": hang}, want: "192.0.2.1", took: 250 * ms},
		{
			name: "families in turn (section 4)", six: addrs("2001:db8::1", "2001:db8::2"), four: addrs("192.0.2.1", "192.0.2.2"), took: 750 * ms,
			ways: map[string]way{"2001:db8::1": hang, "192.0.2.1": hang, "2001:db8::2": hang}, want: "192.0.2.2", order: []string{"2001:db8::1", "192.0.2.1", "2001:db8::2", "192.0.2.2"},
		},
		{name: "a refusal costs nothing", six: addrs("2001:db8::1"), four: addrs("192.0.2.1"), ways: map[string]way{"2001:db8::1": {0, errDead}}, want: "192.0.2.1", took: 0},
		{name: "the slow one may win yet", six: addrs("2001:db8::1"), four: addrs("192.0.2.1"), ways: map[string]way{"2001:db8::1": {300 * ms, nil}, "192.0.2.1": hang}, want: "2001:db8::1", took: 300 * ms},
		{name: "a late answer for IPv6 is waited for 50 ms (section 3)", dns6: way{after: time.Second}, six: addrs("2001:db8::1"), four: addrs("192.0.2.1"), want: "192.0.2.1", took: 50 * ms, order: []string{"192.0.2.1"}},
		{name: "and comes first when it is there by then", dns6: way{after: 30 * ms}, six: addrs("2001:db8::1"), four: addrs("192.0.2.1"), want: "2001:db8::1", took: 30 * ms},
		{name: "a late answer is used all the same", dns6: way{after: 200 * ms}, six: addrs("2001:db8::1"), four: addrs("192.0.2.1"), ways: map[string]way{"192.0.2.1": {10 * ms, errDead}, "2001:db8::1": {}}, want: "2001:db8::1", took: 200 * ms},
		{name: "IPv4 alone does not wait when IPv6 has none", dns6: way{err: errDead}, four: addrs("192.0.2.1"), want: "192.0.2.1", took: 0},
		{name: "all are dead", six: addrs("2001:db8::1"), four: addrs("192.0.2.1"), ways: map[string]way{"2001:db8::1": {0, errDead}, "192.0.2.1": {5 * ms, errors.New("other")}}, err: errDead, took: 5 * ms},
		{name: "DNS fails", dns6: way{err: errDead}, dns4: way{after: 7 * ms, err: errDead}, err: errDead, took: 7 * ms},
		{name: "nothing, and no time left", six: addrs("2001:db8::1"), ways: map[string]way{"2001:db8::1": hang}, err: context.DeadlineExceeded, took: 3 * time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
				r := race{found: make(chan answer, 2), ended: make(chan attempt)}
				for _, d := range []struct {
					way
					answer
				}{{c.dns6, answer{true, c.six, c.dns6.err}}, {c.dns4, answer{false, c.four, c.dns4.err}}} {
					go func() {
						time.Sleep(d.after)
						r.found <- d.answer
					}()
				}
				var mu sync.Mutex
				var order []string
				open := map[string]*closeable{}
				begin := time.Now()
				nc, err := r.run(ctx, func(a netip.Addr) (net.Conn, error) {
					mu.Lock()
					order = append(order, a.String())
					mu.Unlock()
					w := c.ways[a.String()]
					select {
					case <-time.After(w.after):
					case <-ctx.Done():
						return nil, ctx.Err()
					}
					if w.err != nil {
						return nil, w.err
					}
					n := &closeable{name: a.String()}
					mu.Lock()
					open[n.name] = n
					mu.Unlock()
					return n, nil
				})
				if took := time.Since(begin); took != c.took {
					t.Errorf("it took %v, want %v", took, c.took)
				}
				cancel()
				if !errors.Is(err, c.err) || c.err == nil && nc.(*closeable).name != c.want {
					t.Errorf("%v, %v; want %s, %v", nc, err, c.want, c.err)
				}
				if c.order != nil && !slices.Equal(order, c.order) {
					t.Errorf("%v, want %v", order, c.order)
				}
				synctest.Wait()
				for a, n := range open {
					if n.closed == (a == c.want) {
						t.Errorf("%s: closed is %t", a, n.closed)
					}
				}
				time.Sleep(2 * time.Hour) // what still sleeps ends
			})
		})
	}
}

type closeable struct {
	net.Conn
	name   string
	closed bool
}

func (c *closeable) Close() error { c.closed = true; return nil }
