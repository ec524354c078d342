package maintenance

import (
	"context"
	"errors"
	"net/netip"
	"testing"
	"time"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/bundle"
	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/observe"
	"github.com/relais-edge/relais/internal/snapshot"
	"github.com/relais-edge/relais/internal/stage"
)

type open struct{}

func (open) Serve(_ context.Context, x *stage.Exchange) (*message.Response, error) {
	x.Response.Status = 200
	return &x.Response, nil
}

func TestAClosedSiteIsOpenForBasketsAndAllowedNetworks(t *testing.T) {
	for _, c := range []struct {
		name   string
		spec   *v1.Maintenance
		client string
		path   string
		class  stage.Class
		open   bool
		mark   string
	}{
		{"no maintenance", nil, "192.0.2.1", "/", stage.Anonymous, true, ""},
		{"not enabled", &v1.Maintenance{}, "192.0.2.1", "/", stage.Anonymous, true, ""},
		{"anonymous", &v1.Maintenance{Enabled: true}, "192.0.2.1", "/", stage.Anonymous, false, "closed"},
		{"known", &v1.Maintenance{Enabled: true}, "192.0.2.1", "/", stage.Known, false, "closed"},
		{"basket", &v1.Maintenance{Enabled: true}, "192.0.2.1", "/", stage.Protected, true, "basket"},
		{"basket refused", &v1.Maintenance{Enabled: true, AllowProtected: new(false)}, "192.0.2.1", "/", stage.Protected, false, "closed"},
		{"network", &v1.Maintenance{Enabled: true, Allow: []string{"192.0.2.0/24"}}, "::ffff:192.0.2.1", "/", stage.Anonymous, true, "allowed"},
		{"address", &v1.Maintenance{Enabled: true, Allow: []string{"2001:db8::1"}}, "2001:db8::1", "/", stage.Anonymous, true, "allowed"},
		{"other network", &v1.Maintenance{Enabled: true, Allow: []string{"10.0.0.0/8"}}, "192.0.2.1", "/", stage.Anonymous, false, "closed"},
		{"acme", &v1.Maintenance{Enabled: true}, "192.0.2.1", "/.well-known/acme-challenge/x", stage.Anonymous, true, "allowed"},
	} {
		if c.spec != nil {
			c.spec.Status, c.spec.RetryAfter = 503, new(v1.Duration(5*time.Minute))
		}
		s := New(0, observe.New())
		site := &snapshot.Site{Spec: &bundle.Site{Maintenance: c.spec}, Parts: make([]any, stage.Slots)}
		p, err := s.Compile(site, nil)
		if err != nil {
			t.Fatal(err)
		}
		site.Parts[0] = p
		x := &stage.Exchange{Site: site, Client: netip.MustParseAddr(c.client), Path: []byte(c.path), Visitor: stage.Visitor{Class: c.class}}
		_, err = s.Serve(t.Context(), x, open{})
		if (err == nil) != c.open {
			t.Errorf("%s: %v", c.name, err)
		}
		var e *stage.Error
		if errors.As(err, &e) && (e.Status != 503 || e.RetryAfter != 5*time.Minute || e.Code != Code) {
			t.Errorf("%s: %+v", c.name, e)
		}
		if marks := x.Trail.Marks(); (c.mark == "") != (len(marks) == 0) || c.mark != "" && marks[0].Code != c.mark {
			t.Errorf("%s: trail %v, want %s", c.name, marks, c.mark)
		}
	}
}
