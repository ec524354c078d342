//go:build nodynamic

package image

import (
	"bytes"
	stdimage "image"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/gen2brain/avif"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/observe"
)

const browser = "Accept: image/avif,image/webp,image/apng,image/svg+xml,image/*,*/*;q=0.8"

// both allows AVIF too, and has time for the first use on a busy machine.
func both() v1.ImagePolicySpec {
	s := spec
	s.Formats = []string{"avif", "webp"}
	s.Timeout = v1.Duration(5 * 60e9)
	return s
}

func TestTheFormatIsTheOneThatTheClientTakes(t *testing.T) {
	t.Parallel()
	whole, holed := photo(320, 240, false), photo(320, 240, true)
	jpg, wide := jpegOf(t, whole), jpegWithProfile(jpegOf(t, whole), profileNamed("Display P3", 3000))
	for name, c := range map[string]struct {
		src           []byte
		query, accept string
		kind          string
		alpha         bool
		least         float64
	}{
		"AVIF first":            {jpg, "width=80", browser, "image/avif", false, 28},
		"WebP where no AVIF":    {jpg, "width=80", "Accept: image/webp,*/*", "image/webp", false, 28},
		"neither":               {jpg, "width=80", "Accept: */*", "image/jpeg", false, 28},
		"WebP with alpha":       {pngOf(t, holed), "width=80", "Accept: image/webp", "image/webp", true, 26},
		"AVIF with alpha":       {pngOf(t, holed), "width=80", browser, "image/avif", true, 26},
		"a profile and AVIF":    {wide, "width=80", browser, "image/webp", false, 28},
		"a profile, AVIF alone": {wide, "width=80", "Accept: image/avif", "image/jpeg", false, 28},
		"given":                 {jpg, "width=80&format=webp", "Accept: */*", "image/webp", false, 28},
		"from WebP":             {testdata(t, "holed.webp"), "width=80", "Accept: image/webp", "image/webp", true, 26},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, both())
			r.answers(c.src, true, "Content-Type: image/x")
			x, resp, b := r.ask(t, "GET /a?"+c.query, c.accept)
			if got := string(resp.Get(message.ContentType)); got != c.kind || word(x) != "made" {
				t.Fatalf("the answer is %s, %s; want %s", got, word(x), c.kind)
			}
			var m stdimage.Image
			if c.kind == "image/avif" {
				var err error
				if m, err = avif.Decode(bytes.NewReader(b)); err != nil {
					t.Fatal(err)
				}
				rgba := m.(*stdimage.RGBA) // of which the library does not multiply the colours
				m = &stdimage.NRGBA{Pix: rgba.Pix, Stride: rgba.Stride, Rect: rgba.Rect}
			} else {
				m = seen(t, resp, b)
			}
			db := psnr(t, m, photo(80, 60, c.alpha))
			t.Logf("%d bytes, %.1f dB", len(b), db)
			if db < c.least {
				t.Errorf("%.1f dB, want at least %.1f", db, c.least)
			}
			if h, ok := readHead(b); c.kind == "image/webp" && (!ok || (len(h.profile) > 0) != bytes.Equal(c.src, wide)) {
				t.Errorf("the profile has %d bytes", len(h.profile))
			}
		})
	}
}

func TestAWebPThatIsGoodEnoughPasses(t *testing.T) {
	t.Parallel()
	src := testdata(t, "photo.webp")
	r := newRig(t, both())
	r.answers(src, false, "Content-Type: image/webp")
	if x, _, b := r.ask(t, "GET /a", "Accept: image/webp"); word(x) != "fine" || !bytes.Equal(b, src) {
		t.Errorf("for who takes WebP: %s", word(x))
	}
	x, resp, b := r.ask(t, "GET /a", "Accept: image/png")
	if word(x) != "made" || seen(t, resp, b).Bounds().Dx() != 160 || string(resp.Get(message.ContentType)) != "image/jpeg" {
		t.Errorf("for who does not: %s, %s", word(x), resp.Get(message.ContentType))
	}
}

func TestAPictureTooLargeForAVIFIsAWebP(t *testing.T) {
	t.Parallel()
	j := job{v: &variant{form: form{format: avifFormat}, chosen: true, webp: true}, head: head{kind: jpegKind}}
	for _, c := range []struct {
		w, h int
		want format
	}{{1000, 1000, avifFormat}, {2000, 1500, webpFormat}} {
		if got := j.target(&raster{width: c.w, height: c.h, opaque: true}); got != c.want {
			t.Errorf("%d by %d is %s, want %s", c.w, c.h, formatNames[got], formatNames[c.want])
		}
	}
}

// BenchmarkMake makes a picture of 400 by 400 of a JPEG of 1600 by 1600, by one worker. MB/op is all that is allocated for
// one, which what is held at once does not exceed.
func BenchmarkMake(b *testing.B) {
	src := jpegOf(b, photo(1600, 1600, false))
	for _, f := range []format{jpegFormat, webpFormat, avifFormat} {
		b.Run(formatNames[f], func(b *testing.B) {
			benchmarkJob(b, src, f, 400)
		})
	}
	b.Run("webp of 1600", func(b *testing.B) { benchmarkJob(b, src, webpFormat, 1600) })
	b.Run("avif of 1080", func(b *testing.B) { benchmarkJob(b, src, avifFormat, 1080) })
}

func benchmarkJob(b *testing.B, src []byte, f format, side int) {
	s := New(Config{}, observe.New())
	j := &job{src: src, v: &variant{form: form{width: side, height: side, fit: cover, quality: 80, format: f}}}
	r := newRule("p", &v1.ImagePolicySpec{})
	if o := j.prepare(r, 1<<30); o != made {
		b.Fatal(outcomeNames[o])
	}
	length := 0
	one := func() {
		res := s.work(b.Context(), j)
		if res.outcome != made {
			b.Fatal(outcomeNames[res.outcome], res.err)
		}
		length = len(res.bytes)
	}
	one()
	var from, to syscall.Rusage
	var before, after runtime.MemStats
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &from)
	runtime.ReadMemStats(&before)
	n := 0
	for b.Loop() {
		one()
		n++
	}
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &to)
	runtime.ReadMemStats(&after)
	cpu := time.Duration(to.Utime.Nano() + to.Stime.Nano() - from.Utime.Nano() - from.Stime.Nano())
	b.ReportMetric(float64(cpu.Microseconds())/1000/float64(n), "cpu-ms/op")
	b.ReportMetric(float64(after.TotalAlloc-before.TotalAlloc)/1e6/float64(n), "MB/op")
	b.ReportMetric(float64(j.cost)/1e6, "estimated-MB")
	b.ReportMetric(float64(length), "bytes")
}
