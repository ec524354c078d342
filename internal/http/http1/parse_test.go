package http1

import (
	"strconv"
	"strings"
	"testing"

	"github.com/relais-edge/relais/internal/http/message"
)

func testLimits() *Limits {
	l := &Limits{}
	l.fill(128)
	return l
}

// refused are request heads that must be refused, by the code. H is a good rest of a head.
var refused = []struct{ in, code string }{
	{"GET / HTTP/1.1\nHost: h\r\n\r\n", "bare_lf"},
	{"GET / HTTP/1.1\r\nHost: h\n\r\n", "bare_lf"},
	{"GET / HTTP/1.1\r\nHost: h\r\n\n", "bare_lf"},
	{"GET / HTTP/1.1\r\nHost: h\r\nA\n", "bare_lf"},
	{"GET / HTTP/1.1\r\nHost: h\r\nA: b\rc\r\n\r\n", "bare_cr"},
	{"GET / HTTP/1.1\r\nHost: h\r\n\rA: b\r\n\r\n", "bare_cr"},
	{"GET / HTTP/1.1\r\nHost: h\r\nA: b\x00c\r\n\r\n", "control_byte"},
	{"GET / HTTP/1.1\r\nHost: h\r\nA: b\x01c\r\n\r\n", "control_byte"},
	{"GET / HTTP/1.1\r\nHost: h\r\nA: b\x7f\r\n\r\n", "control_byte"},
	{"GET /\x00 HTTP/1.1\r\nHost: h\r\n\r\n", "control_byte"},
	{"GET /a\tb HTTP/1.1\r\nHost: h\r\n\r\n", "control_byte"},
	{"GET / HTTP/1.1\r\n A: b\r\nHost: h\r\n\r\n", "obs_fold"},
	{"GET / HTTP/1.1\r\nHost: h\r\nA: b\r\n\tc\r\n\r\n", "obs_fold"},
	{"GET / HTTP/1.1\r\nHost: h\r\nA : b\r\n\r\n", "space_before_colon"},
	{"GET / HTTP/1.1\r\nHost: h\r\nA\t: b\r\n\r\n", "space_before_colon"},
	{"GET / HTTP/1.1\r\nHost: h\r\n: b\r\n\r\n", "bad_field_name"},
	{"GET / HTTP/1.1\r\nHost: h\r\nA(: b\r\n\r\n", "bad_field_name"},
	{"GET / HTTP/1.1\r\nHost: h\r\nA\r\n\r\n", "bad_field_name"},
	{"GET / HTTP/1.1\r\nHost: h\r\n\xc3\xa9: b\r\n\r\n", "bad_field_name"},
	{"GET / HTTP/1.1\r\nHost: h\r\nContent_Length: 3\r\n\r\n", "field_name_collision"},
	{"GET / HTTP/1.1\r\nHost: h\r\ntransfer_ENCODING: chunked\r\n\r\n", "field_name_collision"},
	{"GET / HTTP/1.1\r\nHost: h\r\nX_Forwarded-For: 1.2.3.4\r\n\r\n", "field_name_collision"},
	{"GET / HTTP/1.1\r\n\r\n", "no_host"},
	{"GET / HTTP/1.1\r\nHost: h\r\nhost: h\r\n\r\n", "many_hosts"},
	{"GET / HTTP/1.0\r\nHost: h\r\nHost: h\r\n\r\n", "many_hosts"},
	{"GET / HTTP/1.1\r\nHost:\r\n\r\n", "bad_host"},
	{"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", "bad_host"},
	{"GET / HTTP/1.1\r\nHost: u@h\r\n\r\n", "bad_host"},
	{"GET / HTTP/1.1\r\nHost: h/\r\n\r\n", "bad_host"},
	{"GET / HTTP/1.1\r\nHost: h:\r\n\r\n", "bad_host"},
	{"GET / HTTP/1.1\r\nHost: h:8x\r\n\r\n", "bad_host"},
	{"GET / HTTP/1.1\r\nHost: h:65536\r\n\r\n", "bad_host"},
	{"GET / HTTP/1.1\r\nHost: h:1:2\r\n\r\n", "bad_host"},
	{"GET / HTTP/1.1\r\nHost: [::1\r\n\r\n", "bad_host"},
	{"GET / HTTP/1.1\r\nHost: [::1]x\r\n\r\n", "bad_host"},
	{"GET / HTTP/1.1\r\nHost: [1.2.3.4]\r\n\r\n", "bad_host"},
	{"GET / HTTP/1.1\r\nHost: [::1%25eth0]\r\n\r\n", "bad_host"},
	{"GET / HTTP/1.1\r\nHost: %zz\r\n\r\n", "bad_host"},
	{"GET / HTTP/1.1\r\nHost: \xffh\r\n\r\n", "bad_host"},
	{"GET / HTTP/1.1\r\nHost: " + strings.Repeat("a", 256) + "\r\n\r\n", "bad_host"},
	{"GET http://a/ HTTP/1.1\r\nHost: b\r\n\r\n", "host_differs"},
	{"GET http://ab/ HTTP/1.1\r\nHost: a\r\n\r\n", "host_differs"},
	{"GET http://a/ HTTP/1.1\r\nHost: ab\r\n\r\n", "host_differs"},
	{"GET http://a/ HTTP/1.1\r\n\r\n", "no_host"},
	{"GET http://u@a/ HTTP/1.1\r\nHost: a\r\n\r\n", "bad_target"},
	{"GET http:/// HTTP/1.1\r\nHost: a\r\n\r\n", "bad_target"},
	{"GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n", "bad_target"},
	{"GET a HTTP/1.1\r\nHost: a\r\n\r\n", "bad_target"},
	{"GET * HTTP/1.1\r\nHost: a\r\n\r\n", "bad_target"},
	{"CONNECT /a HTTP/1.1\r\nHost: a\r\n\r\n", "bad_target"},
	{"CONNECT a HTTP/1.1\r\nHost: a\r\n\r\n", "bad_target"},
	{"CONNECT a:443 HTTP/1.1\r\nHost: b:443\r\n\r\n", "host_differs"},
	{"GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n", "bad_request_line"},
	{"GET  / HTTP/1.1\r\nHost: a\r\n\r\n", "bad_request_line"},
	{"GET /  HTTP/1.1\r\nHost: a\r\n\r\n", "bad_request_line"},
	{"GET / HTTP/1.1 \r\nHost: a\r\n\r\n", "bad_request_line"},
	{"GET /\r\nHost: a\r\n\r\n", "bad_request_line"},
	{"GET / http/1.1\r\nHost: a\r\n\r\n", "bad_request_line"},
	{"GET / HTTP/1.10\r\nHost: a\r\n\r\n", "bad_request_line"},
	{"GET / foo\r\nHost: a\r\n\r\n", "bad_request_line"},
	{"GET /a B HTTP/1.1\r\nHost: a\r\n\r\n", "bad_request_line"},
	{"GET / ABCDEFGHIJKLMNOPQRSTUVW\r\nHost: a\r\n\r\n", "bad_request_line"},
	{"OPTIONS sip:a SIP/2.0\r\nHost: a\r\n\r\n", "not_http"},
	{"INVALID CONNECTION PREFACE\r\n\r\n", "not_http"},
	{"GET / HTTP/1.1\rHost: a\r\n\r\n", "bad_request_line"},
	{"GET / HTTP/1.2\r\nHost: a\r\n\r\n", "http_version_not_supported"},
	{"GET / HTTP/2.0\r\nHost: a\r\n\r\n", "http_version_not_supported"},
	{" / HTTP/1.1\r\nHost: a\r\n\r\n", "bad_method"},
	{"G(T / HTTP/1.1\r\nHost: a\r\n\r\n", "bad_method"},
	{strings.Repeat("A", 33) + " / HTTP/1.1\r\nHost: a\r\n\r\n", "method_too_long"},
	{"GET /" + strings.Repeat("a", 16<<10) + " HTTP/1.1\r\nHost: a\r\n\r\n", "target_too_long"},
	{"GET / HTTP/1.1\r\nHost: a\r\n" + strings.Repeat("A: b\r\n", 128) + "\r\n", "too_many_fields"},
	{"GET / HTTP/1.1\r\nHost: a\r\nA: " + strings.Repeat("b", 64<<10) + "\r\n\r\n", "head_too_long"},
	{"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", "length_and_encoding"},
	{"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n", "bad_content_length"},
	{"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1, 1\r\n\r\n", "bad_content_length"},
	{"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\n", "bad_content_length"},
	{"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x1\r\n\r\n", "bad_content_length"},
	{"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1 1\r\n\r\n", "bad_content_length"},
	{"POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\n", "bad_content_length"},
	{"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 18446744073709551617\r\n\r\n", "bad_content_length"},
	{"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", "unknown_transfer_encoding"},
	{"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\n\r\n", "unknown_transfer_encoding"},
	{"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: ours;level=1 , chunked\r\n\r\n", "unknown_transfer_encoding"},
	{"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: ours ; level=\"1\"\r\n\r\n", "unknown_transfer_encoding"},
	{"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: ours\r\nTransfer-Encoding: chunked\r\n\r\n", "unknown_transfer_encoding"},
	{"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked;level=1\r\n\r\n", "bad_transfer_encoding"},
	{"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: ;level=1\r\n\r\n", "bad_transfer_encoding"},
	{"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: ours\r\n\r\n", "bad_transfer_encoding"},
	{"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", "bad_transfer_encoding"},
	{"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked,\r\n\r\n", "bad_transfer_encoding"},
	{"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \"chunked\"\r\n\r\n", "bad_transfer_encoding"},
	{"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", "transfer_encoding_on_http10"},
	{"GET / HTTP/1.1\r\nHost: a\r\nConnection: close, Host\r\n\r\n", "bad_connection"},
	{"GET / HTTP/1.1\r\nHost: a\r\nConnection: content-length\r\n\r\n", "bad_connection"},
	{"GET / HTTP/1.1\r\nHost: a\r\nConnection: a b\r\n\r\n", "bad_connection"},
	{"GET / HTTP/1.1\r\nHost: a\r\nConnection: x-forwarded-for\r\n\r\n", "bad_connection"},
	{"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nExpect: 200-ok\r\n\r\n", "expectation_failed"},
}

func TestRequestsThatAreRefused(t *testing.T) {
	lim := testLimits()
	for _, c := range refused {
		var r message.Request
		var h requestHead
		n, flt := parseRequest([]byte(c.in), lim, &r, &h)
		if flt == nil || flt.code != c.code || n != 0 {
			t.Errorf("%.80q: %d, %v; want %s", c.in, n, flt, c.code)
		}
	}
}

func TestRequestsThatAreTaken(t *testing.T) {
	lim := testLimits()
	for _, c := range []struct{ in, want string }{
		{"GET /a/b?c=d&e HTTP/1.1\r\nHost: Shop.example:8080\r\n\r\n", "GET Shop.example:8080 /a/b ?c=d&e 0"},
		{"GET /a? HTTP/1.1\r\nHost: h\r\n\r\n", "GET h /a ? 0"},
		{"GET /a??b HTTP/1.1\r\nHost: h\r\n\r\n", "GET h /a ??b 0"},
		{"BREW /%zz/../\xc3\xa9 HTTP/1.1\r\nHost: h\r\n\r\n", "BREW h /%zz/../\xc3\xa9  0"},
		{"GET http://a:80/x HTTP/1.1\r\nHost: A:80\r\n\r\n", "GET a:80 /x  0"},
		{"GET HTTPS://a HTTP/1.1\r\nHost: a\r\n\r\n", "GET a /  0"},
		{"GET http://a?b HTTP/1.1\r\nHost: a\r\n\r\n", "GET a / ?b 0"},
		{"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", "OPTIONS a *  0"},
		{"OPTIONS http://a HTTP/1.1\r\nHost: a\r\n\r\n", "OPTIONS a *  0"},
		{"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n", "CONNECT a:443   0"},
		{"GET / HTTP/1.1\r\nHost: [2001:db8::1]:8080\r\n\r\n", "GET [2001:db8::1]:8080 /  0"},
		{"GET / HTTP/1.0\r\n\r\n", "GET  /  0"},
		{"POST / HTTP/1.1\r\nHost: h\r\nContent-Length:\t0012 \t\r\n\r\n", "POST h /  12"},
		{"POST / HTTP/1.1\r\nHost: h\r\ntransfer-encoding: Chunked\r\n\r\n", "POST h /  -1"},
		{"GET / HTTP/1.1\r\nHost: h\r\nA: caf\xe9\tx\r\nB:\r\n\r\n", "GET h /  0"},
	} {
		var r message.Request
		var h requestHead
		n, flt := parseRequest([]byte(c.in+"rest"), lim, &r, &h)
		if flt != nil || n != len(c.in) {
			t.Errorf("%q: %d, %v", c.in, n, flt)
			continue
		}
		if got := target(&r); got != c.want {
			t.Errorf("%q: got %q, want %q", c.in, got, c.want)
		}
		for i := range len(c.in) { // every beginning asks for more
			if n, flt := parseRequest([]byte(c.in[:i]), lim, &r, &h); n != 0 || flt != nil {
				t.Errorf("%q: %d, %v", c.in[:i], n, flt)
			}
		}
	}
}

func target(r *message.Request) string {
	q := string(r.Query())
	if r.HasQuery() {
		q = "?" + q
	}
	return strings.Join([]string{string(r.MethodName()), string(r.Authority()), string(r.Path()), q, strconv.FormatInt(r.ContentLength, 10)}, " ")
}

func TestUpgradeCountsOnlyWhereItMay(t *testing.T) {
	for _, c := range []struct {
		in   string
		want bool
	}{
		{"GET / HTTP/1.1\r\nHost: h\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\r\n", true},
		{"GET / HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\n\r\n", false},
		{"GET / HTTP/1.0\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", false},
		{"POST / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 1\r\n\r\n", false},
	} {
		var r message.Request
		var h requestHead
		if _, flt := parseRequest([]byte(c.in), testLimits(), &r, &h); flt != nil || r.Has(message.Upgrade) != c.want {
			t.Errorf("%q: %v %v", c.in, r.Has(message.Upgrade), flt)
		}
	}
}

func TestStripConnection(t *testing.T) {
	var f message.Fields
	for _, l := range []string{"X-A: 1", "Connection: x-a, close", "TE: trailers", "X-B: 2", "Connection: X-B, Cookie", "Cookie: c", "X-C: 3", "Keep-Alive: 5", "X-A: 4"} {
		name, value, _ := strings.Cut(l, ": ")
		f.AddLine([]byte(name), []byte(value))
	}
	StripConnection(&f)
	if got := string(appendFields(nil, &f)); got != "Cookie: c\r\nX-C: 3\r\n" {
		t.Errorf("%q", got)
	}
}
