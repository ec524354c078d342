package http1

import (
	"context"
	"errors"
	"io"

	"github.com/relais-edge/relais/internal/http/message"
)

var errTunnelBody = errors.New("a tunnel was opened before the request's body was read")

// tunnel sends the head of a 101, or of a 2xx to CONNECT, and copies both ways until both
// sides have ended, one has failed, or both were silent for too long (RFC 9110 sections 7.8 and
// 9.3.6).
func (c *serverConn) tunnel(ctx context.Context, x *exchange, resp *message.Response) {
	up := resp.Upgrade
	x.outcome.Status = resp.Status
	c.last = true
	if x.body.open && x.body.drainable() && x.body.err != io.EOF {
		_ = up.Close()
		x.outcome.Status = 0
		c.finish(x, errTunnelBody)
		return
	}
	c.s.tunnels.Add(1)
	x.keep = true // the head does not say that the connection closes
	c.wmu.Lock()
	c.head(x, resp, frameNone, 0)
	err := c.write(nil, nil)
	c.wmu.Unlock()
	c.rg.Set(phaseNone, 0)
	if err == nil {
		err = c.copyBoth(up)
	}
	_ = up.Close()
	if c.touch(); ctx.Err() != nil && err == nil {
		err = ctx.Err()
	}
	c.wg.Set(phaseNone, 0)
	x.outcome.Body = c.tunneled
	c.finish(x, err)
}

// touch starts the limit of silence anew.
func (c *serverConn) touch() { c.wg.Set(phaseTunnel, c.s.watch.Limit(c.s.cfg.TunnelTimeout)) }

// copyBoth copies until both ways have ended or one has failed.
func (c *serverConn) copyBoth(up io.ReadWriteCloser) error {
	c.touch()
	back := make(chan error, 1)
	go func() {
		err := c.copyBack(up)
		if err != nil {
			c.kickRead() // the other way ends too
		} else {
			closeWrite(c.nc, c.tcp)
		}
		back <- err
	}()
	err := c.copyForth(up)
	if err != nil {
		_ = up.Close()
		<-back
		return err
	}
	if w, ok := up.(interface{ CloseWrite() error }); ok {
		_ = w.CloseWrite()
	} else {
		_ = up.Close()
		<-back
		return nil
	}
	return <-back
}

// copyForth copies from the client, what was read already first.
func (c *serverConn) copyForth(up io.Writer) error {
	for {
		if b := c.src.buffered(); len(b) > 0 {
			if _, err := up.Write(b); err != nil {
				return err
			}
			c.touch()
		}
		c.src.drop()
		if _, err := c.src.fill(sizeMid); err != nil {
			if err == io.EOF {
				return nil
			}
			return err
		}
	}
}

// copyBack copies to the client.
func (c *serverConn) copyBack(up io.Reader) error {
	if w, ok := up.(io.WriterTo); ok {
		_, err := w.WriteTo(tunnelSide{c})
		return err
	}
	b := c.s.pool.get(sizeMid)
	defer c.s.pool.put(b)
	for {
		n, err := up.Read(b.b)
		if n > 0 {
			if _, err := (tunnelSide{c}).Write(b.b[:n]); err != nil {
				return err
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// tunnelSide writes to the client of a tunnel.
type tunnelSide struct{ c *serverConn }

func (t tunnelSide) Write(b []byte) (int, error) {
	n, err := t.c.nc.Write(b)
	t.c.tunneled += int64(n)
	t.c.touch()
	return n, err
}
