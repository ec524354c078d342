package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/relais-edge/relais/demo/shop"
)

// queueLimit is how many requests may wait at one origin; more get 503, as from a server with a
// full backlog.
const queueLimit = 512

// origin is one server of a cluster: the demo shop behind a fixed number of slots. A page holds
// its slot for a drawn time; files and health checks need a slot only for a moment. Work goes on
// when the client has left, as in most servers.
type origin struct {
	addr string
	mean atomic.Int64 // of the time that a page takes, in nanoseconds
	up   atomic.Bool
	in   *cluster

	mu    sync.Mutex
	slots *slots
	srv   *http.Server
}

// slots are the places of one life of an origin, first come first served.
type slots struct {
	taken   chan struct{}
	waiting atomic.Int64
}

// cluster is a tier as it really is.
type cluster struct {
	name    string
	shop    *shop.Shop
	origins []*origin
	each    int // slots of an origin

	left atomic.Int64 // pages worked on to the end whose client had left
	home *cluster     // of an overflow cluster; nil at home

	mu    sync.Mutex
	begun []begun
}

// begun is a page that a cluster began to work on.
type begun struct {
	at     time.Time
	wasted bool // a fifth of home was free
}

// newCluster starts n origins with that many slots each. They share the ledger in dir.
func newCluster(ctx context.Context, name, dir string, n, each int, mean time.Duration) (*cluster, error) {
	s, err := shop.New(shop.Config{Cluster: name, DataDir: dir, Capacity: 1 << 16})
	if err != nil {
		return nil, err
	}
	c := &cluster{name: name, shop: s, each: each}
	for range n {
		o := &origin{in: c}
		o.mean.Store(int64(mean))
		c.origins = append(c.origins, o)
		if err := o.start(ctx); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// start lets the origin be born, the first time or again at its old address.
func (o *origin) start(ctx context.Context) error {
	at := o.addr
	if at == "" {
		at = "127.0.0.1:0"
	}
	ln, err := new(net.ListenConfig).Listen(ctx, "tcp", at)
	if err != nil {
		return fmt.Errorf("origin of %s: %w", o.in.name, err)
	}
	o.addr = ln.Addr().String()
	life := &slots{taken: make(chan struct{}, o.in.each)}
	srv := &http.Server{ReadHeaderTimeout: 10 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		o.serve(life, w, r)
	})}
	o.mu.Lock()
	o.slots, o.srv = life, srv
	o.mu.Unlock()
	o.up.Store(true)
	go func() { _ = srv.Serve(ln) }()
	return nil
}

// kill ends it at once; what it works on is gone.
func (o *origin) kill() {
	o.up.Store(false)
	o.mu.Lock()
	defer o.mu.Unlock()
	_ = o.srv.Close()
}

func (o *origin) serve(life *slots, w http.ResponseWriter, r *http.Request) {
	if life.waiting.Add(1) > queueLimit {
		life.waiting.Add(-1)
		http.Error(w, "the backlog is full", http.StatusServiceUnavailable)
		return
	}
	life.taken <- struct{}{}
	life.waiting.Add(-1)
	defer func() { <-life.taken }()
	if r.URL.Path == "/healthz" {
		return
	}
	if page(r) {
		o.in.begin()
		mean := float64(o.mean.Load())
		time.Sleep(time.Duration(min(mean/2+rand.ExpFloat64()*mean/2, 4*mean)))
		if r.Context().Err() != nil {
			o.in.left.Add(1)
		}
	}
	o.in.shop.Handler().ServeHTTP(w, r.WithContext(context.WithoutCancel(r.Context())))
}

func (c *cluster) begin() {
	b := begun{time.Now(), c.home != nil && c.home.room()}
	c.mu.Lock()
	c.begun = append(c.begun, b)
	c.mu.Unlock()
}

// count is how many pages were begun in a time, and how many of them needlessly.
func (c *cluster) count(from, to time.Time) (all, wasted int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, b := range c.begun {
		if b.at.Before(from) || !b.at.Before(to) {
			continue
		}
		all++
		if b.wasted {
			wasted++
		}
	}
	return all, wasted
}

// page says whether a request takes a page's time.
func page(r *http.Request) bool {
	p := r.URL.Path
	return len(p) < 5 || p[:5] != "/img/" && (len(p) < 8 || p[:8] != "/assets/") && p != "/robots.txt" && p != "/favicon.ico"
}

// busy counts the slots taken and those there are, of origins that live and whose number is at least from.
func (c *cluster) busy(from int) (taken, all int) {
	for _, o := range c.origins[from:] {
		if !o.up.Load() {
			continue
		}
		o.mu.Lock()
		s := o.slots
		o.mu.Unlock()
		taken, all = taken+len(s.taken), all+c.each
	}
	return taken, all
}

// room says whether a fifth of the slots or more is free.
func (c *cluster) room() bool {
	taken, all := c.busy(0)
	return all > 0 && 5*taken <= 4*all
}

func (c *cluster) close() {
	for _, o := range c.origins {
		if o.up.Load() {
			o.kill()
		}
	}
	_ = c.shop.Close()
}
