package http1

import (
	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/http/syntax"
)

// maxTrailer and maxTrailerFields bound a trailer section.
const (
	maxTrailer       = 8 << 10
	maxTrailerFields = 64
	// maxChunkLine bounds a chunk's size and extensions.
	maxChunkLine = 256
	// maxChunkWaste bounds the bytes of framing beyond what chunks of 16 bytes would need.
	maxChunkWaste = 64 << 10
	// maxChunkDigits is as many as fit an int64.
	maxChunkDigits = 15
)

// What ends a chunked body badly. RFC 9112 section 7.1.
var (
	faultChunkSize    = &fault{400, "bad_chunk_size", "a chunk's size is not 1 to 15 hexadecimal digits"}
	faultChunkExt     = &fault{400, "bad_chunk_extension", "a chunk extension is too long or has a control byte"}
	faultChunkEnd     = &fault{400, "bad_chunk_end", "a chunk's data is not followed by CR LF"}
	faultChunkWaste   = &fault{400, "chunk_overhead", "the chunks are nearly all framing"}
	faultTrailer      = &fault{400, "bad_trailer", "a trailer line is no field line"}
	faultTrailerLarge = &fault{400, "trailer_too_large", "the trailer section is over the limit"}
)

// kind is how a body is delimited (RFC 9112 section 6.3).
type kind uint8

const (
	kindLength kind = iota
	kindChunked
	kindClose // by the end of the connection
)

// The places in a chunked body.
const (
	atSize uint8 = iota
	atData
	atDataEnd
	atTrailer
)

// decoder takes the framing off a body. It works in place on what a source has buffered.
type decoder struct {
	kind    kind
	at      uint8
	left    int64 // of the body, or of the chunk; unused with kindClose
	waste   int64
	trailer *message.Fields
}

// decode reads from b: the body's bytes found, which are a part of b, how many bytes of b
// are used up, and whether the body is whole. With no data, no end and no fault it needs
// more bytes than b has.
func (d *decoder) decode(b []byte) (data []byte, used int, end bool, flt *fault) {
	switch d.kind {
	case kindLength:
		n := int(min(int64(len(b)), d.left))
		d.left -= int64(n)
		return b[:n], n, d.left == 0, nil
	case kindClose:
		return b, len(b), false, nil
	}
	from, to := 0, 0 // the data found: b[from:to]; later chunks are moved down to it
	for p := 0; ; {
		rest := b[p:]
		switch d.at {
		case atSize:
			n, flt := d.sizeLine(rest)
			if n == 0 {
				return b[from:to], p, false, flt
			}
			p += n
		case atData:
			n := int(min(int64(len(rest)), d.left))
			if from == to {
				from, to = p, p+n
			} else {
				to += copy(b[to:], rest[:n])
			}
			p += n
			if d.left -= int64(n); d.left > 0 {
				return b[from:to], p, false, nil
			}
			d.at = atDataEnd
		case atDataEnd:
			if len(rest) > 0 && rest[0] != '\r' || len(rest) > 1 && rest[1] != '\n' {
				return nil, p, false, faultChunkEnd
			}
			if len(rest) < 2 {
				return b[from:to], p, false, nil
			}
			p += 2
			d.at = atSize
		default:
			n, flt := d.trailerSection(rest)
			if n == 0 {
				return b[from:to], p, false, flt
			}
			return b[from:to], p + n, true, nil
		}
	}
}

// sizeLine reads a chunk's size and passes over its extensions. It returns the length of
// the line; 0 when b ends before.
func (d *decoder) sizeLine(b []byte) (int, *fault) {
	var n int64
	i := 0
	for ; i < len(b); i++ {
		digit, ok := syntax.Unhex(b[i])
		if !ok {
			break
		}
		if i == maxChunkDigits {
			return 0, faultChunkSize
		}
		n = n<<4 | int64(digit)
	}
	if i == len(b) {
		return 0, nil
	}
	if i == 0 || b[i] != '\r' && b[i] != ';' {
		return 0, faultChunkSize
	}
	end, flt := lineEnd(b, i)
	if flt != nil || end == 0 && len(b) > maxChunkLine+1 || end > maxChunkLine {
		return 0, faultChunkExt
	}
	if end == 0 {
		return 0, nil
	}
	if d.waste = max(0, d.waste+int64(end)+4-16) - n/16; d.waste > maxChunkWaste {
		return 0, faultChunkWaste
	}
	d.left, d.at = n, atData
	if n == 0 {
		d.at = atTrailer
	}
	return end + 2, nil
}

// trailerSection reads the trailer fields and the empty line after them. It returns their
// length; 0 when b ends before.
func (d *decoder) trailerSection(b []byte) (int, *fault) {
	if len(b) >= 2 && b[0] == '\r' && b[1] == '\n' {
		return 2, nil
	}
	h := head{answer: true, length: -1}
	d.trailer.Reset()
	n, flt := h.fieldLines(b, 0, d.trailer, maxTrailerFields)
	switch {
	case flt == faultFields || n > maxTrailer || n == 0 && len(b) > maxTrailer:
		return 0, faultTrailerLarge
	case flt == faultCollision || flt == faultLength || flt == faultCoding || flt == faultCodingNew || h.connection&connOdd != 0:
		return 0, faultTrailer // a framing field, and a bad one
	case n == 0:
		if flt != nil {
			flt = faultTrailer
		}
		return 0, flt
	}
	d.trailer.Load(b[:n])
	keepTrailers(d.trailer)
	return n, nil
}

// keepTrailers removes the fields that mean something in a head and must not come after the
// body (RFC 9110 section 6.5.1): of the known names only those that are of use there stay.
func keepTrailers(f *message.Fields) {
	for i := f.Len() - 1; i >= 0; i-- {
		switch id, _, _ := f.At(i); id {
		case message.Other, message.ETag, message.ServerTiming, message.EndpointLoadMetrics, message.CacheStatus, message.Link:
		default:
			f.DelAt(i)
		}
	}
}
