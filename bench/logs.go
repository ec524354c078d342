package main

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"sync/atomic"
)

// logger is where a server's access log goes. Written counts since the last
// Empty, in bytes.
type logger interface {
	Written() int64
	Empty() error
}

// fileLog is a log file that the server appends to.
type fileLog string

func (f fileLog) Written() int64 {
	info, err := os.Stat(string(f))
	if err != nil {
		return 0
	}
	return info.Size()
}

func (f fileLog) Empty() error {
	err := os.Truncate(string(f), 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// syslogSink takes log lines as datagrams and drops them. What its socket
// cannot hold is lost, which costs the server no less.
type syslogSink struct {
	conn  net.PacketConn
	bytes atomic.Int64
}

func newSyslogSink() (*syslogSink, error) {
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	if udp, ok := conn.(*net.UDPConn); ok {
		_ = udp.SetReadBuffer(8 << 20) // as much as the system allows
	}
	s := &syslogSink{conn: conn}
	go func() {
		buf := make([]byte, 64<<10)
		for {
			n, _, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			s.bytes.Add(int64(n))
		}
	}()
	return s, nil
}

func (s *syslogSink) addr() string   { return s.conn.LocalAddr().String() }
func (s *syslogSink) close()         { _ = s.conn.Close() }
func (s *syslogSink) Written() int64 { return s.bytes.Load() }
func (s *syslogSink) Empty() error   { s.bytes.Store(0); return nil }
