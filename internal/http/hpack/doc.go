// Package hpack is the field compression of HTTP/2 (RFC 7541).
//
// A Decoder reads whole header blocks and hands each field to a Sink; an Encoder appends fields
// to a header block with a dynamic table, and Append does without one, so that a block can be
// made ahead and sent on any connection. Prefixed integers and Huffman strings stand open, for
// QPACK (RFC 9204) uses them too. Nothing here allocates once buffers have grown to their size.
package hpack

import (
	"errors"

	"github.com/relais-edge/relais/internal/http/message"
)

// The ids of pseudo-header fields (RFC 9113 section 8.3, RFC 8441 section 4), above all those of
// message. IsPseudo tells them from the others. Never hand one to message.Fields.
const (
	Unknown   message.ID = 249 + iota // any other name that begins with a colon: malformed
	Authority                         // :authority
	Method                            // :method
	Path                              // :path
	Protocol                          // :protocol
	Scheme                            // :scheme
	Status                            // :status
)

// IsPseudo says whether id is that of a pseudo-header field.
func IsPseudo(id message.ID) bool { return id >= Unknown }

// Overhead is what a field counts for besides its name and value (RFC 7541 section 4.1, and
// RFC 9113 section 6.5.2 for SETTINGS_MAX_HEADER_LIST_SIZE).
const Overhead = 32

// DefaultTableSize is the size of a dynamic table until settings say otherwise (RFC 9113
// section 6.5.2).
const DefaultTableSize = 4096

// CompressionError is a block that cannot be decoded. The connection is lost with it, for
// both sides' tables no longer agree (COMPRESSION_ERROR, RFC 9113 section 4.3).
type CompressionError string

// Error implements error.
func (e CompressionError) Error() string { return "hpack: " + string(e) }

// What can be wrong with a block.
const (
	ErrIndex      = CompressionError("a field index that names no field")
	ErrInteger    = CompressionError("an integer too large")
	ErrHuffman    = CompressionError("a malformed Huffman string")
	ErrTruncated  = CompressionError("a block that ends within a field")
	ErrSizeUpdate = CompressionError("a table size update too large, too late or missing")
)

// ErrTooLarge is a block whose fields together exceed the limit. The tables still agree, so
// that only this message is refused.
var ErrTooLarge = errors.New("hpack: the fields exceed the limit")

// pseudo finds the id of a name that begins with a colon.
func pseudo(name []byte) message.ID {
	switch string(name) {
	case ":authority":
		return Authority
	case ":method":
		return Method
	case ":path":
		return Path
	case ":protocol":
		return Protocol
	case ":scheme":
		return Scheme
	case ":status":
		return Status
	}
	return Unknown
}

// identify finds the id of a name. Other than Other and Unknown it promises that the name is
// spelled in lower case, as HTTP/2 and HTTP/3 want it.
func identify(name []byte) message.ID {
	if len(name) > 0 && name[0] == ':' {
		return pseudo(name)
	}
	id := message.KnownID(name)
	if id != message.Other && string(name) != id.Lower() {
		return message.Other
	}
	return id
}
