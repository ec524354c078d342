package http2

import (
	"bytes"
	"errors"
	"slices"
	"testing"

	twin "golang.org/x/net/http2"
)

// looser and stricter name where the twin and we may differ on a frame, by what we say of it.
var (
	// looser are types whose values the twin looks at when it reads a frame, and we where we act on it.
	looser = []frameType{typeWindowUpdate, typeSettings, typePriorityUpdate}
	// stricter is what we refuse for what the twin's server looks at later.
	stricter = []*fault{faultPush}
)

// FuzzFrameAgainstTwin holds that the first frame of any bytes is the same to golang.org/x/net, and
// that what one refuses the other does, but for what is named above.
func FuzzFrameAgainstTwin(f *testing.F) {
	f.Add(appendData(nil, 1, []byte("x"), true))
	f.Add(append(appendHead(nil, 3, typeData, flagPadded, 1), 1, 'x', 0))
	f.Add(append(appendHead(nil, 8, typeHeaders, flagPadded|flagPriority, 1), 1, 0, 0, 0, 1, 5, 0x82, 0))
	f.Add(appendSettings(nil, setting{settingMaxFrame, minMaxFrame}))
	f.Add(appendReset(nil, 1, Cancel))
	f.Add(appendPing(nil, [8]byte{1}, true))
	f.Add(appendGoAway(nil, 7, Cancel, "why"))
	f.Add(appendWindowUpdate(nil, 1, 5))
	f.Add(append(appendHead(nil, 5, typePriority, 0, 1), 0x80, 0, 0, 3, 9))
	f.Add(append(appendHead(nil, 2, typeContinuation, flagEndHeaders, 1), 0x82, 0x84))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, payload, n, _, flt := nextFrame(b, minMaxFrame)
		r := twin.NewFramer(nil, bytes.NewReader(b))
		r.SetMaxReadFrameSize(minMaxFrame)
		r.AllowIllegalReads = true // the order of frames is for the connection
		got, err := r.ReadFrame()
		if flt == nil && n > 0 {
			payload, flt = h.opened(payload)
		}
		var ce twin.ConnectionError
		var se twin.StreamError
		refused := errors.Is(err, twin.ErrFrameTooLarge) || errors.As(err, &ce) || errors.As(err, &se)
		switch {
		case n == 0 && flt == nil: // not whole
			if err == nil {
				t.Fatalf("%+v: we wait for more of %v", h, got)
			}
		case flt != nil && !refused:
			if err == nil && !slices.Contains(stricter, flt) {
				t.Fatalf("%+v: we say %v, the twin has %v", h, flt, got)
			}
		case flt == nil && refused:
			if !slices.Contains(looser, h.typ) {
				t.Fatalf("%+v: we take it, the twin says %v", h, err)
			}
		case flt == nil && err == nil:
			same(t, h, payload, got)
		}
	})
}

// opened takes padding and priority off a payload.
func (h frameHead) opened(payload []byte) ([]byte, *fault) {
	if h.typ != typeData && h.typ != typeHeaders {
		return payload, nil
	}
	p, flt := h.unpad(payload)
	if flt == nil && h.typ == typeHeaders {
		p, _, flt = h.cutPriority(p)
	}
	return p, flt
}

// same holds what we read against what the twin has.
func same(t *testing.T, h frameHead, payload []byte, got twin.Frame) {
	t.Helper()
	head := got.Header()
	if uint8(head.Type) != uint8(h.typ) || uint8(head.Flags) != h.flags || head.StreamID != h.stream || int(head.Length) != h.length {
		t.Fatalf("%+v, the twin has %+v", h, head)
	}
	ok := true
	switch g := got.(type) {
	case *twin.DataFrame:
		ok = bytes.Equal(g.Data(), payload) && g.StreamEnded() == h.has(flagEndStream)
	case *twin.HeadersFrame:
		ok = bytes.Equal(g.HeaderBlockFragment(), payload) && g.HeadersEnded() == h.has(flagEndHeaders)
	case *twin.ContinuationFrame:
		ok = bytes.Equal(g.HeaderBlockFragment(), payload)
	case *twin.PriorityFrame:
		ok = g.StreamDep == number(payload)
	case *twin.RSTStreamFrame:
		ok = uint32(g.ErrCode) == uint32(code(payload))
	case *twin.PingFrame:
		ok = string(g.Data[:]) == string(payload)
	case *twin.GoAwayFrame:
		last, c, debug := parseGoAway(payload)
		ok = g.LastStreamID == last && uint32(g.ErrCode) == uint32(c) && bytes.Equal(g.DebugData(), debug)
	case *twin.WindowUpdateFrame:
		ok = g.Increment == number(payload)
	case *twin.SettingsFrame:
		ok = g.NumSettings() == len(payload)/6
	}
	if !ok {
		t.Fatalf("%+v %q, the twin has %v", h, payload, got)
	}
}
