package cache

import (
	"bytes"
	"context"
	"hash/maphash"
	"io"

	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/http/syntax"
	"github.com/relais-edge/relais/internal/stage"
)

// watch looks at an answer that may be stored as it comes from the origin, before anything compresses it: whether it
// repeats what only this request brought and no key holds (then it is for this visitor, or made by an attacker for
// others), and what it is, for the evidence of which parameters change answers. It is part of an exchange's local.
type watch struct {
	armed bool
	// echo is what came back; nil when nothing did.
	echo  *needle
	list  [maxNeedles]needle
	n     int
	text  []byte // the decoded values
	tail  []byte // the last bytes that were looked at
	sum   maphash.Hash
	size  int64
	whole bool // the body came to its end, and sum is of it all
}

// needle is a value of the request to look for.
type needle struct {
	kind  string // cookie, parameter or header
	name  []byte
	value []byte
}

// Bounds of watching.
const (
	maxNeedles = 8
	// needleBytes of a value are looked for: enough to be sure, and few enough to be found fast.
	needleBytes = 48
	// maxWatched bytes of a body are searched, and maxSummed are summed up.
	maxWatched = 256 << 10
	maxSummed  = 4 << 20
)

// notEcho is why an answer that repeats what no key holds is not stored.
const notEcho = "echo"

// watching is what l watches with.
func (l *local) watching() *watch {
	if l.watch == nil {
		l.watch = new(watch)
	}
	return l.watch
}

// rest forgets what was seen, and looks at nothing.
func (w *watch) rest() {
	w.armed, w.echo, w.n, w.size, w.whole = false, nil, 0, 0, false
	w.text, w.tail = w.text[:0], w.tail[:0]
}

// arm makes ready for the answer to a request under r.
func (w *watch) arm(r *rule, seed maphash.Seed, in *message.Request) {
	w.rest()
	w.armed = true
	w.sum.SetSeed(seed)
	w.sum.Reset()
	if !r.guarded {
		return
	}
	r.keyer.uncounted(in.Query(), func(name, value []byte) {
		w.add("parameter", name, value) // an origin may repeat it as it came, or decoded
		at := len(w.text)
		if w.text = appendDecoded(w.text, value); !bytes.Equal(w.text[at:], value) {
			w.add("parameter", name, w.text[at:])
		}
	})
	for i := in.Next(message.Cookie, 0); i >= 0; i = in.Next(message.Cookie, i+1) {
		_, _, v := in.At(i)
		for len(v) > 0 {
			pair, rest, _ := bytes.Cut(v, semicolon)
			v = rest
			name, value, _ := bytes.Cut(bytes.TrimSpace(pair), equals)
			if value = unquoted(value); random(value) && !r.keysCookie(name) && !inTarget(in, value) {
				w.add("cookie", name, value)
			}
		}
	}
	for i := range in.Len() {
		id, name, value := in.At(i)
		if id == message.Other && (markup(value) && !ordinary(name) || random(value) && secret(name)) && !r.keys(name) && !inTarget(in, value) {
			w.add("header", name, value)
		}
	}
}

// add notes a value that would not come back by chance.
func (w *watch) add(kind string, name, value []byte) {
	if w.n < maxNeedles && (random(value) || markup(value)) {
		w.list[w.n] = needle{kind, name, value[:min(len(value), needleBytes)]}
		w.n++
	}
}

// random says whether a value looks like a token that was drawn: long, with digits and letters in it.
func random(v []byte) bool {
	if len(v) < 20 {
		return false
	}
	digits, letters := 0, 0
	for _, c := range v {
		switch {
		case '0' <= c && c <= '9':
			digits++
		case 'a' <= c|0x20 && c|0x20 <= 'z':
			letters++
		}
	}
	return digits >= 6 && letters >= 6
}

// markup says whether a value is one to attack a page with: it ends a text or an attribute, or names a host.
func markup(v []byte) bool {
	return len(v) >= 8 && (bytes.ContainsAny(v, `<>"`) || bytes.Contains(v, slashes))
}

var slashes = []byte("//")

// ordinary says whether a field is one that clients send by themselves, and that may come back by design.
func ordinary(name []byte) bool {
	for _, p := range [...]string{"sec-", "traceparent", "tracestate", "x-b3-", "x-amzn-trace-id", "x-cloud-trace-context", "x-correlation-id", "cdn-loop", "x-client-data", "x-real-ip", "relais-"} {
		if len(name) >= len(p) && message.EqualFold(name[:len(p)], p) {
			return true
		}
	}
	return false
}

// secret says whether a field's name tells that its value is a credential. Others with such values number requests and
// traces, which may come back in answers for all.
func secret(name []byte) bool {
	var low [64]byte
	n := copy(low[:], name)
	for i, c := range low[:n] {
		if 'A' <= c && c <= 'Z' {
			low[i] = c | 0x20
		}
	}
	for _, word := range [...]string{"token", "session", "auth", "secret"} {
		if bytes.Contains(low[:n], []byte(word)) {
			return true
		}
	}
	return false
}

// inTarget says whether a value is in the path or the query too: what comes back may be from there.
func inTarget(in *message.Request, value []byte) bool {
	return bytes.Contains(in.Path(), value) || bytes.Contains(in.Query(), value)
}

// uncounted calls f for the parameters that are in no key, as name and value.
func (k *keyer) uncounted(query []byte, f func(name, value []byte)) {
	if k.query == "" || k.query == "all" {
		return
	}
	for len(query) > 0 {
		p, rest, _ := bytes.Cut(query, amp)
		query = rest
		if len(p) > 0 && (k.query == "none" || !k.counts(p)) {
			name, value, _ := bytes.Cut(p, equals)
			f(name, value)
		}
	}
}

// appendDecoded undoes the encoding of a form.
func appendDecoded(dst, v []byte) []byte {
	for i := 0; i < len(v); i++ {
		c := v[i]
		if c == '+' {
			c = ' '
		} else if c == '%' && i+2 < len(v) {
			if d, ok := syntax.UnhexPair(v[i+1], v[i+2]); ok {
				c = d
				i += 2
			}
		}
		dst = append(dst, c)
	}
	return dst
}

// keysCookie says whether the policy's key holds the cookie.
func (r *rule) keysCookie(name []byte) bool {
	for _, c := range r.cookies {
		if string(name) == c {
			return true
		}
	}
	return false
}

// head looks at the fields of an answer, and says whether its body is worth looking at.
func (w *watch) head(resp *message.Response) bool {
	n := 0
	for _, d := range w.list[:w.n] {
		field := d.name
		if d.kind == "cookie" {
			field = cookieName
		}
		if d.kind == "parameter" || !resp.Lists(message.Vary, string(field)) {
			w.list[n] = d
			n++
		}
	}
	w.n = n
	for _, id := range [...]message.ID{message.Location, message.ContentLocation, message.Link, message.ContentSecurityPolicy} {
		for i := resp.Next(id, 0); i >= 0; i = resp.Next(id, i+1) {
			_, _, v := resp.At(i)
			w.search(v)
		}
	}
	return resp.Status == 200 && textual(resp.Get(message.ContentType))
}

var cookieName = []byte("cookie")

// textual says whether a content type is text, or a script or data that is written as text.
func textual(t []byte) bool {
	t, _, _ = bytes.Cut(t, semicolon)
	t = bytes.TrimSpace(t)
	if len(t) >= 5 && message.EqualFold(t[:5], "text/") {
		return true
	}
	for _, s := range [...]string{"json", "xml", "javascript"} {
		if len(t) >= len(s) && message.EqualFold(t[len(t)-len(s):], s) {
			return true
		}
	}
	return false
}

func (w *watch) search(b []byte) {
	for i := range w.list[:w.n] {
		if w.echo == nil && bytes.Contains(b, w.list[i].value) {
			w.echo = &w.list[i]
		}
	}
}

// write looks at the next bytes of a body.
func (w *watch) write(b []byte) {
	if w.size <= maxSummed {
		_, _ = w.sum.Write(b)
	}
	if w.n > 0 && w.echo == nil && w.size < maxWatched {
		// What begins in the bytes before ends in the first ones of these.
		const most = needleBytes - 1
		w.tail = append(w.tail, b[:min(len(b), most)]...)
		w.search(w.tail)
		last := w.tail
		if len(b) >= most {
			w.search(b)
			last = b
		}
		w.tail = w.tail[:copy(w.tail, last[max(len(last)-most, 0):])]
	}
	w.size += int64(len(b))
}

// watcher is the stage that watches. It stands below all that changes answers.
type watcher struct{ s *Stage }

// Watch returns the stage that looks at what origins send before it is compressed. It belongs right below the one
// that compresses.
func (s *Stage) Watch() stage.Stage { return watcher{s} }

// Name implements stage.Stage.
func (watcher) Name() string { return "cache-watch" }

// Serve implements stage.Stage.
func (v watcher) Serve(ctx context.Context, x *stage.Exchange, next stage.Handler) (*message.Response, error) {
	l, _ := x.Local[v.s.cfg.Slot].(*local)
	if l == nil || l.watch == nil || !l.watch.armed {
		return next.Serve(ctx, x)
	}
	w := l.watch
	w.armed = false
	resp, err := next.Serve(ctx, x)
	if err != nil || !w.head(resp) {
		return resp, err
	}
	if resp.Body == nil {
		w.write(resp.Bytes)
		w.whole = w.size <= maxSummed
		return resp, nil
	}
	b := watched{resp.Body, w}
	resp.Body = b
	if p, ok := b.Body.(message.Prompt); ok {
		resp.Body = promptly{b, p}
	}
	return resp, nil
}

// watched is a body that is looked at as it is read. It implements message.Body.
type watched struct {
	message.Body
	w *watch
}

// Next implements message.Body.
func (b watched) Next(ctx context.Context) ([]byte, error) {
	chunk, err := b.Body.Next(ctx)
	b.w.write(chunk)
	if err == io.EOF {
		b.w.whole = b.w.size <= maxSummed
	}
	return chunk, err
}

// promptly is watched that knows whether there are bytes at hand. It implements message.Prompt.
type promptly struct {
	watched
	prompt message.Prompt
}

// Ready implements message.Prompt.
func (b promptly) Ready() bool { return b.prompt.Ready() }

// echoes says whether what came for x repeats what no key holds, so that it is not stored, and notes it.
func (s *Stage) echoes(x *stage.Exchange, r *rule) bool {
	w := s.local(x).watch
	if w == nil || w.echo == nil {
		return false
	}
	s.m.echoed.Inc()
	r.learned.echoed(w.echo, x.In.Path(), s.now(x))
	return true
}
