package edge

import (
	"bytes"
	stdimage "image"
	"image/color"
	"image/jpeg"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

// picture is a JPEG of w by h pixels.
func picture(t testing.TB, w, h int) []byte {
	t.Helper()
	m := stdimage.NewRGBA(stdimage.Rect(0, 0, w, h))
	for y := range h {
		for x := range w {
			m.Set(x, y, color.RGBA{uint8(x * 255 / w), uint8(y * 255 / h), uint8((x + y) % 256), 255})
		}
	}
	var b bytes.Buffer
	if err := jpeg.Encode(&b, m, nil); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

const pictures = `
---
apiVersion: relais/v1
kind: ImagePolicy
metadata: {name: pictures}
spec: {widths: [100, 200], presets: [{name: thumb, width: 50, height: 50, fit: cover, format: jpeg}], timeout: 30s}
---
apiVersion: relais/v1
kind: CachePolicy
metadata: {name: pages}
spec: {purge: {addresses: [127.0.0.0/8]}}
`

const pictureSite = siteHead + `
  cache: pages
  images: pictures
  routes: [{pool: shop}]
` + pictures + pool

// gallery is a bed whose origin has a picture, and counts how often it was asked and validated.
func gallery(t *testing.T) (b *bed, asked, validated *atomic.Int32) {
	asked, validated = new(atomic.Int32), new(atomic.Int32)
	src := picture(t, 400, 300)
	b = newBed(t, func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		if r.URL.RawQuery != "" && r.URL.RawQuery != "v=1" {
			t.Errorf("the origin is asked for ?%s", r.URL.RawQuery)
		}
		w.Header().Set("Content-Type", "image/jpeg")
		w.Header().Set("Cache-Control", "max-age=60")
		if strings.HasPrefix(r.URL.Path, "/stale") {
			w.Header().Set("Cache-Control", "max-age=0")
		}
		w.Header().Set("Cache-Tag", "product-1")
		w.Header().Set("ETag", `"v1"`)
		w.Header().Set("Vary", "Accept")
		if r.Header.Get("If-None-Match") == `"v1"` {
			validated.Add(1)
			w.WriteHeader(304)
			return
		}
		_, _ = w.Write(src)
	}, pictureSite)
	return b, asked, validated
}

// sizeOf is how wide and high a JPEG is.
func sizeOf(t *testing.T, text string) (w, h int) {
	t.Helper()
	c, err := jpeg.DecodeConfig(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	return c.Width, c.Height
}

func TestAPictureIsMadeOnceAndStored(t *testing.T) {
	b, asked, _ := gallery(t)
	for path, want := range map[string][2]int{
		"/a?width=100": {100, 75}, "/a?v=1&width=150": {200, 150}, "/a?preset=thumb": {50, 50}, "/a": {400, 300},
	} {
		asked.Store(0)
		var first string
		for i, proto := range []string{"http1", "h2c", "http1"} {
			resp, text := b.get(proto, path)
			expect(t, path, resp, 200, map[string]string{"Content-Type": "image/jpeg"})
			if w, h := sizeOf(t, text); w != want[0] || h != want[1] {
				t.Errorf("%s is %d by %d, want %v", path, w, h, want)
			}
			if i == 0 {
				first = text
			} else if text != first || !strings.Contains(resp.Header.Get("Cache-Status"), "; hit") {
				t.Errorf("%s: not what is stored, %s", path, resp.Header.Get("Cache-Status"))
			}
		}
		if asked.Load() != 1 {
			t.Errorf("%s: the origin was asked %d times", path, asked.Load())
		}
	}
	if n := strings.Count(b.scrape(), `relais_image_answers_total{result="made"} 3`); n != 1 {
		t.Error("not three were made")
	}
}

func TestAStoredPictureAnswersConditionsRangesAndHEAD(t *testing.T) {
	b, asked, _ := gallery(t)
	resp, text := b.get("http1", "/a?width=100")
	tag := resp.Header.Get("ETag")
	expect(t, "GET", resp, 200, map[string]string{"ETag": `W/"v1~100x0.scale-down.q80.auto-original"`, "Vary": "Accept"})
	resp, _ = b.get("http1", "/a?width=100", "If-None-Match: "+tag)
	expect(t, "If-None-Match", resp, 304, map[string]string{"ETag": tag, "Vary": "Accept"})
	resp, part := b.get("http1", "/a?width=100", "Range: bytes=10-19")
	if expect(t, "Range", resp, 206, nil); part != text[10:20] {
		t.Error("the range is of other bytes")
	}
	for _, path := range []string{"/a?width=100", "/b?width=100"} { // stored, and not
		resp, none := b.send("http1", "HEAD", path, nil)
		expect(t, "HEAD "+path, resp, 200, map[string]string{"Content-Type": "image/jpeg", "ETag": tag})
		if none != "" || resp.ContentLength != int64(len(text)) {
			t.Errorf("HEAD %s: Content-Length %d, want %d", path, resp.ContentLength, len(text))
		}
	}
	if resp, text2 := b.get("http1", "/c?width=100", "Range: bytes=10-19"); resp.StatusCode == 206 && text2 != text[10:20] {
		t.Error("a range of what is not stored is one of the original")
	}
	if asked.Load() != 3 {
		t.Errorf("the origin was asked %d times, want 3", asked.Load())
	}
}

func TestAStalePictureIsValidatedByTheOriginalsTag(t *testing.T) {
	b, asked, validated := gallery(t)
	_, first := b.get("http1", "/stale?width=100")
	for range 3 {
		resp, text := b.get("http1", "/stale?width=100")
		expect(t, "validated", resp, 200, map[string]string{"Content-Type": "image/jpeg", "ETag": `W/"v1~100x0.scale-down.q80.auto-original"`})
		if text != first {
			t.Error("a validated picture has other bytes")
		}
	}
	if asked.Load() != 4 || validated.Load() != 3 {
		t.Errorf("the origin was asked %d times, and %d times validated", asked.Load(), validated.Load())
	}
}

func TestAPurgeOfTheOriginalReachesAllVariants(t *testing.T) {
	b, _, _ := gallery(t)
	paths := []string{"/a", "/a?width=100", "/a?width=200&format=png", "/a?preset=thumb"}
	for what, purge := range map[string]func() error{
		"URL": func() error {
			_, err := b.Purge(t.Context(), &CachePurge{Site: "shop", URLs: []string{"/a"}})
			return err
		},
		"tag": func() error {
			_, err := b.Purge(t.Context(), &CachePurge{Site: "shop", Tags: []string{"product-1"}})
			return err
		},
		"PURGE": func() error { b.send("http1", "PURGE", "/a", nil); return nil },
		"PURGE of a variant, which is one of its URL": func() error { b.send("http1", "PURGE", "/a?width=100", nil); return nil },
	} {
		for _, p := range paths {
			b.get("http1", p)
			resp, _ := b.get("http1", p)
			for strings.Contains(resp.Header.Get("Cache-Status"), "; collapsed") { // its last byte came before it was stored
				resp, _ = b.get("http1", p)
			}
			if !strings.Contains(resp.Header.Get("Cache-Status"), "; hit") {
				t.Errorf("%s is not stored: %s", p, resp.Header.Get("Cache-Status"))
			}
		}
		if err := purge(); err != nil {
			t.Fatal(err)
		}
		for _, p := range paths {
			if resp, _ := b.get("http1", p); strings.Contains(resp.Header.Get("Cache-Status"), "; hit") {
				t.Errorf("after a purge by %s %s is a hit", what, p)
			}
		}
	}
}

func TestAReWarmFetchesTheFormsThatWereAskedFor(t *testing.T) {
	b, asked, _ := gallery(t)
	paths := []string{"/a?width=100", "/a?v=1&preset=thumb"}
	for _, p := range paths {
		b.heat(p)
	}
	asked.Store(0)
	var a PurgeAnswer
	if code := b.door("POST", "/cache/purge", CachePurge{Site: "shop", Tags: []string{"product-1"}, Warm: true}, &a); code != 200 || len(a.Jobs) != 1 {
		t.Fatalf("%d %+v", code, a)
	}
	if p := b.job(a.Jobs[0]); p.Stored != 2 || p.Total != 2 {
		t.Errorf("%+v", p)
	}
	var list WarmupAnswer
	b.door("POST", "/cache/warm", CacheWarmup{Site: "shop", URLs: []string{b.base("http1") + "/list?width=200"}}, &list)
	if p := b.job(list.Job); p.Stored != 1 {
		t.Errorf("of a list: %+v", p)
	}
	for _, p := range append(paths, "/list?width=200") {
		if resp, _ := b.get("http1", p); !strings.Contains(resp.Header.Get("Cache-Status"), "; hit") || resp.Header.Get("Content-Type") != "image/jpeg" {
			t.Errorf("%s: %s", p, resp.Header.Get("Cache-Status"))
		}
	}
	if asked.Load() != 3 {
		t.Errorf("the origin was asked %d times, want 3", asked.Load())
	}
}

func TestManyWhoWaitGetOnePicture(t *testing.T) {
	b, asked, _ := gallery(t)
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			resp, err := http.Get(b.base("http1") + "/a?width=100")
			if err != nil {
				t.Error(err)
				return
			}
			defer resp.Body.Close()
			if _, err := io.Copy(io.Discard, resp.Body); err != nil || resp.StatusCode != 200 {
				t.Error(resp.StatusCode, err)
			}
		})
	}
	wg.Wait()
	if asked.Load() != 1 || !strings.Contains(b.scrape(), `relais_image_answers_total{result="made"} 1`) {
		t.Errorf("the origin was asked %d times", asked.Load())
	}
}

func TestARefusedSizeIs400(t *testing.T) {
	b, asked, _ := gallery(t)
	b.apply(strings.Replace(pictureSite, "widths:", "other: refuse, widths:", 1))
	resp, _ := b.get("http1", "/a?width=101")
	expect(t, "101", resp, 400, nil)
	if resp, _ = b.get("http1", "/a?width=100"); resp.StatusCode != 200 || asked.Load() != 1 {
		t.Errorf("100: %d, the origin was asked %d times", resp.StatusCode, asked.Load())
	}
}
