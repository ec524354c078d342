package cache

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"math"
	"math/rand/v2"
	"net"
	"net/http"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/edge/cache/purge"
	"github.com/relais-edge/relais/internal/http/http1"
	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/stage"
)

// versions is an origin whose answers change with each POST, and say which they are.
type versions struct {
	base []byte
	now  [40]atomic.Int64
}

const versionSize = 350_000

func (v *versions) body(n int) []byte { return v.base[n*61%len(v.base)/2:][:versionSize] }

func (v *versions) Serve(_ context.Context, x *stage.Exchange) (*message.Response, error) {
	key, err := strconv.Atoi(string(x.In.Path()[1:]))
	if err != nil {
		return nil, err
	}
	resp := &x.Response
	resp.Reset()
	resp.Status = 200
	if x.In.Method == message.POST {
		v.now[key].Add(1)
		return resp, nil
	}
	n := key*1000 + int(v.now[key].Load())
	resp.AddString(message.CacheControl, "max-age=600")
	resp.AddLine([]byte("X-Version"), strconv.AppendInt(nil, int64(n), 10))
	resp.SetBytes(v.body(n))
	return resp, nil
}

// fileRig is a stage with hardly any memory, and a disk, behind HTTP/1.1.
type fileRig struct {
	*rig
	from   *versions
	server *http1.Server
	addr   string
}

func (r *fileRig) Serve(ctx context.Context, req *message.Request) *message.Response {
	x := r.exchange(string(req.MethodName()) + " " + string(req.Path()))
	if v := req.Get(message.Range); v != nil {
		x.In.AddLine([]byte("Range"), v)
	}
	x.In.Control = req.Control
	resp, err := r.chain.Serve(ctx, x)
	if err != nil {
		x.End(message.Outcome{Err: err})
		resp = &message.Response{Status: 502}
		return resp
	}
	resp.Ender = x
	return resp
}

func (r *fileRig) Refuse(context.Context, *message.Conn, int, string, string) *message.Response {
	return nil
}

func newFileRig(t *testing.T) *fileRig {
	t.Helper()
	folder := t.TempDir()
	l, err := purge.OpenFile(filepath.Join(folder, "purges"), 1000)
	if err != nil {
		t.Fatal(err)
	}
	r := &fileRig{rig: &rig{t: t, real: true}, from: &versions{base: make([]byte, 4<<20)}}
	rng := rand.New(rand.NewPCG(1, 1))
	for i := range r.from.base {
		r.from.base[i] = byte(rng.Uint32())
	}
	r.s, err = New(Config{Slot: 3, MaxBytes: 2 << 20, Disk: Disk{filepath.Join(folder, "disk"), MinDisk}, Purges: l, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	r.chain = stage.Chain(r.from, r.s)
	r.site = newSite(t, r.s, "acme/shop", v1.CachePolicySpec{})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r.addr = ln.Addr().String()
	r.server = http1.NewServer(http1.ServerConfig{}, r)
	ctx, cancel := context.WithCancel(t.Context())
	ran := make(chan error, 1)
	go func() { ran <- r.s.Run(ctx) }()
	var wg sync.WaitGroup
	wg.Go(func() { _ = r.server.Run(ctx) })
	wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { r.server.ServeConn(ctx, c, &message.Conn{}) })
		}
	})
	t.Cleanup(func() {
		_ = ln.Close()
		r.settle()
		cancel()
		wg.Wait()
		if err := <-ran; err != nil {
			t.Error(err)
		}
		if err := r.s.tiers.Close(); err != nil {
			t.Error(err)
		}
		_ = l.Close()
	})
	return r
}

// ask asks over a connection, and reads the answer in small steps with a wait between them.
func (r *fileRig) ask(nc net.Conn, br *bufio.Reader, method, target, fields string, wait time.Duration) (*http.Response, []byte, error) {
	if _, err := fmt.Fprintf(nc, "%s %s HTTP/1.1\r\nHost: shop.example\r\n%s\r\n", method, target, fields); err != nil {
		return nil, nil, err
	}
	resp, err := http.ReadResponse(br, &http.Request{Method: method})
	if err != nil {
		return nil, nil, err
	}
	var got []byte
	for step := make([]byte, 16<<10); ; {
		n, err := resp.Body.Read(step)
		got = append(got, step[:n]...)
		if err == io.EOF {
			return resp, got, nil
		}
		if err != nil {
			return resp, got, err
		}
		if wait > 0 {
			time.Sleep(wait)
		}
	}
}

func (r *fileRig) dial(t *testing.T) (net.Conn, *bufio.Reader) {
	nc, err := net.Dial("tcp", r.addr)
	if err != nil {
		t.Fatal(err)
	}
	_ = nc.SetDeadline(time.Now().Add(2 * time.Minute))
	_ = nc.(*net.TCPConn).SetReadBuffer(32 << 10)
	t.Cleanup(func() { _ = nc.Close() })
	return nc, bufio.NewReaderSize(nc, 16)
}

// While answers are on their way to clients that read slowly, all that is stored is replaced again and again, until each
// file of the disk has been begun anew: what the clients get is one version, whole.
func TestWhatIsOnItsWayDoesNotChangeWhileTheDiskIsUsedAgain(t *testing.T) {
	r := newFileRig(t)
	stop := make(chan struct{})
	var readers sync.WaitGroup
	for i := range 6 {
		readers.Go(func() {
			nc, br := r.dial(t)
			rng := rand.New(rand.NewPCG(uint64(i), 2))
			for {
				select {
				case <-stop:
					return
				default:
				}
				key := rng.IntN(len(r.from.now))
				first, fields, want := 0, "", versionSize
				if rng.IntN(3) == 0 {
					first = rng.IntN(200_000)
					want = 100_000
					fields = fmt.Sprintf("Range: bytes=%d-%d\r\n", first, first+want-1)
				}
				resp, got, err := r.ask(nc, br, "GET", fmt.Sprint("/", key), fields, time.Millisecond)
				if err != nil {
					t.Errorf("%d: %v after %d bytes", key, err, len(got))
					return
				}
				n, _ := strconv.Atoi(resp.Header.Get("X-Version"))
				if resp.StatusCode == 200 {
					first, want = 0, versionSize
				}
				if n/1000 != key || !bytes.Equal(got, r.from.body(n)[first:first+want]) {
					t.Errorf("%d: %s: %d bytes are not those of version %d", key, resp.Status, len(got), n)
					return
				}
			}
		})
	}
	nc, br := r.dial(t)
	rng := rand.New(rand.NewPCG(7, 7))
	limit := time.Now().Add(time.Minute)
	for {
		key := rng.IntN(len(r.from.now))
		for _, method := range []string{"GET", "GET", "POST"} {
			if _, got, err := r.ask(nc, br, method, fmt.Sprint("/", key), "", 0); err != nil {
				t.Fatalf("%s %d: %v after %d bytes", method, key, err, len(got))
			}
		}
		if st := r.s.Stats(); st.Disk.Log.Reclaimed > 20 && r.s.sentFiles.Load() > 10<<20 {
			break // a log of 16 segments
		} else if time.Now().After(limit) {
			if runtime.GOOS != "linux" {
				break
			}
			t.Errorf("%d segments used again, %d bytes sent by the kernel: %+v", st.Disk.Log.Reclaimed, r.s.sentFiles.Load(), st.Disk.Log)
			break
		}
	}
	close(stop)
	readers.Wait()
}

// sends is a Control of a protocol that has the kernel send files.
type sends struct{ patience }

func (*sends) SendsFiles() bool { return true }

// A body on the disk is told of as a piece of a file, or read: the bytes are the same, and neither allocates.
func TestABodyOnTheDiskIsLentOrReadWithoutAllocating(t *testing.T) {
	folder := t.TempDir()
	d := startOn(t, folder, nil)
	d.fillWith()
	d = d.again(t, folder)
	for _, n := range sizes {
		for _, lent := range []bool{false, true} {
			path := fmt.Sprint("/", n)
			want := content(path, n)
			x := d.exchange("GET " + path)
			in := x.In
			if in.Control = nil; lent {
				in.Control = &sends{}
			}
			l := d.s.local(x)
			got, buf := make([]byte, 0, n), make([]byte, maxChunk)
			var r message.FileRange
			files, from := 0, d.s.sentFiles.Load()
			read := func(fd uintptr) {
				m, err := syscall.Pread(int(fd), buf[:r.Len], r.Off)
				if int64(m) != r.Len || err != nil {
					t.Errorf("%d of %d bytes: %v", m, r.Len, err)
				}
			}
			one := func() {
				l.rule = d.site.Parts[3].(*part).routes[0]
				x.Reset()
				x.In, x.Site, x.Route = in, d.site, &d.site.Routes[0]
				x.SetHost([]byte("shop.example"))
				l.key = l.rule.append(l.key[:0], x)
				l.hash = d.s.tiers.HashOf(l.key)
				o, _, _ := d.s.find(l, x, l.reuse(&l.found), true) // a request would bring it back to memory
				if o == nil || o.hold.ref.InMemory() {
					t.Fatal("not found on the disk")
				}
				f := formOf(x.In, o, o.length(), d.s.cfg.Clock())
				x.Response.Reset()
				x.Response.Status = 200
				d.s.setContent(x, l, &f, o)
				got, files = append(got[:0], x.Response.Bytes...), 0
				for body, err := x.Response.Body, error(nil); body != nil && err == nil; {
					ok := false
					if lent {
						ok, err = body.(message.FileBody).NextFile(t.Context(), &r)
					}
					if ok {
						files++
						if e := r.File.Control(read); e != nil {
							t.Fatal(e)
						}
						got = append(append(got, r.Lead...), buf[:r.Len]...)
					} else if err == nil {
						var p []byte
						p, err = body.Next(t.Context())
						got = append(got, p...)
					}
					if err != nil && err != io.EOF {
						t.Fatal(err)
					}
				}
				if x.Response.Body != nil {
					x.Response.Body.Close(nil)
				}
				x.End(message.Outcome{})
			}
			one()
			least := math.Inf(1)
			for range 50 {
				least = min(least, testing.AllocsPerRun(1, one))
			}
			if least != 0 || string(got) != want || (files > 0) != (lent && n >= leastFile) || files > 0 && from == d.s.sentFiles.Load() {
				t.Errorf("%s, lent %v: %v allocations, %d bytes, %d pieces of files", path, lent, least, len(got), files)
			}
		}
	}
}
