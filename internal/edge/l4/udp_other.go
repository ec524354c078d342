//go:build !linux

package l4

import (
	"net"
	"net/netip"
)

// wantDestination asks for the address that each datagram was sent to, which only Linux is asked for.
func wantDestination(*net.UDPConn) bool { return false }

func destinationOf(_ []byte, local netip.AddrPort) netip.AddrPort { return local }

func answerFrom([]byte) []byte { return nil }

// read waits for a datagram; done gives its memory back.
func (r *datagramReader) read() (n int, err error) {
	r.take()
	return r.conn.Read(r.buf[:])
}
