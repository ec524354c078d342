package listen

import (
	"io"
	"net"

	"github.com/relais-edge/relais/internal/edge/proxyproto"
)

// readProxy takes a PROXY protocol header off nc, and nothing behind it. It returns
// proxyproto.ErrNone when the connection begins otherwise.
func readProxy(nc net.Conn) (h proxyproto.Header, rest net.Conn, err error) {
	var buf [proxyproto.MaxV1]byte
	var n int
	var m proxyproto.Match
	_, rest, err = peek(nc, buf[:], func(b []byte) bool {
		n, m = proxyproto.Measure(b)
		return m != proxyproto.More
	})
	switch {
	case err != nil:
		return h, rest, err
	case m == proxyproto.No:
		return h, rest, proxyproto.ErrNone
	case m != proxyproto.Yes:
		return h, rest, proxyproto.ErrMalformed
	}
	head := make([]byte, n)
	if _, err = io.ReadFull(rest, head); err != nil {
		return h, rest, err
	}
	h, err = proxyproto.Parse(head)
	return h, rest, err
}
