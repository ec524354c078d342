package http1

import (
	"net"
	"syscall"
	"time"
)

// close ends the connection: with a reset when the client must not take what it has for
// whole, gently when it may still be sending.
func (c *serverConn) close() {
	switch {
	case c.abort:
		reset(c.nc, c.tcp)
	case c.linger:
		c.wait()
	}
	c.leave()
	_ = c.nc.Close()
	c.gearDown()
	if c.x != nil {
		c.x.req.Reset()
		c.x = nil
	}
}

// reset closes nc so that the other side sees an error, and no TLS close_notify: in the middle of
// a record that would be a broken record.
func reset(nc net.Conn, tcp *net.TCPConn) {
	if tcp != nil {
		_ = tcp.SetLinger(0)
		_ = tcp.Close()
	} else if u, ok := nc.(interface{ NetConn() net.Conn }); ok {
		_ = u.NetConn().Close()
	}
	_ = nc.Close()
}

// lingerTime and lingerBytes bound what is read from a client after the answer.
const (
	lingerTime  = time.Second
	lingerBytes = 256 << 10
)

// wait lets a client that is still sending read its answer: closing with unread bytes would
// reset the connection under it (RFC 9112 section 9.6).
func (c *serverConn) wait() {
	closeWrite(c.nc, c.tcp)
	c.enter(phaseLinger, c.s.watch.Limit(lingerTime))
	c.src.drop()
	for n := 0; n < lingerBytes; {
		m, err := c.src.fill(sizeMid)
		if err != nil {
			return
		}
		n += m
		c.src.drop()
	}
}

func closeWrite(nc net.Conn, tcp *net.TCPConn) {
	if w, ok := nc.(interface{ CloseWrite() error }); ok {
		_ = w.CloseWrite()
	}
	if tcp != nil {
		_ = tcp.CloseWrite()
	}
}

// socketOf finds the TCP connection under nc.
func socketOf(nc net.Conn) (*net.TCPConn, syscall.RawConn) {
	for range 4 {
		if t, ok := nc.(*net.TCPConn); ok {
			raw, err := t.SyscallConn()
			if err != nil {
				return t, nil
			}
			return t, raw
		}
		u, ok := nc.(interface{ NetConn() net.Conn })
		if !ok {
			break
		}
		nc = u.NetConn()
	}
	return nil, nil
}
