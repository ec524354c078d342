package semantics

import (
	"bytes"
	"strings"
)

// Describe tells for people which requests an answer is for: a selector and what AppendSelected made of
// it, as "name: value" each.
func Describe(selector, selected []byte) []string {
	var out []string
	for len(selector) > 0 {
		end := bytes.IndexByte(selector, ',')
		if end < 1 {
			return out
		}
		how, name := selector[0], string(selector[1:end])
		selector = selector[end+1:]
		value, rest, _ := bytes.Cut(selected, []byte{0})
		selected = rest
		switch {
		case how == compareCodings && len(value) == 1:
			out = append(out, name+": "+codingWords(value[0]))
		case how == compareCookie:
			out = append(out, "cookie "+name+": "+present(value))
		default:
			out = append(out, name+": "+present(value))
		}
	}
	return out
}

// present is a value with its mark of presence taken off.
func present(value []byte) string {
	if len(value) == 0 || value[0] == '-' {
		return "(absent)"
	}
	return string(value[1:])
}

func codingWords(b byte) string {
	if b == codingAbsent {
		return "(absent)"
	}
	var list []string
	for _, c := range [...]struct {
		bit  byte
		name string
	}{{codingGzip, "gzip"}, {codingBrotli, "br"}, {codingZstd, "zstd"}} {
		if b&c.bit != 0 {
			list = append(list, c.name)
		}
	}
	if len(list) == 0 {
		return "(none that is usual)"
	}
	return strings.Join(list, ", ")
}
