package waitroom

import (
	"encoding/binary"

	"github.com/relais-edge/relais/internal/edge/budget"
	"github.com/relais-edge/relais/internal/edge/seal"
	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/stage"
)

// The layout of a ticket's payload.
const (
	version    = 2
	payloadLen = 30
	// What was given before an upgrade from version 1, whose places are good and whose passes are bound to nobody.
	oldVersion = 1
	oldLen     = 22
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
	guest   uint32 // of a place that another edge gave: which it was, so that those of one time are told apart; else 0
	network uint16 // of a pass: hash of the network that it was given to
	client  uint16 // of a pass: hash of the program that it was given to
	unbound bool   // a pass of version 1
}

// fits says whether x may be the one that a pass was given to: a telephone changes its network, a browser its name,
// and neither both at once. Exactly says that it changed neither.
func (t *ticket) fits(x *stage.Exchange) (ok, exactly bool) {
	network, client := budget.Bind(t.number, x.Client, x.In.Get(message.UserAgent))
	exactly = network == t.network && client == t.client && !t.unbound
	return t.unbound || network == t.network || client == t.client, exactly
}

// whoOf hashes who comes with a number.
func whoOf(x *stage.Exchange, number uint64) uint16 {
	network, client := budget.Bind(number, x.Client, x.In.Get(message.UserAgent))
	return uint16((uint32(network)<<16 | uint32(client)) * 0x9e3779b1 >> 16)
}

// append appends the text of t.
func (t *ticket) append(b []byte, keys *seal.Keys) []byte {
	var raw [payloadLen]byte
	raw[0], raw[1] = version, byte(t.kind)
	binary.BigEndian.PutUint32(raw[2:], t.epoch)
	binary.BigEndian.PutUint64(raw[6:], t.number)
	binary.BigEndian.PutUint32(raw[14:], t.arrived)
	binary.BigEndian.PutUint32(raw[18:], t.expires)
	binary.BigEndian.PutUint32(raw[22:], t.guest)
	binary.BigEndian.PutUint16(raw[26:], t.network)
	binary.BigEndian.PutUint16(raw[28:], t.client)
	return keys.Append(b, raw[:])
}

// parse reads a ticket's text at the time now, in Unix seconds. False means that it is worth nothing.
func parse(text []byte, keys *seal.Keys, now int64) (t ticket, ok bool) {
	var memory [payloadLen]byte
	size, of := payloadLen, byte(version)
	if len(text) == seal.TextLen(oldLen) {
		size, of = oldLen, oldVersion
	}
	raw, err := keys.Open(memory[:0], text, size)
	if err != nil || raw[0] != of {
		return t, false
	}
	t = ticket{
		kind: kind(raw[1]), epoch: binary.BigEndian.Uint32(raw[2:]), number: binary.BigEndian.Uint64(raw[6:]),
		arrived: binary.BigEndian.Uint32(raw[14:]), expires: binary.BigEndian.Uint32(raw[18:]), unbound: of == oldVersion,
	}
	if of == version {
		t.guest = binary.BigEndian.Uint32(raw[22:])
		t.network, t.client = binary.BigEndian.Uint16(raw[26:]), binary.BigEndian.Uint16(raw[28:])
	}
	return t, (t.kind == kindPlace || t.kind == kindPass) && now < int64(t.expires)
}
