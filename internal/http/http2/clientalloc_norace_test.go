//go:build !race

package http2

import (
	"io"
	"testing"

	"github.com/relais-edge/relais/internal/http/http1"
	"github.com/relais-edge/relais/internal/http/message"
)

func TestAProxiedGETAllocatesNothing(t *testing.T) {
	b, r := newRaw(t, ClientConfig{})
	go func() { // an origin that allocates nothing either
		var in [4096]byte
		out := appendData(head(1, false, ":status", "200", "content-length", "4", "server", "shop"), 1, []byte("body"), true)
		id := uint32(1)
		for first := true; ; {
			n, err := r.nc.Read(in[:])
			if err != nil {
				return
			}
			for p := in[:n]; len(p) >= headLen; {
				if first {
					p, first = p[len(preface):], false
				}
				h := readHead(p)
				if h.typ == typeHeaders {
					for at := 0; at < len(out); at += headLen + readHead(out[at:]).length {
						out[at+5], out[at+6], out[at+7], out[at+8] = byte(id>>24), byte(id>>16), byte(id>>8), byte(id)
					}
					id += 2
					_, _ = r.nc.Write(out)
				}
				p = p[headLen+h.length:]
			}
		}
	}()
	req := request("GET", "/img/a.webp")
	req.AddString(message.Accept, "*/*")
	var resp message.Response
	<-b.c.settled
	once := func() {
		if !b.c.Reserve() {
			t.Fatal("no place")
		}
		if err := b.c.RoundTrip(t.Context(), req, &resp, http1.Try{}); err != nil {
			t.Fatal(err)
		}
		if _, err := resp.Body.Next(t.Context()); err != io.EOF {
			t.Fatal(err)
		}
		resp.Body.Close(nil)
	}
	for range 100 {
		once()
	}
	if n := testing.AllocsPerRun(500, once); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
