package semantics

import "github.com/relais-edge/relais/internal/http/message"

// maxGroups bounds the cache groups of one answer (RFC 9875 section 2 asks for 128 at least).
const maxGroups = 128

// Groups calls each for every String of a Cache-Groups or Cache-Group-Invalidation field (RFC 9875
// sections 2, 3), with its escapes undone. It is false when the field is not a List of Strings, or
// too long; then each may have been called. Parameters are ignored.
func Groups(f *message.Fields, id message.ID, each func(group []byte)) bool {
	n := 0
	var room [128]byte
	for i := f.Next(id, 0); i >= 0; i = f.Next(id, i+1) {
		_, _, line := f.At(i)
		p := sfParser{b: line}
		var m member
		for p.nextItem(&m) {
			if n++; n > maxGroups || m.kind != kindString {
				return false
			}
			each(unescape(room[:0], m.text))
		}
		if p.bad {
			return false
		}
	}
	return true
}

// unescape undoes the escapes of a String (RFC 9651 section 3.3.3).
func unescape(dst, s []byte) []byte {
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+1 < len(s) {
			i++
		}
		dst = append(dst, s[i])
	}
	return dst
}

// nextItem reads the next member of a List; false at the end, or with bad set.
func (p *sfParser) nextItem(m *member) bool {
	if !p.separator() {
		return false
	}
	*m = member{}
	p.bad = !p.item(m, true) || !p.parameters()
	return !p.bad
}

// Search says which parts of a query do not choose among answers (No-Vary-Search,
// draft-ietf-httpbis-no-vary-search). The zero Search says that all do.
type Search struct {
	AnyOrder bool // key-order: the order of names means nothing
	All      bool // params: no parameter counts, but those of Names
	// Names are the parameters that do not count, or with All those that do, decoded.
	Names []string
}

// Exact says whether the whole query counts.
func (s *Search) Exact() bool { return !s.AnyOrder && !s.All && len(s.Names) == 0 }

// maxSearchNames bounds the names of a No-Vary-Search.
const maxSearchNames = 64

// ParseSearch reads No-Vary-Search. What is not well-formed says nothing, so that the whole query counts.
func ParseSearch(f *message.Fields) (s Search) {
	var except, params []string
	var hasExcept, hasParams bool
	for i := f.Next(message.NoVarySearch, 0); i >= 0; i = f.Next(message.NoVarySearch, i+1) {
		_, _, line := f.At(i)
		p := sfParser{b: line, keep: true}
		var m member
		for p.next(&m) {
			switch string(m.key) {
			case "key-order":
				if m.kind != kindBool {
					return Search{}
				}
				s.AnyOrder = m.yes
			case "params":
				hasParams = m.kind == kindList && !m.mixed
				if s.All = m.kind == kindBool && m.yes; !s.All && !hasParams && m.kind != kindBool {
					return Search{}
				}
				params = m.list
			case "except":
				if m.kind != kindList || m.mixed {
					return Search{}
				}
				hasExcept, except = true, m.list
			}
		}
		if p.bad {
			return Search{}
		}
	}
	switch {
	case hasExcept && !s.All:
		return Search{}
	case s.All:
		s.Names = except
	case hasParams:
		s.Names = params
	}
	if len(s.Names) > maxSearchNames {
		return Search{}
	}
	return s
}
