package std

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// deadlines is a stream that notices a deadline set after its request is over.
type deadlines struct {
	http.ResponseWriter
	over, late atomic.Bool
}

func (d *deadlines) SetReadDeadline(time.Time) error {
	if d.over.Load() {
		d.late.Store(true)
	}
	return nil
}

type readFunc func([]byte) (int, error)

func (f readFunc) Read(b []byte) (int, error) { return f(b) }

func TestACallerThatGivesUpTouchesNothingAfterTheRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for range 200 {
			w := &deadlines{ResponseWriter: httptest.NewRecorder()}
			ctx, cancel := context.WithCancel(t.Context())
			b := &body{
				rc: http.NewResponseController(w), r: httptest.NewRequest("POST", "/", nil), buf: make([]byte, 8), left: -1, wait: time.Second,
				src: io.NopCloser(readFunc(func(b []byte) (int, error) {
					cancel() // as the read succeeds
					return len(b), nil
				})),
			}
			if got, _ := b.Next(ctx); len(got) == 0 {
				t.Fatal("the bytes that came were lost")
			}
			w.over.Store(true)
			b.end()
			synctest.Wait()
			if w.late.Load() {
				t.Fatal("the stream was touched after the request")
			}
		}
	})
}
