// Package maintenance closes a site while it is worked on.
//
// The stage stands after the visitor is known and before anything that costs. Visitors with a
// basket go on unless the document says otherwise, so that an order that was begun can be
// completed; so do the networks that the document names, and the proof of names to certificate
// authorities. All others, crawlers among them, get the page with Retry-After, also for what
// is stored.
package maintenance

import (
	"bytes"
	"context"
	"errors"
	"net/netip"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/observe"
	"github.com/relais-edge/relais/internal/snapshot"
	"github.com/relais-edge/relais/internal/stage"
)

// Code is that of the stage's error.
const Code = "maintenance"

// acme is where certificate authorities ask for proof (RFC 8555 section 8.3).
const acme = "/.well-known/acme-challenge/"

// Stage closes sites. It implements stage.Stage and stage.Compiler.
type Stage struct {
	slot                     stage.Slot
	refused, allowed, spared observe.Counter
}

var (
	_ stage.Stage    = (*Stage)(nil)
	_ stage.Compiler = (*Stage)(nil)
)

// New returns the stage.
func New(slot stage.Slot, m *observe.Registry) *Stage {
	f := m.Counters("relais_maintenance_requests_total", "Requests for sites in maintenance, by what was decided.", 3, "decision")
	return &Stage{slot, f.With("refused"), f.With("allowed"), f.With("basket")}
}

// Name implements stage.Stage.
func (s *Stage) Name() string { return "maintenance" }

// part is a site that is closed.
type part struct {
	closed *stage.Error
	allow  []netip.Prefix
	spare  bool
}

var errClosed = errors.New("the site is in maintenance")

// Compile implements stage.Compiler.
func (s *Stage) Compile(site *snapshot.Site, _ stage.Part) (stage.Part, error) {
	m := site.Spec.Maintenance
	if m == nil || !m.Enabled {
		return nil, nil
	}
	p := &part{spare: m.AllowProtected == nil || *m.AllowProtected, closed: &stage.Error{
		Code: Code, Side: stage.SideTenant, Status: m.Status, RetryAfter: v1.Value(m.RetryAfter).Std(), Err: errClosed,
	}}
	for _, text := range m.Allow {
		n, err := netip.ParsePrefix(text)
		if err != nil {
			a, err := netip.ParseAddr(text)
			if err != nil {
				return nil, err
			}
			n = netip.PrefixFrom(a, a.BitLen())
		}
		p.allow = append(p.allow, n)
	}
	return p, nil
}

// Serve implements stage.Stage.
func (s *Stage) Serve(ctx context.Context, x *stage.Exchange, next stage.Handler) (*message.Response, error) {
	p, _ := x.Site.Parts[s.slot].(*part)
	switch {
	case p == nil:
	case p.allows(x):
		s.allowed.Inc()
		x.Mark("maintenance", "allowed")
	case p.spare && x.Visitor.Class == stage.Protected:
		s.spared.Inc()
		x.Mark("maintenance", "basket")
	default:
		s.refused.Inc()
		x.Mark("maintenance", "closed")
		return nil, p.closed
	}
	return next.Serve(ctx, x)
}

func (p *part) allows(x *stage.Exchange) bool {
	if bytes.HasPrefix(x.Path, []byte(acme)) {
		return true
	}
	client := x.Client.Unmap()
	for i := range p.allow {
		if p.allow[i].Contains(client) {
			return true
		}
	}
	return false
}
