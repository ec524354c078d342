package encode

import (
	"bytes"

	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/http/syntax"
)

// A marked tag is W/"opaque~coding", and W/"opaque~coding.w" where the origin's own is weak.
const (
	mark     = '~'
	wasWeak  = ".w"
	weakMark = `W/"`
)

// appendMarked appends tag as that of the same answer in another coding. What is no entity
// tag is appended as it is.
func appendMarked(dst, tag []byte, c coding) []byte {
	opaque, weak, ok := syntax.EntityTag(tag)
	if !ok {
		return append(dst, tag...)
	}
	dst = append(dst, weakMark...)
	dst = append(dst, opaque...)
	dst = append(dst, mark)
	dst = append(dst, codingNames[c]...)
	if weak {
		dst = append(dst, wasWeak...)
	}
	return append(dst, '"')
}

// unmark takes our mark off an opaque tag, and says whether the origin's own was weak. The
// coding is identity when there is no mark.
func unmark(opaque []byte) (own []byte, c coding, weak bool) {
	i := bytes.LastIndexByte(opaque, mark)
	if i < 0 {
		return opaque, identity, false
	}
	name := opaque[i+1:]
	if weak = bytes.HasSuffix(name, []byte(wasWeak)); weak {
		name = name[:len(name)-len(wasWeak)]
	}
	for c = zstdCoding; c < codings; c++ {
		if string(name) == codingNames[c] {
			return opaque[:i], c, weak
		}
	}
	return opaque, identity, false
}

// restore puts the origin's own tags into a precondition of the request that is sent.
func (l *local) restore(f *message.Fields, id message.ID) {
	v := f.Get(id)
	if bytes.IndexByte(v, mark) < 0 || f.Count(id) != 1 {
		return
	}
	l.buf = l.buf[:0]
	marked := false
	for list := v; len(list) > 0; {
		var member []byte
		member, list = syntax.NextTag(list)
		member = syntax.Trim(member)
		if len(member) == 0 {
			continue
		}
		if len(l.buf) > 0 {
			l.buf = append(l.buf, ", "...)
		}
		opaque, _, ok := syntax.EntityTag(member)
		own, c, weak := unmark(opaque)
		if !ok || c == identity {
			l.buf = append(l.buf, member...)
			continue
		}
		marked = true
		if weak {
			l.buf = append(l.buf, "W/"...)
		}
		l.buf = append(l.buf, '"')
		l.buf = append(l.buf, own...)
		l.buf = append(l.buf, '"')
	}
	if marked {
		f.Set(id, l.buf)
	}
}

// remark gives a 304 the tag with which the client asked, where that was one of ours.
func (l *local) remark(f, asked *message.Fields) {
	tag, _, ok := syntax.EntityTag(f.Get(message.ETag))
	if !ok {
		return
	}
	for i := asked.Next(message.IfNoneMatch, 0); i >= 0; i = asked.Next(message.IfNoneMatch, i+1) {
		_, _, list := asked.At(i)
		for len(list) > 0 {
			var member []byte
			member, list = syntax.NextTag(list)
			opaque, _, ok := syntax.EntityTag(member)
			if !ok {
				continue
			}
			if own, c, _ := unmark(opaque); c != identity && bytes.Equal(own, tag) {
				l.buf = append(l.buf[:0], syntax.Trim(member)...)
				f.Set(message.ETag, l.buf)
				return
			}
		}
	}
}
