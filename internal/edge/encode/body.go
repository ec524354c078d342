package encode

import (
	"context"
	"io"

	"github.com/relais-edge/relais/internal/http/message"
)

const (
	// maxOutput is what is gathered at most before it is sent, and maxInput what is fed for it,
	// while more of the answer is at hand.
	maxOutput = 32 << 10
	maxInput  = 256 << 10
)

// body compresses an answer as it comes. It implements message.Body and message.Prompt.
type body struct {
	s      *Stage
	inner  message.Body
	prompt message.Prompt // inner, where chunks that are at hand may be sent together
	enc    encoder
	coding coding
	level  level
	events bool
	out    buffer
	ended  bool
}

// buffer is what the encoder writes to.
type buffer struct{ b []byte }

func (w *buffer) Write(p []byte) (int, error) {
	w.b = append(w.b, p...)
	return len(p), nil
}

// Next implements message.Body.
func (b *body) Next(ctx context.Context) ([]byte, error) {
	if b.ended {
		return nil, io.EOF
	}
	b.out.b = b.out.b[:0]
	for fed := 0; ; {
		chunk, err := b.inner.Next(ctx)
		if err != nil && err != io.EOF {
			return nil, err
		}
		if len(chunk) > 0 {
			fed += len(chunk)
			if _, werr := b.enc.Write(chunk); werr != nil {
				return nil, werr
			}
		}
		if err == io.EOF {
			return b.end(fed)
		}
		if b.prompt != nil && fed < maxInput && len(b.out.b) < maxOutput && b.prompt.Ready() {
			continue
		}
		if fed > 0 && (b.prompt == nil || !b.prompt.Ready()) {
			if werr := b.enc.Flush(); werr != nil {
				return nil, werr
			}
		}
		if len(b.out.b) > 0 {
			b.s.count(b.coding, fed, len(b.out.b))
			return b.out.b, nil
		}
	}
}

// end writes the coding's own end.
func (b *body) end(fed int) ([]byte, error) {
	b.ended = true
	if err := b.enc.Close(); err != nil {
		return nil, err
	}
	b.s.count(b.coding, fed, len(b.out.b))
	b.release()
	return b.out.b, io.EOF
}

func (b *body) release() {
	if b.enc != nil {
		b.s.encoders.give(b.enc, b.coding, b.level, b.events)
		b.enc = nil
	}
}

// Close implements message.Body.
func (b *body) Close(cause error) {
	b.ended = true
	b.release()
	if b.inner != nil {
		b.inner.Close(cause)
		b.inner = nil
	}
}

// Ready implements message.Prompt. With nothing at hand the head of the answer goes first.
func (b *body) Ready() bool {
	if b.ended {
		return true
	}
	p, ok := b.inner.(message.Prompt)
	return ok && p.Ready()
}
