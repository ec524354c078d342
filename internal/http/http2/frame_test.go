package http2

import (
	"bytes"
	"testing"
)

func TestFramesReadAsWritten(t *testing.T) {
	block := bytes.Repeat([]byte("h"), 40_000)
	b := appendData(nil, 1, []byte("data"), true)
	at := len(b)
	b = endHeaders(append(beginHeaders(b), block...), at, 3, true, minMaxFrame)
	b = appendReset(b, 5, Cancel)
	b = appendSettings(b, setting{settingMaxFrame, 1 << 15})
	b = appendSettingsAck(b)
	b = appendPing(b, [8]byte{1, 2, 3, 4, 5, 6, 7, 8}, true)
	b = appendGoAway(b, 7, EnhanceYourCalm, "slow down")
	b = appendWindowUpdate(b, 9, 77)
	want := []struct {
		h    frameHead
		rest string
	}{
		{frameHead{4, typeData, flagEndStream, 1}, "data"},
		{frameHead{minMaxFrame, typeHeaders, flagEndStream, 3}, string(block[:minMaxFrame])},
		{frameHead{minMaxFrame, typeContinuation, 0, 3}, string(block[:minMaxFrame])},
		{frameHead{40_000 - 2*minMaxFrame, typeContinuation, flagEndHeaders, 3}, string(block[:40_000-2*minMaxFrame])},
		{frameHead{4, typeReset, 0, 5}, "\x00\x00\x00\x08"},
		{frameHead{6, typeSettings, 0, 0}, "\x00\x05\x00\x00\x80\x00"},
		{frameHead{0, typeSettings, flagAck, 0}, ""},
		{frameHead{8, typePing, flagAck, 0}, "\x01\x02\x03\x04\x05\x06\x07\x08"},
		{frameHead{17, typeGoAway, 0, 0}, "\x00\x00\x00\x07\x00\x00\x00\x0bslow down"},
		{frameHead{4, typeWindowUpdate, 0, 9}, "\x00\x00\x00\x4d"},
	}
	for _, w := range want {
		h, payload, n, _, flt := nextFrame(b, minMaxFrame)
		if flt != nil || n == 0 {
			t.Fatalf("%+v: %v, %d bytes used", w.h, flt, n)
		}
		if h != w.h || string(payload) != w.rest {
			t.Fatalf("got %+v %.20q, want %+v %.20q", h, payload, w.h, w.rest)
		}
		b = b[n:]
	}
	if len(b) != 0 {
		t.Errorf("%d bytes are left", len(b))
	}
}

func TestFrameRulesRFC9113Section6(t *testing.T) {
	frame := func(n int, typ frameType, flags uint8, stream uint32) []byte {
		return append(appendHead(nil, n, typ, flags, stream), make([]byte, n)...)
	}
	for name, c := range map[string]struct {
		b    []byte
		want *fault
	}{
		"DATA on stream 0":          {frame(1, typeData, 0, 0), faultStreamZero},
		"HEADERS on stream 0":       {frame(1, typeHeaders, 0, 0), faultStreamZero},
		"CONTINUATION on stream 0":  {frame(1, typeContinuation, 0, 0), faultStreamZero},
		"PRIORITY on stream 0":      {frame(5, typePriority, 0, 0), faultStreamZero},
		"PRIORITY of 4 bytes":       {frame(4, typePriority, 0, 1), faultPrioritySize},
		"RST_STREAM on stream 0":    {frame(4, typeReset, 0, 0), faultStreamZero},
		"RST_STREAM of 3 bytes":     {frame(3, typeReset, 0, 1), faultFrameSize},
		"SETTINGS on a stream":      {frame(0, typeSettings, 0, 1), faultStreamGiven},
		"SETTINGS of 5 bytes":       {frame(5, typeSettings, 0, 0), faultFrameSize},
		"SETTINGS ACK of 6 bytes":   {frame(6, typeSettings, flagAck, 0), faultFrameSize},
		"PUSH_PROMISE":              {frame(4, typePushPromise, 0, 1), faultPush},
		"PING on a stream":          {frame(8, typePing, 0, 1), faultStreamGiven},
		"PING of 7 bytes":           {frame(7, typePing, 0, 0), faultFrameSize},
		"GOAWAY on a stream":        {frame(8, typeGoAway, 0, 1), faultStreamGiven},
		"GOAWAY of 7 bytes":         {frame(7, typeGoAway, 0, 0), faultFrameSize},
		"WINDOW_UPDATE of 5 bytes":  {frame(5, typeWindowUpdate, 0, 0), faultFrameSize},
		"PRIORITY_UPDATE on stream": {frame(4, typePriorityUpdate, 0, 1), faultStreamGiven},
		"over the limit":            {appendHead(nil, minMaxFrame+1, typeData, 0, 1), faultFrameLarge},
		"an unknown type":           {frame(3, 0xbe, 0xff, 77), nil},
	} {
		if _, _, _, _, flt := nextFrame(c.b, minMaxFrame); flt != c.want {
			t.Errorf("%s: got %v, want %v", name, flt, c.want)
		}
	}
}

func TestPaddingRFC9113Section61(t *testing.T) {
	h := frameHead{typ: typeData, flags: flagPadded}
	for _, c := range []struct {
		in   string
		want string
		flt  *fault
	}{
		{"\x00abc", "abc", nil},
		{"\x02abc", "a", nil},
		{"\x03abc", "", nil},
		{"\x04abc", "", faultPadding},
		{"", "", faultFrameSize},
	} {
		got, flt := h.unpad([]byte(c.in))
		if string(got) != c.want || flt != c.flt {
			t.Errorf("%q: got %q, %v", c.in, got, flt)
		}
	}
}

func TestSettingsRulesRFC9113Section652(t *testing.T) {
	for _, c := range []struct {
		s    setting
		want *fault
	}{
		{setting{settingEnablePush, 1}, nil},
		{setting{settingEnablePush, 2}, faultEnablePush},
		{setting{settingInitialWindow, maxWindow}, nil},
		{setting{settingInitialWindow, maxWindow + 1}, faultWindowSize},
		{setting{settingMaxFrame, minMaxFrame - 1}, faultMaxFrame},
		{setting{settingMaxFrame, maxMaxFrame}, nil},
		{setting{settingMaxFrame, maxMaxFrame + 1}, faultMaxFrame},
		{setting{settingConnectProtocol, 2}, faultConnectProto},
		{setting{settingNoPriorities, 2}, faultNoPriorities},
		{setting{0xfe, 1 << 31}, nil},
	} {
		s := defaultSettings()
		if flt := s.apply(appendSettings(nil, c.s)[headLen:]); flt != c.want {
			t.Errorf("%+v: got %v, want %v", c.s, flt, c.want)
		}
	}
	s := defaultSettings()
	two := appendSettings(nil, setting{settingInitialWindow, 100}, setting{settingInitialWindow, 1})
	if s.apply(two[headLen:]); s.initialWindow != 1 {
		t.Errorf("the last of two values is %d", s.initialWindow)
	}
}

func TestRecvWindowGivesBackInQuarters(t *testing.T) {
	var w recvWindow
	w.init(100)
	if !w.take(100) || w.take(1) {
		t.Fatal("the window is not 100")
	}
	w.init(100)
	w.take(30)
	if n := w.give(24); n != 0 {
		t.Errorf("gave %d back before a quarter", n)
	}
	if n := w.give(1); n != 25 || w.avail != 95 {
		t.Errorf("gave %d back, %d are available", n, w.avail)
	}
}

// FuzzFrame cuts frames off any bytes: what is cut is whole, and what is refused stays so.
func FuzzFrame(f *testing.F) {
	f.Add(appendData(nil, 1, []byte("x"), true))
	f.Add(appendSettings(nil, setting{settingMaxFrame, minMaxFrame}))
	f.Add([]byte(preface))
	f.Add(append(appendHead(nil, 8, typeHeaders, flagPadded|flagPriority, 1), 1, 0, 0, 0, 1, 5, 0x82, 0))
	f.Fuzz(func(t *testing.T, b []byte) {
		for len(b) > 0 {
			h, payload, n, need, flt := nextFrame(b, minMaxFrame)
			if flt != nil && !flt.stream {
				return
			}
			if n == 0 {
				if need <= len(b) {
					t.Fatalf("it needs %d bytes of %d", need, len(b))
				}
				return
			}
			if len(payload) != h.length || n != headLen+h.length {
				t.Fatalf("%+v with %d bytes of payload, %d used", h, len(payload), n)
			}
			if p, flt := h.unpad(payload); flt == nil {
				_, _, _ = h.cutPriority(p)
			}
			if h.typ == typeSettings {
				s := defaultSettings()
				_ = s.apply(payload)
			}
			b = b[n:]
		}
	})
}
