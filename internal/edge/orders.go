package edge

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/relais-edge/relais/internal/bundle"
	"github.com/relais-edge/relais/internal/edge/flood"
)

// Bounds of what is kept.
const (
	ordersVersion = 1
	ordersBytes   = 1 << 20 // of the file
	maxOrders     = 1000    // for sites
	maxSpared     = 64
	// ordersEvery is how often it is looked whether another process has written: at an upgrade two of them take orders
	// for a moment.
	ordersEvery = time.Second
)

// order is a person's hand on a site's measures against floods, or on all sites' where Site is empty. Auto stands
// for a site that an order for all does not hold for.
type order struct {
	Site  bundle.Key `json:"site,omitempty"`
	Order string     `json:"order"`
	Step  string     `json:"step,omitempty"`
	Until time.Time  `json:"until"`
}

// spared is a network that a person spared from limits.
type spared struct {
	Network netip.Prefix `json:"network"`
	Until   time.Time    `json:"until"`
}

// standing is what a person ordered, as its file has it.
type standing struct {
	Version int      `json:"version"`
	Shield  []order  `json:"shield,omitempty"`
	Spared  []spared `json:"spared,omitempty"`
}

// orderBook keeps what a person ordered in a file, so that it outlives the process: who forbids a measure in an attack
// does not expect that an upgrade takes it. Times are those of the wall clock.
type orderBook struct {
	path   string // empty for an edge that keeps none
	flood  *flood.Stage
	logger *slog.Logger

	mu   sync.Mutex
	now  standing
	seen fs.FileInfo // of the file as it was read or written; nil for none
	lost bool        // it was said that the file cannot be looked at
}

// openOrders takes up what was ordered before this process. A file that cannot be used is said and set aside: it
// stops no start.
func openOrders(path string, f *flood.Stage, logger *slog.Logger) *orderBook {
	o := &orderBook{path: path, flood: f, logger: logger, now: standing{Version: ordersVersion}}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.refresh(time.Now())
	return o
}

// obey takes up what people ordered before; an edge that only replays takes no orders.
func (e *Edge) obey(cfg *Config) {
	path := ""
	if cfg.replay == nil {
		path = filepath.Join(cfg.Data, "orders.json")
	}
	e.orders = openOrders(path, e.flood, cfg.Logger)
}

// Run takes up what another process writes, until ctx ends.
func (o *orderBook) Run(ctx context.Context) error {
	t := time.NewTicker(ordersEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-t.C:
			o.mu.Lock()
			o.refresh(now)
			o.mu.Unlock()
		}
	}
}

// refresh reads the file when it is another than it was, and acts by it. The lock is held.
func (o *orderBook) refresh(now time.Time) {
	if o.path == "" {
		return
	}
	info, err := os.Stat(o.path)
	if errors.Is(err, fs.ErrNotExist) || err == nil && o.seen != nil && os.SameFile(info, o.seen) && info.ModTime().Equal(o.seen.ModTime()) {
		return
	}
	if err != nil {
		if !o.lost {
			o.lost = true
			o.logger.Error("what people ordered before (relais shield, relais unblock) cannot be read", "err", err)
		}
		return
	}
	o.seen, o.lost = info, false
	next, err := readOrders(o.path, now)
	if err != nil {
		o.setAside(err)
		return
	}
	before := o.now
	o.now = next
	for _, s := range next.Spared {
		if !slices.Contains(before.Spared, s) {
			if err := o.flood.Unblock(s.Network, now, s.Until); err != nil {
				o.logger.Warn("a network is no longer spared from limits", "network", s.Network, "err", err)
			}
		}
	}
	if slices.Equal(before.Shield, next.Shield) {
		return
	}
	for _, s := range o.flood.Status("") {
		h := o.now.hand(s.Site, now)
		if h.Order == "" {
			h.Order = "auto"
		}
		_ = o.flood.Shield(s.Site, h.Order, h.Step, h.Until) // the site was there a moment ago
	}
}

// setAside says that the file is of no use, and makes room for a new one.
func (o *orderBook) setAside(why error) {
	aside := o.path + ".damaged"
	err := os.Rename(o.path, aside)
	o.logger.Error("what people ordered before (relais shield, relais unblock) is lost: its file cannot be used; order it again",
		"err", why, "file", o.path, "set aside as", aside, "failed", err)
}

// readOrders reads what still holds at now.
func readOrders(path string, now time.Time) (s standing, err error) {
	f, err := os.Open(path)
	if err != nil {
		return s, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, ordersBytes+1))
	switch {
	case err != nil:
		return s, err
	case len(b) > ordersBytes:
		return s, fmt.Errorf("it is longer than %d bytes", ordersBytes)
	}
	if err := json.Unmarshal(b, &s); err != nil {
		return standing{}, err
	}
	if s.Version != ordersVersion {
		return standing{}, fmt.Errorf("it is of version %d; this edge reads version %d", s.Version, ordersVersion)
	}
	for i := range s.Shield {
		h := &s.Shield[i]
		if h.Order != "on" && h.Order != "off" && h.Order != "auto" {
			return standing{}, fmt.Errorf("%q is not on, off or auto", h.Order)
		}
		h.Until = sooner(h.Until, now)
	}
	for i := range s.Spared {
		if !s.Spared[i].Network.IsValid() {
			return standing{}, errors.New("a network is missing")
		}
		s.Spared[i].Until = sooner(s.Spared[i].Until, now)
	}
	s.prune(now)
	if len(s.Shield) > maxOrders || len(s.Spared) > maxSpared {
		return standing{}, errors.New("it holds more than can have been ordered")
	}
	return s, nil
}

// sooner bounds a time to the longest that an order may hold, should the clock have been set back.
func sooner(until, now time.Time) time.Time {
	if most := now.Add(flood.LongestHand).Round(0); until.After(most) {
		return most
	}
	return until
}

// prune forgets what has ended.
func (s *standing) prune(now time.Time) {
	s.Shield = slices.DeleteFunc(slices.Clone(s.Shield), func(h order) bool { return !now.Before(h.Until) })
	s.Spared = slices.DeleteFunc(slices.Clone(s.Spared), func(p spared) bool { return !now.Before(p.Until) })
}

// hand is the order that holds for a site; an empty one when there is none.
func (s *standing) hand(key bundle.Key, now time.Time) (found order) {
	for _, h := range s.Shield {
		if now.Before(h.Until) && (h.Site == key || h.Site == "" && found.Site == "") {
			found = h
		}
	}
	return found
}

// with returns what is ordered when h is, too: for all sites it takes the place of all orders, for one that of its own.
func (s *standing) with(h order) []order {
	if h.Site == "" {
		if h.Order == "auto" {
			return nil
		}
		return []order{h}
	}
	list := slices.DeleteFunc(slices.Clone(s.Shield), func(o order) bool { return o.Site == h.Site })
	if h.Order == "auto" {
		i := slices.IndexFunc(list, func(o order) bool { return o.Site == "" })
		if i < 0 {
			return list
		}
		h.Until = list[i].Until
	}
	return append(list, h)
}

// errKept says that an order holds and will not after a restart.
var errKept = errors.New("the order holds, but cannot be kept for the next start of the edge")

// Shield is a person's order for a site, or for all.
func (o *orderBook) Shield(h order) error {
	h.Until = h.Until.Round(0) // the wall clock's
	o.mu.Lock()
	defer o.mu.Unlock()
	now := time.Now()
	o.refresh(now)
	next := o.now
	next.prune(now)
	if next.Shield = next.with(h); len(next.Shield) > maxOrders {
		return fmt.Errorf("%d sites have an order already; end some, or give one for all", maxOrders)
	}
	if err := o.flood.Shield(h.Site, h.Order, h.Step, h.Until); err != nil {
		return err
	}
	return o.keep(next)
}

// Unblock spares a network from limits.
func (o *orderBook) Unblock(network netip.Prefix, until time.Time) error {
	until = until.Round(0)
	o.mu.Lock()
	defer o.mu.Unlock()
	now := time.Now()
	o.refresh(now)
	if err := o.flood.Unblock(network, now, until); err != nil {
		return err
	}
	next := o.now
	next.Spared = slices.DeleteFunc(slices.Clone(next.Spared), func(s spared) bool { return s.Network == network.Masked() })
	next.Spared = append(next.Spared, spared{network.Masked(), until})
	next.prune(now)
	return o.keep(next)
}

// Take has a site that comes into service do what was ordered for it.
func (o *orderBook) Take(key bundle.Key) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if h := o.now.hand(key, time.Now()); h.Order != "" {
		_ = o.flood.Shield(key, h.Order, h.Step, h.Until) // a site without a FloodPolicy takes no orders
	}
}

// keep writes what is ordered now, whole or not at all. The lock is held.
func (o *orderBook) keep(next standing) error {
	o.now = next
	if o.path == "" {
		return nil
	}
	b, err := json.Marshal(&next)
	if err == nil {
		err = replace(o.path, append(b, '\n'))
	}
	if err != nil {
		return fmt.Errorf("%w: %w", errKept, err)
	}
	if info, err := os.Stat(o.path); err == nil {
		o.seen = info
	}
	return nil
}

// replace puts a file in the place of another, and returns when a loss of power could not undo it.
func replace(path string, b []byte) error {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, ".orders-*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(b)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// Waiting adds to the list of watched sites what is ordered for a site, or for all ("*"), that is not among them: a site is
// watched from its first request, and an order from before a restart holds already.
func (o *orderBook) Waiting(key bundle.Key, list []flood.Status) []flood.Status {
	o.mu.Lock()
	defer o.mu.Unlock()
	now, watched := time.Now(), len(list)
	for _, h := range o.now.Shield {
		if h.Site == "" && watched > 0 || h.Site != "" && key != "" && h.Site != key || !now.Before(h.Until) ||
			slices.ContainsFunc(list[:watched], func(s flood.Status) bool { return s.Site == h.Site }) {
			continue
		}
		if h.Site == "" {
			h.Site = "*"
		}
		list = append(list, flood.Status{
			Site: h.Site, Mode: "unknown until its first request", Step: flood.Calm.String(), Hand: h.Order, Until: &h.Until,
			Saturated: "not measured yet", Measures: []flood.Measure{},
		})
	}
	return list
}
