package http2

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	xhttp2 "golang.org/x/net/http2"

	"github.com/relais-edge/relais/internal/http/message"
)

// What a frame costs.
const (
	costNothing = iota
	costStream
	costConn
)

// ourVerdict is what we make of a frame by itself, whatever came before it.
func ourVerdict(h frameHead, payload []byte, flt *fault) (cost int, code ErrCode) {
	if flt == nil {
		switch h.typ {
		case typeData:
			_, flt = h.unpad(payload)
		case typeHeaders:
			if payload, flt = h.unpad(payload); flt == nil {
				_, _, flt = h.cutPriority(payload)
			}
		case typeSettings:
			s := defaultSettings()
			flt = s.apply(payload)
		case typeWindowUpdate:
			if number(payload) == 0 {
				if h.stream != 0 {
					return costStream, ProtocolError
				}
				flt = faultWindowZero
			}
		case typePriorityUpdate:
			if number(payload)%2 == 0 {
				flt = faultPriorityID
			}
		}
	}
	switch {
	case flt == nil:
		return costNothing, NoError
	case flt.stream:
		return costStream, flt.code
	}
	return costConn, flt.code
}

// theirVerdict is what the framer of x/net makes of the next frame.
func theirVerdict(fr *xhttp2.Framer) (cost int, code ErrCode) {
	f, err := fr.ReadFrame()
	if s, ok := f.(*xhttp2.SettingsFrame); ok && err == nil {
		err = s.ForeachSetting(xhttp2.Setting.Valid) // their server asks for it
	}
	var conn xhttp2.ConnectionError
	var stream xhttp2.StreamError
	switch {
	case err == nil:
		return costNothing, NoError
	case errors.As(err, &conn):
		return costConn, ErrCode(conn)
	case errors.As(err, &stream):
		return costStream, ErrCode(stream.Code)
	}
	return costConn, FrameSizeError // too large, or too short for what its flags promise
}

// frameDiffers names why we and x/net may judge a frame differently; empty where we may not.
func frameDiffers(h frameHead, payload []byte) string {
	switch h.typ {
	case typePushPromise:
		return "no client may send it (RFC 9113 section 8.4); their server says so, not their framer"
	case typePriority:
		if h.length != 5 {
			return "RFC 9113 section 6.3 calls for a stream error, they end the connection"
		}
	case typeHeaders:
		if h.has(flagPadded) {
			return "too much padding: section 6.2 calls for a connection error, they reset the stream; both sizes wrong: either code"
		}
	case typePriorityUpdate:
		return "a client's streams are odd (RFC 9218 section 7.1): they look for 0 only"
	case typeSettings:
		for p := payload; len(p) >= 6; p = p[6:] {
			switch uint16(p[0])<<8 | uint16(p[1]) {
			case settingNoPriorities:
				return "RFC 9218 section 2.1: they do not look at it"
			case settingConnectProtocol:
				return "RFC 8441 section 3 forbids to take it back: they do not look at two of them"
			}
		}
	}
	return ""
}

// FuzzFrameTwin judges frames as the framer of x/net does.
func FuzzFrameTwin(f *testing.F) {
	f.Add(appendData(appendSettings(nil, setting{settingInitialWindow, 1 << 31}), 1, []byte("x"), true))
	f.Add(appendWindowUpdate(appendWindowUpdate(nil, 1, 0), 0, 0))
	f.Add(append(appendHead(nil, 4, typeData, flagPadded, 1), 4, 0, 0, 0))
	f.Add(appendHead(nil, 0, typeHeaders, flagPadded|flagPriority, 1))
	f.Add(append(appendHead(nil, 4, typeHeaders, flagPriority, 1), 0, 0, 0, 1))
	f.Add(appendSettings(nil, setting{settingMaxFrame, 1}, setting{settingEnablePush, 2}))
	f.Add(append(appendHead(appendSettingsAck(nil), 6, typeSettings, flagAck, 0), make([]byte, 6)...))
	f.Add(appendHead(appendHead(nil, 0, typePing, 0, 1), 0, typeReset, 0, 0))
	f.Add(appendHead(nil, minMaxFrame+1, typeData, 0, 1))
	f.Fuzz(func(t *testing.T, b []byte) {
		fr := xhttp2.NewFramer(io.Discard, bytes.NewReader(b))
		fr.AllowIllegalReads = true // the order of frames is not what is judged here
		fr.SetMaxReadFrameSize(minMaxFrame)
		for len(b) >= headLen {
			h, payload, n, _, flt := nextFrame(b, minMaxFrame)
			whole := readHead(b)
			if len(b) < headLen+whole.length && flt != faultFrameLarge {
				return
			}
			cost, code := ourVerdict(h, payload, flt)
			theirCost, theirCode := theirVerdict(fr)
			if why := frameDiffers(h, b[headLen:headLen+min(h.length, len(b)-headLen)]); why != "" {
				if theirCost == costConn || cost == costConn {
					return
				}
			} else if cost != theirCost || cost == costConn && code != theirCode && !eitherCode(code, theirCode) {
				t.Fatalf("%+v %q: %d %v, x/net %d %v", h, payload, cost, code, theirCost, theirCode)
			}
			if cost == costConn {
				return
			}
			b = b[max(n, headLen+h.length):]
		}
	})
}

// eitherCode says whether two codes may both be right: of a frame that has the wrong size on the
// wrong stream, or of a SETTINGS frame with two wrong values, each may be told.
func eitherCode(a, b ErrCode) bool {
	is := func(c ErrCode) bool { return c == ProtocolError || c == FrameSizeError || c == FlowControlError }
	return is(a) && is(b)
}

// wholeFrames cuts b behind its last whole frame, and before a header block that does not end.
func wholeFrames(b []byte) []byte {
	n, open := 0, -1
	for len(b)-n >= headLen {
		h := readHead(b[n:])
		if n+headLen+h.length > len(b) {
			break
		}
		switch {
		case h.typ == typeHeaders && !h.has(flagEndHeaders) && open < 0:
			open = n
		case h.typ != typeContinuation || h.has(flagEndHeaders):
			open = -1
		}
		n += headLen + h.length
	}
	if open >= 0 {
		n = open
	}
	return b[:n]
}

// framed are the faults that the framer of x/net finds too. What of a block can be decoded is
// judged by the twins of package hpack.
func framed(detail string) bool {
	for _, f := range []*fault{
		faultStreamZero, faultStreamGiven, faultFrameSize, faultFrameLarge, faultPadding, faultWindowSize,
		faultSplit, faultNotOpen, faultWindowZero,
	} {
		if f.detail == detail {
			return true
		}
	}
	return false
}

// readTwin has x/net read frames: why it ends the connection, nil when it does not.
func readTwin(b []byte) error {
	fr := xhttp2.NewFramer(io.Discard, bytes.NewReader(b))
	fr.SetMaxReadFrameSize(minMaxFrame)
	for {
		_, err := fr.ReadFrame()
		var stream xhttp2.StreamError
		switch {
		case err == io.EOF:
			return nil
		case !errors.As(err, &stream) && err != nil:
			return err
		}
	}
}

// twinsDiffer says whether there is a frame that x/net judges in another way than we: it resets
// the stream for HEADERS with too much padding, and ends the connection for PRIORITY of a wrong
// size or for a PRIORITY_UPDATE (frameDiffers).
func twinsDiffer(b []byte) (weLess, weMore bool) {
	for ; len(b) > 0; b = b[headLen+readHead(b).length:] {
		switch h := readHead(b); h.typ {
		case typePriority:
			weLess = weLess || h.length != 5
		case typePriorityUpdate:
			weLess = true
		case typeHeaders:
			weMore = weMore || h.has(flagPadded)
		}
	}
	return weLess, weMore
}

// tape is a connection that says what it is given and keeps what it hears.
type tape struct {
	net.Conn
	in, out []byte
	step    int // bytes a read; 0 as many as are asked for
	writes  int
}

func (c *tape) Read(b []byte) (int, error) {
	if len(c.in) == 0 {
		return 0, io.EOF
	}
	if c.step > 0 {
		b = b[:min(len(b), c.step)]
	}
	n := copy(b, c.in)
	c.in = c.in[n:]
	return n, nil
}

func (c *tape) Write(b []byte) (int, error) {
	c.out = append(c.out, b...)
	c.writes++
	return len(b), nil
}

func (c *tape) Close() error                    { return nil }
func (c *tape) SetReadDeadline(time.Time) error { return nil }

// talk gives the server frames, so many bytes at a time, and returns what it said.
func talk(t *testing.T, frames []byte, step int) []byte {
	s := NewServer(ServerConfig{}, handlerFunc(func(context.Context, *message.Request) *message.Response { return text("hit") }))
	nc := &tape{step: step, in: append(appendSettingsAck(appendSettings([]byte(preface))), frames...)}
	s.ServeConn(t.Context(), nc, &message.Conn{})
	return nc.out
}

// goAwayOf finds the fault that a server named.
func goAwayOf(t *testing.T, said []byte) (code ErrCode, detail string) {
	for len(said) > 0 {
		h, payload, n, _, flt := nextFrame(said, minMaxFrame)
		if flt != nil {
			t.Fatalf("the server said %+v: %v", h, flt)
		}
		if n == 0 {
			break
		}
		if h.typ == typeGoAway {
			_, c, debug := parseGoAway(payload)
			return c, string(debug)
		}
		said = said[n:]
	}
	return NoError, ""
}

// FuzzServerTwin holds the whole server against the framer of x/net: what that one refuses of a
// connection we refuse, and a fault of framing that we name it finds too. The server knows more
// of streams and of requests than a framer does, and so may refuse more, by other names.
func FuzzServerTwin(f *testing.F) {
	head := func(b []byte, id uint32, flags uint8, block []byte) []byte {
		return append(appendHead(b, len(block), typeHeaders, flags, id), block...)
	}
	f.Add(head(nil, 1, flagEndHeaders|flagEndStream, get("/")))
	f.Add(appendPing(head(nil, 1, flagEndStream, get("/")), [8]byte{}, false))
	f.Add(append(appendHead(head(nil, 1, flagEndStream, get("/")[:9]), 3, typeContinuation, flagEndHeaders, 3), 1, 2, 3))
	f.Add(append(appendHead(head(nil, 1, flagEndStream, get("/")[:9]), len(get("/"))-9, typeContinuation, flagEndHeaders, 1), get("/")[9:]...))
	f.Add(appendHead(nil, 0, typeContinuation, flagEndHeaders, 1))
	f.Add(head(nil, 1, flagEndHeaders, []byte{0xff}))
	f.Add(head(head(nil, 1, flagEndHeaders, []byte{0x40, 1, 'a', 1, 'b', 0xbe}), 3, flagEndHeaders, []byte{0x20, 0xbe}))
	f.Add(appendWindowUpdate(appendWindowUpdate(head(nil, 1, flagEndHeaders, get("/")), 1, 0), 0, 0))
	f.Add(appendSettings(nil, setting{settingInitialWindow, 1 << 31}))
	f.Add(appendData(head(nil, 1, flagEndHeaders, get("/")), 1, []byte("data"), true))
	f.Fuzz(func(t *testing.T, b []byte) {
		b = wholeFrames(b)
		code, detail := goAwayOf(t, talk(t, b, 0))
		step := len(b)%23 + 1
		// What a frame on an ended stream costs depends on whether the answer has left (RFC 9113 section 5.1).
		if c, d := goAwayOf(t, talk(t, b, step)); (c != code || d != detail) && c != StreamClosed && code != StreamClosed {
			t.Fatalf("at once %v %s, %d bytes at a time %v %s", code, detail, step, c, d)
		}
		theirs := readTwin(b)
		weLess, weMore := twinsDiffer(b)
		if theirs != nil && code == NoError && !weLess {
			t.Fatalf("x/net says %v, we nothing", theirs)
		}
		if theirs == nil && framed(detail) && !weMore {
			t.Fatalf("we say %v %s, x/net nothing", code, detail)
		}
	})
}
