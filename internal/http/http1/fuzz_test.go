package http1

import (
	"bufio"
	"bytes"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/relais-edge/relais/internal/http/message"
)

// FuzzParseRequest: what is taken is the same to net/http, and has nothing of the list of
// what must be refused.
func FuzzParseRequest(f *testing.F) {
	for _, c := range refused {
		if len(c.in) < 2000 {
			f.Add([]byte(c.in))
		}
	}
	f.Add([]byte(browserGet))
	f.Add([]byte("POST http://a:80?x HTTP/1.1\r\nHost: a:80\r\nContent-Length: 3\r\nConnection: x, close\r\nX: y\r\n\r\nabc"))
	lim := testLimits()
	rules := stricter(lim)
	f.Fuzz(func(t *testing.T, in []byte) {
		var r message.Request
		var h requestHead
		n, flt := parseRequest(in, lim, &r, &h)
		decided(t, in, n, flt, func(b []byte) (int, *fault) {
			var r message.Request
			var h requestHead
			return parseRequest(b, lim, &r, &h)
		})
		std, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(in)))
		switch {
		case flt != nil && n > 0 || n > len(in):
			t.Fatal(n, flt)
		case flt == nil && n == 0 && err == nil:
			t.Fatal("we wait for more of what net/http has read whole")
		case flt == nil && n == 0:
			return
		}
		judged(t, in, flt, err, rules)
		if flt != nil {
			return
		}
		checkTaken(t, in[:n], &r)
		if err != nil {
			return
		}
		if std.Method != string(r.MethodName()) {
			t.Errorf("method %q, net/http %q", r.MethodName(), std.Method)
		}
		if len(r.Authority()) > 0 && !sameHost(r.Authority(), std.Host) {
			t.Errorf("authority %q, net/http %q", r.Authority(), std.Host)
		}
		if l := std.ContentLength; l != r.ContentLength {
			t.Errorf("length %d, net/http %d", r.ContentLength, l)
		}
		for i := range r.Len() {
			id, name, value := r.At(i)
			switch id {
			case message.Host, message.TransferEncoding, message.Connection, message.Trailer, message.ContentLength, message.Pragma, message.CacheControl:
				continue // net/http moves them
			}
			if got := std.Header.Values(string(name)); !slices.Contains(got, string(value)) {
				t.Errorf("%s: %q, net/http %q", name, value, got)
			}
		}
	})
}

// decided holds that what some of the bytes decide, more bytes do not change: a head means the same
// however it is cut into packets.
func decided(t *testing.T, in []byte, n int, flt *fault, parse func([]byte) (int, *fault)) {
	t.Helper()
	for i := range 7 {
		cut := in[:len(in)*i/7]
		if n2, flt2 := parse(cut); (n2 > 0 || flt2 != nil) && (n2 != n || flt2 != flt) {
			t.Fatalf("%d bytes say %d %v, all say %d %v", len(cut), n2, flt2, n, flt)
		}
	}
}

// checkTaken looks at a head that was taken with other eyes than the parser's.
func checkTaken(t *testing.T, head []byte, r *message.Request) {
	t.Helper()
	if !bytes.HasSuffix(head, []byte("\r\n\r\n")) {
		t.Fatalf("the head ends %q", head)
	}
	lines := strings.Split(string(head[:len(head)-4]), "\r\n")
	if strings.ContainsAny(strings.Join(lines, ""), "\r\n\x00\x01\x0b\x7f") {
		t.Error("a control byte was taken")
	}
	hosts, lengths, codings := 0, 0, 0
	for _, l := range lines[1:] {
		name, _, ok := strings.Cut(l, ":")
		if !ok || name == "" || strings.ContainsAny(name, " \t\"(),/;<=>?@[\\]{}") {
			t.Errorf("the line %q was taken", l)
		}
		switch strings.ReplaceAll(strings.ToLower(name), "_", "-") {
		case "host":
			hosts++
		case "content-length":
			lengths++
		case "transfer-encoding":
			codings++
		}
	}
	if hosts > 1 || lengths+codings > 1 || hosts == 0 && r.Proto == message.HTTP11 {
		t.Errorf("%d hosts, %d lengths, %d codings", hosts, lengths, codings)
	}
	if parts := strings.Split(lines[0], " "); len(parts) != 3 || strings.Contains(parts[1], "#") {
		t.Errorf("the request line %q was taken", lines[0])
	}
}

// FuzzParseResponse: what is taken is the same to net/http.
func FuzzParseResponse(f *testing.F) {
	for _, s := range []string{
		"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc",
		"HTTP/1.1 200\r\nTransfer-Encoding: chunked\r\n\r\n", "HTTP/1.0 304 Not Modified\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\n",
		"HTTP/1.1 200 OK\nA: b\r\n\r\n", "HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n", "HTTP/1.1 0200 OK\r\n\r\n",
	} {
		f.Add([]byte(s))
	}
	lim := testLimits()
	rules := stricter(lim)
	f.Fuzz(func(t *testing.T, in []byte) {
		var r message.Response
		var h head
		n, _, flt := parseResponse(in, lim, &r, &h)
		decided(t, in, n, flt, func(b []byte) (int, *fault) {
			var r message.Response
			var h head
			n, _, flt := parseResponse(b, lim, &r, &h)
			return n, flt
		})
		std, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(in)), nil)
		if flt == nil && n == 0 {
			if err == nil {
				t.Fatal("we wait for more of what net/http has read whole")
			}
			return
		}
		judged(t, in, flt, err, rules)
		if flt != nil {
			return
		}
		if h.chunked && h.length >= 0 || bytes.Contains(bytes.ReplaceAll(in[:n], []byte("\r\n"), nil), []byte("\n")) {
			t.Fatal(n, h)
		}
		if err != nil {
			return
		}
		_ = std.Body.Close()
		if std.StatusCode != r.Status {
			t.Errorf("status %d, net/http %d", r.Status, std.StatusCode)
		}
		if h.length >= 0 && r.Status >= 200 && r.Status != 204 && r.Status != 304 && std.ContentLength != h.length {
			t.Errorf("length %d, net/http %d", h.length, std.ContentLength)
		}
		for i := range r.Len() {
			id, name, value := r.At(i)
			switch id {
			case message.TransferEncoding, message.Connection, message.Trailer, message.ContentLength, message.Pragma, message.CacheControl:
				continue // net/http moves them
			}
			if got := std.Header.Values(string(name)); !slices.Contains(got, string(value)) {
				t.Errorf("%s: %q, net/http %q", name, value, got)
			}
		}
	})
}

// FuzzChunked: whatever way the bytes come in, the body is what net/http reads, if it takes it.
func FuzzChunked(f *testing.F) {
	for _, s := range []string{
		"0\r\n\r\n", "5\r\nhello\r\n0\r\n\r\n", "1;a=b\r\nx\r\n2\r\nyz\r\n0\r\nT: v\r\n\r\n", "0005\r\nhello\r\n000\r\n\r\n",
		"5\nhello\r\n0\r\n\r\n", "+5\r\nhello\r\n0\r\n\r\n", "5 \r\nhello\r\n0\r\n\r\n", "10000000000000005\r\n", "5\r\nhelloX\r\n0\r\n\r\n", "0\r\nContent-Length: 5\r\n\r\n",
		"5;a\nx\r\nhello\r\n0\r\n\r\n", "0\r\nA\x00: b\r\n\r\n",
	} {
		f.Add([]byte(s), uint8(3))
	}
	f.Fuzz(func(t *testing.T, in []byte, step uint8) {
		whole, used, ok, flt := decodeAll(in, len(in))
		some, used2, ok2, _ := decodeAll(in, int(step%16)+1)
		if ok != ok2 || ok && (!bytes.Equal(whole, some) || used != used2) {
			t.Fatalf("at once %v %d %q, in steps of %d %v %d %q", ok, used, whole, step%16+1, ok2, used2, some)
		}
		r, err := http.ReadRequest(bufio.NewReader(io.MultiReader(strings.NewReader("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"), bytes.NewReader(in))))
		if err != nil {
			t.Fatal(err)
		}
		std, err := io.ReadAll(r.Body)
		switch {
		case ok && err == nil && !bytes.Equal(std, whole):
			t.Errorf("got %q, net/http %q", whole, std)
		case ok && err != nil && !tooMuchForTwin(in, err):
			t.Errorf("we take it, net/http says %v", err)
		case flt == nil && !ok && err == nil:
			t.Error("we wait for more of what net/http has read whole")
		case flt != nil && err == nil && (stricterChunked[flt.code].is == nil || !stricterChunked[flt.code].is(in)):
			t.Errorf("we say %v, net/http takes it", flt)
		}
	})
}

func TestALineOfAChunkIsAsLongHoweverItComes(t *testing.T) {
	for n := maxChunkLine - 2; n < maxChunkLine+3; n++ {
		in := []byte("1;" + strings.Repeat("a", n-2) + "\r\nx\r\n0\r\n\r\n")
		_, _, whole, _ := decodeAll(in, len(in))
		_, _, some, _ := decodeAll(in, 1)
		if want := n <= maxChunkLine; whole != want || some != want {
			t.Errorf("%d bytes: at once %v, byte by byte %v", n, whole, some)
		}
	}
}

// decodeAll decodes in, of which step bytes more are there each time.
func decodeAll(in []byte, step int) (body []byte, used int, ok bool, flt *fault) {
	d := decoder{kind: kindChunked, trailer: &message.Fields{}}
	buf := append([]byte(nil), in...) // it is decoded in place
	for have := 0; ; {
		data, n, end, flt := d.decode(buf[used:have])
		if flt != nil {
			return nil, 0, false, flt
		}
		body = append(body, data...)
		if used += n; end {
			return body, used, true, nil
		}
		if n == 0 || used == have {
			if have == len(in) {
				return nil, 0, false, nil
			}
			have = min(have+max(step, 1), len(in))
		}
	}
}
