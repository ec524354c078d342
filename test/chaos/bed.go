package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/Shopify/toxiproxy/v2"
	"github.com/rs/zerolog"

	"github.com/relais-edge/relais/demo/shop"
	"github.com/relais-edge/relais/demo/visitors"
	"github.com/relais-edge/relais/test/proc"
)

// servers is how many origins the shop has.
const servers = 4

// bed is a shop of several origins, each behind a proxy that can spoil its connections, and an
// edge in front of them.
type bed struct {
	dir       string
	addr      string // of the edge
	contender contender
	shop      *shop.Shop
	origins   []*origin
	proxies   []*toxiproxy.Proxy
	edge      *proc.Process

	mu   sync.Mutex
	now  int // number of the fault that is on; 0 for none
	seen map[int]*count
}

// count is what visitors met while a fault was on.
type count struct{ pages, failed int }

// origin is one server of the shop.
type origin struct {
	addr string
	srv  *http.Server
	shop *shop.Shop
	hits atomic.Int64
}

func (o *origin) start(ctx context.Context) error {
	at := o.addr
	if at == "" {
		at = "127.0.0.1:0"
	}
	ln, err := new(net.ListenConfig).Listen(ctx, "tcp", at)
	if err != nil {
		return err
	}
	o.addr = ln.Addr().String()
	srv := &http.Server{ReadHeaderTimeout: 10 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		o.hits.Add(1)
		o.shop.Handler().ServeHTTP(w, r)
	})}
	o.srv = srv
	go func() { _ = srv.Serve(ln) }()
	return nil
}

// newBed starts the shop, the proxies and the edge.
func newBed(ctx context.Context, dir string, c contender) (b *bed, err error) {
	b = &bed{dir: dir, contender: c, seen: map[int]*count{}}
	defer func() {
		if err != nil {
			b.close()
		}
	}()
	b.shop, err = shop.New(shop.Config{DataDir: filepath.Join(dir, "shop"), Capacity: 1 << 12})
	if err != nil {
		return nil, err
	}
	zerolog.SetGlobalLevel(zerolog.Disabled) // the toxics speak to the library's own log
	api := toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil), zerolog.Nop())
	for i := range servers {
		o := &origin{shop: b.shop}
		if err := o.start(ctx); err != nil {
			return nil, err
		}
		b.origins = append(b.origins, o)
		p := toxiproxy.NewProxy(api, fmt.Sprintf("origin%d", i), "127.0.0.1:0", o.addr)
		if err := p.Start(); err != nil {
			return nil, err
		}
		b.proxies = append(b.proxies, p)
	}
	ports, err := proc.Ports(1)
	if err != nil {
		return nil, err
	}
	b.addr = proc.Addr(ports[0])
	return b, b.startEdge(ctx)
}

// file is the edge's configuration.
func (b *bed) file() string { return filepath.Join(b.dir, "edge.conf.yaml") }

func (b *bed) startEdge(ctx context.Context) error {
	text, args := b.contender.write(b)
	if err := os.WriteFile(b.file(), []byte(text), 0o600); err != nil {
		return err
	}
	p, err := proc.Start(proc.Spec{Name: b.contender.name, Args: args, Log: filepath.Join(b.dir, "edge.log"), Core: proc.AnyCore})
	if err != nil {
		return err
	}
	b.edge = p
	up, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	return p.WaitListen(up, b.addr)
}

// signal sends a signal to the edge.
func (b *bed) signal(s syscall.Signal) error { return syscall.Kill(b.edge.Pid(), s) }

func (b *bed) close() {
	if b.edge != nil {
		b.edge.Stop(5 * time.Second)
	}
	for _, p := range b.proxies {
		p.Stop()
	}
	for _, o := range b.origins {
		_ = o.srv.Close()
	}
	if b.shop != nil {
		_ = b.shop.Close()
	}
}

// note counts a page that a visitor asked for.
func (b *bed) note(s visitors.Seen) {
	if !s.Page {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	c := b.seen[b.now]
	if c == nil {
		c = &count{}
		b.seen[b.now] = c
	}
	c.pages++
	if s.Status == 0 || s.Status >= 500 {
		c.failed++
	}
}

func (b *bed) enter(number int) {
	b.mu.Lock()
	b.now = number
	b.mu.Unlock()
}

// play lets the faults come one after another, each for a time and followed by calm.
func (b *bed) play(ctx context.Context, list []fault, on, calm time.Duration) error {
	if err := rest(ctx, calm); err != nil {
		return err
	}
	for i, f := range list {
		victim := i % servers
		b.enter(i + 1)
		err := f.begin(ctx, b, victim)
		err = errors.Join(err, rest(ctx, on))
		err = errors.Join(err, f.end(ctx, b, victim))
		if err != nil {
			return fmt.Errorf("%s: %w", f.name, err)
		}
		// What the fault leaves behind, such as an ejected origin or a dead connection, counts as its own.
		if err := rest(ctx, calm); err != nil {
			return err
		}
	}
	return nil
}

func rest(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
