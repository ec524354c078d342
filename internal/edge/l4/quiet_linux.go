package l4

import (
	"net"
	"time"

	"golang.org/x/sys/unix"
)

// canSee says whether the system tells when a connection last received something.
func canSee(nc *net.TCPConn) bool {
	_, err := tcpInfo(nc)
	return err == nil
}

// sinceReceived is how long nothing has come from the other side.
func sinceReceived(nc *net.TCPConn) time.Duration {
	info, err := tcpInfo(nc)
	if err != nil {
		return 0
	}
	return time.Duration(info.Last_data_recv) * time.Millisecond
}

func tcpInfo(nc *net.TCPConn) (info *unix.TCPInfo, err error) {
	raw, err := nc.SyscallConn()
	if err != nil {
		return nil, err
	}
	if cerr := raw.Control(func(fd uintptr) { info, err = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO) }); cerr != nil {
		return nil, cerr
	}
	return info, err
}
