package brand_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"image"
	"image/color"
	"image/png"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/relais-edge/relais/internal/control/store"
	"github.com/relais-edge/relais/internal/control/tenant"
	"github.com/relais-edge/relais/internal/control/tenant/audit"
	"github.com/relais-edge/relais/internal/control/tenant/auth"
	"github.com/relais-edge/relais/internal/control/tenant/brand"
	"github.com/relais-edge/relais/internal/control/tenant/claim"
	"github.com/relais-edge/relais/internal/control/tenant/secret"
	"github.com/relais-edge/relais/test/postgres"
)

var server = &postgres.Lazy{}

func TestMain(m *testing.M) { os.Exit(server.Main(m)) }

// zone is the DNS of a test.
type zone map[string][]string

func (z zone) LookupTXT(_ context.Context, name string) ([]string, error) {
	if list := z[name]; len(list) > 0 {
		return list, nil
	}
	return nil, &net.DNSError{Err: "no such host", Name: name, IsNotFound: true}
}

// bed is op ── east ── shop ── deep, and op ── west.
type bed struct {
	*brand.Service
	t      *testing.T
	store  *store.Store
	tenant *tenant.Service
	claims *claim.Service
	dns    zone
	op     tenant.Actor
}

func setup(t *testing.T) *bed {
	t.Helper()
	b := &bed{t: t, dns: zone{}}
	var err error
	if postgres.Wanted(t) {
		var dsn string
		if dsn, err = server.Database(t.Context()); err == nil {
			b.store, err = store.OpenPostgres(t.Context(), dsn, store.Options{})
		}
	} else {
		b.store, err = store.OpenSQLite(t.Context(), filepath.Join(t.TempDir(), "relais.db"), store.Options{})
	}
	b.must(err)
	t.Cleanup(func() { _ = b.store.Close() })
	private, _, err := secret.NewKey()
	b.must(err)
	vault, err := secret.NewVault(private)
	b.must(err)
	b.tenant = tenant.New(tenant.Config{Store: b.store, Vault: vault, Hasher: auth.NewHasher(auth.Cost{Passes: 1, MemoryKiB: 64, Lanes: 1}, 2)})
	b.claims = claim.New(claim.Config{Store: b.store, Tenant: b.tenant, DNS: b.dns})
	b.Service = brand.New(brand.Config{Store: b.store, Tenant: b.tenant})
	b.op, err = b.tenant.Setup(t.Context(), "op", "root", "correct horse battery")
	b.must(err)
	for _, o := range [][2]string{{"op", "east"}, {"east", "shop"}, {"shop", "deep"}, {"op", "west"}} {
		b.must(b.tenant.CreateOrganization(t.Context(), b.op, o[0], o[1], ""))
	}
	return b
}

func (b *bed) must(err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
}

func (b *bed) is(err, want error) {
	b.t.Helper()
	if !errors.Is(err, want) {
		b.t.Errorf("%v, not %v", err, want)
	}
}

// prove puts a name in force for an organization.
func (b *bed) prove(org, name string) {
	b.t.Helper()
	c, err := b.claims.Create(b.t.Context(), b.op, org, name, claim.DNS)
	b.must(err)
	record, value := c.Record()
	b.dns[record] = []string{value}
	_, err = b.claims.Prove(b.t.Context(), b.op, org, name)
	b.must(err)
}

func (b *bed) user(org, login, role string) tenant.Actor {
	b.t.Helper()
	b.must(b.tenant.CreateUser(b.t.Context(), b.op, org, login, "correct horse battery", false))
	u := tenant.Actor{Organization: org, Login: login}
	b.must(b.tenant.Bind(b.t.Context(), b.op, org, "", u, role, nil))
	return u
}

func TestTheNearestBrandIsShown(t *testing.T) {
	b := setup(t)
	ctx := t.Context()
	shows := func(org, title, whose string) {
		t.Helper()
		got, of, err := b.Brand(ctx, org)
		if err != nil || got.Title != title || of != whose {
			t.Errorf("%s shows %q of %q, %v; not %q of %q", org, got.Title, of, err, title, whose)
		}
	}
	for _, org := range []string{"op", "deep", "nowhere", "", "~quota"} {
		shows(org, "Relais", "")
	}
	eve, sam := b.user("east", "eve", tenant.RoleAdmin), b.user("shop", "sam", tenant.RoleEditor)
	full := brand.Brand{
		Title: "East é 日本", Colors: &brand.Colors{Text: "#1d2330", Background: "#fafaf8", Accent: "#1d4f91", AccentText: "#ffffff"},
		Support: brand.Support{Mail: "help@east.example.com", URL: "https://east.example.com/help"},
		Pages:   brand.Texts{English: brand.Frame{Head: "Protected by East", Foot: "East Ltd"}, French: brand.Frame{Foot: "East SARL"}},
	}
	b.must(b.Put(ctx, eve, "east", full))
	b.must(b.Put(ctx, b.op, "op", brand.Brand{Title: "Operator"}))
	shows("op", "Operator", "op")
	shows("west", "Operator", "op")
	shows("east", "East é 日本", "east")
	shows("deep", "East é 日本", "east")
	b.must(b.Put(ctx, eve, "shop", brand.Brand{Title: "Shop"}))
	shows("deep", "Shop", "shop")
	got, _, err := b.Brand(ctx, "deep")
	if err != nil || got.Support.Mail != "" || got.Colors != nil {
		t.Errorf("one's logo stands beside another's support: %+v, %v", got, err)
	}
	b.is(b.Put(ctx, sam, "shop", brand.Brand{Title: "Mine"}), tenant.ErrDenied)
	b.is(b.Put(ctx, eve, "op", brand.Brand{Title: "Mine"}), tenant.ErrDenied)
	b.is(b.Delete(ctx, sam, "shop"), tenant.ErrDenied)
	b.must(b.Delete(ctx, eve, "shop"))
	b.is(b.Delete(ctx, eve, "shop"), store.ErrNotFound)
	shows("deep", "East é 日本", "east")
	b.must(b.tenant.DeleteOrganization(ctx, b.op, "deep"))
	shows("deep", "Relais", "")
	for _, org := range []string{"op", "east", "shop"} {
		if _, err := audit.Verify(ctx, b.store, org); err != nil {
			t.Error(err)
		}
	}
}

func TestAConsolesHostIsItsHoldersAlone(t *testing.T) {
	b := setup(t)
	ctx := t.Context()
	b.is(b.Put(ctx, b.op, "east", brand.Brand{Title: "East", Hosts: []string{"console.example.com"}}), tenant.ErrInvalid)
	b.prove("east", "*.example.com")
	b.is(b.Put(ctx, b.op, "west", brand.Brand{Title: "West", Hosts: []string{"console.example.com"}}), tenant.ErrInvalid)
	b.is(b.Put(ctx, b.op, "east", brand.Brand{Title: "East", Hosts: []string{"*.example.com"}}), tenant.ErrInvalid)
	b.is(b.Put(ctx, b.op, "east", brand.Brand{Title: "East", Hosts: []string{"192.0.2.1"}}), claim.ErrName)
	b.must(b.Put(ctx, b.op, "east", brand.Brand{Title: "East", Hosts: []string{"Console.Example.com.", "console.example.com"}}))
	b.must(b.Put(ctx, b.op, "op", brand.Brand{Title: "Operator"}))
	for _, host := range []string{"console.example.com", "CONSOLE.example.com."} {
		if got, org, err := b.BrandOfHost(ctx, host); err != nil || org != "east" || got.Title != "East" || len(got.Hosts) != 1 {
			t.Errorf("%s: %+v of %s, %v", host, got, org, err)
		}
	}
	for _, host := range []string{"", "other.example.com", "example.com", "*.example.com", "console.example.org", "localhost", "192.0.2.1", "console.example.com:443", "\x00"} {
		if got, org, err := b.BrandOfHost(ctx, host); !errors.Is(err, brand.ErrNoHost) || org != "" || got.Title != "" {
			t.Errorf("%q: %+v of %s, %v", host, got, org, err)
		}
	}
	// With the claim the host goes, and to another who proved it only when he says so.
	b.must(b.claims.Release(ctx, b.op, "east", "*.example.com"))
	_, _, err := b.BrandOfHost(ctx, "console.example.com")
	b.is(err, brand.ErrNoHost)
	b.prove("west", "console.example.com")
	_, _, err = b.BrandOfHost(ctx, "console.example.com")
	b.is(err, brand.ErrNoHost)
	b.must(b.Put(ctx, b.op, "west", brand.Brand{Title: "West", Hosts: []string{"console.example.com"}}))
	if _, org, err := b.BrandOfHost(ctx, "console.example.com"); err != nil || org != "west" {
		t.Errorf("%s, %v", org, err)
	}
}

func picture(t *testing.T, side int) []byte {
	t.Helper()
	m := image.NewNRGBA(image.Rect(0, 0, side, side))
	m.Set(0, 0, color.NRGBA{1, 2, 3, 255})
	var b bytes.Buffer
	if err := png.Encode(&b, m); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestLogos(t *testing.T) {
	b := setup(t)
	put := func(kind, data string) error {
		return b.Put(t.Context(), b.op, "east", brand.Brand{Title: "East", Logo: &brand.Logo{Type: kind, Data: []byte(data)}})
	}
	const open, end = `<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" viewBox="0 0 10 10">`, `</svg>`
	for _, good := range []string{
		open + `<title>East &amp; co</title><defs><linearGradient id="a"><stop offset="0" stop-color="#fff"/></linearGradient><linearGradient id="b" xlink:href="#a"/>` +
			`<clipPath id="c"><rect width="1" height="1"/></clipPath></defs><g clip-path="url(#c)" fill="url(#b)" transform="translate(1 2)"><path d="M0 0h10v10z"/></g><text x="1">E</text>` + end,
		`<?xml version="1.0" encoding="UTF-8"?><!-- made by hand -->` + open + end,
	} {
		if err := put("image/svg+xml", good); err != nil {
			t.Errorf("%s: %v", good, err)
		}
	}
	for name, bad := range map[string]string{
		"a script":                `<script>alert(1)</script>`,
		"a script elsewhere":      `<x:script xmlns:x="http://www.w3.org/1999/xhtml">alert(1)</x:script>`,
		"a script under its name": `<x:script xmlns:x="http://www.w3.org/2000/svg">alert(1)</x:script>`,
		"a handler":               `<g onload="alert(1)"/>`,
		"a handler in capitals":   `<g ONLOAD="alert(1)"/>`,
		"foreign content":         `<foreignObject><p>x</p></foreignObject>`,
		"a picture":               `<image href="https://example.com/x.png"/>`,
		"a link":                  `<a href="javascript:alert(1)"><path/></a>`,
		"use":                     `<use href="#a"/>`,
		"an animation":            `<animate attributeName="href" to="javascript:alert(1)"/>`,
		"set":                     `<set attributeName="onload" to="alert(1)"/>`,
		"a style":                 `<style>@import "https://example.com/x.css"</style>`,
		"a style attribute":       `<g style="fill:red"/>`,
		"a colour from elsewhere": `<g fill="url(https://example.com/x)"/>`,
		"one that hides":          `<g fill="u\72l(https://example.com/x)"/>`,
		"one in capitals":         `<g fill="URL( 'data:x' )"/>`,
		"one after a good one":    `<g fill="url(#a) url(//example.com)"/>`,
		"a comment in it":         `<g fill="ur/**/l(x)"/>`,
		"a gradient of another":   `<linearGradient href="https://example.com/#a"/>`,
		"href at a group":         `<g href="#a"/>`,
		"a filter":                `<filter/>`,
		"a name space":            `<g xmlns:y="urn:x"/>`,
		"an instruction":          `<?xml-stylesheet href="x"?>`,
		"an entity":               `<text>&x;</text>`,
		"deep":                    strings.Repeat("<g>", 40) + strings.Repeat("</g>", 40),
		"many":                    strings.Repeat("<g/>", 2001),
		"unfinished":              `<g>`,
	} {
		if err := put("image/svg+xml", open+bad+end); !errors.Is(err, tenant.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, bad := range map[string]string{
		"a type": `<!DOCTYPE svg [<!ENTITY x "y">]>` + open + end, "nothing": "", "text": "svg", "two": open + end + open + end, "a page": "<html><script/></html>",
		"no name space": "<svg/>", "a comment": "<!-- x -->", "another encoding": `<?xml version="1.0" encoding="UTF-16"?>` + open + end, "big": open + strings.Repeat(" ", 64<<10) + end,
		"a stylesheet": `<?xml-stylesheet href="x"?>` + open + end, "bytes": "\xff\xfe",
	} {
		if err := put("image/svg+xml", bad); !errors.Is(err, tenant.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	small := picture(t, 8)
	b.must(put("image/png", string(small)+"<script>alert(1)</script>"))
	got, _, err := b.Brand(t.Context(), "east")
	if err != nil || got.Logo == nil || bytes.Contains(got.Logo.Data, []byte("script")) {
		t.Errorf("%+v, %v", got.Logo, err)
	} else if m, err := png.Decode(bytes.NewReader(got.Logo.Data)); err != nil || m.Bounds().Dx() != 8 {
		t.Errorf("it is no picture any more: %v", err)
	}
	for name, bad := range map[string]string{"too large": string(picture(t, 1025)), "cut off": string(small[:len(small)-20]), "text": "PNG"} {
		if err := put("image/png", bad); !errors.Is(err, tenant.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	b.is(put("image/gif", "GIF89a"), tenant.ErrInvalid)
}

func TestColoursAndTextsEverybodyCanRead(t *testing.T) {
	b := setup(t)
	put := func(fn func(*brand.Brand)) error {
		x := brand.Brand{Title: "East"}
		fn(&x)
		return b.Put(t.Context(), b.op, "east", x)
	}
	colors := func(text, background, accent, on string) *brand.Colors {
		return &brand.Colors{Text: text, Background: background, Accent: accent, AccentText: on}
	}
	for _, c := range []*brand.Colors{colors("#000000", "#ffffff", "#767676", "#FFFFFF"), colors("#e7e9ee", "#15181e", "#8ab8ff", "#000000")} {
		b.must(put(func(x *brand.Brand) { x.Colors, x.Dark = c, c }))
	}
	for name, c := range map[string]*brand.Colors{
		"grey on white, just below":  colors("#777777", "#ffffff", "#000000", "#ffffff"), // 4.48
		"white on white":             colors("#ffffff", "#ffffff", "#000000", "#ffffff"),
		"yellow on a yellow button":  colors("#000000", "#ffffff", "#0b57b0", "#0b57b1"),
		"a button that is not seen":  colors("#000000", "#ffffff", "#fafaf8", "#000000"),
		"a name":                     colors("black", "#ffffff", "#000000", "#ffffff"),
		"three digits":               colors("#000", "#ffffff", "#000000", "#ffffff"),
		"no number":                  colors("#00000g", "#ffffff", "#000000", "#ffffff"),
		"a sign":                     colors("#+00000", "#ffffff", "#000000", "#ffffff"),
		"something that ends a rule": colors("#000;}x", "#ffffff", "#000000", "#ffffff"),
		"none":                       {},
	} {
		b.is(put(func(x *brand.Brand) { x.Colors = c }), tenant.ErrInvalid)
		if err := put(func(x *brand.Brand) { x.Dark = c }); !errors.Is(err, tenant.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, fn := range map[string]func(*brand.Brand){
		"no title":          func(x *brand.Brand) { x.Title = "" },
		"a long one":        func(x *brand.Brand) { x.Title = strings.Repeat("x", 65) },
		"a line break":      func(x *brand.Brand) { x.Title = "a\nb" },
		"text turned round": func(x *brand.Brand) { x.Pages.English.Foot = "a\u202eb" },
		"no UTF-8":          func(x *brand.Brand) { x.Pages.French.Head = "\xff" },
		"a long text":       func(x *brand.Brand) { x.Pages.French.Foot = strings.Repeat("x", 301) },
		"no address":        func(x *brand.Brand) { x.Support.Mail = "help" },
		"a header":          func(x *brand.Brand) { x.Support.Mail = "a@example.com?cc=b@example.com" },
		"a script":          func(x *brand.Brand) { x.Support.URL = "javascript:alert(1)" },
		"in clear":          func(x *brand.Brand) { x.Support.URL = "http://example.com" },
		"a password":        func(x *brand.Brand) { x.Support.URL = "https://a:b@example.com" },
	} {
		if err := put(fn); !errors.Is(err, tenant.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	var l *store.LimitError
	if err := put(func(x *brand.Brand) { x.Hosts = make([]string, 17) }); !errors.As(err, &l) {
		t.Errorf("many hosts: %v", err)
	}
	got, _, err := b.Brand(t.Context(), "east")
	b.must(err)
	if text, err := json.Marshal(got); err != nil || strings.Contains(string(text), "null") {
		t.Errorf("%s, %v", text, err)
	}
}

func TestOverPostgres(t *testing.T) {
	postgres.Again(t, map[string]func(*testing.T){
		"TestTheNearestBrandIsShown":          TestTheNearestBrandIsShown,
		"TestAConsolesHostIsItsHoldersAlone":  TestAConsolesHostIsItsHoldersAlone,
		"TestLogos":                           TestLogos,
		"TestColoursAndTextsEverybodyCanRead": TestColoursAndTextsEverybodyCanRead,
	})
}
