package purge

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"sync"
	"time"

	"github.com/relais-edge/relais/internal/bus"
	"github.com/relais-edge/relais/internal/control/store"
	"github.com/relais-edge/relais/internal/fleet"
)

const (
	// depth is how many messages of a kind wait.
	depth = 8192
	// look is how often the store is asked for what was not heard, and written what was.
	look = time.Second
	// calm is how long after an epoch that a PoP's number began none begins for another's.
	calm = time.Minute
	// maxAnswer bounds the entries of an answer in bytes, so that it fits a message with what is around them.
	maxAnswer = bus.MaxData - 64<<10
)

// Run hears PoPs and answers them until ctx ends. Purge works without it, but PoPs then learn of what they missed
// from others alone.
func (s *Service) Run(ctx context.Context) error {
	if err := s.load(ctx); err != nil {
		return forgive(ctx, err)
	}
	for _, x := range []struct {
		subject, group string
		handle         func(bus.Message)
	}{
		{bus.AllPurge, "", s.hearPurge},
		{bus.Up("*", bus.Purged), "", s.hearPurged},
		{bus.Up("*", bus.Beat), "", s.hearBeat},
		{bus.Up("*", bus.Purges), bus.Control, func(m bus.Message) { s.answer(ctx, m) }},
	} {
		sub, err := s.cfg.Bus.Subscribe(x.subject, x.group, depth, x.handle)
		if err != nil {
			return err
		}
		defer func() { _ = sub.Close() }()
	}
	s.hears(true)
	defer s.hears(false)
	var all sync.WaitGroup
	for _, work := range []func(context.Context){s.echo.run, s.watch, s.leads} {
		all.Go(func() { work(ctx) })
	}
	all.Wait()
	return nil
}

// hears notes since when this control plane hears PoPs.
func (s *Service) hears(now bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hearing = time.Time{}
	if now {
		s.hearing = time.Now()
	}
}

// forgive takes the end of ctx for no error.
func forgive(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// passing says whether an error of the store goes by itself.
func passing(err error) bool {
	return errors.Is(err, store.ErrBusy) || errors.Is(err, store.ErrFull) || errors.Is(err, store.ErrUnavailable) || errors.Is(err, store.ErrUncertain)
}

// load reads what is known of PoPs, and sees to it that there is an epoch.
func (s *Service) load(ctx context.Context) error {
	for {
		var h head
		var acks []ack
		_, err := s.cfg.Store.Update(ctx, store.Change{Author: "purge"}, func(tx *store.Tx) (err error) {
			if h, err = takeHead(ctx, tx); err != nil {
				return err
			}
			acks, err = readAcks(ctx, &tx.Reader)
			return err
		})
		if err == nil {
			s.remember(h, acks)
			return nil
		}
		if !passing(err) {
			return err
		}
		s.cfg.Logger.Warn("purges wait for the store", "err", err)
		if !pause(ctx, look) {
			return context.Cause(ctx)
		}
	}
}

func (s *Service) remember(h head, acks []ack) {
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.advance(h.position())
	for _, a := range acks {
		if s.pops[a.pop] != nil {
			continue
		}
		p := &place{at: a.at, time: a.time, seen: a.seen, kept: a, marks: []mark{{a.at.Number, a.time}}, after: max(a.at.Number, 1) - 1}
		if now.Sub(a.seen) < seenAgain+away {
			p.seen = now // it was there a moment ago: it has the time to be heard of
		}
		s.pops[a.pop] = p
	}
}

// pause waits, or says that ctx ended.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// hearPurge learns of what other control planes gave.
func (s *Service) hearPurge(m bus.Message) {
	var p fleet.Purge
	if json.Unmarshal(m.Data, &p) != nil || p.Number == 0 {
		return
	}
	s.mu.Lock()
	s.advance(p.PurgePosition)
	s.mu.Unlock()
}

func (s *Service) hearPurged(m bus.Message) {
	var p fleet.Purged
	if json.Unmarshal(m.Data, &p) != nil {
		s.metrics.foreign.Inc()
		return
	}
	s.hear(sender(m.Subject), p.PurgePosition, false)
}

// hearBeat learns where a PoP is. Who conducts rollouts answers it.
func (s *Service) hearBeat(m bus.Message) {
	var b struct {
		Purged fleet.PurgePosition `json:"purged"`
	}
	if json.Unmarshal(m.Data, &b) != nil {
		s.metrics.foreign.Inc()
		return
	}
	s.hear(sender(m.Subject), b.Purged, true)
}

// sender is the PoP of a subject up.NAME.what.
func sender(subject string) string {
	_, rest, _ := strings.Cut(subject, ".")
	return rest[:max(strings.LastIndexByte(rest, '.'), 0)]
}

// hear takes in what a PoP says that it obeys.
func (s *Service) hear(name string, at fleet.PurgePosition, beat bool) {
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.pops[name]
	if p == nil {
		if name == "" || len(s.pops) >= MaxPops {
			s.metrics.foreign.Inc()
			return
		}
		p = &place{}
		s.pops[name] = p
		s.stir()
	}
	if !p.alive(now) {
		s.stir()
	}
	p.seen = now
	switch {
	case at.Epoch == s.newest.Epoch && at.Number > s.newest.Number:
		// Another control plane gave it and was not heard yet, or nobody did; the store knows.
		s.claims[name] = claim{at, now}
		return
	case at == p.at:
		p.lower = 0
		return
	case at.Epoch == p.at.Epoch && at.Number < p.at.Number:
		// A heartbeat that was written before the last acknowledgement, or a PoP that went back: then the next one says so, too.
		if p.lower++; !beat || p.lower < 2 {
			return
		}
		p.marks, p.after = nil, 0
	}
	s.obey(p, at, now)
}

// claim is what a PoP says that it obeys, and nobody here has heard of.
type claim struct {
	at   fleet.PurgePosition
	time time.Time
}

// obey writes down that a PoP obeys. The lock is held.
func (s *Service) obey(p *place, at fleet.PurgePosition, now time.Time) {
	if at.Epoch == p.at.Epoch {
		s.measure(p.at.Number, at.Number, now)
		if len(p.marks) == 0 {
			p.after = p.at.Number
		}
	} else {
		p.marks, p.after = nil, 0
	}
	p.at, p.time, p.lower = at, now, 0
	if len(p.marks) == maxMarks {
		p.after = p.marks[maxMarks/4-1].number
		p.marks = append(p.marks[:0], p.marks[maxMarks/4:]...)
	}
	p.marks = append(p.marks, mark{at.Number, now})
	s.stir()
}

// measure observes how long commits of this process took to a PoP. The lock is held.
func (s *Service) measure(after, upTo uint64, now time.Time) {
	for i := len(s.recent) - 1; i >= 0 && s.recent[i].number > after; i-- {
		if s.recent[i].number <= upTo {
			s.metrics.obeyed.Observe(now.Sub(s.recent[i].time).Seconds())
		}
	}
}

// answer tells a PoP what it asks for.
func (s *Service) answer(ctx context.Context, m bus.Message) {
	var q fleet.PurgesRequest
	if m.Respond == nil || json.Unmarshal(m.Data, &q) != nil {
		s.metrics.foreign.Inc()
		return
	}
	s.metrics.asked.Inc()
	a, err := s.after(ctx, q.After)
	if err != nil {
		if ctx.Err() == nil {
			s.cfg.Logger.Warn("a PoP waits for purges that cannot be read", "pop", sender(m.Subject), "err", err)
		}
		return // it asks again
	}
	if a.Forgotten {
		s.metrics.forgotten.Inc()
	}
	if data, err := json.Marshal(a); err == nil {
		_ = m.Respond(data) // who asked asks again
	}
}

// after reads the log after a position.
func (s *Service) after(ctx context.Context, at fleet.PurgePosition) (*fleet.PurgesAnswer, error) {
	var a fleet.PurgesAnswer
	err := s.cfg.Store.View(ctx, func(r *store.Reader) error {
		h, alive, err := readHead(ctx, r)
		switch {
		case err != nil:
			return err
		case !alive:
			return store.ErrUnavailable // restored, and nobody began its epoch yet
		}
		a.Newest = h.position()
		if at.Epoch != h.epoch || at.Number < h.began || at.Number > h.number {
			a.Forgotten = true
			return nil
		}
		rows, err := rowsAfter(ctx, r, at.Number, fleet.MaxPurges)
		if err != nil {
			return err
		}
		if at.Number < h.number && (len(rows) == 0 || rows[0].number != at.Number+1) {
			a.Forgotten = true
			return nil
		}
		size := 0
		for i := range rows {
			if size += len(rows[i].entry) + 80; size > maxAnswer && i > 0 {
				break
			}
			a.Purges = append(a.Purges, fleet.Purge{PurgePosition: fleet.PurgePosition{Epoch: rows[i].epoch, Number: rows[i].number}, Entry: rows[i].entry})
		}
		return nil
	})
	return &a, err
}

// watch looks now and then for what was not heard, until ctx ends.
func (s *Service) watch(ctx context.Context) {
	var began time.Time // when an epoch began because of a PoP
	told := false
	for pause(ctx, look) {
		s.gauge()
		if up, _ := s.cfg.Bus.Connected(); !isClosed(up) {
			s.hears(true) // it begins anew
		}
		var h head
		err := s.cfg.Store.View(ctx, func(r *store.Reader) (err error) {
			h, _, err = readHead(ctx, r)
			return err
		})
		if err != nil {
			continue // the next look
		}
		s.mu.Lock()
		s.advance(h.position())
		var suspect fleet.PurgePosition
		for _, c := range s.claims { // those that came to be known went
			if c.at.Epoch == h.epoch && c.at.Number > max(h.number, suspect.Number) {
				suspect = c.at
			}
		}
		s.mu.Unlock()
		switch {
		case suspect.Number == 0:
		case began.IsZero() || time.Since(began) >= calm:
			if s.overtake(ctx, suspect) {
				began, told = time.Now(), false
			}
		case !told:
			told = true
			s.cfg.Logger.Warn("a PoP obeys a purge that was never given, and a new epoch began a moment ago: is there one that lies?", "number", suspect.Number)
		}
	}
}

// overtake begins an epoch after one of which a PoP knows more than the log: the store was restored and does not remember.
// PoPs find it in the answers to their heartbeats, and take everything for purged.
func (s *Service) overtake(ctx context.Context, suspect fleet.PurgePosition) bool {
	var h head
	before := uint64(0)
	_, err := s.cfg.Store.Update(ctx, store.Change{Author: "purge"}, func(tx *store.Tx) (err error) {
		if h, err = takeHead(ctx, tx); err != nil {
			return err
		}
		before = h.epoch
		if suspect.Epoch == h.epoch && suspect.Number > h.number {
			h, err = beginEpoch(ctx, tx, h)
		}
		return err
	})
	if err != nil {
		s.cfg.Logger.Error("an epoch of purges cannot be begun", "err", err)
		return false
	}
	s.mu.Lock()
	s.advance(h.position())
	s.mu.Unlock()
	if h.epoch == before {
		return false // another control plane gave it
	}
	s.mu.Lock()
	clear(s.claims)
	s.mu.Unlock()
	s.metrics.epochs.Inc()
	s.cfg.Logger.Warn("a PoP obeys a purge that this store never gave, so it was restored: a new epoch begins, in which everything counts as purged", "epoch", h.epoch, "number", suspect.Number)
	return true
}

// gauge counts the PoPs that are heard of.
func (s *Service) gauge() {
	now, heard, behind := time.Now(), 0, 0
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, p := range s.pops {
		switch {
		case now.Sub(p.seen) > s.cfg.Limits.Age:
			delete(s.pops, name)
			s.stir()
		case p.alive(now):
			heard++
			if !p.obeys(s.newest, s.newest.Number) {
				behind++
			}
		}
	}
	s.metrics.pops.Set(float64(heard))
	s.metrics.behind.Set(float64(behind))
}
