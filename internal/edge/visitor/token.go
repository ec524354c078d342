package visitor

import (
	"encoding/binary"
	"errors"

	"github.com/relais-edge/relais/internal/edge/budget"
	"github.com/relais-edge/relais/internal/edge/seal"
	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/stage"
)

// The layout of a token's payload.
const (
	version    = 2
	payloadLen = 30
)

// textLen is the length of a token's text.
var textLen = seal.TextLen(payloadLen)

// The bits of a token's second byte: the class in the lowest two, the step reached in the next two.
const (
	flagPaid      = 0x10 // see token.paid
	flagAged      = 0x20 // it was renewed
	flagConfirmed = 0x40 // the origin said so
	flagFinal     = 0x80 // its order is complete, so that it is not renewed
)

// token is what a cookie or field of ours says.
type token struct {
	class     stage.Class
	reached   stage.Step
	confirmed bool
	final     bool
	paid      bool   // it was taken from the budget of baskets by path, and no order has given that back
	aged      bool   // it protects for longer than since issued
	issued    uint32 // Unix time in seconds
	expires   uint32
	id        uint64
	pool      uint32 // hash of the pool that holds the basket; 0 for none
	tier      uint32 // hash of the tier that holds the basket; 0 for none
	network   uint16 // hash of the network that it was given to
	client    uint16 // hash of the program that it was given to
}

// Why a token counts as none.
var (
	errForm    = seal.ErrForm
	errExpired = errors.New("expired")
)

// codec signs and verifies the tokens of one policy of one site.
type codec struct{ keys *seal.Keys }

// newCodec derives the keys of a site's tokens from secrets, of which the first signs.
func newCodec(site, name string, secrets ...[]byte) *codec {
	return &codec{seal.New("relais visitor 2\x00"+site+"\x00"+name, secrets...)}
}

// append appends the text of t.
func (c *codec) append(b []byte, t *token) []byte {
	var raw [payloadLen]byte
	flags := byte(t.class) | byte(t.reached)<<2
	if t.confirmed {
		flags |= flagConfirmed
	}
	if t.final {
		flags |= flagFinal
	}
	if t.paid {
		flags |= flagPaid
	}
	if t.aged {
		flags |= flagAged
	}
	raw[0], raw[1] = version, flags
	binary.BigEndian.PutUint32(raw[2:], t.issued)
	binary.BigEndian.PutUint32(raw[6:], t.expires)
	binary.BigEndian.PutUint64(raw[10:], t.id)
	binary.BigEndian.PutUint32(raw[18:], t.pool)
	binary.BigEndian.PutUint32(raw[22:], t.tier)
	binary.BigEndian.PutUint16(raw[26:], t.network)
	binary.BigEndian.PutUint16(raw[28:], t.client)
	return c.keys.Append(b, raw[:])
}

// parse reads a token's text at the time now, in Unix seconds.
func (c *codec) parse(text []byte, now int64) (t token, err error) {
	var memory [payloadLen]byte
	raw, err := c.keys.Open(memory[:0], text, payloadLen)
	switch {
	case err != nil:
		return t, err
	case raw[0] != version:
		return t, errForm
	}
	t = token{
		class: stage.Class(raw[1] & 3), reached: stage.Step(raw[1] >> 2 & 3),
		confirmed: raw[1]&flagConfirmed != 0, final: raw[1]&flagFinal != 0,
		paid: raw[1]&flagPaid != 0, aged: raw[1]&flagAged != 0,
		issued: binary.BigEndian.Uint32(raw[2:]), expires: binary.BigEndian.Uint32(raw[6:]),
		id:   binary.BigEndian.Uint64(raw[10:]),
		pool: binary.BigEndian.Uint32(raw[18:]), tier: binary.BigEndian.Uint32(raw[22:]),
		network: binary.BigEndian.Uint16(raw[26:]), client: binary.BigEndian.Uint16(raw[28:]),
	}
	switch {
	case t.class != stage.Known && t.class != stage.Protected:
		return token{}, errForm
	case now >= int64(t.expires):
		return token{}, errExpired
	}
	return t, nil
}

// bind notes for whom t is: the network and the program, as short hashes that tell nobody who it was.
func (t *token) bind(x *stage.Exchange) {
	t.network, t.client = networkOf(x, t.id), clientOf(x, t.id)
}

// networkOf hashes the visitor's IPv4 /24 or IPv6 /48 with the token's id, so that tokens cannot be joined
// by it.
func networkOf(x *stage.Exchange, id uint64) uint16 {
	var m [32]byte
	b := binary.BigEndian.AppendUint64(m[:0], id)
	return uint16(budget.Fold(budget.AppendPrefix(b, x.Client, 3, 6)))
}

// clientOf hashes what the visitor's program calls itself.
func clientOf(x *stage.Exchange, id uint64) uint16 {
	return uint16((budget.Fold(x.In.Get(message.UserAgent)) ^ id) * 0x9e3779b97f4a7c15 >> 48)
}

// stranger is the visitor of x as far as its address tells. The keys are the same on every edge and after every
// start, so that a consistent hash of them is steady.
func stranger(x *stage.Exchange) stage.Visitor {
	var m [24]byte
	v := stage.Visitor{Key: budget.Fold(budget.AppendPrefix(m[:0], x.Client, 4, 8))}
	if x.Client.IsValid() {
		v.Source, v.Network = v.Key, budget.Fold(budget.AppendPrefix(m[:0], x.Client, 3, 6))
	}
	return v
}
