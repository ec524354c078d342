package http2

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/relais-edge/relais/internal/http/hpack"
	"github.com/relais-edge/relais/internal/http/message"
)

func TestServerAnswersNetHTTP(t *testing.T) {
	big := strings.Repeat("0123456789abcdef", 40_000)
	_, addr := serve(t, ServerConfig{}, handlerFunc(func(ctx context.Context, r *message.Request) *message.Response {
		switch string(r.Path()) {
		case "/big":
			return text(big)
		case "/echo":
			r.Control.MayBlock()
			s, err := readAll(ctx, r.Body)
			if err != nil {
				return &message.Response{Status: 400}
			}
			return text(s)
		case "/stream":
			r.Control.MayBlock()
			p := newPieces("one ", "two ", "three")
			close(p.ch)
			resp := &message.Response{Status: 200, ContentLength: -1, Body: p, Trailer: new(message.Fields)}
			resp.Trailer.AddLine([]byte("grpc-status"), []byte("0"))
			return resp
		}
		return text(fmt.Sprintf("%s %s%s %s", r.MethodName(), r.Authority(), r.Path(), r.Query()))
	}), nil)
	c := stdClient(t)
	fetch := func(method, path, body string) (*http.Response, string) {
		t.Helper()
		req, _ := http.NewRequest(method, "http://"+addr+path, strings.NewReader(body))
		resp, err := c.Do(req)
		if err != nil {
			t.Fatalf("%s %s: %v", method, path, err)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatalf("%s %s: %v", method, path, err)
		}
		return resp, string(b)
	}
	if _, b := fetch("GET", "/a?b=c", ""); b != "GET "+addr+"/a b=c" {
		t.Errorf("got %q", b)
	}
	if resp, b := fetch("HEAD", "/big", ""); b != "" || resp.ContentLength != int64(len(big)) {
		t.Errorf("HEAD: %d bytes, Content-Length %d", len(b), resp.ContentLength)
	}
	if _, b := fetch("GET", "/big", ""); b != big {
		t.Errorf("%d bytes of %d", len(b), len(big))
	}
	if _, b := fetch("POST", "/echo", big); b != big {
		t.Errorf("%d bytes of %d came back", len(b), len(big))
	}
	if resp, b := fetch("GET", "/stream", ""); b != "one two three" || resp.Trailer.Get("Grpc-Status") != "0" {
		t.Errorf("%q with trailer %v", b, resp.Trailer)
	}
	var wg sync.WaitGroup
	for i := range 40 {
		wg.Go(func() {
			switch i % 4 {
			case 0:
				if _, b := fetch("GET", "/big", ""); b != big {
					t.Errorf("%d bytes of %d", len(b), len(big))
				}
			case 1:
				if _, b := fetch("POST", "/echo", big[:i*1000]); b != big[:i*1000] {
					t.Errorf("%d bytes of %d came back", len(b), i*1000)
				}
			case 2:
				fetch("GET", "/stream", "")
			default:
				fetch("GET", "/small", "")
			}
		})
	}
	wg.Wait()
}

func TestAnswersOfOneReadLeaveInOneWrite(t *testing.T) {
	p := &peer{t: t, dec: hpack.NewDecoder(4096)}
	p.out = appendSettingsAck(appendSettings([]byte(preface)))
	for i := range 10 {
		p.headers(uint32(2*i+1), true, get("/"))
	}
	nc := &tape{in: p.out}
	s := NewServer(ServerConfig{}, handlerFunc(func(context.Context, *message.Request) *message.Response { return text("hit") }))
	s.ServeConn(t.Context(), nc, &message.Conn{})
	if nc.writes != 2 {
		t.Errorf("%d writes, want our SETTINGS and all answers", nc.writes)
	}
	p.in = nc.out
	for id, a := range p.responses(10) {
		if a.body != "hit" || a.fields[":status"] != "200" || a.fields["content-length"] != "3" || a.fields["date"] == "" {
			t.Errorf("stream %d: %+v", id, a)
		}
	}
}
