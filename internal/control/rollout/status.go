package rollout

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/relais-edge/relais/internal/control/store"
	"github.com/relais-edge/relais/internal/fleet"
	"github.com/relais-edge/relais/internal/manifest"
)

// PopStatus is what the leader last knew of a PoP.
type PopStatus struct {
	Pop      string            `json:"pop"`
	Seen     time.Time         `json:"seen"` // zero: never
	Alive    bool              `json:"alive"`
	Current  bool              `json:"current"` // serves what it should
	Position manifest.Position `json:"position"`
	Version  string            `json:"version,omitempty"`
	Purged   uint64            `json:"purged"`
	Refused  []fleet.Refused   `json:"refused,omitempty"`
	Pinned   string            `json:"pinned,omitempty"`
	Problem  string            `json:"problem,omitempty"`
	Gauges   fleet.Gauges      `json:"gauges"`
}

// keepPops writes down what is known of the PoPs, for those who ask another control plane.
func (l *lead) keepPops(ctx context.Context) error {
	now := time.Now()
	heard, behind := 0, 0
	if !slices.ContainsFunc(slices.Collect(maps.Values(l.pops)), func(p *live) bool { return !p.seen.IsZero() }) {
		return nil
	}
	_, err := l.c.cfg.Store.Update(ctx, store.Change{Author: "rollout", Lease: l.lease}, func(tx *store.Tx) error {
		for name, p := range l.pops {
			s := PopStatus{
				Pop: name, Alive: p.alive(now), Current: p.should != nil && p.beat.Table == p.should.Digest(), Position: p.beat.Position, Version: p.beat.Version,
				Purged: p.beat.Purged.Number, Refused: p.beat.Refused, Pinned: p.beat.Pinned, Problem: p.beat.Problem, Gauges: p.beat.Gauges,
			}
			if p.seen.IsZero() {
				continue
			}
			s.Seen = tx.Now().Add(-now.Sub(p.seen)).UTC()
			if s.Alive {
				heard++
				if !s.Current {
					behind++
				}
			}
			body, err := json.Marshal(&s)
			if err != nil {
				return err
			}
			if _, err := tx.Exec(ctx, "write a PoP", "INSERT INTO rollout_pops (pop, seen, body) VALUES ($1, $2, $3) ON CONFLICT (pop) DO UPDATE SET seen = excluded.seen, body = excluded.body",
				name, s.Seen.UnixMicro(), body); err != nil {
				return err
			}
		}
		return nil
	})
	if errors.Is(err, store.ErrFenced) {
		return err
	}
	l.c.metrics.pops.Set(float64(heard))
	l.c.metrics.behind.Set(float64(behind))
	if err != nil {
		l.c.cfg.Logger.Warn("what is known of PoPs could not be written down", "err", err)
	}
	return nil
}

// Pops are all PoPs that were ever heard of, as the leader last knew them.
func Pops(ctx context.Context, r *store.Reader) ([]PopStatus, error) {
	return store.Rows(ctx, r, "read the PoPs", func(rows *sql.Rows) (s PopStatus, err error) {
		var body []byte
		if err := rows.Scan(&body); err != nil {
			return s, err
		}
		if err := json.Unmarshal(body, &s); err != nil {
			return s, err
		}
		s.Alive = s.Alive && r.Now().Sub(s.Seen) < away+10*time.Second
		return s, nil
	}, "SELECT body FROM rollout_pops ORDER BY pop")
}

// Of gives an organization's rollout.
func Of(ctx context.Context, r *store.Reader, organization string) (*State, error) {
	return stateOf(ctx, r, organization)
}

// LoggedEvent is an event with its number and time.
type LoggedEvent struct {
	Seq  int64     `json:"seq"`
	Time time.Time `json:"time"`
	Event
}

// Events are those of an organization after a number, the oldest first.
func Events(ctx context.Context, r *store.Reader, organization string, after int64, limit int) ([]LoggedEvent, error) {
	entries, err := r.Entries(ctx, organization, eventLog, after, limit)
	if err != nil {
		return nil, err
	}
	list := make([]LoggedEvent, 0, len(entries))
	for _, e := range entries {
		x := LoggedEvent{Seq: e.Seq, Time: e.Time}
		if err := json.Unmarshal(e.Body, &x.Event); err != nil {
			return nil, err
		}
		list = append(list, x)
	}
	return list, nil
}

// replay has recorded requests played against what waits, where its policy asks for that.
func (l *lead) replay(ctx context.Context, org string, s *State, p *Policy) {
	w := s.Waiting
	if w == nil || !p.Replay.On || w.Replayed != nil || w.Emergency || s.Moving != nil || l.replaying != "" {
		return
	}
	l.replaying = org
	served, next := s.Stable.Index, w.Version
	go func() {
		v := &Verdict{Missing: true}
		if l.c.cfg.Replayer != nil && served.Size > 0 {
			got, err := l.c.cfg.Replayer.Replay(ctx, org, served, next.Index)
			if err != nil {
				l.c.cfg.Logger.Warn("recorded requests could not be replayed", "organization", org, "err", err)
			} else {
				v = got
			}
		}
		select {
		case l.replayed <- replayed{org, next, v}:
		case <-ctx.Done():
		}
	}()
}

// take notes what a replay said.
func (l *lead) take(r replayed) {
	l.replaying = ""
	s := l.states[r.organization]
	if s == nil || s.Waiting == nil || s.Waiting.Version != r.version {
		return
	}
	c := s.clone()
	c.Waiting.Replayed = r.verdict
	l.states[r.organization] = &c
	l.changed = true
}
