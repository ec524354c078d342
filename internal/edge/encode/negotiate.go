package encode

import (
	"bytes"

	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/http/syntax"
)

// coding is a content coding that this stage makes.
type coding uint8

const (
	identity coding = iota
	zstdCoding
	brCoding
	gzipCoding
	codings
)

var codingNames = [codings]string{"identity", "zstd", "br", "gzip"}

// weights are what a client gives each coding, in thousandths; -1 where it says nothing.
type weights [codings]int

// weigh reads Accept-Encoding (RFC 9110 section 12.5.3). False means that there is none.
func weigh(f *message.Fields) (w weights, ok bool) {
	w = weights{-1, -1, -1, -1}
	star := -1
	for i := f.Next(message.AcceptEncoding, 0); i >= 0; i = f.Next(message.AcceptEncoding, i+1) {
		ok = true
		_, _, v := f.At(i)
		for len(v) > 0 {
			var member []byte
			member, v = syntax.NextItem(v)
			name, params, _ := bytes.Cut(member, semicolon)
			q, valid := syntax.Weight(params)
			if !valid {
				continue // not a weight: as if the coding were not named
			}
			switch name = syntax.Trim(name); {
			case message.EqualFold(name, "zstd"):
				w[zstdCoding] = q
			case message.EqualFold(name, "br"):
				w[brCoding] = q
			case message.EqualFold(name, "gzip"), message.EqualFold(name, "x-gzip"):
				w[gzipCoding] = q
			case message.EqualFold(name, "identity"):
				w[identity] = q
			case len(name) == 1 && name[0] == '*':
				star = q
			}
		}
	}
	if star >= 0 {
		for c := zstdCoding; c < codings; c++ {
			if w[c] < 0 {
				w[c] = star
			}
		}
	}
	return w, ok
}

var semicolon = []byte{';'}

// choose picks the coding for a client. Of equally weighted ones the first of prefer is taken.
// Shared answers are chosen by prefer alone, since other clients get them too.
func choose(f *message.Fields, prefer []coding, shared bool) coding {
	w, ok := weigh(f)
	if !ok {
		return identity
	}
	best := identity
	for _, c := range prefer {
		if w[c] > 0 && (best == identity || !shared && w[c] > w[best]) {
			best = c
		}
	}
	if !shared && best != identity && w[identity] > w[best] {
		return identity
	}
	return best
}
