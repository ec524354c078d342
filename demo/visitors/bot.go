package visitors

import (
	"math/rand/v2"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
)

// Shape is how the sources of a flood behave.
type Shape string

const (
	// Farm is a few rented machines: some hundred addresses in a few networks, each fast, all with one script's
	// fields.
	Farm Shape = "farm"
	// Swarm is very many devices of others: each slow, with a browser's fields, some with cookies.
	Swarm Shape = "swarm"
	// Mimic is a swarm that also puts real things into real baskets, once each.
	Mimic Shape = "mimic"
)

// Hostile is a request of a flood. Fields are in the order of sending; their names are as over HTTP/1.1.
type Hostile struct {
	Method, Target string
	Fields         [][2]string
	Body           string
}

// AppendHTTP1 writes the request as HTTP/1.1.
func (h *Hostile) AppendHTTP1(b []byte) []byte {
	b = append(append(append(append(b, h.Method...), ' '), h.Target...), " HTTP/1.1\r\n"...)
	for _, f := range h.Fields {
		b = append(append(append(append(b, f[0]...), ": "...), f[1]...), "\r\n"...)
	}
	return append(append(b, "\r\n"...), h.Body...)
}

// Bot is one source of a flood. It belongs to one goroutine.
type Bot struct {
	Source  netip.Addr
	shape   Shape
	rng     *rand.Rand
	persona persona
	origin  origin
	cookies []*http.Cookie
	keeps   bool // cookies
	visited string
	basket  bool
}

// Bots makes the sources of a flood against host, with addresses from a network. Secure says that it speaks TLS.
func Bots(shape Shape, n int, network netip.Prefix, host string, secure bool, seed uint64) []*Bot {
	out := make([]*Bot, n)
	browsers, crawlers := browsers(), crawlers()
	rng := rand.New(rand.NewPCG(seed, uint64(len(shape))))
	for i := range out {
		b := &Bot{shape: shape, rng: rand.New(rand.NewPCG(seed, uint64(i))), origin: origin{scheme: "http", host: host, secure: secure}}
		if secure {
			b.origin.scheme = "https"
		}
		switch shape {
		case Farm:
			b.Source = at(network, uint32(i/64)<<8|uint32(i%64)+2)
			b.persona = pickPersona(crawlers[2:3], rng, "gzip, deflate")
		default:
			b.Source = at(network, uint32(i)*5+uint32(i%3)+1)
			b.persona = pickPersona(browsers, rng, "gzip, deflate")
			b.keeps = shape == Mimic || i%3 == 0
		}
		out[i] = b
	}
	return out
}

// at is the address that lies n after the first of an IPv4 network, wrapped at its end.
func at(p netip.Prefix, n uint32) netip.Addr {
	b := p.Masked().Addr().As4()
	base := uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])
	n &= 1<<(32-p.Bits()) - 1
	base |= n
	return netip.AddrFrom4([4]byte{byte(base >> 24), byte(base >> 16), byte(base >> 8), byte(base)})
}

// Next is the bot's next request: mostly a search for what nobody searched for, or a page with a parameter that
// makes it another page for caches.
func (b *Bot) Next() Hostile {
	r := request{method: "GET", kind: navigation, referer: b.visited}
	switch p := b.rng.Float64(); {
	case b.shape == Mimic && !b.basket && b.visited != "" && p < .2:
		r.method, r.target, r.kind = "POST", "/basket", submission
		r.form, r.media = "action=add&quantity=1&sku=LMP-0"+strconv.Itoa(100+b.rng.IntN(20)), "application/x-www-form-urlencoded"
		b.basket = true
	case p < .5:
		r.target = "/search?q=" + b.word() + "+" + b.word()
	case p < .7:
		r.target = "/c/" + []string{"lamps", "kitchen", "office"}[b.rng.IntN(3)] + "?" + b.word()[:2] + "=" + b.word()
	case p < .85:
		r.target = "/p/LMP-0" + strconv.Itoa(100+b.rng.IntN(20)) + "?" + b.word()[:3] + "=" + b.word()
	default:
		r.target = "/?" + b.word() + "=" + strconv.Itoa(b.rng.IntN(1e6))
	}
	if b.persona.engine == script {
		r.referer = ""
	}
	r.cookie = b.cookieField()
	b.visited, _, _ = strings.Cut(r.target, "?")
	h := Hostile{Method: r.method, Target: r.target, Body: r.form}
	for _, name := range b.persona.fields {
		if v := b.persona.field(name, &b.origin, &r); v != "" {
			h.Fields = append(h.Fields, [2]string{name, v})
		}
	}
	return h
}

// word is a word that was never asked for.
func (b *Bot) word() string {
	const letters = "abcdefghijklmnopqrstuvwxyz"
	w := make([]byte, 5+b.rng.IntN(5))
	for i := range w {
		w[i] = letters[b.rng.IntN(len(letters))]
	}
	return string(w)
}

// Learn takes the cookies of an answer, if the bot keeps any.
func (b *Bot) Learn(header http.Header) {
	if !b.keeps || len(header["Set-Cookie"]) == 0 {
		return
	}
	for _, c := range (&http.Response{Header: header}).Cookies() {
		kept := b.cookies[:0]
		for _, old := range b.cookies {
			if old.Name != c.Name {
				kept = append(kept, old)
			}
		}
		if b.cookies = kept; c.MaxAge >= 0 && len(kept) < maxCookies {
			b.cookies = append(kept, c)
		}
	}
}

func (b *Bot) cookieField() string {
	var out strings.Builder
	for i, c := range b.cookies {
		if i > 0 {
			out.WriteString("; ")
		}
		out.WriteString(c.Name + "=" + c.Value)
	}
	return out.String()
}
