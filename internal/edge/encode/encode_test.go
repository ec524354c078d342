package encode

import (
	"bytes"
	"context"
	"io"
	"strings"
	"testing"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/observe"
	"github.com/relais-edge/relais/internal/snapshot"
	"github.com/relais-edge/relais/internal/stage"
)

// rig is the stage before an origin that a test plays.
type rig struct {
	*Stage
	site   *snapshot.Site
	origin func(x *stage.Exchange, resp *message.Response)
}

func newRig(t testing.TB, c v1.Compression, cache string) *rig {
	t.Helper()
	if c.MinLength == nil {
		c.MinLength = new(v1.Size(10))
	}
	r := &rig{Stage: New(Config{}, observe.New())}
	r.site = &snapshot.Site{Parts: make([]any, stage.Slots), Routes: []snapshot.Route{{Spec: &v1.Route{Delivery: v1.Delivery{Compression: &c}, Policies: v1.Policies{Cache: cache}}}}}
	p, err := r.Compile(r.site, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.site.Parts[0] = p
	return r
}

// Serve implements stage.Handler: the origin.
type origin struct{ r *rig }

func (o origin) Serve(_ context.Context, x *stage.Exchange) (*message.Response, error) {
	x.Response.Reset()
	x.Response.Status = 200
	o.r.origin(x, &x.Response)
	return &x.Response, nil
}

// ask sends a request with lines "Name: value" and returns the answer.
func (r *rig) ask(t testing.TB, method string, lines ...string) (*stage.Exchange, *message.Response) {
	t.Helper()
	x := &stage.Exchange{In: &message.Request{}, Site: r.site, Route: &r.site.Routes[0]}
	x.In.SetMethod([]byte(method))
	addLines(&x.In.Fields, lines)
	x.Out.CopyFrom(x.In)
	resp, err := r.Stage.Serve(t.Context(), x, origin{r})
	if err != nil {
		t.Fatal(err)
	}
	return x, resp
}

func addLines(f *message.Fields, lines []string) {
	for _, l := range lines {
		n, v, _ := strings.Cut(l, ": ")
		f.AddLine([]byte(n), []byte(v))
	}
}

// answers makes the origin give one answer, with its length known.
func (r *rig) answers(body string, lines ...string) {
	r.origin = func(_ *stage.Exchange, resp *message.Response) {
		addLines(&resp.Fields, lines)
		resp.SetBytes([]byte(body))
	}
}

// content reads an answer to its end.
func content(t testing.TB, resp *message.Response) []byte {
	t.Helper()
	if resp.Body == nil {
		return resp.Bytes
	}
	var out []byte
	for {
		b, err := resp.Body.Next(t.Context())
		out = append(out, b...)
		if err == io.EOF {
			resp.Body.Close(nil)
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// plain takes the coding off.
func plain(t testing.TB, coding string, b []byte) string {
	t.Helper()
	var r io.Reader
	var err error
	switch coding {
	case "gzip":
		r, err = gzip.NewReader(bytes.NewReader(b))
	case "br":
		r = brotli.NewReader(bytes.NewReader(b))
	case "zstd":
		r, err = zstd.NewReader(bytes.NewReader(b))
	default:
		return string(b)
	}
	if err != nil {
		t.Fatal(err)
	}
	out, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

var text = strings.Repeat("the quick brown fox jumps over the lazy dog. ", 2000)

func TestEveryCodingAndLevelGivesTheContentBack(t *testing.T) {
	for _, level := range []string{"fast", "balanced", "small"} {
		r := newRig(t, v1.Compression{Level: level}, "")
		r.answers(text, "Content-Type: text/html", `ETag: "a"`, "Accept-Ranges: bytes", "Content-Digest: x", "Content-Length: 5")
		for _, coding := range []string{"zstd", "br", "gzip"} {
			for range 2 { // the second time with an encoder that was used before
				_, resp := r.ask(t, "GET", "Accept-Encoding: "+coding)
				b := content(t, resp)
				if got := string(resp.Get(message.ContentEncoding)); got != coding || plain(t, coding, b) != text {
					t.Fatalf("%s %s: Content-Encoding %q, %d bytes", level, coding, got, len(b))
				}
				if len(b) > len(text)/20 || resp.ContentLength != -1 {
					t.Errorf("%s %s: %d bytes of %d, Content-Length %d", level, coding, len(b), len(text), resp.ContentLength)
				}
				if resp.Has(message.AcceptRanges) || resp.Lookup("Content-Digest") != nil || resp.Has(message.ContentLength) {
					t.Errorf("%s: fields of other bytes stay", coding)
				}
			}
		}
		if n := r.encoders.open.Load(); n != 0 {
			t.Errorf("encoders of %d bytes are still in use", n)
		}
	}
}

func TestRFC9110_12_5_3_TheCodingIsOneThatTheClientAccepts(t *testing.T) {
	for _, c := range []struct{ accept, own, shared string }{
		{"", "", ""},
		{"gzip, deflate, br, zstd", "zstd", "zstd"},
		{"gzip, deflate, br", "br", "br"},
		{"gzip", "gzip", "gzip"},
		{"x-gzip", "gzip", "gzip"},
		{"GZIP", "gzip", "gzip"},
		{"deflate", "", ""},
		{"*", "zstd", "zstd"},
		{"*;q=0", "", ""},
		{"*;q=0, gzip", "gzip", "gzip"},
		{"zstd;q=0, *", "br", "br"},
		{"gzip;q=1.0, br;q=0.5", "gzip", "br"},
		{"gzip;q=0.2, br;q=0.200, zstd;q=0.1", "br", "zstd"},
		{"gzip;q=0", "", ""},
		{"gzip;q=0.000, br", "br", "br"},
		{"identity;q=1, gzip;q=0.5", "", "gzip"},
		{"identity;q=0.1, gzip;q=0.5", "gzip", "gzip"},
		{"identity;q=0, br", "br", "br"},
		{"identity;q=0", "", ""},
		{"gzip;q=2, br;q=x", "", ""},
		{"gzip ; q=1", "gzip", "gzip"},
		{"gzip;v=1;q=0", "", ""},
		{", ,gzip,", "gzip", "gzip"},
	} {
		for _, cache := range []string{"", "pages"} {
			r := newRig(t, v1.Compression{}, cache)
			r.answers(text, "Content-Type: text/html")
			var lines []string
			if c.accept != "" {
				lines = []string{"Accept-Encoding: " + c.accept}
			}
			_, resp := r.ask(t, "GET", lines...)
			want := c.own
			if cache != "" {
				want = c.shared
			}
			got := string(resp.Get(message.ContentEncoding))
			if got != want || plain(t, got, content(t, resp)) != text {
				t.Errorf("%q, cache %q: %q, want %q", c.accept, cache, got, want)
			}
			if v := string(resp.Get(message.Vary)); v != "Accept-Encoding" {
				t.Errorf("%q: Vary %q", c.accept, v)
			}
		}
	}
}

func TestOnlyWhatGainsIsCompressed(t *testing.T) {
	for _, c := range []struct {
		name  string
		spec  v1.Compression
		lines []string
		body  string
		want  bool
		vary  string
	}{
		{"html", v1.Compression{}, []string{"Content-Type: text/html; charset=utf-8"}, text, true, "Accept-Encoding"},
		{"upper case", v1.Compression{}, []string{"Content-Type: TEXT/HTML"}, text, true, "Accept-Encoding"},
		{"suffix", v1.Compression{}, []string{"Content-Type: image/svg+xml"}, text, true, "Accept-Encoding"},
		{"json", v1.Compression{}, []string{"Content-Type: application/problem+json"}, text, true, "Accept-Encoding"},
		{"image", v1.Compression{}, []string{"Content-Type: image/jpeg"}, text, false, ""},
		{"no type", v1.Compression{}, nil, text, false, ""},
		{"long type", v1.Compression{}, []string{"Content-Type: text/" + strings.Repeat("x", 200)}, text, false, ""},
		{"own list", v1.Compression{Types: []string{"image/jpeg"}}, []string{"Content-Type: image/jpeg"}, text, true, "Accept-Encoding"},
		{"not of the own list", v1.Compression{Types: []string{"image/jpeg"}}, []string{"Content-Type: text/html"}, text, false, ""},
		{"grpc", v1.Compression{Types: []string{"application/*"}}, []string{"Content-Type: application/grpc+proto"}, text, false, ""},
		{"grpc-web", v1.Compression{Types: []string{"application/*"}}, []string{"Content-Type: application/grpc-web"}, text, false, ""},
		{"short", v1.Compression{}, []string{"Content-Type: text/html"}, "short", false, ""},
		{"empty", v1.Compression{MinLength: new(v1.Size(0))}, []string{"Content-Type: text/html"}, "", false, ""},
		{"encoded", v1.Compression{}, []string{"Content-Type: text/html", "Content-Encoding: br"}, text, false, ""},
		{"identity", v1.Compression{}, []string{"Content-Type: text/html", "Content-Encoding: identity"}, text, true, "Accept-Encoding"},
		{"no-transform", v1.Compression{}, []string{"Content-Type: text/html", "Cache-Control: public, No-Transform"}, text, false, ""},
		{"part", v1.Compression{}, []string{"Content-Type: text/html", "Content-Range: bytes 0-9/100"}, text, false, ""},
		{"varies", v1.Compression{}, []string{"Content-Type: text/html", "Vary: Cookie"}, text, true, "Cookie, Accept-Encoding"},
		{"varies already", v1.Compression{}, []string{"Content-Type: text/html", "Vary: Cookie, accept-encoding"}, text, true, "Cookie, accept-encoding"},
		{"varies by all", v1.Compression{}, []string{"Content-Type: text/html", "Vary: *"}, text, true, "*"},
		{"off", v1.Compression{Enabled: new(false)}, []string{"Content-Type: text/html"}, text, false, ""},
	} {
		r := newRig(t, c.spec, "")
		r.answers(c.body, c.lines...)
		x, resp := r.ask(t, "GET", "Accept-Encoding: gzip")
		got := string(resp.Get(message.ContentEncoding))
		if (got == "gzip") != c.want || got == "gzip" && resp.Count(message.ContentEncoding) != 1 {
			t.Errorf("%s: Content-Encoding %q", c.name, got)
		}
		if c.want != (len(x.Trail.Marks()) == 1 && x.Trail.Marks()[0].Code == "gzip") {
			t.Errorf("%s: trail %v", c.name, x.Trail.Marks())
		}
		var vary []string
		for i := resp.Next(message.Vary, 0); i >= 0; i = resp.Next(message.Vary, i+1) {
			_, _, v := resp.At(i)
			vary = append(vary, string(v))
		}
		if strings.Join(vary, ", ") != c.vary {
			t.Errorf("%s: Vary %q, want %q", c.name, vary, c.vary)
		}
		if c.want {
			content(t, resp)
		}
	}
}

func TestAStatusWithoutAWholeBodyIsLeftAlone(t *testing.T) {
	for _, status := range []int{101, 204, 205, 206} {
		r := newRig(t, v1.Compression{}, "")
		r.origin = func(_ *stage.Exchange, resp *message.Response) {
			resp.Status = status
			resp.AddString(message.ContentType, "text/html")
			resp.SetBytes([]byte(text))
		}
		if _, resp := r.ask(t, "GET", "Accept-Encoding: gzip"); resp.Has(message.ContentEncoding) || resp.Has(message.Vary) != (status == 206) {
			t.Errorf("%d was compressed, or does not vary as the whole does", status)
		}
	}
}

func TestHeadTellsWhatGetWouldHaveExceptTheLength(t *testing.T) {
	r := newRig(t, v1.Compression{}, "")
	r.origin = func(_ *stage.Exchange, resp *message.Response) {
		addLines(&resp.Fields, []string{"Content-Type: text/html", `ETag: "a"`})
		resp.ContentLength = int64(len(text))
	}
	_, resp := r.ask(t, "HEAD", "Accept-Encoding: br")
	if string(resp.Get(message.ContentEncoding)) != "br" || string(resp.Get(message.ETag)) != `W/"a~br"` || resp.ContentLength != -1 || resp.Body != nil || !resp.Has(message.Vary) {
		t.Errorf("%s %s %d", resp.Get(message.ContentEncoding), resp.Get(message.ETag), resp.ContentLength)
	}
	if n := r.encoders.open.Load(); n != 0 {
		t.Errorf("%d encoders in use", n)
	}
}

func TestRFC9110_8_8_3_ATagNamesTheCodingAndComesBackAsTheOriginsOwn(t *testing.T) {
	for _, c := range []struct{ own, marked, back string }{
		{`"abc"`, `W/"abc~gzip"`, `"abc"`},
		{`W/"abc"`, `W/"abc~gzip.w"`, `W/"abc"`},
		{`""`, `W/"~gzip"`, `""`},
		{`"a,b"`, `W/"a,b~gzip"`, `"a,b"`},
		{`"a~b"`, `W/"a~b~gzip"`, `"a~b"`},
		{`broken`, `broken`, `broken`},
	} {
		r := newRig(t, v1.Compression{}, "")
		r.answers(text, "Content-Type: text/html", "ETag: "+c.own)
		_, resp := r.ask(t, "GET", "Accept-Encoding: gzip")
		tag := string(resp.Get(message.ETag))
		content(t, resp)
		if tag != c.marked {
			t.Errorf("%s became %s, want %s", c.own, tag, c.marked)
		}
		for _, name := range []string{"If-None-Match", "If-Match"} {
			var sent string
			r.origin = func(x *stage.Exchange, resp *message.Response) {
				sent = string(x.Out.Lookup(name))
				resp.Status = 304
				addLines(&resp.Fields, []string{"ETag: " + c.own, "Vary: Cookie"})
			}
			_, resp := r.ask(t, "GET", "Accept-Encoding: gzip", name+`: "other", `+tag)
			if want := `"other", ` + c.back; sent != want {
				t.Errorf("%s: the origin got %s, want %s", name, sent, want)
			}
			if got := string(resp.Get(message.ETag)); name == "If-None-Match" && got != tag {
				t.Errorf("the 304 names %s, want %s", got, tag)
			}
			if resp.Count(message.Vary) != 2 {
				t.Error("a 304 with Vary must name Accept-Encoding, or a stored Vary loses it")
			}
		}
	}
}

func TestA304ForATagThatIsNotOursStaysAsItIs(t *testing.T) {
	r := newRig(t, v1.Compression{}, "")
	r.origin = func(_ *stage.Exchange, resp *message.Response) {
		resp.Status = 304
		resp.AddString(message.ETag, `"abc"`)
	}
	_, resp := r.ask(t, "GET", "Accept-Encoding: gzip", `If-None-Match: "abc", W/"x~gzip"`)
	if string(resp.Get(message.ETag)) != `"abc"` || resp.Has(message.Vary) {
		t.Errorf("%s %s", resp.Get(message.ETag), resp.Get(message.Vary))
	}
}

func TestTooManyAtOncePassAsTheyAre(t *testing.T) {
	r := newRig(t, v1.Compression{}, "")
	r.encoders.max = 2 * cost[gzipCoding][balanced]
	r.answers(text, "Content-Type: text/event-stream", `ETag: "a"`)
	_, first := r.ask(t, "GET", "Accept-Encoding: gzip")
	x, second := r.ask(t, "GET", "Accept-Encoding: gzip")
	if second.Has(message.ContentEncoding) || string(content(t, second)) != text || !second.Has(message.Vary) || string(second.Get(message.ETag)) != `"a"` || x.Trail.Marks()[0].Code != "busy" {
		t.Error("a second stream of events took more than half")
	}
	r.answers(text, "Content-Type: text/html")
	_, third := r.ask(t, "GET", "Accept-Encoding: gzip")
	_, fourth := r.ask(t, "GET", "Accept-Encoding: gzip")
	if !third.Has(message.ContentEncoding) || fourth.Has(message.ContentEncoding) {
		t.Error("the bound of all is not held")
	}
	content(t, first)
	content(t, third)
	_, fifth := r.ask(t, "GET", "Accept-Encoding: gzip")
	if !fifth.Has(message.ContentEncoding) || plain(t, "gzip", content(t, fifth)) != text {
		t.Error("places are not given back")
	}
	if r.encoders.open.Load() != 0 || r.encoders.events.Load() != 0 {
		t.Errorf("open %d, events %d", r.encoders.open.Load(), r.encoders.events.Load())
	}
}

func TestWhatIsNotCompressedAllocatesNothing(t *testing.T) {
	r := newRig(t, v1.Compression{}, "")
	jpeg := []byte(text)
	r.origin = func(_ *stage.Exchange, resp *message.Response) {
		resp.AddString(message.ContentType, "image/jpeg")
		resp.SetBytes(jpeg)
	}
	x, _ := r.ask(t, "GET", "Accept-Encoding: gzip, br")
	ctx, o := t.Context(), stage.Handler(origin{r})
	if n := testing.AllocsPerRun(100, func() {
		if _, err := r.Stage.Serve(ctx, x, o); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
