package http3

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quic-go/qpack"
	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"github.com/relais-edge/relais/internal/http/message"
)

// twin is quic-go's own HTTP/3, which says what it has read of a request. Each stream is asked on a
// connection of its own, on a network and by a clock of its own (testing/synctest): what it says depends
// neither on the stream before nor on how busy the machine is.
type twin struct{ tls *tls.Config }

func newTwin(t testing.TB) *twin {
	t.Helper()
	t.Setenv("QUIC_GO_DISABLE_RECEIVE_BUFFER_WARNING", "true") // a wire has no buffer of the kernel
	return &twin{tls: TLSConfig(&tls.Config{Certificates: []tls.Certificate{selfSigned(t)}})}
}

func (w *twin) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		panic(http.ErrAbortHandler) // the stream is reset
	}
	rw.WriteHeader(200)
	_, _ = io.WriteString(rw, described(r, body))
}

// described is what both read, in the twin's words: names in its case, fields of a name together.
func described(r *http.Request, body []byte) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %q %q %d\n", r.Method, r.Host, r.RequestURI, r.ContentLength)
	names := make([]string, 0, len(r.Header))
	for n := range r.Header {
		names = append(names, n)
	}
	slices.Sort(names)
	for _, n := range names {
		fmt.Fprintf(&b, "%q %q\n", n, r.Header[n])
	}
	fmt.Fprintf(&b, "%q", body)
	return b.String()
}

// ask sends a stream and returns what the twin has read of it; why is how it was refused instead.
func (w *twin) ask(t *testing.T, stream []byte) (read, why string) {
	synctest.Test(t, func(t *testing.T) {
		near, far := wires()
		in, out := &quic.Transport{Conn: far}, &quic.Transport{Conn: near}
		l, err := in.Listen(w.tls, &quic.Config{})
		if err != nil {
			t.Fatal(err)
		}
		var served sync.WaitGroup
		served.Go(func() {
			qc, err := l.Accept(t.Context())
			if err != nil {
				t.Error(err)
				return
			}
			srv := &http3.Server{Handler: w, Logger: slog.New(slog.DiscardHandler)}
			_ = srv.ServeQUICConn(qc)
		})
		cheap := &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h3"}, CurvePreferences: []tls.CurveID{tls.CurveP256}}
		qc, err := out.Dial(t.Context(), far.name, cheap, &quic.Config{})
		if err != nil {
			t.Fatal(err)
		}
		read, why = exchanged(t, qc, stream)
		_ = qc.CloseWithError(codeNone, "")
		served.Wait()
		_ = l.Close()
		_ = out.Close()
		_ = in.Close()
	})
	return read, why
}

// exchanged sends a stream on a connection and returns the body of the answer, or why there is none.
func exchanged(t *testing.T, qc *quic.Conn, stream []byte) (body, why string) {
	str, err := qc.OpenStreamSync(t.Context())
	if err != nil {
		return "", ended(err)
	}
	_ = str.SetDeadline(time.Now().Add(10 * time.Second)) // by the clock of the bubble
	_, _ = str.Write(stream)
	_ = str.Close()
	b, err := io.ReadAll(str)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatal("the twin says nothing")
	} else if err != nil {
		return "", ended(err)
	}
	status := ""
	for len(b) > 0 {
		kind, length, n := frameHead(b)
		if n == 0 || uint64(len(b)-n) < length {
			return "", "the answer is cut"
		}
		if p := b[n : n+int(length)]; kind == frameData {
			body += string(p)
		} else if status == "" {
			status = statusOf(p)
		}
		b = b[n+int(length):]
	}
	if status != "200" {
		return "", "status " + status
	}
	return body, ""
}

// ours describes a request as the twin does.
func ours(r *message.Request, body []byte) string {
	h := &http.Request{Method: string(r.MethodName()), Host: string(r.Authority()), Header: http.Header{}, ContentLength: r.ContentLength}
	h.RequestURI = string(r.Path())
	if r.HasQuery() {
		h.RequestURI += "?" + string(r.Query())
	}
	if h.Method == "CONNECT" && h.RequestURI == "" {
		h.RequestURI = h.Host
	}
	for i := range r.Len() {
		_, name, value := r.At(i)
		h.Header.Add(string(name), string(value))
	}
	return described(h, body)
}

// theirQuirks are where we take what the twin refuses, or read what it does not, each for a reason.
var theirQuirks = []struct {
	name string
	is   func(r *message.Request, s shape) bool
}{
	{"it compares Host and :authority letter by letter; names of hosts have no case (RFC 3986 section 3.2.2)", func(r *message.Request, _ shape) bool {
		h := r.Get(message.Host)
		return h != nil && string(h) != string(r.Authority())
	}},
	{"it wants 'trailers' in lower case; codings have no case (RFC 9110 section 10.1.4)", func(r *message.Request, _ shape) bool {
		v := r.Get(message.TE)
		return v != nil && string(v) != "trailers"
	}},
	{"it wants the target to be a URI of net/url, which wants whole escapes; an origin may read others", func(r *message.Request, _ shape) bool {
		uri := string(r.Path())
		if r.HasQuery() {
			uri += "?" + string(r.Query())
		}
		_, err := url.ParseRequestURI(uri)
		return r.Method != message.CONNECT && err != nil
	}},
	{"it refuses trailers with fields that do not belong there; we leave them out (RFC 9110 section 6.5.1)", func(_ *message.Request, s shape) bool {
		return s.sections > 1
	}},
	{"it wants a Base of 0, which may be anything where nothing refers to it (RFC 9204 section 4.5.1.2)", func(_ *message.Request, s shape) bool { return s.base }},
	{"it takes Trailer out of the head", func(r *message.Request, _ shape) bool { return r.Has(message.Trailer) }},
}

// stricter are the reasons for which we refuse what the twin may take.
var stricter = []string{
	"head_too_long", "target_too_long", "too_many_fields", "method_too_long", // limits, lower here
	"http3: too many unknown frames", "http3: too many empty DATA frames",
	"bad_host", "bad_target", "bad_scheme", "field_name_collision", "expectation_failed", // rules for those behind us
	"bad_connect",          // without a port
	"bad_pseudo_header",    // it takes a request without :scheme
	"host_differs",         // it does not look at Host
	"websocket_refused",    // it knows no WebSocket
	"unknown_protocol",     // we speak WebSocket alone
	"bad_content_length",   // it takes a repeated one, and an empty one
	"connection_field",     // it takes several TE in part
	"control_byte",         // it takes space around a value
	"no_host",              // it takes the zone of none
	"bad_method",           // it takes bytes beyond ASCII
	errQPACK.Error(),       // it takes integers of more than 62 bits
	errFrameCut.Error(),    // it reads a stream that ends within a frame's head as whole
	errFrameTunnel.Error(), // it takes trailers of a CONNECT
	errMalformed.Error(),   // it takes space around a value in trailers, and more of them
	errFrameType.Error(),   // it skips CANCEL_PUSH, PUSH_PROMISE and MAX_PUSH_ID
	message.ErrBodyTooLarge.Error(),
}

// FuzzRequestAgainstTwin holds that a request is the same to quic-go's HTTP/3, if that takes it, and
// that it takes what we take, but for what is named above.
func FuzzRequestAgainstTwin(f *testing.F) {
	for _, s := range requestStreams() {
		f.Add([]byte(s))
	}
	s := NewServer(ServerConfig{Limits: Limits{HeadBytes: 4096, Fields: 20, TargetBytes: 1000}}, &handler{})
	w := newTwin(f)
	f.Fuzz(func(t *testing.T, stream []byte) {
		x, flt := begin(s, stream, 1<<20)
		var body []byte
		var err error
		if flt != nil {
			err = flt.errOf()
		} else {
			body, err = x.rest()
		}
		read, why := w.ask(t, stream)
		switch {
		case err == io.EOF && why == "":
			if got := ours(&x.req, body); got != read && !excusedTwin(x, stream) {
				t.Fatalf("we read\n%s\nthe twin\n%s", got, read)
			}
		case err == io.EOF:
			if !excusedTwin(x, stream) {
				t.Fatalf("we read\n%s\nthe twin says %s", ours(&x.req, body), why)
			}
		case why == "" && !slices.Contains(stricter, err.Error()):
			t.Fatalf("we say %v, the twin read\n%s", err, read)
		}
	})
}

func excusedTwin(x *exchange, stream []byte) bool {
	for _, q := range theirQuirks {
		if q.is(&x.req, shapeOf(stream)) {
			return true
		}
	}
	return false
}

// shape is what of a stream's frames matters to what the twin takes.
type shape struct {
	sections int  // HEADERS frames
	base     bool // one has a Base other than 0
}

func shapeOf(stream []byte) (s shape) {
	for {
		kind, length, n := frameHead(stream)
		if n == 0 || uint64(len(stream)-n) < length {
			return s
		}
		if p := stream[n : n+int(length)]; kind == frameHeaders {
			s.sections++
			s.base = s.base || len(p) > 1 && p[1] != 0
		}
		stream = stream[n+int(length):]
	}
}

// statusOf reads the status of a field section.
func statusOf(section []byte) string {
	next := qpack.NewDecoder().Decode(section)
	for f, err := next(); err == nil; f, err = next() {
		if f.Name == ":status" {
			return f.Value
		}
	}
	return ""
}
