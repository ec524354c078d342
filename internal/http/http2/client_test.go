package http2

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/relais-edge/relais/internal/http/http1"
	"github.com/relais-edge/relais/internal/http/message"
)

// bed is a client and one connection to an origin.
type bed struct {
	t       *testing.T
	cl      *Client
	c       *ClientConn
	changes atomic.Int64
	ran     chan error
}

func (b *bed) Changed(*ClientConn) { b.changes.Add(1) }

// newBed connects to nc, the origin's side of which somebody else serves.
func newBed(t *testing.T, cfg ClientConfig, nc net.Conn) *bed {
	t.Helper()
	b := &bed{t: t, cl: NewClient(cfg), ran: make(chan error, 1)}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); _ = b.cl.Run(ctx) }()
	b.c = b.cl.NewConn(nc, b)
	go func() { b.ran <- b.c.Run(ctx) }()
	b.c.flush()
	t.Cleanup(func() {
		cancel()
		<-ended
		_ = b.c.Close()
		<-b.ran
		if n := b.c.Busy(); n != 0 {
			t.Errorf("%d exchanges were never released", n)
		}
	})
	return b
}

// stdOrigin serves h with net/http over h2c and returns a connection to it.
func stdOrigin(t testing.TB, h http.HandlerFunc) net.Conn {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := new(http.Protocols)
	p.SetUnencryptedHTTP2(true)
	srv := &http.Server{Handler: h, Protocols: p}
	go func() { _ = srv.Serve(l) }()
	t.Cleanup(func() { _ = srv.Close() })
	nc, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return nc
}

func request(method, path string) *message.Request {
	req := &message.Request{Proto: message.HTTP2}
	req.SetMethod([]byte(method))
	req.SetAuthority([]byte("shop.example.com"))
	req.SetPath([]byte(path))
	return req
}

// clientPieces is a request body; a nil piece waits for the gate.
type clientPieces struct {
	list [][]byte
	gate chan struct{}
	err  error
}

func (p *clientPieces) Next(ctx context.Context) ([]byte, error) {
	if len(p.list) == 0 {
		if p.err != nil {
			return nil, p.err
		}
		return nil, io.EOF
	}
	b := p.list[0]
	p.list = p.list[1:]
	if b == nil {
		select {
		case <-p.gate:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return b, nil
}

func (p *clientPieces) Close(error) {}

func (b *bed) do(req *message.Request, resp *message.Response, t http1.Try) error {
	b.t.Helper()
	<-b.c.settled
	if !b.c.Reserve() {
		b.t.Fatal("no place")
	}
	return b.c.RoundTrip(b.t.Context(), req, resp, t)
}

func readWhole(body message.Body) (string, error) {
	var out bytes.Buffer
	for {
		p, err := body.Next(context.Background())
		out.Write(p)
		if err == io.EOF {
			return out.String(), nil
		}
		if err != nil {
			return out.String(), err
		}
	}
}

func TestAnAnswerComesWithItsFieldsAndBody(t *testing.T) {
	b := newBed(t, ClientConfig{}, stdOrigin(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Saw", r.Method+" "+r.Host+r.URL.String()+" "+r.Header.Get("Accept")+" "+r.Header.Get("X-Own")+r.Header.Get("Te"))
		w.Header().Set("Content-Type", "text/plain")
		_, _ = io.WriteString(w, strings.Repeat("x", 100_000))
	}))
	for range 3 {
		req := request("GET", "/a")
		req.SetQuery([]byte("b=c"))
		req.AddString(message.Accept, "*/*")
		req.AddLine([]byte("X-Own"), []byte("1"))
		req.AddString(message.Connection, "keep-alive")
		req.AddString(message.TE, "gzip;q=0.5, trailers")
		var resp message.Response
		if err := b.do(req, &resp, http1.Try{}); err != nil {
			t.Fatal(err)
		}
		if got := string(resp.Lookup("X-Saw")); resp.Status != 200 || got != "GET shop.example.com/a?b=c */* 1trailers" {
			t.Errorf("%d %q", resp.Status, got)
		}
		if string(resp.Get(message.ContentType)) != "text/plain" {
			t.Errorf("%q", resp.Get(message.ContentType))
		}
		if got, err := readWhole(resp.Body); err != nil || len(got) != 100_000 {
			t.Errorf("%d bytes, %v", len(got), err)
		}
		resp.Body.Close(nil)
	}
}

func TestManyRequestsShareAConnection(t *testing.T) {
	b := newBed(t, ClientConfig{Streams: 50}, stdOrigin(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		_, _ = w.Write(bytes.Repeat(body, 50))
	}))
	var wg sync.WaitGroup
	for i := range 40 {
		wg.Go(func() {
			for j := range 20 {
				want := fmt.Sprintf("%d-%d,", i, j)
				req := request("POST", "/")
				req.Body, req.ContentLength = &clientPieces{list: [][]byte{[]byte(want)}}, -1
				if j%2 == 0 {
					req.ContentLength = int64(len(want))
				}
				var resp message.Response
				if err := b.do(req, &resp, http1.Try{}); err != nil {
					t.Error(err)
					return
				}
				got, err := readWhole(resp.Body)
				if err != nil || got != strings.Repeat(want, 50) {
					t.Errorf("%q, %v", got, err)
				}
				resp.Body.Close(nil)
			}
		})
	}
	wg.Wait()
}

func TestRFC9113Section8TheBodyGoesOnAfterTheAnswersHead(t *testing.T) {
	b := newBed(t, ClientConfig{}, stdOrigin(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Trailer", "Grpc-Status")
		w.WriteHeader(200)
		_ = http.NewResponseController(w).Flush()
		buf := make([]byte, 100)
		for {
			n, err := r.Body.Read(buf)
			_, _ = w.Write(buf[:n])
			_ = http.NewResponseController(w).Flush()
			if err != nil {
				break
			}
		}
		w.Header().Set("Grpc-Status", "0")
	}))
	gate := make(chan struct{})
	req := request("POST", "/pkg.Service/Method")
	req.Body, req.ContentLength = &clientPieces{list: [][]byte{nil, []byte("one"), nil, []byte("two"), nil}, gate: gate}, -1
	req.Trailer = &message.Fields{}
	req.Trailer.AddLine([]byte("X-Sum"), []byte("7"))
	var resp message.Response
	if err := b.do(req, &resp, http1.Try{}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"one", "two"} {
		gate <- struct{}{}
		got, err := resp.Body.Next(t.Context())
		if err != nil || string(got) != want {
			t.Fatalf("%q, %v", got, err)
		}
	}
	gate <- struct{}{}
	if got, err := readWhole(resp.Body); err != nil || got != "" {
		t.Errorf("%q, %v", got, err)
	}
	if got := string(resp.Trailer.Lookup("grpc-status")); got != "0" {
		t.Errorf("trailer %q", got)
	}
	resp.Body.Close(nil)
}

func TestBigBodiesObeyTheWindowsBothWays(t *testing.T) {
	const size = 5 << 20
	b := newBed(t, ClientConfig{}, stdOrigin(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(w, r.Body)
	}))
	var list [][]byte
	for i := 0; i < size; i += 100_000 {
		list = append(list, bytes.Repeat([]byte{byte(i)}, min(100_000, size-i)))
	}
	want := bytes.Join(list, nil)
	req := request("POST", "/")
	req.Body, req.ContentLength = &clientPieces{list: list}, size
	var resp message.Response
	if err := b.do(req, &resp, http1.Try{}); err != nil {
		t.Fatal(err)
	}
	got, err := readWhole(resp.Body)
	if err != nil || got != string(want) {
		t.Errorf("%d bytes of %d, %v", len(got), size, err)
	}
	resp.Body.Close(nil)
}

func TestAnInterimAnswerIsHandedOn(t *testing.T) {
	b := newBed(t, ClientConfig{}, stdOrigin(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Link", "</a.css>; rel=preload")
		w.WriteHeader(103)
		w.WriteHeader(204)
	}))
	var seen informed
	var resp message.Response
	if err := b.do(request("GET", "/"), &resp, http1.Try{Inform: &seen}); err != nil || resp.Status != 204 || resp.Body != nil {
		t.Fatal(err, resp.Status)
	}
	if seen != "103 </a.css>; rel=preload" {
		t.Errorf("%q", seen)
	}
}

type informed string

func (i *informed) Inform(status int, f *message.Fields) {
	*i = informed(fmt.Sprintf("%d %s", status, f.Get(message.Link)))
}

func TestABodyThatIsExpectedWaitsFor100(t *testing.T) {
	b := newBed(t, ClientConfig{ContinueWait: time.Minute}, stdOrigin(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/no" {
			w.WriteHeader(413)
			return
		}
		_, _ = io.Copy(w, r.Body)
	}))
	for path, want := range map[string]int{"/yes": 200, "/no": 413} {
		body := &clientPieces{list: [][]byte{[]byte("body")}}
		req := request("PUT", path)
		req.Body, req.ContentLength = body, 4
		req.AddString(message.Expect, "100-continue")
		var resp message.Response
		if err := b.do(req, &resp, http1.Try{}); err != nil || resp.Status != want {
			t.Fatal(err, resp.Status)
		}
		if resp.Body != nil {
			_, _ = readWhole(resp.Body)
			resp.Body.Close(nil)
		}
		if sent := len(body.list) == 0; sent != (want == 200) {
			t.Errorf("%s: the body was pulled: %t", path, sent)
		}
	}
}

func TestAContextThatEndsEndsTheStreamOnly(t *testing.T) {
	gone := make(chan struct{})
	b := newBed(t, ClientConfig{}, stdOrigin(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			<-r.Context().Done()
			close(gone)
		}
	}))
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(20*time.Millisecond, cancel)
	var resp message.Response
	<-b.c.settled
	b.c.Reserve()
	err := b.c.RoundTrip(ctx, request("GET", "/slow"), &resp, http1.Try{})
	var e *http1.Error
	if !errors.As(err, &e) || !errors.Is(err, context.Canceled) || !e.Sent || e.Timeout {
		t.Errorf("%#v", err)
	}
	<-gone
	if err := b.do(request("GET", "/"), &resp, http1.Try{}); err != nil {
		t.Error(err)
	}
}

func TestLimitsOfTimeEndTheStreamOnly(t *testing.T) {
	b := newBed(t, ClientConfig{}, stdOrigin(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/head":
			<-r.Context().Done()
		case "/body":
			_, _ = io.WriteString(w, "x")
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
		}
	}))
	var resp message.Response
	var e *http1.Error
	err := b.do(request("GET", "/head"), &resp, http1.Try{Head: time.Now().Add(100 * time.Millisecond)})
	if !errors.As(err, &e) || !e.Timeout || e.Phase != http1.PhaseHead || !e.Sent {
		t.Errorf("%#v", err)
	}
	if err := b.do(request("GET", "/body"), &resp, http1.Try{Body: 100 * time.Millisecond}); err != nil {
		t.Fatal(err)
	}
	_, err = readWhole(resp.Body)
	if !errors.As(err, &e) || !e.Timeout || e.Phase != http1.PhaseBody {
		t.Errorf("%#v", err)
	}
	resp.Body.Close(err)
	if err := b.do(request("GET", "/"), &resp, http1.Try{}); err != nil {
		t.Error(err)
	}
}

func TestABodyGivenUpEndsTheUpload(t *testing.T) {
	b := newBed(t, ClientConfig{}, stdOrigin(t, func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(200)
		_ = http.NewResponseController(w).Flush()
	}))
	req := request("POST", "/")
	req.Body, req.ContentLength = &clientPieces{list: [][]byte{nil}, gate: make(chan struct{})}, -1
	var resp message.Response
	if err := b.do(req, &resp, http1.Try{}); err != nil {
		t.Fatal(err)
	}
	if resp.Body != nil {
		resp.Body.Close(nil)
	}
}

func TestAFaultOfTheRequestsBodyIsToldAsSuch(t *testing.T) {
	b := newBed(t, ClientConfig{}, stdOrigin(t, func(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) }))
	for _, length := range []int64{-1, 9} {
		req := request("POST", "/")
		req.Body, req.ContentLength = &clientPieces{list: [][]byte{[]byte("x")}, err: message.ErrBodySlow}, length
		var resp message.Response
		err := b.do(req, &resp, http1.Try{})
		var e *http1.Error
		if !errors.As(err, &e) || !errors.Is(err, message.ErrBodySlow) || e.Phase != http1.PhaseWrite {
			t.Errorf("%#v", err)
		}
	}
}

func TestWhatCannotBeSentIsRefused(t *testing.T) {
	b := newBed(t, ClientConfig{}, stdOrigin(t, func(http.ResponseWriter, *http.Request) {}))
	bad := []*message.Request{request("GE T", "/"), request("GET", "/ x"), request("GET", "/"), request("GET", "/")}
	bad[2].AddLine([]byte("X"), []byte("a\r\nb: c"))
	bad[3].AddLine([]byte("X y"), []byte("a"))
	for i, req := range bad {
		var resp message.Response
		err := b.do(req, &resp, http1.Try{})
		var e *http1.Error
		if !errors.As(err, &e) || !errors.Is(err, http1.ErrRequest) || e.Sent {
			t.Errorf("%d: %v", i, err)
		}
	}
	var resp message.Response
	if err := b.do(request("GET", "/"), &resp, http1.Try{}); err != nil {
		t.Error(err)
	}
}
