package http3

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/relais-edge/relais/internal/http/deadline"

	"github.com/quic-go/quic-go"

	"github.com/relais-edge/relais/internal/http/message"
)

func TestPatience(t *testing.T) {
	const limit = 30 * time.Second
	for _, tt := range []struct {
		name string
		p    pace
		rate int64
		want time.Duration
	}{
		{"nothing came yet", pace{}, 240, limit},
		{"no rate is no limit", pace{waited: 1 << 40}, 0, limit},
		{"what was waited for is used up", pace{waited: 20_000}, 240, 10 * time.Second},
		{"all is used up", pace{bytes: 100, waited: 60_000}, 240, 0},
		{"bytes earn time", pace{bytes: 240 * 15, waited: 40_000}, 240, 5 * time.Second},
		{"who was fast may pause, but not for longer than the limit", pace{bytes: 1 << 50, waited: 1_000_000}, 240, limit},
	} {
		if got := tt.p.patience(limit, tt.rate); got != tt.want {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
}

// A client may open its windows again only when it has read half of what they held.
func TestPatienceForAnAnswer(t *testing.T) {
	const limit = 30 * time.Second
	for _, tt := range []struct {
		name string
		p    pace
		rate int64
		want time.Duration
	}{
		{"nothing was taken yet", pace{}, 240, limit},
		{"no rate", pace{bytes: 1 << 30}, 0, limit},
		{"half of a window of 48,000 bytes lasts 100 s", pace{bytes: 48_000}, 240, 100 * time.Second},
		{"of a large window no longer than this", pace{bytes: 1 << 40}, 240, deadline.MostSilence * limit},
		{"what was waited for is used up", pace{bytes: 48_000, waited: 220_000}, 240, 10 * time.Second},
	} {
		if got := tt.p.answerPatience(limit, tt.rate); got != tt.want {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
}

// trickleIn sends a byte of a body each pause until the answer comes.
func trickleIn(str *quic.Stream, pause time.Duration) string {
	done := make(chan string, 1)
	go func() { done <- answer(str) }()
	for {
		select {
		case got := <-done:
			return got
		case <-time.After(pause):
			_, _ = str.Write([]byte{'x'})
		}
	}
}

// TestABodyThatTricklesIsGivenUp: each byte comes in time, but all together they are too slow.
func TestABodyThatTricklesIsGivenUp(t *testing.T) {
	h := &handler{serve: say}
	s, addr := own(t, ServerConfig{BodyTimeout: 500 * time.Millisecond, BodyRate: 240}, h)
	r := dialRaw(t, addr, settings)
	str := r.open(headers(post("content-length", "100000")...) + "\x00\x80\x01\x86\xa0")
	if got := trickleIn(str, 20*time.Millisecond); !strings.HasPrefix(got, "200 ") || !strings.HasSuffix(got, "request body: body_timeout") {
		t.Errorf("got %.300q", got)
	}
	if n := s.Stats().Slow; n != 1 {
		t.Errorf("%d slow streams were counted", n)
	}
}

func TestABodyThatComesFastEnoughMayPause(t *testing.T) {
	h := &handler{serve: say}
	s, addr := own(t, ServerConfig{BodyTimeout: 1500 * time.Millisecond, BodyRate: 100}, h)
	r := dialRaw(t, addr, settings)
	str := r.open(headers(post("content-length", "1008")...) + "\x00\x43\xf0" + strings.Repeat("x", 1000))
	for range 8 { // together far longer than the limit for one wait
		time.Sleep(250 * time.Millisecond)
		_, _ = str.Write([]byte{'x'})
	}
	_ = str.Close()
	if got := answer(str); !strings.HasSuffix(got, "x EOF") {
		t.Errorf("got %.300q", got)
	}
	if n := s.Stats().Slow; n != 0 {
		t.Errorf("%d slow streams were counted", n)
	}
}

// A call that only listens says nothing for as long as it lasts, and does not end its side.
func TestAClientOfGRPCMayBeSilentOnceItIsAnswered(t *testing.T) {
	const limit = 200 * time.Millisecond
	for _, kind := range []string{"application/grpc", "text/plain"} {
		for _, waits := range []bool{true, false} { // for the body, before the answer begins
			t.Run(fmt.Sprintf("%s %v", kind, waits), func(t *testing.T) {
				read, body := make(chan error, 1), make(chan struct{})
				h := &handler{serve: func(ctx context.Context, r *message.Request) *message.Response {
					r.Control.MayBlock()
					began := make(chan struct{})
					go func() {
						if !waits {
							<-began
						}
						_, err := drain(ctx, r.Body)
						read <- err
					}()
					if waits {
						time.Sleep(limit / 4)
					}
					return &message.Response{Status: 200, ContentLength: -1, Body: untilClosed{body, began}}
				}}
				s, addr := own(t, ServerConfig{BodyTimeout: limit, BodyRate: 240}, h)
				str := dialRaw(t, addr, settings).open(headers(post("content-type", kind)...) + frame(frameData, "what do you have?"))
				if kind != "application/grpc" {
					until(t, "it was not cut", func() bool { return s.Stats().Slow == 1 })
				} else if from := s.watch.Now(); true {
					until(t, "the clock stands still", func() bool { return s.watch.Now()-from > 5*limit.Milliseconds() })
					_ = str.Close()
				}
				if err := <-read; (err == io.EOF) != (kind == "application/grpc") {
					t.Errorf("the body ended with %v", err)
				}
				close(body)
				if got := answer(str); got != "200" {
					t.Errorf("got %q", got)
				}
			})
		}
	}
}

// untilClosed is the body of an answer that brings nothing until its channel is closed.
type untilClosed struct{ end, began chan struct{} }

func (b untilClosed) Next(ctx context.Context) ([]byte, error) {
	close(b.began)
	select {
	case <-b.end:
		return nil, io.EOF
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (untilClosed) Close(error) {}

// takeSlowly reads n bytes of an answer each pause, until its end or an error.
func takeSlowly(str *quic.Stream, n int, pause time.Duration) (sum int, err error) {
	b := make([]byte, n)
	_ = str.SetDeadline(time.Now().Add(30 * time.Second))
	for {
		m, err := str.Read(b)
		if sum += m; err != nil {
			return sum, err
		}
		time.Sleep(pause)
	}
}

// TestAnAnswerThatIsTakenSlowly: what is too slow on average is given up though some of it is taken
// all the time; what is fast enough is not, however long one piece takes.
func TestAnAnswerThatIsTakenSlowly(t *testing.T) {
	for _, tt := range []struct {
		name string
		rate int64
		slow bool
	}{
		{"slower than the rate", 100 << 20, true},
		{"faster than the rate", 10 << 10, false},
		{"no rate", 0, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			const size = 2 << 20
			h := &handler{serve: func(context.Context, *message.Request) *message.Response {
				return text(200, strings.Repeat("x", size)) // one write
			}}
			s, addr := own(t, ServerConfig{WriteTimeout: 300 * time.Millisecond, WriteRate: tt.rate}, h)
			r := dialRaw(t, addr, settings, func(c *quic.Config) {
				c.InitialStreamReceiveWindow, c.MaxStreamReceiveWindow = 16<<10, 16<<10
				c.InitialConnectionReceiveWindow, c.MaxConnectionReceiveWindow = 16<<10, 16<<10
			})
			str := r.open(headers(get()...))
			_ = str.Close()
			n, err := takeSlowly(str, 16<<10, 15*time.Millisecond)
			until(t, "the answer never ended", func() bool { _, o := h.last(); return o.Status != 0 })
			_, o := h.last()
			if tt.slow {
				if !errors.Is(o.Err, os.ErrDeadlineExceeded) || s.Stats().Slow != 1 || n >= size {
					t.Errorf("%v after %d bytes, %+v", o.Err, n, s.Stats())
				}
				return
			}
			if o.Err != nil || n < size || s.Stats().Slow != 0 {
				t.Errorf("%v %v after %d bytes, %+v", o.Err, err, n, s.Stats())
			}
		})
	}
}

func TestShed(t *testing.T) {
	hold := make(chan struct{})
	s, addr := own(t, ServerConfig{}, &handler{serve: func(_ context.Context, r *message.Request) *message.Response {
		if string(r.Path()) == "/hold" {
			r.Control.MayBlock()
			<-hold
		}
		return text(200, "x")
	}})
	if got := s.Shed(); got != deadline.ShedNothing {
		t.Fatal(got)
	}
	// One is busy, two are idle, and one says nothing.
	busy := dialRaw(t, addr, settings)
	under := busy.open(headers(":method", "GET", ":scheme", "https", ":authority", "a", ":path", "/hold"))
	_ = under.Close()
	until(t, "the request did not come", func() bool { return s.Stats().Requests == 1 })
	idle := dialRaw(t, addr, settings)
	if got := idle.ask(headers(get()...)); got != "200 x" {
		t.Fatal(got)
	}
	ids := goAways(idle)
	until(t, "the clock stands still", after(s, 2))
	newer := dialRaw(t, addr, settings)
	if got := newer.ask(headers(get()...)); got != "200 x" {
		t.Fatal(got)
	}
	silent := dialRaw(t, addr, settings)
	until(t, "not all have come", func() bool { return s.Conns() == 4 })
	until(t, "nothing is idle", func() bool { return s.Shed() == deadline.ShedIdle })
	if got := idle.closed(); got != "connection 0x100" {
		t.Errorf("the one that was idle for longest: %s", got)
	}
	if id, ok := <-ids; !ok || id != 4 { // RFC 9114 section 5.2: 0 was served, no more
		t.Errorf("GOAWAY with %d %v", id, ok)
	}
	until(t, "the next is not idle", func() bool { return s.Shed() == deadline.ShedIdle })
	if got := newer.closed(); got != "connection 0x100" {
		t.Errorf("the next: %s", got)
	}
	until(t, "the silent one stays", func() bool { return s.Shed() == deadline.ShedSilent })
	if got := silent.closed(); got != "connection 0x100" {
		t.Errorf("the silent one: %s", got)
	}
	if got := s.Shed(); got != deadline.ShedNothing {
		t.Errorf("then %d", got)
	}
	close(hold)
	if got := answer(under); got != "200 x" {
		t.Errorf("the busy one: %q", got)
	}
}

// after says whether so many ticks of the server's clock have passed.
func after(s *Server, ticks int64) func() bool {
	from := s.watch.Now()
	return func() bool { return s.watch.Now()-from >= ticks*tick.Milliseconds() }
}
