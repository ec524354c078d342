package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/relais-edge/relais/demo/shop"
	"github.com/relais-edge/relais/demo/visitors"
)

// field is what a scenario is played on: the clusters, and what was seen of them.
type field struct {
	home, overflow *cluster
	began          time.Time

	mu      sync.Mutex
	seen    []visitors.Seen
	samples []sample
	err     error // of an event
}

// sample is how busy home was at one moment.
type sample struct {
	at          time.Time
	taken, all  int // slots of the origins that live
	well, wells int // of its second half
}

// sampling is how often the slots are looked at.
const sampling = 10 * time.Millisecond

func (f *field) watch(ctx context.Context) {
	t := time.NewTicker(sampling)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-t.C:
			s := sample{at: now}
			s.taken, s.all = f.home.busy(0)
			s.well, s.wells = f.home.busy(len(f.home.origins) / 2)
			f.mu.Lock()
			f.samples = append(f.samples, s)
			f.mu.Unlock()
		}
	}
}

func (f *field) note(s visitors.Seen) {
	f.mu.Lock()
	f.seen = append(f.seen, s)
	f.mu.Unlock()
}

// fault keeps what went wrong with the drill itself.
func (f *field) fault(err error) {
	f.mu.Lock()
	f.err = err
	f.mu.Unlock()
}

// play runs one scenario before one contender.
func play(ctx context.Context, s settings, c contender, sc scenario) (result, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	dir, err := os.MkdirTemp("", "drill-overflow")
	if err != nil {
		return result{}, err
	}
	defer os.RemoveAll(dir)
	ledger := filepath.Join(dir, "shop")
	f := &field{}
	if f.home, err = newCluster(ctx, "home", ledger, s.origins, s.slots, s.service); err != nil {
		return result{}, err
	}
	defer f.home.close()
	if f.overflow, err = newCluster(ctx, "overflow", ledger, 2*s.origins, s.slots, s.service); err != nil {
		return result{}, err
	}
	defer f.overflow.close()
	f.overflow.home = f.home
	addrs, stop, err := c.start(ctx, f, dir)
	defer stop()
	if err != nil {
		return result{}, err
	}
	f.began = time.Now()
	go f.watch(ctx)
	go sc.happen(ctx, f)
	reports, err := f.send(ctx, s, c, sc, addrs)
	if err != nil {
		return result{}, err
	}
	r := f.judge(sc)
	return r, errors.Join(f.err, f.verify(ctx, ledger, reports, &r))
}

// send lets the visitors come, to each edge its share, and waits until the last has gone.
func (f *field) send(ctx context.Context, s settings, c contender, sc scenario, addrs []string) ([]visitors.Report, error) {
	reports, errs := make([]visitors.Report, len(addrs)), make([]error, len(addrs))
	var wg sync.WaitGroup
	for i, share := range shares(c.edges) {
		rate := sc.rate(s.base() * share)
		g, err := visitors.New(visitors.Config{
			Target: "http://" + addrs[i], Host: "shop.example", Rate: rate, Duration: sc.length, Drain: 40 * time.Second,
			MaxLive: 20_000, Seed: uint64(i + 1), Sources: netip.MustParsePrefix("127.1.0.0/16"), Seen: f.note,
			Funnel: visitors.Funnel{Think: 500 * time.Millisecond},
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
func (f *field) verify(ctx context.Context, dir string, reports []visitors.Report, r *result) error {
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
		r.orders += v.Kept
		r.lost += len(v.Lost) + len(v.Failed) + len(v.Duplicates)
		r.refused += rep.HoldersRefused
		r.gaveUp += rep.GaveUp
	}
	return nil
}
