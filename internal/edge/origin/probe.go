package origin

import (
	"context"
	"errors"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/edge/proxyproto"
	"github.com/relais-edge/relais/internal/http/http1"
	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/stage"
)

// Probe asks an origin for a path on a connection of its own and returns the status of the
// answer; without a path it only connects. It takes no place among the pool's connections. Ctx must
// end in time.
func (h *Handler) Probe(ctx context.Context, t stage.Target, host, path string) (int, error) {
	e, ok := t.(*endpoint)
	if !ok {
		return 0, errors.New("the target is not one of this handler")
	}
	deadline, _ := ctx.Deadline()
	nc, p, err := e.connect(ctx, wish{host: hostPart([]byte(host)), proxy: &proxyproto.Header{}, deadline: deadline}, e.spec.Protocol)
	if err != nil {
		return 0, connectFault(ctx, err)
	}
	if path == "" {
		_ = nc.Close()
		return 0, nil
	}
	var exchange func(context.Context, *message.Request, *message.Response, http1.Try) error
	if p == v1.OriginH2 || p == v1.OriginH2C {
		hc := h.client2.NewConn(nc, nil)
		defer func() { _ = hc.Close() }()
		go func() { _ = hc.Run(ctx) }()
		hc.Reserve()
		exchange = hc.RoundTrip
	} else {
		hc := h.client.NewConn(nc, nil)
		defer func() { _ = hc.Close() }()
		exchange = hc.RoundTrip
	}
	var req message.Request
	var resp message.Response
	req.SetMethod([]byte("GET"))
	req.Proto = message.HTTP11
	req.Secure = e.tls != nil
	req.SetAuthority([]byte(host))
	path, query, found := strings.Cut(path, "?")
	req.SetPath([]byte(path))
	if found {
		req.SetQuery([]byte(query))
	}
	req.AddString(message.UserAgent, "relais-health")
	req.AddString(message.Accept, "*/*")
	if e.signer != nil {
		req.AddString(message.XRequestId, "health-"+strconv.FormatUint(rand.Uint64(), 36))
		e.signer.sign(&req, e.tls != nil, time.Now())
	}
	if err := exchange(ctx, &req, &resp, http1.Try{Head: deadline}); err != nil {
		return 0, exchangeFault(ctx, asError(err))
	}
	if resp.Body != nil {
		resp.Body.Close(errUnfinished)
	}
	return resp.Status, nil
}
