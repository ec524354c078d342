package image

import (
	"errors"
	"fmt"
	stdimage "image"
	"image/color"
	"image/gif"
	"image/jpeg"
	"image/png"
	"io"

	"golang.org/x/image/webp"
)

// codec reads originals and writes what is made of them.
type codec interface {
	decode(r io.Reader, k kind) (stdimage.Image, error)
	encode(w io.Writer, m *raster, f format, quality int) error
}

// library is the codec of the standard library, golang.org/x/image, and where they have none of WebAssembly.
type library struct{}

func (library) decode(r io.Reader, k kind) (stdimage.Image, error) {
	switch k {
	case jpegKind:
		return jpeg.Decode(r)
	case pngKind:
		return png.Decode(r)
	case webpKind:
		return webp.Decode(r)
	case gifKind:
		return decodeGIF(r)
	}
	return nil, fmt.Errorf("no decoder for kind %d", k)
}

// decodeGIF puts the one frame of a GIF on its canvas.
func decodeGIF(r io.Reader) (stdimage.Image, error) {
	g, err := gif.DecodeAll(r)
	if err != nil {
		return nil, err
	}
	canvas := stdimage.Rect(0, 0, g.Config.Width, g.Config.Height)
	m := g.Image[0]
	if m.Rect == canvas {
		return m, nil
	}
	out := stdimage.NewRGBA(canvas)
	part := m.Rect.Intersect(canvas)
	for y := part.Min.Y; y < part.Max.Y; y++ {
		for x := part.Min.X; x < part.Max.X; x++ {
			out.Set(x, y, m.At(x, y))
		}
	}
	return out, nil
}

func (library) encode(w io.Writer, m *raster, f format, quality int) error {
	switch f {
	case jpegFormat:
		return jpeg.Encode(w, m.forJPEG(), &jpeg.Options{Quality: quality})
	case pngFormat:
		e := png.Encoder{CompressionLevel: png.DefaultCompression}
		return e.Encode(w, m.forPNG())
	case webpFormat:
		return encodeWebP(w, m.straight(), quality)
	case avifFormat:
		// At these qualities both look alike, by PSNR of what the tests make.
		return encodeAVIF(w, m.straight(), max(quality-20, 1))
	}
	return errors.New("no encoder for " + formatNames[f])
}

// pix is the memory of a plane that was made here.
func (p *plane) pix() []uint8 {
	if p.height == 0 {
		return nil
	}
	first := p.row(0, nil)
	return first[: p.width*p.height*p.channels : p.width*p.height*p.channels]
}

// forJPEG has white under what is transparent.
func (m *raster) forJPEG() stdimage.Image {
	r := stdimage.Rect(0, 0, m.width, m.height)
	switch {
	case len(m.planes) == 3:
		y, b, c := &m.planes[0], &m.planes[1], &m.planes[2]
		return &stdimage.YCbCr{
			Y: y.pix(), Cb: b.pix(), Cr: c.pix(), YStride: y.width, CStride: b.width,
			SubsampleRatio: stdimage.YCbCrSubsampleRatio420, Rect: r,
		}
	case m.planes[0].channels == 1:
		return &stdimage.Gray{Pix: m.planes[0].pix(), Stride: m.width, Rect: r}
	}
	out := &stdimage.RGBA{Pix: m.planes[0].pix(), Stride: 4 * m.width, Rect: r}
	if !m.opaque {
		for i := 0; i < len(out.Pix); i += 4 {
			white := 255 - out.Pix[i+3]
			out.Pix[i], out.Pix[i+1], out.Pix[i+2], out.Pix[i+3] = out.Pix[i]+white, out.Pix[i+1]+white, out.Pix[i+2]+white, 255
		}
	}
	return out
}

func (m *raster) forPNG() stdimage.Image {
	if len(m.planes) == 1 && m.planes[0].channels == 1 {
		return &stdimage.Gray{Pix: m.planes[0].pix(), Stride: m.width, Rect: stdimage.Rect(0, 0, m.width, m.height)}
	}
	return m.straight()
}

// straight has the colours as they are, and alpha beside them.
func (m *raster) straight() *stdimage.NRGBA {
	out := stdimage.NewNRGBA(stdimage.Rect(0, 0, m.width, m.height))
	switch {
	case len(m.planes) == 3:
		m.colours(out.Pix)
	case m.planes[0].channels == 1:
		for i, v := range m.planes[0].pix() {
			o := out.Pix[4*i:][:4]
			o[0], o[1], o[2], o[3] = v, v, v, 255
		}
	default:
		copy(out.Pix, m.planes[0].pix())
		if m.opaque {
			break
		}
		for i := 0; i < len(out.Pix); i += 4 {
			if a := uint32(out.Pix[i+3]); a > 0 && a < 255 {
				for c := range 3 {
					out.Pix[i+c] = uint8(min((uint32(out.Pix[i+c])*255+a/2)/a, 255))
				}
			}
		}
	}
	return out
}

func (m *raster) colours(pix []uint8) {
	luma, b, c := m.planes[0].pix(), &m.planes[1], &m.planes[2]
	cb, cr := b.pix(), c.pix()
	half := 1 // as a shift; 0 where chroma is full
	if b.width == m.width && b.height == m.height {
		half = 0
	}
	for y := range m.height {
		row, chroma := pix[4*y*m.width:], y>>half*b.width
		for x := range m.width {
			o := row[4*x:][:4]
			o[0], o[1], o[2] = color.YCbCrToRGB(luma[y*m.width+x], cb[chroma+x>>half], cr[chroma+x>>half])
			o[3] = 255
		}
	}
}
