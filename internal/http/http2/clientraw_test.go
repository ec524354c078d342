package http2

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/relais-edge/relais/internal/http/hpack"
	"github.com/relais-edge/relais/internal/http/http1"
	"github.com/relais-edge/relais/internal/http/message"
)

// raw is an origin that is played frame by frame.
type raw struct {
	t   *testing.T
	nc  net.Conn
	buf []byte
	dec *hpack.Decoder
}

// newRaw makes a bed whose origin is played; the origin's settings have been sent already.
func newRaw(t *testing.T, cfg ClientConfig, list ...setting) (*bed, *raw) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	nc, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	other, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	r := &raw{t: t, nc: other, dec: hpack.NewDecoder(4096)}
	t.Cleanup(func() { _ = other.Close() })
	b := newBed(t, cfg, nc)
	r.send(appendSettings(nil, list...))
	return b, r
}

func (r *raw) send(b []byte) {
	r.t.Helper()
	if _, err := r.nc.Write(b); err != nil {
		r.t.Error(err)
	}
}

// next reads the next frame of the type, past all others.
func (r *raw) next(want frameType) (frameHead, []byte) {
	r.t.Helper()
	_ = r.nc.SetReadDeadline(time.Now().Add(5 * time.Second))
	for {
		r.buf = bytes.TrimPrefix(r.buf, []byte(preface))
		if len(r.buf) == 0 || r.buf[0] != 'P' {
			h, payload, n, _, flt := nextFrame(r.buf, minMaxFrame)
			if flt != nil {
				r.t.Error(flt)
				return h, nil
			}
			if n > 0 {
				r.buf = r.buf[n:]
				if h.typ == want {
					return h, payload
				}
				continue
			}
		}
		var b [4096]byte
		n, err := r.nc.Read(b[:])
		if r.buf = append(r.buf, b[:n]...); err != nil {
			r.t.Errorf("waiting for frame %d: %v", want, err)
			return frameHead{}, nil
		}
	}
}

// request reads the next request's head and returns its stream.
func (r *raw) request() (uint32, map[string]string) {
	r.t.Helper()
	h, block := r.next(typeHeaders)
	got := fieldMap{}
	if err := r.dec.Decode(block, 1<<16, got); err != nil {
		r.t.Error(err)
	}
	return h.stream, got
}

type fieldMap map[string]string

func (m fieldMap) Field(_ message.ID, name, value []byte, _ hpack.Traits) error {
	m[string(name)] = string(value)
	return nil
}

// head makes the HEADERS of an answer: name, value, name, value …
func head(stream uint32, end bool, fields ...string) []byte {
	b := beginHeaders(nil)
	for i := 0; i < len(fields); i += 2 {
		b = hpack.AppendInt(append(b, 0), 0, 7, uint64(len(fields[i])))
		b = append(b, fields[i]...)
		b = append(hpack.AppendInt(b, 0, 7, uint64(len(fields[i+1]))), fields[i+1]...)
	}
	return endHeaders(b, 0, stream, end, minMaxFrame)
}

type wholeAnswer struct {
	resp message.Response
	body string
	err  error
}

// ask sends a request in the background and reads the whole answer.
func (b *bed) ask(req *message.Request, t http1.Try) <-chan *wholeAnswer {
	ch := make(chan *wholeAnswer, 1)
	<-b.c.settled
	if !b.c.Reserve() {
		b.t.Fatal("no place")
	}
	go func() {
		a := &wholeAnswer{}
		if a.err = b.c.RoundTrip(b.t.Context(), req, &a.resp, t); a.err == nil && a.resp.Body != nil {
			a.body, a.err = readWhole(a.resp.Body)
			a.resp.Body.Close(a.err)
		}
		ch <- a
	}()
	return ch
}

func TestWhatAnOriginMayNotAnswer(t *testing.T) {
	ok := []string{":status", "200"}
	long := strings.Repeat("x", 70_000)
	many := []string{":status", "200"}
	for range 300 {
		many = append(many, "a", "b")
	}
	for name, tc := range map[string]struct {
		send  func(id uint32) []byte
		want  error
		fatal bool // for the connection
	}{
		"RFC 9113 8.3.2 no :status":        {func(id uint32) []byte { return head(id, true, "a", "b") }, faultNoStatus, false},
		"RFC 9113 8.3.2 :status of two":    {func(id uint32) []byte { return head(id, true, ":status", "20") }, faultStatus, false},
		"RFC 9113 8.3 :status twice":       {func(id uint32) []byte { return head(id, true, ":status", "200", ":status", "200") }, faultPseudo, false},
		"RFC 9113 8.3 :status late":        {func(id uint32) []byte { return head(id, true, "a", "b", ":status", "200") }, faultPseudo, false},
		"RFC 9113 8.3 a request's":         {func(id uint32) []byte { return head(id, true, ":status", "200", ":path", "/") }, faultPseudo, false},
		"RFC 9113 8.3 unknown":             {func(id uint32) []byte { return head(id, true, ":status", "200", ":new", "/") }, faultPseudo, false},
		"RFC 9113 8.2.1 capitals":          {func(id uint32) []byte { return head(id, true, ":status", "200", "X-A", "b") }, faultAnswerName, false},
		"RFC 9113 8.2.1 capitals of known": {func(id uint32) []byte { return head(id, true, ":status", "200", "Server", "b") }, faultAnswerName, false},
		"RFC 9113 8.2.1 no token":          {func(id uint32) []byte { return head(id, true, ":status", "200", "a b", "b") }, faultAnswerName, false},
		"RFC 9113 8.2.1 no name":           {func(id uint32) []byte { return head(id, true, ":status", "200", "", "b") }, faultAnswerName, false},
		"RFC 9113 8.2.1 CR in a value":     {func(id uint32) []byte { return head(id, true, ":status", "200", "a", "b\r\nc: d") }, faultAnswerValue, false},
		"RFC 9113 8.2.1 NUL in a value":    {func(id uint32) []byte { return head(id, true, ":status", "200", "server", "\x00") }, faultAnswerValue, false},
		"RFC 9113 8.2.2 connection":        {func(id uint32) []byte { return head(id, true, ":status", "200", "connection", "close") }, faultAnswerHop, false},
		"RFC 9113 8.2.2 transfer-encoding": {func(id uint32) []byte { return head(id, true, ":status", "200", "transfer-encoding", "chunked") }, faultAnswerHop, false},
		"content-length that is none":      {func(id uint32) []byte { return head(id, true, ":status", "200", "content-length", "+1") }, faultAnswerCL, false},
		"content-length twice": {func(id uint32) []byte {
			return head(id, true, ":status", "200", "content-length", "0", "content-length", "1")
		}, faultAnswerCL, false},
		"RFC 9113 8.1.1 length without body": {func(id uint32) []byte { return head(id, true, ":status", "200", "content-length", "1") }, faultAnswerLength, false},
		"RFC 9113 8.1.1 body too short": {func(id uint32) []byte {
			return appendData(head(id, false, ":status", "200", "content-length", "3"), id, []byte("ab"), true)
		}, faultAnswerLength, false},
		"RFC 9113 8.1.1 body too long": {func(id uint32) []byte {
			return appendData(head(id, false, ":status", "200", "content-length", "1"), id, []byte("ab"), true)
		}, faultAnswerLength, false},
		"RFC 9113 8.1.1 short before a trailer": {func(id uint32) []byte {
			return append(head(id, false, ":status", "200", "content-length", "1"), head(id, true, "a", "b")...)
		}, faultAnswerLength, false},
		"RFC 9113 8.1 data first":           {func(id uint32) []byte { return appendData(nil, id, []byte("ab"), true) }, faultDataFirst, false},
		"RFC 9113 8.1 interim that ends":    {func(id uint32) []byte { return head(id, true, ":status", "103") }, faultInterimEnd, false},
		"RFC 9113 8.6 101":                  {func(id uint32) []byte { return head(id, false, ":status", "101") }, faultSwitching, false},
		"RFC 9113 8.1 trailer without end":  {func(id uint32) []byte { return append(head(id, false, ok...), head(id, false, "a", "b")...) }, faultTrailerEnd, false},
		"RFC 9113 8.1 :status in a trailer": {func(id uint32) []byte { return append(head(id, false, ok...), head(id, true, ok...)...) }, faultPseudo, false},
		"too many interim answers":          {func(id uint32) []byte { return bytes.Repeat(head(id, false, ":status", "103"), 17) }, http1.ErrInterim, false},
		"a head that is too long":           {func(id uint32) []byte { return head(id, true, ":status", "200", "a", long) }, errHeadLong, false},
		"too many lines":                    {func(id uint32) []byte { return head(id, true, many...) }, faultAnswerLines, false},
		"RFC 9113 6.9 more than the window": {func(id uint32) []byte {
			b := head(id, false, ok...)
			for range 257 {
				b = appendData(b, id, make([]byte, 1024), false)
			}
			return b
		}, faultAnswerWindow, false},
		"RFC 9113 6.9 WINDOW_UPDATE of 0":  {func(id uint32) []byte { return appendWindowUpdate(nil, id, 0) }, faultClientZero, false},
		"RFC 9113 6.9.1 window of 2^31":    {func(id uint32) []byte { return appendWindowUpdate(nil, id, maxWindow) }, faultWindowOver, false},
		"RFC 9113 6.9.1 connection's":      {func(uint32) []byte { return appendWindowUpdate(nil, 0, maxWindow) }, faultWindowOver, true},
		"RFC 9113 6.9 connection's of 0":   {func(uint32) []byte { return appendWindowUpdate(nil, 0, 0) }, faultClientZero, true},
		"RFC 9113 8.4 PUSH_PROMISE":        {func(id uint32) []byte { return append(appendHead(nil, 4, typePushPromise, 4, id), 0, 0, 0, 2) }, faultPush, true},
		"RFC 9113 5.1 a stream of ours":    {func(uint32) []byte { return head(99, true, ok...) }, faultClientIdle, true},
		"RFC 9113 5.1.1 an even stream":    {func(uint32) []byte { return appendData(nil, 2, nil, false) }, faultClientIdle, true},
		"RFC 9113 6.10 interleaved":        {func(id uint32) []byte { return appendPing(appendHead(nil, 0, typeHeaders, 0, id), [8]byte{}, false) }, faultInterleaved, true},
		"RFC 9113 6.10 CONTINUATION alone": {func(id uint32) []byte { return appendHead(nil, 0, typeContinuation, 0, id) }, faultContinuation, true},
		"endless CONTINUATION": {func(id uint32) []byte {
			return append(appendHead(nil, 0, typeHeaders, 0, id), bytes.Repeat(appendHead(nil, 0, typeContinuation, 0, id), 50)...)
		}, faultBlockLong, true},
		"RFC 9113 4.3 not HPACK":       {func(id uint32) []byte { return append(appendHead(nil, 1, typeHeaders, 4, id), 0x80) }, faultTable, true},
		"RFC 9113 4.2 frame too large": {func(id uint32) []byte { return appendHead(nil, 20_000, typeData, 0, id) }, faultFrameLarge, true},
		"flood of PING":                {func(uint32) []byte { return bytes.Repeat(appendPing(nil, [8]byte{}, false), 3000) }, faultFrameFlood, true},
		"flood of SETTINGS":            {func(uint32) []byte { return bytes.Repeat(appendSettings(nil), 3000) }, faultFrameFlood, true},
		"flood of PRIORITY":            {func(id uint32) []byte { return bytes.Repeat(appendHead(nil, 0, 0x77, 0, id), 60_000) }, faultFrameFlood, true},
		"flood of empty DATA": {func(id uint32) []byte {
			return append(head(id, false, ok...), bytes.Repeat(appendData(nil, id, nil, false), 60_000)...)
		}, faultFrameFlood, true},
		"RFC 9113 6.8 GOAWAY that goes up": {func(id uint32) []byte { return appendGoAway(appendGoAway(nil, id, 0, ""), id+2, 0, "") }, faultConnEnd, true},
	} {
		t.Run(name, func(t *testing.T) {
			b, r := newRaw(t, ClientConfig{Window: 64 << 10})
			got := b.ask(request("GET", "/"), http1.Try{})
			id, _ := r.request()
			send := tc.send(id)
			go func() { _, _ = r.nc.Write(send) }()
			a := <-got
			if !errors.Is(a.err, tc.want) {
				t.Errorf("got %v, want %v", a.err, tc.want)
			}
			var e *http1.Error
			if !errors.As(a.err, &e) || !e.Sent || e.Reused {
				t.Errorf("%#v", a.err)
			}
			if b.c.Closed() != tc.fatal {
				t.Errorf("the connection is closed: %t", b.c.Closed())
			}
			if !tc.fatal {
				r.next(typeReset)
			}
		})
	}
}

func TestTheFirstFrameMustBeSettings(t *testing.T) {
	l, _ := net.Listen("tcp", "127.0.0.1:0")
	defer func() { _ = l.Close() }()
	go func() {
		nc, err := l.Accept()
		if err == nil {
			_, _ = nc.Write(appendPing(nil, [8]byte{}, false))
			_, _ = io.Copy(io.Discard, nc)
			_ = nc.Close()
		}
	}()
	nc, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	b := newBed(t, ClientConfig{}, nc)
	if err := <-b.ran; !errors.Is(err, faultClientSettings) {
		t.Error(err)
	}
	b.ran <- nil
}

func TestADeadConnectionIsFoundByPing(t *testing.T) {
	b, r := newRaw(t, ClientConfig{PingAfter: 100 * time.Millisecond, PingTimeout: 100 * time.Millisecond})
	got := b.ask(request("GET", "/"), http1.Try{})
	_, p := r.next(typePing)
	r.send(appendPing(nil, [8]byte(p), true))
	r.next(typePing) // not answered
	a := <-got
	var e *http1.Error
	if !errors.As(a.err, &e) || !e.Timeout || !errors.Is(a.err, errDead) {
		t.Errorf("%#v", a.err)
	}
}

func TestAnOriginThatClosesFailsItsStreams(t *testing.T) {
	b, r := newRaw(t, ClientConfig{})
	<-b.c.settled
	b.c.Reserve()
	read := make(chan struct{})
	go func() {
		id, _ := r.request()
		r.send(appendData(head(id, false, ":status", "200"), id, []byte("half"), false))
		<-read
		_ = r.nc.Close()
	}()
	var resp message.Response
	if err := b.c.RoundTrip(t.Context(), request("GET", "/"), &resp, http1.Try{}); err != nil {
		t.Fatal(err)
	}
	if half, err := resp.Body.Next(t.Context()); string(half) != "half" || err != nil {
		t.Errorf("%q, %v", half, err)
	}
	close(read)
	_, err := resp.Body.Next(t.Context())
	var e *http1.Error
	if !errors.As(err, &e) || e.Phase != http1.PhaseBody || errors.Is(err, io.EOF) {
		t.Error(err)
	}
	resp.Body.Close(err)
}

func TestAnOriginIsToldWhatItDidWrong(t *testing.T) {
	b, r := newRaw(t, ClientConfig{})
	got := b.ask(request("GET", "/"), http1.Try{})
	r.request()
	for busy := true; busy; time.Sleep(time.Millisecond) { // the last word is left out while another is being written
		b.c.mu.Lock()
		busy = b.c.writing
		b.c.mu.Unlock()
	}
	r.send(appendWindowUpdate(nil, 0, 0))
	<-got
	_, p := r.next(typeGoAway)
	if _, c, detail := parseGoAway(p); c != ProtocolError || len(detail) == 0 {
		t.Errorf("%v %q", c, detail)
	}
}

func TestDataOnStreamsThatWereGivenUpIsBounded(t *testing.T) {
	b, r := newRaw(t, ClientConfig{Window: 64 << 10})
	ctx, cancel := context.WithCancel(t.Context())
	<-b.c.settled
	b.c.Reserve()
	time.AfterFunc(10*time.Millisecond, cancel)
	var resp message.Response
	_ = b.c.RoundTrip(ctx, request("GET", "/"), &resp, http1.Try{})
	id, _ := r.request()
	r.next(typeReset)
	r.send(head(id, false, ":status", "200")) // crossed with the reset: it is let pass
	for range 200 {
		if _, err := r.nc.Write(appendData(nil, id, make([]byte, 16<<10), false)); err != nil {
			break
		}
	}
	if err := <-b.ran; !errors.Is(err, faultStray) {
		t.Error(err)
	}
	b.ran <- nil
}
