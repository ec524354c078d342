//go:build !unix

package listen

import "net"

// peek looks at the first bytes of a connection until enough says so or buf is full. The
// connection to go on with is returned; it begins with the same bytes.
func peek(nc net.Conn, buf []byte, enough func([]byte) bool) ([]byte, net.Conn, error) {
	return peekAny(nc, buf, enough)
}
