package l4

import (
	"net"
	"net/netip"

	"golang.org/x/sys/unix"
)

// wantDestination asks the system for the address that each datagram was sent to, where a socket has
// more than one; false when it has not.
func wantDestination(c *net.UDPConn) bool {
	local := addrPortOf(c.LocalAddr())
	if !local.Addr().IsUnspecified() {
		return false
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return false
	}
	var err4, err6 error
	if raw.Control(func(fd uintptr) {
		err4 = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_PKTINFO, 1)
		err6 = unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1)
	}) != nil {
		return false
	}
	return err4 == nil || err6 == nil
}

// packetInfo finds the address in the control messages of a datagram.
func packetInfo(oob []byte) (a netip.Addr, ok bool) {
	if len(oob) == 0 {
		return a, false
	}
	list, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return a, false
	}
	for _, m := range list {
		switch {
		case m.Header.Level == unix.IPPROTO_IP && m.Header.Type == unix.IP_PKTINFO && len(m.Data) >= unix.SizeofInet4Pktinfo:
			return netip.AddrFrom4([4]byte(m.Data[4:8])), true // ipi_spec_dst
		case m.Header.Level == unix.IPPROTO_IPV6 && m.Header.Type == unix.IPV6_PKTINFO && len(m.Data) >= unix.SizeofInet6Pktinfo:
			return netip.AddrFrom16([16]byte(m.Data[:16])), true
		}
	}
	return a, false
}

// destinationOf is where a datagram was sent to; local when that is not known.
func destinationOf(oob []byte, local netip.AddrPort) netip.AddrPort {
	if a, ok := packetInfo(oob); ok {
		return netip.AddrPortFrom(a.Unmap(), local.Port())
	}
	return local
}

// answerFrom makes the control message that sends answers from the address that a datagram was sent
// to; nil when that is not known.
func answerFrom(oob []byte) []byte {
	a, ok := packetInfo(oob)
	switch {
	case !ok:
		return nil
	case a.Is4():
		info := unix.Inet4Pktinfo{Spec_dst: a.As4()}
		return unix.PktInfo4(&info)
	case a.Is4In6():
		info := unix.Inet4Pktinfo{Spec_dst: a.Unmap().As4()}
		return unix.PktInfo4(&info)
	case a.IsLinkLocalUnicast():
		return append([]byte(nil), oob...) // with its interface
	}
	info := unix.Inet6Pktinfo{Addr: a.As16()}
	return unix.PktInfo6(&info)
}

// read waits for a datagram and takes memory for it only then; done gives it back.
func (r *datagramReader) read() (n int, err error) {
	if r.try == nil {
		r.try = r.receive // made once: it would be allocated for each datagram
	}
	if err = r.raw.Read(r.try); err == nil {
		err = r.err
	}
	return max(r.n, 0), err
}

// receive takes a datagram; false when there is none.
func (r *datagramReader) receive(fd uintptr) bool {
	r.take()
	for {
		r.n, r.err = unix.Read(int(fd), r.buf[:]) // sockets of net do not block
		switch r.err {
		case unix.EINTR:
			continue
		case unix.EAGAIN:
			r.done()
			return false
		}
		return true
	}
}
