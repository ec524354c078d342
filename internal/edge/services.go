package edge

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"time"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/bundle"
	"github.com/relais-edge/relais/internal/edge/balance"
	"github.com/relais-edge/relais/internal/edge/l4"
	"github.com/relais-edge/relais/internal/edge/origin"
	"github.com/relais-edge/relais/internal/edge/proxyproto"
	"github.com/relais-edge/relais/internal/edge/record"
	"github.com/relais-edge/relais/internal/stage"
)

// servicePools joins balance and origin for services.
type servicePools struct {
	balance *balance.Stage
	origin  *origin.Handler
}

// Pool implements l4.Pools.
func (p servicePools) Pool(key bundle.Key, spec *v1.OriginPoolSpec) (l4.Pool, error) {
	pool, err := p.balance.Pool(key, spec)
	if err != nil {
		return nil, err
	}
	return servicePool{pool, p.origin}, nil
}

type servicePool struct {
	pool   *balance.Pool
	origin *origin.Handler
}

// Connect implements l4.Pool: it tries origins until one takes the connection, as often as the pool's
// retries allow.
func (p servicePool) Connect(ctx context.Context, network string, from *proxyproto.Header, l *l4.Link) error {
	var tried balance.Tried
	var failed error
	retry := false
	defer func() {
		if retry {
			p.pool.EndRetry()
		}
	}()
	for {
		slot, err := p.place(ctx, from, &tried, l.Tries)
		if err != nil {
			if failed == nil {
				failed = err
			}
			return failed
		}
		l.Tries++
		l.Tier, l.Origin, l.Spilled, l.Spill = slot.Tier(), slot.Address(), slot.Spilled, slot.Spill()
		var nc net.Conn
		if nc, err = p.origin.Dial(ctx, slot.Target(), network, from); err == nil {
			if network != "udp" { // over UDP nothing is known yet
				slot.Reached()
			}
			l.Conn, l.Place = nc, &servicePlace{slot}
			return nil
		}
		failed = err
		e := stage.AsError(err)
		if e.Side == stage.SideOrigin {
			slot.Release(balance.Failed)
		} else {
			slot.Release(balance.Abandoned)
		}
		tried.Add(&slot)
		if retry {
			p.pool.EndRetry()
			retry = false
		}
		if !e.Retry || ctx.Err() != nil || l.Tries > p.pool.Attempts() || !p.pool.Retry() {
			return failed
		}
		retry = true
	}
}

var errServiceFull = &stage.Error{Code: "destination_unavailable", Side: stage.SideEdge, Status: 503, Err: balance.ErrFull}

// place picks a slot. When all that has room was tried it waits a moment and forgets the tries.
func (p servicePool) place(ctx context.Context, from *proxyproto.Header, tried *balance.Tried, tries int) (balance.Slot, error) {
	client := from.Source.Addr()
	slot, err := p.pool.Place(client, tried)
	if errors.Is(err, balance.ErrTried) {
		d := 10 * time.Millisecond << min(tries, 4)
		select {
		case <-ctx.Done():
			return slot, errServiceFull
		case <-time.After(d/2 + rand.N(d)):
		}
		*tried = balance.Tried{}
		slot, err = p.pool.Place(client, tried)
	}
	if err != nil {
		return slot, errServiceFull
	}
	return slot, nil
}

// servicePlace implements l4.Place.
type servicePlace struct{ slot balance.Slot }

// Release implements l4.Place.
func (p *servicePlace) Release(failed bool) {
	if failed {
		p.slot.Release(balance.Failed)
		return
	}
	p.slot.Release(balance.Abandoned) // Reached has told of the good begin
}

// recordConnection hands what a service's connection was to the log and the ring, and has it counted.
func (e *Edge) recordConnection(c *l4.Ended) {
	e.recorder.Connection((*record.Connection)(c))
	organization, name := bundle.Key(c.Service).Split()
	e.meter.Connection(organization, name, c.Received, c.Sent, c.Start.Add(c.Took))
}

// tlsAddresses are the addresses on which listeners end TLS over TCP.
func tlsAddresses(b *bundle.Bundle) map[string]bool {
	out := map[string]bool{}
	for i := range b.Listeners {
		s := &b.Listeners[i].Spec
		out[s.Address] = s.TLS != nil && (len(s.Protocols) != 1 || s.Protocols[0] != v1.ProtocolH3)
	}
	return out
}

// tcpAddresses are the addresses on which listeners receive over TCP.
func tcpAddresses(b *bundle.Bundle) map[string]bool {
	out := map[string]bool{}
	for i := range b.Listeners {
		s := &b.Listeners[i].Spec
		out[s.Address] = len(s.Protocols) != 1 || s.Protocols[0] != v1.ProtocolH3
	}
	return out
}

// clientCertificates are the certificates that pools show to origins.
func clientCertificates(b *bundle.Bundle) []bundle.Certificate {
	named := map[bundle.Key]bool{}
	for key, spec := range pools(b) {
		if t := spec.Connection.TLS; t != nil && t.ClientCertificate != "" {
			org, _ := key.Split()
			named[bundle.NewKey(org, t.ClientCertificate)] = true
		}
	}
	var out []bundle.Certificate
	for i := range b.Certificates {
		if named[b.Certificates[i].Key] {
			out = append(out, b.Certificates[i])
		}
	}
	return out
}
