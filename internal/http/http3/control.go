package http3

import (
	"errors"
	"io"

	"github.com/quic-go/quic-go"
)

// The types of unidirectional streams (RFC 9114 section 6.2, RFC 9204 section 4.2).
const (
	streamControl = 0x00
	streamPush    = 0x01
	streamEncoder = 0x02
	streamDecoder = 0x03
)

// The settings (RFC 9114 section 7.2.4.1, RFC 9204 section 5, RFC 9220 section 5, RFC 9297
// section 2.1.1).
const (
	settingTableCapacity  = 0x01
	settingMaxSection     = 0x06
	settingBlockedStreams = 0x07
	settingConnect        = 0x08
	settingDatagram       = 0x33
)

// open opens our control stream and sends SETTINGS. The capacity of the dynamic table and the
// number of streams that may wait for it are 0, which is what absent says; without a table we
// need no encoder and decoder stream (RFC 9204 section 4.2).
func (c *serverConn) open() error {
	str, err := c.qc.OpenUniStream()
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.control = str
	var b [64]byte
	f := append(b[:0], streamControl, frameSettings, 0)
	f = appendVarint(append(f, settingMaxSection), uint64(c.s.cfg.Limits.HeadBytes+32*c.s.cfg.Limits.Fields))
	f = append(f, settingConnect, 1)
	f[2] = byte(len(f) - 3)
	if c.leaving != staying {
		f = append(f, frameGoAway, 8)
		f = appendVarint(f, lastRequestID)
	}
	_, err = str.Write(f)
	return err
}

// acceptUni accepts the client's unidirectional streams.
func (c *serverConn) acceptUni() {
	for stray := 0; ; {
		str, err := c.qc.AcceptUniStream(c.qc.Context())
		if err != nil {
			return
		}
		if stray++; stray > maxStrayUni {
			c.kill(errFloodStreams)
			return
		}
		c.work.Go(func() { c.uni(str) })
	}
}

// uni serves a unidirectional stream.
func (c *serverConn) uni(str *quic.ReceiveStream) {
	defer str.ReleaseStreamCredit()
	defer func() {
		if recover() != nil {
			c.s.panics.Add(1)
			c.kill(errInternal)
		}
	}()
	in := &reader{str: str}
	kind, err := in.number()
	if err != nil {
		return // it was given up before it said what it was
	}
	if kind > streamDecoder {
		str.CancelRead(codeStreamCreation) // RFC 9114 section 6.2.3
		return
	}
	if kind == streamPush {
		c.kill(errPushStream)
		return
	}
	c.mu.Lock()
	again := c.began[kind]
	c.began[kind] = true
	c.mu.Unlock()
	if again {
		c.kill(errTwoControl)
		return
	}
	switch kind {
	case streamControl:
		err = c.readControl(in)
	case streamEncoder:
		err = c.readEncoder(in)
	default:
		err = c.readDecoder(in)
	}
	var ce *connError
	if !errors.As(err, &ce) {
		ce = errCritical
	}
	if c.qc.Context().Err() == nil {
		c.kill(ce)
	}
}

// reader reads a unidirectional stream.
type reader struct {
	str  io.Reader
	b    [512]byte
	r, w int
}

func (in *reader) fill() error {
	if in.r == in.w {
		in.r, in.w = 0, 0
	} else if in.w == len(in.b) {
		in.w = copy(in.b[:], in.b[in.r:in.w])
		in.r = 0
	}
	n, err := in.str.Read(in.b[in.w:])
	in.w += n
	if n > 0 {
		return nil
	}
	return err
}

// number reads a varint.
func (in *reader) number() (uint64, error) {
	for {
		if v, n := varint(in.b[in.r:in.w]); n > 0 {
			in.r += n
			return v, nil
		}
		if err := in.fill(); err != nil {
			return 0, err
		}
	}
}

// payload reads n bytes, at most half of b, and lends them.
func (in *reader) payload(n int) ([]byte, error) {
	for in.w-in.r < n {
		if err := in.fill(); err != nil {
			return nil, err
		}
	}
	b := in.b[in.r : in.r+n]
	in.r += n
	return b, nil
}

// skip passes over n bytes.
func (in *reader) skip(n int) error {
	for {
		have := min(n, in.w-in.r)
		in.r += have
		if n -= have; n == 0 {
			return nil
		}
		if err := in.fill(); err != nil {
			return err
		}
	}
}

// maxControlFrame bounds the frames of the control stream that we read.
const maxControlFrame = 256

// controlState is what a client's control stream has said.
type controlState struct {
	maxPush, goAway uint64
	pushed, away    bool
}

// readControl reads the client's control stream (RFC 9114 section 7.2). It returns why it ended.
func (c *serverConn) readControl(in *reader) error {
	var st controlState
	for n := int64(0); ; n++ {
		kind, err := in.number()
		if err != nil {
			return err
		}
		length, err := in.number()
		switch {
		case err != nil:
			return err
		case n == 0 && kind != frameSettings:
			return errNoSettings
		case n > 0 && kind == frameSettings:
			return errTwoSettings
		case kind == frameData, kind == frameHeaders, kind == framePushPromise, ofHTTP2(kind):
			return errFrameType
		case n > maxControl+4*c.served.Load(), length > maxUnknownSize:
			return errFloodControl
		}
		switch kind {
		case frameSettings, frameCancelPush, frameGoAway, frameMaxPushID, framePriorityRequest, framePriorityPush:
		default:
			if err := in.skip(int(length)); err != nil {
				return err
			}
			continue
		}
		if length > maxControlFrame {
			return errFloodControl
		}
		b, err := in.payload(int(length))
		if err != nil {
			return err
		}
		if ce := c.control1(&st, kind, b); ce != nil {
			return ce
		}
	}
}

// control1 takes one frame of the control stream.
func (c *serverConn) control1(st *controlState, kind uint64, b []byte) *connError {
	if kind == frameSettings {
		return checkSettings(b)
	}
	v, n := varint(b)
	if n == 0 || n != len(b) && kind != framePriorityRequest && kind != framePriorityPush {
		return errFrameShape
	}
	switch kind {
	case frameCancelPush, framePriorityPush: // we promise nothing
		return errPushID
	case frameMaxPushID:
		if st.pushed && v < st.maxPush {
			return errMaxPushID
		}
		st.maxPush, st.pushed = v, true
	case frameGoAway:
		if st.away && v > st.goAway {
			return errGoAwayID
		}
		st.goAway, st.away = v, true
	case framePriorityRequest:
		if v%4 != 0 {
			return errPriorityID
		}
		c.reprioritise(quic.StreamID(v), readPriority(b[n:]))
	}
	return nil
}

// checkSettings checks the payload of a SETTINGS frame (RFC 9114 section 7.2.4). None of the
// settings changes what we send: we use no dynamic table, and a head over the client's limit is
// better sent than kept.
func checkSettings(b []byte) *connError {
	var seen [64]uint64
	for n := 0; len(b) > 0; n++ {
		id, i := varint(b)
		value, j := varint(b[i:])
		if i == 0 || j == 0 {
			return errFrameShape
		}
		b = b[i+j:]
		if n == len(seen) {
			return errFloodControl
		}
		for _, s := range seen[:n] {
			if s == id {
				return errSetting
			}
		}
		seen[n] = id
		switch id {
		case 0x00, 0x02, 0x03, 0x04, 0x05: // of HTTP/2, and reserved
			return errSetting
		case settingConnect, settingDatagram:
			if value > 1 {
				return errSetting
			}
		}
	}
	return nil
}

// readEncoder reads the client's encoder stream. Into a table without capacity nothing can be
// inserted; that capacity may be set, to 0, again and again (RFC 9204 section 3.2.3).
func (c *serverConn) readEncoder(in *reader) error {
	for n := int64(0); ; {
		for ; in.r < in.w; in.r++ {
			if in.b[in.r] != 0x20 {
				return errEncoderStream
			}
			if n++; n > maxControl {
				return errFloodControl
			}
		}
		if err := in.fill(); err != nil {
			return err
		}
	}
}

// readDecoder reads the client's decoder stream. We refer to no dynamic table, so all that it can
// say is that a stream was given up (RFC 9204 section 4.4.2).
func (c *serverConn) readDecoder(in *reader) error {
	inside := 0 // bytes of a long integer that were read
	for n := int64(0); ; {
		for ; in.r < in.w; in.r++ {
			b := in.b[in.r]
			switch {
			case inside > 0:
				if inside++; b < 0x80 {
					inside = 0
				} else if inside > 10 {
					return errDecoderStream
				}
			case b&0xc0 != 0x40:
				return errDecoderStream
			case b&0x3f == 0x3f:
				inside = 1
			}
			if n++; n > maxDecoder+16*c.served.Load() {
				return errFloodDecoder
			}
		}
		if err := in.fill(); err != nil {
			return err
		}
	}
}
