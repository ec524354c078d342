package encode

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"testing"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/stage"
)

// steps is a body that gives its next chunk only when it is asked for, and counts.
type steps struct {
	chunks []string
	given  int
	ready  bool
	err    error
	closed bool
}

func (s *steps) Next(context.Context) ([]byte, error) {
	if s.given == len(s.chunks) {
		return nil, s.err
	}
	s.given++
	return []byte(s.chunks[s.given-1]), nil
}

func (s *steps) Close(error) { s.closed = true }

func (s *steps) Ready() bool { return s.ready && s.given < len(s.chunks) }

func TestEachChunkReachesTheClientBeforeTheNextIsWaitedFor(t *testing.T) {
	for _, coding := range []string{"zstd", "br", "gzip"} {
		for _, kind := range []string{"text/event-stream", "text/plain"} {
			body := &steps{err: io.EOF, ready: true}
			for i := range 20 {
				body.chunks = append(body.chunks, fmt.Sprintf("data: %d\n\n", i))
			}
			r := newRig(t, v1.Compression{}, "")
			r.origin = func(_ *stage.Exchange, resp *message.Response) {
				resp.AddString(message.ContentType, kind)
				resp.Body, resp.ContentLength = body, -1
			}
			_, resp := r.ask(t, "GET", "Accept-Encoding: "+coding)
			pr, pw := io.Pipe()
			dec := decoder(t, coding, pr)
			for i, want := range body.chunks {
				b, err := resp.Body.Next(t.Context())
				if err != nil || body.given != i+1 {
					t.Fatalf("%s: chunk %d: %v, the origin gave %d", coding, i, err, body.given)
				}
				sent := bytes.Clone(b)
				go pw.Write(sent)
				got := make([]byte, len(want))
				if _, err := io.ReadFull(dec(), got); err != nil || string(got) != want {
					t.Fatalf("%s: chunk %d is %q (%v)", coding, i, got, err)
				}
			}
			b, err := resp.Body.Next(t.Context())
			if err != io.EOF || len(b) == 0 {
				t.Errorf("%s: end %d bytes, %v", coding, len(b), err)
			}
			pr.Close()
			resp.Body.Close(nil)
		}
	}
}

// decoder reads a stream as a browser does. It is made when the first bytes are there.
func decoder(t *testing.T, coding string, r io.Reader) func() io.Reader {
	var d io.Reader
	return func() io.Reader {
		if d != nil {
			return d
		}
		var err error
		switch coding {
		case "gzip":
			d, err = gzip.NewReader(r)
		case "br":
			d = brotli.NewReader(r)
		case "zstd":
			var z *zstd.Decoder
			z, err = zstd.NewReader(r, zstd.WithDecoderConcurrency(1))
			d = z
		}
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
}

func TestChunksAtHandAreSentTogetherWhereTheLengthIsKnown(t *testing.T) {
	body := &steps{err: io.EOF, ready: true}
	for range 50 {
		body.chunks = append(body.chunks, text[:1000])
	}
	r := newRig(t, v1.Compression{}, "")
	r.origin = func(_ *stage.Exchange, resp *message.Response) {
		resp.AddString(message.ContentType, "text/plain")
		resp.Body, resp.ContentLength = body, 50000
	}
	_, resp := r.ask(t, "GET", "Accept-Encoding: gzip")
	resp.Body.Next(t.Context())
	if body.given != 50 {
		t.Errorf("%d chunks in the first piece, want all", body.given)
	}
	resp.Body.Close(errors.New("gone"))
	if !body.closed || r.encoders.open.Load() != 0 {
		t.Error("the origin's body or the encoder is still held")
	}
}

func TestABodyThatBreaksOffIsNotEnded(t *testing.T) {
	broke := errors.New("broken")
	for _, coding := range []string{"zstd", "br", "gzip"} {
		r := newRig(t, v1.Compression{}, "")
		r.origin = func(_ *stage.Exchange, resp *message.Response) {
			resp.AddString(message.ContentType, "text/plain")
			resp.Body, resp.ContentLength = &steps{chunks: []string{"one"}, err: broke}, -1
		}
		_, resp := r.ask(t, "GET", "Accept-Encoding: "+coding)
		if _, err := resp.Body.Next(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, err := resp.Body.Next(t.Context()); !errors.Is(err, broke) {
			t.Errorf("%s: %v, want the origin's error", coding, err)
		}
		resp.Body.Close(broke)
	}
}
