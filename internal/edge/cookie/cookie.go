// Package cookie finds cookies of a name in requests, and takes ours out of what origins see.
package cookie

import "github.com/relais-edge/relais/internal/http/message"

// maxTries bounds how many cookies of one name are looked at in a request: a page of a neighbouring host can
// set more of them.
const maxTries = 4

// Reader goes through the cookies of a name in a request (RFC 6265 section 5.4). It allocates nothing.
type Reader struct {
	f     *message.Fields
	name  string
	line  []byte
	next  int // line of the fields
	tries int
}

// Read begins with the first cookie of that name.
func Read(f *message.Fields, name string) Reader { return Reader{f: f, name: name} }

// Next lends the next value; nil at the end, or after four.
func (r *Reader) Next() []byte {
	for r.tries < maxTries {
		if len(r.line) == 0 {
			i := r.f.Next(message.Cookie, r.next)
			if i < 0 {
				return nil
			}
			_, _, r.line = r.f.At(i)
			r.next = i + 1
		}
		var v []byte
		if v, r.line = value(r.line, r.name); v != nil {
			r.tries++
			return v
		}
	}
	return nil
}

// value lends the next value of a cookie of that name in a Cookie line, and what follows
// it. Value is nil at the end.
func value(line []byte, name string) (value, rest []byte) {
	for {
		start, end := pair(line)
		if start == end && end == len(line) {
			return nil, nil
		}
		p := line[start:end]
		line = line[end:]
		if n := len(name); len(p) > n && p[n] == '=' && string(p[:n]) == name {
			v := p[n+1:]
			for len(v) > 0 && (v[len(v)-1] == ' ' || v[len(v)-1] == '\t') {
				v = v[:len(v)-1]
			}
			return v, line
		}
	}
}

// pair finds the first pair of a Cookie line, without the separators before it.
func pair(line []byte) (start, end int) {
	for start < len(line) && (line[start] == ' ' || line[start] == ';' || line[start] == '\t') {
		start++
	}
	end = start
	for end < len(line) && line[end] != ';' {
		end++
	}
	return start, end
}

// Strip takes the cookies of some names out of f, in the memory b, which it returns. It makes one Cookie line
// of several where it removes something, as RFC 9113 section 8.2.3 allows.
func Strip(b []byte, f *message.Fields, names []string) []byte {
	if !f.Has(message.Cookie) || len(names) == 0 {
		return b
	}
	b, found := strip(b[:0], f, names)
	switch {
	case !found:
	case len(b) == 0:
		f.Del(message.Cookie)
	default:
		f.Set(message.Cookie, b)
	}
	return b
}

// strip appends the pairs of the Cookie lines of f to b, joined by "; ", without those that
// bear one of the names. Found says whether there were any.
func strip(b []byte, f *message.Fields, names []string) (out []byte, found bool) {
	for i := f.Next(message.Cookie, 0); i >= 0; i = f.Next(message.Cookie, i+1) {
		_, _, line := f.At(i)
		for {
			start, end := pair(line)
			if start == end && end == len(line) {
				break
			}
			p := line[start:end]
			line = line[end:]
			if isOurs(p, names) {
				found = true
				continue
			}
			if len(b) > 0 {
				b = append(b, "; "...)
			}
			b = append(b, p...)
		}
	}
	return b, found
}

func isOurs(pair []byte, names []string) bool {
	for _, n := range names {
		if len(pair) > len(n) && pair[len(n)] == '=' && string(pair[:len(n)]) == n {
			return true
		}
	}
	return false
}

// Set adds a Set-Cookie line (RFC 6265 section 4.1): HttpOnly, SameSite=Lax, for all paths.
func Set(f *message.Fields, name string, value []byte, maxAge int64, secure bool) {
	f.Begin(message.SetCookie)
	f.Append(name)
	f.Append("=")
	f.AppendBytes(value)
	f.Append("; Path=/; Max-Age=")
	f.AppendInt(maxAge)
	f.Append("; HttpOnly; SameSite=Lax")
	if secure {
		f.Append("; Secure")
	}
	f.End()
}
