package http2

import (
	"context"
	"io"

	"github.com/relais-edge/relais/internal/http/message"
)

// runTunnel answers a CONNECT and copies both ways until both sides have ended, one has
// failed, or both were silent for too long (RFC 9113 section 8.5, RFC 8441 section 5).
func (c *serverConn) runTunnel(ctx context.Context, s *stream, resp *message.Response, up io.ReadWriteCloser) {
	c.s.tunnels.Add(1)
	c.mu.Lock()
	if s.gone {
		c.mu.Unlock()
		_ = up.Close()
		c.end(s, s.cause)
		return
	}
	c.head(s, resp, false)
	s.touched = c.s.watch.Now()
	c.flush()
	c.workers++
	c.mu.Unlock()
	forth := make(chan error, 1)
	go func() {
		forth <- c.copyForth(s, up)
		c.mu.Lock()
		c.leave()
		c.mu.Unlock()
	}()
	stop := context.AfterFunc(s.ctx, func() { _ = up.Close() })
	err := c.copyBack(s, up)
	if err != nil && s.shutUp.Load() {
		err = c.send(s, nil, true, nil) // it was us who closed it, at the client's end
	}
	if err != nil {
		c.mu.Lock()
		c.resetStream(s, ConnectError, err)
		c.flush()
		c.mu.Unlock()
		_ = up.Close()
	}
	if e := <-forth; err == nil {
		err = e
	}
	stop()
	_ = up.Close()
	c.mu.Lock()
	c.resetStream(s, Cancel, err)
	c.flush()
	c.mu.Unlock()
	c.end(s, err)
}

// copyForth copies from the client.
func (c *serverConn) copyForth(s *stream, up io.ReadWriteCloser) error {
	for {
		b, err := s.body.Next(s.ctx)
		if len(b) > 0 {
			c.touch(s)
			if _, err := up.Write(b); err != nil {
				_ = up.Close()
				return err
			}
		}
		if err == io.EOF {
			if w, ok := up.(interface{ CloseWrite() error }); ok {
				_ = w.CloseWrite()
			} else {
				s.shutUp.Store(true)
				_ = up.Close()
			}
			return nil
		}
		if err != nil {
			_ = up.Close()
			return err
		}
	}
}

func (c *serverConn) touch(s *stream) {
	c.mu.Lock()
	s.touched = c.s.watch.Now()
	c.mu.Unlock()
}

// tunnelSide writes to the client of a tunnel.
type tunnelSide struct{ s *stream }

func (t tunnelSide) Write(b []byte) (int, error) {
	if err := t.s.c.send(t.s, b, false, nil); err != nil {
		return 0, err
	}
	return len(b), nil
}

// copyBack copies to the client.
func (c *serverConn) copyBack(s *stream, up io.Reader) error {
	to := tunnelSide{s}
	if w, ok := up.(io.WriterTo); ok {
		if _, err := w.WriteTo(to); err != nil {
			return err
		}
		return c.send(s, nil, true, nil)
	}
	b := c.s.pool.get(sizeMid)
	defer c.s.pool.put(b)
	for {
		n, err := up.Read(b.b)
		if n > 0 {
			if _, err := to.Write(b.b[:n]); err != nil {
				return err
			}
		}
		if err == io.EOF {
			return c.send(s, nil, true, nil)
		}
		if err != nil {
			return err
		}
	}
}
