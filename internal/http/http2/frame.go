package http2

import "encoding/binary"

// frameType is a type of frame (RFC 9113 section 6).
type frameType uint8

const (
	typeData           frameType = 0x0
	typeHeaders        frameType = 0x1
	typePriority       frameType = 0x2
	typeReset          frameType = 0x3
	typeSettings       frameType = 0x4
	typePushPromise    frameType = 0x5
	typePing           frameType = 0x6
	typeGoAway         frameType = 0x7
	typeWindowUpdate   frameType = 0x8
	typeContinuation   frameType = 0x9
	typePriorityUpdate frameType = 0x10 // RFC 9218 section 7.1
)

// The flags.
const (
	flagEndStream  = 0x1 // DATA, HEADERS
	flagAck        = 0x1 // SETTINGS, PING
	flagEndHeaders = 0x4
	flagPadded     = 0x8
	flagPriority   = 0x20
)

const (
	// headLen is the length of a frame's head.
	headLen = 9
	// minMaxFrame and maxMaxFrame bound SETTINGS_MAX_FRAME_SIZE.
	minMaxFrame = 1 << 14
	maxMaxFrame = 1<<24 - 1
	// maxWindow is the largest flow-control window.
	maxWindow = 1<<31 - 1
	// initialWindow is what every window begins with.
	initialWindow = 1<<16 - 1
	// preface is what a client sends first (RFC 9113 section 3.4).
	preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
)

// frameHead is the head of a frame.
type frameHead struct {
	length int
	typ    frameType
	flags  uint8
	stream uint32
}

func (h frameHead) has(flag uint8) bool { return h.flags&flag != 0 }

// readHead reads the head at the start of b, which has at least headLen bytes.
func readHead(b []byte) frameHead {
	_ = b[headLen-1]
	return frameHead{
		length: int(b[0])<<16 | int(b[1])<<8 | int(b[2]),
		typ:    frameType(b[3]),
		flags:  b[4],
		stream: binary.BigEndian.Uint32(b[5:]) & maxWindow,
	}
}

// nextFrame cuts a frame off b: its head, its payload, which is a part of b, and the bytes
// used. With n of 0 and no fault b does not hold the whole frame yet; need is then how many
// bytes it takes. A frame is checked as soon as its head is there.
func nextFrame(b []byte, maxFrame int) (h frameHead, payload []byte, n, need int, flt *fault) {
	if len(b) < headLen {
		return frameHead{}, nil, 0, headLen, nil
	}
	h = readHead(b)
	if h.length > maxFrame {
		return h, nil, 0, 0, faultFrameLarge
	}
	if flt := h.check(); flt != nil && !flt.stream {
		return h, nil, 0, 0, flt
	}
	n = headLen + h.length
	if len(b) < n {
		return h, nil, 0, n, nil
	}
	return h, b[headLen:n:n], n, n, h.check()
}

// check holds a head against what its type asks of the stream and of the length.
func (h frameHead) check() *fault {
	switch h.typ {
	case typeData, typeHeaders, typeContinuation:
		if h.stream == 0 {
			return faultStreamZero
		}
	case typePriority:
		if h.stream == 0 {
			return faultStreamZero
		}
		if h.length != 5 {
			return faultPrioritySize
		}
	case typeReset:
		if h.stream == 0 {
			return faultStreamZero
		}
		return h.sized(h.length == 4)
	case typeSettings:
		if h.stream != 0 {
			return faultStreamGiven
		}
		return h.sized(h.length%6 == 0 && (h.length == 0 || !h.has(flagAck)))
	case typePushPromise:
		return faultPush
	case typePing:
		if h.stream != 0 {
			return faultStreamGiven
		}
		return h.sized(h.length == 8)
	case typeGoAway:
		if h.stream != 0 {
			return faultStreamGiven
		}
		return h.sized(h.length >= 8)
	case typeWindowUpdate:
		return h.sized(h.length == 4)
	case typePriorityUpdate:
		if h.stream != 0 {
			return faultStreamGiven
		}
		return h.sized(h.length >= 4)
	}
	return nil
}

func (h frameHead) sized(ok bool) *fault {
	if !ok {
		return faultFrameSize
	}
	return nil
}

// unpad takes the padding off the payload of a DATA or HEADERS frame.
func (h frameHead) unpad(payload []byte) ([]byte, *fault) {
	if !h.has(flagPadded) {
		return payload, nil
	}
	if len(payload) == 0 {
		return nil, faultFrameSize
	}
	pad := int(payload[0])
	payload = payload[1:]
	if pad > len(payload) {
		return nil, faultPadding
	}
	return payload[:len(payload)-pad], nil
}

// cutPriority takes the fields of priority off the payload of a HEADERS frame, after
// unpad. Only the dependency is of use: a stream must not depend on itself.
func (h frameHead) cutPriority(payload []byte) (rest []byte, dependency uint32, flt *fault) {
	if !h.has(flagPriority) {
		return payload, 0, nil
	}
	if len(payload) < 5 {
		return nil, 0, faultFrameSize
	}
	return payload[5:], number(payload), nil
}

// number reads 31 bits at the start of b: a stream, an increment, or with the top bit of
// no meaning.
func number(b []byte) uint32 { return binary.BigEndian.Uint32(b) & maxWindow }

// code reads the error code of a RST_STREAM.
func code(b []byte) ErrCode { return ErrCode(binary.BigEndian.Uint32(b)) }

// parseGoAway reads the payload of a GOAWAY.
func parseGoAway(b []byte) (last uint32, c ErrCode, debug []byte) {
	return number(b), code(b[4:]), b[8:]
}

// appendHead appends the head of a frame.
func appendHead(b []byte, length int, t frameType, flags uint8, stream uint32) []byte {
	return append(b, byte(length>>16), byte(length>>8), byte(length), byte(t), flags,
		byte(stream>>24), byte(stream>>16), byte(stream>>8), byte(stream))
}

// appendData appends a DATA frame; data is at most what the other side's
// SETTINGS_MAX_FRAME_SIZE and the windows allow.
func appendData(b []byte, stream uint32, data []byte, end bool) []byte {
	var flags uint8
	if end {
		flags = flagEndStream
	}
	return append(appendHead(b, len(data), typeData, flags, stream), data...)
}

// beginHeaders leaves room for the head of a HEADERS frame. The block is appended after it
// and endHeaders, with the length that b had, ends it.
func beginHeaders(b []byte) []byte { return append(b, 0, 0, 0, 0, 0, 0, 0, 0, 0) }

// endHeaders makes a HEADERS frame, and CONTINUATION frames where it takes more, of the
// block that follows the room at b[at:].
func endHeaders(b []byte, at int, stream uint32, end bool, maxFrame int) []byte {
	var flags uint8
	if end {
		flags = flagEndStream
	}
	n := len(b) - at - headLen
	if n <= maxFrame {
		appendHead(b[:at], n, typeHeaders, flags|flagEndHeaders, stream)
		return b
	}
	appendHead(b[:at], maxFrame, typeHeaders, flags, stream)
	rest := append([]byte(nil), b[at+headLen+maxFrame:]...) // rare: a block over 16 KiB
	b = b[:at+headLen+maxFrame]
	for len(rest) > 0 {
		n, flags := min(len(rest), maxFrame), uint8(0)
		if n == len(rest) {
			flags = flagEndHeaders
		}
		b = append(appendHead(b, n, typeContinuation, flags, stream), rest[:n]...)
		rest = rest[n:]
	}
	return b
}

// appendReset appends a RST_STREAM.
func appendReset(b []byte, stream uint32, c ErrCode) []byte {
	return binary.BigEndian.AppendUint32(appendHead(b, 4, typeReset, 0, stream), uint32(c))
}

// appendGoAway appends a GOAWAY; debug is for people.
func appendGoAway(b []byte, last uint32, c ErrCode, debug string) []byte {
	b = appendHead(b, 8+len(debug), typeGoAway, 0, 0)
	b = binary.BigEndian.AppendUint32(b, last)
	b = binary.BigEndian.AppendUint32(b, uint32(c))
	return append(b, debug...)
}

// appendPing appends a PING, or the answer to one.
func appendPing(b []byte, data [8]byte, ack bool) []byte {
	var flags uint8
	if ack {
		flags = flagAck
	}
	return append(appendHead(b, 8, typePing, flags, 0), data[:]...)
}

// appendWindowUpdate appends a WINDOW_UPDATE of a stream, or of the connection for 0.
func appendWindowUpdate(b []byte, stream uint32, n int) []byte {
	return binary.BigEndian.AppendUint32(appendHead(b, 4, typeWindowUpdate, 0, stream), uint32(n))
}
