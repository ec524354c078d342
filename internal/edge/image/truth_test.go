package image

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	stdimage "image"
	"image/color"
	"image/jpeg"
	"image/png"
	"math"
	"testing"
)

// shade is the scene that tests photograph: u and v go from 0 to 1. It has smooth parts, fine waves and an edge.
func shade(u, v float64) (r, g, b float64) {
	r = 128 + 60*math.Sin(7*u+3*v) + 30*math.Sin(41*u*v+9*u) + 12*math.Sin(60*u+30*v*v)
	g = 110 + 70*math.Cos(5*v+2*u) + 25*math.Sin(20*u*u-20*v)
	b = 90 + 50*math.Sin(11*(u-v)) + 20*math.Cos(30*v)
	if (u-.4)*(u-.4)+(v-.6)*(v-.6) < .04 {
		r, g, b = b+80, r-20, g+10
	}
	return r, g, b
}

// photo is the scene at a size, and alpha a hole in it, each pixel the mean of many points.
func photo(w, h int, alpha bool) *stdimage.NRGBA {
	n := 3
	if w > 120 {
		n = 1 // what it shows is smooth at that size
	}
	m := stdimage.NewNRGBA(stdimage.Rect(0, 0, w, h))
	for y := range h {
		for x := range w {
			var r, g, b, a float64
			for i := range n * n {
				u, v := (float64(x)+(float64(i%n)+.5)/float64(n))/float64(w), (float64(y)+(float64(i/n)+.5)/float64(n))/float64(h)
				pr, pg, pb := shade(u, v)
				r, g, b = r+pr, g+pg, b+pb
				if !alpha || (u-.5)*(u-.5)+(v-.5)*(v-.5) > .05 {
					a++
				}
			}
			c := func(f float64) uint8 { return uint8(min(max(f/float64(n*n), 0), 255)) }
			m.SetNRGBA(x, y, color.NRGBA{c(r), c(g), c(b), c(255 * a)})
		}
	}
	return m
}

// psnr is the peak signal to noise ratio of two pictures over white, in decibels: above 40 nobody sees a difference.
func psnr(t testing.TB, a, b stdimage.Image) float64 {
	t.Helper()
	if a.Bounds().Size() != b.Bounds().Size() {
		t.Fatalf("sizes are %v and %v", a.Bounds().Size(), b.Bounds().Size())
	}
	sum, n := 0.0, 0
	for y := range a.Bounds().Dy() {
		for x := range a.Bounds().Dx() {
			p, q := overWhite(a.At(x, y)), overWhite(b.At(x, y))
			for i := range p {
				d := p[i] - q[i]
				sum += d * d
				n++
			}
		}
	}
	if sum == 0 {
		return 99
	}
	return 10 * math.Log10(255*255*float64(n)/sum)
}

func overWhite(c color.Color) [3]float64 {
	r, g, b, a := c.RGBA()
	white := 0xffff - a
	return [3]float64{float64(r+white) / 257, float64(g+white) / 257, float64(b+white) / 257}
}

func jpegOf(t testing.TB, m stdimage.Image) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := jpeg.Encode(&b, m, &jpeg.Options{Quality: 95}); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func pngOf(t testing.TB, m stdimage.Image) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := png.Encode(&b, m); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// leOrder is that of most cameras.
var leOrder binary.AppendByteOrder = binary.LittleEndian

// exif is an APP1 segment with an orientation, in either order of bytes.
func exif(order binary.AppendByteOrder, orientation int) []byte {
	tiff := []byte("II*\x00")
	if order == binary.BigEndian {
		tiff = []byte("MM\x00*")
	}
	tiff = order.AppendUint32(tiff, 8)
	tiff = order.AppendUint16(tiff, 2)
	tiff = order.AppendUint16(tiff, 0x010f) // Make, which is to be skipped
	tiff = order.AppendUint16(tiff, 2)
	tiff = order.AppendUint32(tiff, 4)
	tiff = append(tiff, "Cam\x00"...)
	tiff = order.AppendUint16(tiff, 0x0112)
	tiff = order.AppendUint16(tiff, 3)
	tiff = order.AppendUint32(tiff, 1)
	tiff = order.AppendUint16(tiff, uint16(orientation))
	return append(tiff, 0, 0, 0, 0, 0, 0)
}

// inJPEG puts a segment behind SOI.
func inJPEG(b []byte, mark byte, data []byte) []byte {
	out := append([]byte{0xff, 0xd8, 0xff, mark}, 0, 0)
	binary.BigEndian.PutUint16(out[4:], uint16(len(data)+2))
	out = append(out, data...)
	return append(out, b[2:]...)
}

// chunk is one of PNG.
func chunk(name string, data []byte) []byte {
	out := binary.BigEndian.AppendUint32(nil, uint32(len(data)))
	body := append([]byte(name), data...)
	out = append(out, body...)
	return binary.BigEndian.AppendUint32(out, crc32.ChecksumIEEE(body))
}

// inPNG puts a chunk behind IHDR.
func inPNG(b []byte, name string, data []byte) []byte {
	const ihdr = len(pngMagic) + 25
	out := append([]byte{}, b[:ihdr]...)
	out = append(out, chunk(name, data)...)
	return append(out, b[ihdr:]...)
}

// profileNamed is an ICC profile of RGB colours with a name and no more.
func profileNamed(name string, length int) []byte {
	p := make([]byte, 128, length)
	copy(p[16:], "RGB ")
	copy(p[36:], "acsp")
	p = binary.BigEndian.AppendUint32(p, 1)
	p = append(p, "desc"...)
	p = binary.BigEndian.AppendUint32(p, 144)
	p = binary.BigEndian.AppendUint32(p, uint32(len(name)))
	p = append(p, name...)
	for i := len(p); i < length; i++ {
		p = append(p, byte(i*7))
	}
	return p
}

// lain is a picture as a camera stores it that was held so that Exif says orientation.
func lain(m *stdimage.NRGBA, orientation int) *stdimage.NRGBA {
	w, h := m.Rect.Dx(), m.Rect.Dy()
	out := stdimage.NewNRGBA(stdimage.Rect(0, 0, w, h))
	if orientation >= 5 {
		out = stdimage.NewNRGBA(stdimage.Rect(0, 0, h, w))
	}
	for y := range h {
		for x := range w {
			c := m.NRGBAAt(x, y)
			// Where the picture's row 0 and column 0 are (Exif 2.32 table 6).
			switch orientation {
			case 1:
				out.SetNRGBA(x, y, c)
			case 2: // top, right
				out.SetNRGBA(w-1-x, y, c)
			case 3: // bottom, right
				out.SetNRGBA(w-1-x, h-1-y, c)
			case 4: // bottom, left
				out.SetNRGBA(x, h-1-y, c)
			case 5: // left, top: rows are columns
				out.SetNRGBA(y, x, c)
			case 6: // right, top: the file's row 0 is the right side
				out.SetNRGBA(y, w-1-x, c)
			case 7: // right, bottom
				out.SetNRGBA(h-1-y, w-1-x, c)
			case 8: // left, bottom
				out.SetNRGBA(h-1-y, x, c)
			}
		}
	}
	return out
}
