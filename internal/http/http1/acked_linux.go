package http1

import "golang.org/x/sys/unix"

// bytesAcked is tcpi_bytes_acked (RFC 4898, tcpEStatsAppHCThruOctetsAcked).
func bytesAcked(fd uintptr) (int64, bool) {
	info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
	if err != nil {
		return 0, false
	}
	return int64(info.Bytes_acked), true
}
