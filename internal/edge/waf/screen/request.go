package screen

import (
	"bytes"
	"hash/maphash"
	"math/bits"
	"net/url"
	"slices"
)

func trailing(m uint64) int { return bits.TrailingZeros64(m) }

// plainTarget says of which bytes a target is that package url gives back as it is: unreserved
// characters and slashes.
func plainTarget(c byte) bool {
	return c >= '0' && c <= '9' || c|0x20 >= 'a' && c|0x20 <= 'z' || c == '/' || c == '.' || c == '-' || c == '_' || c == '~'
}

// target gives the request line and its parts, and the query's arguments.
func (w *worker) target(r *Request) bool {
	if len(r.Target) > maxHead {
		return w.maybe(Size)
	}
	w.line = append(append(append(append(append(w.line[:0], r.Method...), ' '), r.Target...), ' '), r.Proto...)
	uri, path, query, ok := w.split(r.Target)
	if !ok {
		return w.maybe(Target)
	}
	base := path
	if i := bytes.LastIndexAny(path, `/\`); i >= 0 && i+1 < len(path) {
		base = path[i+1:]
	}
	return w.value(varLine, nil, w.line) && w.value(varURIRaw, nil, r.Target) && w.value(varURI, nil, uri) &&
		w.value(varFilename, nil, path) && w.value(varBasename, nil, base) && w.value(varQuery, nil, query) &&
		w.value(varMethod, nil, r.Method) && w.value(varProtocol, nil, r.Proto) && w.pairs(query, true)
}

// split parses a target as the engine does, by package url. Plain ones, also with escapes in
// the path, need no help.
func (w *worker) split(raw []byte) (uri, path, query []byte, ok bool) {
	uri = raw
	if i := bytes.IndexByte(uri, '#'); i >= 0 {
		uri = uri[:i]
	}
	if path, query, ok = w.splitPlain(uri); ok {
		return uri, path, query, true
	}
	u, err := url.ParseRequestURI(string(uri))
	if err != nil {
		return nil, nil, nil, false
	}
	return []byte(u.String()), []byte(u.Path), []byte(u.RawQuery), true
}

func (w *worker) splitPlain(uri []byte) (path, query []byte, ok bool) {
	if len(uri) == 0 || uri[0] != '/' || len(uri) > 1 && uri[1] == '/' || uri[len(uri)-1] == '?' {
		return nil, nil, false
	}
	i, escaped := 0, false
	for i < len(uri) && uri[i] != '?' {
		switch {
		case plainTarget(uri[i]):
			i++
		case uri[i] == '%' && i+2 < len(uri) && hexRun(uri[i+1:], 2) >= 0:
			escaped = true
			i += 3
		default:
			return nil, nil, false
		}
	}
	path = uri[:i]
	if i < len(uri) {
		for _, c := range uri[i+1:] {
			if c <= ' ' || c == 0x7f {
				return nil, nil, false
			}
		}
		query = uri[i+1:]
	}
	if escaped {
		w.path = AppendUnescaped(w.path[:0], path, false)
		path = w.path
	}
	return path, query, true
}

// AppendUnescaped appends v with the escapes of a query decoded or, without plus, those of a path, as the engine reads them;
// what is no escape stays.
func AppendUnescaped(dst, v []byte, plus bool) []byte {
	for i := 0; i < len(v); i++ {
		c := v[i]
		if c == '+' && plus {
			c = ' '
		} else if c == '%' {
			if x := hexRun(v[i+1:], 2); x >= 0 {
				c = byte(x)
				i += 2
			}
		}
		dst = append(dst, c)
	}
	return dst
}

// pairs gives the arguments of a query or of a form.
func (w *worker) pairs(q []byte, get bool) bool {
	for len(q) > 0 {
		var kv []byte
		kv, q, _ = bytes.Cut(q, []byte{'&'})
		if len(kv) == 0 {
			continue
		}
		k, v, _ := bytes.Cut(kv, []byte{'='})
		w.pair = AppendUnescaped(w.pair[:0], k, true)
		n := len(w.pair)
		w.pair = AppendUnescaped(w.pair, v, true)
		if !w.arg(w.pair[:n], w.pair[n:], get) {
			return false
		}
	}
	return true
}

func (w *worker) arg(k, v []byte, get bool) bool {
	if w.args++; w.args >= w.s.argLimit {
		return w.maybe(Size)
	}
	if w.s.twice {
		w.note(k)
	}
	own, names := varArgsPost, varArgsPostNames
	if get {
		own, names = varArgsGet, varArgsGetNames
	}
	return w.value(varArgs, k, v) && w.value(varArgsNames, k, k) && w.value(own, k, v) && w.value(names, k, k)
}

// maxNames bounds the names that are compared with each other.
const maxNames = 256

// note looks whether a name came before. Names with the same hash count as the same, which
// proves less and never more; the engine folds the case of names.
func (w *worker) note(name []byte) {
	w.scratch = lowercase(w.scratch[:0], name)
	h := maphash.Bytes(w.s.seed, w.scratch)
	w.twice = w.twice || len(w.names) == maxNames || slices.Contains(w.names, h)
	if !w.twice {
		w.names = append(w.names, h)
	}
}

func (w *worker) fields(r *Request) bool {
	size := 0
	for i := range r.Fields {
		f := &r.Fields[i]
		if size += len(f.Name) + len(f.Value); size > maxHead {
			return w.maybe(Size)
		}
		if len(f.Name) == 0 {
			continue
		}
		if !w.value(varHeaders, f.Name, f.Value) || !w.value(varHeadersNames, f.Name, f.Name) {
			return false
		}
		switch foldedIs(f.Name, "cookie") {
		case yes:
			if !w.cookies(f.Value) {
				return false
			}
		case unsure:
			return w.maybe(Unsure)
		}
	}
	return true
}

type answer uint8

const (
	no answer = iota
	yes
	unsure
)

// foldedIs compares a name to one in lower case; beyond ASCII it is unsure, since the engine
// folds by Unicode's rules.
func foldedIs(name []byte, lower string) answer {
	for _, c := range name {
		if c >= 0x80 {
			return unsure
		}
	}
	if len(name) == len(lower) && foldPrefix(name, lower) {
		return yes
	}
	return no
}

// trim removes control characters and spaces of ASCII from both ends.
func trim(v []byte) []byte {
	for len(v) > 0 && (v[0] <= ' ' || v[0] == 0x7f) {
		v = v[1:]
	}
	for len(v) > 0 && (v[len(v)-1] <= ' ' || v[len(v)-1] == 0x7f) {
		v = v[:len(v)-1]
	}
	return v
}

func (w *worker) cookies(raw []byte) bool {
	for raw = trim(raw); len(raw) > 0; {
		var part []byte
		part, raw, _ = bytes.Cut(raw, []byte{';'})
		k, v, _ := bytes.Cut(trim(part), []byte{'='})
		if k, v = trim(k), trim(v); len(k) == 0 && len(v) == 0 {
			continue
		}
		if !w.value(varCookies, k, v) || !w.value(varCookiesNames, k, k) {
			return false
		}
	}
	return true
}
