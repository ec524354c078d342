package balance

import (
	"context"
	"io"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/bundle"
	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/observe"
	"github.com/relais-edge/relais/internal/snapshot"
	"github.com/relais-edge/relais/internal/stage"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// rig is a stage with one site and an origin made of functions.
type rig struct {
	*Stage
	origins fakeOrigins
	site    *snapshot.Site
	route   *snapshot.Route
	metrics *observe.Registry
}

func newRig(t testing.TB, pools map[string]*v1.OriginPoolSpec) *rig {
	t.Helper()
	r := &rig{metrics: observe.New()}
	r.Stage = New(Config{Slot: 2}, &r.origins, r.metrics)
	r.route = &snapshot.Route{Spec: &v1.Route{}}
	r.site = &snapshot.Site{Organization: "org", Name: "shop", Spec: &bundle.Site{}, Parts: make([]any, stage.Slots)}
	r.compile(t, pools)
	return r
}

func (r *rig) compile(t testing.TB, pools map[string]*v1.OriginPoolSpec) {
	t.Helper()
	r.site.Spec = &bundle.Site{Pools: pools}
	p, err := r.Compile(r.site, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.site.Parts[2] = p
}

func (r *rig) prepare(x *stage.Exchange, method string, body message.Body) {
	x.Reset()
	x.Start, x.In, x.Site, x.Route, x.Pool = time.Now(), &message.Request{Body: body}, r.site, r.route, "shop"
	x.Out.SetMethod([]byte(method))
	if body != nil {
		x.Out.ContentLength = -1
	}
}

type next func(ctx context.Context, x *stage.Exchange) (*message.Response, error)

func (f next) Serve(ctx context.Context, x *stage.Exchange) (*message.Response, error) {
	return f(ctx, x)
}

// pieces is a body that comes in pieces.
type pieces struct {
	list   []string
	err    error // in place of io.EOF
	closed int
}

func (p *pieces) Next(context.Context) ([]byte, error) {
	if len(p.list) == 0 {
		if p.err != nil {
			return nil, p.err
		}
		return nil, io.EOF
	}
	b := p.list[0]
	p.list = p.list[1:]
	return []byte(b), nil
}

func (p *pieces) Close(error) { p.closed++ }

func pull(b message.Body) (string, error) {
	if b == nil {
		return "", nil
	}
	var s strings.Builder
	for {
		p, err := b.Next(context.Background())
		s.Write(p)
		if err == io.EOF {
			return s.String(), nil
		}
		if err != nil {
			return s.String(), err
		}
	}
}

func codes(x *stage.Exchange) (list []string) {
	for _, m := range x.Trail.Marks() {
		list = append(list, m.Code)
	}
	return list
}

var (
	errRefused = &stage.Error{Code: "connection_refused", Side: stage.SideOrigin, Status: 502, Retry: true}
	errCut     = &stage.Error{Code: "connection_terminated", Side: stage.SideOrigin, Status: 502, Retry: true}
	errBad     = &stage.Error{Code: "http_request_error", Side: stage.SideClient, Status: 400}
)

// idle checks that every place and every byte was given back.
func (r *rig) idle(t testing.TB) {
	t.Helper()
	for _, p := range r.Status() {
		for _, tier := range p.Tiers {
			if tier.InFlight != 0 {
				t.Errorf("%s: %d in flight", tier.Name, tier.InFlight)
			}
			for _, o := range tier.Origins {
				if o.InFlight != 0 {
					t.Errorf("%s: %d in flight", o.Address, o.InFlight)
				}
			}
		}
	}
	for _, p := range r.pools {
		if n := p.retries.under.Load(); n != 0 {
			t.Errorf("%d retries under way", n)
		}
	}
	if n := r.bodies.used.Load(); n != 0 {
		t.Errorf("%d bytes of bodies kept", n)
	}
}
