package smug

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"time"
)

// The HTTP/2 side is written by hand on purpose: it must send what a library
// refuses to send, and must not share a bug with the proxy under test.

const preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

// Frame types and flags of RFC 9113 6.
const (
	frameData      = 0x0
	frameHeaders   = 0x1
	frameRSTStream = 0x3
	frameSettings  = 0x4
	frameGoAway    = 0x7

	flagEndStream  = 0x1
	flagAck        = 0x1
	flagEndHeaders = 0x4
	flagPadded     = 0x8
	flagPriority   = 0x20

	maxFrame = 16384 // what a client that sends no SETTINGS_MAX_FRAME_SIZE must take
)

type frame struct {
	kind, flags byte
	stream      uint32
	payload     []byte
}

func appendFrame(b []byte, f frame) []byte {
	n := len(f.payload)
	b = append(b, byte(n>>16), byte(n>>8), byte(n), f.kind, f.flags)
	b = binary.BigEndian.AppendUint32(b, f.stream)
	return append(b, f.payload...)
}

var errFrameTooLarge = errors.New("frame larger than 16384 bytes")

func readFrame(r io.Reader) (frame, error) {
	var h [9]byte
	if _, err := io.ReadFull(r, h[:]); err != nil {
		return frame{}, err
	}
	n := int(h[0])<<16 | int(h[1])<<8 | int(h[2])
	if n > maxFrame {
		return frame{}, errFrameTooLarge
	}
	f := frame{kind: h[3], flags: h[4], stream: binary.BigEndian.Uint32(h[5:]) & 0x7fffffff, payload: make([]byte, n)}
	_, err := io.ReadFull(r, f.payload)
	return f, err
}

// requestBytes is the whole client side of a connection with one request on stream 1.
func requestBytes(r *Request) []byte {
	b := append([]byte(preface), appendFrame(nil, frame{kind: frameSettings})...)
	last := func(is bool) byte {
		if is {
			return flagEndStream
		}
		return 0
	}
	b = appendFrame(b, frame{frameHeaders, flagEndHeaders | last(r.Body == "" && r.Trailer == nil), 1, encodeFields(r.Fields)})
	if r.Body != "" {
		b = appendFrame(b, frame{frameData, last(r.Trailer == nil), 1, []byte(r.Body)})
	}
	if r.Trailer != nil {
		b = appendFrame(b, frame{frameHeaders, flagEndHeaders | flagEndStream, 1, encodeFields(r.Trailer)})
	}
	return b
}

// sendHTTP2 sends the request of a case over h2c with prior knowledge and
// reads until the stream or the connection ends.
func sendHTTP2(ctx context.Context, addr string, c Case, t timing) exchange {
	conn, err := dial(ctx, addr)
	if err != nil {
		return exchange{closed: true}
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(t.patience))
	if _, err := conn.Write(requestBytes(c.H2)); err != nil {
		return exchange{closed: true}
	}
	return readStream(conn)
}

func readStream(conn net.Conn) (out exchange) {
	for {
		f, err := readFrame(conn)
		if err != nil {
			out.closed = !errors.Is(err, os.ErrDeadlineExceeded)
			return out
		}
		switch f.kind {
		case frameSettings:
			if f.flags&flagAck == 0 {
				_, _ = conn.Write(appendFrame(nil, frame{kind: frameSettings, flags: flagAck}))
			}
		case frameHeaders:
			// A trailer section has no status; 1xx is no final answer.
			if code := firstStatus(fragment(f)); code >= 200 {
				out.statuses = append(out.statuses, code)
			}
		case frameRSTStream:
			return out
		case frameGoAway:
			out.closed = true
			return out
		}
		if (f.kind == frameHeaders || f.kind == frameData) && f.flags&flagEndStream != 0 {
			return out
		}
	}
}

// fragment is the field block of a HEADERS frame without padding and priority.
func fragment(f frame) []byte {
	b, pad := f.payload, 0
	if f.flags&flagPadded != 0 && len(b) > 0 {
		pad, b = int(b[0]), b[1:]
	}
	if f.flags&flagPriority != 0 && len(b) >= 5 {
		b = b[5:]
	}
	return b[:max(0, len(b)-pad)]
}
