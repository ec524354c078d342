package http2

import (
	"context"
	"io"
	"strconv"
	"sync"
	"time"

	"github.com/relais-edge/relais/internal/http/hpack"
	"github.com/relais-edge/relais/internal/http/http1"
	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/http/syntax"
)

// sendRequest writes the head of the request, and its body where that is at hand; the rest of the body
// goes on in another goroutine. C.mu is not held.
func (s *clientStream) sendRequest(ctx context.Context, req *message.Request, resp *message.Response, t *http1.Try) (http1.Phase, error) {
	if !clientSendable(req) {
		return http1.PhaseWrite, http1.ErrRequest
	}
	s.method = req.Method
	s.connect = req.Method == message.CONNECT
	if t.Upgrade && req.Has(message.Upgrade) {
		if !message.EqualFold(req.Get(message.Upgrade), "websocket") || req.Body != nil || !s.c.TakesConnect(ctx) {
			s.unsent = true
			return http1.PhaseWrite, ErrNoConnect
		}
		s.connect, s.upgrade, s.accept = true, true, clientAccept(req.Get(message.SecWebSocketKey))
	}
	var u *clientUpload
	if req.Body != nil && !s.connect {
		u = &clientUpload{s: s, body: req.Body, length: req.ContentLength, trailer: req.Trailer}
	}
	var first []byte
	end := u == nil && !s.connect
	expect := u != nil && req.Has(message.Expect)
	if u != nil && !expect && clientAtHand(req) {
		b, err := u.pull(ctx)
		if err != nil {
			return http1.PhaseWrite, err
		}
		first = b
	}
	c := s.c
	c.mu.Lock()
	if err := s.openLocked(); err != nil {
		c.mu.Unlock()
		return http1.PhaseWrite, err
	}
	s.resp = resp
	s.limit = s.headLimit(t, u != nil)
	whole := u != nil && u.whole && len(first) <= clientPiece && int(min(c.sendWin, s.sendWin)) >= len(first)
	s.writeHead(req, end || whole && len(first) == 0 && u.noTrailer())
	if u == nil || whole {
		if whole && (len(first) > 0 || !u.noTrailer()) {
			s.frames(first, true, u)
		}
		s.localEnd = !s.connect
		s.limit = s.headLimit(t, false)
	}
	c.flushLocked()
	c.unlock()
	if u == nil || whole {
		return 0, nil
	}
	if expect {
		if answered, err := s.awaitContinue(ctx); answered || err != nil {
			return http1.PhaseHead, err
		}
	}
	s.upload = u
	u.start(ctx, first, s.headWait(t))
	return 0, nil
}

// clientAtHand says whether the body's first bytes are worth a wait before the head leaves: not
// where the other side may want an answer before it sends any.
func clientAtHand(req *message.Request) bool {
	if p, ok := req.Body.(message.Prompt); ok {
		return p.Ready()
	}
	return req.ContentLength >= 0
}

// openLocked makes the stream one of the connection. C.mu is held.
func (s *clientStream) openLocked() error {
	c := s.c
	switch {
	case c.err != nil:
		s.reused = c.uses > 0
		return c.err
	case c.closing:
		return ErrGoAway
	}
	s.reused = c.uses > 0
	c.uses++
	s.id = c.next
	if c.next += 2; c.next > maxWindow {
		c.closing, c.changed = true, true // no more ids (RFC 9113 section 5.1.1)
	}
	s.sendWin = sendWindow(c.peer.initialWindow)
	s.recvWin.init(c.cl.cfg.Window)
	c.streams[s.id] = s
	return nil
}

// awaitContinue waits for 100 Continue, the final answer, or a second (RFC 9110 section 10.1.1).
// C.mu is not held.
func (s *clientStream) awaitContinue(ctx context.Context) (answered bool, err error) {
	c := s.c
	timer := time.NewTimer(c.cl.cfg.ContinueWait)
	defer timer.Stop()
	for {
		c.mu.Lock()
		cont, answered, err := s.cont, s.head, s.err
		c.mu.Unlock()
		if cont || answered || err != nil {
			return answered, err
		}
		select {
		case <-s.wake:
		case <-timer.C:
			return false, nil
		case <-ctx.Done():
			return false, ctx.Err()
		}
	}
}

// clientSendable looks once more at what is sent, for it may come from another protocol.
func clientSendable(req *message.Request) bool {
	for _, b := range [...][]byte{req.Path(), req.Query(), req.Authority()} {
		for _, c := range b {
			if c <= ' ' || c == 0x7f {
				return false
			}
		}
	}
	for i := range req.Len() {
		id, name, value := req.At(i)
		if !syntax.Plain(value) || id == message.Other && !syntax.IsToken(name) {
			return false
		}
	}
	return syntax.IsToken(req.MethodName())
}

// writeHead appends the HEADERS of the request. C.mu is held.
func (s *clientStream) writeHead(req *message.Request, end bool) {
	c := s.c
	at := len(c.out)
	b := c.enc.Begin(beginHeaders(c.out))
	e := c.enc
	if s.upgrade {
		b = e.Append(b, hpack.Method, nil, []byte("CONNECT"))
		b = e.Append(b, hpack.Protocol, nil, []byte("websocket"))
	} else {
		b = e.Append(b, hpack.Method, nil, req.MethodName())
	}
	if !s.connect || s.upgrade {
		scheme := "http"
		if req.Secure {
			scheme = "https"
		}
		b = e.Append(b, hpack.Scheme, nil, []byte(scheme))
		b = s.path(b, req)
	}
	b = e.Append(b, hpack.Authority, nil, req.Authority())
	for i := range req.Len() {
		id, name, value := req.At(i)
		switch {
		case id == message.Host || id.PerHop() || id == message.Expect && req.Body == nil ||
			s.upgrade && (id == message.SecWebSocketKey || id == message.SecWebSocketAccept):
			continue
		}
		b = e.Append(b, id, name, value)
	}
	if req.Has(message.TE) && req.Lists(message.TE, "trailers") {
		b = e.Append(b, message.TE, nil, []byte("trailers"))
	}
	if n := req.ContentLength; req.Body != nil && n >= 0 ||
		req.Body == nil && (req.Method == message.POST || req.Method == message.PUT || req.Method == message.PATCH) {
		var d [20]byte
		b = e.Append(b, message.ContentLength, nil, strconv.AppendInt(d[:0], max(0, n), 10))
	}
	c.out = endHeaders(b, at, s.id, end, minMaxFrame)
}

// path appends the path and query.
func (s *clientStream) path(b []byte, req *message.Request) []byte {
	path := req.Path()
	if len(path) == 0 {
		path = []byte("/")
	}
	if !req.HasQuery() {
		return s.c.enc.Append(b, hpack.Path, nil, path)
	}
	buf := append(append(append(s.c.target[:0], path...), '?'), req.Query()...)
	s.c.target = buf
	return s.c.enc.Append(b, hpack.Path, nil, buf)
}

// clientUpload is the body of a request on its way.
type clientUpload struct {
	s       *clientStream
	body    message.Body
	trailer *message.Fields
	length  int64
	done    int64
	whole   bool // all was pulled
	cancel  context.CancelFunc

	// mu is held while the body is pulled and what it lent is used, so that it is left alone
	// once stopped is set.
	mu      sync.Mutex
	stopped bool
}

// noTrailer says that nothing follows the body.
func (u *clientUpload) noTrailer() bool { return u.trailer == nil || u.trailer.Len() == 0 }

// pull pulls once. The body is known to be whole when it has ended or has its length.
func (u *clientUpload) pull(ctx context.Context) ([]byte, error) {
	b, err := u.body.Next(ctx)
	if err != nil && err != io.EOF {
		return nil, err
	}
	u.done += int64(len(b))
	u.whole = err == io.EOF
	if u.length >= 0 {
		if u.done > u.length || u.whole && u.done < u.length {
			return nil, http1.ErrBodyLength
		}
		u.whole = u.done == u.length
	}
	return b, nil
}

// start sends the rest in another goroutine. From its end the origin has headWait.
func (u *clientUpload) start(ctx context.Context, first []byte, headWait time.Duration) {
	// A context of its own, so that the pull from the client can be ended alone.
	ctx, u.cancel = context.WithCancel(ctx)
	go func() {
		defer u.cancel()
		err := u.run(ctx, first)
		s := u.s
		c := s.c
		c.mu.Lock()
		defer c.unlock()
		if s.released || s.localEnd && !u.whole || u.isStopped() {
			return
		}
		if err == nil {
			if !s.head && s.limit == 0 {
				s.limit = c.cl.clock.Limit(headWait)
			}
			return
		}
		if s.err == nil {
			s.uploadErr = err
			s.reset(Cancel, err)
			c.flushLocked()
		}
	}()
}

func (u *clientUpload) isStopped() bool {
	if !u.mu.TryLock() {
		return true // it is being stopped
	}
	defer u.mu.Unlock()
	return u.stopped
}

// errUploadOver ends an upload that nobody wants any more.
var errUploadOver = io.ErrClosedPipe

// run pulls and sends until the end.
func (u *clientUpload) run(ctx context.Context, first []byte) (err error) {
	defer func() {
		if recover() != nil {
			err = http1.ErrClosed
		}
	}()
	for b := first; ; b = nil {
		end, err := u.step(ctx, b)
		u.s.c.flush()
		if err == errUploadOver || end && err == nil {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// step pulls, unless there is something already, and hands it over to the connection.
func (u *clientUpload) step(ctx context.Context, b []byte) (end bool, err error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.stopped {
		return false, errUploadOver
	}
	if b == nil && !u.whole {
		if b, err = u.pull(ctx); err != nil {
			return false, err
		}
	}
	s := u.s
	c := s.c
	c.mu.Lock()
	defer c.unlock()
	for {
		if s.released || s.localEnd || s.err != nil || c.err != nil {
			return false, errUploadOver
		}
		n := s.mayPut(len(b))
		if n == len(b) {
			s.frames(b, u.whole, u)
			if u.whole {
				s.sent()
			}
			return u.whole, nil
		}
		s.frames(b[:n], false, u)
		b = b[n:]
		s.blocked = true
		if !c.writing && len(c.out) > 0 {
			go c.flush()
		}
		c.unlock()
		err := s.wait(ctx, s.room)
		c.mu.Lock()
		if s.blocked = false; err != nil {
			return false, err
		}
	}
}

// mayPut is how much of n bytes the windows and what waits to be written allow. C.mu is held.
func (s *clientStream) mayPut(n int) int {
	if len(s.c.out) >= clientOut && n > 0 {
		return 0
	}
	return min(s.c.sendWin.room(n), s.sendWin.room(n))
}

// frames appends DATA, and when the body is whole its end: END_STREAM or the trailer. C.mu is held.
func (s *clientStream) frames(b []byte, whole bool, u *clientUpload) {
	c := s.c
	c.sendWin.add(-int64(len(b)))
	s.sendWin.add(-int64(len(b)))
	last := whole && u.noTrailer()
	for len(b) > 0 {
		n := min(len(b), clientPiece)
		c.out = appendData(c.out, s.id, b[:n], last && n == len(b))
		if b = b[n:]; len(b) == 0 && last {
			return
		}
	}
	switch {
	case last:
		c.out = appendData(c.out, s.id, nil, true)
	case whole:
		at := len(c.out)
		block := c.enc.Begin(beginHeaders(c.out))
		for i := range u.trailer.Len() {
			id, name, value := u.trailer.At(i)
			if !clientNotInTrailer(id) && syntax.Plain(value) && syntax.IsToken(name) {
				block = c.enc.Append(block, id, name, value)
			}
		}
		c.out = endHeaders(block, at, s.id, true, minMaxFrame)
	}
}

// sent notes that END_STREAM was sent. C.mu is held.
func (s *clientStream) sent() {
	s.localEnd = true
	if s.ended {
		delete(s.c.streams, s.id)
	}
}

// stopUpload ends the sending; the request's body is left alone from here. C.mu is not held.
func (s *clientStream) stopUpload() {
	u := s.upload
	if u == nil {
		return
	}
	u.cancel()
	u.mu.Lock()
	u.stopped = true
	u.mu.Unlock()
}
