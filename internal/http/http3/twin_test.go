package http3

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
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
			srv := &http3.Server{Logger: slog.New(slog.DiscardHandler)}
			srv.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				body, err := io.ReadAll(r.Body)
				if err != nil {
					panic(http.ErrAbortHandler) // the stream is reset
				}
				read = described(r, body)
				w.WriteHeader(200)
			})
			_ = srv.ServeQUICConn(qc)
		})
		cheap := &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h3"}, CurvePreferences: []tls.CurveID{tls.CurveP256}}
		qc, err := out.Dial(t.Context(), far.name, cheap, &quic.Config{})
		if err != nil {
			t.Fatal(err)
		}
		why = answered(t, qc, stream)
		_ = qc.CloseWithError(codeNone, "")
		served.Wait()
		_ = l.Close()
		_ = out.Close()
		_ = in.Close()
	})
	return read, why
}

// answered sends a stream on a connection and returns why it is not answered with 200, if it is not.
func answered(t *testing.T, qc *quic.Conn, stream []byte) (why string) {
	str, err := qc.OpenStreamSync(t.Context())
	if err != nil {
		return ended(err)
	}
	_ = str.SetDeadline(time.Now().Add(10 * time.Second)) // by the clock of the bubble
	_, _ = str.Write(stream)
	_ = str.Close()
	b, err := io.ReadAll(str)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatal("the twin says nothing")
	} else if err != nil {
		return ended(err)
	}
	kind, length, n := frameHead(b)
	if n == 0 || kind != frameHeaders || uint64(len(b)-n) < length {
		return "no answer"
	}
	if status := statusOf(b[n : n+int(length)]); status != "200" {
		return "status " + status
	}
	return ""
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

// FuzzRequestAgainstTwin holds that a request is the same to quic-go's HTTP/3, if that takes it, and
// that it takes what we take, but for what is named above.
func FuzzRequestAgainstTwin(f *testing.F) {
	for _, s := range requestStreams() {
		f.Add([]byte(s))
	}
	s := NewServer(ServerConfig{Limits: twinLimits}, &handler{})
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
			if got := ours(&x.req, body); got != read && !excused(x, stream) {
				t.Fatalf("we read\n%s\nthe twin\n%s", got, read)
			}
		case err == io.EOF:
			if !excused(x, stream) {
				t.Fatalf("we read\n%s\nthe twin says %s", ours(&x.req, body), why)
			}
		case why == "":
			if r, ok := stricter[err.Error()]; !ok || !r.is(shapeOf(stream)) {
				t.Fatalf("we say %v, the twin read\n%s", err, read)
			}
		}
	})
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
