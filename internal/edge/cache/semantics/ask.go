package semantics

import (
	"bytes"
	"strings"
)

// Ask makes fields of a request, "Name: value" each, for which an answer with this selector and what
// AppendSelected made of it is. It is false where no request of the edge's own may be made so: the answer is
// for who has a certain Cookie or Authorization, or the text cannot be a field.
func Ask(selector, selected []byte) (fields []string, ok bool) {
	var cookies []string
	for len(selector) > 0 {
		end := bytes.IndexByte(selector, ',')
		if end < 1 {
			return nil, false
		}
		how, name := selector[0], string(selector[1:end])
		selector = selector[end+1:]
		value, rest, found := bytes.Cut(selected, []byte{0})
		selected = rest
		if !found || bytes.ContainsAny(value, "\r\n") || name == "authorization" || name == "cookie" && how != compareCookie {
			return nil, false
		}
		switch {
		case how == compareCodings:
			if len(value) != 1 {
				return nil, false
			}
			if value[0] != codingAbsent {
				fields = append(fields, name+": "+codingList(value[0]))
			}
		case len(value) == 0 || value[0] == '-':
		case how == compareCookie:
			cookies = append(cookies, name+"="+string(value[1:]))
		default:
			fields = append(fields, name+": "+string(value[1:]))
		}
	}
	if len(cookies) > 0 {
		fields = append(fields, "cookie: "+strings.Join(cookies, "; "))
	}
	return fields, true
}

// codingList is an Accept-Encoding that codingsOf reads as b.
func codingList(b byte) string {
	var list []string
	for _, c := range [...]struct {
		bit  byte
		name string
	}{{codingGzip, "gzip"}, {codingBrotli, "br"}, {codingZstd, "zstd"}} {
		if b&c.bit != 0 {
			list = append(list, c.name)
		}
	}
	switch {
	case b&codingNoIdentity != 0:
		list = append(list, "identity;q=0")
	case len(list) == 0:
		list = append(list, "identity")
	}
	return strings.Join(list, ", ")
}
