package http2

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"

	"github.com/relais-edge/relais/internal/http/deadline"
	"github.com/relais-edge/relais/internal/http/hpack"
	"github.com/relais-edge/relais/internal/http/http1"
)

// ClientConfig bounds what an origin may ask of us. Zero means the default.
type ClientConfig struct {
	HeadBytes    int           // fields of an answer's head or trailer, with 32 bytes a line; 64 KiB
	Fields       int           // lines of an answer's head; 256
	HeadTimeout  time.Duration // from the last byte of the request to the final answer's head; 60 s
	BodyTimeout  time.Duration // longest wait for more of an answer's body; 60 s
	WriteTimeout time.Duration // longest time in which nothing can be written; 30 s
	ContinueWait time.Duration // wait for 100 before the body is sent without it; 1 s
	Interim      int           // most 1xx answers before a final one; 16
	Streams      int           // most requests at once on a connection, whatever the origin allows; 100
	Window       int           // bytes of an answer that come before they are asked for; 256 KiB
	PingAfter    time.Duration // silence of a connection in use after which it is asked for life; 15 s
	PingTimeout  time.Duration // longest wait for a sign of life, and for the first SETTINGS; 10 s
}

func (c *ClientConfig) fill() {
	clientDefault(&c.HeadBytes, 64<<10)
	clientDefault(&c.Fields, 256)
	clientDefault(&c.HeadTimeout, time.Minute)
	clientDefault(&c.BodyTimeout, time.Minute)
	clientDefault(&c.WriteTimeout, 30*time.Second)
	clientDefault(&c.ContinueWait, time.Second)
	clientDefault(&c.Interim, 16)
	clientDefault(&c.Streams, 100)
	clientDefault(&c.Window, 256<<10)
	clientDefault(&c.PingAfter, 15*time.Second)
	clientDefault(&c.PingTimeout, 10*time.Second)
}

func clientDefault[T int | time.Duration](v *T, d T) {
	if *v <= 0 {
		*v = d
	}
}

// What an origin may do beyond the settings.
const (
	// clientWindow is the window of a connection. What comes is counted as taken at once, so that a
	// slow visitor does not hold up the others; the windows of streams bound what is kept.
	clientWindow = 4 << 20
	// clientBlock bounds a header block before it is decoded, and clientContinuations its frames.
	clientBlock         = 128 << 10
	clientContinuations = 32
	// clientFrames bounds the frames of a second that bring no part of an answer, and
	// clientAnswers those of them that we must answer.
	clientFrames  = 20_000
	clientAnswers = 1_000
	// clientStray bounds the bytes that may come on streams which we gave up, beyond their windows.
	clientStray = 1 << 20
	// clientOut is what may wait to be written before senders of bodies wait too, and clientOutMax
	// what ends the connection: an origin that does not read its pings.
	clientOut    = 64 << 10
	clientOutMax = 1 << 20
	// clientPiece is the largest DATA frame that is sent.
	clientPiece = 16 << 10
)

// Client holds what its connections share: limits, memory, and the sweeper.
type Client struct {
	cfg     ClientConfig
	clock   deadline.Clock
	streams sync.Pool
	chunks  sync.Pool

	mu    sync.Mutex
	conns map[*ClientConn]struct{}
}

// clientTick is how often limits of time are looked at.
const clientTick = 50 * time.Millisecond

// NewClient returns a client. Nothing is started: the caller dials and runs Run.
func NewClient(cfg ClientConfig) *Client {
	cfg.fill()
	c := &Client{cfg: cfg, conns: map[*ClientConn]struct{}{}}
	c.clock.Init(clientTick)
	return c
}

// Run keeps limits of time, 20 times a second, until ctx ends. It blocks.
func (c *Client) Run(ctx context.Context) error {
	var list []*ClientConn
	second := int64(0)
	return c.clock.Run(ctx, func(now int64) {
		list = c.list(list[:0])
		for _, cc := range list {
			cc.sweep(now, now/1000 != second)
		}
		second = now / 1000
		clear(list)
	})
}

// list copies the connections: one that the sweep ends takes itself out, and its owner may do
// anything meanwhile, so that no lock is held and deadline.Sweeper is not for them.
func (c *Client) list(to []*ClientConn) []*ClientConn {
	c.mu.Lock()
	defer c.mu.Unlock()
	for cc := range c.conns {
		to = append(to, cc)
	}
	return to
}

// Conns is the number of connections that are open.
func (c *Client) Conns() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.conns)
}

// Owner is told what happens to a connection. It is called without locks, from any goroutine,
// also from within RoundTrip.
type Owner interface {
	// Changed is called when an exchange has ended, when the origin changed how many it takes,
	// and when the connection takes no more of them or was closed. State tells.
	Changed(c *ClientConn)
}

// NewConn makes a connection to an origin of nc, which has agreed on HTTP/2: by ALPN, or by
// prior knowledge in clear (RFC 9113 section 3). The caller runs its Run. Owner may be nil.
func (c *Client) NewConn(nc net.Conn, owner Owner) *ClientConn {
	cc := &ClientConn{
		cl: c, nc: nc, owner: owner, streams: map[uint32]*clientStream{}, next: 1, peer: defaultSettings(),
		enc: hpack.NewEncoder(hpack.DefaultTableSize, false), dec: hpack.NewDecoder(hpack.DefaultTableSize),
		sendWin: initialWindow, goAway: maxWindow, stray: clientStray, settled: make(chan struct{}),
	}
	cc.recvWin.init(clientWindow)
	cc.born = c.clock.Now()
	cc.lastRead = cc.born
	cc.out = append(cc.out, preface...)
	cc.out = appendSettings(cc.out,
		setting{settingEnablePush, 0},
		setting{settingInitialWindow, uint32(c.cfg.Window)},
		setting{settingMaxHeaderList, uint32(c.cfg.HeadBytes)})
	cc.out = appendWindowUpdate(cc.out, 0, clientWindow-initialWindow)
	c.mu.Lock()
	c.conns[cc] = struct{}{}
	c.mu.Unlock()
	return cc
}

// Causes of an http1.Error, beside those of http1.
var (
	ErrGoAway = errors.New("the origin takes no more requests on this connection")
	// ErrRefused came with REFUSED_STREAM: the origin has done nothing (RFC 9113 section 8.7).
	ErrRefused = errors.New("the origin refused the stream")
	// ErrHTTP11Required came with HTTP_1_1_REQUIRED: the request must go by HTTP/1.1.
	ErrHTTP11Required = errors.New("the origin wants HTTP/1.1 for this request")
	// ErrNoConnect is a request for an upgrade that the origin takes by HTTP/1.1 only.
	ErrNoConnect = errors.New("the origin does not take extended CONNECT (RFC 8441)")
	errDead      = errors.New("the origin's connection gives no sign of life")
	errHeadLong  = errors.New("the head of the answer is over the limit")
)

// clientError makes the error of an exchange.
func clientError(p http1.Phase, sent, reused bool, err error) *http1.Error {
	return &http1.Error{
		Phase: p, Sent: sent, Reused: reused, Err: err,
		Timeout: errors.Is(err, http1.ErrTimeout) || errors.Is(err, errDead),
	}
}
