package image

import (
	"bytes"

	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/http/syntax"
)

// types are those of the formats.
var types = [formats]string{jpegFormat: "image/jpeg", pngFormat: "image/png", webpFormat: "image/webp", avifFormat: "image/avif"}

func set(f *message.Fields, id message.ID, value string) {
	f.Del(id)
	f.AddString(id, value)
}

// describe makes the fields of an answer those of a variant.
func (l *local) describe(resp *message.Response, f format, variant []byte) {
	set(&resp.Fields, message.ContentType, types[f])
	resp.Del(message.ContentLength)
	resp.Del(message.ContentLocation) // it names the original
	for _, name := range [...]string{"Content-Digest", "Repr-Digest", "Digest", "Content-MD5"} {
		resp.DelLine(name) // of other bytes
	}
	if tag := resp.Get(message.ETag); tag != nil {
		l.tag = appendMarked(l.tag[:0], tag, variant)
		resp.Set(message.ETag, l.tag)
	}
}

// A variant's tag is W/"opaque~variant", and W/"opaque~variant.w" where the original's is weak: another version of
// this program may make other bytes of the same original.
const (
	mark    = '~'
	wasWeak = ".w"
)

// appendMarked appends the original's tag as that of a variant. What is no entity tag is appended as it is.
func appendMarked(dst, tag, variant []byte) []byte {
	opaque, weak, ok := syntax.EntityTag(tag)
	if !ok {
		return append(dst, tag...)
	}
	dst = append(dst, `W/"`...)
	dst = append(dst, opaque...)
	dst = append(dst, mark)
	dst = append(dst, variant...)
	if weak {
		dst = append(dst, wasWeak...)
	}
	return append(dst, '"')
}

// unmark takes the mark of a variant off an opaque tag; false when it has none, or that of another variant.
func unmark(opaque, variant []byte) (own []byte, weak, ok bool) {
	i := bytes.LastIndexByte(opaque, mark)
	if i < 0 {
		return opaque, false, false
	}
	name, weak := bytes.CutSuffix(opaque[i+1:], []byte(wasWeak))
	return opaque[:i], weak, bytes.Equal(name, variant)
}

// others says whether a tag is that of some variant.
func others(opaque []byte) bool {
	i := bytes.LastIndexByte(opaque, mark)
	if i < 0 {
		return false
	}
	_, ok := parseVariant(bytes.TrimSuffix(opaque[i+1:], []byte(wasWeak)))
	return ok
}

// restore puts the original's tag into a precondition of the request that is sent, in the place of the variant's. The
// tags of other variants are left out: a 304 to one would say that somebody has this one. The original's own
// stays: who has it for this variant got the original as it is.
func (l *local) restore(f *message.Fields, id message.ID, variant []byte) {
	if !f.Has(id) {
		return
	}
	l.tag = l.tag[:0]
	for i := f.Next(id, 0); i >= 0; i = f.Next(id, i+1) {
		_, _, list := f.At(i)
		for len(list) > 0 {
			var member []byte
			member, list = syntax.NextTag(list)
			if string(syntax.Trim(member)) == "*" {
				return
			}
			opaque, _, ok := syntax.EntityTag(member)
			if !ok {
				continue
			}
			own, weak, ours := unmark(opaque, variant)
			if !ours && others(opaque) {
				continue
			}
			if len(l.tag) > 0 {
				l.tag = append(l.tag, ", "...)
			}
			if !ours {
				l.tag = append(l.tag, syntax.Trim(member)...)
				continue
			}
			if weak {
				l.tag = append(l.tag, "W/"...)
			}
			l.tag = append(l.tag, '"')
			l.tag = append(l.tag, own...)
			l.tag = append(l.tag, '"')
		}
	}
	f.Del(id)
	if len(l.tag) > 0 {
		f.Add(id, l.tag)
	}
}

// remark gives a 304 the tag of the variant.
func (l *local) remark(f, asked *message.Fields, variant []byte) {
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
			if own, _, ours := unmark(opaque, variant); ours && bytes.Equal(own, tag) {
				l.tag = append(l.tag[:0], syntax.Trim(member)...)
				f.Set(message.ETag, l.tag)
				return
			}
		}
	}
}

// withoutAccept takes Accept out of Vary: the origin was sent one for all, and which format a client gets is in
// the key and told by Ask.
func withoutAccept(f *message.Fields) {
	if !f.Lists(message.Vary, "accept") {
		return
	}
	var rest []byte
	for i := f.Next(message.Vary, 0); i >= 0; i = f.Next(message.Vary, i+1) {
		_, _, v := f.At(i)
		for len(v) > 0 {
			var name []byte
			name, v = syntax.NextItem(v)
			if len(name) == 0 || message.EqualFold(name, "accept") {
				continue
			}
			if len(rest) > 0 {
				rest = append(rest, ", "...)
			}
			rest = append(rest, name...)
		}
	}
	f.Del(message.Vary)
	if len(rest) > 0 {
		f.Add(message.Vary, rest)
	}
}

// shorten leaves an answer fresh for seconds, with other caches and browsers too. What may not be stored, or not
// used without being asked for, stays so.
func shorten(f *message.Fields, targeted []string) {
	if v := f.Get(message.CacheControl); v != nil && !strict(v) {
		public := f.Lists(message.CacheControl, "public")
		f.Del(message.CacheControl)
		f.Del(message.Expires)
		if public {
			f.AddString(message.CacheControl, "public, max-age=10")
		} else {
			f.AddString(message.CacheControl, "max-age=10")
		}
	}
	for _, name := range targeted {
		if v := f.Lookup(name); v != nil && !strict(v) {
			f.SetLine(name, []byte("max-age=10"))
		}
	}
}

// strict says whether directives forbid storing, or use without validation.
func strict(v []byte) bool {
	v = bytes.ToLower(v)
	return bytes.Contains(v, []byte("no-store")) || bytes.Contains(v, []byte("no-cache")) || bytes.Contains(v, []byte("private"))
}
