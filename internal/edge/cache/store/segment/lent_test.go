package segment

import (
	"bytes"
	"io"
	"net"
	"runtime"
	"syscall"
	"testing"
	"time"
)

// lend has the kernel send a body of a file to a socket whose other side does not read, and lets the record go.
func lend(t *testing.T, l *Log, r Record, to *net.TCPConn) (lead []byte) {
	t.Helper()
	var o Object
	if err := l.Pin(r.At, &o); err != nil {
		t.Fatal(err)
	}
	defer o.Unpin()
	var span Span
	if ok, err := o.File(0, o.Len(), &span); !ok || err != nil || int64(len(span.Lead))+span.Len != o.Len() {
		t.Fatal(ok, err, span)
	}
	raw, err := to.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	send := func(sock uintptr) bool {
		for span.Len > 0 {
			n := 0
			if e := span.File.Control(func(fd uintptr) { n, err = syscall.Sendfile(int(sock), int(fd), &span.At, int(span.Len)) }); e != nil {
				err = e
			}
			if err == syscall.EAGAIN {
				return false
			}
			if err != nil || n == 0 {
				return true
			}
			span.Len -= int64(n)
		}
		return true
	}
	if e := raw.Write(send); e != nil || err != nil || span.Len != 0 {
		t.Fatal(e, err, span.Len)
	}
	return bytes.Clone(span.Lead)
}

// What the kernel was told to send it keeps by reference until the other side has it, and nobody is pinned by then.
func TestWhatTheKernelHasOfAFileDoesNotChangeWhenItsSegmentIsUsedAgain(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("elsewhere nobody sends files")
	}
	d, err := OpenDir(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	b := newBook()
	l, err := New(Config{Limit: 1 << 20, SegmentSize: 64 << 10, StageBytes: 16 << 10, MaxObject: 100 << 10, MaxHead: 4 << 10, Dir: d, Log: quiet()}, b)
	if err != nil {
		t.Fatal(err)
	}
	files := media()[2]
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ln.Close() }()
	type lent struct {
		peer       net.Conn
		lead, body []byte
	}
	var all []lent
	for i := range 12 {
		body := bytesOf(uint64(100+i), 15_000)
		r, err := store(l, uint64(i), nil, body, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		b.put(r)
		files.drain(l)
		peer, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = peer.Close() }()
		conn, err := ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
		lead := lend(t, l, r, conn.(*net.TCPConn))
		_ = conn.Close()
		all = append(all, lent{peer, lead, body})
	}
	before := l.Stats().Reclaimed
	for i := range 400 { // six times round
		r, err := store(l, uint64(1000+i), nil, bytesOf(uint64(i), 15_000), 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		b.put(r)
		files.drain(l)
	}
	if n := l.Stats().Reclaimed - before; n < 3*16 {
		t.Fatalf("%d segments were used again", n)
	}
	for i, x := range all {
		_ = x.peer.SetDeadline(time.Now().Add(20 * time.Second))
		got, err := io.ReadAll(x.peer)
		if err != nil || !bytes.Equal(append(x.lead, got...), x.body) {
			t.Errorf("body %d changed on its way: %d bytes after %d of %d, %v", i, len(got), len(x.lead), len(x.body), err)
		}
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
}

// A process that follows may write over what its table does not tell of, and what was given to it over all.
func TestOnlyWhatNobodyWritesOverIsLent(t *testing.T) {
	d, err := OpenDir(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	l, err := New(Config{Limit: 1 << 20, SegmentSize: 64 << 10, StageBytes: 16 << 10, MaxObject: 100 << 10, MaxHead: 4 << 10, Dir: d, Log: quiet()}, newBook())
	if err != nil {
		t.Fatal(err)
	}
	body := bytesOf(1, 15_000)
	r, err := store(l, 1, nil, body, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	lent := func() bool {
		t.Helper()
		var o Object
		var span Span
		defer o.Unpin()
		if err := l.Pin(r.At, &o); err != nil {
			t.Fatal(err)
		}
		ok, err := o.File(0, o.Len(), &span)
		if err != nil {
			t.Fatal(err)
		}
		return ok
	}
	if lent() {
		t.Error("lent before it was written")
	}
	if err := l.flush(); err != nil {
		t.Fatal(err)
	}
	if !lent() {
		t.Error("not lent")
	}
	s, _ := l.at(int64(r.At) << unitShift)
	told := s.disk.told.Swap(firstRecord)
	if lent() {
		t.Error("lent before the table told of it")
	}
	s.disk.told.Store(told)
	if err := l.Leave(); err != nil {
		t.Fatal(err)
	}
	if lent() {
		t.Error("lent though the directory is another's")
	}
	if err := check(t, l, r, nil, body); err != nil {
		t.Error(err)
	}
}
