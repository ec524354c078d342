package control

import (
	"context"
	"fmt"
	"net"

	"github.com/relais-edge/relais/internal/bundle"
	"github.com/relais-edge/relais/internal/bundle/wire"
	"github.com/relais-edge/relais/internal/control/hub"
	"github.com/relais-edge/relais/internal/control/usage"
	"github.com/relais-edge/relais/internal/manifest"
	"github.com/relais-edge/relais/internal/observe"
)

// form is the wire's, with indexes as bytes.
type form struct{}

// Encode implements hub.Wire.
func (form) Encode(b *bundle.Bundle, before []byte) (index []byte, parts [][]byte, err error) {
	var last *wire.Index
	if before != nil {
		if last, err = wire.ReadIndex(before); err != nil {
			return nil, nil, err
		}
	}
	return wire.Encode(b, last)
}

// Parts implements hub.Wire.
func (form) Parts(index []byte) ([]manifest.Ref, error) { return wire.Parts(index) }

// openFleet opens what PoPs talk to.
func (k *Control) openFleet(ctx context.Context) (err error) {
	c := k.config.Fleet
	if c == nil {
		return nil
	}
	if k.config.Metrics == nil {
		k.config.Metrics = observe.New()
	}
	receipts, err := hub.ReceiptKey(ctx, k.store, k.Vault)
	if err != nil {
		return err
	}
	if k.Usage, err = usage.New(usage.Config{Store: k.store, Tenants: k.Tenant, Key: receipts}); err != nil {
		return err
	}
	if k.enrol, err = new(net.ListenConfig).Listen(ctx, "tcp", c.Enrol); err != nil {
		return fmt.Errorf("control: %w; --enrol names another address", err)
	}
	urls := c.EnrolURLs
	if len(urls) == 0 {
		urls = []string{"https://" + k.enrol.Addr().String()}
	}
	k.Hub, err = hub.Open(ctx, hub.Config{
		Store: k.store, Vault: k.Vault, Change: k.Change, Wire: form{}, Usage: k.Usage, Domain: c.Domain, Name: label(k.config.Holder),
		BusListen: c.Bus, BusAddresses: c.BusAddresses, EnrolURLs: urls, Logger: k.logger, Metrics: k.config.Metrics,
	})
	if err != nil {
		_ = k.enrol.Close()
		k.enrol = nil
		return fmt.Errorf("control: the bus: %w; --bus names another address", err)
	}
	return nil
}

// label makes a name of a certificate of a host's: a-z, 0-9 and hyphens inside.
func label(host string) string {
	b := make([]byte, 0, len(host))
	for _, c := range []byte(host) {
		switch {
		case c >= 'A' && c <= 'Z':
			b = append(b, c+'a'-'A')
		case c >= 'a' && c <= 'z' || c >= '0' && c <= '9':
			b = append(b, c)
		case len(b) > 0 && b[len(b)-1] != '-':
			b = append(b, '-')
		}
		if len(b) == 63 {
			break
		}
	}
	for len(b) > 0 && b[len(b)-1] == '-' {
		b = b[:len(b)-1]
	}
	if len(b) == 0 {
		return "control"
	}
	return string(b)
}

// keep runs something again where it fails, until ctx ends.
func (k *Control) keep(ctx context.Context, what string, run func(context.Context) error) {
	for ctx.Err() == nil {
		if err := run(ctx); err != nil && ctx.Err() == nil {
			k.logger.Error("background work failed", "work", what, "err", err)
			pause(ctx, again)
		}
	}
}
