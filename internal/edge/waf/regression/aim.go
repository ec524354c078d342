package regression

import (
	"bytes"
	"encoding/json"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// or is a, or b where a is empty.
func or(a, b string) string {
	if a == "" {
		return b
	}
	return a
}

func (r *Case) field(name string) string {
	for _, f := range r.Fields {
		if strings.EqualFold(f.Name, name) {
			return f.Value
		}
	}
	return ""
}

func (r *Case) set(name, value string) {
	r.Fields = slices.DeleteFunc(slices.Clone(r.Fields), func(f Field) bool { return strings.EqualFold(f.Name, name) })
	r.Fields = append(r.Fields, Field{name, value})
}

func (r *Case) remove(name string) {
	r.Fields = slices.DeleteFunc(slices.Clone(r.Fields), func(f Field) bool { return strings.EqualFold(f.Name, name) })
}

const formType = "application/x-www-form-urlencoded"

// On is the test sent to a path. An attack that is in the path itself stays behind it.
func (c *Case) On(path string) Case {
	r := *c
	own, query, has := strings.Cut(r.Target, "?")
	if !strings.HasPrefix(own, "/") || plain(own) {
		own = ""
	}
	r.Target = strings.TrimSuffix(path, "/") + own
	if r.Target == "" {
		r.Target = "/"
	}
	if has {
		r.Target += "?" + query
	}
	return r
}

// plain says that a path holds no attack: letters, digits and marks that file names have, and no
// dot in front.
func plain(p string) bool {
	for i := range len(p) {
		c := p[i]
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '/' && c != '_' && c != '-' {
			return false
		}
	}
	return len(p) < 64
}

// maxAimed bounds the arguments of a test that are aimed, and the depth of a JSON name.
const maxAimed = 64

// Aimed is the test with the values of all its arguments (or of all its cookies, for a target
// among the cookies) sent as the target: in the query of a GET, a form, or JSON where the name is
// one of JSON. It is what an attacker would send who knows the exclusion. Ok is false where the
// test has no value for it, or the target is no argument and no cookie by name.
func (c *Case) Aimed(method, path, target string) (r Case, ok bool) {
	kind, name, _ := strings.Cut(target, ":")
	name = example(name)
	if name == "" {
		return r, false
	}
	r = c.On(path)
	switch kind {
	case "ARGS", "ARGS_GET", "ARGS_POST":
		values := c.arguments()
		if len(values) == 0 {
			return r, false
		}
		return r, r.carry(method, name, values)
	case "REQUEST_COOKIES":
		values := cookies(c.field("Cookie"))
		values = append(values, c.arguments()...)
		if len(values) == 0 {
			return r, false
		}
		r.Method = or(method, r.Method)
		var b strings.Builder
		for i, v := range values {
			if i > 0 {
				b.WriteString("; ")
			}
			b.WriteString(name + "=" + strings.Map(cookieByte, v))
		}
		r.Target, _, _ = strings.Cut(r.Target, "?")
		r.set("Cookie", b.String())
		r.body("", "")
		return r, true
	}
	return r, false
}

// maxAlone bounds the values of a test that are aimed one by one.
const maxAlone = 8

// Aimings are the test aimed with all its values at once, and, where it has several, with each alone.
func (c *Case) Aimings(method, path, target string) (out []Case) {
	if r, ok := c.Aimed(method, path, target); ok {
		out = append(out, r)
	}
	values := c.arguments()
	if len(values) < 2 {
		return out
	}
	for _, v := range values[:min(len(values), maxAlone)] {
		alone := *c
		alone.Target, _, _ = strings.Cut(c.Target, "?")
		alone.Target += "?v=" + url.QueryEscape(v)
		alone.body("", "")
		alone.remove("Cookie")
		if r, ok := alone.Aimed(method, path, target); ok {
			out = append(out, r)
		}
	}
	return out
}

// cookieByte leaves out what would end a cookie's value.
func cookieByte(c rune) rune {
	if c == ';' || c < ' ' {
		return -1
	}
	return c
}

// example is a name that a target's expression matches, of the kind that is proposed: letters, \.
// and \d+.
func example(name string) string {
	if len(name) > 4 && strings.HasPrefix(name, "/^") && strings.HasSuffix(name, "$/") {
		name = name[2 : len(name)-2]
		name = strings.ReplaceAll(name, `\d+`, "0")
		name = strings.ReplaceAll(name, `\`, "")
	}
	if strings.ContainsAny(name, "/*+?()|^$") {
		return ""
	}
	return name
}

// carry puts values into the request as arguments of one name.
func (r *Case) carry(method, name string, values []string) bool {
	if len(values) > maxAimed {
		values = values[:maxAimed]
	}
	r.Method = method
	r.Target, _, _ = strings.Cut(r.Target, "?")
	get := method == "" || method == "GET" || method == "HEAD" || method == "OPTIONS"
	if keys, ok := strings.CutPrefix(name, "json."); ok && !get {
		body, ok := jsonBody(strings.Split(keys, "."), values)
		if !ok {
			return false
		}
		r.body("application/json", body)
		return true
	}
	var b strings.Builder
	for i, v := range values {
		if i > 0 {
			b.WriteByte('&')
		}
		b.WriteString(url.QueryEscape(name) + "=" + url.QueryEscape(v))
	}
	if get {
		r.Method = or(method, "GET")
		r.Target += "?" + b.String()
		r.body("", "")
		return true
	}
	r.body(formType, b.String())
	return true
}

func (r *Case) body(kind, text string) {
	for _, n := range []string{"Content-Type", "Content-Length", "Transfer-Encoding", "Content-Encoding"} {
		r.remove(n)
	}
	if r.Body = text; text != "" {
		r.set("Content-Type", kind)
		r.set("Content-Length", strconv.Itoa(len(text)))
	}
}

// jsonBody is a document in which all values are the value at keys, together.
func jsonBody(keys, values []string) (string, bool) {
	if len(keys) > 16 {
		return "", false
	}
	var v any = strings.Join(values, " ")
	for i := len(keys) - 1; i >= 0; i-- {
		if _, err := strconv.Atoi(keys[i]); err == nil {
			v = []any{v}
		} else {
			v = map[string]any{keys[i]: v}
		}
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	err := enc.Encode(v)
	return strings.TrimSpace(b.String()), err == nil
}

// arguments are the values of the query and of a form, decoded.
func (c *Case) arguments() (out []string) {
	add := func(s string) {
		for s != "" && len(out) < maxAimed {
			var p string
			p, s, _ = strings.Cut(s, "&")
			_, v, has := strings.Cut(p, "=")
			if !has {
				v = p // an attack without a name
			}
			if v = unescape(v); v != "" {
				out = append(out, v)
			}
		}
	}
	_, query, _ := strings.Cut(c.Target, "?")
	add(query)
	if t := strings.ToLower(c.field("Content-Type")); t == "" || strings.HasPrefix(t, formType) {
		add(c.Body)
	}
	return out
}

// unescape decodes what can be decoded and leaves the rest, as the rules do.
func unescape(s string) string {
	if !strings.ContainsAny(s, "%+") {
		return s
	}
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '+':
			b = append(b, ' ')
		case s[i] == '%' && i+2 < len(s):
			if n, err := strconv.ParseUint(s[i+1:i+3], 16, 8); err == nil {
				b = append(b, byte(n))
				i += 2
				continue
			}
			b = append(b, '%')
		default:
			b = append(b, s[i])
		}
	}
	return string(b)
}

func cookies(line string) (out []string) {
	for p := range strings.SplitSeq(line, ";") {
		if _, v, ok := strings.Cut(p, "="); ok && v != "" {
			out = append(out, strings.TrimSpace(v))
		}
	}
	return out
}
