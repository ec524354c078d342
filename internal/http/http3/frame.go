package http3

// The frame types of RFC 9114 section 7.2 and RFC 9218 section 7.2.
const (
	frameData            = 0x00
	frameHeaders         = 0x01
	frameCancelPush      = 0x03
	frameSettings        = 0x04
	framePushPromise     = 0x05
	frameGoAway          = 0x07
	frameMaxPushID       = 0x0d
	framePriorityRequest = 0xf0700
	framePriorityPush    = 0xf0701
)

// maxVarint is the largest number of RFC 9000 section 16.
const maxVarint = 1<<62 - 1

// varint reads a number of RFC 9000 section 16 from the begin of b and how many bytes it
// takes; 0 when b ends before.
func varint(b []byte) (v uint64, n int) {
	if len(b) == 0 {
		return 0, 0
	}
	n = 1 << (b[0] >> 6)
	if len(b) < n {
		return 0, 0
	}
	v = uint64(b[0] & 0x3f)
	for _, c := range b[1:n] {
		v = v<<8 | uint64(c)
	}
	return v, n
}

// appendVarint appends a number in as few bytes as it needs.
func appendVarint(b []byte, v uint64) []byte {
	switch {
	case v < 1<<6:
		return append(b, byte(v))
	case v < 1<<14:
		return append(b, byte(v>>8)|0x40, byte(v))
	case v < 1<<30:
		return append(b, byte(v>>24)|0x80, byte(v>>16), byte(v>>8), byte(v))
	}
	return append(b, byte(v>>56)|0xc0, byte(v>>48), byte(v>>40), byte(v>>32), byte(v>>24), byte(v>>16), byte(v>>8), byte(v))
}

// frameHead reads a frame's type and length and how many bytes they take; 0 when b ends before.
func frameHead(b []byte) (kind, length uint64, n int) {
	kind, n = varint(b)
	if n == 0 {
		return 0, 0, 0
	}
	length, m := varint(b[n:])
	if m == 0 {
		return 0, 0, 0
	}
	return kind, length, n + m
}

// notOnRequests says whether a type that we know must not come on a request stream: those of
// the control stream, PUSH_PROMISE of a client, and those that HTTP/2 had (section 7.2.8).
func notOnRequests(kind uint64) bool {
	switch kind {
	case frameCancelPush, frameSettings, framePushPromise, frameGoAway, frameMaxPushID, framePriorityRequest, framePriorityPush:
		return true
	}
	return ofHTTP2(kind)
}

func ofHTTP2(kind uint64) bool { return kind == 0x02 || kind == 0x06 || kind == 0x08 || kind == 0x09 }
