package http1

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/relais-edge/relais/internal/http/message"
)

// A body that trickles is ended, though bytes come all the time; one of the least rate is not.
func TestABodyMustComeAtTheLeastRate(t *testing.T) {
	cfg := ServerConfig{BodyTimeout: 10 * time.Second, BodyRate: 100}
	for name, tt := range map[string]struct {
		bytes int // a second
		after time.Duration
		code  string
	}{
		"a trickle":      {1, 10 * time.Second, "408"},
		"half the rate":  {50, 20 * time.Second, "408"},
		"the rate":       {110, 41 * time.Second, "200"},
		"twice the rate": {200, 41 * time.Second, "200"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				_, nc := pipe(t, cfg, handlerFunc(echo))
				from, total := time.Now(), 41*tt.bytes
				sent := make(chan struct{})
				defer func() { _ = nc.Close(); <-sent }()
				go func() {
					defer close(sent)
					_, err := io.WriteString(nc, "POST / HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: "+strconv.Itoa(total)+"\r\n\r\n")
					for n := 0; n < total && err == nil; n += tt.bytes {
						time.Sleep(time.Second)
						_, err = io.WriteString(nc, strings.Repeat("x", tt.bytes))
					}
				}()
				status, err := bufio.NewReader(nc).ReadString('\n')
				took := time.Since(from)
				if !strings.Contains(status, tt.code) || took < tt.after-time.Second || took > tt.after+3*time.Second {
					t.Errorf("%q %v after %v", status, err, took)
				}
			})
		})
	}
}

// An answer that is taken at a trickle is ended, though bytes are taken all the time; one that
// is taken at the least rate is not, also where a piece of it takes longer than the timeout.
func TestAnAnswerMustBeTakenAtTheLeastRate(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("what a client has acknowledged is known on Linux only")
	}
	for name, tt := range map[string]struct {
		bytes int // each 100 ms
		filed bool
		cut   bool
	}{
		"nothing":             {0, false, true},
		"a trickle":           {200, false, true},
		"enough":              {20_000, false, false},
		"nothing, a file":     {0, true, true},
		"a trickle of a file": {200, true, true},
		"enough of a file":    {20_000, true, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var h Handler = handlerFunc(func(context.Context, *message.Request) *message.Response {
				resp := &message.Response{Status: http.StatusOK}
				resp.SetBytes(make([]byte, 32<<20))
				return resp
			})
			if tt.filed {
				h = newShelf(t, 32<<20)
			}
			s, addr := listen(t, ServerConfig{WriteTimeout: time.Second, WriteRate: 60_000}, h)
			nc := dial(t, addr).(*net.TCPConn)
			_ = nc.SetReadBuffer(128 << 10) // so that what is read is what is acknowledged
			_, _ = io.WriteString(nc, "GET / HTTP/1.1\r\nHost: h\r\n\r\n")
			buf := make([]byte, max(1, tt.bytes))
			for from := time.Now(); time.Since(from) < 5*time.Second || tt.cut && s.Stats().Slow == 0 && time.Since(from) < 30*time.Second; {
				time.Sleep(100 * time.Millisecond)
				if tt.bytes > 0 {
					_, _ = io.ReadFull(nc, buf)
				}
			}
			if cut := s.Stats().Slow > 0; cut != tt.cut {
				t.Errorf("cut %v", cut)
			}
		})
	}
}

// A system opens its window in steps (RFC 9293 section 3.8.6.2.2): over loopback some 100 KB at
// once, which a slow reader needs longer for than the time in which some of an answer must be taken.
func TestASlowReaderIsNotCutBetweenTwoStepsOfItsWindow(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("what a client has acknowledged is known on Linux only")
	}
	body := make([]byte, 16<<20)
	for i := range body {
		body[i] = byte(i >> 8)
	}
	h := handlerFunc(func(context.Context, *message.Request) *message.Response {
		resp := &message.Response{Status: http.StatusOK}
		resp.SetBytes(body)
		return resp
	})
	for _, secure := range []bool{false, true} {
		t.Run("TLS "+strconv.FormatBool(secure), func(t *testing.T) {
			t.Parallel()
			cfg := ServerConfig{WriteTimeout: 500 * time.Millisecond, WriteRate: 20_000}
			s, addr := listen(t, cfg, h)
			nc := dial(t, addr)
			if secure {
				s = NewServer(cfg, h)
				srv, client := tlsPair(t)
				nc = client
				var wg sync.WaitGroup
				ctx, cancel := context.WithCancel(t.Context())
				t.Cleanup(func() { cancel(); wg.Wait() })
				wg.Go(func() { _ = s.Run(ctx) })
				wg.Go(func() { s.ServeConn(ctx, srv, &message.Conn{TLS: &message.TLS{}}) })
			}
			_, _ = io.WriteString(nc, "GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
			from := time.Now()
			slow := readerFunc(func(b []byte) (int, error) {
				if time.Since(from) < 6*time.Second {
					time.Sleep(100 * time.Millisecond)
					b = b[:min(len(b), 4000)]
				}
				return nc.Read(b)
			})
			resp, err := http.ReadResponse(bufio.NewReader(slow), nil)
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(resp.Body)
			if err != nil || !bytes.Equal(got, body) {
				t.Errorf("%d bytes of %d, %v; %+v", len(got), len(body), err, s.Stats())
			}
		})
	}
}

type readerFunc func(b []byte) (int, error)

func (f readerFunc) Read(b []byte) (int, error) { return f(b) }
