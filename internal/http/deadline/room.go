package deadline

import "net"

const (
	// roomAfter is how much a client must have been sent for more room.
	roomAfter = 1 << 20
	// unsent is what the kernel then takes of an answer beyond what it can send at the moment.
	unsent = 128 << 10
)

// Room gives a connection more of the kernel's memory once its client has shown that it reads. Sockets begin
// with little (TCP_NOTSENT_LOWAT on the listener), so that ten thousand slow readers do not take all that the
// system has for TCP; a fast download wants more, or it waits for this process each few packets.
// The zero Room is ready.
type Room struct {
	sent int64 // -1 once there is more room
}

// Sent notes that n bytes were written. Socket is nil where it is not known.
func (r *Room) Sent(socket *net.TCPConn, n int) {
	if r.sent < 0 {
		return
	}
	if r.sent += int64(n); r.sent >= roomAfter {
		r.sent = -1
		if socket == nil {
			return
		}
		if raw, err := socket.SyscallConn(); err == nil {
			moreUnsent(raw)
		}
	}
}
