package cache

import (
	"context"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/relais-edge/relais/internal/edge/cache/semantics"
	"github.com/relais-edge/relais/internal/edge/cache/store/segment"
	"github.com/relais-edge/relais/internal/http/message"
)

// piece is a part of a representation that is stored in part: its bytes from first on.
type piece struct {
	first int64
	data  []byte
}

func (p *piece) end() int64 { return p.first + int64(len(p.data)) }

func (p *stretch) end() int64 { return p.first + p.length }

// maxParts bounds the parts of one stored answer.
const maxParts = 64

// partial says whether only parts of the body are stored.
func (o *object) partial() bool { return o.numParts() > 0 }

func (o *object) numParts() int { return max(len(o.parts), len(o.lay)) }

// part is where part i lies in the whole.
func (o *object) part(i int) stretch {
	if len(o.parts) > 0 {
		return stretch{o.parts[i].first, int64(len(o.parts[i].data))}
	}
	return o.lay[i]
}

// stored is how many bytes the parts have.
func (o *object) stored() (n int64) {
	for i := range o.numParts() {
		n += o.part(i).length
	}
	return n
}

// has says whether the bytes of a span are stored, in one part or in several that touch.
func (o *object) has(s semantics.Span) bool {
	at := s.First
	for i := range o.numParts() {
		if p := o.part(i); p.first <= at && at < p.end() {
			at = p.end()
		}
	}
	return at > s.Last
}

// chunk is bytes of a body: in data or, when that is nil, n bytes from off on of the record that is held.
type chunk struct {
	data   []byte
	off, n int64
}

func (c *chunk) len() int64 {
	if c.data != nil {
		return int64(len(c.data))
	}
	return c.n
}

// pieces appends the stored bytes of a span, which has says are there.
func (o *object) pieces(dst []chunk, s semantics.Span) []chunk {
	if !o.partial() {
		if o.body == nil {
			return append(dst, chunk{off: s.First, n: s.Len()})
		}
		return append(dst, chunk{data: o.body[s.First : s.Last+1]})
	}
	at, before := s.First, int64(0)
	for i := range o.numParts() {
		p := o.part(i)
		if p.first <= at && at < p.end() && at <= s.Last {
			end := min(p.end(), s.Last+1)
			c := chunk{off: before + at - p.first, n: end - at}
			if len(o.parts) > 0 {
				c.data = o.parts[i].data[at-p.first : end-p.first]
			}
			dst = append(dst, c)
			at = end
		}
		before += p.length
	}
	return dst
}

// load makes the parts of a stored object parts in memory of their own.
func (o *object) load() (parts []piece, err error) {
	if len(o.parts) > 0 {
		return o.parts, nil
	}
	off := int64(0)
	for _, p := range o.lay {
		b := make([]byte, p.length)
		if _, err := o.hold.readAt(b, off); err != nil {
			return nil, err
		}
		parts = append(parts, piece{p.first, b})
		off += p.length
	}
	return parts, nil
}

// missing is the span from the first gap to the end of the last one.
func (o *object) missing() semantics.Span {
	s := semantics.Span{First: 0, Last: o.size - 1}
	n := o.numParts()
	if p := o.part(0); p.first == 0 {
		s.First = p.end()
		for i := 1; i < n && o.part(i).first == s.First; i++ {
			q := o.part(i)
			s.First = q.end()
		}
	}
	for i := n - 1; i >= 0; i-- {
		p := o.part(i)
		if p.end() != s.Last+1 {
			break
		}
		s.Last = p.first - 1
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
// many parts, or the old ones cannot be read.
func union(old, fresh *object) (parts []piece, whole []byte, ok bool) {
	had, err := old.load()
	if err != nil {
		return nil, nil, false
	}
	parts = append(parts, fresh.parts...)
	for _, p := range had {
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

// piecewise is a body that is stored, in several pieces. It implements message.FileBody and message.Prompt.
type piecewise struct {
	rest []chunk
	hold *hold // of those pieces that are not in memory of their own
	bufs *sync.Pool
	buf  *[readBlock]byte
	one  [1]chunk

	sent *atomic.Int64 // counts what NextFile gave
}

// readBlock is what is read of a disk at once: what has one checksum.
const readBlock = 64 << 10

func (b *piecewise) length() (n int64) {
	for i := range b.rest {
		n += b.rest[i].len()
	}
	return n
}

// Next implements message.Body.
func (b *piecewise) Next(context.Context) ([]byte, error) {
	if len(b.rest) == 0 {
		b.done()
		return nil, io.EOF
	}
	c := &b.rest[0]
	p, err := c.data, error(nil)
	if p == nil {
		if p, err = b.read(c.off, c.n); err != nil {
			return nil, err
		}
		c.off, c.n = c.off+int64(len(p)), c.n-int64(len(p))
	}
	if c.data != nil || c.n == 0 {
		b.rest = b.rest[1:]
	}
	if len(b.rest) == 0 {
		err = io.EOF
	}
	return p, err
}

// leastFile is the least of a body that is sent from a file rather than read and written: below, what
// the kernel needs to name pages is more than a copy costs.
const leastFile = 16 << 10

// NextFile implements message.FileBody.
func (b *piecewise) NextFile(_ context.Context, r *message.FileRange) (bool, error) {
	if len(b.rest) == 0 || b.rest[0].data != nil || b.rest[0].n < leastFile || b.hold.ref.InMemory() {
		return false, nil
	}
	c := &b.rest[0]
	var span segment.Span
	if ok, err := b.hold.file(c.off, min(c.n, maxChunk), &span); !ok || err != nil {
		return false, err
	}
	r.Lead, r.File, r.Off, r.Len = span.Lead, span.File, span.At, span.Len
	n := int64(len(r.Lead)) + r.Len
	b.sent.Add(n)
	if c.off, c.n = c.off+n, c.n-n; c.n == 0 {
		b.rest = b.rest[1:]
	}
	if len(b.rest) == 0 {
		return true, io.EOF
	}
	return true, nil
}

// read lends some of the next n bytes of the record from off on.
func (b *piecewise) read(off, n int64) ([]byte, error) {
	if p, ok := b.hold.ref.Slice(off, min(n, maxChunk)); ok {
		if len(p) == 0 && n > 0 {
			return nil, io.ErrUnexpectedEOF
		}
		return p, nil
	}
	if b.buf == nil {
		b.buf = b.bufs.Get().(*[readBlock]byte)
	}
	p := b.buf[:min(n, readBlock-off%readBlock)]
	if _, err := b.hold.readAt(p, off); err != nil {
		return nil, err
	}
	return p, nil
}

func (b *piecewise) done() {
	if b.buf != nil {
		b.bufs.Put(b.buf)
		b.buf = nil
	}
}

// Ready implements message.Prompt.
func (b *piecewise) Ready() bool { return true }

// Close implements message.Body.
func (b *piecewise) Close(error) {
	b.rest = nil
	b.done()
}

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
		chunk, err := b.before.Next(ctx)
		if err == io.EOF {
			err = nil
		}
		return chunk, err
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
	b.before.Close(cause)
	b.after.Close(cause)
	if b.inner != nil {
		b.inner.Close(cause)
		b.inner = nil
	}
}
