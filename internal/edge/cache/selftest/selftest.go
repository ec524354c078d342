// Package selftest tries cache deception and cache poisoning against one's own edge. It asks for one's
// own URLs with a parameter or a path of its own each time, so that what it stores is never what a
// visitor gets, and looks whether what one request brought comes out at another.
package selftest

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// Config of a test.
type Config struct {
	// Do sends a request to the edge, and follows no redirect.
	Do func(*http.Request) (*http.Response, error)
	// Key is the cache key of a URL. Where a parameter of our own is not in it, what we ask for could be
	// what visitors get, and the URL is tested by paths only.
	Key func(ctx context.Context, url string) (string, error)
	// Victim are fields of a visitor who is logged in, besides those of our own; may be nil.
	Victim http.Header
}

// Parameter keeps what is asked for apart from what visitors ask for.
const Parameter = "relais-selftest"

// Bounds of a test.
const (
	MaxURLs = 1000
	maxBody = 1 << 20
)

// Finding is something that came out where it must not.
type Finding struct {
	// Kind is poisoning (what a field brought is served to others), deception (a page under the path of
	// a file), leak (what is one visitor's is served to others) or cookie (a stored Set-Cookie).
	Kind string `json:"kind"`
	URL  string `json:"url"`
	With string `json:"with"` // the field or the path that did it
	Says string `json:"says"`
}

// Report of a test.
type Report struct {
	Began    time.Time `json:"began"`
	URLs     int       `json:"urls"`
	Requests int       `json:"requests"`
	Stored   int       `json:"stored"` // how many second requests came from the store
	Findings []Finding `json:"findings"`
	// Skipped are URLs that were not tested whole, with the reason, and requests that failed.
	Skipped []string `json:"skipped,omitempty"`
}

// poisons are fields from which origins build answers, and whose values visitors choose. A method
// cannot carry the mark, so that its effect is looked for in the status.
func poisons(mark string) [][2]string {
	host := mark + ".invalid"
	return [][2]string{
		{"X-Forwarded-Host", host},
		{"X-Forwarded-Server", host},
		{"X-Host", host},
		{"X-Original-Host", host},
		{"X-HTTP-Host-Override", host},
		{"Forwarded", "for=192.0.2.1;host=" + host},
		{"X-Original-URL", "/" + mark},
		{"X-Rewrite-URL", "/" + mark},
		{"X-Original-URI", "/" + mark},
		{"X-Forwarded-Prefix", "/" + mark},
		{"X-Forwarded-Path", "/" + mark},
		{"X-Script-Name", "/" + mark},
		{"X-Forwarded-Scheme", mark},
		{"X-Forwarded-Proto", mark},
		{"X-URL-Scheme", mark},
		{"X-Forwarded-Port", "1"},
		{"X-Forwarded-SSL", "off"},
		{"X-HTTP-Method-Override", "POST"},
		{"X-HTTP-Method", "HEAD"},
		{"X-Method-Override", "DELETE"},
	}
}

// confusions are endings that an origin may overlook, and that look like a file to a cache.
func confusions(mark string) []string {
	return []string{
		"/" + mark + ".css", ";" + mark + ".css", "%0a" + mark + ".css", "%3f" + mark + ".js", "%23" + mark + ".png",
		"/..%2f" + mark + ".css", "/" + mark + ".jpg", "%3b" + mark + ".woff2", "/" + mark + "/%2e%2e/" + mark + ".ico", "/" + mark + ".pdf",
		"/" + mark + "%2ecss", ";" + mark + "%2ejs", "%5c" + mark + ".css", "%252f" + mark + ".svg",
	}
}

// detours lead to a path by way of a directory in which caches expect files: who reads encoded slashes and dots
// goes back, and who does not stays in it.
func detours(mark, path string) []string {
	var out []string
	for _, dir := range [...]string{"static", "assets", "images"} {
		for _, up := range [...]string{"..%2f..%2f", "%2e%2e%2f%2e%2e%2f", "..%5c..%5c", "%2e%2e/%2e%2e/"} {
			out = append(out, "/"+dir+"/"+mark+"/"+up+strings.TrimPrefix(path, "/"))
		}
	}
	return out
}

// loose are parameters that are often left out of keys, and that origins write into pages all the same.
func loose() []string {
	return []string{"utm_source", "utm_campaign", "utm_content", "gclid", "fbclid", "msclkid", "_ga", "mc_eid"}
}

type tester struct {
	cfg    Config
	report *Report
}

// Run tests urls, one request at a time. The error is of ctx, or that nothing could be asked; a report
// is there with each.
func Run(ctx context.Context, cfg Config, urls []string) (*Report, error) {
	t := &tester{cfg, &Report{Began: time.Now(), Findings: []Finding{}}}
	if len(urls) == 0 || len(urls) > MaxURLs {
		return t.report, fmt.Errorf("give 1 to %d URLs", MaxURLs)
	}
	failed := 0
	for _, raw := range urls {
		u, err := url.Parse(raw)
		if err != nil || u.Host == "" {
			return t.report, fmt.Errorf("%q is no URL", raw)
		}
		t.report.URLs++
		if err := t.one(ctx, u); err != nil {
			if ctx.Err() != nil {
				return t.report, context.Cause(ctx)
			}
			failed++
			t.report.Skipped = append(t.report.Skipped, raw+": "+err.Error())
		}
	}
	if failed == len(urls) {
		return t.report, errors.New("no URL could be asked for: " + t.report.Skipped[len(t.report.Skipped)-1])
	}
	return t.report, nil
}

func (t *tester) one(ctx context.Context, u *url.URL) error {
	first, second := busted(u, mark()), busted(u, mark())
	a, err := t.cfg.Key(ctx, first)
	if err != nil {
		return err
	}
	b, err := t.cfg.Key(ctx, second)
	if err != nil {
		return err
	}
	if err := t.deceive(ctx, u); err != nil {
		return err
	}
	if a == b {
		t.report.Skipped = append(t.report.Skipped, u.String()+": its key leaves unknown parameters out, so that only paths were tested")
		return nil
	}
	if err := t.poison(ctx, u); err != nil {
		return err
	}
	if err := t.smuggle(ctx, u); err != nil {
		return err
	}
	return t.mix(ctx, u)
}

// mark is a word that nobody else uses.
func mark() string {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	return "rst" + hex.EncodeToString(b[:])
}

// busted is u with a parameter that makes it ours.
func busted(u *url.URL, mark string) string {
	c := *u
	if c.RawQuery != "" {
		c.RawQuery += "&"
	}
	c.RawQuery += Parameter + "=" + mark
	c.Fragment = ""
	return c.String()
}

// got is an answer.
type got struct {
	status int
	fields http.Header
	body   string
}

// hit says that the edge's own cache had it.
func (g *got) hit() bool { return g.says("hit") }

// says whether the edge's member of Cache-Status, the last one, has a parameter (RFC 9211 section 2).
func (g *got) says(parameter string) bool {
	list := strings.Join(g.fields.Values("Cache-Status"), ", ")
	if i := strings.LastIndexByte(list, ','); i >= 0 {
		list = list[i+1:]
	}
	return slices.ContainsFunc(strings.Split(list, ";"), func(p string) bool { return strings.TrimSpace(p) == parameter })
}

// holds says whether a word came back, in the body or a field other than those that tell of the request.
func (g *got) holds(word string) bool {
	if strings.Contains(g.body, word) {
		return true
	}
	for name, values := range g.fields {
		if name != "Cache-Status" && strings.Contains(strings.Join(values, "\n"), word) {
			return true
		}
	}
	return false
}

// page says whether it is what a person is shown, and no file.
func (g *got) page() bool {
	kind, _, _ := strings.Cut(g.fields.Get("Content-Type"), ";")
	switch strings.ToLower(strings.TrimSpace(kind)) {
	case "text/html", "application/xhtml+xml", "application/json":
		return g.status < 300
	}
	return false
}

func (t *tester) ask(ctx context.Context, target string, with http.Header) (*got, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, target, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("User-Agent", Parameter)
	for name, values := range with {
		req.Header[name] = values
	}
	t.report.Requests++
	resp, err := t.cfg.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxBody))
	if err != nil {
		return nil, err
	}
	return &got{resp.StatusCode, resp.Header, string(body)}, nil
}

// after asks what is stored of an answer that was read to its end a moment ago. Who is answered from that answer's own fetch
// came before it was stored, and asks again.
func (t *tester) after(ctx context.Context, target string) (g *got, err error) {
	for range 10 {
		if g, err = t.ask(ctx, target, nil); err != nil || !g.says("collapsed") {
			break
		}
	}
	return g, err
}

// pair asks as somebody and then as nobody; the second answer only when it came from the store.
func (t *tester) pair(ctx context.Context, target string, with http.Header) (first, second *got, err error) {
	if first, err = t.ask(ctx, target, with); err != nil {
		return nil, nil, err
	}
	if second, err = t.after(ctx, target); err != nil {
		return nil, nil, err
	}
	if !second.hit() {
		return first, nil, nil
	}
	t.report.Stored++
	return first, second, nil
}

func (t *tester) found(kind, target, with, says string) {
	t.report.Findings = append(t.report.Findings, Finding{kind, target, with, says})
}

// poison sends fields that no visitor needs, each under a URL of its own.
func (t *tester) poison(ctx context.Context, u *url.URL) error {
	plain, err := t.ask(ctx, busted(u, mark()), nil)
	if err != nil {
		return err
	}
	for _, p := range poisons(mark()) {
		target := busted(u, mark())
		_, second, err := t.pair(ctx, target, http.Header{p[0]: {p[1]}})
		if err != nil {
			return err
		}
		word := p[1]
		if i := strings.Index(word, "rst"); i >= 0 {
			word = word[i:]
		} else {
			word = ""
		}
		switch {
		case second == nil:
		case word != "" && second.holds(word):
			t.found("poisoning", target, p[0], "what one visitor sends in "+p[0]+" is in the answer that others get from the cache")
		case second.status != plain.status:
			t.found("poisoning", target, p[0], fmt.Sprintf("with %s the cache keeps a %d for all, in the place of a %d", p[0], second.status, plain.status))
		}
	}
	return nil
}

// smuggle sends parameters that are often in no key, with a value that ends an attribute, and asks once more without.
func (t *tester) smuggle(ctx context.Context, u *url.URL) error {
	for _, name := range loose() {
		word := mark()
		target := busted(u, mark())
		if _, err := t.ask(ctx, target+"&"+name+"="+url.QueryEscape(`"><i id=//`+word), nil); err != nil {
			return err
		}
		second, err := t.after(ctx, target)
		if err != nil {
			return err
		}
		if !second.hit() {
			continue // the parameter is in the key, or nothing was stored
		}
		t.report.Stored++
		if second.holds(word) {
			t.found("poisoning", target, name, "what one visitor sends in the parameter "+name+", which the key leaves out, is in the answer that others get from the cache")
		}
	}
	return nil
}

// victim is a visitor who is logged in, whose cookie holds the mark.
func (t *tester) victim(mark string) http.Header {
	h := t.cfg.Victim.Clone()
	if h == nil {
		h = http.Header{}
	}
	cookie := "session=" + mark + "; " + Parameter + "=" + mark
	if c := h.Get("Cookie"); c != "" {
		cookie = c + "; " + Parameter + "=" + mark
	}
	h.Set("Cookie", cookie)
	return h
}

// deceive asks for a page under paths that look like files, as a victim would who was sent there.
func (t *tester) deceive(ctx context.Context, u *url.URL) error {
	for _, end := range confusions(mark()) {
		secret := mark()
		c := *u
		c.RawQuery, c.Fragment = "", ""
		target := strings.TrimSuffix(c.String(), "/")
		if strings.TrimSuffix(c.Path, "/") == "" && end[0] != '/' {
			target += "/"
		}
		target += end
		_, second, err := t.pair(ctx, target, t.victim(secret))
		switch {
		case err != nil:
			return err
		case second == nil:
		case second.holds(secret):
			t.found("leak", target, end, "what is in a visitor's cookie comes out at everybody who asks for the same path")
		case second.page():
			t.found("deception", target, end, "a page is stored under the path of a file: who sends a visitor there reads the visitor's page")
		}
	}
	for _, path := range detours(mark(), u.EscapedPath()) {
		secret := mark()
		target := u.Scheme + "://" + u.Host + path
		switch _, second, err := t.pair(ctx, target, t.victim(secret)); {
		case err != nil:
			return err
		case second != nil && second.holds(secret):
			t.found("leak", target, path, "what is in a visitor's cookie comes out at everybody who asks for the same path")
		}
	}
	return nil
}

// mix asks with cookies and credentials, and then without.
func (t *tester) mix(ctx context.Context, u *url.URL) error {
	plain, err := t.ask(ctx, busted(u, mark()), nil)
	if err != nil {
		return err
	}
	again, err := t.ask(ctx, busted(u, mark()), nil)
	if err != nil {
		return err
	}
	steady := plain.body == again.body // what everybody gets, without anything of the request
	for _, with := range []string{"Cookie", "Authorization", "Cookie and Authorization"} {
		secret := mark()
		h := http.Header{}
		if strings.Contains(with, "Cookie") {
			h = t.victim(secret)
		}
		if strings.Contains(with, "Authorization") && h.Get("Authorization") == "" {
			h.Set("Authorization", "Bearer "+secret)
		}
		target := busted(u, mark())
		first, second, err := t.pair(ctx, target, h)
		switch {
		case err != nil:
			return err
		case second == nil:
			continue
		case second.holds(secret):
			t.found("leak", target, with, "what is in a visitor's "+with+" comes out at others")
		case steady && second.body == first.body && second.body != plain.body:
			t.found("leak", target, with, "what a visitor with "+with+" gets is not what others get, and comes out at them")
		}
		if c := second.fields.Values("Set-Cookie"); len(c) > 0 && slices.Equal(c, first.fields.Values("Set-Cookie")) {
			t.found("cookie", target, "Set-Cookie", "one and the same Set-Cookie is given to all from the cache")
		}
	}
	return nil
}
