package listen

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"sync/atomic"
)

// maxShakers bounds the goroutines that wait for the next handshake.
const maxShakers = 64

// shakers do handshakes in goroutines of their own: a handshake needs a deep stack, which the
// goroutine that serves the connection for the rest of its life would keep. Some stay, so that a
// stack is not grown anew for each handshake, which costs a twelfth of its time.
type shakers struct {
	jobs chan shake
	quit chan struct{}
	idle atomic.Int64
	over sync.Once
}

// shake is one handshake to do.
type shake struct {
	ctx  context.Context
	conn *tls.Conn
	done chan error // with room for the answer
}

func newShakers() *shakers {
	return &shakers{jobs: make(chan shake), quit: make(chan struct{})}
}

// do does a handshake and waits for it.
func (s *shakers) do(ctx context.Context, conn *tls.Conn) error {
	j := shake{ctx, conn, make(chan error, 1)}
	select {
	case s.jobs <- j:
	default: // nobody waits
		go s.work(j)
	}
	return <-j.done
}

// work does a handshake and then, unless enough others do, waits for more.
func (s *shakers) work(j shake) {
	for {
		j.done <- j.run()
		j = shake{}
		if s.idle.Add(1) > maxShakers {
			s.idle.Add(-1)
			return
		}
		select {
		case j = <-s.jobs:
			s.idle.Add(-1)
		case <-s.quit:
			return
		}
	}
}

var errHandshakePanic = errors.New("the handshake panicked")

func (j shake) run() (err error) {
	defer func() {
		if p := recover(); p != nil { // it ends this connection only
			err = fmt.Errorf("%w: %v\n%s", errHandshakePanic, p, debug.Stack())
		}
	}()
	return j.conn.HandshakeContext(j.ctx)
}

// stop ends those that wait.
func (s *shakers) stop() { s.over.Do(func() { close(s.quit) }) }
