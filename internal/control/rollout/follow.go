package rollout

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/relais-edge/relais/internal/control/store"
)

// TopicOrder is the topic of what people want of rollouts.
const TopicOrder = "rollout.order"

// Order is what a person wants of an organization's rollout.
type Order struct {
	Do     Do     `json:"do"`
	By     string `json:"by"`
	Reason string `json:"reason"`
}

// Do is what an Order does.
type Do string

// What orders do.
const (
	DoPause    Do = "pause"    // what moves stays in its ring
	DoResume   Do = "resume"   // and goes on
	DoExpedite Do = "expedite" // the emergency lane
	DoAbort    Do = "abort"    // what moves, or waits, is taken back
)

// Give puts an order into the transaction that decides that it may be given.
func Give(ctx context.Context, tx *store.Tx, organization string, o Order) error {
	switch o.Do {
	case DoPause, DoResume, DoExpedite, DoAbort:
	default:
		return fmt.Errorf("%w: an order is to pause, resume, expedite or abort, not to %q", store.ErrInvalid, o.Do)
	}
	body, err := json.Marshal(o)
	if err != nil {
		return err
	}
	return tx.Emit(ctx, TopicOrder, organization, body)
}

// page is how many messages of the outbox are read at once.
const page = 100

// follow reads the outbox and compiles what changed, beside the loop, which goes on meanwhile.
func (l *lead) follow(ctx context.Context) error {
	s := l.c.cfg.Store
	if err := l.catchUp(ctx); err != nil {
		return forgive(ctx, err)
	}
	for {
		if err := s.Wait(ctx, consumer); err != nil {
			return forgive(ctx, err)
		}
		list, err := s.Messages(ctx, consumer, page)
		var lost *store.LostError
		if errors.As(err, &lost) {
			if _, err = s.Skip(ctx, consumer); err == nil {
				err = l.catchUp(ctx)
			}
		}
		if err != nil {
			return forgive(ctx, err)
		}
		newest := map[string]int64{} // of several revisions of one organization the newest is compiled
		for i := range list {
			newest[list[i].Organization] = max(newest[list[i].Organization], list[i].Revision)
		}
		for i := range list {
			if err := l.tell(ctx, &list[i], list[i].Revision == newest[list[i].Organization]); err != nil {
				return forgive(ctx, err)
			}
		}
		if len(list) > 0 {
			if err := s.Acknowledge(ctx, consumer, list[len(list)-1].ID); err != nil {
				return forgive(ctx, err)
			}
		}
	}
}

// forgive takes the end of ctx for no error.
func forgive(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// catchUp compiles what changed while nobody listened: organizations whose revision is newer than what is rolled out.
func (l *lead) catchUp(ctx context.Context) error {
	var behind []store.Message
	err := l.c.cfg.Store.View(ctx, func(r *store.Reader) error {
		known, err := states(ctx, r)
		if err != nil {
			return err
		}
		orgs, err := r.Organizations(ctx)
		if err != nil {
			return err
		}
		for org, revision := range orgs {
			if strings.HasPrefix(org, "~") { // the control plane's own
				continue
			}
			s := known[org]
			if s == nil {
				s = &State{}
			}
			c := s.clone()
			if c.Offer(Version{Revision: revision}, false, r.Now()) {
				behind = append(behind, store.Message{Topic: store.TopicRevision, Organization: org, Revision: revision})
			}
		}
		return nil
	})
	for i := range behind {
		if err == nil {
			err = l.tell(ctx, &behind[i], true)
		}
	}
	return err
}

// tell makes news of a message and waits until the loop has taken it in.
func (l *lead) tell(ctx context.Context, m *store.Message, newest bool) error {
	n := news{message: *m, done: make(chan error, 1)}
	switch m.Topic {
	case TopicOrder:
		n.order = &Order{}
		if err := json.Unmarshal(m.Payload, n.order); err != nil {
			return nil // not ours
		}
	case store.TopicRevision:
		if err := l.read(ctx, &n, newest); err != nil {
			return err
		}
	default:
		return nil
	}
	select {
	case l.news <- n:
	case <-ctx.Done():
		return nil
	}
	select {
	case err := <-n.done:
		return err
	case <-ctx.Done():
		return nil
	}
}

// read finds out what a revision is about, and compiles it where it is the newest.
func (l *lead) read(ctx context.Context, n *news, newest bool) error {
	org, rules := n.message.Organization, l.c.cfg.Rules
	return l.c.cfg.Store.View(ctx, func(r *store.Reader) error {
		cursor := ""
		for {
			list, next, err := r.Changes(ctx, org, n.message.Revision, cursor, 1000)
			if err != nil && !errors.Is(err, store.ErrNotFound) && !errors.Is(err, store.ErrPruned) {
				return err
			}
			for i := range list {
				n.rules = n.rules || rules.Concerns(list[i].Kind)
				n.urgent = n.urgent || rules.Urgent(list[i].Kind)
			}
			if cursor = next; cursor == "" {
				break
			}
		}
		if !newest {
			return nil
		}
		what, err := l.c.cfg.Compiler.Compile(ctx, r, org)
		var wrong *DocumentsError
		if errors.As(err, &wrong) {
			n.problem = wrong.Why
			return nil
		}
		n.what = what
		return err
	})
}
