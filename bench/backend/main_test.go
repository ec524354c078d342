package main

import (
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// startServer runs a server on a free port; it lives as long as the test binary.
func startServer(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().(*net.TCPAddr)
	_ = l.Close()
	go func() { _ = newServer().run(addr.Port) }()
	for range 200 {
		if c, err := net.Dial("tcp", addr.String()); err == nil {
			_ = c.Close()
			return addr.String()
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Fatal("does not listen")
	return ""
}

func fetch(t *testing.T, url string) (*http.Response, string) {
	t.Helper()
	r, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return r, string(b)
}

func TestAnswers(t *testing.T) {
	addr := startServer(t)
	for path, want := range map[string]struct {
		size    int
		control string
	}{
		"/hit/1k": {1 << 10, "max-age=86400"}, "/hit/64k": {64 << 10, "max-age=86400"},
		"/proxy/1k": {1 << 10, "no-store"}, "/proxy/64k": {64 << 10, "no-store"},
	} {
		r, body := fetch(t, "http://"+addr+path)
		if r.StatusCode != 200 || body != strings.Repeat("x", want.size) || r.Header.Get("Cache-Control") != want.control {
			t.Errorf("%s: %s, %d bytes, %v", path, r.Status, len(body), r.Header)
		}
	}
	if _, body := fetch(t, "http://"+addr+"/count"); body != "4" {
		t.Errorf("count %s, want 4", body)
	}
}

// The whole pipeline of answers is larger than the socket's buffers, so that
// writes are cut short, and the head of one request comes in two pieces.
func TestPipelinedAndSplitRequests(t *testing.T) {
	conn, err := net.Dial("tcp", startServer(t))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	const n = 200
	one := "GET /proxy/64k HTTP/1.1\r\nHost: a\r\n\r\n"
	go func() {
		_, _ = io.WriteString(conn, strings.Repeat(one, n)+one[:20])
		time.Sleep(20 * time.Millisecond)
		_, _ = io.WriteString(conn, one[20:])
	}()
	want := (n + 1) * len(newServer().proxy.large)
	if got, err := io.CopyN(io.Discard, conn, int64(want)); err != nil {
		t.Fatalf("read %d of %d bytes: %v", got, want, err)
	}
	_ = conn.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	if n, err := conn.Read(make([]byte, 1)); err == nil {
		t.Errorf("%d bytes more than the answers", n)
	}
}

func TestOtherMethodsAreRefused(t *testing.T) {
	conn, err := net.Dial("tcp", startServer(t))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
	_, _ = io.WriteString(conn, "POST /hit/1k HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n")
	b := make([]byte, 12)
	if _, err := io.ReadFull(conn, b); err != nil || string(b) != "HTTP/1.1 501" {
		t.Errorf("answered %q, %v", b, err)
	}
}
