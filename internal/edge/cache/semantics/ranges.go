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
	Unsatisfiable                  // nothing of the body: 416
)

// Range reads Range and If-Range of a GET for a stored 200 with a body of size bytes (RFC 9110
// sections 13.1.5, 14.2). The part is first to last, both included. Several ranges get the
// whole body, as section 14.2 allows.
func Range(req, stored *message.Fields, size int64, now time.Time) (kind RangeKind, first, last int64) {
	v := req.Get(message.Range)
	if v == nil || req.Count(message.Range) > 1 || !ifRange(req, stored, now) {
		return Whole, 0, 0
	}
	unit, spec, ok := cut(trim(v), '=')
	if !ok || !fold(unit, "bytes") {
		return Whole, 0, 0
	}
	from, to, ok := cut(trim(spec), '-')
	a, ok1 := position(from)
	b, ok2 := position(to)
	if !ok || !ok1 || !ok2 || a < 0 && b < 0 {
		return Whole, 0, 0
	}
	switch {
	case a < 0: // the last b bytes
		if b == 0 || size == 0 {
			return Unsatisfiable, 0, 0
		}
		return Part, max(size-b, 0), size - 1
	case b >= 0 && b < a:
		return Whole, 0, 0 // invalid, so ignored
	case a >= size:
		return Unsatisfiable, 0, 0
	case b < 0 || b >= size:
		b = size - 1
	}
	return Part, a, b
}

// position reads a number of bytes; -1 when it is empty. A comma, of several ranges, is not one.
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
	// A date is strong when the answer was made well after it (RFC 9110 section 8.8.2.2).
	at, ok1 := ParseDate(v, now)
	modified, ok2 := dateOf(stored, message.LastModified, now)
	date, ok3 := dateOf(stored, message.Date, now)
	return ok1 && ok2 && ok3 && at == modified && modified+60 <= date
}
