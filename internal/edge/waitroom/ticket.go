package waitroom

import (
	"encoding/binary"

	"github.com/relais-edge/relais/internal/edge/seal"
)

// The layout of a ticket's payload.
const (
	version    = 1
	payloadLen = 22
)

// kind tells a place in the line from the leave to be inside.
type kind byte

const (
	kindPlace kind = 1
	kindPass  kind = 2
)

// ticket is what a visitor carries.
type ticket struct {
	kind    kind
	epoch   uint32 // of the line that gave the number
	number  uint64 // from 1 on
	arrived uint32 // Unix time in seconds
	expires uint32
}

// append appends the text of t.
func (t *ticket) append(b []byte, keys *seal.Keys) []byte {
	var raw [payloadLen]byte
	raw[0], raw[1] = version, byte(t.kind)
	binary.BigEndian.PutUint32(raw[2:], t.epoch)
	binary.BigEndian.PutUint64(raw[6:], t.number)
	binary.BigEndian.PutUint32(raw[14:], t.arrived)
	binary.BigEndian.PutUint32(raw[18:], t.expires)
	return keys.Append(b, raw[:])
}

// parse reads a ticket's text at the time now, in Unix seconds. False means that it is worth nothing.
func parse(text []byte, keys *seal.Keys, now int64) (t ticket, ok bool) {
	var memory [payloadLen]byte
	raw, err := keys.Open(memory[:0], text, payloadLen)
	if err != nil || raw[0] != version {
		return t, false
	}
	t = ticket{
		kind: kind(raw[1]), epoch: binary.BigEndian.Uint32(raw[2:]), number: binary.BigEndian.Uint64(raw[6:]),
		arrived: binary.BigEndian.Uint32(raw[14:]), expires: binary.BigEndian.Uint32(raw[18:]),
	}
	return t, (t.kind == kindPlace || t.kind == kindPass) && now < int64(t.expires)
}
