package shop

import (
	"image"
	"image/color"
	"math"
)

// shape is one form of a picture: a signed distance (negative inside) in a square that goes
// from -1 to 1 both ways with y downwards, a box around it, and its colours.
type shape struct {
	distance                 func(x, y float64) float64
	left, top, right, bottom float64
	upper, lower             hsl     // colour at the top and at the bottom of the box
	opacity                  float64 // 0 to 1
	soft                     float64 // width of the blurred edge; 0 is sharp
}

// hsl is a colour: hue in degrees, saturation and lightness from 0 to 1.
type hsl struct{ h, s, l float64 }

func (c hsl) lighter(by float64) hsl { return hsl{c.h, c.s, min(1, max(0, c.l+by))} }

func (c hsl) rgb() [3]float64 {
	h := math.Mod(math.Mod(c.h, 360)+360, 360) / 60
	chroma := (1 - math.Abs(2*c.l-1)) * c.s
	x := chroma * (1 - math.Abs(math.Mod(h, 2)-1))
	var r, g, b float64
	switch int(h) {
	case 0:
		r, g = chroma, x
	case 1:
		r, g = x, chroma
	case 2:
		g, b = chroma, x
	case 3:
		g, b = x, chroma
	case 4:
		r, b = x, chroma
	default:
		r, b = chroma, x
	}
	m := c.l - chroma/2
	return [3]float64{(r + m) * 255, (g + m) * 255, (b + m) * 255}
}

// painter collects the shapes of one picture, back to front.
type painter struct {
	shapes     []shape
	sky, floor hsl
}

func (p *painter) add(s shape, c hsl) {
	s.upper, s.lower = c.lighter(.07), c.lighter(-.06)
	if s.opacity == 0 {
		s.opacity = 1
	}
	p.shapes = append(p.shapes, s)
}

// disc is an ellipse with half axes rx and ry.
func disc(cx, cy, rx, ry float64) shape {
	return shape{
		distance: func(x, y float64) float64 {
			x, y = (x-cx)/rx, (y-cy)/ry
			return (math.Sqrt(x*x+y*y) - 1) * min(rx, ry)
		},
		left: cx - rx, right: cx + rx, top: cy - ry, bottom: cy + ry,
	}
}

// box is a rectangle of half sizes w and h with round corners.
func box(cx, cy, w, h, round float64) shape {
	return shape{
		distance: func(x, y float64) float64 {
			dx, dy := math.Abs(x-cx)-w+round, math.Abs(y-cy)-h+round
			return length(max(dx, 0), max(dy, 0)) + min(max(dx, dy), 0) - round
		},
		left: cx - w, right: cx + w, top: cy - h, bottom: cy + h,
	}
}

// bar is a line with round ends, r thick to each side.
func bar(x1, y1, x2, y2, r float64) shape {
	bx, by := x2-x1, y2-y1
	square := bx*bx + by*by
	return shape{
		distance: func(x, y float64) float64 {
			px, py := x-x1, y-y1
			t := min(1, max(0, (px*bx+py*by)/square))
			return length(px-bx*t, py-by*t) - r
		},
		left: min(x1, x2) - r, right: max(x1, x2) + r, top: min(y1, y2) - r, bottom: max(y1, y2) + r,
	}
}

// ring is a circle line; only what lies between the heights from and to is drawn.
func ring(cx, cy, r, thick, from, to float64) shape {
	return shape{
		distance: func(x, y float64) float64 {
			return max(math.Abs(length(x-cx, y-cy)-r)-thick, from-y, y-to)
		},
		left: cx - r - thick, right: cx + r + thick, top: max(from, cy-r-thick), bottom: min(to, cy+r+thick),
	}
}

// taper is a body whose half width goes from a at the top to b at the bottom; bend makes its
// sides bulge (positive) or narrow (negative).
func taper(cx, top, bottom, a, b, bend float64) shape {
	middle, half := (top+bottom)/2, (bottom-top)/2
	widest := max(a, b) + math.Abs(bend)
	return shape{
		distance: func(x, y float64) float64 {
			t := min(1, max(0, (y-top)/(bottom-top)))
			w := a + (b-a)*t + bend*math.Sin(math.Pi*t)
			return max((math.Abs(x-cx)-w)*.9, math.Abs(y-middle)-half)
		},
		left: cx - widest, right: cx + widest, top: top, bottom: bottom,
	}
}

// above cuts a shape off below the height y0.
func above(s shape, y0 float64) shape {
	inner := s.distance
	s.distance = func(x, y float64) float64 { return max(inner(x, y), y-y0) }
	s.bottom = min(s.bottom, y0)
	return s
}

// faint makes a shape soft and partly transparent, for shadows and light.
func faint(s shape, opacity, soft float64) shape {
	s.opacity, s.soft = opacity, soft
	// The edge of a flat ellipse is stretched with it.
	wide, high := s.right-s.left, s.bottom-s.top
	sideways, upright := soft*max(1, wide/high), soft*max(1, high/wide)
	s.left, s.right, s.top, s.bottom = s.left-sideways, s.right+sideways, s.top-upright, s.bottom+upright
	return s
}

// paint draws the picture size by size pixels.
func (p *painter) paint(size int) *image.RGBA {
	img := image.NewRGBA(image.Rect(0, 0, size, size))
	sky, floor := p.sky.rgb(), p.floor.rgb()
	scale := float64(size) / 2
	for py := range size {
		t := float64(py) / float64(size)
		t = t * t * (3 - 2*t)
		c := color.RGBA{mix(sky[0], floor[0], t), mix(sky[1], floor[1], t), mix(sky[2], floor[2], t), 255}
		row := img.Pix[py*img.Stride:]
		for px := range size {
			row[px*4], row[px*4+1], row[px*4+2], row[px*4+3] = c.R, c.G, c.B, 255
		}
	}
	for _, s := range p.shapes {
		s.draw(img, scale)
	}
	return img
}

func (s shape) draw(img *image.RGBA, scale float64) {
	size := img.Rect.Dx()
	upper, lower := s.upper.rgb(), s.lower.rgb()
	edge := max(s.soft, 1/scale)
	outside, sharper := edge/2, 1/edge
	step := 1 / scale
	pixel := func(v float64) int { return min(size, max(0, int((v+1)*scale))) }
	top, bottom := pixel(s.top-2/scale), pixel(s.bottom+2/scale)
	left, right := pixel(s.left-2/scale), pixel(s.right+2/scale)
	for py := top; py < bottom; py++ {
		y := (float64(py)+.5)/scale - 1
		t := min(1, max(0, (y-s.top)/(s.bottom-s.top)))
		r, g, b := upper[0]+(lower[0]-upper[0])*t, upper[1]+(lower[1]-upper[1])*t, upper[2]+(lower[2]-upper[2])*t
		solid := [3]uint8{mix(r, r, 0), mix(g, g, 0), mix(b, b, 0)}
		row := img.Pix[py*img.Stride:]
		for px := left; px < right; px++ {
			d := s.distance((float64(px)+.5)*step-1, y)
			if d >= outside {
				continue
			}
			at := row[px*4 : px*4+3 : px*4+3]
			if d <= -outside && s.opacity == 1 { // most pixels of most shapes
				at[0], at[1], at[2] = solid[0], solid[1], solid[2]
				continue
			}
			cover := min(1, .5-d*sharper) * s.opacity
			at[0] = mix(float64(at[0]), r, cover)
			at[1] = mix(float64(at[1]), g, cover)
			at[2] = mix(float64(at[2]), b, cover)
		}
	}
}

// length is math.Hypot without its care for numbers that no picture has.
func length(x, y float64) float64 { return math.Sqrt(x*x + y*y) }

func mix(a, b, t float64) uint8 { return uint8(a + (b-a)*t + .5) }
