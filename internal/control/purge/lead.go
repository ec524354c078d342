package purge

import (
	"context"
	"errors"
	"time"

	"github.com/relais-edge/relais/internal/control/store"
)

const (
	// lease is what the one has who writes down acknowledgements and trims the log.
	lease = "purge"
	// tidy is how often the log is trimmed.
	tidy = time.Minute
	// seenAgain is how often it is written that a PoP is heard of, where nothing else is new.
	seenAgain = time.Minute
)

// leads does what one of all control planes does, until ctx ends.
func (s *Service) leads(ctx context.Context) {
	for ctx.Err() == nil {
		l, err := s.cfg.Store.Lead(ctx, lease, s.cfg.Name)
		if err == nil {
			err = s.lead(ctx, l)
			l.Close()
		}
		if err != nil && ctx.Err() == nil && !errors.Is(err, store.ErrFenced) {
			s.cfg.Logger.Error("acknowledgements of purges are not written down for a moment", "err", err)
		}
		pause(ctx, look)
	}
}

// lead keeps books until the lease or ctx ends.
func (s *Service) lead(ctx context.Context, l *store.Lease) error {
	tick := time.NewTicker(look)
	defer tick.Stop()
	var tidied time.Time
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-l.Done():
			return nil
		case <-tick.C:
		}
		err := s.keepAcks(ctx, l)
		if err == nil && time.Since(tidied) >= tidy {
			err = s.tidy(ctx, l)
			tidied = time.Now()
		}
		if err != nil && !passing(err) {
			return forgive(ctx, err)
		}
	}
}

// keepAcks writes down what is new, as a receipt is asked for also after a restart.
func (s *Service) keepAcks(ctx context.Context, l *store.Lease) error {
	var list []ack
	s.mu.Lock()
	for name, p := range s.pops {
		a := ack{pop: name, at: p.at, time: p.time, seen: p.seen}
		if p.at != p.kept.at || p.seen.Sub(p.kept.seen) >= seenAgain {
			list = append(list, a)
		}
	}
	s.mu.Unlock()
	if len(list) == 0 {
		return nil
	}
	_, err := s.cfg.Store.Update(ctx, store.Change{Author: "purge", Lease: l}, func(tx *store.Tx) error {
		for _, a := range list {
			if err := writeAck(ctx, tx, a); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, a := range list {
		if p := s.pops[a.pop]; p != nil {
			p.kept = a
		}
	}
	return nil
}

// tidy trims the log, in changes that keep nobody waiting for long.
func (s *Service) tidy(ctx context.Context, l *store.Lease) error {
	for gone := int64(trimRows); gone == trimRows; {
		_, err := s.cfg.Store.Update(ctx, store.Change{Author: "purge", Lease: l}, func(tx *store.Tx) (err error) {
			gone, err = trim(ctx, tx, tx.Now().Add(-s.cfg.Limits.Age), s.cfg.Limits.Entries)
			return err
		})
		if err != nil {
			return err
		}
		s.metrics.trimmed.Add(float64(gone))
	}
	_, err := s.cfg.Store.Update(ctx, store.Change{Author: "purge", Lease: l}, func(tx *store.Tx) error {
		return errors.Join(forgetRates(ctx, tx), forgetAcks(ctx, tx, tx.Now().Add(-s.cfg.Limits.Age)))
	})
	return err
}
