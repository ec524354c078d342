package visitors

import (
	"math/rand/v2"
	"strconv"
	"strings"
)

// kind is what a request is for, as a browser sees it.
type kind int

const (
	navigation kind = iota // a page that the visitor goes to
	submission             // a form that the visitor sends
	picture
	stylesheet
)

// engine is the family of a browser: it decides which fields are sent, and their order.
type engine int

const (
	chromium engine = iota
	gecko
	webkit
	crawler
	script
)

// persona is one browser: what it says about itself in every request.
type persona struct {
	name      string
	engine    engine
	agent     string
	brands    string // Sec-CH-UA; Chromium only
	platform  string // Sec-CH-UA-Platform
	mobile    bool
	language  string
	encodings string
	share     int // of all visitors, relative

	fields []string // names in the order of sending
}

func browsers() []persona {
	const (
		brands142 = `"Chromium";v="142", "Google Chrome";v="142", "Not_A Brand";v="99"`
		edge142   = `"Chromium";v="142", "Microsoft Edge";v="142", "Not_A Brand";v="99"`
		like      = "AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 "
	)
	return []persona{
		{name: "chrome-windows", engine: chromium, brands: brands142, platform: `"Windows"`, share: 30, agent: "Mozilla/5.0 (Windows NT 10.0; Win64; x64) " + like + "Safari/537.36"},
		{name: "chrome-mac", engine: chromium, brands: brands142, platform: `"macOS"`, share: 10, agent: "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) " + like + "Safari/537.36"},
		{name: "chrome-android", engine: chromium, brands: brands142, platform: `"Android"`, mobile: true, share: 24, agent: "Mozilla/5.0 (Linux; Android 10; K) " + like + "Mobile Safari/537.36"},
		{name: "edge-windows", engine: chromium, brands: edge142, platform: `"Windows"`, share: 6, agent: "Mozilla/5.0 (Windows NT 10.0; Win64; x64) " + like + "Safari/537.36 Edg/142.0.0.0"},
		{name: "firefox-linux", engine: gecko, share: 4, agent: "Mozilla/5.0 (X11; Linux x86_64; rv:144.0) Gecko/20100101 Firefox/144.0"},
		{name: "firefox-windows", engine: gecko, share: 5, agent: "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:144.0) Gecko/20100101 Firefox/144.0"},
		{name: "safari-mac", engine: webkit, share: 7, agent: "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/26.0 Safari/605.1.15"},
		{name: "safari-iphone", engine: webkit, mobile: true, share: 20, agent: "Mozilla/5.0 (iPhone; CPU iPhone OS 18_7 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/26.0 Mobile/15E148 Safari/604.1"},
	}
}

func crawlers() []persona {
	return []persona{
		{name: "googlebot", engine: crawler, share: 5, agent: "Mozilla/5.0 AppleWebKit/537.36 (KHTML, like Gecko; compatible; Googlebot/2.1; +http://www.google.com/bot.html) Chrome/142.0.0.0 Safari/537.36"},
		{name: "bingbot", engine: crawler, share: 3, agent: "Mozilla/5.0 AppleWebKit/537.36 (KHTML, like Gecko; compatible; bingbot/2.0; +http://www.bing.com/bingbot.htm) Chrome/142.0.0.0 Safari/537.36"},
		{name: "python-requests", engine: script, share: 3, agent: "python-requests/2.32.3"},
		{name: "curl", engine: script, share: 2, agent: "curl/8.14.1"},
	}
}

// pickPersona draws one by share, and the language of its owner.
func pickPersona(all []persona, rng *rand.Rand, encodings string) persona {
	sum := 0
	for _, p := range all {
		sum += p.share
	}
	at := rng.IntN(sum)
	p := all[0]
	for _, p = range all {
		if at -= p.share; at < 0 {
			break
		}
	}
	tongues := [][2]string{{"en", "US"}, {"en", "GB"}, {"de", "DE"}, {"fr", "FR"}, {"nl", "NL"}, {"es", "ES"}, {"pl", "PL"}}
	tongue := tongues[rng.IntN(len(tongues))]
	switch p.engine {
	case chromium:
		p.language = tongue[0] + "-" + tongue[1] + "," + tongue[0] + ";q=0.9"
		if tongue[0] != "en" {
			p.language += ",en-US;q=0.8,en;q=0.7"
		}
	case gecko:
		p.language = tongue[0] + "-" + tongue[1] + "," + tongue[0] + ";q=0.5"
		if tongue[0] != "en" {
			p.language = tongue[0] + "," + tongue[0] + "-" + tongue[1] + ";q=0.8,en-US;q=0.5,en;q=0.3"
		}
	case webkit:
		p.language = tongue[0] + "-" + tongue[1] + "," + tongue[0] + ";q=0.9"
	case crawler, script:
	}
	p.encodings, p.fields = encodings, p.engine.order()
	return p
}

// order returns the names of the fields in the order in which the browser sends them.
func (e engine) order() []string {
	switch e {
	case chromium:
		return []string{
			"Host", "Connection", "Content-Length", "Cache-Control", "sec-ch-ua-platform", "sec-ch-ua", "sec-ch-ua-mobile", "Origin",
			"Content-Type", "Upgrade-Insecure-Requests", "User-Agent", "Accept", "Sec-Fetch-Site", "Sec-Fetch-Mode",
			"Sec-Fetch-User", "Sec-Fetch-Dest", "Referer", "Accept-Encoding", "Accept-Language", "Cookie",
			"If-None-Match", "If-Modified-Since",
		}
	case gecko:
		return []string{
			"Host", "User-Agent", "Accept", "Accept-Language", "Accept-Encoding", "Referer", "Content-Type",
			"Content-Length", "Origin", "Connection", "Cookie", "Upgrade-Insecure-Requests", "Sec-Fetch-Dest",
			"Sec-Fetch-Mode", "Sec-Fetch-Site", "Sec-Fetch-User", "If-Modified-Since", "If-None-Match", "Priority", "Cache-Control",
		}
	case webkit:
		return []string{
			"Host", "Content-Type", "Origin", "Sec-Fetch-Site", "Connection", "Upgrade-Insecure-Requests", "If-None-Match",
			"If-Modified-Since", "Sec-Fetch-Mode", "Accept", "User-Agent", "Referer", "Content-Length", "Sec-Fetch-Dest",
			"Accept-Language", "Accept-Encoding", "Cookie", "Cache-Control",
		}
	case crawler:
		return []string{"Host", "Connection", "Accept", "User-Agent", "Content-Type", "Content-Length", "Accept-Encoding", "If-Modified-Since"}
	case script:
	}
	return []string{"Host", "User-Agent", "Accept-Encoding", "Accept", "Connection", "Content-Type", "Content-Length"}
}

// request is one request of a visitor, before the browser dresses it.
type request struct {
	method  string
	target  string // path and query, as sent
	kind    kind
	referer string // path and query of the page it comes from, or ""
	cookie  string
	form    string // body
	media   string // its type
	reload  bool
	once    bool // every sending is the caller's own try

	etag, modified string // of the copy in the browser's cache
	extra          [][2]string
}

// origin is who the visitor talks to.
type origin struct {
	scheme, host string
	secure       bool // fetch metadata and client hints are sent only to such origins
}

// appendHead writes the request line and fields of r to b.
func (p *persona) appendHead(b []byte, o *origin, r *request) []byte {
	b = append(b, r.method...)
	b = append(b, ' ')
	b = append(b, r.target...)
	b = append(b, " HTTP/1.1\r\n"...)
	for _, name := range p.fields {
		value := p.field(name, o, r)
		if value == "" {
			continue
		}
		b = append(b, name...)
		b = append(b, ": "...)
		b = append(b, value...)
		b = append(b, "\r\n"...)
	}
	for _, f := range r.extra {
		b = append(b, f[0]...)
		b = append(b, ": "...)
		b = append(b, f[1]...)
		b = append(b, "\r\n"...)
	}
	return append(b, "\r\n"...)
}

// field is the value of one field, or "" when this request does not have it.
func (p *persona) field(name string, o *origin, r *request) string {
	switch name {
	case "Host":
		return o.host
	case "Connection":
		return "keep-alive"
	case "User-Agent":
		return p.agent
	case "Accept":
		return p.accept(r.kind)
	case "Accept-Encoding":
		return p.encodings
	case "Accept-Language":
		return p.language
	case "Cookie":
		return r.cookie
	case "If-None-Match":
		return r.etag
	case "If-Modified-Since":
		return r.modified
	case "Content-Type":
		return r.media
	case "Content-Length":
		if r.method == "POST" {
			return strconv.Itoa(len(r.form))
		}
	case "Origin":
		if r.method == "POST" {
			return o.scheme + "://" + o.host
		}
	case "Referer":
		if r.referer != "" {
			return o.scheme + "://" + o.host + r.referer
		}
	case "Cache-Control":
		if r.kind == submission || r.reload && r.kind == navigation {
			return "max-age=0"
		}
	case "Upgrade-Insecure-Requests":
		if r.kind <= submission {
			return "1"
		}
	case "Priority":
		return [...]string{"u=0, i", "u=0, i", "u=5, i", "u=2"}[r.kind]
	}
	if o.secure && strings.HasPrefix(strings.ToLower(name), "sec-") {
		return p.metadata(name, r)
	}
	return ""
}

// metadata is the fetch metadata and the client hints.
func (p *persona) metadata(name string, r *request) string {
	switch name {
	case "sec-ch-ua":
		return p.brands
	case "sec-ch-ua-platform":
		return p.platform
	case "sec-ch-ua-mobile":
		if p.mobile {
			return "?1"
		}
		return "?0"
	case "Sec-Fetch-Site":
		if r.referer == "" {
			return "none"
		}
		return "same-origin"
	case "Sec-Fetch-Mode":
		if r.kind <= submission {
			return "navigate"
		}
		return "no-cors"
	case "Sec-Fetch-User":
		if r.kind <= submission {
			return "?1"
		}
	case "Sec-Fetch-Dest":
		return [...]string{"document", "document", "image", "style"}[r.kind]
	}
	return ""
}

func (p *persona) accept(k kind) string {
	switch {
	case p.engine >= crawler:
		return "*/*"
	case k == stylesheet:
		return "text/css,*/*;q=0.1"
	case k == picture && p.engine == chromium:
		return "image/avif,image/webp,image/apng,image/svg+xml,image/*,*/*;q=0.8"
	case k == picture && p.engine == gecko:
		return "image/avif,image/webp,image/png,image/svg+xml,image/*;q=0.8,*/*;q=0.5"
	case k == picture:
		return "image/webp,image/avif,image/jxl,image/heic,image/heic-sequence,video/*;q=0.8,image/png,image/svg+xml,image/*;q=0.8,*/*;q=0.5"
	case p.engine == chromium:
		return "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,*/*;q=0.8,application/signed-exchange;v=b3;q=0.7"
	default:
		return "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
	}
}
