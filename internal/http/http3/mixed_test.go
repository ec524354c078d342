package http3

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/relais-edge/relais/internal/http/message"
)

// TestNothingIsMixedUp has many requests of all kinds at once on a few connections, some given
// up at any point, and holds every answer against its own request: memory is used again, and
// must never show what was another's.
func TestNothingIsMixedUp(t *testing.T) {
	h := &handler{serve: func(ctx context.Context, r *message.Request) *message.Response {
		id := string(r.Lookup("x-id"))
		switch string(r.Path()) {
		case "/block":
			r.Control.MayBlock()
			time.Sleep(time.Millisecond)
		case "/echo":
			return &message.Response{Status: 200, ContentLength: -1, Body: r.Body}
		case "/read":
			got, err := drain(ctx, r.Body)
			return text(200, fmt.Sprint(id, " ", len(got), " ", err))
		case "/large":
			return text(200, id+strings.Repeat("x", 50_000))
		case "/hint":
			r.Control.Inform(103, nil)
		}
		return text(200, id)
	}}
	s, addr := own(t, ServerConfig{}, h, func(a *acceptor) { a.set.Streams = 20 })
	var wg sync.WaitGroup
	for i := range 4 {
		r := dialRaw(t, addr, settings)
		for j := range 8 {
			wg.Go(func() {
				for k := range 25 {
					if got, want := one(r, fmt.Sprintf("%d-%d-%d", i, j, k)); got != want {
						t.Errorf("got %.80q, want %.80q", got, want)
					}
				}
			})
		}
	}
	wg.Wait()
	until(t, "not every answer's end was told", func() bool {
		h.mu.Lock()
		defer h.mu.Unlock()
		return uint64(len(h.ends)) == s.Stats().Requests
	})
	if st := s.Stats(); st.Panics+st.Faults+st.Floods+st.Refused > 0 {
		t.Errorf("%+v", st)
	}
}

// one does a request of some kind and returns its answer and what that should be; both are
// empty for one that was given up.
func one(r *raw, id string) (got, want string) {
	ctx, cancel := context.WithTimeout(r.t.Context(), 10*time.Second)
	defer cancel()
	str, err := r.qc.OpenStreamSync(ctx)
	if err != nil {
		return err.Error(), "a stream"
	}
	_ = str.SetDeadline(time.Now().Add(10 * time.Second))
	path, body := "/", ""
	switch rand.IntN(7) {
	case 0:
		path = "/block"
	case 1:
		path, body = "/echo", strings.Repeat(id, 1000)
	case 2:
		path, body = "/read", strings.Repeat("y", 30_000)
	case 3:
		path = "/large"
	case 4:
		path = "/hint"
	}
	f := []string{":method", "GET", ":scheme", "https", ":authority", "a", ":path", path, "x-id", id}
	if body != "" {
		f[1] = "POST"
	}
	b := headers(f...)
	if body != "" {
		b += frame(frameData, body)
	}
	giveUp := rand.IntN(8) == 0
	if cut := rand.IntN(len(b)); giveUp || rand.IntN(3) == 0 {
		_, _ = io.WriteString(str, b[:cut])
		time.Sleep(time.Duration(rand.IntN(1000)) * time.Microsecond)
		if giveUp {
			str.CancelWrite(codeRequestCancelled)
			str.CancelRead(codeRequestCancelled)
			return "", ""
		}
		b = b[cut:]
	}
	go func(str *quic.Stream) {
		_, _ = io.WriteString(str, b)
		_ = str.Close()
	}(str)
	got = strings.ReplaceAll(answer(str), " ", "")
	switch path {
	case "/echo":
		return got, "200" + body
	case "/read":
		return got, "200" + id + "30000EOF"
	case "/large":
		return got, "200" + id + strings.Repeat("x", 50_000)
	case "/hint":
		return got, "103200" + id
	}
	return got, "200" + id
}

func TestTheClockOfTheSweeper(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewServer(ServerConfig{}, &handler{})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			_ = s.Run(ctx)
		}()
		first := string(s.watch.Date())
		by := s.watch.Limit(2 * time.Second)
		for at := time.Now(); s.watch.Now() <= by; time.Sleep(tick) {
			if d := time.Since(at); d > 2*time.Second+3*tick {
				t.Fatalf("a limit of 2 s is not over after %v", d)
			}
		}
		synctest.Wait()
		if second := string(s.watch.Date()); second == first || second != time.Now().UTC().Format("Mon, 02 Jan 2006 15:04:05 GMT") {
			t.Errorf("Date is %s after %s, at %v", second, first, time.Now())
		}
		cancel()
		<-done
	})
}
