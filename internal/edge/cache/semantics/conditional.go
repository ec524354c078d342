package semantics

import (
	"bytes"
	"time"

	"github.com/relais-edge/relais/internal/http/message"
)

// Conditional says whether the request has a condition that a cache may answer.
func Conditional(req *message.Fields) bool {
	return req.Has(message.IfNoneMatch) || req.Has(message.IfModifiedSince)
}

// ForOrigin says whether the request has a condition that only an origin may judge (RFC 9111
// section 4.3.2).
func ForOrigin(req *message.Fields) bool {
	return req.Has(message.IfMatch) || req.Has(message.IfUnmodifiedSince)
}

// NotModified says whether a stored 200 answers the conditions of a GET or HEAD with a 304
// (RFC 9111 section 4.3.2, RFC 9110 section 13.2.2). Came is when the answer came.
func NotModified(req, stored *message.Fields, came, now time.Time) bool {
	if req.Has(message.IfNoneMatch) {
		tag := stored.Get(message.ETag)
		for i := req.Next(message.IfNoneMatch, 0); i >= 0; i = req.Next(message.IfNoneMatch, i+1) {
			_, _, v := req.At(i)
			if matchesAny(v, tag) {
				return true
			}
		}
		return false
	}
	since, ok := dateOf(req, message.IfModifiedSince, now)
	if !ok || req.Count(message.IfModifiedSince) > 1 {
		return false
	}
	if t, ok := dateOf(stored, message.LastModified, now); ok {
		return t <= since
	}
	if t, ok := dateOf(stored, message.Date, now); ok {
		return t <= since
	}
	return came.Unix() <= since
}

// matchesAny says whether a list of entity-tags has one that is weakly equal to tag, or is "*"
// (RFC 9110 section 13.1.2).
func matchesAny(list, tag []byte) bool {
	if b := trim(list); len(b) == 1 && b[0] == '*' {
		return true
	}
	opaque, _, ok := entityTag(tag)
	if !ok {
		return false
	}
	for {
		for len(list) > 0 && (list[0] == ',' || list[0] == ' ' || list[0] == '\t') {
			list = list[1:]
		}
		if len(list) == 0 {
			return false
		}
		n := tagLen(list)
		if n == 0 {
			// Not an entity-tag: go on behind the next comma.
			i := bytes.IndexByte(list, ',')
			if i < 0 {
				return false
			}
			list = list[i:]
			continue
		}
		o, _, _ := entityTag(list[:n])
		if bytes.Equal(o, opaque) {
			return true
		}
		list = list[n:]
	}
}

// entityTag reads a whole entity-tag (RFC 9110 section 8.8.3); opaque has its quotes.
func entityTag(b []byte) (opaque []byte, weak, ok bool) {
	b = trim(b)
	if n := tagLen(b); n == 0 || n != len(b) {
		return nil, false, false
	}
	if b[0] == 'W' {
		return b[2:], true, true
	}
	return b, false, true
}

// tagLen is the length of the entity-tag at the start of b, or 0.
func tagLen(b []byte) int {
	i := 0
	if len(b) > 2 && b[0] == 'W' && b[1] == '/' {
		i = 2
	}
	if i >= len(b) || b[i] != '"' {
		return 0
	}
	for i++; i < len(b); i++ {
		switch c := b[i]; {
		case c == '"':
			return i + 1
		case c < 0x21 || c == 0x7f:
			return 0
		}
	}
	return 0
}

// AddValidators makes a request ask whether the stored answer is still good (RFC 9111 section
// 4.3.1). It is false when the answer has no validator.
func AddValidators(req, stored *message.Fields) bool {
	tag, modified := stored.Get(message.ETag), stored.Get(message.LastModified)
	if len(tag) > 0 {
		req.Set(message.IfNoneMatch, tag)
	}
	if len(modified) > 0 {
		req.Set(message.IfModifiedSince, modified)
	}
	return len(tag) > 0 || len(modified) > 0
}

// DropConditions takes conditions and ranges off a request, so that its answer is whole.
func DropConditions(req *message.Fields) {
	req.Del(message.IfNoneMatch)
	req.Del(message.IfModifiedSince)
	req.Del(message.IfRange)
	req.Del(message.Range)
}

// Freshens says whether a 304 speaks of the stored answer (RFC 9111 section 4.3.4): its
// validators, if it has any, are not those of another one.
func Freshens(fresh, stored *message.Fields) bool {
	if n := fresh.Get(message.ETag); len(n) > 0 && len(stored.Get(message.ETag)) > 0 {
		a, _, ok1 := entityTag(n)
		b, _, ok2 := entityTag(stored.Get(message.ETag))
		if ok1 && ok2 {
			return bytes.Equal(a, b)
		}
		return bytes.Equal(trim(n), trim(stored.Get(message.ETag)))
	}
	if n, o := fresh.Get(message.LastModified), stored.Get(message.LastModified); len(n) > 0 && len(o) > 0 {
		return bytes.Equal(n, o)
	}
	return true
}

// HeadFreshens says whether a 200 to HEAD speaks of the stored answer, which has length bytes
// (RFC 9111 section 4.3.5).
func HeadFreshens(head, stored *message.Fields, headLength, length int64) bool {
	if headLength >= 0 && headLength != length {
		return false
	}
	if head.Has(message.ETag) && !stored.Has(message.ETag) || head.Has(message.LastModified) && !stored.Has(message.LastModified) {
		return false
	}
	return Freshens(head, stored)
}

// Kept says whether a field of an answer may be stored (RFC 9111 section 3.1). Connection is the
// answer's own; what it names is left out too. Age is counted anew and the framing is made anew.
func Kept(f *message.Fields, id message.ID, name []byte) bool {
	switch id {
	case message.Connection, message.KeepAlive, message.ProxyConnection, message.ProxyAuthenticate,
		message.ProxyAuthorization, message.TE, message.Trailer, message.TransferEncoding, message.Upgrade,
		message.ContentLength, message.Age:
		return false
	case message.Other:
		if fold(name, "proxy-authentication-info") {
			return false
		}
	}
	for i := f.Next(message.Connection, 0); i >= 0; i = f.Next(message.Connection, i+1) {
		if _, _, v := f.At(i); listHas(v, name) {
			return false
		}
	}
	return true
}

// Updates says whether a field of a 304 replaces that of the stored answer (RFC 9111 section
// 3.2): all that are kept, except those that say how the stored body is coded.
func Updates(f *message.Fields, id message.ID, name []byte) bool {
	return id != message.ContentEncoding && id != message.ContentRange && Kept(f, id, name)
}
