package smug

import (
	"bytes"
	"context"
	"net"
	"slices"
	"strings"
	"testing"
	"time"
)

// script is a connection whose peer sends in and then closes its side.
type script struct {
	net.Conn
	in  *strings.Reader
	out bytes.Buffer
}

func (s *script) Read(b []byte) (int, error)  { return s.in.Read(b) }
func (s *script) Write(b []byte) (int, error) { return s.out.Write(b) }
func (s *script) SetDeadline(time.Time) error { return nil }

// record sends raw to a Recorder as a proxy would and gives what it noted and answered.
func record(raw string) (Record, string) {
	rec, conn := NewRecorder(), &script{in: strings.NewReader(raw)}
	rec.serveConn(conn)
	return rec.Record(), conn.out.String()
}

func TestRecorderFindsWhatTwoParsersReadDifferently(t *testing.T) {
	const line, host, end = "POST /c HTTP/1.1\r\n", "Host: a\r\n", "\r\n"
	for _, tt := range []struct {
		name, raw string
		want      []string
	}{
		{"clean content-length", line + host + "Content-Length: 3\r\n" + end + "abc", nil},
		{"clean chunked", line + host + "Transfer-Encoding: chunked\r\n" + end + "3\r\nabc\r\n0\r\n\r\n", nil},
		{"empty line before the request", "\r\n" + line + host + end, nil},
		{"obs-text is not a control byte", line + host + "X: caf\xe9\r\n" + end, nil},
		{"bare LF", line + "Host: a\n" + end, []string{"bare-lf"}},
		{"bare CR", line + host + "X: a\rb\r\n" + end, []string{"bare-cr"}},
		{"NUL", line + host + "X: a\x00b\r\n" + end, []string{"ctl-0x00"}},
		{"DEL", line + host + "X: a\x7fb\r\n" + end, []string{"ctl-0x7f"}},
		{"fold", line + host + "X: a\r\n b\r\n" + end, []string{"obs-fold"}},
		{"no colon", line + host + "X\r\n" + end, []string{"no-colon"}},
		{"space before colon", line + host + "X : a\r\n" + end, []string{`bad-name:"X "`}},
		{"no host", line + end, []string{"no-host"}},
		{"two hosts", line + host + host + end, []string{"dup-host"}},
		{"HTTP/0.9", "GET /c\r\n" + host + end, []string{"bad-request-line"}},
		{"three spaces", "GET  /c HTTP/1.1\r\n" + host + end, []string{"bad-request-line"}},
		{"two lengths", line + host + "Content-Length: 0\r\nContent-Length: 0\r\n" + end, []string{"dup-cl"}},
		{"signed length", line + host + "Content-Length: +0\r\n" + end, []string{`bad-cl:"+0"`}},
		{"both lengths", line + host + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n" + end + "0\r\n\r\n", []string{"cl+te"}},
		{"two codings", line + host + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n" + end + "0\r\n\r\n", []string{"dup-te"}},
		{"unknown coding", line + host + "Transfer-Encoding: xchunked\r\n" + end + "0\r\n\r\n", []string{`te:"xchunked"`}},
		{"coding on 1.0", "POST /c HTTP/1.0\r\n" + host + "Transfer-Encoding: chunked\r\n" + end + "0\r\n\r\n", []string{"te-in-1.0"}},
		{"underscore", line + host + "Content_Length: 5\r\n" + end, []string{"underscore-framing"}},
		{"chunk extension", line + host + "Transfer-Encoding: chunked\r\n" + end + "1;a=b\r\nx\r\n0\r\n\r\n", []string{"chunk-ext"}},
		{"chunk line ended by LF", line + host + "Transfer-Encoding: chunked\r\n" + end + "1\nx\r\n0\r\n\r\n", []string{"chunk-bare-lf"}},
		{"chunk without end", line + host + "Transfer-Encoding: chunked\r\n" + end + "1\r\nxy\r\n0\r\n\r\n", []string{"chunk-bad-end"}},
		{"chunk size signed", line + host + "Transfer-Encoding: chunked\r\n" + end + "+1\r\nx\r\n0\r\n\r\n", []string{`bad-chunk-size:"+1"`}},
		{"chunk size too large", line + host + "Transfer-Encoding: chunked\r\n" + end + "fffffffffffffffff\r\n", []string{"chunk-overflow"}},
		{"framing in a trailer", line + host + "Transfer-Encoding: chunked\r\n" + end + "0\r\nContent-Length: 3\r\n\r\n", []string{"trailer:content-length"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			rec, _ := record(tt.raw)
			if len(rec.Requests) != 1 {
				t.Fatalf("recorded requests %q, want one", rec.Requests)
			}
			if !slices.Equal(rec.Findings, tt.want) {
				t.Errorf("findings %q, want %q", rec.Findings, tt.want)
			}
		})
	}
}

func TestRecorderSeesTheHiddenRequest(t *testing.T) {
	rec, answers := record(post("Content-Length: 5\r\n\r\nhello") + hidden)
	if !rec.hidden() || len(rec.Requests) != 2 {
		t.Errorf("recorded %q, want the hidden request as the second", rec.Requests)
	}
	if n := strings.Count(answers, "200 OK"); n != 2 {
		t.Errorf("%d answers, want 2", n)
	}
}

func TestRecorderAnswers(t *testing.T) {
	for _, tt := range []struct{ name, raw, want, not string }{
		{"HEAD has no body", "HEAD /c HTTP/1.1\r\nHost: a\r\n\r\n", "Content-Length: 1024\r\n", "b=0"},
		{"length of a chunked body", chunked("5\r\nhello\r\n0\r\n\r\n"), "b=5", "100"},
		{"100 before the body", post("Expect: 100-continue\r\nContent-Length: 0\r\n\r\n"), "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200", "b=1"},
		{"close ends the connection", get("Connection: x, close\r\n") + get(""), "b=0", " HTTP/1.1 200"},
		{"1.0 ends the connection", "GET /c HTTP/1.0\r\n\r\n" + get(""), "b=0", " HTTP/1.1 200"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, got := record(tt.raw)
			if !strings.Contains(got, tt.want) || strings.Contains(got, tt.not) {
				t.Errorf("answered %q, want %q and not %q in it", got, tt.want, tt.not)
			}
		})
	}
}

func TestRecorderNotesAHeadThatEndsEarly(t *testing.T) {
	rec, _ := record("GET /c HTTP/1.1\r\nHo")
	if !slices.Equal(rec.Findings, []string{"partial-head"}) || len(rec.Requests) != 0 {
		t.Errorf("record %+v, want partial-head and no request", rec)
	}
	if r := judge(Case{Name: "x/y", Want: Refuse, Answers: 1}, exchange{}, rec); r.Verdict != Pass {
		t.Errorf("verdict %s: half a head that was dropped is not a forwarded message", r.Verdict)
	}
}

func TestRecorderBoundsWhatItKeeps(t *testing.T) {
	rec := NewRecorder()
	for i := range 10 * maxRecorded {
		rec.find("finding-%d", i)
		rec.request("GET / HTTP/1.1")
	}
	if r := rec.Record(); len(r.Findings) != maxRecorded || len(r.Requests) != maxRecorded {
		t.Errorf("kept %d findings and %d requests, want %d", len(r.Findings), len(r.Requests), maxRecorded)
	}
	rec.Reset()
	if r := rec.Record(); len(r.Findings)+len(r.Requests) != 0 {
		t.Errorf("after Reset: %+v", r)
	}
}

func TestRecorderServeEndsWithItsContext(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- NewRecorder().Serve(ctx, l) }()
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	cancel()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(5 * time.Second):
		t.Fatal("Serve holds on to an idle connection")
	}
}
