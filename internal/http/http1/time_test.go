package http1

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/relais-edge/relais/internal/http/message"
)

// pipe serves h on one end of a pipe in a synctest bubble; the other end is returned. Its
// Read has no limit, so that only the server ends a wait.
func pipe(t *testing.T, cfg ServerConfig, h Handler) (*Server, net.Conn) {
	s := NewServer(cfg, h)
	ctx, cancel := context.WithCancel(context.Background())
	a, b := net.Pipe()
	go func() { _ = s.Run(ctx) }()
	go s.ServeConn(ctx, b, &message.Conn{})
	t.Cleanup(func() { _ = a.Close(); cancel(); synctest.Wait() })
	return s, a
}

// rest reads to the end and tells how long that took.
func rest(c net.Conn) (string, time.Duration) {
	from := time.Now()
	b, _ := io.ReadAll(c)
	return undated(string(b)), time.Since(from)
}

func near(t *testing.T, got, want time.Duration) {
	t.Helper()
	if got < want-100*time.Millisecond || got > want+500*time.Millisecond {
		t.Errorf("it took %v, want %v", got, want)
	}
}

func TestServerLimitsOfTime(t *testing.T) {
	cfg := ServerConfig{HeaderTimeout: 5 * time.Second, IdleTimeout: 20 * time.Second, BodyTimeout: 7 * time.Second}
	for _, c := range []struct {
		name, in, want string
		after          time.Duration
	}{
		{"nothing ever came", "", "", 5 * time.Second},
		{"half a head is answered 408", "GET / HTTP/1.1\r\nHo", "HTTP/1.1 408 Request Timeout\r\nContent-Length: 12\r\nConnection: close\r\n\r\nhead_timeout", 5 * time.Second},
		{"a slow body is answered 408", "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\na", "HTTP/1.1 408 Request Timeout\r\nContent-Length: 26\r\nConnection: close\r\n\r\nrequest body: body_timeout", 7 * time.Second},
		{"an idle connection is closed without a word", "GET / HTTP/1.1\r\nHost: h\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nGET / ", 20 * time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				_, nc := pipe(t, cfg, handlerFunc(echo))
				if c.in != "" {
					if _, err := io.WriteString(nc, c.in); err != nil {
						t.Fatal(err)
					}
				}
				got, took := rest(nc)
				if got != c.want {
					t.Errorf("got %q", got)
				}
				if c.name[0] == 'h' || c.name[2] == 's' {
					took = min(took, c.after+400*time.Millisecond) // the client is given a second to close
				}
				near(t, took, c.after)
			})
		})
	}
}

// lateKick takes its time to set a deadline in the past, and ends a context with the read that
// brings a body.
type lateKick struct {
	net.Conn
	cancel context.CancelFunc
}

func (c *lateKick) SetReadDeadline(at time.Time) error {
	if !at.IsZero() && at.Before(time.Now()) {
		time.Sleep(time.Second)
	}
	return c.Conn.SetReadDeadline(at)
}

func (c *lateKick) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if n > 0 && string(b[:n]) == "body" {
		c.cancel()
	}
	return n, err
}

func TestACallerThatGivesUpDoesNotHitTheNextRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		callers, cancel := context.WithCancel(t.Context())
		s := NewServer(ServerConfig{}, handlerFunc(func(ctx context.Context, r *message.Request) *message.Response {
			if r.Body == nil {
				return text(200, "second")
			}
			b, _ := r.Body.Next(callers)
			return text(200, string(b))
		}))
		ctx, stop := context.WithCancel(t.Context())
		a, b := net.Pipe()
		go func() { _ = s.Run(ctx) }()
		go s.ServeConn(ctx, &lateKick{b, cancel}, &message.Conn{})
		t.Cleanup(func() { _ = a.Close(); stop(); synctest.Wait() })
		got := make(chan string)
		go func() { all, _ := rest(a); got <- all }()
		for _, piece := range []string{"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\n", "body", "GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"} {
			if _, err := io.WriteString(a, piece); err != nil {
				t.Errorf("the connection was given up before %q: %v", piece, err)
			}
			time.Sleep(5 * time.Second)
		}
		if all := <-got; !strings.HasSuffix(all, "second") || !strings.Contains(all, "\r\n\r\nbody") {
			t.Errorf("got %q", all)
		}
	})
}

func TestHeadMayNotDripForever(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, nc := pipe(t, ServerConfig{HeaderTimeout: 5 * time.Second}, handlerFunc(echo))
		from := time.Now()
		dripped := make(chan bool)
		defer func() { _ = nc.Close(); <-dripped }()
		go func() {
			defer close(dripped)
			for _, c := range []byte("GET /" + strings.Repeat("a", 1000)) {
				if _, err := nc.Write([]byte{c}); err != nil {
					return
				}
				time.Sleep(100 * time.Millisecond)
			}
		}()
		b := make([]byte, 12)
		if _, err := io.ReadFull(nc, b); err != nil || string(b) != "HTTP/1.1 408" {
			t.Errorf("%q %v", b, err)
		}
		near(t, time.Since(from), 5*time.Second)
		if s.Stats().Slow != 1 || s.Stats().Refused != 1 {
			t.Errorf("%+v", s.Stats())
		}
	})
}

func TestClientThatDoesNotReadIsAborted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out message.Outcome
		ended := make(chan time.Time, 1)
		h := handlerFunc(func(context.Context, *message.Request) *message.Response {
			r := text(200, strings.Repeat("x", 1<<20))
			r.Ender = enderFunc(func(o message.Outcome) { out = o; ended <- time.Now() })
			return r
		})
		_, nc := pipe(t, ServerConfig{WriteTimeout: 9 * time.Second}, h)
		from := time.Now()
		_, _ = io.WriteString(nc, "GET / HTTP/1.1\r\nHost: h\r\n\r\n")
		near(t, (<-ended).Sub(from), 9*time.Second)
		if out.Err == nil || out.Body != 0 {
			t.Errorf("%+v", out)
		}
	})
}

type enderFunc func(message.Outcome)

func (f enderFunc) End(o message.Outcome) { f(o) }

func TestDrainClosesIdleAndLetsBusyEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := handlerFunc(func(ctx context.Context, r *message.Request) *message.Response {
			time.Sleep(10 * time.Second)
			return text(200, "done")
		})
		s, busy := pipe(t, ServerConfig{}, h)
		idle, b := net.Pipe()
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		go s.ServeConn(ctx, b, &message.Conn{})
		_, _ = io.WriteString(busy, "GET / HTTP/1.1\r\nHost: h\r\n\r\n")
		time.Sleep(time.Second)
		s.Drain()
		idled, took := rest(idle)
		if idled != "" || took > 500*time.Millisecond {
			t.Errorf("idle: %q after %v", idled, took)
		}
		before := took
		got, took := rest(busy)
		took += before
		if got != "HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\ndone" {
			t.Errorf("busy: %q", got)
		}
		near(t, took, 9*time.Second+lingerTime) // this client does not close its side
	})
}

// silent is an origin on a pipe that reads and answers what it is told to.
func silent(t *testing.T, answer string) (*Client, *ClientConn, *releases) {
	cl := NewClient(ClientConfig{HeadTimeout: 8 * time.Second, BodyTimeout: 6 * time.Second})
	ctx, cancel := context.WithCancel(context.Background())
	go func() { _ = cl.Run(ctx) }()
	a, b := net.Pipe()
	go func() { _, _ = io.Copy(io.Discard, b) }()
	go func() { _, _ = io.WriteString(b, answer) }()
	t.Cleanup(func() { _ = b.Close(); _ = a.Close(); cancel(); synctest.Wait() })
	rel := &releases{}
	return cl, cl.NewConn(a, rel), rel
}

type releases struct{ good, bad int }

func (r *releases) Release(_ *ClientConn, reusable bool) {
	if reusable {
		r.good++
	} else {
		r.bad++
	}
}

func getRequest() *message.Request {
	var r message.Request
	r.SetMethod([]byte("GET"))
	r.SetAuthority([]byte("origin"))
	r.SetPath([]byte("/"))
	return &r
}

func TestClientLimitsOfTime(t *testing.T) {
	for _, c := range []struct {
		name   string
		answer string
		ctx    time.Duration
		head   time.Duration
		phase  Phase
		after  time.Duration
		cause  error
	}{
		{"head", "HTTP/1.1 2", 0, 0, PhaseHead, 8 * time.Second, ErrTimeout},
		{"interim answers do not extend it", "HTTP/1.1 103 Early Hints\r\n\r\n", 0, 0, PhaseHead, 8 * time.Second, ErrTimeout},
		{"the caller's own limit", "", 0, 2 * time.Second, PhaseHead, 2 * time.Second, ErrTimeout},
		{"the context", "", 3 * time.Second, 0, PhaseHead, 3 * time.Second, context.DeadlineExceeded},
		{"body", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\na", 0, 0, PhaseBody, 6 * time.Second, ErrTimeout},
		{"the context while the body comes", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\na", 3 * time.Second, 0, PhaseBody, 3 * time.Second, context.DeadlineExceeded},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				_, cc, rel := silent(t, c.answer)
				ctx := context.Background()
				if c.ctx > 0 {
					var cancel context.CancelFunc
					ctx, cancel = context.WithTimeout(ctx, c.ctx)
					defer cancel()
				}
				var try Try
				if c.head > 0 {
					try.Head = time.Now().Add(c.head)
				}
				from := time.Now()
				var resp message.Response
				err := cc.RoundTrip(ctx, getRequest(), &resp, try)
				if err == nil {
					_, err = readBody(ctx, resp.Body)
					resp.Body.Close(err)
				}
				near(t, time.Since(from), c.after)
				var e *Error
				if !errors.As(err, &e) || e.Phase != c.phase || !errors.Is(err, c.cause) || !e.Sent || e.Reused || e.Timeout != (c.cause == ErrTimeout) {
					t.Errorf("%+v", e)
				}
				if rel.bad != 1 || rel.good != 0 {
					t.Errorf("released %+v", rel)
				}
			})
		})
	}
}

// Idle connections end one after another, those first that have been silent for longest. A request that
// comes before is answered, and says that the connection ends.
func TestIdleConnectionsEbb(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const conns, over = 60, 5 * time.Second
		s := NewServer(ServerConfig{IdleTimeout: 75 * time.Second}, handlerFunc(echo))
		ctx, cancel := context.WithCancel(context.Background())
		go func() { _ = s.Run(ctx) }()
		defer func() { cancel(); synctest.Wait() }()
		ask := func(nc net.Conn) string {
			_, _ = io.WriteString(nc, "GET / HTTP/1.1\r\nHost: h\r\n\r\n")
			b := make([]byte, 1000)
			n, _ := nc.Read(b)
			return string(b[:n])
		}
		var list []net.Conn
		for range conns { // one a second: the first has been silent for a minute
			near, far := net.Pipe()
			defer near.Close()
			go s.ServeConn(ctx, far, &message.Conn{})
			if got := ask(near); !strings.HasPrefix(got, "HTTP/1.1 200") || strings.Contains(got, "close") {
				t.Fatalf("%q", got)
			}
			list = append(list, near)
			time.Sleep(time.Second)
		}
		s.Ebb(over)
		from := time.Now()
		var ends [conns]time.Duration
		var wg sync.WaitGroup
		for i, nc := range list[:conns-1] {
			wg.Go(func() { _, ends[i] = rest(nc) })
		}
		time.Sleep(over / 2)
		if got := ask(list[conns-1]); !strings.HasPrefix(got, "HTTP/1.1 200") || !strings.Contains(got, "Connection: close") {
			t.Errorf("a request before its turn: %q", got)
		}
		wg.Wait()
		if d := time.Since(from); d < over*3/4 || d > over+time.Second || s.Conns() > 1 {
			t.Errorf("it took %v; %d connections are left", d, s.Conns())
		}
		at := map[time.Duration]int{}
		for _, d := range ends[:conns-1] {
			at[d.Round(serverTick)]++
		}
		for d, n := range at {
			if n > conns/5 {
				t.Errorf("%d of %d end at %v", n, conns, d)
			}
		}
		if first, last := ends[0], ends[conns-2]; first >= last {
			t.Errorf("who was silent for a minute ends after %v, who was for two seconds after %v", first, last)
		}
	})
}

func TestWhoIsTooSlowIsToldOfAndWhoIsIdleIsNot(t *testing.T) {
	for in, want := range map[string]int{"GET / HTTP/1.1\r\nHo": 1, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\na": 1, "GET / HTTP/1.1\r\nHost: h\r\n\r\n": 0, "": 0} {
		synctest.Test(t, func(t *testing.T) {
			var told atomic.Int64
			cfg := ServerConfig{HeaderTimeout: 5 * time.Second, IdleTimeout: 20 * time.Second, BodyTimeout: 7 * time.Second, OnSlow: func(*message.Conn) { told.Add(1) }}
			s, nc := pipe(t, cfg, handlerFunc(echo))
			_, _ = io.WriteString(nc, in)
			_, _ = rest(nc)
			if n := int(told.Load()); n != want || uint64(n) != s.Stats().Slow {
				t.Errorf("%q: told %d times, want %d; counted %d", in, n, want, s.Stats().Slow)
			}
		})
	}
}
