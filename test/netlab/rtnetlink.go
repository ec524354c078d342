package netlab

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// routes speaks rtnetlink(7), as little of it as a host wants: a device up, an address, a default route.
type routes struct {
	fd  int
	seq uint32
}

// openRoutes opens a socket in the namespace of the calling thread.
func openRoutes() (*routes, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("netlab: a netlink socket: %w", err)
	}
	return &routes{fd: fd}, nil
}

func (r *routes) close() { _ = unix.Close(r.fd) }

// up brings a device up; mtu and queue are left as they are when 0.
func (r *routes) up(index, mtu, queue int) error {
	b := []byte{unix.AF_UNSPEC, 0, 0, 0} // family, padding, type
	b = binary.NativeEndian.AppendUint32(b, uint32(index))
	b = binary.NativeEndian.AppendUint32(b, unix.IFF_UP) // flags
	b = binary.NativeEndian.AppendUint32(b, unix.IFF_UP) // those that change
	b = appendNumber(b, unix.IFLA_MTU, mtu)
	b = appendNumber(b, unix.IFLA_TXQLEN, queue)
	return r.ask("bring up a device", unix.RTM_NEWLINK, 0, b)
}

func (r *routes) addAddress(index int, a netip.Prefix) error {
	flags := byte(0)
	if a.Addr().Is6() {
		flags = unix.IFA_F_NODAD // nobody else is on this wire
	}
	b := []byte{family(a.Addr().Is6()), byte(a.Bits()), flags, unix.RT_SCOPE_UNIVERSE}
	b = binary.NativeEndian.AppendUint32(b, uint32(index))
	b = appendAttribute(b, unix.IFA_LOCAL, a.Addr().AsSlice())
	b = appendAttribute(b, unix.IFA_ADDRESS, a.Addr().AsSlice())
	return r.ask("add the address "+a.String(), unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_EXCL, b)
}

func (r *routes) addDefault(index int, six bool) error {
	scope := byte(unix.RT_SCOPE_LINK)
	if six {
		scope = unix.RT_SCOPE_UNIVERSE
	}
	// Family, lengths of destination and source, TOS, table, protocol, scope, type; then flags.
	b := []byte{family(six), 0, 0, 0, unix.RT_TABLE_MAIN, unix.RTPROT_STATIC, scope, unix.RTN_UNICAST, 0, 0, 0, 0}
	b = appendNumber(b, unix.RTA_OIF, index)
	return r.ask("add the default route", unix.RTM_NEWROUTE, unix.NLM_F_CREATE, b)
}

func family(six bool) byte {
	if six {
		return unix.AF_INET6
	}
	return unix.AF_INET
}

// appendNumber appends an attribute of 32 bits, unless it is 0.
func appendNumber(b []byte, kind uint16, n int) []byte {
	if n == 0 {
		return b
	}
	return appendAttribute(b, kind, binary.NativeEndian.AppendUint32(nil, uint32(n)))
}

func appendAttribute(b []byte, kind uint16, value []byte) []byte {
	b = binary.NativeEndian.AppendUint16(b, uint16(4+len(value)))
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = append(b, value...)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}

// ask sends one request and reads its acknowledgement.
func (r *routes) ask(what string, kind, flags uint16, body []byte) error {
	r.seq++
	b := binary.NativeEndian.AppendUint32(nil, uint32(16+len(body)))
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = binary.NativeEndian.AppendUint16(b, flags|unix.NLM_F_REQUEST|unix.NLM_F_ACK)
	b = binary.NativeEndian.AppendUint32(b, r.seq)
	b = binary.NativeEndian.AppendUint32(b, 0)
	if err := r.exchange(append(b, body...)); err != nil {
		return fmt.Errorf("netlab: %s: %w", what, err)
	}
	return nil
}

func (r *routes) exchange(request []byte) error {
	if err := unix.Sendto(r.fd, request, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	answer := make([]byte, 4096)
	n, _, err := unix.Recvfrom(r.fd, answer, 0)
	if err != nil {
		return err
	}
	if n < 20 || binary.NativeEndian.Uint16(answer[4:]) != unix.NLMSG_ERROR || binary.NativeEndian.Uint32(answer[8:]) != r.seq {
		return errors.New("the kernel's answer is no acknowledgement")
	}
	if code := int32(binary.NativeEndian.Uint32(answer[16:])); code != 0 {
		return unix.Errno(-code)
	}
	return nil
}
