//go:build nodynamic

package image

import (
	stdimage "image"
	"io"

	"github.com/gen2brain/avif"
	"github.com/gen2brain/webp"
)

// The encoders of WebP and AVIF are libwebp and libavif as WebAssembly: a fault in them is an error here and no
// more. Without the tag nodynamic these packages would look for the system's libraries and load them, so that
// a build without it has neither format.
const withWebP, withAVIF = true, true

// webpMethod is the work that libwebp spends, 0 to 6.
const webpMethod = 4

// avifSpeed is the fastest, 0 to 10.
const avifSpeed = 10

func encodeWebP(w io.Writer, m *stdimage.NRGBA, quality int) error {
	// 100 would mean lossless to the library.
	return webp.Encode(w, m, webp.Options{Quality: min(quality, 99), Method: webpMethod})
}

func encodeAVIF(w io.Writer, m *stdimage.NRGBA, quality int) error {
	// The library wants this type and takes its bytes as they are, with the colours not multiplied.
	straight := &stdimage.RGBA{Pix: m.Pix, Stride: m.Stride, Rect: m.Rect}
	return avif.Encode(w, straight, avif.Options{
		Quality: quality, QualityAlpha: max(quality, 80), Speed: avifSpeed, ChromaSubsampling: stdimage.YCbCrSubsampleRatio420,
	})
}
