package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/relais-edge/relais/demo/shop"
	"github.com/relais-edge/relais/demo/visitors"
)

// scenario is what happens after the calm.
type scenario struct {
	name   string
	seed   uint64
	shape  visitors.Shape // empty for no flood
	rate   visitors.Rate
	shared bool // four in ten visitors are behind eight addresses
	least  float64
}

// scenarios are the drill's.
func scenarios(s settings) []scenario {
	calm := visitors.Constant(s.base)
	return []scenario{
		{"swarm: ten thousand slow browsers", 1, visitors.Swarm, calm, false, 99},
		{"farm: a few fast machines", 2, visitors.Farm, calm, false, 99},
		{"mimics with baskets, visitors behind shared addresses", 3, visitors.Mimic, calm, true, 95},
		{"rush: five times as many visitors", 4, "", visitors.Spike(s.base, 5, s.calm, s.calm+s.length), false, 0},
	}
}

// field is what a scenario is played on.
type field struct {
	began time.Time
	mu    sync.Mutex
	seen  []visitors.Seen
}

func (f *field) note(s visitors.Seen) {
	f.mu.Lock()
	f.seen = append(f.seen, s)
	f.mu.Unlock()
}

// network is where all addresses come from.
const network = "127.4.0.0/16"

// play runs a scenario before a contender.
func play(ctx context.Context, s settings, c contender, sc scenario) (result, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	dir, err := os.MkdirTemp(s.keep, "drill-flood-"+c.name+"-")
	if err != nil {
		return result{}, err
	}
	if s.keep == "" {
		defer os.RemoveAll(dir)
	}
	ledger := filepath.Join(dir, "shop")
	addr, closeShop, err := openShop(ctx, s, ledger)
	if err != nil {
		return result{}, err
	}
	defer closeShop()
	e, stop, err := c.start(ctx, s, addr, dir)
	defer stop()
	if err != nil {
		return result{}, err
	}
	f := &field{began: time.Now()}
	army := &army{s: s, shape: sc.shape, http1: e.http1, http2: e.http2, began: f.began, rate: s.requests()}
	var wg sync.WaitGroup
	wg.Go(func() { army.attack(ctx) })
	reports, err := f.send(ctx, s, sc, e.http1)
	cancel()
	wg.Wait()
	if err != nil {
		return result{}, err
	}
	r := f.judge(s)
	r.sent, r.served = army.sent.Load(), army.served.Load()
	return r, f.verify(context.WithoutCancel(ctx), s, ledger, reports, &r)
}

// requests is how many requests a second the visitors of a calm day send, about.
func (s settings) requests() float64 { return s.base * 45 }

// send lets the visitors come and waits until the last has gone.
func (f *field) send(ctx context.Context, s settings, sc scenario, addr string) ([]visitors.Report, error) {
	shares := []struct {
		share   float64
		sources string
	}{{1, network}}
	if sc.shared {
		shares = shares[:0]
		shares = append(shares, struct {
			share   float64
			sources string
		}{.6, network}, struct {
			share   float64
			sources string
		}{.4, "127.4.77.8/29"})
	}
	reports, errs := make([]visitors.Report, len(shares)), make([]error, len(shares))
	var wg sync.WaitGroup
	for i, sh := range shares {
		rate := func(d time.Duration) float64 { return sh.share * sc.rate(d) }
		g, err := visitors.New(visitors.Config{
			Target: "http://" + addr, Host: "shop.example", Rate: rate, Duration: s.calm + s.length, Drain: 40 * time.Second,
			MaxLive: 20_000, Seed: sc.seed*8 + uint64(i), Sources: netip.MustParsePrefix(sh.sources), Seen: f.note,
			Funnel: visitors.Funnel{Pages: 5, Product: .9, Basket: .5, Checkout: .9, Order: .9, Think: time.Second},
		})
		if err != nil {
			return nil, err
		}
		wg.Go(func() { reports[i], errs[i] = g.Run(ctx) })
	}
	wg.Wait()
	return reports, errors.Join(errs...)
}

// verify compares what the buyers were told with the ledger.
func (f *field) verify(ctx context.Context, s settings, dir string, reports []visitors.Report, r *result) error {
	l, err := shop.OpenLedger(dir)
	if err != nil {
		return err
	}
	defer l.Close()
	for _, rep := range reports {
		v, err := rep.Verify(ctx, l)
		if err != nil {
			return fmt.Errorf("compare with the ledger: %w", err)
		}
		r.lost += len(v.Lost) + len(v.Duplicates)
		r.failed += len(v.Failed)
		r.refused += rep.HoldersRefused
		r.gaveUp += rep.GaveUp
		for _, o := range rep.Orders {
			if o.State == visitors.Confirmed && o.Started.Sub(f.began) >= s.calm {
				r.orders++
			}
		}
	}
	return nil
}

// openShop starts the demo shop with its slots, in this process.
func openShop(ctx context.Context, s settings, dir string) (addr string, stop func(), err error) {
	house, err := shop.New(shop.Config{DataDir: dir, Capacity: s.slots, Queue: 4 * s.slots, ServiceTime: s.service})
	if err != nil {
		return "", nil, err
	}
	var lc net.ListenConfig
	ln, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	srv := &http.Server{Handler: house.Handler(), ReadHeaderTimeout: 10 * time.Second, ErrorLog: log.New(io.Discard, "", 0)}
	go func() { _ = srv.Serve(ln) }()
	return ln.Addr().String(), func() { _ = srv.Close(); _ = house.Close() }, nil
}
