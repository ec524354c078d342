package http3

import (
	"context"
	"strings"
	"testing"
	"time"
)

// TestMalformedRequests sends what RFC 9114 calls malformed, or breaks its order of frames.
func TestMalformedRequests(t *testing.T) {
	const (
		malformed  = "stream 0x10e"
		unexpected = "connection 0x105"
		badFrame   = "connection 0x106"
	)
	ok := headers(get()...)
	body := func(length, data string) string {
		return headers(post("content-length", length)...) + frame(frameData, data)
	}
	tests := []struct{ name, bytes, want string }{
		{"a plain request", ok, "200 GET a / length=0"},
		{"RFC 9114 section 4.2: upper case in a name", headers(get("X-A", "1")...), malformed},
		{"RFC 9114 section 4.2: an empty name", headers(get("", "1")...), malformed},
		{"RFC 9114 section 4.2: a space in a name", headers(get("x a", "1")...), malformed},
		{"RFC 9114 section 4.2: a colon in a name", headers(get("x:a", "1")...), malformed},
		{"RFC 9114 section 10.3: LF in a value", headers(get("x-a", "1\n2")...), malformed},
		{"RFC 9114 section 10.3: CR in a value", headers(get("x-a", "1\r2")...), malformed},
		{"RFC 9114 section 10.3: NUL in a value", headers(get("x-a", "1\x002")...), malformed},
		{"RFC 9110 section 5.5: space before a value", headers(get("x-a", " 1")...), malformed},
		{"RFC 9110 section 5.5: tab after a value", headers(get("x-a", "1\t")...), malformed},
		{"RFC 9114 section 4.2: Connection", headers(get("connection", "close")...), malformed},
		{"RFC 9114 section 4.2: Keep-Alive", headers(get("keep-alive", "1")...), malformed},
		{"RFC 9114 section 4.2: Proxy-Connection", headers(get("proxy-connection", "close")...), malformed},
		{"RFC 9114 section 4.1: Transfer-Encoding", headers(get("transfer-encoding", "chunked")...), malformed},
		{"RFC 9114 section 4.2: Upgrade", headers(get("upgrade", "websocket")...), malformed},
		{"RFC 9114 section 4.2: TE other than trailers", headers(get("te", "gzip")...), malformed},
		{"RFC 9114 section 4.2: TE trailers", headers(get("te", "trailers")...), "200 GET a / TE=trailers length=0"},
		{"RFC 9114 section 4.2.1: crumbs of Cookie", headers(get("cookie", "a=1", "x-b", "2", "cookie", "c=3")...), "200 GET a / Cookie=a=1; c=3 x-b=2 length=0"},
		{"RFC 9114 section 4.3: an unknown pseudo-header", headers(get(":x", "1")...), malformed},
		{"RFC 9114 section 4.3: :status in a request", headers(get(":status", "200")...), malformed},
		{"RFC 9114 section 4.3: a repeated pseudo-header", headers(get(":path", "/")...), malformed},
		{"RFC 9114 section 4.3: a repeated :method", headers(get(":method", "GET")...), malformed},
		{"RFC 9114 section 4.3: a repeated :scheme", headers(get(":scheme", "https")...), malformed},
		{"RFC 9114 section 4.3: a repeated :authority", headers(get(":authority", "a")...), malformed},
		{"RFC 9114 section 4.3: a repeated :protocol", headers(":method", "CONNECT", ":protocol", "websocket", ":protocol", "websocket", ":scheme", "https", ":authority", "a", ":path", "/"), malformed},
		{"RFC 9114 section 4.3: a pseudo-header in upper case", headers(":method", "GET", ":scheme", "https", ":authority", "a", ":Path", "/"), malformed},
		{"RFC 9114 section 4.3: no field at all", frame(frameHeaders, "\x00\x00"), malformed},
		{"RFC 9114 section 4.3: a late pseudo-header", headers(":method", "GET", ":scheme", "https", ":authority", "a", "x-a", "1", ":path", "/"), malformed},
		{"RFC 9114 section 4.3.1: no :method", headers(":scheme", "https", ":authority", "a", ":path", "/"), malformed},
		{"RFC 9114 section 4.3.1: no :scheme", headers(":method", "GET", ":authority", "a", ":path", "/"), malformed},
		{"RFC 9114 section 4.3.1: no :path", headers(":method", "GET", ":scheme", "https", ":authority", "a"), malformed},
		{"RFC 9114 section 4.3.1: an empty :path", headers(":method", "GET", ":scheme", "https", ":authority", "a", ":path", ""), malformed},
		{"RFC 9114 section 4.3.1: a :path without slash", headers(":method", "GET", ":scheme", "https", ":authority", "a", ":path", "x"), malformed},
		{"RFC 9114 section 4.3.1: * with GET", headers(":method", "GET", ":scheme", "https", ":authority", "a", ":path", "*"), malformed},
		{"RFC 9114 section 4.3.1: * with OPTIONS", headers(":method", "OPTIONS", ":scheme", "https", ":authority", "a", ":path", "*"), "200 OPTIONS a * length=0"},
		{"RFC 9114 section 4.3.1: no authority", headers(":method", "GET", ":scheme", "https", ":path", "/"), malformed},
		{"RFC 9114 section 4.3.1: an empty :authority", headers(":method", "GET", ":scheme", "https", ":authority", "", ":path", "/"), malformed},
		{"RFC 9114 section 4.3.1: Host alone", headers(":method", "GET", ":scheme", "https", ":path", "/", "host", "b"), "200 GET b / Host=b length=0"},
		{"RFC 9114 section 4.3.1: Host is not :authority", headers(get("host", "b")...), malformed},
		{"RFC 9114 section 4.3.1: two Host", headers(get("host", "a", "host", "a")...), malformed},
		{"RFC 9110 section 4.2.4: user information", headers(":method", "GET", ":scheme", "https", ":authority", "u@a", ":path", "/"), "400 bad_host"},
		{"RFC 9114 section 4.3.1: another scheme", headers(":method", "GET", ":scheme", "http", ":authority", "a", ":path", "/"), "400 bad_scheme"},
		{"RFC 3986 section 2: a space in :path", headers(":method", "GET", ":scheme", "https", ":authority", "a", ":path", "/a b"), "400 bad_target"},
		{"RFC 3986 section 2: a fragment in :path", headers(":method", "GET", ":scheme", "https", ":authority", "a", ":path", "/?q#f"), "400 bad_target"},
		{"RFC 9110 section 9.1: a method that is no token", headers(":method", "G T", ":scheme", "https", ":authority", "a", ":path", "/"), malformed},
		{"a method longer than any", headers(":method", strings.Repeat("M", 40), ":scheme", "https", ":authority", "a", ":path", "/"), "501 method_too_long"},
		{"a name that CGI reads as another", headers(get("content_length", "1")...), "400 field_name_collision"},
		{"RFC 9110 section 10.1.1: an unknown expectation", headers(post("expect", "x")...), "417 expectation_failed"},
		{"RFC 9114 section 4.4: CONNECT with a path", headers(":method", "CONNECT", ":authority", "a:1", ":path", "/", ":scheme", "https"), malformed},
		{"RFC 9114 section 4.4: CONNECT with a scheme", headers(":method", "CONNECT", ":authority", "a:1", ":scheme", "https"), malformed},
		{"RFC 9114 section 4.4: CONNECT without :authority", headers(":method", "CONNECT", "host", "a:1"), malformed},
		{"RFC 9114 section 4.4: CONNECT without a port", headers(":method", "CONNECT", ":authority", "a"), malformed},
		{"RFC 9220 section 3: :protocol without CONNECT", headers(get(":protocol", "websocket")...), malformed},
		{"RFC 9220 section 3: extended CONNECT without :path", headers(":method", "CONNECT", ":protocol", "websocket", ":scheme", "https", ":authority", "a"), malformed},
		{"RFC 9220 section 3: an unknown :protocol", headers(":method", "CONNECT", ":protocol", "x", ":scheme", "https", ":authority", "a", ":path", "/"), "501 unknown_protocol"},
		{"RFC 9110 section 8.6: a Content-Length with a sign", headers(post("content-length", "+1")...), malformed},
		{"RFC 9110 section 8.6: a list in Content-Length", headers(post("content-length", "1, 1")...), malformed},
		{"RFC 9110 section 8.6: two Content-Length", headers(post("content-length", "1", "content-length", "1")...), malformed},
		{"RFC 9110 section 8.6: an empty Content-Length", headers(post("content-length", "")...), malformed},
		{"RFC 9114 section 4.1.2: a body as long as it should be", body("3", "abc"), "200 POST a / Content-Length=3 length=3 body=abc EOF"},
		{"RFC 9114 section 4.1.2: a short body", body("4", "abc"), "… request body: body_malformed"},
		{"RFC 9114 section 4.1.2: a long body", body("2", "abc"), "200 POST a / Content-Length=2 length=2 body= request body: body_malformed"},
		{"RFC 9114 section 4.1.2: no body", headers(post("content-length", "2")...), malformed},
		{"RFC 9114 section 4.1: several DATA frames", body("4", "ab") + frame(frameData, "") + frame(frameData, "cd"), "200 POST a / Content-Length=4 length=4 body=abcd EOF"},
		{"RFC 9114 section 4.1: a GET with a body", ok + frame(frameData, "x"), "200 GET a / length=-1 body=x EOF"},
		{"RFC 9114 section 4.1: trailers", headers(post()...) + frame(frameData, "x") + headers("x-sum", "7", "content-length", "9"), "200 POST a / length=-1 body=x EOF x-sum=7"},
		{"RFC 9114 section 4.3: a pseudo-header in trailers", headers(post()...) + frame(frameData, "x") + headers(":path", "/"), "200 POST a / length=-1 body=x request body: trailer_malformed"},
		{"RFC 9114 section 4.1: DATA after trailers", headers(post()...) + frame(frameData, "x") + headers("x-sum", "7") + frame(frameData, "y"), unexpected},
		{"RFC 9114 section 4.1: HEADERS after trailers", headers(post()...) + headers("x-sum", "7") + headers("x-sum", "7"), unexpected},
		{"RFC 9114 section 4.1: DATA first", frame(frameData, "x") + ok, unexpected},
		{"RFC 9114 section 4.1: nothing", "", "stream 0x10d"},
		{"RFC 9114 section 9: a reserved frame first", frame(0x21, "xyz") + ok, "200 GET a / length=0"},
		{"RFC 9114 section 9: an unknown frame between", headers(post()...) + frame(0x4242, "abc") + frame(frameData, "x"), "200 POST a / length=-1 body=x EOF"},
		{"RFC 9114 section 9: an unknown frame after the trailers", headers(post()...) + frame(frameData, "x") + headers("x-sum", "7") + frame(0x1f*7+0x21, "abc"), "200 POST a / length=-1 body=x EOF x-sum=7"},
		{"RFC 9114 section 9: an empty unknown frame of the largest type", frame((maxVarint-0x21)/0x1f*0x1f+0x21, "") + ok, "200 GET a / length=0"},
		{"RFC 9000 section 16: numbers longer than they need be", "\x40\x01\x80\x00\x00" + string(rune(len(ok)-2)) + ok[2:], "200 GET a / length=0"},
		{"RFC 9114 section 7.1: a frame cut short", ok[:len(ok)-1], badFrame},
		{"RFC 9114 section 7.1: a frame head cut short", ok[:1], badFrame},
		{"RFC 9114 section 7.1: a DATA frame cut short", body("3", "abc")[:len(body("3", "abc"))-1], badFrame},
		{"RFC 9114 section 7.1: an unknown frame cut short", frame(0x21, "xyz")[:4], badFrame},
		{"RFC 9114 section 7.2.3: CANCEL_PUSH on a request stream", frame(frameCancelPush, "\x00"), unexpected},
		{"RFC 9114 section 7.2.4: SETTINGS on a request stream", frame(frameSettings, ""), unexpected},
		{"RFC 9114 section 7.2.5: PUSH_PROMISE of a client", frame(framePushPromise, "\x00"), unexpected},
		{"RFC 9114 section 7.2.6: GOAWAY on a request stream", frame(frameGoAway, "\x00"), unexpected},
		{"RFC 9114 section 7.2.7: MAX_PUSH_ID on a request stream", frame(frameMaxPushID, "\x00"), unexpected},
		{"RFC 9114 section 7.2.8: a frame of HTTP/2", frame(0x06, "12345678"), unexpected},
		{"RFC 9218 section 7.2: PRIORITY_UPDATE on a request stream", frame(framePriorityRequest, "\x00u=1"), unexpected},
		{"RFC 9204 section 2.2: a reference to the dynamic table", frame(frameHeaders, "\x02\x00\x80"), "connection 0x200"},
		{"RFC 9204 section 2.1.2: a section that would wait for inserts", frame(frameHeaders, "\x01\x00"), "connection 0x200"},
		{"RFC 9204 section 2.2: a reference to the dynamic table in trailers", headers(post()...) + frame(frameHeaders, "\x02\x00\x80"), "connection 0x200"},
		{"RFC 9204 section 2.2: an index beyond the static table", frame(frameHeaders, "\x00\x00\xff\x24"), "connection 0x200"},
		{"RFC 9204 section 2.2: a line cut short", frame(frameHeaders, "\x00\x00\x51"), "connection 0x200"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h := &handler{serve: say}
			_, addr := own(t, ServerConfig{}, h)
			r := dialRaw(t, addr, settings)
			got := r.ask(tt.bytes)
			if strings.HasPrefix(tt.want, "connection") {
				got = r.closed() // the stream may have had its answer before
			}
			if tail, ok := strings.CutPrefix(tt.want, "…"); got != tt.want && (!ok || !strings.HasSuffix(got, tail)) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
			if code, _ := h.last(); tt.want == malformed && code == "" {
				t.Error("Refuse was not told")
			}
		})
	}
}

// TestControlStreams breaks the rules of the control stream and its like.
func TestControlStreams(t *testing.T) {
	set := func(pairs ...uint64) string {
		var p []byte
		for _, v := range pairs {
			p = appendVarint(p, v)
		}
		return "\x00" + frame(frameSettings, string(p))
	}
	const open = ""
	tests := []struct {
		name  string
		begin string   // of the control stream
		more  []string // unidirectional streams after it
		fin   bool     // of the control stream
		want  string
	}{
		{"plain", settings, nil, false, open},
		{"RFC 9114 section 9: reserved settings and frames", set(0x21, 5, settingMaxSection, 100) + frame(0x21, "abc"), []string{"\x21abc"}, false, open},
		{"RFC 9114 section 6.2.1: no SETTINGS", "\x00" + frame(frameMaxPushID, "\x01"), nil, false, "connection 0x10a"},
		{"RFC 9114 section 7.2.4: a second SETTINGS", settings + frame(frameSettings, ""), nil, false, "connection 0x105"},
		{"RFC 9114 section 7.2.4.1: a setting of HTTP/2", set(0x03, 1), nil, false, "connection 0x109"},
		{"RFC 9114 section 7.2.4: a setting twice", set(settingMaxSection, 1, settingMaxSection, 1), nil, false, "connection 0x109"},
		{"RFC 8441 section 3: ENABLE_CONNECT_PROTOCOL of 2", set(settingConnect, 2), nil, false, "connection 0x109"},
		{"RFC 9114 section 7.2.4.1: reserved setting 0x00", set(0x00, 0), nil, false, "connection 0x109"},
		{"RFC 9114 section 7.2.4.1: reserved setting 0x02", set(0x02, 0), nil, false, "connection 0x109"},
		{"RFC 9114 section 7.2.4.1: reserved setting 0x04", set(0x04, 1), nil, false, "connection 0x109"},
		{"RFC 9114 section 7.2.4.1: reserved setting 0x05", set(0x05, 1), nil, false, "connection 0x109"},
		{"RFC 9204 section 5: the client's own table", set(settingTableCapacity, 4096, settingBlockedStreams, 100), nil, false, open},
		{"RFC 9297 section 2.1.1: H3_DATAGRAM of 1", set(settingDatagram, 1), nil, false, open},
		{"RFC 9297 section 2.1.1: H3_DATAGRAM of 2", set(settingDatagram, 2), nil, false, "connection 0x109"},
		{"RFC 9114 section 7.1: SETTINGS cut short", "\x00" + frame(frameSettings, "\x06"), nil, false, "connection 0x106"},
		{"RFC 9114 section 7.2.1: DATA on the control stream", settings + frame(frameData, "x"), nil, false, "connection 0x105"},
		{"RFC 9114 section 7.2.2: HEADERS on the control stream", settings + headers(get()...), nil, false, "connection 0x105"},
		{"RFC 9114 section 7.2.5: PUSH_PROMISE on the control stream", settings + frame(framePushPromise, "\x00"), nil, false, "connection 0x105"},
		{"RFC 9114 section 7.2.8: a frame of HTTP/2 on the control stream", settings + frame(0x08, "1234"), nil, false, "connection 0x105"},
		{"RFC 9114 section 7.2.3: CANCEL_PUSH of what was not promised", settings + frame(frameCancelPush, "\x00"), nil, false, "connection 0x108"},
		{"RFC 9114 section 7.2.7: MAX_PUSH_ID goes up", settings + frame(frameMaxPushID, "\x01") + frame(frameMaxPushID, "\x02"), nil, false, open},
		{"RFC 9114 section 7.2.7: MAX_PUSH_ID goes back", settings + frame(frameMaxPushID, "\x02") + frame(frameMaxPushID, "\x01"), nil, false, "connection 0x108"},
		{"RFC 9114 section 7.1: MAX_PUSH_ID too long", settings + frame(frameMaxPushID, "\x02\x00"), nil, false, "connection 0x106"},
		{"RFC 9114 section 5.2: GOAWAY goes up", settings + frame(frameGoAway, "\x00") + frame(frameGoAway, "\x01"), nil, false, "connection 0x108"},
		{"RFC 9114 section 5.2: GOAWAY again, and lower", settings + frame(frameGoAway, "\x05") + frame(frameGoAway, "\x05") + frame(frameGoAway, "\x00"), nil, false, open},
		{"RFC 9114 section 7.1: GOAWAY with nothing", settings + frame(frameGoAway, ""), nil, false, "connection 0x106"},
		{"RFC 9218 section 7.2: PRIORITY_UPDATE without an id", settings + frame(framePriorityRequest, ""), nil, false, "connection 0x106"},
		{"RFC 9218 section 7.2: PRIORITY_UPDATE", settings + frame(framePriorityRequest, "\x00u=1,i"), nil, false, open},
		{"RFC 9218 section 7.2: PRIORITY_UPDATE of a stream of ours", settings + frame(framePriorityRequest, "\x03u=1"), nil, false, "connection 0x108"},
		{"RFC 9218 section 7.2: PRIORITY_UPDATE of a push", settings + frame(framePriorityPush, "\x00u=1"), nil, false, "connection 0x108"},
		{"RFC 9114 section 6.2.1: a second control stream", settings, []string{settings}, false, "connection 0x103"},
		{"RFC 9204 section 4.2: a second encoder stream", settings, []string{"\x02", "\x02"}, false, "connection 0x103"},
		{"RFC 9204 section 4.2: a second decoder stream", settings, []string{"\x03", "\x03"}, false, "connection 0x103"},
		{"RFC 9114 section 6.2.2: a push stream of a client", settings, []string{"\x01\x00"}, false, "connection 0x103"},
		{"RFC 9114 section 6.2.1: the control stream ends", settings, nil, true, "connection 0x104"},
		{"RFC 9204 section 3.2.3: a capacity of 0", settings, []string{"\x02\x20\x20"}, false, open},
		{"RFC 9204 section 3.2.3: a capacity of 1", settings, []string{"\x02\x21"}, false, "connection 0x201"},
		{"RFC 9204 section 3.2.2: an insert", settings, []string{"\x02\x41a\x01b"}, false, "connection 0x201"},
		{"RFC 9204 section 4.4.2: streams given up", settings, []string{"\x03\x44\x7f\x80\x01\x48"}, false, open},
		{"RFC 9204 section 4.4.1: an acknowledgement of nothing", settings, []string{"\x03\x84"}, false, "connection 0x202"},
		{"RFC 9204 section 4.4.3: an increment of 0 entries", settings, []string{"\x03\x01"}, false, "connection 0x202"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, addr := own(t, ServerConfig{}, &handler{serve: say})
			r := dialRaw(t, addr, tt.begin)
			for _, b := range tt.more {
				r.uni(b)
			}
			if tt.fin {
				_ = r.control.Close()
			}
			if tt.want == open {
				for range 2 { // the second comes after what the streams said
					if got := r.ask(headers(get()...)); got != "200 GET a / length=0" {
						t.Fatal(got)
					}
				}
				return
			}
			if got := r.closed(); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

// hasBegun says whether the first client's stream of a type has begun.
func hasBegun(s *Server, kind byte) (yes bool) {
	s.watch.Some(1, func(c *serverConn) bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		yes = c.began[kind]
		return false
	})
	return yes
}

// TestUnidirectionalStreamsThatEnd ends streams in every way.
func TestUnidirectionalStreamsThatEnd(t *testing.T) {
	const critical = "connection 0x104"
	for _, tt := range []struct {
		name, begin string
		reset       bool
		want        string
	}{
		{"RFC 9114 section 6.2: closed before its type", "", false, ""},
		{"RFC 9114 section 6.2: reset before its type", "", true, ""},
		{"RFC 9114 section 6.2: closed within its type", "\x40", false, ""},
		{"RFC 9114 section 6.2.3: a reserved type is closed", "\x21abc", false, ""},
		{"RFC 9114 section 6.2.3: a reserved type is reset", "\x21abc", true, ""},
		{"RFC 9204 section 4.2: the encoder stream is closed", "\x02", false, critical},
		{"RFC 9204 section 4.2: the encoder stream is reset", "\x02\x20", true, critical},
		{"RFC 9204 section 4.2: the decoder stream is closed", "\x03", false, critical},
		{"RFC 9204 section 4.2: the decoder stream is reset", "\x03\x44", true, critical},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, addr := own(t, ServerConfig{}, &handler{serve: say})
			r := dialRaw(t, addr, settings)
			str := r.uni(tt.begin)
			if tt.want != "" { // what is reset before its type was read is nothing
				until(t, "the stream has not begun", func() bool { return hasBegun(s, tt.begin[0]) })
			}
			if got := r.ask(headers(get()...)); got != "200 GET a / length=0" { // what was written has come
				t.Fatal(got)
			}
			if tt.reset {
				str.CancelWrite(codeRequestCancelled)
			} else {
				_ = str.Close()
			}
			if tt.want != "" {
				if got := r.closed(); got != tt.want {
					t.Errorf("got %q, want %q", got, tt.want)
				}
				return
			}
			for range 2 {
				if got := r.ask(headers(get()...)); got != "200 GET a / length=0" {
					t.Fatal(got)
				}
			}
		})
	}
	t.Run("RFC 9114 section 6.2.1: the control stream is reset", func(t *testing.T) {
		_, addr := own(t, ServerConfig{}, &handler{serve: say})
		r := dialRaw(t, addr, settings)
		_ = r.ask(headers(get()...))
		r.control.CancelWrite(codeRequestCancelled)
		if got := r.closed(); got != critical {
			t.Errorf("got %q", got)
		}
	})
}

// A stream of a type that we do not know is not read.
func TestRFC9114Section623UnknownStreamsAreStopped(t *testing.T) {
	_, addr := own(t, ServerConfig{}, &handler{serve: say})
	r := dialRaw(t, addr, settings)
	str := r.uni("\x21")
	select {
	case <-str.Context().Done():
		if got := ended(context.Cause(str.Context())); got != "stream 0x103" {
			t.Error(got)
		}
	case <-time.After(10 * time.Second):
		t.Error("it is still read")
	}
}
