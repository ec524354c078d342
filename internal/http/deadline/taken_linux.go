package deadline

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// deadProbes is how many probes of a closed window without an answer say that nobody is there.
const deadProbes = 3

// takenBy reads TCP_INFO (RFC 4898 names the counters).
func takenBy(raw syscall.RawConn) (t taken, ok bool) {
	err := raw.Control(func(fd uintptr) {
		info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
		if err != nil {
			return
		}
		t = taken{
			bytes:   int64(info.Bytes_acked),
			segment: int64(info.Snd_mss),
			owed:    info.Probes >= deadProbes || info.Unacked > 0 && info.Snd_wnd > 0,
			mute:    int64(info.Last_ack_recv),
		}
		ok = true
	})
	return t, ok && err == nil
}

// moreUnsent has the kernel take as much as it likes of what is written to a socket, up to unsent bytes
// beyond what it can send now.
func moreUnsent(raw syscall.RawConn) {
	_ = raw.Control(func(fd uintptr) {
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, unsent)
	})
}
