package cache

import (
	"context"
	"io"
	"slices"

	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/stage"
)

// body is the body of a flight's answer as it grows.
type body struct {
	buf     []byte
	base    int64 // of buf in the body; more than 0 only when it is not stored
	total   int64 // -1 when not known
	charged int64 // bytes counted in Stage.buffered
	held    int64 // where the last piece of a stored body begins, once it has its length
	stored  bool  // all of it is kept; else only what a reader has still to get
	done    bool
	err     error // why it ended early
	readers []*reader
}

// visible is how much of the body its readers may have. The last piece of one whose length is known is theirs only once
// it is stored: else who has it whole and asks again could ask before. The lock is held.
func (b *body) visible() int64 {
	have := b.base + int64(len(b.buf))
	if b.stored && !b.done && have == b.total {
		return b.held
	}
	return have
}

// reader is a client's view of a flight's body. It implements message.Body
// and message.Prompt.
type reader struct {
	fl   *flight
	off  int64
	end  int64 // -1: the end of the body
	err  error
	shut bool
}

// maxChunk bounds what one Next lends.
const maxChunk = 128 << 10

// Next implements message.Body.
func (r *reader) Next(ctx context.Context) ([]byte, error) {
	fl := r.fl
	for {
		fl.mu.Lock()
		b := &fl.body
		have := b.visible()
		if r.err != nil {
			fl.mu.Unlock()
			return nil, r.err
		}
		stop := have
		if r.end >= 0 {
			stop = min(stop, r.end)
		}
		if n := min(stop-r.off, maxChunk); n > 0 {
			at := r.off - b.base
			chunk := b.buf[at : at+n : at+n]
			r.off += n
			if !b.stored {
				fl.changed() // there may be room now
			}
			last := r.off == r.end || b.done && b.err == nil && r.off == have
			fl.mu.Unlock()
			if last {
				return chunk, io.EOF
			}
			return chunk, nil
		}
		if r.off == r.end || b.done {
			err := b.err
			fl.mu.Unlock()
			if err != nil && r.off != r.end {
				return nil, err
			}
			return nil, io.EOF
		}
		wake := fl.sleep()
		fl.mu.Unlock()
		select {
		case <-wake:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// Ready implements message.Prompt.
func (r *reader) Ready() bool {
	r.fl.mu.Lock()
	defer r.fl.mu.Unlock()
	b := &r.fl.body
	return r.err != nil || b.done || r.off == r.end || b.visible() > r.off
}

// Close implements message.Body.
func (r *reader) Close(error) {
	fl := r.fl
	fl.mu.Lock()
	defer fl.mu.Unlock()
	if r.shut {
		return
	}
	r.shut = true
	fl.drop(r)
	fl.lessToWaitFor()
}

func (fl *flight) drop(r *reader) {
	if i := slices.Index(fl.body.readers, r); i >= 0 {
		fl.body.readers = slices.Delete(fl.body.readers, i, i+1)
	}
}

// open gives a client its part of the body. False says that the beginning is gone.
func (fl *flight) open(x *stage.Exchange, l *local, f *form) bool {
	resp, m := &x.Response, x.In.Method
	if fl.validated {
		l.keepHold(x, fl.obj)
		fl.s.setContent(x, l, f, fl.obj)
		return true
	}
	fl.mu.Lock()
	defer fl.mu.Unlock()
	b := &fl.body
	switch {
	case message.NoBody(m, resp.Status) || f.length == 0:
		return true
	case b.base > f.first:
		return false
	case b.done && b.err == nil && b.base == 0:
		f.setBody(resp, m, b.buf)
		return true
	}
	end := int64(-1)
	if f.length >= 0 {
		end = f.first + f.length
	}
	r := &reader{fl: fl, off: f.first, end: end}
	b.readers = append(b.readers, r)
	resp.Body = r
	return true
}
