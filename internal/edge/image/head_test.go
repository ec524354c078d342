package image

import (
	"bytes"
	"testing"
)

func FuzzHead(f *testing.F) {
	for _, name := range []string{"photo.webp", "holed.webp", "lossless.webp"} {
		f.Add(testdata(f, name))
	}
	m := photo(16, 12, true)
	f.Add(jpegOf(f, m))
	f.Add(pngOf(f, m))
	f.Add(gifOf(f, 1))
	f.Add(gifOf(f, 2))
	f.Add(bomb(1<<31-1, 1<<31-1))
	f.Add(inJPEG(jpegOf(f, m), markAPP1, append([]byte("Exif\x00\x00"), exif(leOrder, 6)...)))
	f.Add(jpegWithProfile(jpegOf(f, m), profileNamed("P3", 300)))
	f.Add(pngWithProfile(pngOf(f, m), profileNamed("P3", 300)))
	f.Add(inPNG(pngOf(f, m), "acTL", make([]byte, 8)))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, ok := readHead(b)
		if !ok {
			return
		}
		if h.width <= 0 || h.height <= 0 || h.perPixel <= 0 || h.orientation < 1 || h.orientation > 8 || len(h.profile) > maxProfile {
			t.Fatalf("%+v", h)
		}
		// What the decoder makes is no larger than the head says: that is what the budget stands on.
		if h.animated || h.foreign || h.width*h.height > 1<<16 || h.width > 1<<16 || h.height > 1<<16 {
			return
		}
		m, err := library{}.decode(bytes.NewReader(b), h.kind)
		if err != nil {
			return
		}
		if m.Bounds().Dx() != h.width || m.Bounds().Dy() != h.height {
			t.Fatalf("the head says %d by %d, the decoder %v", h.width, h.height, m.Bounds())
		}
		if _, ok := rasterOf(m, h.kind); !ok && h.kind != jpegKind {
			t.Fatalf("a %T of kind %d is not known", m, h.kind)
		}
	})
}

func TestPlansFit(t *testing.T) {
	for _, c := range []struct {
		f            form
		w, h         int
		width, hight int
		x, y         float64
		ok           bool
	}{
		{form{width: 100}, 400, 200, 100, 50, 0, 0, true},
		{form{height: 100}, 400, 200, 200, 100, 0, 0, true},
		{form{width: 100, height: 100}, 400, 200, 100, 50, 0, 0, true},
		{form{width: 800}, 400, 200, 400, 200, 0, 0, true},
		{form{width: 800, fit: contain}, 400, 200, 800, 400, 0, 0, true},
		{form{width: 100, height: 100, fit: cover}, 400, 200, 100, 100, 100, 0, true},
		{form{width: 800, height: 800, fit: cover}, 400, 200, 800, 800, 100, 0, true},
		{form{width: 800, height: 800, fit: crop}, 400, 200, 200, 200, 100, 0, true},
		{form{width: 100, height: 300, fit: crop}, 200, 200, 67, 200, 66.66, 0, true},
		{form{width: 100, height: 10, fit: cover}, 400, 200, 100, 10, 0, 80, true},
		{form{width: 2560, fit: contain}, 10, 10_000, 4, 4096, 0, 0, true},
		{form{width: 64}, 10_000, 1, 64, 1, 0, 0, true},
		{form{}, 400, 200, 400, 200, 0, 0, true},
		{form{}, 5000, 200, 5000, 200, 0, 0, false},
	} {
		p, ok := planFor(&c.f, c.w, c.h)
		if ok != c.ok || p.width != c.width || p.height != c.hight || p.x-c.x > .01 || c.x-p.x > .01 || p.y != c.y {
			t.Errorf("%+v of %d by %d: %+v, %t", c.f, c.w, c.h, p, ok)
		}
	}
}
