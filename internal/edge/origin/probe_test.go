package origin

import (
	"context"
	"errors"
	"testing"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/http/http1"
	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/stage"
)

func TestStatusesThatACheckWants(t *testing.T) {
	for _, c := range []struct {
		status int
		list   []string
		want   bool
	}{
		{200, nil, true},
		{399, nil, true},
		{404, nil, false},
		{199, nil, false},
		{200, []string{"204"}, false},
		{204, []string{"204"}, true},
		{404, []string{"204", "4xx"}, true},
		{500, []string{"4xx"}, false},
	} {
		if got := statusWanted(c.status, c.list); got != c.want {
			t.Errorf("%d of %v: %t", c.status, c.list, got)
		}
	}
}

func TestHealthCheckResponses(t *testing.T) {
	for _, c := range []struct {
		name string
		body []byte
		code string
		ok   bool
	}{
		{"SERVING", []byte{0, 0, 0, 0, 2, 8, 1}, "0", true},
		{"with a field that is not known", []byte{0, 0, 0, 0, 5, 0x12, 1, 'x', 8, 1}, "0", true},
		{"NOT_SERVING", []byte{0, 0, 0, 0, 2, 8, 2}, "0", false},
		{"UNKNOWN, by an empty message", []byte{0, 0, 0, 0, 0}, "0", false},
		{"an error", []byte{0, 0, 0, 0, 2, 8, 1}, "5", false},
		{"no status of gRPC", []byte{0, 0, 0, 0, 2, 8, 1}, "", false},
		{"no message", nil, "0", false},
		{"compressed", []byte{1, 0, 0, 0, 2, 8, 1}, "0", false},
		{"two messages", []byte{0, 0, 0, 0, 2, 8, 1, 0, 0, 0, 0, 0}, "0", false},
		{"a number that does not end", []byte{0, 0, 0, 0, 2, 8, 0x80}, "0", false},
		{"a field longer than the message", []byte{0, 0, 0, 0, 2, 0x12, 9}, "0", false},
	} {
		resp := &message.Response{Status: 200, Bytes: c.body}
		if c.code != "" {
			resp.AddLine([]byte("grpc-status"), []byte(c.code))
		}
		if err := serving(t.Context(), resp); (err == nil) != c.ok {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

// stalled is a body whose end does not come in time.
type stalled struct{}

func (stalled) Next(context.Context) ([]byte, error) {
	return nil, &http1.Error{Phase: http1.PhaseBody, Timeout: true, Err: errors.New("too late")}
}
func (stalled) Close(error) {}

// Who checks tells an answer that comes too late from a wrong one, also where only its body is late.
func TestACheckWhoseBodyIsLateTimesOut(t *testing.T) {
	answer := func() *message.Response { return &message.Response{Status: 200, Body: stalled{}} }
	for name, err := range map[string]error{
		"path": wanted(t.Context(), answer(), &v1.HealthSpec{Path: "/", Body: "ready"}),
		"grpc": serving(t.Context(), answer()),
	} {
		if e := (*stage.Error)(nil); !errors.As(err, &e) || e.Status != 504 {
			t.Errorf("%s: %v", name, err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 0)
	defer cancel()
	<-ctx.Done()
	if err := wanted(ctx, answer(), &v1.HealthSpec{Path: "/", Body: "ready"}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("by the context: %v", err)
	}
}

func FuzzHealthStatus(f *testing.F) {
	for _, s := range []string{"\x08\x01", "\x12\x01x\x08\x02", "\x08\x80", "\x0d1234", "\x0912345678", "\x0b", ""} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if status, ok := healthStatus(b); !ok && status != 0 {
			t.Errorf("%x is malformed, and has status %d", b, status)
		}
	})
}
