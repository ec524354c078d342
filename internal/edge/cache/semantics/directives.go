package semantics

import (
	"bytes"
	"math"

	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/http/syntax"
)

// Set is a set of directives.
type Set uint32

// The directives of RFC 9111 section 5.2, RFC 5861 and RFC 8246.
const (
	MaxAge Set = 1 << iota
	SMaxAge
	MinFresh
	MaxStale
	StaleWhileRevalidate
	StaleIfError
	NoStore
	NoCache
	Private
	Public
	MustRevalidate
	ProxyRevalidate
	MustUnderstand
	OnlyIfCached
	Immutable
	// FieldLists says that no-cache or private names fields; Restricted finds them.
	FieldLists
)

// MaxDelta is what a larger number of seconds is read as (RFC 9111 section 1.2.2).
const MaxDelta = 1 << 31

// AnyStale is the MaxStale of a max-stale without a value: any staleness will do.
const AnyStale = math.MaxInt64

// Control is what Cache-Control, or a field in its place, says. Numbers are seconds and mean
// something when their directive is in Set.
type Control struct {
	Set                                             Set
	MaxAge, SMaxAge, MinFresh, MaxStale, While, Err int64
	// Targeted says that the directives are those of target, not of Cache-Control.
	Targeted bool
	from     Target
}

// Has says whether any of the directives is there.
func (c *Control) Has(d Set) bool { return c.Set&d != 0 }

// ParseRequest reads the directives of a request (RFC 9111 section 5.2.1). Pragma: no-cache
// counts in an HTTP/1.0 request without Cache-Control (section 5.4).
func ParseRequest(req *message.Request) Control {
	var c Control
	for i := req.Next(message.CacheControl, 0); i >= 0; i = req.Next(message.CacheControl, i+1) {
		_, _, v := req.At(i)
		c.addLine(v, true)
	}
	if req.Proto == message.HTTP10 && req.Has(message.Pragma) && !req.Has(message.CacheControl) {
		for i := req.Next(message.Pragma, 0); i >= 0; i = req.Next(message.Pragma, i+1) {
			_, _, v := req.At(i)
			var p Control
			p.addLine(v, true)
			c.Set |= p.Set & NoCache
		}
	}
	return c
}

// ParseResponse reads the directives of an answer: those of the first of the targets that is
// there, valid and not empty (RFC 9213 section 2.2), else those of Cache-Control (RFC 9111
// section 5.2.2).
func ParseResponse(f *message.Fields, targets []Target) Control {
	for _, t := range targets {
		if t.in(f) {
			if c, ok := parseTargeted(f, t); ok {
				return c
			}
		}
	}
	var c Control
	for i := f.Next(message.CacheControl, 0); i >= 0; i = f.Next(message.CacheControl, i+1) {
		_, _, v := f.At(i)
		c.addLine(v, false)
	}
	return c
}

// directive is one member of Cache-Control.
type directive struct {
	name, value []byte
	hasValue    bool
	bad         bool // what follows the name is not what the grammar allows
	open        bool // a quoted string does not end
}

// next takes the first directive off line. An unterminated quoted string is bad and ends the
// line: what it hides cannot be known.
func next(line []byte) (d directive, rest []byte, ok bool) {
	i := 0
	for i < len(line) && (line[i] == ',' || line[i] == ' ' || line[i] == '\t') {
		i++
	}
	if i == len(line) {
		return d, nil, false
	}
	start := i
	for i < len(line) && isToken(line[i]) {
		i++
	}
	d.name = line[start:i]
	if i < len(line) && line[i] == '=' {
		d.hasValue = true
		i++
		if i < len(line) && line[i] == '"' {
			end := endOfQuoted(line, i)
			if end < 0 {
				d.value, d.bad, d.open = line[i+1:], true, true
				return d, nil, true
			}
			d.value, i = line[i+1:end], end+1
		} else {
			start = i
			for i < len(line) && isToken(line[i]) {
				i++
			}
			d.value = line[start:i]
			d.bad = len(d.value) == 0
		}
	}
	// Only white space may stand before the comma.
	for i < len(line) && line[i] != ',' {
		if line[i] == '"' {
			if i = endOfQuoted(line, i); i < 0 {
				d.bad, d.open = true, true
				return d, nil, true
			}
			d.bad = true
		} else if line[i] != ' ' && line[i] != '\t' {
			d.bad = true
		}
		i++
	}
	return d, line[i:], true
}

// endOfQuoted returns the index of the quote that closes the one at i, or -1.
func endOfQuoted(b []byte, i int) int {
	for i++; i < len(b); i++ {
		switch b[i] {
		case '\\':
			i++
		case '"':
			return i
		}
	}
	return -1
}

func (c *Control) addLine(line []byte, request bool) {
	for {
		d, rest, ok := next(line)
		if !ok {
			return
		}
		switch {
		case len(d.name) == 0:
		case request:
			c.addRequest(&d)
		default:
			c.addResponse(&d)
		}
		if d.open {
			// The quote that never closes may hide a directive that forbids.
			c.Set |= NoStore
		}
		line = rest
	}
}

func (c *Control) addResponse(d *directive) {
	switch {
	case d.is("max-age"):
		c.least(MaxAge, &c.MaxAge, d.lifetime())
	case d.is("s-maxage"):
		c.least(SMaxAge, &c.SMaxAge, d.lifetime())
	case d.is("stale-while-revalidate"):
		c.least(StaleWhileRevalidate, &c.While, d.lifetime())
	case d.is("stale-if-error"):
		c.least(StaleIfError, &c.Err, d.lifetime())
	case d.is("no-store"):
		c.Set |= NoStore
	case d.is("no-cache"):
		c.restrict(NoCache, d)
	case d.is("private"):
		c.restrict(Private, d)
	case d.is("public"):
		c.Set |= Public
	case d.is("must-revalidate"):
		c.Set |= MustRevalidate
	case d.is("proxy-revalidate"):
		c.Set |= ProxyRevalidate
	case d.is("must-understand"):
		c.Set |= MustUnderstand
	case d.is("immutable"):
		c.Set |= Immutable // RFC 8246 section 2: an argument changes nothing
	}
}

func (c *Control) addRequest(d *directive) {
	switch {
	case d.is("max-age"):
		c.least(MaxAge, &c.MaxAge, d.lifetime())
	case d.is("min-fresh"):
		c.Set |= MinFresh
		c.MinFresh = max(c.MinFresh, d.lifetime())
	case d.is("max-stale"):
		v := int64(AnyStale)
		if d.hasValue || d.bad {
			v = d.lifetime()
		}
		c.least(MaxStale, &c.MaxStale, v)
	case d.is("no-store"):
		c.Set |= NoStore
	case d.is("no-cache"):
		c.Set |= NoCache
	case d.is("only-if-cached"):
		c.Set |= OnlyIfCached
	}
}

// least notes a number; of several the least counts. At any age that is either the first
// occurrence or a stale answer, the two readings of RFC 9111 section 4.2.1.
func (c *Control) least(s Set, at *int64, v int64) {
	if c.Set&s == 0 || v < *at {
		*at = v
	}
	c.Set |= s
}

// restrict notes no-cache or private. With a list of fields it holds for those only (RFC 9111
// sections 5.2.2.4 and 5.2.2.7); a list that is empty or bad is no list.
func (c *Control) restrict(s Set, d *directive) {
	if !d.hasValue || d.bad || !isFieldList(d.value) {
		c.Set |= s
		return
	}
	c.Set |= FieldLists
}

func (d *directive) is(name string) bool { return message.EqualFold(d.name, name) }

// lifetime reads delta-seconds, as a token or quoted (RFC 9111 section 5.2); 0 when it is wrong.
func (d *directive) lifetime() int64 {
	if d.bad {
		return 0
	}
	v, _ := deltaSeconds(d.value)
	return v
}

// deltaSeconds reads RFC 9111 section 1.2.2: digits only, large numbers as MaxDelta.
func deltaSeconds(b []byte) (int64, bool) {
	if len(b) == 0 {
		return 0, false
	}
	var v int64
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0, false
		}
		if v < MaxDelta {
			v = v*10 + int64(c-'0')
		}
	}
	return min(v, MaxDelta), true
}

// isFieldList says whether b is a list of one field name or more.
func isFieldList(b []byte) bool {
	names := 0
	for {
		name, rest, ok := nextName(b)
		if !ok {
			return names > 0
		}
		for _, c := range name {
			if !isToken(c) {
				return false
			}
		}
		names++
		b = rest
	}
}

// nextName takes the first non-empty member off a comma-separated list of names.
func nextName(b []byte) (name, rest []byte, ok bool) {
	i := 0
	for i < len(b) && (b[i] == ',' || b[i] == ' ' || b[i] == '\t') {
		i++
	}
	if i == len(b) {
		return nil, nil, false
	}
	start := i
	for i < len(b) && b[i] != ',' {
		i++
	}
	return trim(b[start:i]), b[i:], true
}

// Restricted says whether a no-cache or private with a list names the field: it must not be
// kept. It is to be asked only when c has FieldLists.
func (c *Control) Restricted(f *message.Fields, name []byte) bool {
	if c.Targeted {
		return targetedNames(f, c.from, name)
	}
	for i := f.Next(message.CacheControl, 0); i >= 0; i = f.Next(message.CacheControl, i+1) {
		_, _, line := f.At(i)
		for {
			d, rest, ok := next(line)
			if !ok {
				break
			}
			if d.hasValue && (d.is("no-cache") || d.is("private")) && listHas(d.value, name) {
				return true
			}
			line = rest
		}
	}
	return false
}

func listHas(list, name []byte) bool {
	for {
		n, rest, ok := nextName(list)
		if !ok {
			return false
		}
		if equalFold(n, name) {
			return true
		}
		list = rest
	}
}

func equalFold(a, b []byte) bool { return syntax.EqualFold(a, b) }

func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c | 0x20
	}
	return c
}

// cut is bytes.Cut around one byte, without its search for a string.
func cut(b []byte, sep byte) (before, after []byte, found bool) {
	if i := bytes.IndexByte(b, sep); i >= 0 {
		return b[:i], b[i+1:], true
	}
	return b, nil, false
}

func trim(b []byte) []byte { return syntax.Trim(b) }

func isToken(c byte) bool { return syntax.Is(c, syntax.Token) }
