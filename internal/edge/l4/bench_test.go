package l4

import (
	"io"
	"net"
	"testing"
)

// BenchmarkTCPBytes is how fast bytes pass through, 1 MiB at a time, both ways.
func BenchmarkTCPBytes(b *testing.B) {
	bed := newBed(b)
	bed.apply(serviceDoc("a", "tcp", "127.0.0.1:0", tcpOrigin(b, "tcp", "127.0.0.1:0", echo(""))))
	nc, err := net.Dial("tcp", bed.address("tcp"))
	if err != nil {
		b.Fatal(err)
	}
	defer nc.Close()
	send, got := make([]byte, 1<<20), make([]byte, 1<<20)
	b.SetBytes(2 << 20)
	for b.Loop() {
		go func() { _, _ = nc.Write(send) }()
		if _, err := io.ReadFull(nc, got); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkTCPConnections is what a connection with one small exchange costs.
func BenchmarkTCPConnections(b *testing.B) {
	bed := newBed(b)
	bed.apply(serviceDoc("a", "tcp", "127.0.0.1:0", tcpOrigin(b, "tcp", "127.0.0.1:0", echo(""))))
	address := bed.address("tcp")
	buf := make([]byte, 5)
	b.ReportAllocs()
	for b.Loop() {
		nc, err := net.Dial("tcp", address)
		if err != nil {
			b.Fatal(err)
		}
		_, _ = io.WriteString(nc, "hello")
		if _, err := io.ReadFull(nc, buf); err != nil {
			b.Fatal(err)
		}
		_ = nc.(*net.TCPConn).SetLinger(0)
		_ = nc.Close()
	}
}

// BenchmarkUDP is what a datagram and its answer cost in a session.
func BenchmarkUDP(b *testing.B) {
	bed := newBed(b)
	bed.apply(serviceDoc("a", "udp", "127.0.0.1:0", udpOrigin(b, "")))
	nc, err := net.Dial("udp", bed.address("udp"))
	if err != nil {
		b.Fatal(err)
	}
	defer nc.Close()
	buf := make([]byte, 100)
	b.ReportAllocs()
	for b.Loop() {
		_, _ = nc.Write(buf)
		if _, err := nc.Read(buf); err != nil {
			b.Fatal(err)
		}
	}
}
