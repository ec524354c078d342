package origin

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
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

const (
	// probeBody is how much of an answer's body is looked at.
	probeBody = 64 << 10
	// probeUnary bounds the answer of grpc.health.v1, which has two bytes.
	probeUnary = 1 << 10
)

// Probe makes the active check that spec asks for on a connection of its own, with host as the authority: a
// request for a path, a call of grpc.health.v1.Health/Check, or the opening of a connection alone. It takes
// no place among the pool's connections. An error says why the check failed. Ctx must end in time.
func (h *Handler) Probe(ctx context.Context, t stage.Target, host string, spec *v1.HealthSpec) error {
	e, ok := t.(*endpoint)
	if !ok {
		return errors.New("the target is not one of this handler")
	}
	deadline, _ := ctx.Deadline()
	nc, p, err := e.connect(ctx, wish{host: hostPart([]byte(host)), proxy: &proxyproto.Header{}, deadline: deadline}, e.spec.Protocol)
	if err != nil {
		return connectFault(ctx, err)
	}
	if spec.Path == "" && spec.GRPC == nil {
		_ = nc.Close()
		return nil
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
	req.Proto = message.HTTP11
	req.Secure = e.tls != nil
	req.SetAuthority([]byte(host))
	req.AddString(message.UserAgent, "relais-health")
	if spec.GRPC != nil {
		callHealth(&req, spec.GRPC.Service)
	} else {
		askPath(&req, spec)
	}
	if e.signer != nil {
		req.AddString(message.XRequestId, "health-"+strconv.FormatUint(rand.Uint64(), 36))
		e.signer.sign(&req, e.tls != nil, time.Now())
	}
	if err := exchange(ctx, &req, &resp, http1.Try{Head: deadline}); err != nil {
		return exchangeFault(ctx, asError(err))
	}
	if spec.GRPC != nil {
		err = serving(ctx, &resp)
	} else {
		err = wanted(ctx, &resp, spec)
	}
	if resp.Body != nil {
		resp.Body.Close(errUnfinished)
	}
	return err
}

func askPath(req *message.Request, spec *v1.HealthSpec) {
	req.SetMethod([]byte("GET"))
	path, query, found := strings.Cut(spec.Path, "?")
	req.SetPath([]byte(path))
	if found {
		req.SetQuery([]byte(query))
	}
	for _, f := range spec.Headers {
		req.SetLine(f.Name, []byte(f.Value))
	}
	if !req.Has(message.Accept) {
		req.AddString(message.Accept, "*/*")
	}
}

// wanted says whether the answer is the one that the check wants.
func wanted(ctx context.Context, resp *message.Response, spec *v1.HealthSpec) error {
	if !statusWanted(resp.Status, spec.Statuses) {
		return fmt.Errorf("the answer has status %d", resp.Status)
	}
	if spec.Body == "" {
		return nil
	}
	b, err := readAtMost(ctx, resp, probeBody)
	switch {
	case bytes.Contains(b, []byte(spec.Body)):
		return nil
	case err != nil:
		return exchangeFault(ctx, asError(err))
	}
	return fmt.Errorf("%q is not in the first %d bytes of the answer", spec.Body, len(b))
}

// statusWanted compares a status with codes and classes; without any, 200 to 399 are good.
func statusWanted(status int, list []string) bool {
	if len(list) == 0 {
		return status >= 200 && status < 400
	}
	text := strconv.Itoa(status)
	for _, s := range list {
		if s == text || strings.HasSuffix(s, "xx") && s[0] == text[0] {
			return true
		}
	}
	return false
}

// readAtMost reads so many bytes of an answer's body, or all.
func readAtMost(ctx context.Context, resp *message.Response, most int) ([]byte, error) {
	b := bytes.Clone(resp.Bytes)
	for resp.Body != nil && len(b) < most {
		p, err := resp.Body.Next(ctx)
		b = append(b, p...)
		if err == io.EOF {
			break
		}
		if err != nil {
			return b, err
		}
	}
	return b[:min(len(b), most)], nil
}

// callHealth makes req a call of Check: a message with one field, the service (grpc.health.v1).
func callHealth(req *message.Request, service string) {
	body := make([]byte, 5, 16+len(service))
	if service != "" {
		body = append(body, 1<<3|2)
		body = binary.AppendUvarint(body, uint64(len(service)))
		body = append(body, service...)
	}
	binary.BigEndian.PutUint32(body[1:], uint32(len(body)-5))
	req.SetMethod([]byte("POST"))
	req.SetPath([]byte("/grpc.health.v1.Health/Check"))
	req.AddString(message.ContentType, "application/grpc")
	req.AddString(message.TE, "trailers")
	req.Body, req.ContentLength = &oneBody{body}, int64(len(body))
}

// oneBody is a body that is there already.
type oneBody struct{ b []byte }

func (o *oneBody) Next(context.Context) ([]byte, error) {
	b := o.b
	o.b = nil
	return b, io.EOF
}

func (o *oneBody) Close(error) {}

var healthNames = [...]string{"UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN"}

// serving says whether an answer of Check says SERVING.
func serving(ctx context.Context, resp *message.Response) error {
	if resp.Status != 200 {
		return fmt.Errorf("the answer has status %d", resp.Status)
	}
	b, err := readAtMost(ctx, resp, probeUnary)
	if err != nil {
		return exchangeFault(ctx, asError(err))
	}
	code := resp.Lookup("grpc-status")
	if resp.Trailer != nil && code == nil {
		code = resp.Trailer.Lookup("grpc-status")
	}
	if string(code) != "0" {
		return fmt.Errorf("the call ended with grpc-status %q", code)
	}
	if len(b) < 5 || b[0] != 0 || int(binary.BigEndian.Uint32(b[1:])) != len(b)-5 {
		return errors.New("the answer is not one message of gRPC")
	}
	if status, ok := healthStatus(b[5:]); !ok || status != 1 {
		if status < uint64(len(healthNames)) && ok {
			return errors.New("the service is " + healthNames[status])
		}
		return errors.New("the answer is not a HealthCheckResponse")
	}
	return nil
}

// healthStatus reads the field status of a HealthCheckResponse; false when it is malformed.
func healthStatus(b []byte) (status uint64, ok bool) {
	for len(b) > 0 {
		tag, n := binary.Uvarint(b)
		if n <= 0 {
			return 0, false
		}
		b = b[n:]
		skip := uint64(0)
		switch tag & 7 {
		case 0:
			v, n := binary.Uvarint(b)
			if n <= 0 {
				return 0, false
			}
			if tag>>3 == 1 {
				status = v
			}
			skip = uint64(n)
		case 1:
			skip = 8
		case 2:
			l, n := binary.Uvarint(b)
			if n <= 0 || l > uint64(len(b)) {
				return 0, false
			}
			skip = uint64(n) + l
		case 5:
			skip = 4
		default:
			return 0, false
		}
		if skip > uint64(len(b)) {
			return 0, false
		}
		b = b[skip:]
	}
	return status, true
}
