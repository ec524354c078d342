package record

import (
	"bytes"
	"encoding/json"
	"net/netip"
	"strings"
	"unicode/utf8"

	"github.com/relais-edge/relais/internal/http/syntax"
)

// escaped is a text with %XX, read: data are its bytes, and raw where each came from.
type escaped struct {
	data []byte
	raw  []int // where in the text byte i begins
	text []byte
}

// unescape reads a text; with form a + is a space. What is no escape stands for itself.
func unescape(text []byte, form bool) *escaped {
	e := &escaped{text: text, data: make([]byte, 0, len(text)), raw: make([]int, 0, len(text)+1)}
	for i := 0; i < len(text); i++ {
		e.raw = append(e.raw, i)
		c := text[i]
		if c == '%' && i+2 < len(text) {
			if v, ok := syntax.UnhexPair(text[i+1], text[i+2]); ok {
				e.data = append(e.data, v)
				i += 2
				continue
			}
		}
		if c == '+' && form {
			c = ' '
		}
		e.data = append(e.data, c)
	}
	e.raw = append(e.raw, len(text))
	return e
}

// append writes the text again with what became of the data, escaped where it was.
func (e *escaped) append(to []byte, was []byte) []byte {
	for i, c := range e.data {
		from, end := e.raw[i], e.raw[i+1]
		switch {
		case c == was[i]:
			to = append(to, e.text[from:end]...)
		case end-from == 3:
			to = append(to, '%', "0123456789ABCDEF"[c>>4], "0123456789ABCDEF"[c&15])
		default:
			to = append(to, c)
		}
	}
	return to
}

// escapedValue hides a value that is written with %XX.
func (m *masker) escapedValue(to, name, text []byte, form bool) []byte {
	e := unescape(text, form)
	was := bytes.Clone(e.data)
	m.value(name, e.data)
	return e.append(to, was)
}

// pairs hides the values of a query or of a form.
func (m *masker) pairs(to, text []byte) []byte {
	for i, pair := range bytes.Split(text, []byte("&")) {
		if i > 0 {
			to = append(to, '&')
		}
		name, value, ok := bytes.Cut(pair, []byte("="))
		if !ok { // a name only, which may be a value
			to = m.escapedValue(to, nil, pair, true)
			continue
		}
		plain := unescape(name, true).data
		if e := unescape(name, true); !secretName(plain) {
			m.sweep(e.data)
			to = e.append(to, plain)
		} else {
			to = append(to, name...)
		}
		to = append(to, '=')
		to = m.escapedValue(to, plain, value, true)
	}
	return to
}

// path hides what looks like somebody's in a path. Its words stay, as routes are made of them.
func (m *masker) path(to, path []byte) []byte {
	e := unescape(path, false)
	was := bytes.Clone(e.data)
	m.sweep(e.data)
	return e.append(to, was)
}

// url hides what a Referer says.
func (m *masker) url(to, text []byte) []byte {
	text, fragment, hasFragment := bytes.Cut(text, []byte("#"))
	base, query, ok := bytes.Cut(text, []byte("?"))
	to = m.path(to, base)
	if ok {
		to = m.pairs(append(to, '?'), query)
	}
	if hasFragment {
		to = m.escapedValue(append(to, '#'), nil, fragment, false)
	}
	return to
}

// cookies hides the values of Cookie. Names stay.
func (m *masker) cookies(to, text []byte) []byte {
	for i, pair := range bytes.Split(text, []byte(";")) {
		if i > 0 {
			to = append(to, ';')
		}
		name, value, ok := bytes.Cut(pair, []byte("="))
		if !ok {
			space := pair[:len(pair)-len(bytes.TrimLeft(pair, " \t"))]
			to = append(to, space...)
			name, value = nil, pair[len(space):]
		} else {
			to = append(append(to, name...), '=')
		}
		v := bytes.Clone(value)
		m.mask(v, true)
		to = append(to, v...)
	}
	return to
}

// setCookie hides the value of Set-Cookie. Its name and its attributes stay.
func (m *masker) setCookie(to, text []byte) []byte {
	pair, attributes, _ := bytes.Cut(text, []byte(";"))
	to = m.cookies(to, pair)
	return append(to, text[len(text)-len(attributes)-min(1, len(text)-len(pair)):]...)
}

// credentials hides Authorization. The scheme stays when it is one that everybody knows.
func (m *masker) credentials(to, text []byte) []byte {
	scheme, rest, ok := bytes.Cut(text, []byte(" "))
	switch strings.ToLower(string(scheme)) {
	case "basic", "bearer", "digest", "negotiate", "dpop", "hoba", "mutual", "ntlm":
		if ok {
			to = append(append(to, scheme...), ' ')
			text = rest
		}
	}
	v := bytes.Clone(text)
	m.mask(v, true)
	return append(to, v...)
}

// field hides what a field says, whose name is in lower case. Client is the address as it is recorded.
func (m *masker) field(to []byte, name string, value []byte, client netip.Addr) []byte {
	switch name {
	case "cookie":
		return m.cookies(to, value)
	case "set-cookie":
		return m.setCookie(to, value)
	case "authorization", "proxy-authorization":
		return m.credentials(to, value)
	case "referer", "location", "content-location", "origin":
		return m.url(to, value)
	case "forwarded", "x-forwarded-for", "x-real-ip", "true-client-ip", "x-client-ip", "cf-connecting-ip", "fastly-client-ip", "x-cluster-client-ip":
		if name == "forwarded" {
			to = append(to, "for="...)
		}
		return client.AppendTo(to)
	}
	v := bytes.Clone(value)
	if secretName([]byte(name)) || name == "client-cert" || name == "client-cert-chain" || name == "idempotency-key" ||
		name == "relais-visitor" || name == "relais-ticket" {
		m.mask(v, true)
	} else if !publicField(name) {
		m.sweep(v)
	}
	return append(to, v...)
}

// publicField says whether a field tells of nobody: of an answer's and a browser's kind only.
func publicField(name string) bool {
	switch name {
	case "host", "accept", "accept-encoding", "content-type", "content-length", "content-encoding", "cache-control", "pragma", "date",
		"expires", "age", "last-modified", "if-modified-since", "etag", "if-none-match", "if-match", "if-range", "range", "content-range",
		"vary", "connection", "upgrade", "te", "sec-websocket-version", "cdn-cache-control":
		return true
	}
	return false
}

// body hides what a body says, by its type. Nil is that nothing of it can be kept.
func (m *masker) body(kind, text []byte) []byte {
	kind, params, _ := bytes.Cut(kind, []byte(";"))
	k := strings.ToLower(string(bytes.TrimSpace(kind)))
	switch {
	case k == "application/x-www-form-urlencoded":
		return m.pairs(nil, text)
	case k == "application/json" || strings.HasSuffix(k, "+json"):
		return m.json(nil, text)
	case k == "multipart/form-data":
		return m.multipart(params, text)
	case k == "application/xml", k == "text/xml", strings.HasSuffix(k, "+xml"):
		return m.xml(bytes.Clone(text))
	case utf8.Valid(text) && !bytes.ContainsRune(text, 0):
		v := bytes.Clone(text)
		m.value(nil, v)
		return v
	}
	return nil
}

// json hides strings and long numbers. It reads text that is no JSON too, as attacks may be.
func (m *masker) json(to, text []byte) []byte {
	var name []byte
	for i := 0; i < len(text); {
		switch c := text[i]; {
		case c == '"':
			end := stringEnd(text, i)
			if key := bytes.TrimLeft(text[end:], " \t\r\n"); len(key) > 0 && key[0] == ':' {
				name = unquoted(text[i:end])
				swept := bytes.Clone(name)
				m.sweep(swept)
				to = appendJSON(to, text[i:end], name, swept)
			} else {
				v := unquoted(text[i:end])
				was := bytes.Clone(v)
				m.value(name, v)
				to = appendJSON(to, text[i:end], was, v)
			}
			i = end
		case c == '"' || c == '-' || alphanumeric(c) || c >= utf8.RuneSelf:
			j := i
			for j < len(text) && (text[j] == '-' || text[j] == '+' || text[j] == '.' || alphanumeric(text[j]) || text[j] >= utf8.RuneSelf) {
				j++
			}
			v := bytes.Clone(text[i:j])
			switch s := string(v); {
			case s == "true" || s == "false" || s == "null":
			case secretName(name):
				m.mask(v, true)
				unzero(v, text[i:j])
			default:
				m.sweep(v)
				unzero(v, text[i:j])
			}
			to = append(to, v...)
			i = j
		default:
			to = append(to, c)
			i++
		}
	}
	return to
}

// unzero makes a masked number that begins with 0 one that does not, as JSON knows none (RFC 8259, section 6).
// Its first digit is not that of was, either.
func unzero(v, was []byte) {
	if len(v) > 0 && v[0] == '-' {
		v, was = v[1:], was[1:]
	}
	if len(v) > 1 && v[0] == '0' && v[1] >= '0' && v[1] <= '9' {
		v[0] = '1'
		if was[0] == '1' {
			v[0] = '2'
		}
	}
}

// stringEnd is where the JSON string that begins at i ends; the end of the text when it does not.
func stringEnd(text []byte, i int) int {
	for i++; i < len(text); i++ {
		switch text[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
	return len(text)
}

// unquoted is what a JSON string says; of one that is none what stands between the quotes.
func unquoted(text []byte) []byte {
	var s string
	if json.Unmarshal(text, &s) == nil {
		return []byte(s)
	}
	return bytes.Clone(bytes.TrimSuffix(text[1:], []byte(`"`)))
}

// appendJSON appends a string as it was written, or anew when it was changed.
func appendJSON(to, text, was, v []byte) []byte {
	if bytes.Equal(was, v) {
		return append(to, text...)
	}
	if len(text) == len(v)+2 && text[len(text)-1] == '"' && !bytes.ContainsAny(text[1:len(text)-1], `"\`) {
		return append(append(append(to, '"'), v...), '"')
	}
	q, err := json.Marshal(string(v))
	if err != nil || text[len(text)-1] != '"' || len(text) == 1 { // it was cut: so is this
		return append(append(to, '"'), v...)
	}
	return append(to, q...)
}

// xml hides the text between tags, with the tag's name as its name, and sweeps the tags.
func (m *masker) xml(text []byte) []byte {
	var name []byte
	for i := 0; i < len(text); {
		if text[i] == '<' {
			end := bytes.IndexByte(text[i:], '>')
			if end < 0 {
				m.sweep(text[i:])
				return text
			}
			tag := text[i : i+end+1]
			m.sweep(tag)
			name = bytes.TrimLeft(tag[1:], "/")
			if n := bytes.IndexAny(name, " \t\r\n/>"); n >= 0 {
				name = name[:n]
			}
			i += end + 1
			continue
		}
		end := bytes.IndexByte(text[i:], '<')
		if end < 0 {
			end = len(text) - i
		}
		m.value(name, text[i:i+end])
		i += end
	}
	return text
}

// multipart hides the parts of a form. Of files only the length is kept, and how their names end.
func (m *masker) multipart(params, text []byte) []byte {
	_, boundary, _ := bytes.Cut(params, []byte("boundary="))
	boundary, _, _ = bytes.Cut(boundary, []byte(";"))
	boundary = bytes.Trim(bytes.TrimSpace(boundary), `"`)
	if len(boundary) == 0 || len(boundary) > 70 {
		return nil
	}
	mark := append([]byte("--"), boundary...)
	parts := bytes.Split(text, mark)
	out := make([]byte, 0, len(text))
	for i, p := range parts {
		if i > 0 {
			out = append(out, mark...)
		}
		if i == 0 || bytes.HasPrefix(p, []byte("--")) {
			v := bytes.Clone(p)
			m.value(nil, v)
			out = append(out, v...)
			continue
		}
		out = m.part(out, p)
	}
	return out
}

// part hides one part of a form.
func (m *masker) part(to, p []byte) []byte {
	head, content, ok := bytes.Cut(p, []byte("\r\n\r\n"))
	h := bytes.Clone(head)
	name, file := parameter(h, "name="), parameter(h, "filename=")
	plainName := bytes.Clone(name)
	if file != nil {
		if dot := bytes.LastIndexByte(file, '.'); dot > 0 && len(file)-dot <= 5 {
			m.value(nil, file[:dot])
		} else {
			m.value(nil, file)
		}
	}
	m.sweep(h)
	to = append(to, h...)
	if !ok {
		return to
	}
	to = append(to, "\r\n\r\n"...)
	v := bytes.Clone(content)
	body := bytes.TrimSuffix(v, []byte("\r\n"))
	if file != nil || !utf8.Valid(body) {
		for i := range body {
			if body[i] >= utf8.RuneSelf || body[i] < ' ' && body[i] != '\r' && body[i] != '\n' && body[i] != '\t' {
				body[i] = 'x'
			}
		}
		m.words(body)
		m.sweep(body)
	} else {
		m.value(plainName, body)
	}
	return append(to, v...)
}

// parameter lends the quoted value of a parameter of a part's head; nil without.
func parameter(head []byte, name string) []byte {
	for from := 0; ; {
		at := bytes.Index(head[from:], []byte(name+`"`))
		if at < 0 {
			return nil
		}
		at += from
		if at > 0 && (head[at-1] == ' ' || head[at-1] == ';') {
			v := head[at+len(name)+1:]
			if end := bytes.IndexByte(v, '"'); end >= 0 {
				return v[:end]
			}
			return v
		}
		from = at + 1
	}
}
