package listen

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"strings"
	"testing"
)

// TestEveryProtocolGivesTheSameAnswer asks one Handler the same through every protocol and
// both engines.
func TestEveryProtocolGivesTheSameAnswer(t *testing.T) {
	r := newRig(t)
	r.apply(listener("clear"), listener("secure", withTLS), listener("std-clear", withStd), listener("std-secure", withTLS, withStd))
	ways := []struct{ name, proto, base string }{
		{"http1", "http1", "http://" + r.addr("clear")},
		{"h2c", "h2c", "http://" + r.addr("clear")},
		{"https1", "http1", "https://" + r.addr("secure")},
		{"h2", "h2", "https://" + r.addr("secure")},
		{"h3", "h3", "https://" + r.addr("secure")},
		{"std http1", "http1", "http://" + r.addr("std-clear")},
		{"std h2c", "h2c", "http://" + r.addr("std-clear")},
		{"std https1", "http1", "https://" + r.addr("std-secure")},
		{"std h2", "h2", "https://" + r.addr("std-secure")},
		{"std h3", "h3", "https://" + r.addr("std-secure")},
	}
	cases := []struct {
		name, method, path string
		body               func() io.Reader
		change             func(*http.Request)
		want               string
	}{
		{name: "get", method: "GET", path: "/a%2Fb/../c?x=1&y", want: "200 | GET shop.example /a%2Fb/../c query=x=1&y fields=[] length=0"},
		{name: "empty query", method: "GET", path: "/a?", want: "200 | GET shop.example /a query= fields=[] length=0"},
		{
			name: "fields", method: "GET", path: "/a", change: func(q *http.Request) {
				q.Header["X-B"] = []string{"2", "1"}
				q.Header.Set("Cookie", "a=1; b=2")
			}, want: "200 | GET shop.example /a fields=[cookie=a=1; b=2 x-b=1 x-b=2] length=0",
		},
		{
			name: "post", method: "POST", path: "/p", body: func() io.Reader { return strings.NewReader("hello") },
			want: "200 | POST shop.example /p fields=[content-length=5] length=5 body=5 EOF",
		},
		{
			name: "large post", method: "POST", path: "/p", body: func() io.Reader { return bytes.NewReader(make([]byte, 500_000)) },
			want: "200 | POST shop.example /p fields=[content-length=500000] length=500000 body=500000 EOF",
		},
		{
			name: "post of unknown length", method: "POST", path: "/p", body: func() io.Reader { return io.LimitReader(zeros{}, 300_000) },
			want: "200 | POST shop.example /p fields=[] length=-1 body=300000 EOF",
		},
		{
			name: "post with trailer", method: "POST", path: "/p", body: func() io.Reader { return io.LimitReader(zeros{}, 10) },
			change: func(q *http.Request) { q.Trailer = http.Header{"X-Sum": {"7"}} },
			want:   "200 | POST shop.example /p fields=[] length=-1 body=10 EOF sum=7",
		},
		{
			name: "post over the limit", method: "POST", path: "/p", body: func() io.Reader { return bytes.NewReader(make([]byte, 2<<20)) },
			// So that the answer is not lost to a client that is still writing.
			change: func(q *http.Request) { q.Header.Set("Expect", "100-continue") },
			want:   "413 | body_too_large",
		},
		{name: "head", method: "HEAD", path: "/a", want: "200 | "},
		{name: "no content", method: "GET", path: "/empty", want: "204 | "},
		{name: "stream", method: "GET", path: "/stream", want: "200 | tick\ntick\ntick\n"},
		{name: "trailer", method: "GET", path: "/trailer", change: func(q *http.Request) { q.Header.Set("Te", "trailers") }, want: "200 | tick\n X-Sum=42"},
		{name: "hint", method: "GET", path: "/hint", want: "200 | GET shop.example /hint fields=[] length=0 103=</a.css>; rel=preload"},
		{name: "too many fields", method: "GET", path: "/a", change: func(q *http.Request) {
			for i := range 200 {
				q.Header.Set(fmt.Sprintf("X-%d", i), "1")
			}
		}, want: "431 | too_many_fields"},
		{name: "target too long", method: "GET", path: "/" + strings.Repeat("a", 9000), want: "414 | target_too_long"},
		{name: "short", method: "GET", path: "/short", want: "200 | tick\n broken"},
		{name: "break", method: "GET", path: "/break", want: "200 | tick\ntick\n broken"},
		{name: "panic", method: "GET", path: "/panic", want: "500 | panic"},
	}
	for _, w := range ways {
		t.Run(w.name, func(t *testing.T) {
			c := r.client(w.proto)
			for _, tc := range cases {
				var body io.Reader
				if tc.body != nil {
					body = tc.body()
				}
				q, err := http.NewRequest(tc.method, w.base+tc.path, body)
				if err != nil {
					t.Fatal(err)
				}
				q.Host = "shop.example"
				q.Header.Set("User-Agent", "t")
				if tc.change != nil {
					tc.change(q)
				}
				if got := exchange(c, q); got != tc.want && (got != "broken" || !strings.HasSuffix(tc.want, got)) {
					t.Errorf("%s:\n got %q\nwant %q", tc.name, got, tc.want)
				}
			}
		})
	}
}

// exchange does a request and writes down all of its answer.
func exchange(c *http.Client, q *http.Request) string {
	hint := ""
	q = q.WithContext(httptrace.WithClientTrace(context.Background(), &httptrace.ClientTrace{
		Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
			hint += fmt.Sprintf(" %d=%s", code, h.Get("Link"))
			return nil
		},
	}))
	resp, err := c.Do(q)
	if err != nil {
		if strings.Contains(err.Error(), "H3_INTERNAL_ERROR") {
			return "broken" // the reset has overtaken the head
		}
		return err.Error()
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	s := fmt.Sprintf("%d | %s", resp.StatusCode, b)
	if err != nil {
		return s + " broken"
	}
	for k, v := range resp.Trailer {
		s += " " + k + "=" + strings.Join(v, ",")
	}
	return s + hint
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { return len(b), nil }
