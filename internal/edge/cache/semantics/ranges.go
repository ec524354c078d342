package semantics

import (
	"bytes"
	"math"
	"time"

	"github.com/relais-edge/relais/internal/http/message"
)

// RangeKind is what a Range asks of a stored answer.
type RangeKind uint8

// The kinds.
const (
	Whole         RangeKind = iota // no range, or one that is not served: the whole body
	Part                           // one part of the body
	Several                        // several parts, which Spans lists
	Unsatisfiable                  // nothing of the body: 416
)

// Span is a part of a body, both ends included.
type Span struct{ First, Last int64 }

// Len is how many bytes the span has.
func (s Span) Len() int64 { return s.Last - s.First + 1 }

const (
	// maxRanges bounds the ranges of one request; more get the whole body (RFC 9110 section 14.2).
	maxRanges = 16
	// rangeGap is how many bytes may lie between two parts that are sent as one: a part's head
	// would be as long (RFC 9110 section 15.3.7.2).
	rangeGap = 80
)

// Range reads Range and If-Range of a GET for a stored 200 with a body of size bytes (RFC 9110
// sections 13.1.5, 14.2). The part is first to last, both included.
func Range(req, stored *message.Fields, size int64, now time.Time) (kind RangeKind, first, last int64) {
	set, ok := rangeSet(req)
	if !ok || !ifRange(req, stored, now) {
		return Whole, 0, 0
	}
	if bytes.IndexByte(set, ',') >= 0 {
		var room [maxRanges]Span
		kind, spans := spansOf(room[:0], set, size)
		if kind == Part {
			return Part, spans[0].First, spans[0].Last
		}
		return kind, 0, 0
	}
	r, ok := rangeSpec(set)
	if !ok {
		return Whole, 0, 0
	}
	if s, ok := r.in(size); ok {
		return Part, s.First, s.Last
	}
	return Unsatisfiable, 0, 0
}

// Spans appends the parts that the request asks for, of a body of size bytes, in ascending order
// and joined where they touch. It is to be asked where Range says Several.
func Spans(dst []Span, req *message.Fields, size int64) []Span {
	set, _ := rangeSet(req)
	_, dst = spansOf(dst, set, size)
	return dst
}

// WantsPart says whether a request asks for one part of the body that does not begin at its first
// byte, so that the whole may be much more than the client wants.
func WantsPart(req *message.Fields) bool {
	set, ok := rangeSet(req)
	if !ok {
		return false
	}
	r, ok := rangeSpec(set)
	return ok && r.first != 0
}

// rangeSet is what follows "bytes=" in the only Range line.
func rangeSet(req *message.Fields) ([]byte, bool) {
	v := req.Get(message.Range)
	if v == nil || req.Count(message.Range) > 1 {
		return nil, false
	}
	unit, set, ok := cut(trim(v), '=')
	return trim(set), ok && fold(unit, "bytes")
}

// spec is an int-range, or a suffix-range with a first of -1 (RFC 9110 section 14.1.1); a last of
// -1 is the end.
type spec struct{ first, last int64 }

func rangeSpec(b []byte) (s spec, ok bool) {
	from, to, ok := cut(trim(b), '-')
	a, ok1 := position(from)
	z, ok2 := position(to)
	if !ok || !ok1 || !ok2 || a < 0 && z < 0 || a >= 0 && z >= 0 && z < a {
		return s, false
	}
	return spec{a, z}, true
}

// in is the span of the spec in a body of size bytes; false when it is not satisfiable.
func (s spec) in(size int64) (Span, bool) {
	switch {
	case s.first < 0:
		return Span{max(size-s.last, 0), size - 1}, s.last > 0 && size > 0
	case s.last < 0 || s.last >= size:
		s.last = size - 1
	}
	return Span{s.first, s.last}, s.first < size
}

// spansOf reads a range set. Too many ranges, or ranges that overlap so much that they are more
// than the body, get the whole body.
func spansOf(dst []Span, set []byte, size int64) (RangeKind, []Span) {
	n, sum, start := 0, int64(0), len(dst)
	for {
		one, rest, ok := nextName(set)
		if !ok {
			break
		}
		set = rest
		r, ok := rangeSpec(one)
		if n++; !ok || n > maxRanges {
			return Whole, dst[:start]
		}
		if s, ok := r.in(size); ok {
			sum += s.Len()
			dst = insertSpan(dst, start, s)
		}
	}
	switch {
	case n == 0 || sum > size:
		return Whole, dst[:start]
	case len(dst) == start:
		return Unsatisfiable, dst
	}
	dst = joinSpans(dst, start)
	if len(dst) == start+1 {
		return Part, dst
	}
	return Several, dst
}

// insertSpan keeps dst from start on in order.
func insertSpan(dst []Span, start int, s Span) []Span {
	dst = append(dst, s)
	for i := len(dst) - 1; i > start && dst[i].First < dst[i-1].First; i-- {
		dst[i], dst[i-1] = dst[i-1], dst[i]
	}
	return dst
}

func joinSpans(dst []Span, start int) []Span {
	w := start
	for _, s := range dst[start+1:] {
		if s.First <= dst[w].Last+1+rangeGap {
			dst[w].Last = max(dst[w].Last, s.Last)
			continue
		}
		w++
		dst[w] = s
	}
	return dst[:w+1]
}

// position reads a number of bytes; -1 when it is empty.
func position(b []byte) (int64, bool) {
	if len(b) == 0 {
		return -1, true
	}
	var v int64
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0, false
		}
		if v > (math.MaxInt64-9)/10 {
			v = math.MaxInt64 / 10
			continue
		}
		v = v*10 + int64(c-'0')
	}
	return v, true
}

// ContentRange reads the Content-Range of a 206 with one part (RFC 9110 section 14.4). It is false
// for what cannot be stored: an invalid field, several lines, or a length that is not told.
func ContentRange(f *message.Fields) (s Span, size int64, ok bool) {
	if f.Count(message.ContentRange) != 1 {
		return s, 0, false
	}
	unit, rest, ok := cut(trim(f.Get(message.ContentRange)), ' ')
	if !ok || !fold(unit, "bytes") {
		return s, 0, false
	}
	span, complete, ok1 := cut(trim(rest), '/')
	from, to, ok2 := cut(span, '-')
	a, ok3 := position(from)
	z, ok4 := position(to)
	n, ok5 := position(complete)
	ok = ok1 && ok2 && ok3 && ok4 && ok5 && a >= 0 && a <= z && z < n
	return Span{a, z}, n, ok
}

// SameRepresentation says whether two answers are of one representation by a strong validator, so
// that parts of them may be put together (RFC 9111 section 3.4, RFC 9110 section 8.8).
func SameRepresentation(a, b *message.Fields, now time.Time) bool {
	x, weak, ok1 := entityTag(a.Get(message.ETag))
	y, weak2, ok2 := entityTag(b.Get(message.ETag))
	if a.Has(message.ETag) || b.Has(message.ETag) {
		return ok1 && ok2 && !weak && !weak2 && bytes.Equal(x, y)
	}
	m, ok1 := strongDate(a, now)
	n, ok2 := strongDate(b, now)
	return ok1 && ok2 && m == n
}

// HasStrongValidator says whether the answer has one.
func HasStrongValidator(f *message.Fields, now time.Time) bool { return SameRepresentation(f, f, now) }

// strongDate is a Last-Modified that is a strong validator: the answer was made well after it (RFC
// 9110 section 8.8.2.2).
func strongDate(f *message.Fields, now time.Time) (int64, bool) {
	modified, ok1 := dateOf(f, message.LastModified, now)
	date, ok2 := dateOf(f, message.Date, now)
	return modified, ok1 && ok2 && modified+60 <= date
}

// AskForRest makes a request for the part that is missing of a stored answer, and for the whole
// when the representation is another one by now (RFC 9110 section 13.1.5).
func AskForRest(req, stored *message.Fields, missing Span) {
	DropConditions(req)
	req.Begin(message.Range)
	req.Append("bytes=")
	req.AppendInt(missing.First)
	req.Append("-")
	req.AppendInt(missing.Last)
	req.End()
	if tag := stored.Get(message.ETag); len(tag) > 0 {
		req.Set(message.IfRange, tag)
	} else {
		req.Set(message.IfRange, stored.Get(message.LastModified))
	}
}

// ifRange says whether If-Range, if any, is the validator of the stored answer, strongly
// compared (RFC 9110 section 13.1.5).
func ifRange(req, stored *message.Fields, now time.Time) bool {
	v := req.Get(message.IfRange)
	if v == nil {
		return true
	}
	if tag, weak, ok := entityTag(v); ok {
		own, ownWeak, ok := entityTag(stored.Get(message.ETag))
		return ok && !weak && !ownWeak && bytes.Equal(tag, own)
	}
	at, ok := ParseDate(v, now)
	modified, ok2 := strongDate(stored, now)
	return ok && ok2 && at == modified
}
