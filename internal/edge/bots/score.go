package bots

import (
	"strings"

	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/stage"
)

// What an observation adds to the score. The details of the marks say the numbers too, as they are made of text
// that costs nothing to show.
const (
	scoreNoAgent     = 40
	scoreTool        = 35
	scoreNoLanguage  = 20
	scoreNoEncoding  = 15
	scoreNoFetch     = 25
	scoreNoHints     = 10
	scoreOldProtocol = 25
	scoreNoALPN      = 20
	scoreOldTLS      = 20
	scorePrint       = 50
	scoreHoneypot    = 60
	scoreImpostor    = 60
	maxScore         = 100
)

// tools are the beginnings of names that programs give themselves.
var tools = [...]string{
	"curl/", "wget/", "python-requests/", "python-urllib/", "python/", "aiohttp/", "httpx/", "scrapy/", "go-http-client/",
	"java/", "apache-httpclient/", "libwww-perl/", "lwp::", "php/", "guzzlehttp/", "node-fetch/", "axios/", "ruby", "zgrab/",
	"masscan/", "nikto/", "sqlmap/",
}

// add adds an observation.
func add(x *stage.Exchange, points uint8, code, detail string) {
	x.Visitor.Score = uint8(min(int(x.Visitor.Score)+int(points), maxScore))
	x.MarkDetail(name, code, detail)
}

// observe adds up what the request shows.
func (p *policy) observe(x *stage.Exchange) {
	in := x.In
	agent := in.Get(message.UserAgent)
	if len(agent) == 0 {
		add(x, scoreNoAgent, "no-agent", "no User-Agent: 40")
	} else if tool(agent) {
		add(x, scoreTool, "tool", "User-Agent of a tool: 35")
	} else if contains(agent, "headlesschrome") || contains(agent, "phantomjs") {
		add(x, scoreTool, "tool", "User-Agent of a browser that nobody sees: 35")
	}
	if t := tlsOf(in); t != nil && len(p.prints) > 0 && t.JA4 != "" && p.listed(t.JA4) {
		add(x, scorePrint, "fingerprint", "JA4 fingerprint that the document names: 50")
	}
	if len(agent) > 11 && string(agent[:11]) == "Mozilla/5.0" && !contains(agent, "compatible;") {
		browser(x, agent)
	}
}

// browser looks for what a browser of that name always sends.
func browser(x *stage.Exchange, agent []byte) {
	in := x.In
	if !in.Has(message.AcceptLanguage) {
		add(x, scoreNoLanguage, "no-language", "a browser without Accept-Language: 20")
	}
	if !in.Has(message.AcceptEncoding) {
		add(x, scoreNoEncoding, "no-encoding", "a browser without Accept-Encoding: 15")
	}
	if in.Proto == message.HTTP10 {
		add(x, scoreOldProtocol, "old-http", "a browser with HTTP/1.0: 25")
	}
	chrome := contains(agent, "chrome/")
	if in.Secure && !in.Has(message.SecFetchMode) && (chrome || contains(agent, "firefox/")) {
		add(x, scoreNoFetch, "no-fetch", "Chrome or Firefox over TLS without Sec-Fetch-Mode: 25")
	}
	if in.Secure && chrome && !in.Has(message.SecCHUA) && !contains(agent, "crios") {
		add(x, scoreNoHints, "no-hints", "Chrome over TLS without Sec-CH-UA: 10")
	}
	t := tlsOf(in)
	if t == nil {
		return
	}
	if t.Version != 0 && t.Version < 0x0304 {
		add(x, scoreOldTLS, "old-tls", "a browser with TLS 1.2: 20")
	}
	if len(t.JA4) > 10 && t.JA4[8:10] == "00" {
		add(x, scoreNoALPN, "no-alpn", "a browser that names no protocol in TLS: 20")
	}
}

func tlsOf(in *message.Request) *message.TLS {
	if in.Conn == nil {
		return nil
	}
	return in.Conn.TLS
}

func (p *policy) listed(ja4 string) bool {
	for _, f := range p.prints {
		if begin, any := strings.CutSuffix(f, "*"); any && strings.HasPrefix(ja4, begin) || f == ja4 {
			return true
		}
	}
	return false
}

func tool(agent []byte) bool {
	for _, t := range tools {
		if len(agent) >= len(t) && message.EqualFold(agent[:len(t)], t) {
			return true
		}
	}
	return false
}

// contains finds a word in lower case in a text in any case.
func contains(text []byte, word string) bool {
	for i := 0; i+len(word) <= len(text); i++ {
		if text[i]|0x20 == word[0]|0x20 && message.EqualFold(text[i:i+len(word)], word) {
			return true
		}
	}
	return false
}
