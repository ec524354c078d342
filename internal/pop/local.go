package pop

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/relais-edge/relais/internal/bundle"
	"github.com/relais-edge/relais/internal/fleet"
	"github.com/relais-edge/relais/internal/manifest"
)

// Local is what people ordered at the PoP itself, past the control plane. It ends by itself.
type Local struct {
	Pin *Pin `json:"pin,omitempty"`
}

// Pin keeps a PoP where it is.
type Pin struct {
	By     string    `json:"by"`
	Reason string    `json:"reason"`
	Until  time.Time `json:"until"`
}

// maxPin bounds a pin: who wants more says so to the control plane.
const maxPin = 24 * time.Hour

func (l *Local) pinned(now time.Time) string {
	if l.Pin == nil || !now.Before(l.Pin.Until) {
		return ""
	}
	return fmt.Sprintf("by %s until %s: %s", l.Pin.By, l.Pin.Until.UTC().Format(time.RFC3339), l.Pin.Reason)
}

// Errors of orders.
var (
	ErrOrder  = errors.New("an order names who gives it and why, and ends within a day")
	ErrNoKept = errors.New("there is no such state; relais pop status lists them")
)

// SetPin keeps the PoP where it is, until a time.
func (a *Agent) SetPin(by, reason string, d time.Duration) error {
	if by == "" || reason == "" || d <= 0 || d > maxPin {
		return ErrOrder
	}
	return a.order(Local{Pin: &Pin{By: cut(by), Reason: cut(reason), Until: time.Now().Add(d)}}, fmt.Sprintf("pinned for %s by %s: %s", d, by, reason))
}

// Unpin has the PoP follow again.
func (a *Agent) Unpin(by, reason string) error {
	if by == "" || reason == "" {
		return ErrOrder
	}
	return a.order(Local{}, fmt.Sprintf("follows again, by %s: %s", by, reason))
}

func (a *Agent) order(l Local, text string) error {
	if err := a.disk.writeSealed(localFile, &l); err != nil {
		return err
	}
	a.mu.Lock()
	a.local = l
	a.mu.Unlock()
	a.report(fleet.Report{Kind: fleet.ReportOrdered, Text: text + " (at " + hostname() + ")"})
	a.soon()
	return nil
}

// GoBack serves a kept state again, and pins the PoP there.
func (a *Agent) GoBack(ctx context.Context, to manifest.Position, by, reason string, d time.Duration) error {
	for _, s := range a.disk.list() {
		if s.head.Position != to {
			continue
		}
		a.work.Lock()
		defer a.work.Unlock()
		if err := a.SetPin(by, reason, d); err != nil {
			return err
		}
		return a.goBack(ctx, s)
	}
	return ErrNoKept
}

func (a *Agent) goBack(ctx context.Context, s *state) error {
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
	a.mu.Lock()
	current := a.current
	a.mu.Unlock()
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
	a.soon()
	return nil
}
