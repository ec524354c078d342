package pop

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/relais-edge/relais/internal/bundle"
	"github.com/relais-edge/relais/internal/bus"
	"github.com/relais-edge/relais/internal/fleet"
	"github.com/relais-edge/relais/internal/manifest"
)

// ErrNothing: nothing that could be served is on the disk.
var ErrNothing = errors.New("nothing to serve is kept on this machine yet")

// Boot puts in service what was served last, without a control plane. A state whose process died twice before it was good
// is given up for the one before. ErrNothing says that this PoP never served anything.
func (a *Agent) Boot(ctx context.Context) error {
	all := a.disk.list()
	if to, back := a.target(); back { // whoever went back did so for a reason
		slices.SortStableFunc(all, func(x, y *state) int {
			switch {
			case x.head.Position == to && y.head.Position != to:
				return -1
			case y.head.Position == to && x.head.Position != to:
				return 1
			}
			return 0
		})
	}
	t := a.disk.trial()
	for i, s := range all {
		if t.Refused == s.head.Position && time.Now().Before(t.Again) && i+1 < len(all) {
			continue
		}
		if t.Position == s.head.Position {
			if t.Starts++; t.Starts > 1 && i+1 < len(all) {
				a.giveUp(&t, s.head.Position)
				continue
			}
		} else if t.Position == (manifest.Position{}) || i > 0 || !t.Position.After(s.head.Position) {
			t.Position, t.Starts = s.head.Position, 0
		}
		if t.Position == s.head.Position {
			t.Process = a.started.UnixNano()
		}
		if err := a.disk.setTrial(t); err != nil {
			a.trouble(fmt.Errorf("the disk: %w", err))
		}
		err := a.bootWith(ctx, s)
		if err == nil {
			return nil
		}
		a.cfg.Logger.Error("a kept state cannot be served", "revision", s.head.Revision, "err", err)
		a.report(fleet.Report{Kind: fleet.ReportFellBack, Text: fmt.Sprintf("state %d.%d on the disk cannot be served: %v", s.head.Epoch, s.head.Revision, err)})
		a.metrics.fellBack.Add(1)
	}
	return ErrNothing
}

// giveUp leaves a state alone for a while.
func (a *Agent) giveUp(t *trial, p manifest.Position) {
	*t = trial{Refused: p, Again: time.Now().Add(giveUp)}
	a.metrics.fellBack.Add(1)
	a.report(fleet.Report{Kind: fleet.ReportFellBack, Text: fmt.Sprintf("the process ended twice soon after it took state %d.%d; the one before is served", p.Epoch, p.Revision)})
}

// bootWith serves a state from the disk. Tenants of which it is not whole there wait for the control plane.
func (a *Agent) bootWith(ctx context.Context, s *state) error {
	if s.Held == nil {
		s.Held = map[string]held{}
	}
	bundles, missing := map[string]*bundle.Bundle{}, 0
	for _, t := range s.Tenants {
		was, served := s.serves(t.Organization)
		if !served {
			continue
		}
		b, err := a.fromDisk(&was)
		if err != nil {
			missing++
			// Not refused, only not had: the table is asked for anew.
			s.Held[t.Organization] = held{Tenant: manifest.Tenant{Organization: t.Organization}, Why: cut(err.Error())}
			continue
		}
		bundles[t.Organization] = b
	}
	if len(bundles) == 0 && missing > 0 {
		return fmt.Errorf("none of its %d tenants is whole", missing)
	}
	if err := a.serveBooted(ctx, s, bundles); err != nil {
		return err
	}
	if missing > 0 {
		a.trouble(fmt.Errorf("%d of %d tenants are not whole on the disk", missing, len(s.Tenants)))
		a.mu.Lock()
		a.current.head.Position = manifest.Position{Epoch: s.head.Epoch} // whatever comes is newer
		a.mu.Unlock()
	}
	return nil
}

func (a *Agent) serveBooted(ctx context.Context, s *state, bundles map[string]*bundle.Bundle) error {
	if err := a.cfg.Loader.ApplyTenants(ctx, bundles); err != nil {
		if ctx.Err() != nil {
			return err
		}
		if err := a.oneByOne(ctx, &state{table: manifest.NewTable(nil)}, s, bundles); err != nil {
			return err
		}
	}
	a.mu.Lock()
	a.current = s
	a.mu.Unlock()
	a.metrics.position.Set(float64(s.head.Revision))
	a.cfg.Served(s.head.Position)
	a.settle(s)
	return nil
}

func (a *Agent) fromDisk(t *manifest.Tenant) (*bundle.Bundle, error) {
	index := a.disk.blob(t.Index)
	if index == nil {
		return nil, fmt.Errorf("blob %s is not whole on the disk", t.Index.Digest)
	}
	refs, err := a.cfg.Loader.Parts(index)
	if err != nil {
		return nil, err
	}
	parts := make([][]byte, len(refs))
	for i, r := range refs {
		if parts[i] = a.disk.blob(r); parts[i] == nil {
			return nil, fmt.Errorf("blob %s is not whole on the disk", r.Digest)
		}
	}
	return decode(a.cfg.Loader, t.Organization, index, parts)
}

// beat tells the control plane where this PoP is, and does what it answers.
func (a *Agent) beat(ctx context.Context) {
	a.mu.Lock()
	b := fleet.Beat{
		Version: cut(a.cfg.Version), Formats: []int{bundle.Format}, Started: a.started.UTC(), Time: time.Now().UTC(), Keys: a.keys.Set().Number,
		Pinned: cut(a.pinned()), Problem: cut(a.problem), Table: manifest.NewTable(nil).Digest(), Purged: a.purges.at(),
	}
	if c := a.current; c != nil {
		b.Position, b.Table = c.head.Position, c.table.Digest()
		for org, h := range c.Held {
			if len(b.Refused) < fleet.MaxRefused && h.Refused != (manifest.Digest{}) {
				b.Refused = append(b.Refused, fleet.Refused{Organization: org, Index: h.Refused, Why: h.Why})
			}
		}
		if b.Revision == 0 { // not whole: the table is asked for anew
			b.Table = manifest.Digest{}
		}
	}
	watched := a.watched
	a.mu.Unlock()
	if a.cfg.Counters != nil {
		b.Gauges, b.Watched = a.cfg.Counters.Gauges(), make(map[string]fleet.Sample, len(watched))
		for _, org := range watched {
			b.Watched[org] = a.cfg.Counters.Sample(org)
		}
	}
	data, err := json.Marshal(&b)
	if err != nil {
		return
	}
	wait, cancel := context.WithTimeout(ctx, beatPatience)
	defer cancel()
	got, err := a.cfg.Bus.Request(wait, bus.Up(a.cfg.Pop, bus.Beat), data)
	if err != nil {
		return // nobody leads for the moment, or the way is broken: the next one
	}
	var answer fleet.BeatAnswer
	if json.Unmarshal(got, &answer) != nil {
		return
	}
	a.mu.Lock()
	a.watched = answer.Watch[:min(len(answer.Watch), fleet.MaxWatched)]
	a.mu.Unlock()
	if len(answer.Keys) > 0 {
		a.hearKeys(answer.Keys)
	}
	a.tellOrders()
	a.purges.newest(answer.Purge)
	if answer.Head != nil {
		a.offer(&fleet.Head{Signed: *answer.Head})
	}
}

// hearKeys takes a newer key set over.
func (a *Agent) hearKeys(data []byte) {
	var s manifest.SignedKeys
	if err := json.Unmarshal(data, &s); err != nil {
		a.refuse("", fmt.Errorf("%w: %w", manifest.ErrForm, err))
		return
	}
	a.mu.Lock()
	next, err := a.keys.Renew(&s, time.Now())
	if err == nil {
		a.keys = next
	}
	a.mu.Unlock()
	switch {
	case errors.Is(err, manifest.ErrOlder):
	case err != nil:
		a.refuse("", err)
	default:
		set := next.Set()
		if err := a.disk.writeSealed(keysFile, &set); err != nil {
			a.trouble(fmt.Errorf("the keys cannot be kept on the disk: %w", err))
		}
		a.soon()
	}
}
