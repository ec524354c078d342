package http3

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/quic-go/qpack"
	"github.com/quic-go/quic-go"

	"github.com/relais-edge/relais/internal/http/message"
)

// handler is a Handler of a function; it notes what was refused and how answers ended.
type handler struct {
	serve func(ctx context.Context, r *message.Request) *message.Response

	mu      sync.Mutex
	refused []string
	ends    []message.Outcome
}

func (h *handler) Serve(ctx context.Context, r *message.Request) *message.Response {
	resp := h.serve(ctx, r)
	if resp != nil && resp.Ender == nil {
		resp.Ender = h
	}
	return resp
}

func (h *handler) Refuse(_ context.Context, _ *message.Conn, _ int, code, _ string) *message.Response {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.refused = append(h.refused, code)
	return nil
}

func (h *handler) End(o message.Outcome) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ends = append(h.ends, o)
}

func (h *handler) last() (refused string, end message.Outcome) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if n := len(h.refused); n > 0 {
		refused = h.refused[n-1]
	}
	if n := len(h.ends); n > 0 {
		end = h.ends[n-1]
	}
	return refused, end
}

func text(status int, s string) *message.Response {
	r := &message.Response{Status: status}
	r.SetBytes([]byte(s))
	return r
}

// say answers with what the request was.
func say(ctx context.Context, r *message.Request) *message.Response {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s %s", r.MethodName(), r.Authority(), r.Path())
	if r.HasQuery() {
		fmt.Fprintf(&b, "?%s", r.Query())
	}
	for i := range r.Len() {
		_, name, value := r.At(i)
		fmt.Fprintf(&b, " %s=%s", name, value)
	}
	fmt.Fprintf(&b, " length=%d", r.ContentLength)
	if r.Body != nil {
		got, err := drain(ctx, r.Body)
		fmt.Fprintf(&b, " body=%s %v", got, err)
		for i := range r.Trailer.Len() {
			_, name, value := r.Trailer.At(i)
			fmt.Fprintf(&b, " %s=%s", name, value)
		}
	}
	return text(200, b.String())
}

func drain(ctx context.Context, body message.Body) (string, error) {
	var b bytes.Buffer
	for {
		p, err := body.Next(ctx)
		b.Write(p)
		if err != nil {
			return b.String(), err
		}
	}
}

// own serves h with our own core and returns the server and its address.
func own(t testing.TB, cfg ServerConfig, h Handler, change ...func(*acceptor)) (*Server, string) {
	t.Helper()
	s := NewServer(cfg, h)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = s.Run(ctx) })
	a := &acceptor{own: s, set: Settings{Streams: 100, Handshake: 5 * time.Second}}
	for _, c := range change {
		c(a)
	}
	_, url := serve(t, a)
	t.Cleanup(func() {
		cancel()
		wg.Wait()
	})
	return s, strings.TrimSuffix(strings.TrimPrefix(url, "https://"), "/")
}

// raw is a client that writes what it likes.
type raw struct {
	t       testing.TB
	qc      *quic.Conn
	control *quic.SendStream
}

// settings are the begin of a control stream.
const settings = "\x00\x04\x00"

// dialRaw connects; begin is what the control stream begins with, "" for none.
func dialRaw(t testing.TB, addr, begin string, change ...func(*quic.Config)) *raw {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ua, err := net.ResolveUDPAddr("udp", addr)
	if err != nil {
		t.Fatal(err)
	}
	tr := &quic.Transport{Conn: pc}
	conf := &quic.Config{}
	for _, c := range change {
		c(conf)
	}
	qc, err := tr.Dial(ctx, ua, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h3"}}, conf)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = qc.CloseWithError(0x100, "")
		_ = tr.Close()
		_ = pc.Close()
	})
	r := &raw{t: t, qc: qc}
	if begin != "" {
		r.control = r.uni(begin)
	}
	return r
}

// uni opens a unidirectional stream and writes b.
func (r *raw) uni(b string) *quic.SendStream {
	r.t.Helper()
	str, err := r.qc.OpenUniStream()
	if err != nil {
		r.t.Fatal(err)
	}
	if _, err := str.Write([]byte(b)); err != nil {
		r.t.Fatal(err)
	}
	return str
}

// open opens a request stream and writes b.
func (r *raw) open(b string) *quic.Stream {
	r.t.Helper()
	str, err := r.qc.OpenStream()
	if err != nil {
		r.t.Fatal(err)
	}
	_ = str.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := str.Write([]byte(b)); err != nil {
		r.t.Fatal(err)
	}
	return str
}

// ask sends b as a whole request stream and returns what came of it.
func (r *raw) ask(b string) string {
	r.t.Helper()
	str := r.open(b)
	_ = str.Close()
	return answer(str)
}

// answer reads an answer: status and body, or the error.
func answer(str *quic.Stream) string {
	b, err := io.ReadAll(str)
	if err != nil {
		return ended(err)
	}
	s := ""
	for len(b) > 0 {
		kind, length, n := frameHead(b)
		if n == 0 || uint64(len(b)-n) < length {
			return s + " cut"
		}
		p := b[n : n+int(length)]
		b = b[n+int(length):]
		if kind == frameData {
			s += " " + string(p)
			continue
		}
		next := qpack.NewDecoder().Decode(p)
		for f, err := next(); err == nil; f, err = next() {
			if f.Name == ":status" {
				s += " " + f.Value
			} else if strings.HasPrefix(f.Name, "x-") {
				s += " " + f.Name + "=" + f.Value
			}
		}
	}
	return strings.TrimSpace(s)
}

// ended names how a stream or a connection ended.
func ended(err error) string {
	var se *quic.StreamError
	var ae *quic.ApplicationError
	switch {
	case errors.As(err, &se) && se.Remote:
		return fmt.Sprintf("stream %#x", uint64(se.ErrorCode))
	case errors.As(err, &ae) && ae.Remote:
		return fmt.Sprintf("connection %#x", uint64(ae.ErrorCode))
	}
	return err.Error()
}

// closed waits for the end of the connection and names it.
func (r *raw) closed() string {
	select {
	case <-r.qc.Context().Done():
		return ended(context.Cause(r.qc.Context()))
	case <-time.After(10 * time.Second):
		return "still open"
	}
}

// frame makes a frame.
func frame(kind uint64, payload string) string {
	b := appendVarint(appendVarint(nil, kind), uint64(len(payload)))
	return string(b) + payload
}

// sectionOf makes a field section of names and values with the twin's encoder.
func sectionOf(fields ...string) string {
	var b bytes.Buffer
	e := qpack.NewEncoder(&b)
	for i := 0; i < len(fields); i += 2 {
		_ = e.WriteField(qpack.HeaderField{Name: fields[i], Value: fields[i+1]})
	}
	return b.String()
}

// headers makes a HEADERS frame.
func headers(fields ...string) string { return frame(frameHeaders, sectionOf(fields...)) }

// get is a plain request's pseudo-header fields.
func get(fields ...string) []string {
	return append([]string{":method", "GET", ":scheme", "https", ":authority", "a", ":path", "/"}, fields...)
}

func post(fields ...string) []string {
	return append([]string{":method", "POST", ":scheme", "https", ":authority", "a", ":path", "/"}, fields...)
}

// until waits for a condition.
func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal(what)
		}
	}
}
