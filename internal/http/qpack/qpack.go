// Package qpack is the field compression of HTTP/3 (RFC 9204) without a dynamic table: we
// announce a capacity of 0, so no request waits for another, and no memory is held for a client.
//
// A Reader lends the lines of a field section one by one; Append and its like write one with the
// static table. Nothing here allocates once buffers have grown to their size.
package qpack

import (
	"errors"

	"github.com/relais-edge/relais/internal/http/hpack"
	"github.com/relais-edge/relais/internal/http/message"
)

// How a field line begins (RFC 9204 section 4.5).
const (
	indexedStatic     = 0xc0 // 11 and 6 bits of an index
	indexedDynamic    = 0x80 // 10
	literalStaticName = 0x50 // 01, never indexed, static, and 4 bits of an index
	literalNever      = 0x20 // of literalStaticName
	literalName       = 0x20 // 001, never indexed, Huffman, and 3 bits of a length
	literalHuffman    = 0x08 // of literalName
	valueHuffman      = 0x80 // of a value; 7 bits of a length follow
)

// Errors of a field section; each is QPACK_DECOMPRESSION_FAILED, an error of the connection
// (RFC 9204 section 2.2).
var (
	ErrDynamic   = errors.New("qpack: a reference to the dynamic table, whose capacity is 0")
	ErrIndex     = errors.New("qpack: an index beyond the static table")
	ErrTruncated = errors.New("qpack: the field section ends within a line")
	ErrHuffman   = errors.New("qpack: a malformed Huffman string")
)

// Line is a field line. What it lends is good until the next one.
type Line struct {
	ID    message.ID // of the name when it is known in lower case, or of hpack for a pseudo-header; else Other
	Fixed bool       // name and value are of the static table
	Name  []byte
	Value []byte
}

// Reader reads a field section. The zero Reader is ready for Reset.
type Reader struct {
	b     []byte
	plain []byte // what was in Huffman code of the last line
}

// Reset begins a field section, which is whole in block. It reads the prefix, which must not
// ask for dynamic entries (RFC 9204 section 4.5.1).
func (r *Reader) Reset(block []byte) error {
	if len(block) >= 2 && block[0] == 0 && block[1] == 0 {
		r.b = block[2:]
		return nil
	}
	r.b = nil
	inserts, n, err := hpack.ReadInt(block, 8)
	if err != nil {
		return ErrTruncated
	}
	if inserts != 0 {
		return ErrDynamic
	}
	// A base without dynamic entries means nothing, but is there.
	_, m, err := hpack.ReadInt(block[n:], 7)
	if err != nil {
		return ErrTruncated
	}
	if block[n]&0x80 != 0 { // the base would be below 0
		return ErrDynamic
	}
	r.b = block[n+m:]
	return nil
}

// Next reads the next line into l; false at the end.
func (r *Reader) Next(l *Line) (bool, error) {
	if len(r.b) == 0 {
		return false, nil
	}
	r.plain = r.plain[:0]
	var err error
	switch c := r.b[0]; {
	case c&0xc0 == indexedStatic:
		var e *entry
		if e, err = r.entry(6); err != nil {
			return false, err
		}
		l.ID, l.Fixed, l.Name, l.Value = e.id, true, e.name, e.value
		return true, nil
	case c&0xc0 == 0x40:
		if c&0x10 == 0 {
			return false, ErrDynamic
		}
		var e *entry
		if e, err = r.entry(4); err != nil {
			return false, err
		}
		l.ID, l.Name = e.id, e.name
	case c&0xe0 == literalName:
		if l.Name, err = r.text(3, c&literalHuffman != 0); err != nil {
			return false, err
		}
		l.ID = identify(l.Name)
	default:
		return false, ErrDynamic
	}
	l.Fixed = false
	if len(r.b) == 0 {
		return false, ErrTruncated
	}
	l.Value, err = r.text(7, r.b[0]&valueHuffman != 0)
	return err == nil, err
}

// entry reads an index into the static table.
func (r *Reader) entry(prefix uint) (*entry, error) {
	i, n, err := hpack.ReadInt(r.b, prefix)
	if err != nil {
		return nil, ErrTruncated
	}
	if i >= uint64(len(static)) {
		return nil, ErrIndex
	}
	r.b = r.b[n:]
	return &static[i], nil
}

// text reads a string. In Huffman code it goes to plain; a name in there stays where it is
// when the value's growing moves plain.
func (r *Reader) text(prefix uint, huffman bool) ([]byte, error) {
	length, n, err := hpack.ReadInt(r.b, prefix)
	if err != nil || length > uint64(len(r.b)-n) {
		return nil, ErrTruncated
	}
	raw := r.b[n : n+int(length) : n+int(length)]
	r.b = r.b[n+int(length):]
	if !huffman {
		return raw, nil
	}
	from := len(r.plain)
	if r.plain, err = hpack.DecodeHuffman(r.plain, raw); err != nil {
		return nil, ErrHuffman
	}
	return r.plain[from:len(r.plain):len(r.plain)], nil
}

// identify finds the id of a name; Other for one in other than lower case.
func identify(name []byte) message.ID {
	if len(name) > 0 && name[0] == ':' {
		switch string(name) {
		case ":authority":
			return hpack.Authority
		case ":method":
			return hpack.Method
		case ":path":
			return hpack.Path
		case ":protocol":
			return hpack.Protocol
		case ":scheme":
			return hpack.Scheme
		case ":status":
			return hpack.Status
		}
		return hpack.Unknown
	}
	for _, c := range name {
		if c-'A' < 26 {
			return message.Other
		}
	}
	return message.KnownID(name)
}

// AppendPrefix appends the prefix of a field section without dynamic entries.
func AppendPrefix(dst []byte) []byte { return append(dst, 0, 0) }

// AppendStatus appends :status.
func AppendStatus(dst []byte, status int) []byte {
	v := [3]byte{byte('0' + status/100%10), byte('0' + status/10%10), byte('0' + status%10)}
	return appendPseudo(dst, hpack.Status, v[:])
}

// AppendRequest appends the pseudo-header fields of a request, in their order in RFC 9114
// section 4.3.1. Protocol is that of an extended CONNECT (RFC 9220); empty ones are left out.
func AppendRequest(dst, method, scheme, authority, path, protocol []byte) []byte {
	dst = appendPseudo(dst, hpack.Method, method)
	if len(scheme) > 0 {
		dst = appendPseudo(dst, hpack.Scheme, scheme)
	}
	if len(authority) > 0 {
		dst = appendPseudo(dst, hpack.Authority, authority)
	}
	if len(path) > 0 {
		dst = appendPseudo(dst, hpack.Path, path)
	}
	if len(protocol) > 0 {
		dst = AppendLine(dst, []byte(":protocol"), protocol)
	}
	return dst
}

func appendPseudo(dst []byte, id message.ID, value []byte) []byte {
	if i := find(id, value); i >= 0 {
		return hpack.AppendInt(dst, indexedStatic, 6, uint64(i))
	}
	dst = hpack.AppendInt(dst, literalStaticName, 4, uint64(byID[id][0]))
	return appendValue(dst, value)
}

// Append appends a line with a known name.
func Append(dst []byte, id message.ID, value []byte) []byte {
	if i := find(id, value); i >= 0 {
		return hpack.AppendInt(dst, indexedStatic, 6, uint64(i))
	}
	var never byte // an encoder further on shall not put it into a table (RFC 9204 section 7.1.3)
	if at := byID[id]; at != nil {
		if secret(id) {
			never = literalNever
		}
		dst = hpack.AppendInt(dst, literalStaticName|never, 4, uint64(at[0]))
		return appendValue(dst, value)
	}
	if secret(id) {
		never = literalNever >> 1
	}
	name := id.Lower()
	dst = hpack.AppendInt(dst, literalName|never, 3, uint64(len(name)))
	dst = append(dst, name...)
	return appendValue(dst, value)
}

func secret(id message.ID) bool {
	return id == message.Authorization || id == message.ProxyAuthorization || id == message.SetCookie || id == message.Cookie
}

// find looks for a line of the static table; -1 when there is none.
func find(id message.ID, value []byte) int {
	for _, i := range byID[id] {
		if string(static[i].value) == string(value) {
			return int(i)
		}
	}
	return -1
}

// AppendLine appends a line with any name, which becomes lower case.
func AppendLine(dst, name, value []byte) []byte {
	return appendValue(appendName(dst, name), value)
}

func appendName(dst, name []byte) []byte {
	dst = hpack.AppendInt(dst, literalName, 3, uint64(len(name)))
	for _, c := range name {
		if c-'A' < 26 {
			c |= 0x20
		}
		dst = append(dst, c)
	}
	return dst
}

// appendValue appends a string as it is: Huffman code would save a fifth of a head that fits
// into its packet in any case, for more time than all the rest here takes.
func appendValue(dst, value []byte) []byte {
	dst = hpack.AppendInt(dst, 0, 7, uint64(len(value)))
	return append(dst, value...)
}
