package http3

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
)

// trickle gives bytes as packets may bring them: n at a time.
type trickle struct {
	b []byte
	n int
}

func (r *trickle) Read(p []byte) (int, error) {
	if len(r.b) == 0 {
		return 0, io.EOF
	}
	n := copy(p, r.b[:min(len(r.b), r.n)])
	r.b = r.b[n:]
	return n, nil
}

// begin reads a request's head from a stream that comes n bytes at a time.
func begin(s *Server, stream []byte, n int) (*exchange, *fault) {
	x := &exchange{c: &serverConn{s: s}, src: &trickle{stream, n}, in: make([]byte, firstRead)}
	_ = x.fill()
	flt := x.readHead()
	if flt == nil {
		x.body.start(x, x.head.length)
	}
	return x, flt
}

// rest reads the body; the error is io.EOF when it is whole.
func (x *exchange) rest() (body []byte, err error) {
	for {
		p, err := x.body.step()
		body = append(body, p...)
		if err != nil {
			return body, err
		}
	}
}

// parse reads a whole request stream, and says what came of it.
func parse(s *Server, stream []byte, n int) (head string, body []byte, err error) {
	x, flt := begin(s, stream, n)
	if flt != nil {
		return flt.code, nil, flt.errOf()
	}
	r := &x.req
	var b strings.Builder
	b.Write(r.MethodName())
	b.WriteByte(' ')
	b.Write(r.Authority())
	b.WriteByte(' ')
	b.Write(r.Path())
	for i := range r.Len() {
		_, name, value := r.At(i)
		b.WriteByte(' ')
		b.Write(name)
		b.WriteByte('=')
		b.Write(value)
	}
	body, err = x.rest()
	return b.String(), body, err
}

func (f *fault) errOf() error {
	if f.kill != nil {
		return f.kill
	}
	return errors.New(f.code)
}

// requestStreams are some to begin with.
func requestStreams() []string {
	return []string{
		headers(get("cookie", "a", "cookie", "b")...),
		headers(post("content-length", "3")...) + frame(frameData, "ab") + frame(0x21, "x") + frame(frameData, "c"),
		headers(post()...) + frame(frameData, "ab") + headers("x-sum", "1"),
		frame(0x21, "abc") + headers(":method", "CONNECT", ":authority", "a:1") + frame(frameData, "x"),
		headers(":method", "CONNECT", ":protocol", "websocket", ":scheme", "https", ":authority", "a", ":path", "/c"),
		"\x00\x05hello", "\x01\x80\x00\x00\x02\x00\x00", "\x04\x00",
	}
}

// FuzzRequestStream holds that a stream means the same however it is cut into packets, and that
// nothing gets through that could mean something else to the next HTTP/1 parser.
func FuzzRequestStream(f *testing.F) {
	for _, s := range requestStreams() {
		f.Add([]byte(s))
	}
	s := NewServer(ServerConfig{Limits: Limits{HeadBytes: 4096, Fields: 20, TargetBytes: 1000}}, &handler{})
	f.Fuzz(func(t *testing.T, stream []byte) {
		head, body, err := parse(s, stream, 1<<20)
		head1, body1, err1 := parse(s, stream, 1)
		if head != head1 || (err == io.EOF) != (err1 == io.EOF) || err == io.EOF && !bytes.Equal(body, body1) {
			t.Fatalf("in one piece %q %q %v, byte by byte %q %q %v", head, body, err, head1, body1, err1)
		}
		if strings.ContainsAny(head, "\r\n\x00") {
			t.Fatalf("%q", head)
		}
		if len(body) > len(stream) {
			t.Fatal("a body longer than its stream")
		}
	})
}

// FuzzCriticalStreams holds that the control stream and those of QPACK mean the same however they are
// cut into packets, and that they have no more of us than their bounds. Quic-go reads such streams only
// on a connection of its own, so there is no twin here.
func FuzzCriticalStreams(f *testing.F) {
	for _, s := range []string{
		frame(frameSettings, "\x06\x41\x00\x08\x01") + frame(frameGoAway, "\x04") + frame(frameMaxPushID, "\xc0"),
		settings[1:] + frame(framePriorityRequest, "\x04u=1") + frame(0x21, "abc") + frame(frameMaxPushID, "\x02"),
		settings[1:] + frame(frameGoAway, "\x04") + frame(frameGoAway, "\x08"), frame(frameData, ""), "\x04\x02\x02\x01",
	} {
		f.Add(uint8(streamControl), []byte(s))
	}
	f.Add(uint8(streamEncoder), []byte("\x20\x20\x21"))
	f.Add(uint8(streamDecoder), []byte("\x44\x7f\x80\x01\x48\x84"))
	s := NewServer(ServerConfig{}, &handler{})
	f.Fuzz(func(t *testing.T, kind uint8, stream []byte) {
		var said [2]error
		for i, n := range []int{1 << 20, 1} {
			c := &serverConn{s: s}
			in := &reader{str: &trickle{stream, n}}
			switch kind % 4 {
			case streamControl:
				said[i] = c.readControl(in)
			case streamEncoder:
				said[i] = c.readEncoder(in)
			default:
				said[i] = c.readDecoder(in)
			}
			if len(c.pending) > maxPending {
				t.Fatal(len(c.pending))
			}
		}
		if said[0] != said[1] {
			t.Fatalf("in one piece %v, byte by byte %v", said[0], said[1])
		}
	})
}

func FuzzPriority(f *testing.F) {
	for _, s := range []string{"u=1", "i", "u=5, i=?0", "u=9,i=?1;x", " , u=", "i;x=1,u=2"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, v []byte) {
		if p := readPriority(v); p.urgency < 0 || p.urgency > 7 {
			t.Fatal(p)
		}
	})
}

func TestRFC9218Section4Priority(t *testing.T) {
	for v, want := range map[string]priority{
		"":                        {3, false},
		"u=0":                     {0, false},
		"u=7, i":                  {7, true},
		"i=?1,u=2":                {2, true},
		"i, i=?0":                 {3, false},
		"u=8":                     {3, false},
		"u=-1, i=1":               {3, false},
		"u=1;x=2, i;y":            {1, true},
		"x=\"u=1\", u=4":          {4, false},
		"x=\"a,u=7,b\"":           {3, false},
		"x=\"a\\\",u=7\", u=2, i": {2, true},
		"u=1, u=9":                {3, false},
		"i, i=1":                  {3, false},
	} {
		if got := readPriority([]byte(v)); got != want {
			t.Errorf("%q: %v, want %v", v, got, want)
		}
	}
}

func TestVarints(t *testing.T) {
	for _, v := range []uint64{0, 63, 64, 16383, 16384, 1<<30 - 1, 1 << 30, maxVarint} {
		b := appendVarint(nil, v)
		if got, n := varint(b); got != v || n != len(b) {
			t.Errorf("%d: %d in %d of %d bytes", v, got, n, len(b))
		}
		if _, n := varint(b[:len(b)-1]); n != 0 {
			t.Errorf("%d: half of it was read", v)
		}
	}
}
