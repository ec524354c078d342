package claim

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"sync"
	"time"

	"github.com/relais-edge/relais/internal/control/store"
	"github.com/relais-edge/relais/internal/control/tenant/audit"
)

// look at a claim in force once more. Now says that it lapses without grace when its proof is gone, because another has
// proved the name.
func (s *Service) look(ctx context.Context, lease *store.Lease, org string, n Name, now bool) error {
	var c Claim
	weak := false
	err := s.Store.View(ctx, func(r *store.Reader) error {
		_, err := read(ctx, r, claimKey(org, n), &c)
		if err == nil && c.Method == HTTP {
			weak, err = provedAbove(ctx, r, org, n)
		}
		return err
	})
	if err != nil {
		return ignoreNotFound(err)
	}
	found := probe(ctx, s.DNS, s.Web, n, c.Method, c.Proof)
	if weak && found == there {
		found = gone
	}
	if err := context.Cause(ctx); err != nil {
		return err
	}
	if found == there && c.State == Active || found == unknown && now {
		return nil // nothing changes, so nothing is written
	}
	return s.judge(ctx, lease, org, n, c, found, now)
}

// judge writes what a look found.
func (s *Service) judge(ctx context.Context, lease *store.Lease, org string, n Name, looked Claim, found finding, now bool) error {
	_, err := s.Store.Update(ctx, store.Change{Author: "proof of host names", Lease: lease}, func(tx *store.Tx) error {
		var c Claim
		revision, err := read(ctx, &tx.Reader, claimKey(org, n), &c)
		if err != nil || c.Proof != looked.Proof || c.State != Active && c.State != Failing {
			return ignoreNotFound(err) // released or made anew meanwhile
		}
		before := c
		grace := s.Grace
		if found == unknown {
			grace = s.Unheard
		}
		switch {
		case found == there:
			c.State, c.Since, c.Unheard = Active, tx.Now(), false
		case now || c.State == Failing && !tx.Now().Before(c.Since.Add(grace)):
			c.State, c.Since = Lapsed, tx.Now()
		case c.State == Active:
			c.State, c.Since, c.Unheard = Failing, tx.Now(), found == unknown
		default:
			c.Unheard = found == unknown // the grace goes on from where it began
		}
		if c == before {
			return nil
		}
		if c.State == Lapsed {
			if err := s.unindex(ctx, tx, org, n); err != nil {
				return err
			}
		}
		if err := write(ctx, tx, claimKey(org, n), c, store.Expect(revision)); err != nil {
			return err
		}
		if c.State == before.State {
			return nil
		}
		_, err = audit.Append(ctx, tx, audit.Entry{Organization: org, Actor: "proof of host names", Action: "hostname." + string(c.State), Target: n.String()})
		return err
	})
	return err
}

// Sweep looks once more at the claims in force whose turn is in (from, to], and at those that fail. The leader calls it
// again and again, each time from where it ended; turns are spread over Config.Recheck by name.
func (s *Service) Sweep(ctx context.Context, lease *store.Lease, from, to time.Time) error {
	q := store.Query{Organization: index, Kind: kindIndex, Limit: 500}
	for {
		var page store.Page
		var failing map[string]bool
		err := s.Store.View(ctx, func(r *store.Reader) (err error) {
			if page, err = r.List(ctx, q); err != nil {
				return err
			}
			failing, err = failingOf(ctx, r, page.Documents)
			return err
		})
		if err != nil {
			return err
		}
		if err := s.sweepPage(ctx, lease, page.Documents, failing, from, to); err != nil {
			return err
		}
		if q.Cursor = page.Next; q.Cursor == "" {
			return nil
		}
	}
}

func failingOf(ctx context.Context, r *store.Reader, list []store.Document) (map[string]bool, error) {
	failing := map[string]bool{}
	for _, d := range list {
		var h holder
		var c Claim
		if err := decode(d, &h); err != nil {
			return nil, err
		}
		_, err := read(ctx, r, store.Key{Organization: h.Organization, Kind: Kind, Name: h.Name}, &c)
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return nil, err
		}
		failing[h.Name] = c.State == Failing
	}
	return failing, nil
}

func (s *Service) sweepPage(ctx context.Context, lease *store.Lease, list []store.Document, failing map[string]bool, from, to time.Time) error {
	slots := make(chan struct{}, s.Parallel)
	var wait sync.WaitGroup
	var mu sync.Mutex
	var errs error
	for _, d := range list {
		var h holder
		if err := decode(d, &h); err != nil {
			return err
		}
		n, err := ParseName(h.Name)
		if err != nil {
			return err
		}
		if !failing[h.Name] && !s.due(h.Name, from, to) {
			continue
		}
		slots <- struct{}{}
		wait.Go(func() {
			defer func() { <-slots }()
			if err := s.look(ctx, lease, h.Organization, n, false); err != nil {
				mu.Lock()
				defer mu.Unlock()
				if errs == nil { // the first says enough
					errs = err
				}
			}
		})
	}
	wait.Wait()
	return errs
}

// due says whether a name's turn is in (from, to].
func (s *Service) due(name string, from, to time.Time) bool {
	if to.Sub(from) >= s.Recheck {
		return true
	}
	sum := sha256.Sum256([]byte(name))
	part := float64(binary.BigEndian.Uint32(sum[:])) / (1 << 32)
	offset := int64(part * float64(s.Recheck))
	turn := func(t time.Time) int64 { return (t.UnixNano() - offset) / int64(s.Recheck) }
	return turn(to) > turn(from)
}
