package rollout

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/relais-edge/relais/internal/bus"
	"github.com/relais-edge/relais/internal/control/store"
	"github.com/relais-edge/relais/internal/fleet"
	"github.com/relais-edge/relais/internal/manifest"
)

// marks are the counters of PoPs at the beginning of an organization's rollout and of its ring.
type marks struct {
	before map[string]fleet.Sample // when the rollout began
	ring   map[string]fleet.Sample // when the ring was entered
	calm   map[string]fleet.Gauges
}

// mark begins, renews or ends the marks of an organization.
func (l *lead) mark(org string, old, s *State) {
	switch {
	case s.Moving == nil && s.Waiting == nil:
		delete(l.marks, org)
	case s.Moving == nil:
	case old == nil || old.Moving == nil || old.Stable.Revision != s.Stable.Revision:
		l.marks[org] = &marks{map[string]fleet.Sample{}, map[string]fleet.Sample{}, l.gauges()}
	case old.Moving.At != s.Moving.At:
		m := l.marks[org]
		if m == nil {
			m = &marks{before: map[string]fleet.Sample{}}
			l.marks[org] = m
		}
		m.ring = map[string]fleet.Sample{}
		if old.Moving.Ring != s.Moving.Ring || m.calm == nil {
			m.calm = l.gauges() // one that takes another's place is held against what was before both
		}
	}
}

func (l *lead) gauges() map[string]fleet.Gauges {
	g := make(map[string]fleet.Gauges, len(l.pops))
	for name, p := range l.pops {
		g[name] = p.beat.Gauges
	}
	return g
}

// places are what is known of the PoPs that serve an organization.
func (l *lead) places(org string, s *State) []Place {
	m := l.marks[org]
	if m == nil {
		m = &marks{}
	}
	now := time.Now()
	list := make([]Place, 0, len(l.pops))
	for name, p := range l.pops {
		if !l.book.Serves(org, p.pop) {
			continue
		}
		place := Place{Pop: name, Labels: p.pop.Labels, Alive: p.alive(now), Confirmed: p.confirmed(l.at), Before: m.before[name], Calm: m.calm[name], Load: p.beat.Gauges}
		if sample, there := p.beat.Watched[org]; there && m.ring != nil {
			if _, marked := m.ring[name]; marked {
				place.Since = sample.Sub(m.ring[name])
			}
		}
		if s.Moving != nil && place.Confirmed >= s.Moving.At {
			place.Refused = p.refusal(org, s.Moving.Index.Digest)
		}
		list = append(list, place)
	}
	slices.SortFunc(list, func(a, b Place) int { return strings.Compare(a.Pop, b.Pop) })
	return list
}

func (p *live) alive(now time.Time) bool { return !p.seen.IsZero() && now.Sub(p.seen) < away }

// confirmed is the fleet's revision that a PoP serves: the newest where it has the table that it should.
func (p *live) confirmed(at manifest.Position) uint64 {
	switch {
	case p.seen.IsZero() || p.beat.Epoch != at.Epoch:
		return 0
	case p.should != nil && p.beat.Table == p.should.Digest():
		return at.Revision
	}
	return p.beat.Revision
}

func (p *live) refusal(org string, index manifest.Digest) string {
	for i := range p.beat.Refused {
		if r := &p.beat.Refused[i]; r.Organization == org && r.Index == index {
			return r.Why
		}
	}
	return ""
}

// beat takes a heartbeat in and answers it.
func (l *lead) beat(m bus.Message) {
	l.c.metrics.beats.Add(1)
	name := sender(m.Subject)
	p := l.pops[name]
	var b fleet.Beat
	if p == nil || json.Unmarshal(m.Data, &b) != nil || len(b.Watched) > fleet.MaxWatched || len(b.Refused) > fleet.MaxRefused {
		l.c.metrics.foreign.Add(1)
		return
	}
	before := p.beat
	p.seen, p.beat = time.Now(), b
	l.count(name, &b)
	if before.Table != b.Table || before.Position != b.Position || len(b.Refused) > 0 {
		l.changed = true
	}
	if m.Respond == nil {
		return
	}
	a := fleet.BeatAnswer{Watch: l.watched()}
	if l.c.cfg.Purges != nil {
		a.Purge = l.c.cfg.Purges.Newest()
	}
	if b.Table != p.should.Digest() {
		if b.Epoch > l.at.Epoch || b.Epoch == l.at.Epoch && b.Revision >= l.at.Revision {
			l.overtake(b.Position)
		}
		signed, err := l.sign(p)
		if err != nil {
			return
		}
		a.Head, p.told = signed, nil
	} else if p.told == nil {
		p.told = p.should
	}
	if data, err := json.Marshal(&a); err == nil {
		_ = m.Respond(data) // the next heartbeat asks again
	}
}

// overtake takes a position after one that a PoP has: the store was restored and does not remember. What it says from now
// on is newer for every PoP.
func (l *lead) overtake(p manifest.Position) {
	next := manifest.Position{Epoch: l.at.Epoch, Revision: l.at.Revision + 1}
	if p.Epoch > l.at.Epoch || p.Revision > l.at.Revision {
		next = manifest.Position{Epoch: max(p.Epoch, l.at.Epoch) + 1, Revision: l.at.Revision + 1}
		l.c.cfg.Logger.Warn("a PoP has a newer manifest than this control plane remembers; a new epoch begins", "epoch", next.Epoch)
	}
	ctx, cancel := context.WithTimeout(context.Background(), away)
	defer cancel()
	_, err := l.c.cfg.Store.Update(ctx, store.Change{Author: "rollout", Lease: l.lease}, func(tx *store.Tx) error { return setPosition(ctx, tx, next) })
	if err != nil {
		l.c.cfg.Logger.Error("the fleet's position cannot be written", "err", err)
		return
	}
	l.at = next
}

// count notes what a PoP had counted when a rollout or a ring began: the first that it tells.
func (l *lead) count(pop string, b *fleet.Beat) {
	for org, m := range l.marks {
		sample, there := b.Watched[org]
		if !there {
			continue
		}
		if _, known := m.before[pop]; !known {
			m.before[pop] = sample
		}
		if _, known := m.ring[pop]; !known {
			m.ring[pop] = sample
		}
	}
}

// watched are the organizations that PoPs count apart: those under way, as many as there is room for.
func (l *lead) watched() []string {
	orgs := l.active()
	return orgs[:min(len(orgs), fleet.MaxWatched)]
}

// sender is the PoP of a subject up.NAME.what.
func sender(subject string) string {
	_, rest, _ := strings.Cut(subject, ".")
	i := strings.LastIndexByte(rest, '.')
	if i < 0 {
		return ""
	}
	return rest[:i]
}

// answerTable gives a page of a PoP's table.
func (l *lead) answerTable(m bus.Message) {
	p := l.pops[sender(m.Subject)]
	var q fleet.TableRequest
	if p == nil || m.Respond == nil || json.Unmarshal(m.Data, &q) != nil {
		l.c.metrics.foreign.Add(1)
		return
	}
	a := fleet.TableAnswer{Gone: q.Table != p.should.Digest()}
	if !a.Gone {
		list := p.should.Tenants()
		i, _ := slices.BinarySearchFunc(list, q.After, func(t manifest.Tenant, name string) int {
			if t.Organization <= name && name != "" {
				return -1
			}
			return 1
		})
		list = list[i:]
		n := min(len(list), fleet.TablePage)
		a.Tenants, a.More = list[:n], n < len(list)
	}
	if data, err := json.Marshal(&a); err == nil {
		_ = m.Respond(data) // who asked asks again
	}
}

// piece reads what a request for a blob asks for.
func (c *Conductor) piece(ctx context.Context, request []byte) []byte {
	var q fleet.BlobRequest
	if json.Unmarshal(request, &q) != nil {
		c.metrics.foreign.Add(1)
		return fleet.PieceAnswer(nil)
	}
	data, err := c.read(ctx, q.Digest)
	if err != nil {
		if !errors.Is(err, ErrNoBlob) && ctx.Err() == nil {
			c.cfg.Logger.Error("a blob cannot be read", "err", err)
		}
		return fleet.PieceAnswer(nil)
	}
	if q.Offset < 0 || q.Offset > int64(len(data)) {
		c.metrics.foreign.Add(1)
		return fleet.PieceAnswer(nil)
	}
	return fleet.PieceAnswer(data[q.Offset:min(int64(len(data)), q.Offset+fleet.Piece)])
}
