package edge

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func TestPoolPanicShare(t *testing.T) {
	c := newCrew(t, 4)
	c.play = func(i int, w http.ResponseWriter, r *http.Request) {
		if r.UserAgent() == "relais-health" && i < 3 {
			w.WriteHeader(500)
		}
	}
	b := newBed(t, nil, c.poolOf("", `{algorithm: round-robin, health: {path: /up, panic: 50%, interval: 100ms, unhealthyAfter: 1}, tiers: [{origins: [{address: A0}, {address: A1}, {address: A2}, {address: A3}]}]}`))
	b.asks(1, "/")
	until(t, "no panic", func() bool { return b.balance.Status()[0].Panicked })
	if n := b.asks(12, "/"); len(n) != 4 {
		t.Errorf("%v", n)
	}
}

func TestPoolOutliers(t *testing.T) {
	for _, kind := range []string{"successRate: 80%", "latencyFactor: 5"} {
		t.Run(kind, func(t *testing.T) {
			c := newCrew(t, 4)
			var n atomic.Int64
			c.play = func(i int, w http.ResponseWriter, r *http.Request) {
				if i != 2 {
					return
				}
				if kind == "latencyFactor: 5" {
					time.Sleep(100 * time.Millisecond)
				} else if n.Add(1)%2 == 0 {
					w.WriteHeader(503)
				}
			}
			b := newBed(t, nil, c.poolOf("", `{algorithm: round-robin, health: {passive: {consecutiveFailures: 0, interval: 3s, minRequests: 3, ejection: 1h, `+kind+`}}, tiers: [{origins: [{address: A0}, {address: A1}, {address: A2}, {address: A3}]}]}`))
			until(t, "it is not ejected", func() bool { b.asks(20, "/"); return b.state(2) == "ejected" })
			if n := b.asks(12, "/"); n["2"] > 0 || len(n) != 3 {
				t.Errorf("%v", n)
			}
			for i := range 4 {
				if s := b.state(i); i != 2 && s != "well" {
					t.Errorf("origin %d is %s", i, s)
				}
			}
		})
	}
}

func TestPoolHedge(t *testing.T) {
	c := newCrew(t, 2)
	gone := make(chan int, 1)
	c.play = func(i int, _ http.ResponseWriter, r *http.Request) {
		if i == 0 && r.URL.Path == "/slow" {
			select {
			case <-r.Context().Done():
				gone <- i
			case <-time.After(20 * time.Second):
			}
		}
	}
	b := newBed(t, nil, c.poolOf("", `{algorithm: first, retries: {hedge: {atLeast: 5ms}}, tiers: [{origins: [{address: A0}, {address: A1}]}]}`))
	begin := time.Now()
	resp, _ := b.get("http1", "/slow")
	if resp.Header.Get("X-Origin") != "1" || time.Since(begin) > 10*time.Second {
		t.Errorf("%s after %v", resp.Header.Get("X-Origin"), time.Since(begin))
	}
	select {
	case <-gone:
	case <-time.After(10 * time.Second):
		t.Error("the slow try was not ended")
	}
	if m := b.scrape(); !strings.Contains(m, `relais_balance_hedges_total{pool="default/shop",result="won"} 1`) {
		t.Error("the win is not counted")
	}
	if n := b.asks(20, "/"); n["0"] < 15 {
		t.Errorf("what is not slow: %v", n)
	}
}

func TestPoolRetriesInFlightBoundsHedges(t *testing.T) {
	c := newCrew(t, 3)
	entered := make(chan int, 4)
	c.play = func(i int, _ http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/both" || i == 0 {
			entered <- i
			<-r.Context().Done()
		}
	}
	b := newBed(t, nil, c.poolOf(", timeouts: {request: 3s}", `{algorithm: first, retries: {inFlight: 1, attempts: 0, hedge: {atLeast: 5ms}}, tiers: [{origins: [{address: A0}, {address: A1}, {address: A2}]}]}`))
	var wg sync.WaitGroup
	wg.Go(func() { b.get("http1", "/both") })
	<-entered
	<-entered // the second try has what there is of the budget
	if resp, _ := b.get("http1", "/"); resp.StatusCode != 504 {
		t.Errorf("%d from %q, which is one more than may be under way", resp.StatusCode, resp.Header.Get("X-Origin"))
	}
	wg.Wait()
	if resp, _ := b.get("http1", "/"); resp.Header.Get("X-Origin") != "1" {
		t.Errorf("%d from %q, when nothing else is under way", resp.StatusCode, resp.Header.Get("X-Origin"))
	}
}

func TestRouteTimeoutsHeader(t *testing.T) {
	c := newCrew(t, 2)
	var told []string
	var mu sync.Mutex
	c.play = func(i int, _ http.ResponseWriter, r *http.Request) {
		mu.Lock()
		told = append(told, r.Header.Get("X-Time-Left"))
		mu.Unlock()
		if r.URL.Path == "/slow" {
			<-r.Context().Done()
		}
	}
	b := newBed(t, nil, c.poolOf(`, timeouts: {request: 20s, header: X-Time-Left}`, `{retries: {attempts: 0}, tiers: [{origins: [{address: A0}]}]}`))
	b.asks(1, "/")
	begin := time.Now()
	resp, _ := b.get("http1", "/slow", "X-Time-Left: 200")
	if resp.StatusCode != 504 || time.Since(begin) > 10*time.Second {
		t.Errorf("%d after %v", resp.StatusCode, time.Since(begin))
	}
	mu.Lock()
	defer mu.Unlock()
	if len(told) != 2 || told[0] < "19000" || told[0] > "20000" || len(told[0]) != 5 || told[1] > "200" || len(told[1]) > 3 {
		t.Errorf("%q", told)
	}
}

func TestConnectionMaxAgeAndMaxWaiting(t *testing.T) {
	c := newCrew(t, 1)
	var conns sync.Map
	leave := make(chan struct{})
	entered := make(chan struct{}, 4)
	c.play = func(_ int, _ http.ResponseWriter, r *http.Request) {
		conns.Store(r.RemoteAddr, true)
		if r.URL.Path == "/stay" {
			entered <- struct{}{}
			<-leave
		}
	}
	b := newBed(t, nil, c.poolOf("", `{connection: {maxAge: 1s, maxPerOrigin: 1, maxWaiting: 0}, retries: {attempts: 0}, tiers: [{origins: [{address: A0}]}]}`))
	until(t, "a connection of a second is still used", func() bool {
		b.asks(1, "/")
		n := 0
		conns.Range(func(any, any) bool { n++; return true })
		return n > 1
	})
	var wg sync.WaitGroup
	wg.Go(func() { b.get("http1", "/stay") })
	<-entered
	begin := time.Now()
	resp, _ := b.get("http1", "/")
	if resp.StatusCode != 503 || resp.Header.Get("Retry-After") == "" || !strings.Contains(resp.Header.Get("Proxy-Status"), "connection_limit_reached") || time.Since(begin) > 2*time.Second {
		t.Errorf("%d %v after %v", resp.StatusCode, resp.Header, time.Since(begin))
	}
	close(leave)
	wg.Wait()
}

func TestARequestSentAgainForAStaleConnectionIsTwoTriesInTheRecord(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var wg sync.WaitGroup
	defer wg.Wait()
	closed := make(chan struct{})
	wg.Go(func() {
		for k := 0; ; k++ {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			buf := make([]byte, 4096)
			_, _ = nc.Read(buf)
			_, _ = io.WriteString(nc, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
			if k == 0 { // the next request comes, and gets no answer
				_, _ = nc.Read(buf)
				close(closed)
			}
			_ = nc.Close()
		}
	})
	c := &crew{addresses: []string{l.Addr().String()}}
	b := newBed(t, nil, c.poolOf("", `{retries: {attempts: 0}, tiers: [{origins: [{address: A0}]}]}`))
	b.asks(1, "/")
	resp, _ := b.get("http1", "/again")
	<-closed
	if resp.StatusCode != 200 {
		t.Errorf("%d", resp.StatusCode)
	}
	found := fmt.Sprintf("%+v", b.Recent(5))
	until(t, "the record has no request of two tries: "+found, func() bool {
		var out bytes.Buffer
		fmt.Fprintf(&out, "%+v", b.Recent(5))
		return strings.Contains(out.String(), "Tries:2")
	})
	_ = l.Close()
}

func TestAnAnswerThatBreaksInTheMiddleIsNeverPassedOffAsWhole(t *testing.T) {
	for _, framing := range []string{"Content-Length: 100000", "Transfer-Encoding: chunked"} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		wg.Go(func() {
			for {
				nc, err := l.Accept()
				if err != nil {
					return
				}
				_, _ = nc.Read(make([]byte, 4096))
				body := strings.Repeat("x", 5000)
				if strings.HasPrefix(framing, "T") {
					body = "1388\r\n" + body + "\r\n"
				}
				_, _ = io.WriteString(nc, "HTTP/1.1 200 OK\r\n"+framing+"\r\n\r\n"+body)
				_ = nc.Close()
			}
		})
		for _, spec := range []string{`{}`, `{hedge: {}}`} {
			c := &crew{addresses: []string{l.Addr().String()}}
			b := newBed(t, nil, c.poolOf("", `{retries: `+spec+`, tiers: [{origins: [{address: A0}]}]}`))
			for _, proto := range []string{"http1", "h2", "h3", "std"} {
				req, _ := http.NewRequestWithContext(t.Context(), "GET", b.base(proto)+"/", nil)
				resp, err := clientOf(t, proto).Do(req)
				if err != nil {
					continue // broken off before its head
				}
				got, err := io.ReadAll(resp.Body)
				_ = resp.Body.Close()
				if err == nil && resp.StatusCode == 200 {
					t.Errorf("%s, %s, retries %s: %d bytes passed for a whole answer", framing, proto, spec, len(got))
				}
			}
		}
		_ = l.Close()
		wg.Wait()
	}
}

// drip is a body that comes in pieces, with a wait before each.
type drip struct {
	pieces      int
	piece, rest []byte
}

func (d *drip) Read(b []byte) (int, error) {
	if len(d.rest) == 0 {
		if d.pieces == 0 {
			return 0, io.EOF
		}
		d.pieces--
		time.Sleep(50 * time.Millisecond)
		d.rest = d.piece
	}
	n := copy(b, d.rest)
	d.rest = d.rest[n:]
	return n, nil
}

// TestTheTimeOfASlowClientIsNotTheOrigins: the route's limit counts from the end of the request, for a body that
// is gathered before an origin is asked and for one that is sent as it comes.
func TestTheTimeOfASlowClientIsNotTheOrigins(t *testing.T) {
	c := newCrew(t, 1)
	c.play = func(_ int, w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			_, _ = io.Copy(io.Discard, r.Body)
			<-r.Context().Done()
			return
		}
		n, err := io.Copy(io.Discard, r.Body)
		fmt.Fprint(w, n, err)
	}
	b := newBed(t, nil, c.poolOf(`, timeouts: {request: 400ms}`, `{health: {passive: {consecutiveFailures: 1}}, tiers: [{origins: [{address: A0}]}]}`))
	for _, proto := range []string{"http1", "h2", "h3", "std"} {
		for _, size := range []int64{1000, 100_000, -1} {
			body := &drip{pieces: 10, piece: bytes.Repeat([]byte("x"), 100)}
			if size > 1000 {
				body.piece = bytes.Repeat([]byte("x"), int(size)/10)
			}
			req, _ := http.NewRequestWithContext(t.Context(), "POST", b.base(proto)+"/", body)
			req.ContentLength = size
			resp, err := clientOf(t, proto).Do(req)
			if err != nil {
				t.Fatal(err)
			}
			got, _ := io.ReadAll(resp.Body)
			_ = resp.Body.Close()
			if want := fmt.Sprint(max(size, 1000), nil); resp.StatusCode != 200 || string(got) != want {
				t.Errorf("%s, %d bytes: %d %q, want %q", proto, size, resp.StatusCode, got, want)
			}
		}
	}
	for _, size := range []int{100, 100_000} {
		begin := time.Now()
		resp, _ := b.send("http1", "POST", "/slow", bytes.NewReader(make([]byte, size)))
		if took := time.Since(begin); resp.StatusCode != 504 || took < 400*time.Millisecond || took > 10*time.Second {
			t.Errorf("an origin that does not answer %d bytes: %d after %v", size, resp.StatusCode, took)
		}
	}
}

// A client-streaming gRPC call is answered when its client has ended, which may be long after the route's
// limit for a request, and after all waits of the listener together.
func TestAClientStreamOfGRPCLastsLongerThanTheLimitsOfARequest(t *testing.T) {
	origin := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/grpc")
		w.Header().Set("Trailer", "Grpc-Status")
		n, err := io.Copy(io.Discard, r.Body)
		fmt.Fprint(w, r.Proto, " ", n, err)
		w.Header().Set("Grpc-Status", "0")
	}))
	origin.Config.Protocols = new(http.Protocols)
	origin.Config.Protocols.SetUnencryptedHTTP2(true)
	origin.Start()
	t.Cleanup(origin.Close)
	c := &crew{addresses: []string{origin.Listener.Addr().String()}}
	b := newBed(t, nil, c.poolOf(`, timeouts: {request: 200ms, try: 100ms}`, `{connection: {protocol: h2c, read: 200ms}, tiers: [{origins: [{address: A0}]}]}`))
	for _, proto := range []string{"h2c", "h2"} {
		body := &drip{pieces: 40, piece: []byte("\x00\x00\x00\x00\x05hello")} // two seconds
		req, _ := http.NewRequestWithContext(t.Context(), "POST", b.base(proto)+"/shop.Cart/Fill", body)
		req.ContentLength = -1
		req.Header.Set("Content-Type", "application/grpc")
		req.Header.Set("TE", "trailers")
		resp, err := clientOf(t, proto).Do(req)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if err != nil || string(got) != "HTTP/2.0 400 <nil>" || resp.Trailer.Get("Grpc-Status") != "0" {
			t.Errorf("%s: %d %q %v, %v %v", proto, resp.StatusCode, got, err, resp.Header, resp.Trailer)
		}
	}
}
