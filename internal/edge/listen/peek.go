package listen

import (
	"bytes"
	"net"
)

// peekAny is peek for connections whose bytes must be read to be seen.
func peekAny(nc net.Conn, buf []byte, enough func([]byte) bool) ([]byte, net.Conn, error) {
	n := 0
	for {
		m, err := nc.Read(buf[n:])
		n += m
		if n > 0 && (n == len(buf) || enough(buf[:n])) {
			break
		}
		if err != nil {
			return buf[:n], nc, err
		}
	}
	return buf[:n], &replayed{Conn: nc, first: bytes.Clone(buf[:n])}, nil
}

// replayed is a connection that begins with bytes that were read already.
type replayed struct {
	net.Conn
	first []byte
}

// Read implements net.Conn.
func (c *replayed) Read(b []byte) (int, error) {
	if len(c.first) > 0 {
		n := copy(b, c.first)
		c.first = c.first[n:]
		return n, nil
	}
	return c.Conn.Read(b)
}

// NetConn returns the connection under it, as that of package crypto/tls does.
func (c *replayed) NetConn() net.Conn { return c.Conn }

// CloseWrite closes the sending side, where the connection can.
func (c *replayed) CloseWrite() error {
	if h, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return h.CloseWrite()
	}
	return c.Conn.Close()
}

// preface begins an HTTP/2 connection (RFC 9113 section 3.4).
const preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

// begins says whether b begins with prefix, or is the beginning of it.
func begins(b []byte, prefix string) bool {
	n := min(len(b), len(prefix))
	return string(b[:n]) == prefix[:n]
}

// peekPreface says whether a connection in clear begins as HTTP/2. First is told when the
// first byte has come.
func peekPreface(nc net.Conn, first func()) (http2 bool, rest net.Conn, err error) {
	var buf [len(preface)]byte
	seen := false
	b, rest, err := peek(nc, buf[:], func(b []byte) bool {
		if !seen {
			seen = true
			first()
		}
		return !begins(b, preface)
	})
	return err == nil && string(b) == preface, rest, err
}
