package syntax

import "bytes"

// EntityTag reads one entity tag (RFC 9110 section 8.8.3). Opaque is without its quotation marks, of which it holds none.
func EntityTag(v []byte) (opaque []byte, weak, ok bool) {
	v = Trim(v)
	if len(v) > 1 && v[0] == 'W' && v[1] == '/' {
		weak, v = true, v[2:]
	}
	if len(v) < 2 || v[0] != '"' || v[len(v)-1] != '"' || bytes.IndexByte(v[1:len(v)-1], '"') >= 0 {
		return nil, false, false
	}
	return v[1 : len(v)-1], weak, true
}

// NextTag cuts the first member off a list of entity tags. A comma inside quotation marks is no end; both marks of a tag
// are the same character, and nothing in it is escaped.
func NextTag(list []byte) (member, rest []byte) {
	quoted := false
	for i, b := range list {
		switch {
		case b == '"':
			quoted = !quoted
		case b == ',' && !quoted:
			return list[:i], list[i+1:]
		}
	}
	return list, nil
}
