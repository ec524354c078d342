package pop

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"time"

	"github.com/relais-edge/relais/internal/bundle"
	"github.com/relais-edge/relais/internal/bus"
	"github.com/relais-edge/relais/internal/fleet"
	"github.com/relais-edge/relais/internal/manifest"
	"github.com/relais-edge/relais/internal/pop/orders"
)

// Switcher leaves protections out; exactly those of the orders.
type Switcher interface {
	Switch(ctx context.Context, list []orders.Order) error
}

// ordersFile is the book of orders, in the agent's folder.
const ordersFile = "orders.json"

// ErrNotKept: a state to go back to is not on this machine.
var ErrNotKept = errors.New("no such state is kept here")

// Orders is the book in which people at the PoP write.
func (a *Agent) Orders() *orders.Book { return a.book }

// pinned says which order keeps the PoP where it is; empty where none does.
func (a *Agent) pinned() string {
	for _, o := range a.book.Active() {
		if o.Act == orders.Pin || o.Act == orders.Rollback {
			return o.String()
		}
	}
	return ""
}

// target is the state to which an order goes back.
func (a *Agent) target() (manifest.Position, bool) {
	for _, o := range a.book.Active() {
		if o.Act == orders.Rollback {
			return o.To, true
		}
	}
	return manifest.Position{}, false
}

// followOrders carries orders out, and has the PoP follow again once they end.
func (a *Agent) followOrders(ctx context.Context) error {
	for {
		a.carryOut(ctx)
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-a.book.Changed():
		}
	}
}

func (a *Agent) carryOut(ctx context.Context) {
	a.work.Lock()
	defer a.work.Unlock()
	if a.cfg.Switcher != nil {
		switches := slices.DeleteFunc(a.book.Active(), func(o orders.Order) bool { return o.Act != orders.Switch })
		if err := a.cfg.Switcher.Switch(ctx, switches); err != nil && ctx.Err() == nil {
			a.trouble(err)
		}
	}
	if to, back := a.target(); back {
		if err := a.goBack(ctx, to); err != nil && ctx.Err() == nil {
			a.trouble(err)
		}
	}
	a.soon()
}

// hearOrder takes what the control plane wants of this PoP: an order, or, with no act, the end of one. It answers with an
// error's text, or with nothing.
func (a *Agent) hearOrder(m bus.Message) {
	var o orders.Order
	err := json.Unmarshal(m.Data, &o)
	if err == nil {
		o.Local, o.Told = false, true
		if o.Act == "" {
			_, err = a.book.End(o.ID)
		} else {
			_, err = a.book.Give(o)
		}
	}
	if m.Respond == nil {
		return
	}
	text := ""
	if err != nil {
		text = cut(err.Error())
	}
	_ = m.Respond([]byte(text)) // who asked asks again
}

// tellOrders tells the control plane of what was ordered here.
func (a *Agent) tellOrders() {
	for _, o := range a.book.Active() {
		if !o.Local || o.Told {
			continue
		}
		data, err := json.Marshal(&fleet.Report{Kind: fleet.ReportOrdered, Organization: o.Organization, Text: cut(o.String()), Time: o.Given})
		if err == nil && a.cfg.Bus.Publish(bus.Up(a.cfg.Pop, bus.Report), data) == nil {
			_ = a.book.Told(o.ID) // told twice after a restart does no harm
		}
	}
}

// goBack serves a kept state again. With a.work.
func (a *Agent) goBack(ctx context.Context, to manifest.Position) error {
	a.mu.Lock()
	current := a.current
	a.mu.Unlock()
	if current != nil && current.head.Position == to {
		return nil
	}
	all := a.disk.list()
	i := slices.IndexFunc(all, func(s *state) bool { return s.head.Position == to })
	if i < 0 {
		return ErrNotKept
	}
	s := all[i]
	changed := map[string]*bundle.Bundle{}
	for _, t := range s.Tenants {
		was, served := s.serves(t.Organization)
		if !served {
			continue
		}
		b, err := a.fromDisk(&was)
		if err != nil {
			return err
		}
		changed[t.Organization] = b
	}
	if current != nil {
		for _, t := range current.Tenants {
			if _, stays := changed[t.Organization]; !stays {
				changed[t.Organization] = nil
			}
		}
	}
	if err := a.cfg.Loader.ApplyTenants(ctx, changed); err != nil {
		return err
	}
	a.mu.Lock()
	a.current = s
	a.mu.Unlock()
	a.cfg.Served(to)
	a.cfg.Logger.Warn("a former state is served by order of a person", "revision", to.Revision, "since", time.Now().Format(time.RFC3339))
	return nil
}
