package cache

import (
	"bytes"

	"github.com/relais-edge/relais/internal/edge/cache/semantics"
	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/http/syntax"
	"github.com/relais-edge/relais/internal/stage"
)

// notType is why a page under the path of another type is not stored.
const notType = "type-mismatch"

// disguised says whether a page came for a path that ends like a picture, a script, a font or another
// file: a visitor was sent to such a path of a page of his own, so that it is stored for all (web
// cache deception). Errors are not disguised: they are often pages.
func disguised(path []byte, resp *message.Response) bool {
	if resp.Status >= 300 || !fileLike(path) {
		return false
	}
	t, _, _ := bytes.Cut(resp.Get(message.ContentType), []byte{';'})
	t = bytes.TrimSpace(t)
	return message.EqualFold(t, "text/html") || message.EqualFold(t, "application/xhtml+xml") || structured(t)
}

// structured says whether a type is JSON or XML for programs, which no file of fileLike is.
func structured(t []byte) bool {
	for _, s := range [...]string{"application/json", "application/xml", "text/xml"} {
		if message.EqualFold(t, s) {
			return true
		}
	}
	return len(t) > 5 && message.EqualFold(t[len(t)-5:], "+json")
}

// policyFor is the rule's policy for the path of x.
func (r *rule) policyFor(x *stage.Exchange) *semantics.Policy {
	if r.guarded && confusing(x.In.Path()) {
		return &r.careful
	}
	return &r.Policy
}

// confusing says whether servers may read a raw path in different ways, so that a route, and with it a lifetime of ours,
// is chosen by another path than the one that the origin answers: encoded slashes, backslashes, dots, percent signs,
// question marks, semicolons, line ends and the like, backslashes as they are, dot segments, and a parameter of a path that
// ends like a file's.
func confusing(path []byte) bool {
	for i := 0; i < len(path); i++ {
		switch path[i] {
		case '\\':
			return true
		case ';':
			if fileLike(path[i:]) {
				return true
			}
		case '/':
			if rest := path[i+1:]; len(rest) > 0 && rest[0] == '.' && (len(rest) == 1 || rest[1] == '/' || rest[1] == '.' && (len(rest) == 2 || rest[2] == '/')) {
				return true
			}
		case '%':
			if i+2 >= len(path) {
				return true
			}
			v, ok := syntax.UnhexPair(path[i+1], path[i+2])
			if !ok || v < 0x20 {
				return true
			}
			switch v {
			case '/', '\\', '.', '%', '?', '#', ';', 0x7f:
				return true
			}
		}
	}
	return false
}

// fileLike says whether a path ends in the suffix of a file that is never a page.
func fileLike(path []byte) bool {
	dot := bytes.LastIndexByte(path, '.')
	if dot < 0 || len(path)-dot > 6 {
		return false
	}
	var low [5]byte
	n := copy(low[:], path[dot+1:])
	for i := range low[:n] {
		if 'A' <= low[i] && low[i] <= 'Z' {
			low[i] |= 0x20
		}
	}
	switch string(low[:n]) {
	case "css", "js", "mjs", "png", "jpg", "jpeg", "gif", "webp", "avif", "bmp", "ico", "tif", "tiff",
		"woff", "woff2", "ttf", "otf", "eot", "svg", "svgz", "tga", "eps", "ps", "map", "mid", "mp3", "mp4", "m4v", "mkv", "m4a", "opus", "webm", "ogg", "wav", "mov", "avi", "flac",
		"zip", "gz", "tar", "xz", "zst", "deb", "rpm", "bin", "tgz", "bz2", "7z", "rar", "jar", "exe", "dmg", "iso", "apk", "wasm",
		"doc", "docx", "xls", "xlsx", "ppt", "pptx", "csv", "pdf", "swf", "class":
		return true
	}
	return false
}

// dropUnkeyed takes request fields off that no key holds and from which frameworks build addresses,
// methods and targets, so that nobody chooses with them what is stored for others (cache poisoning).
// What the policy's key or a Vary names stays with the request: the selector is made of it.
func (r *rule) dropUnkeyed(f *message.Fields) {
	if !r.guarded {
		return
	}
	for i := f.Len() - 1; i >= 0; i-- {
		id, name, _ := f.At(i)
		if id == message.Other && unkeyed(name) && !r.keys(name) {
			f.DelAt(i)
		}
	}
}

// keys says whether the policy's key holds the field.
func (r *rule) keys(name []byte) bool {
	for _, h := range r.headers {
		if message.EqualFold(name, h) {
			return true
		}
	}
	return false
}

// unkeyedNames are obeyed by frameworks and proxies, and visitors have no reason to send them.
// X-Forwarded-Host and its like are taken off where a request is made ready for its origin.
var unkeyedNames = [...]string{
	"X-Host", "X-Original-URL", "X-Rewrite-URL", "X-Original-Host", "X-Forwarded-Server", "X-Forwarded-Scheme",
	"X-Forwarded-Port", "X-Forwarded-Prefix", "X-Forwarded-Path", "X-Forwarded-SSL", "Front-End-Https",
	"X-HTTP-Method", "X-HTTP-Method-Override", "X-Method-Override", "X-HTTP-Host-Override", "X-URL-Scheme",
	"X-Original-URI", "X-Envoy-Original-Path", "X-Accel-Redirect", "X-Sendfile", "X-Script-Name",
}

func unkeyed(name []byte) bool {
	if c := name[0] | 0x20; c != 'x' && c != 'f' {
		return false
	}
	for _, n := range unkeyedNames {
		if message.EqualFold(name, n) {
			return true
		}
	}
	return false
}
