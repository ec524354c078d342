package image

import (
	"bytes"
	"encoding/binary"
	stdimage "image"
	"image/jpeg"
	"os"
	"strings"
	"testing"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/http/message"
)

// spec makes what tests ask for allowed.
var spec = v1.ImagePolicySpec{
	Widths: []int{40, 80, 100, 120, 200, 400}, Heights: []int{30, 60, 100, 300}, MaxSource: 1 << 20, MaxPixels: 1 << 20,
	Default: v1.ImageForm{Quality: 90},
}

func testdata(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestAPictureLooksLikeTheSceneAtItsSize(t *testing.T) {
	t.Parallel()
	whole := photo(320, 240, false)
	holed := photo(320, 240, true)
	for name, c := range map[string]struct {
		src   []byte
		query string
		kind  string
		w, h  int
		alpha bool
		least float64 // 0: as good as the scene itself in that format, less half a decibel
	}{
		"JPEG smaller":           {jpegOf(t, whole), "width=80", "image/jpeg", 80, 60, false, 0},
		"JPEG by height":         {jpegOf(t, whole), "height=60", "image/jpeg", 80, 60, false, 0},
		"JPEG to PNG":            {jpegOf(t, whole), "width=80&format=png", "image/png", 80, 60, false, 36},
		"JPEG larger":            {jpegOf(t, whole), "width=400&fit=contain", "image/jpeg", 400, 300, false, 30},
		"JPEG of another format": {pngOf(t, whole), "format=jpeg", "image/jpeg", 320, 240, false, 0},
		"PNG smaller":            {pngOf(t, whole), "width=80", "image/png", 80, 60, false, 45},
		"PNG with alpha":         {pngOf(t, holed), "width=80", "image/png", 80, 60, true, 38},
		"WebP smaller":           {testdata(t, "photo.webp"), "width=80", "image/jpeg", 80, 60, false, 0},
		"WebP with alpha":        {testdata(t, "holed.webp"), "width=80", "image/png", 80, 60, true, 32},
		"WebP lossless":          {testdata(t, "lossless.webp"), "width=40&format=png", "image/png", 40, 30, false, 40},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, spec)
			r.answers(c.src, false, "Content-Type: image/x", `ETag: "v1"`)
			_, resp, b := r.ask(t, "GET /a?"+c.query)
			if got := string(resp.Get(message.ContentType)); got != c.kind {
				t.Fatalf("the answer is %s, want %s", got, c.kind)
			}
			m := seen(t, resp, b)
			truth := photo(c.w, c.h, c.alpha)
			if c.least == 0 {
				c.least = psnr(t, viaJPEG(t, truth, 90), truth) - .5
			}
			if db := psnr(t, m, truth); db < c.least {
				t.Errorf("%.1f dB, want at least %.1f", db, c.least)
			}
			if resp.ContentLength != int64(len(b)) {
				t.Errorf("Content-Length %d of %d bytes", resp.ContentLength, len(b))
			}
		})
	}
}

// viaJPEG is a picture as a JPEG of it looks, which has half of the chroma.
func viaJPEG(t testing.TB, m stdimage.Image, quality int) stdimage.Image {
	var b bytes.Buffer
	if err := jpeg.Encode(&b, m, &jpeg.Options{Quality: quality}); err != nil {
		t.Fatal(err)
	}
	out, err := jpeg.Decode(&b)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestWhatIsCutOffIsTheEdges(t *testing.T) {
	t.Parallel()
	whole := photo(400, 200, false)
	part := func(r stdimage.Rectangle) stdimage.Image { return moved(whole.SubImage(r).(*stdimage.NRGBA)) }
	r := newRig(t, spec)
	r.answers(pngOf(t, whole), false, "Content-Type: image/png")
	_, resp, b := r.ask(t, "GET /a?width=100&height=100&fit=cover")
	want := photo(200, 100, false).SubImage(stdimage.Rect(50, 0, 150, 100)).(*stdimage.NRGBA)
	if db := psnr(t, seen(t, resp, b), moved(want)); db < 38 {
		t.Errorf("cover: %.1f dB", db)
	}
	r = newRig(t, v1.ImagePolicySpec{Widths: []int{600}, Heights: []int{600}})
	r.answers(pngOf(t, whole), false, "Content-Type: image/png")
	_, resp, b = r.ask(t, "GET /a?width=600&height=600&fit=crop")
	if db := psnr(t, seen(t, resp, b), part(stdimage.Rect(100, 0, 300, 200))); db < 50 {
		t.Errorf("crop, which never enlarges: %.1f dB", db)
	}
}

// moved has its first pixel at 0, 0.
func moved(m *stdimage.NRGBA) *stdimage.NRGBA {
	return &stdimage.NRGBA{Pix: m.Pix, Stride: m.Stride, Rect: stdimage.Rect(0, 0, m.Rect.Dx(), m.Rect.Dy())}
}

func TestExifOrientationIsAppliedAndMetadataIsGone(t *testing.T) {
	t.Parallel()
	upright := photo(240, 180, false)
	want := photo(80, 60, false)
	least := psnr(t, viaJPEG(t, want, 90), want) - .5
	for o := 1; o <= 8; o++ {
		order := binary.AppendByteOrder(binary.LittleEndian)
		if o%2 == 0 {
			order = binary.BigEndian
		}
		data := exif(order, o)
		for name, src := range map[string][]byte{
			"jpeg": inJPEG(jpegOf(t, lain(upright, o)), markAPP1, append([]byte("Exif\x00\x00"), data...)),
			"png":  inPNG(pngOf(t, lain(upright, o)), "eXIf", data),
		} {
			r := newRig(t, spec)
			r.answers(src, false, "Content-Type: image/"+name)
			_, resp, b := r.ask(t, "GET /a?width=80")
			if db := psnr(t, seen(t, resp, b), want); db < least {
				t.Errorf("%s, orientation %d: %.1f dB", name, o, db)
			}
			if bytes.Contains(b, []byte("Cam\x00")) {
				t.Errorf("%s, orientation %d: the metadata is still there", name, o)
			}
			// Only turned, and of a part that is cut out of the middle.
			_, resp, b = r.ask(t, "GET /a?width=100&height=30&fit=cover")
			cut := photo(100, 75, false).SubImage(stdimage.Rect(0, 22, 100, 52)).(*stdimage.NRGBA)
			if db := psnr(t, seen(t, resp, b), moved(cut)); db < 25 {
				t.Errorf("%s, orientation %d, cut: %.1f dB", name, o, db)
			}
			if _, resp, b = r.ask(t, "GET /a"); o > 1 && seen(t, resp, b).Bounds().Dx() != 240 {
				t.Errorf("%s, orientation %d: without parameters it lies", name, o)
			}
		}
	}
}

func TestAlphaIsKeptOrPutOnWhite(t *testing.T) {
	t.Parallel()
	r := newRig(t, spec)
	r.answers(pngOf(t, photo(320, 240, true)), false, "Content-Type: image/png")
	_, resp, b := r.ask(t, "GET /a?width=80")
	if _, _, _, a := seen(t, resp, b).At(40, 30).RGBA(); a != 0 {
		t.Errorf("alpha in the middle is %d, want 0", a)
	}
	_, resp, b = r.ask(t, "GET /a?width=80&format=jpeg")
	if c := overWhite(seen(t, resp, b).At(40, 30)); c[0] < 250 || c[1] < 250 || c[2] < 250 {
		t.Errorf("under transparency is %v, want white", c)
	}
}

func TestAProfileIsKeptUnlessItIsSRGB(t *testing.T) {
	t.Parallel()
	wide, common := profileNamed("Display P3", 3000), profileNamed("sRGB IEC61966-2.1", 3000)
	large := profileNamed("Large", maxProfile-100)
	whole := photo(320, 240, false)
	in := func(p []byte) []byte { return jpegWithProfile(jpegOf(t, whole), p) }
	for name, c := range map[string]struct {
		src  []byte
		want []byte
	}{
		"JPEG": {in(wide), wide}, "PNG": {pngWithProfile(pngOf(t, whole), wide), wide},
		"JPEG sRGB": {in(common), nil}, "PNG sRGB": {pngWithProfile(pngOf(t, whole), common), nil},
		"one of two segments":   {in(large), large},
		"one that is too large": {in(profileNamed("Huge", maxProfile+100)), nil},
		"one of CMYK":           {in(bytes.Replace(wide, []byte("RGB "), []byte("CMYK"), 1)), nil},
	} {
		for _, format := range []string{"jpeg", "png"} {
			r := newRig(t, spec)
			r.answers(c.src, false, "Content-Type: image/x")
			_, resp, b := r.ask(t, "GET /a?width=80&format="+format)
			seen(t, resp, b)
			h, ok := readHead(b)
			if !ok || !bytes.Equal(h.profile, c.want) {
				t.Errorf("%s as %s: a profile of %d bytes, want %d", name, format, len(h.profile), len(c.want))
			}
			if strings.Contains(name, "sRGB") && bytes.Contains(b, []byte("sRGB IEC")) {
				t.Errorf("%s as %s: the profile is still there", name, format)
			}
		}
	}
}

func TestScalingNothingChangesNothing(t *testing.T) {
	t.Parallel()
	for _, taps := range tapsOf(axis{0, 17, 17}, 17) {
		sum := int32(0)
		for _, w := range taps.weights {
			sum += w
		}
		if sum != 1<<tapBits {
			t.Errorf("weights add up to %d", sum)
		}
	}
	m := photo(33, 21, false)
	r, _ := rasterOf(m, pngKind)
	out, err := r.resized(t.Context(), &plan{w: 33, h: 21, width: 33, height: 21}, false)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(out.straight().Pix, m.Pix) {
		t.Error("a picture of the same size has other pixels")
	}
}
