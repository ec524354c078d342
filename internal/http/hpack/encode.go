package hpack

import (
	"encoding/binary"
	"math"
	"math/bits"

	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/http/syntax"
)

// The forms of a field (RFC 7541 section 6).
const (
	formIndexed = 0x80
	formAdded   = 0x40
	formUpdate  = 0x20
	formNever   = 0x10
	formPlain   = 0x00
)

// Append appends a field without a dynamic table: such a block is good on any connection and
// can be kept. The name may be left out when the id is known or a pseudo id; otherwise it is
// written in lower case. Compress tells it to use Huffman code where that is shorter, which
// pays for what is kept or crosses the internet.
func Append(dst []byte, id message.ID, name, value []byte, compress bool) []byte {
	if i := staticField(id, value); i != 0 {
		return append(dst, formIndexed|i)
	}
	form := byte(formPlain)
	if sensitive(id, value) {
		form = formNever
	}
	return appendLiteral(dst, form, id, name, value, compress)
}

// AppendStatus appends the pseudo-header field of an answer.
func AppendStatus(dst []byte, status int) []byte {
	switch status {
	case 200:
		return append(dst, formIndexed|8)
	case 204:
		return append(dst, formIndexed|9)
	case 206:
		return append(dst, formIndexed|10)
	case 304:
		return append(dst, formIndexed|11)
	case 400:
		return append(dst, formIndexed|12)
	case 404:
		return append(dst, formIndexed|13)
	case 500:
		return append(dst, formIndexed|14)
	}
	return append(dst, formPlain|8, 3, byte('0'+status/100%10), byte('0'+status/10%10), byte('0'+status%10))
}

// staticField finds the static entry that is the whole field; 0 when there is none.
func staticField(id message.ID, value []byte) byte {
	switch id {
	case Method:
		if string(value) == "GET" {
			return 2
		}
		if string(value) == "POST" {
			return 3
		}
	case Path:
		if string(value) == "/" {
			return 4
		}
		if string(value) == "/index.html" {
			return 5
		}
	case Scheme:
		if string(value) == "http" {
			return 6
		}
		if string(value) == "https" {
			return 7
		}
	case Status:
		for i := byte(8); i <= 14; i++ {
			if string(value) == string(static[i].value) {
				return i
			}
		}
	case message.AcceptEncoding:
		if string(value) == "gzip, deflate" {
			return 16
		}
	}
	return 0
}

// sensitive says whether a field must not enter any table on its way, so that nobody can guess
// it byte by byte from the size of what is sent (RFC 7541 section 7.1).
func sensitive(id message.ID, value []byte) bool {
	switch id {
	case message.Authorization, message.ProxyAuthorization:
		return true
	case message.Cookie, message.SetCookie:
		return len(value) < 20
	}
	return false
}

func appendLiteral(dst []byte, form byte, id message.ID, name, value []byte, compress bool) []byte {
	prefix := uint(4)
	if form == formAdded {
		prefix = 6
	}
	if i := staticIndex[id]; i != 0 {
		dst = AppendInt(dst, form, prefix, uint64(i))
	} else {
		dst = append(dst, form)
		dst = appendName(dst, id, name)
	}
	return appendText(dst, value, compress)
}

func appendName(dst []byte, id message.ID, name []byte) []byte {
	switch {
	case id == Protocol:
		return append(append(dst, 9), ":protocol"...)
	case id != message.Other && id < Unknown:
		l := id.Lower()
		return append(append(dst, byte(len(l))), l...)
	}
	return appendLower(AppendInt(dst, 0, 7, uint64(len(name))), name)
}

func appendLower(dst, name []byte) []byte {
	for _, c := range name {
		if c-'A' < 26 {
			c |= 0x20
		}
		dst = append(dst, c)
	}
	return dst
}

// minHuffman is the length from which a text is compressed. A shorter one would save a few
// bytes, and a twentieth of what a hit costs goes into trying.
const minHuffman = 64

func appendText(dst, s []byte, compress bool) []byte {
	if compress && len(s) >= minHuffman {
		if n := HuffmanLen(s); n < len(s) {
			return AppendHuffman(AppendInt(dst, 0x80, 7, uint64(n)), s)
		}
	}
	return append(AppendInt(dst, 0, 7, uint64(len(s))), s...)
}

// slots is the number of places of the encoder's hash table, about twice the entries that a
// table of the default size usually holds.
const slots = 128

// Encoder encodes the header blocks of one connection, in their order, with a dynamic table for
// fields that come again. It is for one goroutine. A block made by Append may stand anywhere in
// between, once Begin has been called for it.
type Encoder struct {
	t        table
	compress bool
	own      uint32 // the size we want at most
	target   uint32 // the size to have, as the peer allows
	least    uint32 // the least of the targets since the last update was sent
	index    [slots]uint32
	seen     [slots]uint32 // hashes of fields seen once
}

// NewEncoder makes an encoder. Size bounds its table whatever the peer allows; 0 does without.
// Compress tells it to use Huffman code where that is shorter.
func NewEncoder(size uint32, compress bool) *Encoder {
	e := &Encoder{compress: compress, own: size, least: math.MaxUint32}
	e.t.max = DefaultTableSize
	e.SetPeerSize(DefaultTableSize)
	return e
}

// SetPeerSize takes the peer's SETTINGS_HEADER_TABLE_SIZE. Call it before the settings are
// acknowledged.
func (e *Encoder) SetPeerSize(size uint32) {
	e.target = min(size, e.own)
	e.least = min(e.least, e.target)
}

// Begin begins a header block: it appends the table size update that is due (RFC 7541 section
// 4.2). Call it for every block, also for one made by Append alone. When the peer allowed less
// and then more, this block has the update to the least size and the next one the update to the
// last: a table may be smaller than allowed, and the decoder of x/net refuses two in a block.
func (e *Encoder) Begin(dst []byte) []byte {
	size := min(e.least, e.target)
	e.least = math.MaxUint32
	if size >= e.t.max {
		size = e.target
	}
	if size == e.t.max {
		return dst
	}
	e.t.setMax(size)
	return AppendInt(dst, formUpdate, 5, uint64(size))
}

// Append appends a field, as the function Append does, or a reference to it in the table. A
// field enters the table when it comes for the second time, unless its value is one that
// rarely comes again or that must not be guessed.
func (e *Encoder) Append(dst []byte, id message.ID, name, value []byte) []byte {
	if e.t.max == 0 || unlikely[id] || len(name)+len(value) > 512 {
		return Append(dst, id, name, value, e.compress)
	}
	if i := staticField(id, value); i != 0 {
		return append(dst, formIndexed|i)
	}
	h := hash(id, name, value)
	slot := &e.index[h%slots]
	if age := e.t.added - *slot; age-1 < e.t.live {
		if f := e.t.at(*slot); f.hash == h && f.id == id && e.equal(f, name, value) {
			return AppendInt(dst, formIndexed, 7, uint64(numStatic+age))
		}
	}
	if e.seen[h%slots] != h {
		e.seen[h%slots] = h
		return appendLiteral(dst, formPlain, id, name, value, e.compress)
	}
	dst = appendLiteral(dst, formAdded, id, name, value, e.compress)
	number := e.t.added
	if e.add(id, name, value, h) {
		*slot = number
	}
	return dst
}

// equal says whether an entry is a field with the same id.
func (e *Encoder) equal(f *entry, name, value []byte) bool {
	if string(e.t.value(f)) != string(value) {
		return false
	}
	return f.id != message.Other || syntax.EqualFold(e.t.name(f), name)
}

// add puts a field into our copy of the peer's table.
func (e *Encoder) add(id message.ID, name, value []byte, h uint32) bool {
	var low [64]byte
	switch {
	case id >= Unknown:
		if i := staticIndex[id]; i != 0 {
			name = static[i].name
		} else {
			name = append(low[:0], ":protocol"...)
		}
	case id != message.Other:
		name = append(low[:0], id.Lower()...)
	}
	return e.t.add(id, name, value, h)
}

// unlikely marks the names whose values rarely come again on a connection, or must not be
// guessed by whoever can add fields of their own.
var unlikely = [256]bool{
	Path: true, Status: true, Unknown: true,
	message.Age: true, message.Authorization: true, message.ContentLength: true, message.ContentLocation: true,
	message.ContentRange: true, message.Cookie: true, message.Date: true, message.ETag: true, message.Expires: true,
	message.IdempotencyKey: true, message.IfMatch: true, message.IfModifiedSince: true, message.IfNoneMatch: true,
	message.IfRange: true, message.IfUnmodifiedSince: true, message.LastModified: true, message.Location: true,
	message.ProxyAuthorization: true, message.Range: true, message.SecWebSocketKey: true, message.ServerTiming: true,
	message.SetCookie: true, message.SurrogateKey: true, message.Traceparent: true, message.Tracestate: true,
	message.XRequestId: true,
}

// hash is of no strength: a clash costs a place in the table and no more.
func hash(id message.ID, name, value []byte) uint32 {
	h := uint64(id) + uint64(len(value))<<8
	if id == message.Other {
		for _, c := range name {
			h = (h ^ uint64(c|0x20)) * 0x100000001b3
		}
	}
	for ; len(value) >= 8; value = value[8:] {
		h = mix(h ^ binary.LittleEndian.Uint64(value))
	}
	for _, c := range value {
		h = h<<8 | h>>56 ^ uint64(c)
	}
	return uint32(mix(h)>>32) | 1
}

func mix(h uint64) uint64 {
	hi, lo := bits.Mul64(h^0x9e3779b97f4a7c15, 0xd6e8feb86659fd93)
	return hi ^ lo
}
