package image

import (
	"bytes"
	"context"
	stdimage "image"
	"image/jpeg"
	"image/png"
	"io"
	"strings"
	"testing"

	"go.uber.org/goleak"
	"golang.org/x/image/webp"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/bundle"
	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/observe"
	"github.com/relais-edge/relais/internal/snapshot"
	"github.com/relais-edge/relais/internal/stage"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// rig is both stages before an origin that a test plays, without a cache between.
type rig struct {
	*Stage
	site   *snapshot.Site
	origin func(x *stage.Exchange, resp *message.Response)
	chain  stage.Handler
}

func newRig(t testing.TB, spec v1.ImagePolicySpec, with ...func(*Config)) *rig {
	t.Helper()
	var cfg Config
	for _, f := range with {
		f(&cfg)
	}
	r := &rig{Stage: New(cfg, observe.New())}
	r.site = &snapshot.Site{
		Key: bundle.NewKey("acme", "shop"), Parts: make([]any, stage.Slots),
		Routes: []snapshot.Route{{Name: "images", Spec: &v1.Route{Policies: v1.Policies{Images: "pictures", Cache: "c"}}}},
		Spec: &bundle.Site{
			Images: map[string]*v1.ImagePolicySpec{"pictures": &spec},
			Caches: map[string]*v1.CachePolicySpec{"c": {TargetedFields: []string{"My-Cache-Control"}}},
		},
	}
	p, err := r.Compile(r.site, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.site.Parts[0] = p
	r.chain = stage.Chain(origin{r}, r.Ask(), forward{}, r.Stage)
	return r
}

// forward makes the request to send, as the route room does.
type forward struct{}

func (forward) Name() string { return "forward" }

func (forward) Serve(ctx context.Context, x *stage.Exchange, next stage.Handler) (*message.Response, error) {
	x.Out.CopyFrom(x.In)
	x.Forwarding = true
	return next.Serve(ctx, x)
}

type origin struct{ r *rig }

func (o origin) Serve(_ context.Context, x *stage.Exchange) (*message.Response, error) {
	x.Response.Reset()
	x.Response.Status = 200
	o.r.origin(x, &x.Response)
	return &x.Response, nil
}

// exchange is that of a request such as "GET /a?b=c" with lines "Name: value".
func (r *rig) exchange(line string, lines ...string) *stage.Exchange {
	method, target, _ := strings.Cut(line, " ")
	path, query, has := strings.Cut(target, "?")
	x := &stage.Exchange{In: &message.Request{}, Site: r.site, Route: &r.site.Routes[0]}
	x.In.SetMethod([]byte(method))
	x.In.SetPath([]byte(path))
	if has {
		x.In.SetQuery([]byte(query))
	}
	addLines(&x.In.Fields, lines)
	return x
}

// ask sends a request and returns the answer with its whole body.
func (r *rig) ask(t testing.TB, line string, lines ...string) (*stage.Exchange, *message.Response, []byte) {
	t.Helper()
	x := r.exchange(line, lines...)
	resp, err := r.chain.Serve(t.Context(), x)
	if err != nil {
		t.Fatal(err)
	}
	return x, resp, content(t, resp)
}

func addLines(f *message.Fields, lines []string) {
	for _, l := range lines {
		n, v, _ := strings.Cut(l, ": ")
		f.AddLine([]byte(n), []byte(v))
	}
}

// answers makes the origin give one answer, in pieces and without a length where piecewise.
func (r *rig) answers(body []byte, piecewise bool, lines ...string) {
	r.origin = func(_ *stage.Exchange, resp *message.Response) {
		addLines(&resp.Fields, lines)
		if !piecewise {
			resp.SetBytes(body)
			return
		}
		resp.ContentLength = -1
		resp.Body = &pieces{rest: body}
	}
}

// pieces is a body that comes in small chunks, the memory of which is used again.
type pieces struct {
	rest   []byte
	buf    [1000]byte
	closed bool
}

func (p *pieces) Next(context.Context) ([]byte, error) {
	n := copy(p.buf[:], p.rest)
	p.rest = p.rest[n:]
	if len(p.rest) == 0 {
		return p.buf[:n], io.EOF
	}
	return p.buf[:n], nil
}

func (p *pieces) Close(error) { p.closed = true }

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

// seen decodes an answer by its type.
func seen(t testing.TB, resp *message.Response, b []byte) stdimage.Image {
	t.Helper()
	var m stdimage.Image
	var err error
	switch string(resp.Get(message.ContentType)) {
	case "image/jpeg":
		m, err = jpeg.Decode(bytes.NewReader(b))
	case "image/png":
		m, err = png.Decode(bytes.NewReader(b))
	case "image/webp":
		m, err = webp.Decode(bytes.NewReader(b))
		if y, ok := m.(*stdimage.YCbCr); ok && err == nil {
			m = fullRange(y)
		}
		if y, ok := m.(*stdimage.NYCbCrA); ok && err == nil {
			m = fullRangeAlpha(y)
		}
	default:
		t.Fatalf("the answer is %s", resp.Get(message.ContentType))
	}
	if err != nil {
		t.Fatalf("%s: %v", resp.Get(message.ContentType), err)
	}
	return m
}

// fullRange is what a browser shows of a lossy WebP, by the equations of BT.601 in floating point.
func fullRange(m *stdimage.YCbCr) *stdimage.NRGBA {
	out := stdimage.NewNRGBA(m.Rect)
	for y := range m.Rect.Dy() {
		for x := range m.Rect.Dx() {
			c := m.YCbCrAt(x, y)
			l, b, r := (float64(c.Y)-16)*1.164384, float64(c.Cb)-128, float64(c.Cr)-128
			p := out.Pix[out.PixOffset(x, y):]
			for i, v := range [...]float64{l + 1.596027*r, l - 0.391762*b - 0.812968*r, l + 2.017232*b} {
				p[i] = uint8(min(max(v+.5, 0), 255))
			}
			p[3] = 255
		}
	}
	return out
}

func fullRangeAlpha(m *stdimage.NYCbCrA) *stdimage.NRGBA {
	out := fullRange(&m.YCbCr)
	for y := range m.Rect.Dy() {
		for x := range m.Rect.Dx() {
			out.Pix[out.PixOffset(x, y)+3] = m.A[m.AOffset(x, y)]
		}
	}
	return out
}

// word is the last thing that the stage said in the trail.
func word(x *stage.Exchange) string {
	out := ""
	for _, m := range x.Trail.Marks() {
		if m.Stage == "image" {
			out = m.Code
		}
	}
	return out
}
