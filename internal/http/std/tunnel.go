package std

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/relais-edge/relais/internal/http/message"
)

// tunnel answers with a head and then copies both ways until both sides have ended, or
// nothing has passed for the tunnel timeout (RFC 9110 sections 7.8 and 9.3.6).
func (o *writer) tunnel(ctx context.Context, resp *message.Response) error {
	up := resp.Upgrade
	defer up.Close()
	switch {
	case resp.Status == http.StatusSwitchingProtocols && o.r.ProtoMajor == 1 && o.r.ProtoMinor == 1:
	case resp.Status >= 200 && resp.Status < 300 && o.r.Method == http.MethodConnect:
	default:
		return errTunnel
	}
	if o.r.ProtoMajor > 1 {
		o.writeHead(resp)
		if err := o.flush(); err != nil {
			return err
		}
		return o.pump(ctx, o.r.Body, streamEnd{o}, up)
	}
	nc, buf, err := o.rc.Hijack()
	if err != nil {
		return err
	}
	if o.h.unhook != nil {
		defer o.h.unhook()
	}
	defer nc.Close()
	_ = nc.SetDeadline(time.Time{})
	o.status, o.head = resp.Status, headSize(&resp.Fields)
	fmt.Fprintf(buf, "HTTP/1.1 %d %s\r\n", resp.Status, http.StatusText(resp.Status))
	for i := range resp.Len() {
		id, name, value := resp.At(i)
		if !id.PerHop() {
			fmt.Fprintf(buf, "%s: %s\r\n", name, value)
		} else if id == message.Upgrade && resp.Status == http.StatusSwitchingProtocols {
			fmt.Fprintf(buf, "Upgrade: %s\r\nConnection: Upgrade\r\n", value)
		}
	}
	if _, err := buf.WriteString("\r\n"); err != nil {
		return err
	}
	if err := buf.Flush(); err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = nc.Close() })
	defer stop()
	return o.pump(ctx, buf.Reader, nc, up)
}

// streamEnd is the client's side of a tunnel in an HTTP/2 or 3 stream.
type streamEnd struct{ o *writer }

func (s streamEnd) Write(b []byte) (int, error) {
	if n, err := s.o.w.Write(b); err != nil {
		return n, err
	}
	return len(b), s.o.rc.Flush()
}

// Close wakes the read of the client's side.
func (s streamEnd) Close() error {
	return errors.Join(s.o.rc.SetReadDeadline(time.Unix(1, 0)), s.o.rc.SetWriteDeadline(time.Unix(1, 0)))
}

// pump copies both ways. The end of one side is passed on when the other can be half
// closed; else it ends the tunnel.
func (o *writer) pump(ctx context.Context, from io.Reader, to io.WriteCloser, up io.ReadWriteCloser) error {
	var passed atomic.Int64
	over := sync.OnceFunc(func() { _, _ = up.Close(), to.Close() })
	stop := context.AfterFunc(ctx, over)
	defer func() {
		if !stop() {
			over() // waits: a stream must not be touched after its handler
		}
	}()
	var idle sync.WaitGroup
	defer idle.Wait()
	done := make(chan struct{})
	defer close(done)
	if d := o.h.a.cfg.Timeouts.Tunnel; d > 0 {
		idle.Go(func() { watch(d, &passed, done, over) })
	}
	var sent int64
	var wg sync.WaitGroup
	wg.Go(func() {
		if pass(up, from, &passed, new(int64)) != nil || !closeWrite(up) {
			over()
		}
	})
	err := pass(to, up, &passed, &sent)
	if err != nil || !closeWrite(to) {
		over()
	}
	wg.Wait()
	o.body = sent
	if err != nil && ctx.Err() == nil {
		return err
	}
	return nil
}

// watch calls over when nothing has passed for at least d, at most 2 d.
func watch(d time.Duration, passed *atomic.Int64, done <-chan struct{}, over func()) {
	tick := time.NewTicker(d)
	defer tick.Stop()
	for last := int64(-1); ; {
		select {
		case <-done:
			return
		case <-tick.C:
		}
		now := passed.Load()
		if now == last {
			over()
			return
		}
		last = now
	}
}

// pass copies until from ends, and counts.
func pass(to io.Writer, from io.Reader, passed *atomic.Int64, n *int64) error {
	b := make([]byte, chunk)
	for {
		r, err := from.Read(b)
		if r > 0 {
			passed.Add(int64(r))
			w, werr := to.Write(b[:r])
			*n += int64(w)
			if werr != nil {
				return werr
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func closeWrite(c any) bool {
	h, ok := c.(interface{ CloseWrite() error })
	return ok && h.CloseWrite() == nil
}
