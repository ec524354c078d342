package http1

import (
	"bytes"
	"encoding/binary"
	"math/bits"

	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/http/syntax"
)

// What a Connection field asked for.
const (
	connClose = 1 << iota
	connKeep
	connUpgrade
	connTE
	connOther // it names fields of the sender's own
	connOdd   // something in it is no token
)

// head is what the field lines of a message say of the connection and the framing.
type head struct {
	answer     bool // of an origin: repeated equal Content-Length pass, protected names in Connection are ignored
	connection uint8
	chunked    bool
	expect     bool
	fields     int
	host       message.Part
	hosts      int
	length     int64 // -1 when there is no Content-Length
}

// fieldLines reads the field lines of a head from b[p:] to the empty line, adds them to f as
// parts, and returns where the head ends; 0 when b ends before.
func (h *head) fieldLines(b []byte, p int, f *message.Fields, max int) (int, *fault) {
	for {
		start := p
		var seen syntax.Class
		for {
			if p >= len(b) {
				return 0, nil
			}
			c := syntax.Of(b[p])
			if c&syntax.Token == 0 {
				break
			}
			seen |= c
			p++
		}
		if p == start || b[p] != ':' {
			return h.endOfHead(b, p, start)
		}
		nameEnd := p
		p++
		for p < len(b) && (b[p] == ' ' || b[p] == '\t') {
			p++
		}
		from := p
		end, flt := lineEnd(b, p)
		if end == 0 {
			return 0, flt
		}
		p = end + 2
		for end > from && (b[end-1] == ' ' || b[end-1] == '\t') {
			end--
		}
		if h.fields++; h.fields > max {
			return 0, faultFields
		}
		name := b[start:nameEnd]
		id := message.KnownID(name)
		value := message.Part{Off: uint32(from), Len: uint32(end - from)}
		if id == message.Other {
			if seen&syntax.Underscore != 0 && message.Collides(name) {
				return 0, faultCollision
			}
		} else if flt := h.known(id, value, b[from:end]); flt != nil {
			return 0, flt
		}
		f.AddParts(id, message.Part{Off: uint32(start), Len: uint32(nameEnd - start)}, value)
	}
}

// endOfHead is where a line has no name and colon: the empty line, or a fault.
func (h *head) endOfHead(b []byte, p, start int) (int, *fault) {
	switch c := b[p]; {
	case p == start && c == '\r':
		if p+1 >= len(b) {
			return 0, nil
		}
		if b[p+1] != '\n' {
			return 0, faultBareCR
		}
		return p + 2, nil
	case c == '\n':
		return 0, faultBareLF
	case c == ' ' || c == '\t':
		if p == start {
			return 0, faultFold
		}
		return 0, faultColon
	}
	return 0, faultName
}

// lineEnd finds the CR LF that ends the line at b[p:] and sees that no control byte but tab
// is before it; 0 when b ends before.
func lineEnd(b []byte, p int) (int, *fault) {
	for {
		for p+8 <= len(b) {
			if hit := syntax.Controls(binary.LittleEndian.Uint64(b[p:])); hit != 0 {
				p += bits.TrailingZeros64(hit) / 8 // the lowest hit is never a false one
				break
			}
			p += 8
		}
		for p < len(b) && b[p] >= 0x20 && b[p] != 0x7f {
			p++
		}
		if p >= len(b) {
			return 0, nil
		}
		switch b[p] {
		case '\t':
			p++
		case '\r':
			if p+1 >= len(b) {
				return 0, nil
			}
			if b[p+1] != '\n' {
				return 0, faultBareCR
			}
			return p, nil
		case '\n':
			return 0, faultBareLF
		default:
			return 0, faultControl
		}
	}
}

// known takes notice of the fields that matter to the connection.
func (h *head) known(id message.ID, at message.Part, v []byte) *fault {
	switch id {
	case message.Host:
		h.hosts++
		h.host = at
	case message.ContentLength:
		n, ok := syntax.Decimal(v)
		if !ok || h.length >= 0 && (!h.answer || h.length != n) {
			return faultLength
		}
		h.length = n
	case message.TransferEncoding:
		return h.coding(v)
	case message.Connection:
		return h.options(v)
	case message.Expect:
		if h.answer {
			return nil
		}
		if h.expect || !message.EqualFold(v, "100-continue") {
			return faultExpect
		}
		h.expect = true
	}
	return nil
}

func (h *head) coding(v []byte) *fault {
	if !h.chunked && message.EqualFold(v, "chunked") {
		h.chunked = true
		return nil
	}
	if h.chunked || len(v) == 0 {
		return faultCoding
	}
	for rest := v; rest != nil; {
		var item []byte
		item, rest = syntax.NextItem(rest)
		name, _, parameters := bytes.Cut(item, []byte{';'})
		name = syntax.Trim(name)
		if !syntax.IsToken(name) || parameters && message.EqualFold(name, "chunked") {
			return faultCoding
		}
	}
	return faultCodingNew
}

func (h *head) options(v []byte) *fault {
	for rest := v; len(rest) > 0; {
		var item []byte
		item, rest = syntax.NextItem(rest)
		if len(item) == 0 {
			continue
		}
		if !syntax.IsToken(item) {
			if !h.answer {
				return faultConnection
			}
			// Nothing about the framing depends on it, and it can name no field. But what the origin
			// means is not known, so its connection is not used again.
			h.connection |= connClose | connOdd
			continue
		}
		switch message.KnownID(item) {
		case message.Other:
			if message.EqualFold(item, "close") {
				h.connection |= connClose
			} else {
				h.connection |= connOther
			}
		case message.KeepAlive:
			h.connection |= connKeep
		case message.Upgrade:
			h.connection |= connUpgrade
		case message.TE:
			h.connection |= connTE
		case message.Trailer, message.ProxyConnection, message.Connection, message.ProxyAuthorization, message.ProxyAuthenticate:
		default:
			if !h.answer {
				return faultConnection
			}
		}
	}
	return nil
}

// framing checks what the fields say together.
func (h *head) framing(proto message.Proto) *fault {
	switch {
	case h.chunked && h.length >= 0:
		return faultBoth
	case h.chunked && proto == message.HTTP10:
		return faultCodingOld
	}
	return nil
}

// persistent says whether the sender means to keep the connection (RFC 9112 section 9.3).
func (h *head) persistent(proto message.Proto) bool {
	return h.connection&connClose == 0 && (proto == message.HTTP11 || h.connection&connKeep != 0)
}

// StripConnection removes what is meant for one hop only: Connection, the fields it names,
// Keep-Alive, Proxy-Connection, TE, Trailer, Transfer-Encoding and Upgrade (RFC 9110 section
// 7.6.1). Known end-to-end fields stay even if Connection names them. Forwarders call it on
// the request they send; answers of RoundTrip come stripped.
func StripConnection(f *message.Fields) {
	for n := f.Count(message.Connection); n > 0; n-- {
		i := -1
		for range n {
			i = f.Next(message.Connection, i+1)
		}
		_, _, v := f.At(i)
		stripNamed(f, v)
	}
	for _, id := range [...]message.ID{
		message.Connection, message.KeepAlive, message.ProxyConnection, message.TE,
		message.Trailer, message.TransferEncoding, message.Upgrade,
	} {
		f.Del(id)
	}
}

// stripNamed removes the unknown fields that a Connection value names.
func stripNamed(f *message.Fields, v []byte) {
	for rest := v; len(rest) > 0; {
		var item []byte
		if item, rest = syntax.NextItem(rest); len(item) == 0 || message.KnownID(item) != message.Other {
			continue
		}
		for i := f.Len() - 1; i >= 0; i-- {
			if _, name, _ := f.At(i); syntax.EqualFold(name, item) {
				f.DelAt(i)
			}
		}
	}
}
