package http1

import (
	"context"
	"io"
	"net"
	"testing"
	"time"

	"github.com/relais-edge/relais/internal/http/message"
)

// A server closes in stages: a client that has sent more than the request that was answered
// reads its answer and its end, not a reset. It matters most where the end of the connection
// is the end of the answer.
func TestRFC9112Section9_6ClientThatSentMoreReadsItsAnswerToTheEnd(t *testing.T) {
	tests := map[string]string{
		"close asked for": "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
		"HTTP/1.0":        "GET / HTTP/1.0\r\n\r\n",
	}
	for name, head := range tests {
		t.Run(name, func(t *testing.T) {
			asked, answered := make(chan struct{}), make(chan struct{})
			_, addr := listen(t, ServerConfig{}, handlerFunc(func(context.Context, *message.Request) *message.Response {
				close(asked)
				<-answered // what the client sends more is here before the answer
				return text(200, "whole")
			}))
			c := dial(t, addr)
			_, _ = io.WriteString(c, head)
			<-asked
			_, _ = io.WriteString(c, "GET /more HTTP/1.1\r\nHost: a\r\n\r\n")
			time.AfterFunc(20*time.Millisecond, func() { close(answered) })
			b, err := io.ReadAll(c)
			if err != nil || !endsWith(b, "whole") {
				t.Errorf("%q, then %v", b, err)
			}
		})
	}
}

func endsWith(b []byte, s string) bool { return len(b) >= len(s) && string(b[len(b)-len(s):]) == s }

// lateConn takes its time to end a read.
type lateConn struct {
	net.Conn
	waking chan struct{} // told when it begins to
}

func (c lateConn) SetReadDeadline(at time.Time) error {
	if !at.IsZero() && at.Before(time.Unix(10, 0)) {
		c.waking <- struct{}{}
		time.Sleep(50 * time.Millisecond)
	}
	return c.Conn.SetReadDeadline(at)
}

// A pull of a request body that its caller gives up wakes that pull only, also when bytes come
// at that moment: the body goes on for the next try.
func TestAPullThatWasGivenUpDoesNotEndTheNextOne(t *testing.T) {
	client, server := net.Pipe()
	defer client.Close()
	late := lateConn{server, make(chan struct{}, 8)}
	s := NewServer(ServerConfig{}, handlerFunc(func(ctx context.Context, r *message.Request) *message.Response {
		try, giveUp := context.WithCancel(ctx)
		time.AfterFunc(10*time.Millisecond, giveUp)
		_, _ = r.Body.Next(try) // brings "1"
		for {
			if _, err := r.Body.Next(ctx); err == io.EOF {
				return text(200, "whole")
			} else if err != nil {
				return text(408, err.Error())
			}
		}
	}))
	ended := make(chan struct{})
	go func() {
		s.ServeConn(context.Background(), late, &message.Conn{})
		close(ended)
	}()
	go func() {
		_, _ = io.WriteString(client, "POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 5\r\n\r\n")
		<-late.waking
		_, _ = io.WriteString(client, "1")
		time.Sleep(100 * time.Millisecond) // the late end falls into the next pull
		_, _ = io.WriteString(client, "2345")
	}()
	_ = client.SetDeadline(time.Now().Add(5 * time.Second))
	b := make([]byte, 4096)
	n, err := io.ReadAtLeast(client, b, 20)
	if err != nil || !endsWith(b[:n], "whole") {
		t.Errorf("%q, then %v", b[:n], err)
	}
	_ = client.Close()
	<-ended
}
