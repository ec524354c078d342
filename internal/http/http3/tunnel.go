package http3

import (
	"context"
	"errors"
	"io"
	"os"

	"github.com/relais-edge/relais/internal/http/message"
)

// tunnel sends the head of a 2xx to CONNECT, or to an extended CONNECT, and copies both ways in
// DATA frames until both sides have ended, one has failed, or both were silent for too long
// (RFC 9114 section 4.4, RFC 9220).
func (x *exchange) tunnel(ctx context.Context, resp *message.Response) {
	x.handOff()
	x.outcome.Status = resp.Status
	x.c.s.tunnels.Add(1)
	x.wmu.Lock()
	x.buildHead(resp, -1)
	err := x.write(x.out, false)
	x.wmu.Unlock()
	if err == nil {
		err = x.copyBoth(resp.Upgrade)
	}
	_ = resp.Upgrade.Close()
	if err == nil && !x.final {
		if err = ctx.Err(); err == nil {
			x.final = true
			err = x.str.Close()
		}
	}
	x.finish(err)
}

// tunnelContext is the context of a request that may become a tunnel, and what ends it. That of the stream ends with its way to
// the client, and with it would what still goes to an origin that was the first to end.
func (x *exchange) tunnelContext() (ctx context.Context, end func()) {
	ctx, cancel := context.WithCancelCause(x.c.qc.Context())
	stream := x.str.Context()
	stop := context.AfterFunc(stream, func() {
		if !x.halfway.Load() {
			cancel(context.Cause(stream))
		}
	})
	return ctx, func() {
		stop()
		cancel(nil)
	}
}

// touch starts the limit of silence anew.
func (x *exchange) touch() { x.readBy.Store(x.c.s.watch.Limit(x.c.s.cfg.TunnelTimeout)) }

// copyBoth copies until both ways have ended or one has failed.
func (x *exchange) copyBoth(up io.ReadWriteCloser) error {
	x.touch()
	back := make(chan error, 1)
	go func() {
		err := x.copyBack(up)
		if err != nil {
			x.str.CancelRead(codeConnect) // the other way ends too
		}
		back <- err
	}()
	err := x.copyForth(up)
	if err != nil {
		_ = up.Close()
		x.str.CancelWrite(codeConnect)
		if e := <-back; e != nil && !errors.Is(err, errTunnelIdle) {
			err = e
		}
		return err
	}
	if w, ok := up.(interface{ CloseWrite() error }); ok {
		_ = w.CloseWrite()
	} else {
		_ = up.Close()
		<-back
		return nil
	}
	return <-back
}

// copyForth copies from the client.
func (x *exchange) copyForth(up io.Writer) error {
	b := &x.body
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.err == io.EOF {
		return nil
	}
	for {
		data, err := b.step()
		if len(data) > 0 {
			x.touch()
			if _, err := up.Write(data); err != nil {
				return err
			}
		}
		var ce *connError
		switch {
		case err == io.EOF:
			b.err = io.EOF
			return nil
		case errors.Is(err, os.ErrDeadlineExceeded):
			return errTunnelIdle
		case errors.As(err, &ce):
			x.c.kill(ce)
			return err
		case err != nil:
			return err
		}
	}
}

// copyBack copies to the client.
func (x *exchange) copyBack(up io.Reader) error {
	mem := x.c.s.bodies.Get().(*[]byte)
	defer x.c.s.bodies.Put(mem)
	const room = 5 // the type of a DATA frame, and a length of four bytes
	for {
		n, err := up.Read((*mem)[room:])
		if n > 0 {
			f := *mem
			f[0], f[1], f[2], f[3], f[4] = frameData, byte(n>>24)|0x80, byte(n>>16), byte(n>>8), byte(n)
			if _, err := x.str.Write(f[:room+n]); err != nil {
				return err
			}
			x.outcome.Body += int64(n)
			x.touch()
		}
		if err == io.EOF {
			x.final = true
			x.halfway.Store(true)
			return x.str.Close()
		}
		if err != nil {
			return err
		}
	}
}
