// Package notice is how the edge's own pages meet visitors: the form that they take (HTML, JSON or plain
// text), their language, and the frame that all HTML pages share. A page works without scripts, in the dark
// and for who hears it read.
package notice

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"html"
	"strings"

	"github.com/relais-edge/relais/internal/http/message"
)

// Form is how a page is written.
type Form uint8

// The forms.
const (
	Text Form = iota
	HTML
	JSON
)

// FormFor reads Accept: a browser names text/html, a program that wants JSON names that. Of both,
// the one that comes first is taken; one with q=0 is not. A nil request gets text.
func FormFor(in *message.Request) Form {
	if in == nil {
		return Text
	}
	for rest := in.Get(message.Accept); len(rest) > 0; {
		var kind []byte
		kind, rest, _ = bytes.Cut(rest, []byte{','})
		kind, params, _ := bytes.Cut(kind, []byte{';'})
		switch kind = bytes.TrimSpace(kind); {
		case refused(params):
		case message.EqualFold(kind, "text/html"), message.EqualFold(kind, "application/xhtml+xml"):
			return HTML
		case bytes.HasSuffix(bytes.ToLower(kind), []byte("json")):
			return JSON
		}
	}
	return Text
}

// refused says whether parameters hold a weight of 0.
func refused(params []byte) bool {
	for p := range bytes.SplitSeq(params, []byte{';'}) {
		q, ok := bytes.CutPrefix(bytes.TrimSpace(p), []byte("q="))
		if ok && len(bytes.Trim(q, "0.")) == 0 {
			return true
		}
	}
	return false
}

// French says whether the visitor prefers French to English, the two languages of the edge's pages.
func French(in *message.Request) bool {
	return in != nil && strings.HasPrefix(strings.ToLower(string(in.Get(message.AcceptLanguage))), "fr")
}

// Page is an HTML page in parts. Title is text; the others are markup.
type Page struct {
	Lang, Title      string
	Head, Body, Foot string
}

// Append writes the page.
func (p *Page) Append(b []byte) []byte {
	b = append(b, `<!doctype html><html lang="`...)
	b = append(b, p.Lang...)
	b = append(b, `"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><meta name="robots" content="noindex"><title>`...)
	title := html.EscapeString(p.Title)
	b = append(b, title...)
	b = append(b, `</title>`...)
	b = append(b, p.Head...)
	b = append(b, `<style>body{font:1.1rem/1.6 system-ui,sans-serif;max-width:34rem;margin:14vh auto;padding:0 1.2rem;color:#1d2330;background:#fafaf8}h1{font-size:1.6rem;margin:0 0 .6rem}small{color:#5c6473}code{font-size:1rem;user-select:all}a{color:#0b57b0}button{font:inherit;padding:.5rem 1.2rem;border:2px solid #1d4f91;border-radius:.4rem;background:#1d4f91;color:#fff;cursor:pointer}button:focus-visible,a:focus-visible{outline:3px solid #e8a200;outline-offset:2px}strong.n{font-size:2.4rem;line-height:1.2;display:block}progress{width:100%;height:.8rem}@media(prefers-color-scheme:dark){body{color:#e7e9ee;background:#15181e}small{color:#9aa3b2}a{color:#8ab8ff}}</style></head><body><main><h1>`...)
	b = append(b, title...)
	b = append(b, `</h1>`...)
	b = append(b, p.Body...)
	b = append(b, `</main><footer><small>`...)
	b = append(b, p.Foot...)
	return append(b, "</small></footer></body></html>\n"...)
}

// Nonce is a new value for a Content-Security-Policy that allows one script.
func Nonce() string {
	var b [12]byte
	_, _ = rand.Read(b[:]) // never fails
	return base64.RawURLEncoding.EncodeToString(b[:])
}

// Policy is a Content-Security-Policy for a page with the scripts of one nonce: they may make workers, ask
// this host, and send forms to it; nothing comes from elsewhere.
func Policy(nonce string) string {
	return "default-src 'none'; script-src 'nonce-" + nonce + "'; worker-src blob:; style-src 'unsafe-inline'; img-src data:; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'self'"
}

// Quote appends a JSON string of text that the edge made or escaped for JSON already.
func Quote(b []byte, s string) []byte {
	b = append(b, '"')
	for i := range len(s) {
		switch c := s[i]; {
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		case c < 0x20:
			b = append(b, ' ')
		default:
			b = append(b, c)
		}
	}
	return append(b, '"')
}
