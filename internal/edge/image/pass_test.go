package image

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	stdimage "image"
	"image/color"
	"image/gif"
	"io"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/stage"
)

func gifOf(t testing.TB, frames int) []byte {
	t.Helper()
	g := &gif.GIF{}
	for range frames {
		m := stdimage.NewPaletted(stdimage.Rect(0, 0, 200, 150), color.Palette{color.Black, color.White})
		for i := range m.Pix {
			m.Pix[i] = uint8(i / 50 % 2)
		}
		g.Image, g.Delay = append(g.Image, m), append(g.Delay, 10)
	}
	var b bytes.Buffer
	if err := gif.EncodeAll(&b, g); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// bomb is the beginning of a PNG that says that it is this large.
func bomb(w, h uint32) []byte {
	ihdr := binary.BigEndian.AppendUint32(nil, w)
	ihdr = binary.BigEndian.AppendUint32(ihdr, h)
	ihdr = append(ihdr, 8, 6, 0, 0, 0)
	return append(append([]byte(pngMagic), chunk("IHDR", ihdr)...), chunk("IDAT", bytes.Repeat([]byte{0}, 64))...)
}

// webpWith is a WebP of one chunk.
func webpWith(name string, data []byte) []byte {
	out := append([]byte("RIFF\x00\x00\x00\x00WEBP"), name...)
	out = binary.LittleEndian.AppendUint32(out, uint32(len(data)))
	out = append(out, data...)
	binary.LittleEndian.PutUint32(out[4:], uint32(len(out)-8))
	return out
}

func TestWhatIsNotToBeMadePassesUntouched(t *testing.T) {
	t.Parallel()
	jpg := jpegOf(t, photo(320, 240, false))
	small := jpegOf(t, photo(80, 60, false))
	cmyk := bytes.Clone(jpg)
	i := bytes.Index(cmyk, []byte{0xff, 0xc0})
	cmyk = append(cmyk[:i:i], 0xff, 0xc0, 0, 20, 8, 0, 240, 1, 64, 4, 1, 0x11, 0, 2, 0x11, 0, 3, 0x11, 0, 4, 0x11, 0)
	cmyk = append(cmyk, jpg[i+19:]...)
	apng := inPNG(pngOf(t, photo(320, 240, false)), "acTL", []byte{0, 0, 0, 2, 0, 0, 0, 0})
	for name, c := range map[string]struct {
		src    []byte
		fields []string
		query  string
		want   string
	}{
		"smaller than asked for":  {small, []string{"Content-Type: image/jpeg"}, "width=400", "fine"},
		"nothing asked for":       {small, []string{"Content-Type: image/jpeg"}, "", "fine"},
		"the same format":         {small, []string{"Content-Type: image/jpeg"}, "format=jpeg", "fine"},
		"a GIF with two frames":   {gifOf(t, 2), []string{"Content-Type: image/gif"}, "width=80", "animated"},
		"an APNG":                 {apng, []string{"Content-Type: image/png"}, "width=80", "animated"},
		"an animated WebP":        {webpWith("VP8X", []byte{2, 0, 0, 0, 63, 0, 0, 63, 0, 0}), []string{"Content-Type: image/webp"}, "width=80", "damaged"},
		"a text":                  {[]byte(strings.Repeat("no picture ", 300)), []string{"Content-Type: text/plain"}, "width=80", "no-image"},
		"a picture called a text": {jpg, []string{"Content-Type: text/html"}, "width=80", "no-image"},
		"a text called a picture": {[]byte(strings.Repeat("no picture ", 300)), []string{"Content-Type: image/jpeg"}, "width=80", "no-image"},
		"SVG":                     {[]byte("<svg xmlns='http://www.w3.org/2000/svg'/>"), []string{"Content-Type: image/svg+xml"}, "width=80", "no-image"},
		"AVIF":                    {[]byte("\x00\x00\x00\x20ftypavif\x00\x00\x00\x00"), []string{"Content-Type: image/avif"}, "width=80", "no-image"},
		"nothing":                 {[]byte("x")[:0], []string{"Content-Type: image/jpeg"}, "width=80", "no-image"},
		"CMYK":                    {cmyk, []string{"Content-Type: image/jpeg"}, "width=80", "no-image"},
		"a PNG bomb":              {bomb(100_000, 100_000), []string{"Content-Type: image/png"}, "width=80", "too-large"},
		"a PNG bomb of 32 bits":   {bomb(1<<31-1, 1<<31-1), []string{"Content-Type: image/png"}, "width=80", "too-large"},
		"a wide PNG bomb":         {bomb(1<<31-1, 1), []string{"Content-Type: image/png"}, "width=80", "too-large"},
		"a WebP bomb":             {webpWith("VP8L", []byte{0x2f, 0xff, 0xff, 0xff, 0x0f, 0}), []string{"Content-Type: image/webp"}, "width=80", "too-large"},
		"a truncated JPEG":        {jpg[:len(jpg)/2], []string{"Content-Type: image/jpeg"}, "width=80", "damaged"},
		"a JPEG cut in its head":  {jpg[:100], []string{"Content-Type: image/jpeg"}, "width=80", "damaged"},
		"a PNG of no pixels":      {bomb(0, 10), []string{"Content-Type: image/png"}, "width=80", "damaged"},
		"more bytes than allowed": {append(bytes.Clone(jpg), make([]byte, 1<<20)...), []string{"Content-Type: image/jpeg"}, "width=80", "too-large"},
		"no-transform":            {jpg, []string{"Content-Type: image/jpeg", "Cache-Control: max-age=60, no-transform"}, "width=80", "forbidden"},
		"with a coding":           {jpg, []string{"Content-Type: image/jpeg", "Content-Encoding: gzip"}, "width=80", "forbidden"},
	} {
		for _, piecewise := range []bool{false, true} {
			t.Run(name, func(t *testing.T) {
				r := newRig(t, spec)
				r.answers(c.src, piecewise, append(c.fields, `ETag: "v1"`, "Last-Modified: Wed, 01 Jan 2020 00:00:00 GMT")...)
				x, resp, b := r.ask(t, "GET /a?"+c.query)
				if !bytes.Equal(b, c.src) {
					t.Fatalf("%d bytes of %d are others", len(b), len(c.src))
				}
				if got := word(x); got != c.want {
					t.Errorf("it is %q, want %q", got, c.want)
				}
				if string(resp.Get(message.ETag)) != `"v1"` || !resp.Has(message.LastModified) || x.Brief != 0 {
					t.Error("it lost its validators")
				}
				if n := r.memory.used.Load(); n != 0 {
					t.Errorf("%d bytes of memory were not given back", n)
				}
			})
		}
	}
}

func TestASingleFrameOfAGIFIsMade(t *testing.T) {
	t.Parallel()
	r := newRig(t, spec)
	r.answers(gifOf(t, 1), true, "Content-Type: image/gif")
	x, resp, b := r.ask(t, "GET /a?width=80")
	if word(x) != "made" || seen(t, resp, b).Bounds().Dx() != 80 {
		t.Errorf("it is %s", word(x))
	}
}

func TestABodyThatBreaksOffBreaksOff(t *testing.T) {
	t.Parallel()
	cut := errors.New("the origin is gone")
	src := jpegOf(t, photo(320, 240, false))
	r := newRig(t, spec)
	r.origin = func(_ *stage.Exchange, resp *message.Response) {
		resp.AddString(message.ContentType, "image/jpeg")
		resp.ContentLength = int64(len(src))
		resp.Body = &broken{src[:3000], cut}
	}
	x := r.exchange("GET /a?width=80")
	resp, err := r.chain.Serve(t.Context(), x)
	if err != nil {
		t.Fatal(err)
	}
	first, err := resp.Body.Next(t.Context())
	if !bytes.Equal(first, src[:3000]) || err != nil {
		t.Error("what came is not passed on")
	}
	if _, err := resp.Body.Next(t.Context()); !errors.Is(err, cut) {
		t.Errorf("then comes %v, want the origin's error", err)
	}
	resp.Body.Close(cut)
	if r.memory.used.Load() != 0 {
		t.Error("memory was not given back")
	}
}

type broken struct {
	rest []byte
	err  error
}

func (b *broken) Next(context.Context) ([]byte, error) {
	if len(b.rest) == 0 {
		return nil, b.err
	}
	out := b.rest
	b.rest = nil
	return out, nil
}

func (b *broken) Close(error) {}

// trial is a codec that a test plays.
type trial struct {
	codec
	before func()
}

func (c trial) decode(r io.Reader, k kind) (stdimage.Image, error) {
	c.before()
	return c.codec.decode(r, k)
}

var fresh = []string{
	"Content-Type: image/jpeg", `ETag: "v1"`, "Last-Modified: Wed, 01 Jan 2020 00:00:00 GMT", "Cache-Control: public, max-age=31536000, immutable",
	"Expires: Wed, 01 Jan 2070 00:00:00 GMT", "My-Cache-Control: max-age=3600",
}

// standsIn fails unless an answer is the original for a moment.
func standsIn(t *testing.T, x *stage.Exchange, resp *message.Response, b, src []byte, why string) {
	t.Helper()
	if !bytes.Equal(b, src) || word(x) != why {
		t.Errorf("%d bytes, %q; want the original, %q", len(b), word(x), why)
	}
	if x.Brief != brief || resp.Has(message.ETag) || resp.Has(message.LastModified) || resp.Has(message.Expires) {
		t.Errorf("it may be kept for %v, with validators", x.Brief)
	}
	if got := string(resp.Get(message.CacheControl)); got != "public, max-age=10" {
		t.Errorf("Cache-Control is %q", got)
	}
	if got := string(resp.Lookup("My-Cache-Control")); got != "max-age=10" {
		t.Errorf("the targeted field is %q", got)
	}
}

func TestAPanicGivesTheOriginalForAMoment(t *testing.T) {
	src := jpegOf(t, photo(320, 240, false))
	r := newRig(t, spec)
	r.codec = trial{library{}, func() { panic("a bug") }}
	r.answers(src, true, fresh...)
	x, resp, b := r.ask(t, "GET /a?width=80")
	standsIn(t, x, resp, b, src, "panicked")
	r.answers(src, true, "Content-Type: image/jpeg", "Cache-Control: private, max-age=60")
	if _, resp, _ = r.ask(t, "GET /a?width=80"); string(resp.Get(message.CacheControl)) != "private, max-age=60" {
		t.Errorf("what is private became %q", resp.Get(message.CacheControl))
	}
	r.codec = library{}
	if x, _, _ = r.ask(t, "GET /a?width=80"); word(x) != "made" {
		t.Errorf("after panics the stage says %q", word(x))
	}
}

func TestASlowPictureGivesTheOriginalAndKeepsItsWorker(t *testing.T) {
	src := jpegOf(t, photo(320, 240, false))
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, v1.ImagePolicySpec{Timeout: v1.Duration(time.Second)}, func(c *Config) { c.Workers = 1 })
		r.codec = trial{library{}, func() { time.Sleep(3 * time.Second) }}
		r.answers(src, false, append([]string{}, fresh...)...)
		start := time.Now()
		x, resp, b := r.ask(t, "GET /a?width=128")
		standsIn(t, x, resp, b, src, "late")
		if d := time.Since(start); d != time.Second {
			t.Errorf("it took %v", d)
		}
		// The next waits for the worker in vain.
		x, resp, b = r.ask(t, "GET /a?width=64")
		standsIn(t, x, resp, b, src, "late")
		time.Sleep(2 * time.Second)
		synctest.Wait()
		r.codec = library{}
		if x, _, _ = r.ask(t, "GET /a?width=128"); word(x) != "made" {
			t.Errorf("when the worker is back the stage says %q", word(x))
		}
		if r.memory.used.Load() != 0 {
			t.Error("memory was not given back")
		}
	})
}

func TestMoreThanTheQueueHoldsGivesTheOriginalAndNeverAnError(t *testing.T) {
	src := jpegOf(t, photo(320, 240, false))
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		now, most := 0, 0
		r := newRig(t, spec, func(c *Config) { c.Workers, c.Queue, c.QueueShare = 2, 3, 3 })
		r.codec = trial{library{}, func() {
			mu.Lock()
			now++
			most = max(most, now)
			mu.Unlock()
			time.Sleep(time.Second)
			mu.Lock()
			now--
			mu.Unlock()
		}}
		r.answers(src, false, fresh...)
		words := map[string]int{}
		var wg sync.WaitGroup
		for range 10 {
			wg.Go(func() {
				x := r.exchange("GET /a?width=80")
				resp, err := r.chain.Serve(t.Context(), x)
				if err != nil || resp.Status != 200 {
					t.Error(err)
				}
				mu.Lock()
				words[word(x)]++
				mu.Unlock()
			})
		}
		wg.Wait()
		if most != 2 || words["made"] != 5 || words["busy"] != 5 {
			t.Errorf("%d at once, %v; want 2, and 5 made of 10", most, words)
		}
	})
}

func TestWithoutMemoryTheOriginalIsSent(t *testing.T) {
	t.Parallel()
	src := jpegOf(t, photo(320, 240, false))
	r := newRig(t, spec, func(c *Config) { c.MaxMemory = 4 << 20 })
	r.memory.take(4<<20 - 1000)
	r.answers(src, true, fresh...)
	x, resp, b := r.ask(t, "GET /a?width=80")
	standsIn(t, x, resp, b, src, "busy")
	if n := r.memory.used.Load(); n != 4<<20-1000 {
		t.Errorf("%d bytes are in use", n)
	}
}

func TestOrganizationsTakeTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPool(1, 10, 6)
		if !p.take(t.Context(), "acme") {
			t.Fatal("the worker is not free")
		}
		order := make(chan string, 10)
		wait := func(who string) {
			go func() {
				if p.take(t.Context(), who) {
					order <- who
					p.give()
				} else {
					order <- "no " + who
				}
			}()
			synctest.Wait()
		}
		for range 7 {
			wait("acme")
		}
		if got := <-order; got != "no acme" {
			t.Errorf("%s: one organization has more than its share of the queue", got)
		}
		wait("other")
		wait("third")
		ctx, cancel := context.WithCancel(t.Context())
		gone := make(chan bool)
		go func() { gone <- p.take(ctx, "third") }()
		synctest.Wait()
		cancel()
		if <-gone {
			t.Error("who has gone got a worker")
		}
		p.give()
		got := ""
		for range 8 {
			got += (<-order)[:1]
		}
		if got != "aotaaaaa" {
			t.Errorf("the order is %s, want aotaaaaa", got)
		}
		synctest.Wait()
		if p.free != 1 || p.queued != 0 || len(p.lines) != 0 || len(p.turns) != 0 {
			t.Errorf("left are %+v", p)
		}
	})
}
