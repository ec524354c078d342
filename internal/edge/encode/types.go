package encode

import (
	"bytes"
	"strings"

	"github.com/relais-edge/relais/internal/http/syntax"
)

// defaultTypes are compressed where a document names none: what is text, and the few others
// that are not compressed in themselves.
var defaultTypes = []string{
	"text/*", "*+json", "*+xml", "*+text", "application/json", "application/xml", "application/javascript",
	"application/x-javascript", "application/ecmascript", "application/x-ndjson", "application/ndjson", "application/json-seq",
	"application/graphql", "application/yaml", "application/x-yaml", "application/toml", "application/rtf",
	"application/wasm", "application/x-www-form-urlencoded", "application/vnd.ms-fontobject", "application/x-font-ttf",
	"font/ttf", "font/otf", "font/collection", "image/bmp", "image/x-icon", "image/vnd.microsoft.icon",
}

// types is a compiled list of types of content.
type types struct {
	exact    map[string]struct{}
	prefixes []string // such as text/
	suffixes []string // such as +json
}

func compileTypes(list []string) types {
	if len(list) == 0 {
		list = defaultTypes
	}
	t := types{exact: map[string]struct{}{}}
	for _, s := range list {
		s = strings.ToLower(s)
		switch {
		case strings.HasSuffix(s, "/*"):
			t.prefixes = append(t.prefixes, s[:len(s)-1])
		case strings.HasPrefix(s, "*+"):
			t.suffixes = append(t.suffixes, s[1:])
		default:
			t.exact[s] = struct{}{}
		}
	}
	return t
}

// maxType bounds the type that is looked at; longer ones are not compressed.
const maxType = 128

// holds says whether a Content-Type is of the list. gRPC never is: its messages have a
// compression of their own.
func (t *types) holds(contentType []byte) bool {
	name, _, _ := bytes.Cut(contentType, semicolon)
	name = syntax.Trim(name)
	if len(name) == 0 || len(name) > maxType {
		return false
	}
	var memory [maxType]byte
	low := memory[:len(name)]
	for i, c := range name {
		if c >= 'A' && c <= 'Z' {
			c |= 0x20
		}
		low[i] = c
	}
	if bytes.HasPrefix(low, []byte("application/grpc")) {
		return false
	}
	if _, ok := t.exact[string(low)]; ok {
		return true
	}
	for _, p := range t.prefixes {
		if len(low) >= len(p) && string(low[:len(p)]) == p {
			return true
		}
	}
	for _, s := range t.suffixes {
		if len(low) >= len(s) && string(low[len(low)-len(s):]) == s {
			return true
		}
	}
	return false
}

// isEventStream says whether a Content-Type is that of server-sent events.
func isEventStream(contentType []byte) bool {
	const name = "text/event-stream"
	return len(contentType) >= len(name) && bytes.EqualFold(contentType[:len(name)], []byte(name))
}
