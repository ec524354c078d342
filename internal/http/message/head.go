package message

// Part is a piece of a head: where it begins and how long it is.
type Part struct{ Off, Len uint32 }

func (p Part) span() span { return span{p.Off, p.Len} }

// AddParts appends a line whose name and value are pieces of the head that Load brings
// afterwards. It is for parsers that find the pieces before they copy the head in one go;
// f must be empty of anything but such lines until Load.
func (f *Fields) AddParts(id ID, name, value Part) {
	f.list = append(f.list, field{name.span(), value.span(), id})
	if f.first[id] == 0 && id != Other {
		f.first[id] = uint16(len(f.list))
	}
}

// Load copies the head that the lines added with AddParts are pieces of.
func (f *Fields) Load(head []byte) { f.arena = append(f.arena[:0], head...) }

// Target is the start line of a request as pieces of its head.
type Target struct {
	Method, Authority, Path, Query Part
	HasQuery                       bool
}

// LoadHead copies a head, of which the lines added with AddParts and t are pieces. It does
// not set the Method.
func (r *Request) LoadHead(head []byte, t *Target) {
	r.Load(head)
	r.method, r.authority = t.Method.span(), t.Authority.span()
	r.path, r.query, r.hasQuery = t.Path.span(), t.Query.span(), t.HasQuery
}
