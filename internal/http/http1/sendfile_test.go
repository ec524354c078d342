package http1

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/relais-edge/relais/internal/http/message"
)

// shelf is a Handler that answers with a body in a file, in pieces.
type shelf struct {
	file  *os.File
	raw   syscall.RawConn
	want  []byte
	piece int64 // how much of it NextFile gives at once
	lead  int64 // how much of a piece is in memory
	plain int64 // how many bytes at its end are in no file
	told  int64 // a length other than that of the body

	outcomes chan message.Outcome
}

func newShelf(t testing.TB, size int64) *shelf {
	t.Helper()
	s := &shelf{want: make([]byte, size), piece: 64 << 10, outcomes: make(chan message.Outcome, 100)}
	rng := rand.New(rand.NewPCG(uint64(size), 1))
	for i := range s.want {
		s.want[i] = byte(rng.Uint32())
	}
	name := filepath.Join(t.TempDir(), "body")
	err := os.WriteFile(name, s.want, 0o600)
	if err == nil {
		s.file, err = os.Open(name)
	}
	if err == nil {
		s.raw, err = s.file.SyscallConn()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.file.Close() })
	return s
}

func (s *shelf) Serve(_ context.Context, r *message.Request) *message.Response {
	resp := &message.Response{Status: 200, ContentLength: max(s.told, int64(len(s.want))), Body: &filed{shelf: s}, Ender: s}
	if string(r.Path()) == "/chunked" {
		resp.ContentLength = -1
	}
	return resp
}

func (s *shelf) Refuse(context.Context, *message.Conn, int, string, string) *message.Response {
	return nil
}

func (s *shelf) End(o message.Outcome) {
	select {
	case s.outcomes <- o:
	default:
	}
}

type filed struct {
	*shelf
	off int64
}

func (b *filed) end(n int64) error {
	if b.off += n; b.off == int64(len(b.want)) {
		return io.EOF
	}
	return nil
}

func (b *filed) Next(context.Context) ([]byte, error) {
	p := b.want[b.off:min(b.off+10_000, int64(len(b.want)))]
	return p, b.end(int64(len(p)))
}

func (b *filed) NextFile(_ context.Context, r *message.FileRange) (bool, error) {
	left := max(int64(len(b.want)), b.told) - b.off
	if left <= b.plain {
		return false, nil
	}
	n := min(b.piece, left-b.plain)
	lead := min(b.lead, n)
	*r = message.FileRange{Lead: b.want[b.off : b.off+lead], File: b.raw, Off: b.off + lead, Len: n - lead}
	return true, b.end(n)
}

func (b *filed) Close(error) {}

// via gives each connection of s another way to have the kernel send.
func (s *Server) via(send func(sock, file uintptr, off, n int64) (int, error)) {
	s.gears.New = func() any {
		g := newGear()
		g.file.via = send
		return g
	}
}

// fetch asks once on a connection and returns the body.
func fetch(t *testing.T, nc net.Conn, br *bufio.Reader, raw string) ([]byte, error) {
	t.Helper()
	if _, err := io.WriteString(nc, raw); err != nil {
		t.Fatal(err)
	}
	method, _, _ := strings.Cut(raw, " ")
	resp, err := http.ReadResponse(br, &http.Request{Method: method})
	if err != nil {
		return nil, err
	}
	return io.ReadAll(resp.Body)
}

const plainGet = "GET / HTTP/1.1\r\nHost: h\r\n\r\n"

func needFiles(t testing.TB) {
	t.Helper()
	if !kernelFiles {
		t.Skip("here the kernel sends no files")
	}
}

func TestABodyInAFileIsSentByTheKernel(t *testing.T) {
	needFiles(t)
	for _, size := range []int64{1, 4096, 65_536, 300_001} {
		for _, v := range []struct{ piece, lead, plain int64 }{
			{1 << 20, 0, 0}, {1 << 20, 3832, 0}, {64 << 10, 0, 0}, {10_000, 9_999, 0}, {10_000, 10_000, 0}, {200 << 10, 100, 1}, {64 << 10, 5, 5000},
		} {
			h := newShelf(t, size)
			h.piece, h.lead, h.plain = v.piece, v.lead, v.plain
			s, addr := listen(t, ServerConfig{}, h)
			nc := dial(t, addr)
			br := bufio.NewReader(nc)
			for range 3 {
				if got, err := fetch(t, nc, br, plainGet); err != nil || !bytes.Equal(got, h.want) {
					t.Fatalf("%+v: %d bytes of %d, %v", v, len(got), size, err)
				}
				if o := <-h.outcomes; o.Body != size || o.Err != nil {
					t.Fatalf("%+v: %+v", v, o)
				}
			}
			if n := s.Stats().Files; v.lead < min(v.piece, size-v.plain) && n == 0 {
				t.Errorf("%+v: %d bytes: none by the kernel", v, size)
			}
		}
	}
}

// What frames the body, or what encrypts it, has its bytes; so has a request for the head alone.
func TestABodyInAFileIsReadWhereTheKernelHasNotTheLastWord(t *testing.T) {
	h := newShelf(t, 200_000)
	s, addr := listen(t, ServerConfig{}, h)
	nc := dial(t, addr)
	br := bufio.NewReader(nc)
	if got, err := fetch(t, nc, br, "GET /chunked HTTP/1.1\r\nHost: h\r\n\r\n"); err != nil || !bytes.Equal(got, h.want) {
		t.Errorf("chunked: %d bytes, %v", len(got), err)
	}
	if got, err := fetch(t, nc, br, "HEAD / HTTP/1.1\r\nHost: h\r\n\r\n"); err != nil || len(got) != 0 {
		t.Errorf("HEAD: %d bytes, %v", len(got), err)
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	srv, client := tlsPair(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	wg.Go(func() { s.ServeConn(ctx, srv, &message.Conn{TLS: &message.TLS{}}) })
	if got, err := fetch(t, client, bufio.NewReader(client), plainGet); err != nil || !bytes.Equal(got, h.want) {
		t.Errorf("TLS: %d bytes, %v", len(got), err)
	}
	if n := s.Stats().Files; n != 0 {
		t.Errorf("%d by the kernel", n)
	}
}

func TestWhatTheKernelTakesInPartIsSentWhole(t *testing.T) {
	needFiles(t)
	h := newShelf(t, 300_001)
	h.lead = 1000
	s := NewServer(ServerConfig{}, h)
	var calls atomic.Int64
	s.via(func(sock, file uintptr, off, n int64) (int, error) {
		if calls.Add(1)%3 == 0 {
			return 0, syscall.EINTR
		}
		return sendFile(sock, file, off, min(n, 7001))
	})
	nc := dial(t, s.listen(t))
	if got, err := fetch(t, nc, bufio.NewReader(nc), plainGet); err != nil || !bytes.Equal(got, h.want) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	if calls.Load() < 40 {
		t.Errorf("%d calls", calls.Load())
	}
}

func TestWhereTheKernelRefusesAFileItIsReadAndNobodyTriesAgain(t *testing.T) {
	needFiles(t)
	h := newShelf(t, 300_001)
	s := NewServer(ServerConfig{}, h)
	var calls atomic.Int64
	s.via(func(sock, file uintptr, off, n int64) (int, error) {
		if calls.Add(1) == 3 {
			return 0, syscall.EINVAL
		}
		return sendFile(sock, file, off, n)
	})
	nc := dial(t, s.listen(t))
	br := bufio.NewReader(nc)
	for range 3 {
		if got, err := fetch(t, nc, br, plainGet); err != nil || !bytes.Equal(got, h.want) {
			t.Fatalf("%d bytes, %v", len(got), err)
		}
	}
	// The first answer goes on as it began: its pieces are asked for one by one.
	before := calls.Load()
	if got, err := fetch(t, nc, br, plainGet); err != nil || !bytes.Equal(got, h.want) || calls.Load() != before {
		t.Errorf("%d bytes, %v, %d calls after %d", len(got), err, calls.Load(), before)
	}
}

func TestAFileThatIsShorterThanToldBreaksTheAnswerOff(t *testing.T) {
	needFiles(t)
	h := newShelf(t, 100_000)
	h.told, h.piece = 150_000, 1<<20
	s, addr := listen(t, ServerConfig{}, h)
	nc := dial(t, addr)
	got, err := fetch(t, nc, bufio.NewReader(nc), plainGet)
	if err == nil || len(got) > 100_000 {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	if o := <-h.outcomes; !errors.Is(o.Err, io.ErrUnexpectedEOF) {
		t.Errorf("%+v", o)
	}
	if n := s.Stats().Aborted; n != 1 {
		t.Errorf("%d aborted", n)
	}
}

func TestAClientThatGoesEndsWhatTheKernelSends(t *testing.T) {
	needFiles(t)
	h := newShelf(t, 32<<20)
	_, addr := listen(t, ServerConfig{}, h)
	nc := dial(t, addr)
	_, _ = io.WriteString(nc, plainGet)
	if _, err := io.ReadFull(nc, make([]byte, 100_000)); err != nil {
		t.Fatal(err)
	}
	_ = nc.(*net.TCPConn).SetLinger(0)
	_ = nc.Close()
	select {
	case o := <-h.outcomes:
		if o.Err == nil || o.Body >= 32<<20 {
			t.Errorf("%+v", o)
		}
	case <-time.After(20 * time.Second):
		t.Error("the answer does not end")
	}
}
