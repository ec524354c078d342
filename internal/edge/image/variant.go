package image

import (
	"bytes"

	"github.com/relais-edge/relais/internal/http/syntax"
)

// variant is what is made of an original: a form whose format is known.
type variant struct {
	form
	// chosen says that the client's Accept chose the format.
	chosen bool
	// webp says that the client takes webp in place of avif.
	webp bool
}

// appendText appends the variant as it stands in keys and explanations, such as 400x300.cover.q80.auto-webp.
// Nothing else gives the same text.
func (v *variant) appendText(dst []byte) []byte {
	dst = appendInt(dst, v.width)
	dst = append(dst, 'x')
	dst = appendInt(dst, v.height)
	dst = append(dst, '.')
	dst = append(dst, fitNames[v.fit]...)
	dst = append(dst, ".q"...)
	dst = appendInt(dst, v.quality)
	dst = append(dst, '.')
	if v.chosen {
		dst = append(dst, "auto-"...)
	}
	dst = append(dst, formatNames[v.format]...)
	if v.webp {
		dst = append(dst, "-webp"...)
	}
	return dst
}

func appendInt(dst []byte, n int) []byte {
	if n >= 10 {
		dst = appendInt(dst, n/10)
	}
	return append(dst, byte('0'+n%10))
}

// IsVariant says whether a text is the name of a variant, as the cache's keys have it behind the URL.
func IsVariant(text string) bool {
	_, ok := parseVariant([]byte(text))
	return ok
}

// parseVariant reads what appendText wrote.
func parseVariant(b []byte) (v variant, ok bool) {
	size, rest, ok1 := bytes.Cut(b, point)
	fitText, rest, ok2 := bytes.Cut(rest, point)
	quality, name, ok3 := bytes.Cut(rest, point)
	w, h, ok4 := bytes.Cut(size, []byte{'x'})
	if !ok1 || !ok2 || !ok3 || !ok4 || len(quality) < 2 || quality[0] != 'q' {
		return v, false
	}
	width, okw := syntax.Decimal(w)
	height, okh := syntax.Decimal(h)
	q, okq := syntax.Decimal(quality[1:])
	if !okw || !okh || !okq || width > maxSide || height > maxSide || q < 1 || q > 100 {
		return v, false
	}
	v.width, v.height, v.quality = int(width), int(height), int(q)
	v.fit, v.format = fits, formats
	for f := range fits {
		if string(fitText) == fitNames[f] {
			v.fit = f
		}
	}
	name, v.chosen = bytes.CutPrefix(name, []byte("auto-"))
	name, v.webp = bytes.CutSuffix(name, []byte("-webp"))
	for f := range auto {
		if string(name) == formatNames[f] {
			v.format = f
		}
	}
	return v, v.fit < fits && v.format < auto
}
