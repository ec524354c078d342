package image

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strconv"

	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/http/syntax"
	"github.com/relais-edge/relais/internal/stage"
)

// accept is what the origin is told: what can be read here, and else whatever it has. It is the same for all
// clients, so that the origin's own choice by Accept does not split what is stored.
const accept = "image/jpeg, image/png, image/webp, image/gif, image/*;q=0.8, */*;q=0.5"

// Serve implements stage.Stage. Without a variant the request passes.
func (s *Stage) Serve(ctx context.Context, x *stage.Exchange, next stage.Handler) (*message.Response, error) {
	if len(x.Variant) == 0 {
		return next.Serve(ctx, x)
	}
	r := s.rule(x)
	v, ok := parseVariant(x.Variant)
	if r == nil || !ok {
		return next.Serve(ctx, x)
	}
	l := s.local(x)
	out := &x.Out.Fields
	out.Del(message.Range) // of the original, which nobody gets a part of
	out.Del(message.IfRange)
	set(out, message.Accept, accept)
	set(out, message.AcceptEncoding, "identity")
	l.restore(out, message.IfNoneMatch, x.Variant)
	l.restore(out, message.IfMatch, x.Variant)
	resp, err := next.Serve(ctx, x)
	if err != nil {
		return nil, err
	}
	withoutAccept(&resp.Fields)
	if resp.Status == 304 {
		l.remark(&resp.Fields, &x.In.Fields, x.Variant)
		resp.Del(message.ContentType) // it may be the original's, and would become the variant's
		resp.Del(message.ContentLength)
		return resp, nil
	}
	if resp.Status != 200 || x.Out.Method != message.GET || resp.Upgrade != nil || coded(&resp.Fields) || resp.Lists(message.CacheControl, "no-transform") {
		return s.asItIs(x, r, resp, forbidden), nil
	}
	if !maybeImage(resp.Get(message.ContentType)) {
		return s.asItIs(x, r, resp, notImage), nil
	}
	x.MayBlock()
	return s.transform(ctx, x, r, &v, resp), nil
}

// transform makes the variant of an answer, or leaves it as it is.
func (s *Stage) transform(ctx context.Context, x *stage.Exchange, r *rule, v *variant, resp *message.Response) *message.Response {
	src, reserved, o := s.read(ctx, resp, r.maxSource)
	if o != made {
		return s.asItIs(x, r, resp, o)
	}
	j := job{src: src, reserved: reserved, v: v, mayGrow: v.quality == r.base.quality}
	if o = j.prepare(r, s.memory.max); o != made {
		s.memory.give(reserved)
		return s.asItIs(x, r, resp, o)
	}
	organization, _ := x.Site.Key.Split()
	res := s.run(ctx, organization, r.timeout, &j)
	x.Lap()
	if res.outcome != made {
		if res.err != nil {
			x.MarkDetail("image", outcomeNames[res.outcome], res.err.Error())
		}
		return s.asItIs(x, r, resp, res.outcome)
	}
	s.m.answers[made].Inc()
	s.m.formats[res.format].Inc()
	s.m.in.Add(float64(len(src)))
	s.m.out.Add(float64(len(res.bytes)))
	x.MarkDetail("image", "made", string(x.Variant)+" "+formatNames[res.format]+", "+strconv.Itoa(len(src))+" to "+strconv.Itoa(len(res.bytes))+" bytes")
	s.local(x).describe(resp, res.format, x.Variant)
	resp.SetBytes(res.bytes)
	return resp
}

// asItIs sends the original. Where it stands in for what could not be made now, it is stored for a moment only,
// and cannot be validated: it would stay for good.
func (s *Stage) asItIs(x *stage.Exchange, r *rule, resp *message.Response, o outcome) *message.Response {
	s.m.answers[o].Inc()
	x.Mark("image", outcomeNames[o])
	if o.passing() {
		x.Brief = brief
		x.Noted = true
		resp.Del(message.ETag)
		resp.Del(message.LastModified)
		shorten(&resp.Fields, r.targeted)
	}
	return resp
}

// coded says whether an answer has a content coding.
func coded(f *message.Fields) bool {
	v := f.Get(message.ContentEncoding)
	return v != nil && !message.EqualFold(syntax.Trim(v), "identity")
}

// maybeImage says whether an answer of this type is worth reading: picture, or said to be just bytes.
func maybeImage(contentType []byte) bool {
	name, _, _ := bytes.Cut(contentType, semicolon)
	name = syntax.Trim(name)
	return len(name) == 0 || len(name) > 6 && message.EqualFold(name[:6], "image/") && !message.EqualFold(name, "image/svg+xml") ||
		message.EqualFold(name, "application/octet-stream") || message.EqualFold(name, "binary/octet-stream")
}

var (
	errHead = errors.New("only the head of the answer is wanted")
	errLate = errors.New("the picture could not be made in time")
)

// firstRead is the memory that is reserved for an answer of unknown length.
const firstRead = 64 << 10

// read takes the body of an answer into memory, for which reserved bytes of the budget are taken. Unless it is made,
// the answer has its body as before, and nothing is reserved.
func (s *Stage) read(ctx context.Context, resp *message.Response, most int64) (src []byte, reserved int64, o outcome) {
	n := resp.ContentLength
	if resp.Body == nil {
		n = int64(len(resp.Bytes))
	}
	if n > most {
		return nil, 0, tooLarge
	}
	if n < 0 {
		n = firstRead
	}
	if !s.memory.take(n) {
		return nil, 0, busy
	}
	if resp.Body == nil {
		if kindOf(resp.Bytes) == unknown {
			s.memory.give(n)
			return nil, 0, notImage
		}
		return resp.Bytes, n, made
	}
	src = make([]byte, 0, n)
	undo := func(o outcome, err error) ([]byte, int64, outcome) {
		s.memory.give(n)
		resp.Body = &replay{first: src, inner: resp.Body, err: err}
		return nil, 0, o
	}
	for {
		chunk, err := resp.Body.Next(ctx)
		if err != nil && err != io.EOF {
			return undo(damaged, err)
		}
		if more := int64(len(src) + len(chunk)); more > n {
			grown := max(2*n, more)
			if !s.memory.take(grown - n) {
				src = append(src, chunk...)
				return undo(busy, eof(err))
			}
			n = grown
		}
		began := len(src) >= magicLen
		src = append(src, chunk...)
		switch {
		case int64(len(src)) > most:
			return undo(tooLarge, eof(err))
		case !began && (len(src) >= magicLen || err == io.EOF) && kindOf(src) == unknown:
			return undo(notImage, eof(err))
		case err == io.EOF:
			resp.Body.Close(nil)
			resp.Body, resp.Trailer = nil, nil
			resp.SetBytes(src)
			return src, n, made
		}
	}
}

// eof is err where it is the end.
func eof(err error) error {
	if err == io.EOF {
		return err
	}
	return nil
}

// replay gives what was read of a body before its rest. It implements message.Body.
type replay struct {
	first []byte
	inner message.Body
	err   error // in place of the rest
}

// Next implements message.Body.
func (b *replay) Next(ctx context.Context) ([]byte, error) {
	first := b.first
	b.first = nil
	switch {
	case b.err == io.EOF:
		return first, io.EOF
	case len(first) > 0:
		return first, nil
	case b.err != nil:
		return nil, b.err
	}
	return b.inner.Next(ctx)
}

// Close implements message.Body.
func (b *replay) Close(cause error) { b.inner.Close(cause) }
