//go:build nodynamic

package edge

import (
	"strings"
	"testing"
)

func TestVariantsByAcceptAreThreeClassesAndNotRawFields(t *testing.T) {
	b, asked, _ := gallery(t)
	b.apply(strings.Replace(pictureSite, "widths:", "formats: [avif, webp], widths:", 1))
	for kind, accepts := range map[string][]string{
		"image/avif": {"image/avif,image/webp,image/apng,image/svg+xml,image/*,*/*;q=0.8", "image/webp, image/avif", "image/avif,image/webp"},
		"image/webp": {"image/webp,*/*", "text/html, image/webp;q=0.9", "IMAGE/WEBP"},
		"image/jpeg": {"*/*", "image/png,image/svg+xml,image/*;q=0.8,*/*;q=0.5", "text/html", "image/avif;q=0"},
	} {
		asked.Store(0)
		var first, tag string
		for i, accept := range accepts {
			resp, text := b.get("http1", "/a?width=100", "Accept: "+accept)
			expect(t, accept, resp, 200, map[string]string{"Content-Type": kind, "Vary": "Accept"})
			if i == 0 {
				first, tag = text, resp.Header.Get("ETag")
			} else if text != first || resp.Header.Get("ETag") != tag || !strings.Contains(resp.Header.Get("Cache-Status"), "; hit") {
				t.Errorf("%s: not what is stored, %s", accept, resp.Header.Get("Cache-Status"))
			}
			if resp, _ := b.get("http1", "/a?width=100", "Accept: "+accept, "If-None-Match: "+tag); resp.StatusCode != 304 {
				t.Errorf("%s: %d in place of 304", accept, resp.StatusCode)
			}
		}
		if asked.Load() != 1 {
			t.Errorf("%s: the origin was asked %d times", kind, asked.Load())
		}
	}
	if _, err := b.Purge(t.Context(), &CachePurge{Site: "shop", URLs: []string{"/a"}}); err != nil {
		t.Fatal(err)
	}
	asked.Store(0)
	for _, accept := range []string{"image/avif,image/webp", "image/webp", "*/*"} {
		b.get("http1", "/a?width=100", "Accept: "+accept)
	}
	if asked.Load() != 3 {
		t.Errorf("after a purge of the original's URL the origin was asked %d times, want 3", asked.Load())
	}
}
