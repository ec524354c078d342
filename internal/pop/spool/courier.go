package spool

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/relais-edge/relais/internal/usage"
)

// maxPending bounds the sites and hours whose counts wait in memory for room on the disk. Beyond it a site's hours become
// one.
const maxPending = 200_000

// Deliverer brings a batch to the control plane, and returns when it is there for good, or why not. A *usage.GapError says
// that records before it are missed there.
type Deliverer interface {
	Deliver(ctx context.Context, b *usage.Batch) error
}

// Courier brings counts from the meter to the spool and from there to the control plane. What the disk has no room for
// stays in memory, where counts only add up, and goes to the disk as soon as there is room: a full disk loses nothing
// unless the process is killed meanwhile.
type Courier struct {
	spool   *Spool
	take    func(time.Time) []usage.Record
	deliver Deliverer

	mu      sync.Mutex
	pending map[usage.Slot]usage.Counts
	most    int
}

// NewCourier makes a courier. Take gives what was counted since it was called last.
func NewCourier(s *Spool, take func(time.Time) []usage.Record, to Deliverer) *Courier {
	return &Courier{spool: s, take: take, deliver: to, pending: map[usage.Slot]usage.Counts{}, most: maxPending}
}

// Collect takes what was counted and puts it on the disk. After an error it is still in memory.
func (c *Courier) Collect(now time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, r := range c.take(now) {
		if err := r.Check(); err != nil { // one that cannot be sent is not to keep back the others
			c.spool.cfg.Report("a usage record is not well formed and dropped", "err", err)
			continue
		}
		c.add(r.Slot, r.Counts)
	}
	if len(c.pending) > c.most {
		c.merge()
	}
	if len(c.pending) == 0 {
		return nil
	}
	list := make([]usage.Record, 0, len(c.pending))
	for slot, n := range c.pending {
		list = append(list, usage.Record{Slot: slot, Counts: capped(n)})
	}
	slices.SortFunc(list, func(a, b usage.Record) int {
		return cmp.Or(cmp.Compare(a.Hour, b.Hour), cmp.Compare(a.Organization, b.Organization), cmp.Compare(a.Site, b.Site))
	})
	if err := c.spool.Append(list); err != nil {
		return err
	}
	clear(c.pending)
	return nil
}

func (c *Courier) add(slot usage.Slot, n usage.Counts) {
	sum := c.pending[slot]
	sum.Add(&n)
	c.pending[slot] = sum
}

// capped keeps a count within what a record holds: 4.5 thousand million million.
func capped(n usage.Counts) usage.Counts {
	v := n.List()
	for i := range v {
		v[i] = min(v[i], usage.MaxCount)
	}
	return usage.CountsOf(v)
}

// merge puts the hours of each site into its newest one.
func (c *Courier) merge() {
	newest := map[usage.Slot]usage.Hour{} // by organization and site
	for slot := range c.pending {
		k := usage.Slot{Organization: slot.Organization, Site: slot.Site}
		newest[k] = max(newest[k], slot.Hour)
	}
	before := c.pending
	c.pending = make(map[usage.Slot]usage.Counts, len(newest))
	for slot, n := range before {
		slot.Hour = newest[usage.Slot{Organization: slot.Organization, Site: slot.Site}]
		c.add(slot, n)
	}
}

// Pending is how many sites and hours wait in memory.
func (c *Courier) Pending() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.pending)
}

// Ship delivers all that is on the disk, the oldest first, until there is nothing or something fails.
func (c *Courier) Ship(ctx context.Context) error {
	for ctx.Err() == nil {
		b, err := c.spool.Next(usage.MaxRecords)
		if err != nil || b == nil {
			return err
		}
		err = c.deliver.Deliver(ctx, b)
		// A spool gives its oldest records first: those before them are nowhere any more.
		if gap := (*usage.GapError)(nil); errors.As(err, &gap) && gap.Have == b.First() && gap.Want < gap.Have {
			c.spool.cfg.Report("usage records are lost that were acknowledged to nobody, or whose arrival the control plane has forgotten",
				"spool", b.Spool.String(), "from", gap.Want, "to", gap.Have-1)
			b.Gap = true
			err = c.deliver.Deliver(ctx, b)
		}
		if err != nil {
			return fmt.Errorf("usage: deliver records %d to %d of spool %s: %w", b.First(), b.Last(), b.Spool, err)
		}
		if err := c.spool.Acknowledge(b.Spool, b.Last()); err != nil {
			return err
		}
	}
	return context.Cause(ctx)
}

// Run collects and ships until ctx ends, and then collects once more.
func (c *Courier) Run(ctx context.Context, every time.Duration) error {
	t := time.NewTicker(every)
	defer t.Stop()
	said := ""
	for {
		select {
		case <-ctx.Done():
			return c.Collect(time.Now())
		case now := <-t.C:
			err := c.Collect(now)
			if ship := c.Ship(ctx); ctx.Err() == nil {
				err = errors.Join(err, ship)
			}
			text := ""
			if err != nil {
				text = err.Error()
			}
			if text != said && text != "" { // once, however long it lasts
				c.spool.cfg.Report("usage records wait; none is lost", "err", err)
			}
			said = text
		}
	}
}
