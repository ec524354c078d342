// Package traffic makes requests of a shop's visitors, on which the firewall's cost and the share that it proves
// clean are measured. They were written before the screen was tuned and do not change.
package traffic

import (
	"fmt"
	"math/rand/v2"
	"net/url"
	"strconv"
	"strings"

	"github.com/relais-edge/relais/internal/edge/waf/regression"
)

// browser is the head of a browser's page view; what varies is put in by Request.
var browser = [][2]string{
	{"Host", "www.shop.example"},
	{"User-Agent", "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0.0.0 Safari/537.36"},
	{"Accept", "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,*/*;q=0.8,application/signed-exchange;v=b3;q=0.7"},
	{"Accept-Language", "fr-FR,fr;q=0.9,en-US;q=0.8,en;q=0.7"},
	{"Accept-Encoding", "gzip, deflate, br, zstd"},
	{"Referer", "https://www.shop.example/search/telephonie?q=smartphone%205g&page=2"},
	{"Sec-Ch-Ua", `"Chromium";v="131", "Google Chrome";v="131", "Not_A Brand";v="24"`},
	{"Sec-Ch-Ua-Mobile", "?0"},
	{"Sec-Ch-Ua-Platform", `"Windows"`},
	{"Sec-Fetch-Dest", "document"},
	{"Sec-Fetch-Mode", "navigate"},
	{"Sec-Fetch-Site", "same-origin"},
	{"Sec-Fetch-User", "?1"},
	{"Upgrade-Insecure-Requests", "1"},
	{"Cache-Control", "max-age=0"},
	{"X-Forwarded-For", ""},
	{"Cookie", ""},
}

// Places in browser.
const (
	referer = 5
	cookie  = 16
)

// Hex is a text of n hexadecimal digits.
func Hex(r *rand.Rand, n int) string {
	b := make([]byte, n)
	for i := range b {
		b[i] = "0123456789abcdef"[r.IntN(16)]
	}
	return string(b)
}

// Request makes request n of a kind: page, a page view; fresh, one of which cookies, path, query and referer are all
// new; static; form, a POST; or json, a POST of 1 KB. Each has seventeen fields, those of a POST more, and eight
// cookies; identifiers do not repeat. The request's name is its kind.
func Request(kind string, n int) regression.Case {
	r := rand.New(rand.NewPCG(uint64(n), 20261123))
	q := regression.Case{Name: kind, Method: "GET", Proto: "HTTP/1.1"}
	for _, h := range browser {
		v := h[1]
		switch h[0] {
		case "X-Forwarded-For":
			v = fmt.Sprintf("203.0.113.%d", r.IntN(250))
		case "Accept":
			if kind == "json" || kind == "form" {
				v = "application/json, text/plain, */*"
			}
		case "Cookie":
			ga := r.IntN(1e9)
			v = fmt.Sprintf("_ga=GA1.2.%d.1764000000; _gid=GA1.2.%d.1764000000; session_id=%s; cart=eyJpdGVtcyI6W10sInYiOjN9; consent=analytics.1.ads.0; ab_test=variant-b; lang=fr; tracking=%s-1234-4abc-9def-%s",
				ga, ga+17, Hex(r, 32), Hex(r, 8), Hex(r, 12))
		}
		add(&q, h[0], v)
	}
	switch kind {
	case "page":
		q.Target = fmt.Sprintf("/telephonie/casque-audio/p-%d.html?ref=home&color=noir&utm_source=newsletter&utm_campaign=black-friday-2026", 1000000+r.IntN(8999999))
	case "fresh":
		fresh(&q, r)
	case "static":
		q.Target = "/assets/css/main.3f9a1c.min.css"
	case "form":
		post(&q, "/account/profile", "application/x-www-form-urlencoded", fmt.Sprintf("first_name=Jean&last_name=Dupont&email=jean.dupont%d%%40example.com&phone=06%08d&address=%d+rue+de+la+Paix&city=Paris&zip=75002&country=FR&comment=Merci+de+livrer+apres+18h%%2C+code+porte+A%d&csrf_token=%s",
			r.IntN(1e5), r.IntN(1e8), r.IntN(99), r.IntN(9999), Hex(r, 32)))
	case "json":
		post(&q, "/api/v1/orders", "application/json", order(r))
	}
	return q
}

func add(q *regression.Case, name, value string) {
	q.Fields = append(q.Fields, regression.Field{Name: name, Value: value})
}

func post(q *regression.Case, target, contentType, body string) {
	q.Method, q.Target, q.Body = "POST", target, body
	add(q, "Content-Type", contentType)
	add(q, "Origin", "https://www.shop.example")
	add(q, "Content-Length", strconv.Itoa(len(body)))
}

func fresh(q *regression.Case, r *rand.Rand) {
	q.Target = fmt.Sprintf("/%s/%s/p-%d.html?ref=%s&color=%s&utm_source=%s&utm_campaign=%s", Hex(r, 8), Hex(r, 12), r.IntN(1e7), Hex(r, 5), Hex(r, 5), Hex(r, 9), Hex(r, 12))
	q.Fields[referer].Value = fmt.Sprintf("https://www.shop.example/search/%s?q=%s&page=%d", Hex(r, 8), Hex(r, 8), r.IntN(50))
	q.Fields[cookie].Value = fmt.Sprintf("_ga=GA1.2.%d.%d; _gid=GA1.2.%d.%d; session_id=%s; cart=%s; consent=%s; ab_test=%s; lang=%s; tracking=%s-1234-4abc-9def-%s",
		r.IntN(1e9), r.IntN(1e9), r.IntN(1e9), r.IntN(1e9), Hex(r, 32), Hex(r, 32), Hex(r, 18), Hex(r, 9), Hex(r, 2), Hex(r, 8), Hex(r, 12))
}

func order(r *rand.Rand) string {
	var b strings.Builder
	b.WriteString(`{"order":{"customer":{"first_name":"Jean","last_name":"Dupont","email":"jean.dupont@example.com","phone":"+33123456789","address":{"street":"12 rue de la Paix","city":"Paris","zip":"75002","country":"FR"}},"items":[`)
	for i := range 6 {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, `{"sku":"SKU-%05d","name":"Casque audio sans fil modele %d","qty":%d,"price":%d.99,"currency":"EUR","options":{"color":"noir"}}`, r.IntN(99999), r.IntN(50), i+1, 20+r.IntN(80))
	}
	fmt.Fprintf(&b, `],"payment":{"method":"card","token":"tok_%s"},"note":"Merci de livrer apres 18h"}}`, Hex(r, 24))
	return b.String()
}

var products = strings.Split("téléviseur 4K|crème hydratante|café moulu bio|machine à laver|étagère d'angle|vélo électrique|robe d'été & sandales|L'Oréal Paris|jeu PS5 (édition limitée)|câble USB-C 2m|lit 140x190 + matelas|pâte à modeler|Nescafé Dolce Gusto|ampoule LED E27 10W|sac à dos 20 litres|prix moins de 50€|chaussure 42/43|BBQ à gaz|M. & Mme Noël|Größe für Mädchen", "|")

var streets = strings.Split("12 bis rue de l'Église|3, allée des Cerisiers – Bât. C|Lieu-dit « Le Bourg »|45 av. du Général-de-Gaulle|1 place d'Armes, 2e étage|Résidence L'Orée du Bois, appt 12|Königstraße 7", "|")

// Shop makes n requests of a shop in French and German: searches, filters, tracking, addresses, carts, returns to a
// page, consent, images. The name of each is its kind.
func Shop(n int) (out []regression.Case) {
	r := rand.New(rand.NewPCG(7, 7))
	for i := range n {
		q := Request("page", i)
		p, st := products[r.IntN(len(products))], streets[r.IntN(len(streets))]
		body := func(target, contentType, body string) {
			q.Method, q.Target, q.Body = "POST", target, body
			add(&q, "Content-Type", contentType)
			add(&q, "Content-Length", strconv.Itoa(len(body)))
		}
		switch i % 8 {
		case 0:
			q.Name, q.Target = "search", fmt.Sprintf("/search?q=%s&page=%d&sort=price_asc", url.QueryEscape(p), r.IntN(9))
		case 1:
			q.Name, q.Target = "filters", fmt.Sprintf("/c/telephonie?filter%%5Bbrand%%5D=%s&filter%%5Bprice%%5D=%d-%d&attr[color]=noir", url.QueryEscape(p), r.IntN(50), 100+r.IntN(900))
		case 2:
			q.Name, q.Target = "tracking", fmt.Sprintf("/p-%d.html?gclid=Cj0KCQjw%s&fbclid=IwAR0%s_aem-%s&utm_content=%s", r.IntN(1e6), Hex(r, 30), Hex(r, 20), Hex(r, 10), url.QueryEscape(p))
		case 3:
			q.Name = "address"
			body("/checkout/address", "application/x-www-form-urlencoded", url.Values{"name": {"Noël D'Arc"}, "street": {st}, "zip": {"33000"}, "city": {"Saint-Étienne-du-Rouvray"}, "tel": {"+33 6 12 34 56 78"}, "comment": {"Sonner deux fois, code A12, merci !"}}.Encode())
		case 4:
			q.Name = "cart"
			body("/api/v1/cart", "application/json", fmt.Sprintf(`{"items":[{"sku":"A-%d","label":%q,"qty":%d,"price":%d.90},{"sku":"B-%d","label":%q,"qty":1,"price":5}],"address":%q,"coupon":null,"gift":true}`, r.IntN(1e5), p, 1+r.IntN(4), r.IntN(300), r.IntN(1e5), products[r.IntN(len(products))], st))
		case 5:
			q.Name, q.Target = "back", fmt.Sprintf("/login?return=%s", url.QueryEscape(fmt.Sprintf("/compte/commandes?id=%d&from=mail", r.IntN(1e6))))
		case 6:
			q.Name, q.Target = "consent", "/panier"
			q.Fields[cookie].Value += "; OptanonConsent=isGpcEnabled=0&datestamp=Tue+Nov+24+2026+10%3A11%3A12+GMT%2B0100&version=6.33.0"
		case 7:
			q.Name, q.Target = "image", fmt.Sprintf("/i/%d/%s.jpg?w=640&h=480&fm=webp", r.IntN(1e7), Hex(r, 8))
		}
		out = append(out, q)
	}
	return out
}
