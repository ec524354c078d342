package image

import "math"

// plan is what is to be done to a picture that is upright.
type plan struct {
	// x, y, w and h are the part of the original that is taken, in its pixels.
	x, y, w, h float64
	// width and height of what is made.
	width, height int
	// scaled says that this is not the original's own size.
	scaled bool
}

// planFor fits an upright original of sw by sh pixels to a form. False means that it would be larger than
// what is made here.
func planFor(f *form, sw, sh int) (p plan, ok bool) {
	fw, fh := float64(sw), float64(sh)
	p = plan{w: fw, h: fh, width: sw, height: sh}
	w, h := float64(f.width), float64(f.height)
	if w == 0 && h == 0 {
		return p, sw <= maxSide && sh <= maxSide
	}
	most := min(maxSide/fw, maxSide/fh)
	switch {
	case f.fit == cover || f.fit == crop:
		if f.fit == crop {
			less := min(1, fw/w, fh/h)
			w, h = w*less, h*less
		}
		s := max(w/fw, h/fh)
		p.w, p.h = min(w/s, fw), min(h/s, fh)
		p.x, p.y = (fw-p.w)/2, (fh-p.h)/2
		p.width, p.height = atLeastOne(w), atLeastOne(h)
	default:
		s := most
		if w > 0 {
			s = min(s, w/fw)
		}
		if h > 0 {
			s = min(s, h/fh)
		}
		if f.fit == scaleDown {
			s = min(s, 1)
		}
		p.width, p.height = atLeastOne(fw*s), atLeastOne(fh*s)
	}
	p.scaled = p.width != sw || p.height != sh
	if !p.scaled {
		p.x, p.y, p.w, p.h = 0, 0, fw, fh
	}
	return p, true
}

// atLeastOne rounds to a number of pixels, at least one.
func atLeastOne(v float64) int { return max(1, int(math.Round(v))) }

// lying is the plan for the original as it lies in its file, by the orientation that Exif gives (section 4.6.4,
// tag 0x0112). What is made of it is turned upright after. What is taken is from the middle, so that mirroring
// changes nothing.
func (p plan) lying(orientation int) plan {
	if orientation >= 5 {
		p.x, p.y, p.w, p.h = p.y, p.x, p.h, p.w
		p.width, p.height = p.height, p.width
	}
	return p
}
