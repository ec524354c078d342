package image

import (
	"bytes"

	"github.com/relais-edge/relais/internal/http/syntax"
)

// fit says what becomes of another aspect ratio.
type fit uint8

// The fits.
const (
	scaleDown fit = iota // fits in, never enlarges
	contain              // fits in
	cover                // fills, cuts off what is over
	crop                 // cover, but never enlarges
	fits
)

var fitNames = [fits]string{"scale-down", "contain", "cover", "crop"}

// format is one in which a picture is sent.
type format uint8

// The formats. Auto becomes one of the others by what the client accepts.
const (
	original format = iota // that of the original
	jpegFormat
	pngFormat
	webpFormat
	avifFormat
	auto
	formats
)

var formatNames = [formats]string{"original", "jpeg", "png", "webp", "avif", "auto"}

// form is what a request wants.
type form struct {
	width, height int // 0: not given
	fit           fit
	quality       int // 0: not given
	format        format
}

// parameters are what stands in a query.
type parameters struct {
	form
	has [names]bool
	// taken says that the query held parameters of ours.
	taken  bool
	preset *preset
	dpr    int // in hundredths; 0: not given
}

// name is a parameter that is ours.
type name uint8

const (
	widthName name = iota
	heightName
	fitName
	qualityName
	formatName
	dprName
	presetName
	names
)

var parameterNames = [names]string{"width", "height", "fit", "quality", "format", "dpr", "preset"}

// maxQuery bounds the query that is read; a longer one has no parameters of ours.
const maxQuery = 4096

// wrong says which parameter cannot be read; names means that none is.
type wrong = name

// parse reads the parameters that are the rule's and appends the rest of the query to dst. Of a parameter
// that is there twice the first counts. Bad is the first that cannot be read, or names.
func (r *rule) parse(query, dst []byte) (p parameters, rest []byte, bad wrong) {
	bad = names
	if len(query) > maxQuery {
		return p, append(dst, query...), bad
	}
	rest = dst
	for len(query) > 0 {
		pair := query
		if i := bytes.IndexByte(query, '&'); i >= 0 {
			pair, query = query[:i], query[i+1:]
		} else {
			query = nil
		}
		key, value, _ := bytes.Cut(pair, equals)
		n := nameOf(key)
		if n == names || r.presetsOnly && n != presetName && n != dprName {
			if len(rest) > len(dst) {
				rest = append(rest, '&')
			}
			rest = append(rest, pair...)
			continue
		}
		p.taken = true
		if p.has[n] {
			continue
		}
		if !r.read(&p, n, value) {
			if bad == names {
				bad = n
			}
			continue
		}
		p.has[n] = true
	}
	return p, rest, bad
}

var equals = []byte{'='}

// nameOf compares as the name is written in a URL; encoded names are not ours.
func nameOf(key []byte) name {
	for n := range names {
		if string(key) == parameterNames[n] {
			return n
		}
	}
	return names
}

// read sets one parameter; false when its value is none.
func (r *rule) read(p *parameters, n name, value []byte) bool {
	switch n {
	case widthName:
		return pixels(value, &p.width)
	case heightName:
		return pixels(value, &p.height)
	case qualityName:
		v, ok := syntax.Decimal(value)
		p.quality = int(v)
		return ok && v >= 1 && v <= 100
	case dprName:
		v, ok := hundredths(value)
		p.dpr = v
		return ok && v > 0 && v <= 1000
	case fitName:
		for f := range fits {
			if string(value) == fitNames[f] {
				p.fit = f
				return true
			}
		}
	case formatName:
		for f := range formats {
			if string(value) == formatNames[f] {
				p.format = f
				return true
			}
		}
	case presetName:
		for i := range r.presets {
			if string(value) == r.presets[i].name {
				p.preset = &r.presets[i]
				return true
			}
		}
	}
	return false
}

// maxAsked bounds a size that is asked for; it is brought to an allowed one after.
const maxAsked = 1 << 16

func pixels(value []byte, to *int) bool {
	v, ok := syntax.Decimal(value)
	if !ok || v < 1 || v > maxAsked {
		return false
	}
	*to = int(v)
	return true
}

// hundredths reads a number such as 2 or 1.5.
func hundredths(v []byte) (int, bool) {
	whole, part, dot := bytes.Cut(v, point)
	n, ok := syntax.Decimal(whole)
	if !ok || n > 100 {
		return 0, false
	}
	out := int(n) * 100
	if !dot {
		return out, true
	}
	if len(part) == 0 || len(part) > 2 {
		return 0, false
	}
	f, ok := syntax.Decimal(part)
	if !ok {
		return 0, false
	}
	if len(part) == 1 {
		f *= 10
	}
	return out + int(f), true
}

var point = []byte{'.'}

// ratios are the pixel densities that are told apart, in hundredths.
var ratios = [...]int{100, 150, 200, 300}

// settle brings the parameters to what the rule allows. Exact is false when something had to be
// changed for it.
func (r *rule) settle(p *parameters) (f form, exact bool) {
	f, exact = r.base, true
	if p.preset != nil {
		f = p.preset.form
		if p.has[formatName] {
			f.format = p.format
		}
		ratio, same := snap(ratios[:], max(p.dpr, 100))
		f.width, f.height = min(f.width*ratio/100, maxSide), min(f.height*ratio/100, maxSide)
		return f, same && !p.has[widthName] && !p.has[heightName] && !p.has[fitName] && !p.has[qualityName]
	}
	if p.has[widthName] || p.has[heightName] {
		f.width, f.height = p.width, p.height
	}
	if p.has[fitName] {
		f.fit = p.fit
	}
	if p.has[formatName] {
		f.format = p.format
	}
	if p.has[qualityName] {
		var same bool
		f.quality, same = snap(r.qualities, p.quality)
		exact = exact && same
	}
	ratio := max(p.dpr, 100)
	if p.has[widthName] || p.has[heightName] {
		f.width, exact = side(r.widths, f.width*ratio/100, exact)
		f.height, exact = side(r.heights, f.height*ratio/100, exact)
	} else if ratio > 100 {
		var same bool
		ratio, same = snap(ratios[:], ratio)
		exact = exact && same
		f.width, f.height = min(f.width*ratio/100, maxSide), min(f.height*ratio/100, maxSide)
	}
	if f.width == 0 || f.height == 0 {
		// Without both there is nothing to cut off.
		switch f.fit {
		case cover:
			f.fit = contain
		case crop:
			f.fit = scaleDown
		}
	}
	if f.width == 0 && f.height == 0 {
		f.fit = scaleDown
	}
	if f.format == pngFormat {
		f.quality = r.base.quality // it has none
	}
	return f, exact
}

func side(allowed []int, n int, exact bool) (int, bool) {
	if n == 0 {
		return 0, exact
	}
	v, same := snap(allowed, n)
	return v, exact && same
}

// snap is the least of a sorted list that is not below n, or its last.
func snap(list []int, n int) (v int, same bool) {
	for _, v := range list {
		if v >= n {
			return v, v == n
		}
	}
	return list[len(list)-1], false
}

// idle says whether a form leaves every original as it is. Quality is that of who does not say.
func (f *form) idle(quality int) bool {
	return f.width == 0 && f.height == 0 && f.format == original && f.quality == quality
}
