package origin

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/observe"
	"github.com/relais-edge/relais/internal/stage"
)

// listen serves each connection with do on loopback until the test ends.
func listen(t testing.TB, do func(nc net.Conn, r *bufio.Reader)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	open := map[net.Conn]bool{}
	wg.Go(func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			open[nc] = true
			mu.Unlock()
			wg.Go(func() {
				defer func() {
					_ = nc.Close()
					mu.Lock()
					delete(open, nc)
					mu.Unlock()
				}()
				do(nc, bufio.NewReader(nc))
			})
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		mu.Lock()
		for nc := range open {
			_ = nc.Close()
		}
		mu.Unlock()
		wg.Wait()
	})
	return l.Addr().String()
}

// readHead reads a request's head; false at the connection's end.
func readHead(r *bufio.Reader) (string, bool) {
	var b strings.Builder
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return "", false
		}
		b.WriteString(line)
		if line == "\r\n" {
			return b.String(), true
		}
	}
}

// answering gives the same answer to every request without body.
func answering(answer string) func(net.Conn, *bufio.Reader) {
	return func(nc net.Conn, r *bufio.Reader) {
		for {
			if _, ok := readHead(r); !ok {
				return
			}
			if _, err := io.WriteString(nc, answer); err != nil {
				return
			}
		}
	}
}

func ok(body string) string {
	return fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
}

func connection() *v1.ConnectionSpec {
	return &v1.ConnectionSpec{
		Connect: v1.Duration(2 * time.Second), Idle: v1.Duration(55 * time.Second), Read: v1.Duration(5 * time.Second),
		MaxPerOrigin: 16, MaxIdlePerOrigin: new(16),
	}
}

// newHandler returns a handler that runs until the test ends.
func newHandler(t testing.TB) *Handler {
	h := New(Config{Slot: 3}, observe.New())
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- h.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return h
}

func open(t testing.TB, h *Handler, address string, spec *v1.ConnectionSpec) *endpoint {
	t.Helper()
	target, err := h.Open("org/pool", address, spec)
	if err != nil {
		t.Fatal(err)
	}
	return target.(*endpoint)
}

// request makes an exchange ready to be sent.
func request(method, path string, e stage.Target) *stage.Exchange {
	x := &stage.Exchange{}
	prepare(x, method, path, e)
	return x
}

func prepare(x *stage.Exchange, method, path string, e stage.Target) {
	x.Reset()
	x.Start = time.Now()
	x.In = &message.Request{}
	x.Out.SetMethod([]byte(method))
	x.Out.SetAuthority([]byte("shop.example"))
	x.Out.SetPath([]byte(path))
	x.Target = e
}

// read pulls a body to its end.
func read(ctx context.Context, resp *message.Response) (string, error) {
	if resp.Body == nil {
		return string(resp.Bytes), nil
	}
	var b bytes.Buffer
	for {
		p, err := resp.Body.Next(ctx)
		b.Write(p)
		if err == io.EOF {
			resp.Body.Close(nil)
			return b.String(), nil
		}
		if err != nil {
			resp.Body.Close(err)
			return b.String(), err
		}
	}
}

// textBody is a request body that can be sent again when it is told so.
type textBody struct {
	text   string
	sent   bool
	again  bool
	pulled int
}

func (b *textBody) Next(context.Context) ([]byte, error) {
	if b.sent {
		return nil, io.EOF
	}
	b.sent = true
	b.pulled++
	return []byte(b.text), io.EOF
}
func (b *textBody) Close(error) {}
func (b *textBody) Rewind() bool {
	b.sent = false
	return b.again
}
