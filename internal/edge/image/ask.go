package image

import (
	"context"
	"fmt"
	"strings"

	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/stage"
)

// Ask is the stage above the cache: it says which variant a request is for. It implements stage.Stage.
type Ask struct{ s *Stage }

var _ stage.Stage = Ask{}

// Ask returns the stage that stands above the cache.
func (s *Stage) Ask() Ask { return Ask{s} }

// Name implements stage.Stage.
func (Ask) Name() string { return "image-ask" }

// Serve implements stage.Stage. It takes the parameters off x.In's query, so that the cache, purges and
// the origin know the original's URL.
func (a Ask) Serve(ctx context.Context, x *stage.Exchange, next stage.Handler) (*message.Response, error) {
	r := a.s.rule(x)
	if r == nil || x.Variant != nil { // who fetches again what is stored says which
		return next.Serve(ctx, x)
	}
	head := x.In.Method == message.HEAD
	purge := !head && x.In.Method != message.GET && string(x.In.MethodName()) == "PURGE"
	if !head && !purge && x.In.Method != message.GET {
		return next.Serve(ctx, x)
	}
	l := a.s.local(x)
	p, rest, bad := r.parse(x.Query(), l.query[:0])
	l.query = rest
	if p.taken {
		x.SetQuery(rest)
	}
	if purge {
		return next.Serve(ctx, x)
	}
	f, exact := r.settle(&p)
	if r.refuse && (bad != names || !exact) {
		a.s.m.refused.Inc()
		x.Mark("image", "refused")
		return nil, r.refusal
	}
	v := variant{form: f}
	if f.format == auto {
		v.chosen = true
		v.format, v.webp = choose(&x.In.Fields, r.prefer)
		v.webp = v.webp && v.format == avifFormat
	}
	if !v.chosen && v.idle(r.base.quality) {
		return next.Serve(ctx, x)
	}
	l.text = v.appendText(l.text[:0])
	x.SetVariant(l.text)
	var resp *message.Response
	var err error
	if head {
		resp, err = whole(ctx, x, next)
	} else {
		resp, err = next.Serve(ctx, x)
	}
	if err == nil && v.chosen && !resp.Lists(message.Vary, "accept") && !resp.Lists(message.Vary, "*") {
		resp.AddString(message.Vary, "Accept") // below the cache nothing varies: the key has the class
	}
	return resp, err
}

var get, headName = []byte("GET"), []byte("HEAD")

// whole answers HEAD by the answer to GET: what is stored is a whole picture, and only the picture tells its length.
func whole(ctx context.Context, x *stage.Exchange, next stage.Handler) (*message.Response, error) {
	x.In.Del(message.Range) // of GET only (RFC 9110 section 14.2)
	x.In.SetMethod(get)
	defer x.In.SetMethod(headName) // after a panic too: an error page must have no content
	resp, err := next.Serve(ctx, x)
	if err == nil {
		withoutContent(resp)
	}
	return resp, err
}

// withoutContent makes an answer to GET one to HEAD (RFC 9110 section 9.3.2).
func withoutContent(resp *message.Response) {
	if resp.Bytes != nil {
		resp.ContentLength = int64(len(resp.Bytes))
		resp.Bytes = nil
	}
	if resp.Body != nil {
		resp.Body.Close(errHead)
		resp.Body = nil
	}
}

// refusalOf is what other: refuse answers.
func refusalOf(r *rule) *stage.Error {
	var b strings.Builder
	if r.presetsOnly {
		b.WriteString("preset is one of")
		for i := range r.presets {
			b.WriteString(" " + r.presets[i].name)
		}
		b.WriteString("; dpr 1, 1.5, 2 or 3")
	} else {
		fmt.Fprintf(&b, "width is one of %v, height of %v, quality of %v; fit is %s; format is %s", r.widths, r.heights, r.qualities,
			strings.Join(fitNames[:], ", "), strings.Join(formatNames[:], ", "))
	}
	return &stage.Error{
		Code: "image_parameters", Side: stage.SideClient, Status: 400,
		Err: fmt.Errorf("the ImagePolicy %s does not allow these parameters: %s", r.name, b.String()),
	}
}
