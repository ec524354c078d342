package http2

import (
	"context"
	"crypto/sha1"
	"encoding/base64"
	"io"

	"github.com/relais-edge/relais/internal/http/http1"
	"github.com/relais-edge/relais/internal/http/message"
)

// clientTunnel is the origin's side of a tunnel: a stream after a 2xx to CONNECT.
type clientTunnel struct {
	s    *clientStream
	left []byte // of what was lent
}

// open makes a tunnel of the stream. An extended CONNECT answers as the upgrade that it stands
// for (RFC 8441 section 5, RFC 6455 section 4.2.2).
func (s *clientStream) open(resp *message.Response) error {
	resp.ContentLength = 0
	resp.Upgrade = &clientTunnel{s: s}
	if s.upgrade {
		resp.Status = 101
		resp.Del(message.ContentLength)
		resp.AddString(message.Upgrade, "websocket")
		resp.Add(message.SecWebSocketAccept, s.accept)
	}
	return nil
}

// clientAccept is the answer to a Sec-WebSocket-Key.
func clientAccept(key []byte) []byte {
	h := sha1.New()
	_, _ = h.Write(key)
	_, _ = h.Write([]byte("258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	return base64.StdEncoding.AppendEncode(nil, h.Sum(nil))
}

// Read implements io.Reader.
func (t *clientTunnel) Read(p []byte) (int, error) {
	for len(t.left) == 0 {
		b, err := t.s.next(context.Background())
		if len(b) == 0 && err != nil {
			return 0, err
		}
		t.left = b // an error comes again with the next read
	}
	n := copy(p, t.left)
	t.left = t.left[n:]
	return n, nil
}

// Write implements io.Writer. It waits for the windows.
func (t *clientTunnel) Write(p []byte) (int, error) {
	s := t.s
	c := s.c
	c.mu.Lock()
	defer c.unlock()
	for done := 0; ; {
		switch {
		case c.err != nil:
			return done, c.err
		case s.err != nil:
			return done, s.err
		case s.released || s.localEnd:
			return done, io.ErrClosedPipe
		}
		n := s.mayPut(len(p) - done)
		s.frames(p[done:done+n], false, nil)
		done += n
		if done == len(p) {
			c.flushLocked()
			return done, nil
		}
		s.blocked = true
		c.flushLocked()
		c.unlock()
		err := s.wait(context.Background(), s.room)
		c.mu.Lock()
		if s.blocked = false; err != nil {
			return done, err
		}
	}
}

// CloseWrite ends the sending side.
func (t *clientTunnel) CloseWrite() error {
	s := t.s
	c := s.c
	c.mu.Lock()
	defer c.unlock()
	if s.err == nil && c.err == nil && !s.released && !s.localEnd {
		c.out = appendData(c.out, s.id, nil, true)
		s.sent()
		c.flushLocked()
	}
	return nil
}

// Close implements io.Closer. The stream is not used again, for a Read may still know it.
func (t *clientTunnel) Close() error {
	s := t.s
	c := s.c
	c.mu.Lock()
	s.breakOff(http1.ErrClosed)
	s.release()
	c.flushLocked()
	c.unlock()
	return nil
}
