package image

import (
	"bytes"
	"slices"

	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/http/syntax"
)

// weights are what a client gives to formats, in thousandths; -1 where it names none.
type weights struct{ avif, webp, jpeg, image, any int }

// choose is the format for a client that left it to us: the first of prefer that it names and likes no
// less than the others, and no less than what originals are. A wildcard names no new format: clients that
// know neither avif nor webp send it too (RFC 9110 section 12.5.1).
//
// Webp says that the client names webp too, for what no AVIF can be made of.
func choose(f *message.Fields, prefer []format) (best format, webp bool) {
	w := weights{-1, -1, -1, -1, -1}
	for i := f.Next(message.Accept, 0); i >= 0; i = f.Next(message.Accept, i+1) {
		_, _, v := f.At(i)
		for len(v) > 0 {
			var member []byte
			member, v = syntax.NextItem(v)
			w.take(member)
		}
	}
	least := w.jpeg
	if least < 0 {
		least = w.image
	}
	if least < 0 {
		least = w.any
	}
	most := max(least, 1)
	for _, c := range prefer {
		q := w.webp
		if c == avifFormat {
			q = w.avif
		}
		if q > most || q == most && best == original {
			best, most = c, q
		}
	}
	return best, w.webp > 0 && slices.Contains(prefer, webpFormat)
}

func (w *weights) take(member []byte) {
	name, params, _ := bytes.Cut(member, semicolon)
	var to *int
	switch name = syntax.Trim(name); {
	case message.EqualFold(name, "image/avif"):
		to = &w.avif
	case message.EqualFold(name, "image/webp"):
		to = &w.webp
	case message.EqualFold(name, "image/jpeg"):
		to = &w.jpeg
	case message.EqualFold(name, "image/*"):
		to = &w.image
	case message.EqualFold(name, "*/*"):
		to = &w.any
	default:
		return
	}
	q, _ := syntax.Weight(params) // 0 when it cannot be read
	*to = max(*to, q)
}

var semicolon = []byte{';'}
