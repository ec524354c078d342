package deadline

import (
	"net"
	"testing"

	"golang.org/x/sys/unix"
)

func TestAClientThatReadsGetsMoreRoom(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	c, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	socket := c.(*net.TCPConn)
	raw, err := socket.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	bound := func() (n int) {
		_ = raw.Control(func(fd uintptr) { n, _ = unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT) })
		return n
	}
	before := bound()
	var r Room
	if r.Sent(socket, roomAfter-1); bound() != before {
		t.Errorf("%d before the client has shown anything", bound())
	}
	if r.Sent(socket, 1); bound() != unsent {
		t.Errorf("%d, want %d", bound(), unsent)
	}
	r = Room{}
	r.Sent(nil, 2*roomAfter) // a socket that is not known
}
