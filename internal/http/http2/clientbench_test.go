package http2

import (
	"context"
	"io"
	"net/http"
	"testing"

	"github.com/relais-edge/relais/internal/http/http1"
	"github.com/relais-edge/relais/internal/http/message"
)

// BenchmarkClientGET asks an origin of net/http, 50 at once on one connection.
func BenchmarkClientGET(b *testing.B) {
	nc := stdOrigin(b, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "body") })
	cl := NewClient(ClientConfig{Streams: 1000})
	c := cl.NewConn(nc, nil)
	go func() { _ = c.Run(context.Background()) }()
	defer func() { _ = c.Close() }()
	c.flush()
	<-c.settled
	b.SetParallelism(25)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		req := request("GET", "/")
		var resp message.Response
		for pb.Next() {
			if !c.Reserve() {
				b.Error("no place")
				return
			}
			if err := c.RoundTrip(context.Background(), req, &resp, http1.Try{}); err != nil {
				b.Error(err)
				return
			}
			_, _ = readWhole(resp.Body)
			resp.Body.Close(nil)
		}
	})
}
