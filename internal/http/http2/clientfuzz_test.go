package http2

import (
	"context"
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/relais-edge/relais/internal/http/http1"
	"github.com/relais-edge/relais/internal/http/message"
)

// FuzzClientReads gives what an origin may send to a connection with two requests.
func FuzzClientReads(f *testing.F) {
	ok := append(appendSettings(nil), head(1, false, ":status", "200", "content-length", "4")...)
	f.Add(appendData(ok, 1, []byte("body"), true))
	f.Add(append(appendData(ok, 1, []byte("bo"), false), head(3, true, ":status", "204")...))
	f.Add(append(ok, head(1, true, "grpc-status", "0")...))
	f.Add(appendGoAway(appendReset(appendSettings(nil, setting{settingMaxStreams, 1}), 1, RefusedStream), 1, 0, "x"))
	f.Add(appendPing(appendWindowUpdate(append(appendSettings(nil, setting{settingInitialWindow, 0}), head(1, false, ":status", "103")...), 1, 100), [8]byte{}, false))
	f.Fuzz(func(t *testing.T, in []byte) {
		synctest.Test(t, func(t *testing.T) { readAny(t, in) })
	})
}

// readAny runs in a bubble: its limits of time are no matter of how busy the machine is.
func readAny(t *testing.T, in []byte) {
	ours, theirs := net.Pipe()
	cl := NewClient(ClientConfig{})
	c := cl.NewConn(ours, nil)
	c.hasPeer = true // both requests may leave at once
	done := make(chan struct{}, 4)
	go func() { _, _ = io.Copy(io.Discard, theirs); done <- struct{}{} }()
	for i := range 2 {
		req := request("POST", "/")
		if i == 1 {
			req.Body, req.ContentLength = &clientPieces{list: [][]byte{make([]byte, 100), make([]byte, 70_000)}}, -1
		}
		if !c.Reserve() {
			t.Fatal("no place")
		}
		go func() {
			defer func() { done <- struct{}{} }()
			var resp message.Response
			if err := c.RoundTrip(context.Background(), req, &resp, http1.Try{}); err != nil || resp.Body == nil {
				return
			}
			got, err := readWhole(resp.Body)
			if err == nil && resp.ContentLength >= 0 && int64(len(got)) != resp.ContentLength {
				t.Errorf("%d bytes of %d pass for whole", len(got), resp.ContentLength)
			}
			resp.Body.Close(err)
		}()
	}
	synctest.Wait() // what of both requests may leave has left
	go func() {
		_ = theirs.SetWriteDeadline(time.Now().Add(5 * time.Second))
		_, _ = theirs.Write(in)
		_ = theirs.Close()
		done <- struct{}{}
	}()
	_ = c.Run(context.Background())
	for range 4 {
		<-done
	}
	if s := c.State(); s.Busy != 0 || !s.Closed {
		t.Errorf("%+v", s)
	}
}
