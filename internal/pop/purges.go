package pop

import (
	"context"
	"encoding/json"
	"errors"
	"sync"

	"github.com/relais-edge/relais/internal/bus"
	"github.com/relais-edge/relais/internal/fleet"
)

// purges makes the numbered purges of the control plane hold here, in their order and without a gap.
type purges struct {
	agent *Agent
	wake  chan struct{}

	mu     sync.Mutex
	done   fleet.PurgePosition
	known  bool // done is something that was told, and not a beginning
	queue  []fleet.Purge
	behind bool // there are some that did not come by themselves
}

// maxQueued bounds those that wait; beyond it they are asked for.
const maxQueued = 4096

func newPurges(a *Agent) *purges {
	p := &purges{agent: a, wake: make(chan struct{}, 1)}
	p.done, p.known = a.disk.purged()
	p.behind = true
	return p
}

func (p *purges) at() fleet.PurgePosition {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.done
}

// hear takes one that came by itself.
func (p *purges) hear(m bus.Message) {
	var e fleet.Purge
	if json.Unmarshal(m.Data, &e) != nil {
		return // the next heartbeat tells that one is missing
	}
	p.mu.Lock()
	if len(p.queue) < maxQueued {
		p.queue = append(p.queue, e)
	} else {
		p.behind = true
	}
	p.mu.Unlock()
	p.stir()
}

// newest is told with a heartbeat.
func (p *purges) newest(n fleet.PurgePosition) {
	if n.Epoch == 0 { // nobody numbers purges there
		return
	}
	p.mu.Lock()
	late := n.Epoch != p.done.Epoch || n.Number > p.done.Number
	p.behind = p.behind || late && len(p.queue) == 0
	p.mu.Unlock()
	if late {
		p.stir()
	}
}

func (p *purges) stir() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// run obeys until ctx ends.
func (p *purges) run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-p.wake:
		}
		if err := p.obey(ctx); err != nil && ctx.Err() == nil && !errors.Is(err, bus.ErrAway) && !errors.Is(err, bus.ErrNobody) {
			p.agent.trouble(err)
		}
	}
}

// obey applies what came, and asks for what did not.
func (p *purges) obey(ctx context.Context) error {
	for {
		p.mu.Lock()
		queue, behind := p.queue, p.behind
		p.queue, p.behind = nil, false
		p.mu.Unlock()
		if len(queue) == 0 && !behind {
			return nil
		}
		gap, err := p.apply(ctx, queue)
		if err == nil && (gap || behind) {
			err = p.pull(ctx)
		}
		if err != nil {
			p.mu.Lock()
			p.behind = true // a heartbeat tries again
			p.mu.Unlock()
			return err
		}
	}
}

// apply makes those of a list hold that follow what is done, and says whether there is a gap before the rest.
func (p *purges) apply(ctx context.Context, list []fleet.Purge) (gap bool, err error) {
	done := p.at()
	var entries [][]byte
	for _, e := range list {
		switch {
		case e.Epoch < done.Epoch || e.Epoch == done.Epoch && e.Number <= done.Number:
		case e.Epoch == done.Epoch && e.Number == done.Number+1:
			entries = append(entries, e.Entry)
			done = e.PurgePosition
		default:
			gap = true
		}
	}
	if len(entries) == 0 {
		return gap, nil
	}
	if err := p.agent.cfg.Purger.Purge(ctx, entries); err != nil {
		return gap, err
	}
	p.finish(done)
	return gap, nil
}

// finish remembers, and tells the control plane.
func (p *purges) finish(done fleet.PurgePosition) {
	p.mu.Lock()
	p.done, p.known = done, true
	p.mu.Unlock()
	if err := p.agent.disk.writeSealed(purgeFile, &done); err != nil {
		p.agent.trouble(err)
	}
	if data, err := json.Marshal(&fleet.Purged{PurgePosition: done}); err == nil {
		_ = p.agent.cfg.Bus.Publish(bus.Up(p.agent.cfg.Pop, bus.Purged), data) // the heartbeat tells it too
	}
}

// pull asks for what did not come.
func (p *purges) pull(ctx context.Context) error {
	for {
		p.mu.Lock()
		done, known := p.done, p.known
		p.mu.Unlock()
		var answer fleet.PurgesAnswer
		if err := p.agent.ask(ctx, bus.Purges, &fleet.PurgesRequest{After: done}, func(data []byte) error { return json.Unmarshal(data, &answer) }); err != nil {
			return err
		}
		if answer.Newest == done {
			return nil
		}
		if answer.Forgotten || !known || len(answer.Purges) > 0 && answer.Purges[0].Epoch != done.Epoch {
			// What was purged in between is not known: all that is stored may be among it.
			if err := p.agent.cfg.Purger.PurgeAll(ctx); err != nil {
				return err
			}
			p.finish(answer.Newest)
			return nil
		}
		gap, err := p.apply(ctx, answer.Purges)
		if err != nil {
			return err
		}
		if gap || len(answer.Purges) == 0 {
			return errors.New("the purges that were asked for have a gap")
		}
	}
}
