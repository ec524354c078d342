package cache

import (
	"context"
	"io"
	"slices"
	"time"

	"github.com/relais-edge/relais/internal/edge/cache/semantics"
	"github.com/relais-edge/relais/internal/http/message"
)

// piece is a part of a representation that is stored in part: its bytes from first on.
type piece struct {
	first int64
	data  []byte
}

func (p *piece) end() int64 { return p.first + int64(len(p.data)) }

// maxParts bounds the parts of one stored answer.
const maxParts = 64

// partial says whether only parts of the body are stored.
func (o *object) partial() bool { return o.parts != nil }

// stored is how many bytes the parts have.
func (o *object) stored() (n int64) {
	for i := range o.parts {
		n += int64(len(o.parts[i].data))
	}
	return n
}

// has says whether the bytes of a span are stored, in one part or in several that touch.
func (o *object) has(s semantics.Span) bool {
	at := s.First
	for i := range o.parts {
		if p := &o.parts[i]; p.first <= at && at < p.end() {
			at = p.end()
		}
	}
	return at > s.Last
}

// pieces appends the stored bytes of a span, which has says are there.
func (o *object) pieces(dst [][]byte, s semantics.Span) [][]byte {
	if !o.partial() {
		return append(dst, o.body[s.First:s.Last+1])
	}
	at := s.First
	for i := range o.parts {
		if p := &o.parts[i]; p.first <= at && at < p.end() && at <= s.Last {
			end := min(p.end(), s.Last+1)
			dst = append(dst, p.data[at-p.first:end-p.first])
			at = end
		}
	}
	return dst
}

// missing is the span from the first gap to the end of the last one.
func (o *object) missing() semantics.Span {
	s := semantics.Span{First: 0, Last: o.size - 1}
	if p := &o.parts[0]; p.first == 0 {
		s.First = p.end()
		for i := 1; i < len(o.parts) && o.parts[i].first == s.First; i++ {
			s.First = o.parts[i].end()
		}
	}
	for i := len(o.parts) - 1; i >= 0 && o.parts[i].end() == s.Last+1; i-- {
		s.Last = o.parts[i].first - 1
	}
	return s
}

// serves says whether what is stored of a partial answer is all that the request asks for.
func (o *object) serves(in *message.Request, now time.Time) bool {
	if semantics.Conditional(&in.Fields) && semantics.NotModified(&in.Fields, &o.fields, time.Unix(0, o.Came), now) {
		return true
	}
	if in.Method != message.GET {
		return true // HEAD: the fields are those of the whole
	}
	kind, first, last := semantics.Range(&in.Fields, &o.fields, o.size, now)
	return kind == semantics.Unsatisfiable || kind == semantics.Part && o.has(semantics.Span{First: first, Last: last})
}

// union puts the parts of two answers of one representation together; where both have a byte the
// newer counts. When nothing is missing it is the whole body. It is false when there would be too
// many parts.
func union(old, fresh *object) (parts []piece, whole []byte, ok bool) {
	parts = append(parts, fresh.parts...)
	for _, p := range old.parts {
		parts = cutOut(parts, p)
	}
	slices.SortFunc(parts, func(a, b piece) int { return int(min(max(a.first-b.first, -1), 1)) })
	at := int64(0)
	for i := range parts {
		if parts[i].first == at {
			at = parts[i].end()
		}
	}
	if at != fresh.size {
		return parts, nil, len(parts) <= maxParts
	}
	whole = make([]byte, 0, fresh.size)
	for i := range parts {
		whole = append(whole, parts[i].data...)
	}
	return nil, whole, true
}

// cutOut appends what of p the parts before do not have.
func cutOut(parts []piece, p piece) []piece {
	rest := []piece{p}
	for i := range parts {
		q := &parts[i]
		var next []piece
		for _, r := range rest {
			if r.end() <= q.first || r.first >= q.end() {
				next = append(next, r)
				continue
			}
			if r.first < q.first {
				next = append(next, piece{r.first, slices.Clone(r.data[:q.first-r.first])})
			}
			if r.end() > q.end() {
				next = append(next, piece{q.end(), slices.Clone(r.data[q.end()-r.first:])})
			}
		}
		rest = next
	}
	return append(parts, rest...)
}

// piecewise is a body that is in memory in several pieces. It implements message.Body and
// message.Prompt.
type piecewise struct{ rest [][]byte }

func (b *piecewise) length() (n int64) {
	for _, p := range b.rest {
		n += int64(len(p))
	}
	return n
}

// Next implements message.Body.
func (b *piecewise) Next(context.Context) ([]byte, error) {
	if len(b.rest) == 0 {
		return nil, io.EOF
	}
	p := b.rest[0]
	b.rest = b.rest[1:]
	if len(b.rest) == 0 {
		return p, io.EOF
	}
	return p, nil
}

// Ready implements message.Prompt.
func (b *piecewise) Ready() bool { return true }

// Close implements message.Body.
func (b *piecewise) Close(error) { b.rest = nil }

// spliced is the body of an answer that was completed: stored bytes, those that the origin sent for
// what was missing, and stored bytes again. It implements message.Body.
type spliced struct {
	before, after piecewise
	inner         message.Body
	left          int64 // bytes that the inner body has still to give
}

// Next implements message.Body.
func (b *spliced) Next(ctx context.Context) ([]byte, error) {
	if len(b.before.rest) > 0 {
		chunk, _ := b.before.Next(ctx)
		return chunk, nil
	}
	if b.inner == nil {
		return b.after.Next(ctx)
	}
	chunk, err := b.inner.Next(ctx)
	b.left -= int64(len(chunk))
	switch {
	case b.left < 0 || err == io.EOF && b.left > 0:
		return nil, errTruncated
	case err == io.EOF:
		b.inner.Close(nil)
		b.inner = nil
		if len(b.after.rest) > 0 {
			err = nil
		}
	}
	return chunk, err
}

// Close implements message.Body.
func (b *spliced) Close(cause error) {
	if b.inner != nil {
		b.inner.Close(cause)
		b.inner = nil
	}
}
