package hpack

import "github.com/relais-edge/relais/internal/http/message"

// A Sink takes the fields of a block in their order.
type Sink interface {
	// Field takes one. The id of a known name promises that it is spelled in lower case; any
	// other name is message.Other, or one of the pseudo ids of this package. The syntax of
	// names and values is not checked. Both are good until Field returns. After an error no
	// more fields come.
	Field(id message.ID, name, value []byte, is Traits) error
}

// Traits are what else is known of a field.
type Traits uint8

// The traits.
const (
	// Never says that the field must not be compressed on its way on (RFC 7541 section 7.1.3).
	Never Traits = 1 << iota
	// Taken says that a sink of this decoder has taken this very field before without an error,
	// or that it is of the static table: what it looked at in the bytes is as it was.
	Taken
)

// Decoder decodes the header blocks of one connection, in their order.
type Decoder struct {
	t       table
	allowed uint32 // what the peer may set its table to
	changed bool   // allowed was lowered below max: the next block must begin with an update
	buf     []byte // Huffman strings of the field at hand
}

// NewDecoder makes a decoder. Size is the SETTINGS_HEADER_TABLE_SIZE that we announce and bounds
// the memory of the table; until the peer knows it, it may use DefaultTableSize.
func NewDecoder(size uint32) *Decoder {
	d := &Decoder{allowed: max(size, DefaultTableSize)}
	d.t.max = DefaultTableSize
	return d
}

// SetAllowed changes the size that the peer may use, once it has acknowledged our settings. It
// must then shrink a larger table at the start of its next block (RFC 7541 section 4.2).
func (d *Decoder) SetAllowed(size uint32) {
	d.allowed = size
	d.changed = size < d.t.max
}

// state is one Decode.
type state struct {
	d     *Decoder
	sink  Sink
	limit int   // what may still come
	err   error // ErrTooLarge, or the sink's; then nothing more is handed over
}

// Decode decodes a whole header block. Limit bounds the sum of its fields, each counted with
// Overhead. A CompressionError costs the connection. ErrTooLarge and an error of the sink do
// not: the block is then read to its end for the sake of the table. Without a sink nothing else
// is done.
func (d *Decoder) Decode(block []byte, limit int, sink Sink) error {
	i, err := d.updates(block)
	if err != nil {
		return err
	}
	s := state{d: d, sink: sink, limit: limit}
	for i < len(block) {
		var n int
		switch b := block[i]; {
		case b > 0x80 && b <= 0x80|numStatic:
			f := &static[b&0x7f]
			s.emit(f.id, f.name, f.value, Taken)
			i++
			continue
		case b >= 0x80:
			n, err = s.indexed(block[i:])
		case b&0xe0 == 0x20:
			return ErrSizeUpdate
		default:
			n, err = s.literal(block[i:])
		}
		if err != nil {
			return err
		}
		i += n
	}
	return s.err
}

// updates reads the table size updates that a block begins with, and returns where its fields
// begin: there are at most two, the least and the last size since the block before.
func (d *Decoder) updates(block []byte) (at int, err error) {
	for n := 0; at < len(block) && block[at]&0xe0 == 0x20; n++ {
		if n == 2 {
			return 0, ErrSizeUpdate
		}
		size, used, err := ReadInt(block[at:], 5)
		if err != nil {
			return 0, err
		}
		if size > uint64(d.allowed) {
			return 0, ErrSizeUpdate
		}
		d.t.setMax(uint32(size))
		d.changed = false
		at += used
	}
	if d.changed && at < len(block) {
		return 0, ErrSizeUpdate
	}
	return at, nil
}

// emit hands a field over and says whether the sink took it.
func (s *state) emit(id message.ID, name, value []byte, is Traits) bool {
	if s.err != nil {
		return false
	}
	if s.limit -= len(name) + len(value) + Overhead; s.limit < 0 {
		s.err = ErrTooLarge
		return false
	}
	if s.sink == nil {
		return false
	}
	s.err = s.sink.Field(id, name, value, is)
	return s.err == nil
}

// indexed reads an indexed field (RFC 7541 section 6.1) that is not one of the first static ones.
func (s *state) indexed(b []byte) (int, error) {
	index, n := uint64(b[0]&0x7f), 1
	if index == 0x7f {
		var err error
		if index, n, err = ReadInt(b, 7); err != nil {
			return 0, err
		}
	}
	if index-1 < numStatic {
		f := &static[index]
		s.emit(f.id, f.name, f.value, Taken)
		return n, nil
	}
	t := &s.d.t
	e := s.d.dynamic(index)
	if e == nil {
		return 0, ErrIndex
	}
	off, mid := e.pos-t.base, e.pos-t.base+e.name
	end := mid + e.value
	if s.emit(e.id, t.arena[off:mid:mid], t.arena[mid:end:end], e.is) {
		e.is = Taken
	}
	return n, nil
}

// dynamic finds the entry of an index; nil when there is none.
func (d *Decoder) dynamic(index uint64) *entry {
	age := index - numStatic - 1
	if index == 0 || age >= uint64(d.t.live) {
		return nil
	}
	return d.t.at(d.t.added - 1 - uint32(age))
}

// literal reads a literal field, with indexing or without or never (RFC 7541 section 6.2).
func (s *state) literal(b []byte) (int, error) {
	first := b[0]
	prefix := uint(4)
	if first >= 0x40 {
		prefix = 6
	}
	index, n, err := ReadInt(b, prefix)
	if err != nil {
		return 0, err
	}
	d := s.d
	d.buf = d.buf[:0]
	var id message.ID
	var name, value []byte
	switch {
	case index == 0:
		var used int
		if name, used, err = d.text(b[n:]); err != nil {
			return 0, err
		}
		n += used
		id = identify(name)
	case index <= numStatic:
		id, name = static[index].id, static[index].name
	default:
		e := d.dynamic(index)
		if e == nil {
			return 0, ErrIndex
		}
		// A copy, for its entry may make room for the new one.
		d.buf = append(d.buf, d.t.name(e)...)
		id, name = e.id, d.buf
	}
	value, used, err := d.text(b[n:])
	if err != nil {
		return 0, err
	}
	var is Traits
	if first&0xf0 == 0x10 {
		is = Never
	}
	taken := s.emit(id, name, value, is)
	if first >= 0x40 && d.t.add(id, name, value, 0) && taken {
		d.t.at(d.t.added - 1).is = Taken
	}
	return n + used, nil
}

// text reads a string (RFC 7541 section 5.2): a part of b, or of d.buf behind what it holds.
func (d *Decoder) text(b []byte) (text []byte, used int, err error) {
	var l uint64
	n := 1
	if len(b) > 0 && b[0]&0x7f != 0x7f {
		l = uint64(b[0] & 0x7f)
	} else if l, n, err = ReadInt(b, 7); err != nil {
		return nil, 0, err
	}
	if l > uint64(len(b)-n) {
		return nil, 0, ErrTruncated
	}
	used = n + int(l)
	text = b[n:used:used]
	if b[0] < 0x80 {
		return text, used, nil
	}
	was := len(d.buf)
	if d.buf, err = DecodeHuffman(d.buf, text); err != nil {
		return nil, 0, err
	}
	return d.buf[was:len(d.buf):len(d.buf)], used, nil
}
