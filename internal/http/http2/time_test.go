package http2

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/relais-edge/relais/internal/http/message"
)

// limited runs one connection through a pipe in a bubble, where time stands still.
func limited(t *testing.T, cfg ServerConfig, h Handler, client func(p *peer, s *Server)) {
	synctest.Test(t, func(t *testing.T) {
		s := NewServer(cfg, h)
		ctx, cancel := context.WithCancel(context.Background())
		go func() { _ = s.Run(ctx) }()
		near, far := net.Pipe()
		done := make(chan struct{})
		go func() {
			s.ServeConn(ctx, far, &message.Conn{})
			close(done)
		}()
		p := &peer{t: t, nc: pipe{near, make(chan []byte, 1000)}}
		go p.nc.(pipe).pump()
		client(p, s)
		_ = near.Close()
		<-done
		cancel()
		synctest.Wait()
	})
}

// pipe reads all the time, as a socket's buffer does.
type pipe struct {
	net.Conn
	got chan []byte
}

func (p pipe) pump() {
	for {
		b := make([]byte, 4096)
		n, err := p.Conn.Read(b)
		if n > 0 {
			p.got <- b[:n]
		}
		if err != nil {
			close(p.got)
			return
		}
	}
}

func (p pipe) Read(b []byte) (int, error) {
	g, ok := <-p.got
	if !ok {
		return 0, io.EOF
	}
	return copy(b, g), nil
}

func (p pipe) SetReadDeadline(time.Time) error { return nil }

func TestLimitsOfTime(t *testing.T) {
	hit := handlerFunc(func(ctx context.Context, r *message.Request) *message.Response {
		if r.Body != nil {
			if _, err := readAll(ctx, r.Body); !errors.Is(err, message.ErrBodySlow) {
				t.Errorf("the body ended with %v", err)
			}
			return &message.Response{Status: http.StatusRequestTimeout}
		}
		return text(strings.Repeat("x", 1000))
	})
	cfg := ServerConfig{
		HeaderTimeout: 2 * time.Second, BodyTimeout: 3 * time.Second, WriteTimeout: 4 * time.Second, IdleTimeout: 10 * time.Second,
	}
	for name, c := range map[string]struct {
		do    func(p *peer)
		code  ErrCode
		after time.Duration
	}{
		"idle": {func(p *peer) { p.hello() }, NoError, 10 * time.Second},
		"no settings": {func(p *peer) {
			p.out = append(p.out, preface...)
			p.send()
		}, ProtocolError, 2 * time.Second},
		"no acknowledgement of SETTINGS (section 6.5.3)": {func(p *peer) {
			p.out = appendSettings(append(p.out, preface...))
			p.send()
		}, SettingsTimeout, 2 * time.Second},
		"half a frame": {func(p *peer) {
			p.hello()
			p.out = appendPing(p.out, [8]byte{}, false)[:12]
			p.send()
		}, ProtocolError, 2 * time.Second},
		"half a block": {func(p *peer) {
			p.hello()
			p.out = appendHead(p.out, 0, typeHeaders, 0, 1)
			p.send()
		}, ProtocolError, 2 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			limited(t, cfg, hit, func(p *peer, _ *Server) {
				start := time.Now()
				c.do(p)
				if got := p.goAway(); got != c.code {
					t.Errorf("GOAWAY with %v", got)
				}
				if d := time.Since(start); d < c.after || d > c.after+time.Second {
					t.Errorf("after %v", d)
				}
			})
		})
	}
	t.Run("a body that stops", func(t *testing.T) {
		limited(t, cfg, hit, func(p *peer, s *Server) {
			p.hello()
			p.headers(1, false, get("/"))
			p.send()
			start := time.Now()
			if _, b := p.until(typeHeaders); len(b) == 0 {
				t.Error("no answer")
			}
			if d := time.Since(start); d < 3*time.Second || d > 4*time.Second || s.Stats().Slow != 1 {
				t.Errorf("after %v, %+v", d, s.Stats())
			}
		})
	})
	t.Run("a window that stays closed", func(t *testing.T) {
		limited(t, cfg, hit, func(p *peer, s *Server) {
			p.hello(setting{settingInitialWindow, 0})
			p.headers(1, true, get("/"))
			p.send()
			start := time.Now()
			if id, c := p.reset(); id != 1 || c != Cancel {
				t.Errorf("%v on stream %d", c, id)
			}
			if d := time.Since(start); d < 4*time.Second || d > 5*time.Second || s.Stats().Slow != 1 {
				t.Errorf("after %v, %+v", d, s.Stats())
			}
		})
	})
}
