package image

import (
	"context"
	"errors"
	"strings"
	"testing"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/stage"
)

func TestParametersAreBroughtToWhatIsAllowed(t *testing.T) {
	policy := v1.ImagePolicySpec{
		Widths: []int{400, 100, 200}, Heights: []int{100, 300}, Qualities: []int{50, 80}, Default: v1.ImageForm{Format: "original"},
		Presets: []v1.ImagePreset{{Name: "thumb", ImageForm: v1.ImageForm{Width: 90, Height: 90, Fit: "cover"}}, {Name: "webp", ImageForm: v1.ImageForm{Format: "webp", Quality: 33}}},
	}
	only := policy
	only.PresetsOnly = true
	wide := policy
	wide.Default = v1.ImageForm{Width: 150, Fit: "contain", Quality: 70, Format: "png"}
	for _, c := range []struct {
		policy              v1.ImagePolicySpec
		query, want, remain string
		refused             bool
	}{
		{policy, "width=200", "200x0.scale-down.q80.original", "", false},
		{policy, "a=b&width=200&c=d", "200x0.scale-down.q80.original", "a=b&c=d", false},
		{policy, "width=101", "200x0.scale-down.q80.original", "", true},
		{policy, "width=9999", "400x0.scale-down.q80.original", "", true},
		{policy, "width=1&height=1", "100x100.scale-down.q80.original", "", true},
		{policy, "width=100&dpr=2", "200x0.scale-down.q80.original", "", false},
		{policy, "width=100&dpr=1.5", "200x0.scale-down.q80.original", "", true},
		{policy, "width=100&height=100&fit=cover&quality=50", "100x100.cover.q50.original", "", false},
		{policy, "width=100&height=100&fit=crop&quality=51", "100x100.crop.q80.original", "", true},
		{policy, "width=100&fit=cover", "100x0.contain.q80.original", "", false},
		{policy, "width=100&fit=crop", "100x0.scale-down.q80.original", "", false},
		{policy, "width=100&width=400", "100x0.scale-down.q80.original", "", false},
		{policy, "width=100&format=webp", "100x0.scale-down.q80.webp", "", false},
		{policy, "format=png&quality=50", "0x0.scale-down.q80.png", "", false},
		{policy, "quality=51&dpr=2", "", "", true},
		{policy, "preset=thumb", "90x90.cover.q80.original", "", false},
		{policy, "preset=thumb&dpr=2&format=jpeg", "180x180.cover.q80.jpeg", "", false},
		{policy, "preset=thumb&width=400", "90x90.cover.q80.original", "", true},
		{policy, "preset=webp", "0x0.scale-down.q33.webp", "", false},
		{policy, "quality=50", "0x0.scale-down.q50.original", "", false},
		{policy, "quality=80", "", "", false},
		{policy, "", "", "", false},
		{policy, "a=b&&c", "", "a=b&&c", false},
		{policy, "Width=100&w%69dth=100", "", "Width=100&w%69dth=100", false},
		{policy, "width=-1", "", "", true},
		{policy, "width=0", "", "", true},
		{policy, "width=1e3", "", "", true},
		{policy, "width=99999999999999999999", "", "", true},
		{policy, "width", "", "", true},
		{policy, "height=70000", "", "", true},
		{policy, "fit=stretch&format=gif&dpr=x&dpr=2.555&quality=101&preset=none", "", "", true},
		{only, "width=100&preset=thumb", "90x90.cover.q80.original", "width=100", false},
		{only, "width=100", "", "width=100", false},
		{wide, "", "150x0.contain.q70.png", "", false},
		{wide, "dpr=2", "300x0.contain.q70.png", "", false},
		{wide, "height=300", "0x300.contain.q70.png", "", false},
	} {
		for _, other := range []string{"nearest", "refuse"} {
			c.policy.Other = other
			r := newRig(t, c.policy)
			x := r.exchange("GET /a?" + c.query)
			if c.query == "" {
				x = r.exchange("GET /a")
			}
			looker := stage.Chain(look{}, r.Ask())
			_, err := looker.Serve(t.Context(), x)
			if other == "refuse" && c.refused {
				var e *stage.Error
				if !errors.As(err, &e) || e.Status != 400 || e.Side != stage.SideClient {
					t.Errorf("%s: %v, want 400", c.query, err)
				}
				continue
			}
			if err != nil {
				t.Errorf("%s, %s: %v", c.query, other, err)
				continue
			}
			if string(x.Variant) != c.want || string(x.In.Query()) != c.remain {
				t.Errorf("%s: %q with the query %q, want %q with %q", c.query, x.Variant, x.In.Query(), c.want, c.remain)
			}
		}
	}
}

// look is a handler that answers nothing.
type look struct{}

func (look) Serve(_ context.Context, x *stage.Exchange) (*message.Response, error) {
	x.Response.Reset()
	x.Response.Status = 200
	return &x.Response, nil
}

func TestAcceptIsOneOfThreeClasses(t *testing.T) {
	both := []format{avifFormat, webpFormat}
	for _, c := range []struct {
		accept string
		prefer []format
		want   format
		webp   bool
	}{
		{"image/avif,image/webp,image/apng,image/svg+xml,image/*,*/*;q=0.8", both, avifFormat, true},
		{"image/avif,image/webp,image/apng,image/svg+xml,image/*,*/*;q=0.8", both[1:], webpFormat, true},
		{"image/webp,image/avif", both, avifFormat, true},
		{"image/webp,image/avif", []format{webpFormat, avifFormat}, webpFormat, true},
		{"image/webp,image/png,image/svg+xml,image/*;q=0.8,video/*;q=0.8,*/*;q=0.5", both, webpFormat, true},
		{"image/avif", both, avifFormat, false},
		{"image/avif;q=0.5, image/webp;q=0.9", both, webpFormat, true},
		{"image/avif;q=0, image/webp", both, webpFormat, true},
		{"image/avif;q=0, image/webp;q=0.000", both, original, false},
		{"image/webp;q=0.5, */*", both, original, true},
		{"image/webp;q=0.5, image/jpeg", both, original, true},
		{"image/webp;q=0.9, image/jpeg;q=0.8, */*", both, webpFormat, true},
		{"IMAGE/WEBP ; Q=1", both, webpFormat, true},
		{"image/webp;q=x", both, original, false},
		{"*/*", both, original, false},
		{"image/*", both, original, false},
		{"", both, original, false},
		{"image/webp", nil, original, false},
	} {
		var f message.Fields
		if c.accept != "" {
			f.AddString(message.Accept, c.accept)
		}
		if got, webp := choose(&f, c.prefer); got != c.want || webp != c.webp {
			t.Errorf("%q: %s, %t, want %s, %t", c.accept, formatNames[got], webp, formatNames[c.want], c.webp)
		}
	}
}

func TestAVariantIsReadAsItWasWritten(t *testing.T) {
	for _, v := range []variant{
		{form{400, 300, cover, 80, webpFormat}, true, false},
		{form{0, 0, scaleDown, 1, original}, true, false},
		{form{maxSide, 1, crop, 100, avifFormat}, true, true},
		{form{1, 0, contain, 33, pngFormat}, false, false},
	} {
		text := v.appendText(nil)
		got, ok := parseVariant(text)
		if !ok || got != v || strings.ContainsAny(string(text), "? ~\"") {
			t.Errorf("%s is read as %+v, want %+v", text, got, v)
		}
	}
	for _, text := range []string{"", "x", "1x1.cover.q80", "1x1.cover.q80.gif", "1x1.no.q80.webp", "5000x1.cover.q80.webp", "1x1.cover.q0.webp", "1x1.cover.q80.auto-auto"} {
		if _, ok := parseVariant([]byte(text)); ok {
			t.Errorf("%q is taken for a variant", text)
		}
	}
}

func TestHEADIsAnsweredByTheHeadOfThePicture(t *testing.T) {
	r := newRig(t, spec)
	src := jpegOf(t, photo(320, 240, false))
	r.answers(src, false, "Content-Type: image/jpeg")
	_, resp, b := r.ask(t, "GET /a?width=80&format=png")
	length := resp.ContentLength
	x, resp, none := r.ask(t, "HEAD /a?width=80&format=png", "Range: bytes=1-2")
	if len(none) != 0 || resp.ContentLength != length || int(length) != len(b) || string(resp.Get(message.ContentType)) != "image/png" {
		t.Errorf("%d bytes, Content-Length %d, %s", len(none), resp.ContentLength, resp.Get(message.ContentType))
	}
	if x.In.Method != message.HEAD {
		t.Error("the request is not HEAD any more")
	}
	r.chain = stage.Chain(panics{}, r.Ask())
	x = r.exchange("HEAD /a?width=80")
	func() {
		defer func() { _ = recover() }()
		_, _ = r.chain.Serve(t.Context(), x)
	}()
	if x.In.Method != message.HEAD {
		t.Error("after a panic the request is not HEAD any more: its error page would have content")
	}
}

type panics struct{}

func (panics) Serve(context.Context, *stage.Exchange) (*message.Response, error) { panic("a bug") }

func TestOtherMethodsKeepTheirQuery(t *testing.T) {
	r := newRig(t, spec)
	for method, want := range map[string]string{"POST": "width=80&a=b", "PUT": "width=80&a=b", "PURGE": "a=b", "GET": "a=b", "HEAD": "a=b"} {
		x := r.exchange(method + " /a?width=80&a=b")
		if _, err := stage.Chain(look{}, r.Ask()).Serve(t.Context(), x); err != nil {
			t.Fatal(err)
		}
		if got := string(x.In.Query()); got != want {
			t.Errorf("%s: the query is %q, want %q", method, got, want)
		}
		if (len(x.Variant) > 0) != (method == "GET" || method == "HEAD") {
			t.Errorf("%s: the variant is %q", method, x.Variant)
		}
	}
}

func TestTheOriginIsAskedForTheOriginal(t *testing.T) {
	r := newRig(t, spec)
	text := "80x0.scale-down.q90.auto-original"
	for sent, want := range map[string]string{
		`W/"v1~` + text + `"`:                    `"v1"`,
		`W/"v1~` + text + `.w", "v2"`:            `W/"v1", "v2"`,
		`W/"v1~100x0.scale-down.q90.auto-webp"`:  "",
		`"a,b", W/"a~b", W/"v3~` + text + `", x`: `"a,b", W/"a~b", "v3"`,
		`*`:                                      `*`,
	} {
		got := ""
		r.origin = func(x *stage.Exchange, resp *message.Response) {
			got = string(x.Out.Get(message.IfNoneMatch))
			if x.Out.Has(message.Range) || string(x.Out.Get(message.AcceptEncoding)) != "identity" || string(x.Out.Get(message.Accept)) != accept || x.Out.HasQuery() {
				t.Errorf("the origin is asked for something else")
			}
			resp.Status = 304
			resp.AddString(message.ETag, `"v1"`)
			resp.AddString(message.ContentType, "image/jpeg")
			resp.AddString(message.Vary, "Accept, X-Device")
		}
		_, resp, _ := r.ask(t, "GET /a?width=80", "If-None-Match: "+sent, "Range: bytes=1-", "Accept: */*", "Accept-Encoding: gzip")
		if got != want {
			t.Errorf("%s is sent as %q, want %q", sent, got, want)
		}
		if resp.Has(message.ContentType) || resp.Count(message.Vary) != 2 || resp.Lists(message.Vary, "gzip") {
			t.Errorf("%s: the 304 has %q and Vary %d times", sent, resp.Get(message.ContentType), resp.Count(message.Vary))
		}
		if strings.HasPrefix(sent, `W/"v1~`+text) {
			if tag := string(resp.Get(message.ETag)); !strings.HasPrefix(tag, `W/"v1~`+text) {
				t.Errorf("%s: the 304 has the tag %s", sent, tag)
			}
		}
	}
}

func TestFieldsAreThoseOfTheVariant(t *testing.T) {
	r := newRig(t, spec)
	r.answers(jpegOf(t, photo(320, 240, false)), false, "Content-Type: image/jpeg", `ETag: W/"v1"`, "Last-Modified: Wed, 01 Jan 2020 00:00:00 GMT",
		"Content-Location: /b.jpg", "Content-Digest: sha-256=:x:", "Vary: accept, Accept-Encoding", "Cache-Control: max-age=60", "Cache-Tag: p1")
	_, resp, _ := r.ask(t, "GET /a?width=80")
	for name, want := range map[string]string{
		"ETag": `W/"v1~80x0.scale-down.q90.auto-original.w"`, "Last-Modified": "Wed, 01 Jan 2020 00:00:00 GMT", "Content-Location": "", "Content-Digest": "",
		"Vary": "Accept-Encoding", "Cache-Control": "max-age=60", "Cache-Tag": "p1", "Content-Type": "image/jpeg",
	} {
		if got := string(resp.Lookup(name)); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	if !resp.Lists(message.Vary, "accept") {
		t.Error("Vary does not say Accept")
	}
	if _, resp, _ = r.ask(t, "GET /a?width=80&format=png"); resp.Lists(message.Vary, "accept") {
		t.Error("Vary says Accept where the format is given")
	}
}

func TestAskAllocatesNothing(t *testing.T) {
	r := newRig(t, spec)
	x := r.exchange("GET /a?utm=1&width=99&quality=70&dpr=2", "Accept: image/avif,image/webp,image/apng,image/svg+xml,image/*,*/*;q=0.8")
	in := new(message.Request)
	in.CopyFrom(x.In)
	own, site, route := x.In, x.Site, x.Route
	chain := stage.Chain(look{}, r.Ask())
	one := func() {
		x.Reset()
		own.CopyFrom(in)
		x.In, x.Site, x.Route = own, site, route
		if _, err := chain.Serve(t.Context(), x); err != nil || len(x.Variant) == 0 {
			t.Fatal(err)
		}
	}
	if n := testing.AllocsPerRun(100, one); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func FuzzParameters(f *testing.F) {
	for _, s := range []string{"width=100&height=3&fit=cover&quality=5&format=auto&dpr=1.5&preset=p", "&&=&width", "dpr=1.&dpr=.5", "a;width=3", "width=%31"} {
		f.Add(s, "image/avif;q=0.1, image/webp, */*;q=1.0000")
	}
	d := v1.ImagePolicySpec{Presets: []v1.ImagePreset{{Name: "p", ImageForm: v1.ImageForm{Width: 4096}}}}
	f.Fuzz(func(t *testing.T, query, acceptField string) {
		r := newRule("p", &d)
		p, rest, _ := r.parse([]byte(query), nil)
		if len(rest) > len(query) {
			t.Fatalf("%q grew to %q", query, rest)
		}
		if !p.taken && string(rest) != query && len(strings.Trim(query, "&")) > 0 && !strings.HasPrefix(query, "&") && !strings.HasSuffix(query, "&") {
			t.Fatalf("%q became %q", query, rest)
		}
		form, _ := r.settle(&p)
		v := variant{form: form}
		if form.format == auto {
			var fields message.Fields
			fields.AddString(message.Accept, acceptField)
			v.chosen = true
			v.format, v.webp = choose(&fields, r.prefer)
			v.webp = v.webp && v.format == avifFormat
		}
		if got, ok := parseVariant(v.appendText(nil)); !ok || got != v {
			t.Fatalf("%q: %s", query, v.appendText(nil))
		}
		in := func(list []int, n int) bool {
			for _, v := range append(list, 0) {
				if v == n {
					return true
				}
			}
			return false
		}
		if p.preset == nil && (!in(r.widths, v.width) || !in(r.heights, v.height) || !in(r.qualities, v.quality)) {
			t.Fatalf("%q: %s is not allowed", query, v.appendText(nil))
		}
	})
}
