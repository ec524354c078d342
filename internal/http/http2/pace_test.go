package http2

import (
	"context"
	"errors"
	"io"
	"net"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/relais-edge/relais/internal/http/deadline"

	"github.com/relais-edge/relais/internal/http/message"
)

// paced has limits that are easy to reckon with.
var paced = ServerConfig{
	BodyTimeout: 4 * time.Second, WriteTimeout: 4 * time.Second, IdleTimeout: time.Hour, BodyRate: 100, WriteRate: 100,
}

// reader answers with what ended the request's body.
func reader(ended *error) Handler {
	return handlerFunc(func(ctx context.Context, r *message.Request) *message.Response {
		r.Control.MayBlock()
		_, *ended = readAll(ctx, r.Body)
		return text("read")
	})
}

func TestABodyThatDripsIsSlow(t *testing.T) {
	for name, c := range map[string]struct {
		fields []string
		piece  int // bytes a second
		slow   bool
	}{
		"a byte a second": {nil, 1, true},
		"the least rate":  {nil, 110, false},
		"gRPC":            {[]string{"content-type", "application/grpc+proto"}, 1, false},
	} {
		t.Run(name, func(t *testing.T) {
			ended := io.EOF
			limited(t, paced, reader(&ended), func(p *peer, s *Server) {
				p.hello()
				p.headers(1, false, get("/", c.fields...))
				p.send()
				start := time.Now()
				for range 20 {
					time.Sleep(time.Second)
					if s.Stats().Slow > 0 {
						break
					}
					p.out = appendData(p.out, 1, make([]byte, c.piece), false)
					p.send()
				}
				if d := time.Since(start); c.slow != (s.Stats().Slow == 1) || c.slow && (d < 4*time.Second || d > 6*time.Second) {
					t.Errorf("after %v: %+v", d, s.Stats())
				}
				if !c.slow {
					p.out = appendData(p.out, 1, nil, true)
					p.send()
				}
				p.until(typeHeaders)
			})
			if c.slow != errors.Is(ended, message.ErrBodySlow) {
				t.Errorf("the body ended with %v", ended)
			}
		})
	}
}

// TestAFrameOfABodyMayComeSlowly: as slowly as a body may, a pause in its middle included.
func TestAFrameOfABodyMayComeSlowly(t *testing.T) {
	for name, c := range map[string]struct {
		piece, count int
		wait         time.Duration
		slow         bool
	}{
		"the least rate":         {110, 20, time.Second, false},
		"a byte a second":        {1, 20, time.Second, true},
		"longer than for a head": {5000, 2, 2900 * time.Millisecond, false},
	} {
		t.Run(name, func(t *testing.T) {
			ended := io.EOF
			cfg := paced
			cfg.HeaderTimeout = 2 * time.Second
			limited(t, cfg, reader(&ended), func(p *peer, s *Server) {
				p.hello()
				p.out = appendSettingsAck(p.out)
				p.headers(1, false, get("/"))
				p.out = appendHead(p.out, c.piece*c.count, typeData, flagEndStream, 1)
				p.send()
				for range c.count {
					time.Sleep(c.wait)
					if s.Stats().Slow > 0 {
						break
					}
					p.out = append(p.out, make([]byte, c.piece)...)
					p.send()
				}
				if c.slow != (s.Stats().Slow == 1) {
					t.Errorf("%+v", s.Stats())
				}
				p.until(typeHeaders)
			})
			if c.slow != errors.Is(ended, message.ErrBodySlow) {
				t.Errorf("the body ended with %v", ended)
			}
		})
	}
}

// A call that only listens says nothing for as long as it lasts, and does not end its side.
func TestAClientOfGRPCMayBeSilentOnceItIsAnswered(t *testing.T) {
	for _, kind := range []string{"application/grpc", "text/plain"} {
		t.Run(kind, func(t *testing.T) {
			read := make(chan error, 1)
			var body *pieces
			h := handlerFunc(func(ctx context.Context, r *message.Request) *message.Response {
				r.Control.MayBlock()
				go func() {
					for {
						if _, err := r.Body.Next(ctx); err != nil {
							read <- err
							return
						}
					}
				}()
				body = newPieces("a message")
				return &message.Response{Status: 200, ContentLength: -1, Body: body}
			})
			limited(t, paced, h, func(p *peer, s *Server) {
				p.hello()
				p.headers(1, false, get("/", "content-type", kind))
				p.out = appendData(p.out, 1, []byte("what do you have?"), false)
				p.send()
				p.until(typeData)
				time.Sleep(10 * paced.BodyTimeout)
				if cut := s.Stats().Slow > 0; cut != (kind == "text/plain") {
					t.Errorf("cut: %v", cut)
				}
				p.out = appendData(p.out, 1, nil, true)
				p.send()
				close(body.ch)
				if err := <-read; (err == io.EOF) != (kind == "application/grpc") {
					t.Errorf("the body ended with %v", err)
				}
			})
		})
	}
}

func TestAnAnswerThatIsTakenTooSlowlyEnds(t *testing.T) {
	answer := handlerFunc(func(context.Context, *message.Request) *message.Response {
		return text(string(make([]byte, 200_000)))
	})
	for name, c := range map[string]struct {
		window uint32 // of the stream
		id     uint32 // whose window is opened
		step   int    // bytes each two seconds
		slow   bool
	}{
		"its window, slowly":              {0, 1, 100, true},
		"its window, at the least rate":   {0, 1, 300, false},
		"the connection's, slowly":        {maxWindow, 0, 100, true},
		"the connection's, at least rate": {maxWindow, 0, 300, false},
	} {
		t.Run(name, func(t *testing.T) {
			limited(t, paced, answer, func(p *peer, s *Server) {
				p.hello(setting{settingInitialWindow, c.window})
				p.headers(1, true, get("/"))
				p.send()
				// What the connection's first window lets through may be paid for with time.
				earned := 0
				if c.id == 0 {
					earned = initialWindow / 100
				}
				start := time.Now()
				for time.Since(start) < time.Duration(30+2*earned)*time.Second && s.Stats().Slow == 0 {
					time.Sleep(2 * time.Second)
					p.out = appendWindowUpdate(p.out, c.id, c.step)
					p.send()
				}
				if c.slow != (s.Stats().Slow == 1) {
					t.Errorf("after %v: %+v", time.Since(start), s.Stats())
				}
			})
		})
	}
}

// Many clients open a window again only when they have read half of it. At 125 bytes a second that takes
// longer than WriteTimeout, and who reads nothing looks the same until then.
func TestAWindowMayStayClosedAsLongAsHalfOfItIsBeingRead(t *testing.T) {
	answer := handlerFunc(func(context.Context, *message.Request) *message.Response {
		return text(string(make([]byte, 200_000)))
	})
	for name, reads := range map[string]bool{"it reads": true, "it reads nothing": false} {
		t.Run(name, func(t *testing.T) {
			limited(t, paced, answer, func(p *peer, s *Server) {
				p.hello(setting{settingInitialWindow, 2000})
				p.headers(1, true, get("/"))
				p.send()
				start := time.Now()
				for time.Since(start) < 5*time.Minute && s.Stats().Slow == 0 {
					time.Sleep(8 * time.Second)
					if reads {
						p.out = appendWindowUpdate(p.out, 1, 1000)
						p.send()
					}
				}
				if d := time.Since(start); reads != (s.Stats().Slow == 0) || !reads && d > 20*time.Second {
					t.Errorf("after %v: %+v", d, s.Stats())
				}
			})
		})
	}
}

// As http1.TestASlowReaderIsNotCutBetweenTwoStepsOfItsWindow: the windows of HTTP/2 are open, that of
// TCP is not.
func TestASlowReaderIsNotCutBetweenTwoStepsOfItsTCPWindow(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("what a client has acknowledged is known on Linux only")
	}
	for name, reads := range map[string]bool{"it reads": true, "it reads nothing": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, addr := serve(t, ServerConfig{WriteTimeout: 500 * time.Millisecond, WriteRate: 30_000}, handlerFunc(func(context.Context, *message.Request) *message.Response {
				return text(string(make([]byte, 32<<20)))
			}), nil)
			nc, err := net.Dial("tcp", addr)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = nc.Close() }()
			p := newPeer(t, nc, setting{settingInitialWindow, maxWindow})
			p.out = appendWindowUpdate(p.out, 0, maxWindow-initialWindow)
			p.headers(1, true, get("/"))
			p.send()
			buf := make([]byte, 6000)
			for i := range 80 {
				if time.Sleep(100 * time.Millisecond); reads {
					if _, err := io.ReadFull(nc, buf); err != nil {
						t.Fatalf("after %d pieces: %v; %+v", i, err, s.Stats())
					}
				} else if s.Stats().Slow > 0 {
					return
				}
			}
			if !reads {
				t.Error("it is not shed")
			}
		})
	}
}

func TestShedEndsWhatIsInNobodysWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		wait := make(chan struct{})
		s := NewServer(ServerConfig{}, handlerFunc(func(_ context.Context, r *message.Request) *message.Response {
			if string(r.Path()) == "/wait" {
				r.Control.MayBlock()
				<-wait
			}
			return text("fine")
		}))
		ctx, cancel := context.WithCancel(context.Background())
		go func() { _ = s.Run(ctx) }()
		open := func(path string) *peer {
			near, far := net.Pipe()
			go s.ServeConn(ctx, far, &message.Conn{})
			p := &peer{t: t, nc: pipe{near, make(chan []byte, 1000)}}
			go p.nc.(pipe).pump()
			p.hello()
			if path != "" {
				p.headers(1, true, get(path))
				p.send()
			}
			time.Sleep(200 * time.Millisecond)
			return p
		}
		shed := func(want deadline.Shed) {
			t.Helper()
			if got := s.Shed(); got != want {
				t.Errorf("shed %d, want %d", got, want)
			}
			synctest.Wait()
		}
		shed(deadline.ShedNothing)
		busy, silent, first, second := open("/wait"), open(""), open("/"), open("/")
		shed(deadline.ShedIdle)
		if code := first.goAway(); code != NoError {
			t.Errorf("GOAWAY with %v", code)
		}
		shed(deadline.ShedIdle)
		second.goAway()
		shed(deadline.ShedNothing) // the silent one is too young
		time.Sleep(deadline.ShedYoung)
		shed(deadline.ShedSilent)
		silent.goAway()
		shed(deadline.ShedNothing)
		close(wait)
		busy.until(typeData)
		time.Sleep(time.Second)
		shed(deadline.ShedIdle)
		time.Sleep(2 * lingerTime)
		if n := s.Conns(); n != 0 || s.Stats().Slow != 0 {
			t.Errorf("%d connections are left, %+v", n, s.Stats())
		}
		cancel()
	})
}

func TestWindowsMayBeOpenedByWhatWasSent(t *testing.T) {
	body := make([]byte, 400_000)
	for name, c := range map[string]struct {
		fair bool // only what came is given back
	}{"what came": {true}, "more than that": {false}} {
		t.Run(name, func(t *testing.T) {
			var kinds []Abuse
			cfg := ServerConfig{OnAbuse: func(_ *message.Conn, kind Abuse) { kinds = append(kinds, kind) }}
			limited(t, cfg, handlerFunc(func(context.Context, *message.Request) *message.Response {
				resp := text("")
				resp.SetBytes(body)
				return resp
			}), func(p *peer, _ *Server) {
				p.hello()
				p.headers(1, true, get("/"))
				p.send()
				if !c.fair {
					// The connection's window is closed, so that the stream's gets nothing sent.
					for range 2000 {
						p.out = appendWindowUpdate(p.out, 1, smallFrame)
					}
					p.send()
					if code := p.goAway(); code != EnhanceYourCalm || len(kinds) != 1 || kinds[0] != AbuseWindow {
						t.Errorf("GOAWAY with %v for %v", code, kinds)
					}
					return
				}
				for left := len(body); left > 0; {
					h, b, ok := p.frame()
					if !ok || h.typ == typeGoAway {
						t.Fatalf("%d bytes are missing: %s", left, show(h, b))
					}
					if h.typ != typeData {
						continue
					}
					left -= len(b)
					for n := len(b); n >= smallFrame; n -= smallFrame {
						p.out = appendWindowUpdate(appendWindowUpdate(p.out, 0, smallFrame), 1, smallFrame)
					}
					if !h.has(flagEndStream) {
						p.send()
					}
				}
			})
		})
	}
}
