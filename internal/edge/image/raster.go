package image

import (
	"context"
	stdimage "image"
	"image/color"
	"image/draw"
)

// raster is a picture as it is worked on: planes of 8 bits. Three are Y, Cb and Cr of full range (JFIF), of
// which the second and third may be smaller; one is gray, or has four channels: red, green and blue times
// alpha, and alpha.
type raster struct {
	width, height int
	planes        []plane
	opaque        bool
}

// plane is a rectangle of samples.
type plane struct {
	width, height, channels int
	// row gives a row of width times channels samples, in buf or elsewhere.
	row func(y int, buf []uint8) []uint8
}

// memoryPlane is a plane whose samples are in memory.
func memoryPlane(pix []uint8, stride, w, h, channels int) plane {
	return plane{w, h, channels, func(y int, _ []uint8) []uint8 { return pix[y*stride : y*stride+w*channels] }}
}

// rasterOf looks at what a decoder made. False means that it is of a kind that no decoder here makes.
func rasterOf(m stdimage.Image, k kind) (*raster, bool) {
	b := m.Bounds()
	r := &raster{width: b.Dx(), height: b.Dy(), opaque: true}
	if b.Min != (stdimage.Point{}) {
		return nil, false
	}
	switch m := m.(type) {
	case *stdimage.YCbCr:
		r.planes = ycbcrPlanes(m, k == webpKind)
		return r, r.planes != nil
	case *stdimage.Gray:
		r.planes = []plane{memoryPlane(m.Pix, m.Stride, r.width, r.height, 1)}
		return r, true
	case *stdimage.RGBA:
		r.opaque = m.Opaque()
		r.planes = []plane{memoryPlane(m.Pix, m.Stride, r.width, r.height, 4)}
		return r, true
	case *stdimage.NRGBA:
		r.opaque = m.Opaque()
		r.planes = []plane{{r.width, r.height, 4, func(y int, buf []uint8) []uint8 {
			return premultiply(buf, m.Pix[y*m.Stride:y*m.Stride+4*r.width])
		}}}
		return r, true
	case *stdimage.NYCbCrA:
		if m.SubsampleRatio != stdimage.YCbCrSubsampleRatio420 {
			return nil, false
		}
		r.opaque = m.Opaque()
		r.planes = []plane{{r.width, r.height, 4, func(y int, buf []uint8) []uint8 { return videoRow(buf, m, y, r.width) }}}
		return r, true
	case *stdimage.Paletted, *stdimage.NRGBA64, *stdimage.RGBA64, *stdimage.Gray16:
		if o, ok := m.(interface{ Opaque() bool }); ok {
			r.opaque = o.Opaque()
		}
		r.planes = []plane{{r.width, r.height, 4, func(y int, buf []uint8) []uint8 {
			row := &stdimage.RGBA{Pix: buf[:4*r.width], Stride: 4 * r.width, Rect: stdimage.Rect(0, 0, r.width, 1)}
			draw.Draw(row, row.Rect, m, stdimage.Pt(0, y), draw.Src)
			return row.Pix
		}}}
		return r, true
	}
	return nil, false
}

// ycbcrPlanes are the planes of what a JPEG or a lossy WebP holds; a WebP's have the range of video
// (RFC 6386 section 9.2: ITU-R BT.601), which becomes the full one.
func ycbcrPlanes(m *stdimage.YCbCr, video bool) []plane {
	w, h := m.Rect.Dx(), m.Rect.Dy()
	cw, ch := w, h
	switch m.SubsampleRatio {
	case stdimage.YCbCrSubsampleRatio444:
	case stdimage.YCbCrSubsampleRatio422:
		cw = (w + 1) / 2
	case stdimage.YCbCrSubsampleRatio420:
		cw, ch = (w+1)/2, (h+1)/2
	case stdimage.YCbCrSubsampleRatio440:
		ch = (h + 1) / 2
	case stdimage.YCbCrSubsampleRatio411:
		cw = (w + 3) / 4
	case stdimage.YCbCrSubsampleRatio410:
		cw, ch = (w+3)/4, (h+1)/2
	default:
		return nil
	}
	if !video {
		return []plane{
			memoryPlane(m.Y, m.YStride, w, h, 1), memoryPlane(m.Cb, m.CStride, cw, ch, 1), memoryPlane(m.Cr, m.CStride, cw, ch, 1),
		}
	}
	stretched := func(pix []uint8, stride, w, h int, table *[256]uint8) plane {
		return plane{w, h, 1, func(y int, buf []uint8) []uint8 {
			for i, v := range pix[y*stride : y*stride+w] {
				buf[i] = table[v]
			}
			return buf[:w]
		}}
	}
	luma, chroma := videoTables()
	return []plane{
		stretched(m.Y, m.YStride, w, h, luma), stretched(m.Cb, m.CStride, cw, ch, chroma), stretched(m.Cr, m.CStride, cw, ch, chroma),
	}
}

// videoTables bring 16 to 235 (luma) and 16 to 240 (chroma) to 0 to 255.
func videoTables() (luma, chroma *[256]uint8) {
	luma, chroma = new([256]uint8), new([256]uint8)
	for i := range 256 {
		luma[i] = clamp8((i-16)*255, 219)
		chroma[i] = clamp8((i-128)*255+128*224, 224)
	}
	return luma, chroma
}

// clamp8 is n/d, rounded, within 0 and 255.
func clamp8(n, d int) uint8 { return uint8(min(max((n+d/2)/d, 0), 255)) }

func premultiply(buf, row []uint8) []uint8 {
	buf = buf[:len(row)]
	for i := 0; i < len(row); i += 4 {
		a := uint32(row[i+3])
		if a == 255 {
			copy(buf[i:i+4], row[i:i+4])
			continue
		}
		for c := range 3 {
			buf[i+c] = uint8((uint32(row[i+c])*a + 127) / 255)
		}
		buf[i+3] = uint8(a)
	}
	return buf
}

// videoRow is a row of a lossy WebP with alpha.
func videoRow(buf []uint8, m *stdimage.NYCbCrA, y, w int) []uint8 {
	luma, c := m.Y[y*m.YStride:], y/2*m.CStride
	alpha := m.A[y*m.AStride:]
	for x := range w {
		l := (int(luma[x]) - 16) * 255 / 219
		cb, cr := (int(m.Cb[c+x/2])-128)*255/224+128, (int(m.Cr[c+x/2])-128)*255/224+128
		r, g, b := color.YCbCrToRGB(uint8(min(max(l, 0), 255)), uint8(min(max(cb, 0), 255)), uint8(min(max(cr, 0), 255)))
		a := uint32(alpha[x])
		buf[4*x], buf[4*x+1] = uint8((uint32(r)*a+127)/255), uint8((uint32(g)*a+127)/255)
		buf[4*x+2], buf[4*x+3] = uint8((uint32(b)*a+127)/255), uint8(a)
	}
	return buf[:4*w]
}

// resized makes a raster of a plan for r as it lies. Chroma of what is made has half of the width and height,
// or where it is to be full the same.
func (r *raster) resized(ctx context.Context, p *plan, full bool) (*raster, error) {
	out := &raster{width: p.width, height: p.height, opaque: r.opaque}
	for i := range r.planes {
		s := &r.planes[i]
		w, h := p.width, p.height
		sx, sy := 1.0, 1.0
		if i > 0 {
			if !full {
				w, h = (w+1)/2, (h+1)/2
			}
			// By the whole sizes: a last sample may stand for less than a whole one.
			sx, sy = float64(s.width)/float64(r.width), float64(s.height)/float64(r.height)
		}
		pix, err := scale(ctx, s, axis{p.x * sx, p.w * sx, w}, axis{p.y * sy, p.h * sy, h})
		if err != nil {
			return nil, err
		}
		out.planes = append(out.planes, memoryPlane(pix, w*s.channels, w, h, s.channels))
	}
	return out, nil
}

// upright turns a picture as Exif says that it lies.
func (r *raster) upright(orientation int) *raster {
	if orientation <= 1 {
		return r
	}
	out := &raster{width: r.width, height: r.height, opaque: r.opaque}
	if orientation >= 5 {
		out.width, out.height = r.height, r.width
	}
	for i := range r.planes {
		out.planes = append(out.planes, r.planes[i].upright(orientation))
	}
	return out
}

func (p *plane) upright(orientation int) plane {
	w, h, n := p.width, p.height, p.channels
	tw, th := w, h
	if orientation >= 5 {
		tw, th = h, w
	}
	out := make([]uint8, w*h*n)
	buf := make([]uint8, w*n)
	for y := range h {
		row := p.row(y, buf)
		for x := range w {
			var tx, ty int
			switch orientation {
			case 2:
				tx, ty = w-1-x, y
			case 3:
				tx, ty = w-1-x, h-1-y
			case 4:
				tx, ty = x, h-1-y
			case 5:
				tx, ty = y, x
			case 6:
				tx, ty = h-1-y, x
			case 7:
				tx, ty = h-1-y, w-1-x
			case 8:
				tx, ty = y, w-1-x
			}
			copy(out[(ty*tw+tx)*n:][:n], row[x*n:][:n])
		}
	}
	return memoryPlane(out, tw*n, tw, th, n)
}
