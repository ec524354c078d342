package edge

import (
	"bytes"
	"html"
	"net/http"
	"strconv"
	"time"

	"github.com/relais-edge/relais/internal/edge/maintenance"
	"github.com/relais-edge/relais/internal/edge/notice"
	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/stage"
)

// page turns an error into an answer. It is the only place that does.
func page(x *stage.Exchange, e *stage.Error) *message.Response {
	resp := &x.Response
	resp.Reset()
	fill(resp, x.In, late(x, e), x.ID)
	if x.Full != "" && registered(e.Code) {
		resp.Set(message.ProxyStatus, []byte(proxyStatus(e)+`; details="full=`+x.Full+`"`))
	}
	if own := mannersFor(x).page(e); own != nil {
		own.put(resp, x, e)
	}
	return resp
}

// put gives the page the site's own content, in the form that the edge's would have.
func (c *contents) put(resp *message.Response, x *stage.Exchange, e *stage.Error) {
	switch f := notice.FormFor(x.In); {
	case f == notice.HTML && c.html != nil:
		resp.SetBytes(expand(c.html, x, e, escapeHTML))
	case f == notice.JSON && c.json != nil:
		resp.Set(message.ContentType, []byte("application/json"))
		resp.SetBytes(expand(c.json, x, e, escapeJSON))
	case f == notice.Text && c.text != nil:
		resp.SetBytes(expand(c.text, x, e, escapeNothing))
	}
}

// refusal is the answer to bytes that could not be read as a request.
func refusal(id stage.RequestID, status int) *message.Response {
	resp := &message.Response{}
	fill(resp, nil, &stage.Error{Code: "http_request_error", Side: stage.SideClient, Status: status, Close: true}, id)
	resp.AddString(message.XRequestId, id.String())
	resp.AddString(message.Date, time.Now().UTC().Format(http.TimeFormat))
	return resp
}

// fill writes the page in the form that the visitor takes: HTML, a problem document
// (RFC 9457) or plain text.
func fill(resp *message.Response, in *message.Request, e *stage.Error, id stage.RequestID) {
	resp.Status = e.Status
	resp.AddString(message.CacheControl, "no-store")
	resp.AddString(message.ProxyStatus, proxyStatus(e))
	if e.RetryAfter > 0 {
		resp.AddInt(message.RetryAfter, int64((e.RetryAfter+time.Second-1)/time.Second))
	}
	if e.Close {
		resp.AddString(message.Connection, "close")
	}
	if e.Fields != nil {
		for i := range e.Fields.Len() {
			_, name, value := e.Fields.At(i)
			resp.AddLine(name, value)
		}
	}
	words := wordsFor(in, e)
	if in != nil && in.Proto >= message.HTTP2 && message.IsGRPC(&in.Fields) {
		fillGRPC(resp, words, e, id)
		return
	}
	var b bytes.Buffer
	switch notice.FormFor(in) {
	case notice.HTML:
		resp.AddString(message.ContentType, "text/html; charset=utf-8")
		writeHTML(&b, words, e, id)
	case notice.JSON:
		resp.AddString(message.ContentType, "application/problem+json")
		b.WriteString(`{"type":"about:blank","title":` + strconv.Quote(words.title) + `,"status":` + strconv.Itoa(e.Status) +
			`,"code":"` + e.Code + `","id":"` + id.String() + "\"}\n")
	default:
		resp.AddString(message.ContentType, "text/plain; charset=utf-8")
		b.WriteString(strconv.Itoa(e.Status) + " " + words.title + "\n" + words.text + "\n" + words.id + ": " + id.String() + "\n")
	}
	resp.SetBytes(b.Bytes())
}

func writeHTML(b *bytes.Buffer, w words, e *stage.Error, id stage.RequestID) {
	b.WriteString(`<!doctype html><html lang="` + w.lang + `"><meta charset="utf-8"><meta name="viewport" content="width=device-width"><meta name="robots" content="noindex"><title>`)
	b.WriteString(html.EscapeString(w.title))
	b.WriteString(`</title><style>body{font:1.1rem/1.6 system-ui,sans-serif;max-width:34rem;margin:14vh auto;padding:0 1.2rem;color:#1d2330;background:#fafaf8}h1{font-size:1.6rem;margin:0 0 .6rem}small{color:#5c6473}code{font-size:1rem;user-select:all}@media(prefers-color-scheme:dark){body{color:#e7e9ee;background:#15181e}small{color:#9aa3b2}}</style><main><h1>`)
	b.WriteString(html.EscapeString(w.title))
	b.WriteString("</h1><p>")
	b.WriteString(html.EscapeString(w.text))
	b.WriteString("</p><small>" + w.id + ": <code>" + id.String() + "</code> · " + strconv.Itoa(e.Status) + "</small></main></html>\n")
}

// proxyStatus is our member of Proxy-Status (RFC 9209).
func proxyStatus(e *stage.Error) string {
	if registered(e.Code) {
		return "relais; error=" + e.Code
	}
	return `relais; error=proxy_internal_response; details="` + e.Code + `"`
}

// registered says whether a code is a Proxy Error Type of RFC 9209 section 2.3.
func registered(code string) bool {
	switch code {
	case "dns_timeout", "dns_error", "destination_not_found", "destination_unavailable", "destination_ip_prohibited",
		"destination_ip_unroutable", "connection_refused", "connection_terminated", "connection_timeout",
		"connection_read_timeout", "connection_write_timeout", "connection_limit_reached", "tls_protocol_error",
		"tls_certificate_error", "tls_alert_received", "http_request_error", "http_request_denied",
		"http_response_incomplete", "http_response_header_section_size", "http_response_header_size",
		"http_response_body_size", "http_response_trailer_section_size", "http_response_trailer_size",
		"http_response_transfer_coding", "http_response_content_coding", "http_response_timeout",
		"http_upgrade_failed", "http_protocol_error", "proxy_internal_response", "proxy_internal_error",
		"proxy_configuration_error", "proxy_loop_detected":
		return true
	}
	return false
}

type words struct{ lang, title, text, id string }

// wordsFor says it in English or French, as the visitor prefers.
func wordsFor(in *message.Request, e *stage.Error) words {
	french := notice.French(in)
	kind := "other"
	switch {
	case e.Code == "site_not_found":
		kind = "site"
	case e.Code == maintenance.Code:
		kind = "closed"
	case e.Status == 401:
		kind = "signin"
	case e.Status == 403:
		kind = "denied"
	case e.Status == 404:
		kind = "missing"
	case e.Status == 429:
		kind = "limited"
	case e.Status == 408:
		kind = "slow"
	case e.Status == 413, e.Status == 414, e.Status == 431:
		kind = "large"
	case e.Code == "http_request_denied" && e.Status < 500: // a rule of the site, not HTTP
		kind = "denied"
	case e.Status >= 400 && e.Status < 500:
		kind = "request"
	case e.Status == 501:
		kind = "method"
	case e.Status == 505:
		kind = "request"
	case e.Status == 503:
		kind = "busy"
	case e.Status >= 502:
		kind = "origin"
	}
	t := englishWords[kind]
	w := words{"en", t[0], t[1], "Request id"}
	if french {
		t = frenchWords[kind]
		w = words{"fr", t[0], t[1], "Identifiant de la requête"}
	}
	return w
}

var englishWords = map[string][2]string{
	"site":    {"No such site here", "This address is not known to this server."},
	"denied":  {"Request blocked", "The protection of this site refused the request. If you did nothing unusual, give the site's owner the id below: it says why."},
	"signin":  {"Please sign in", "This address is for those who have signed in, and the sign-in is missing or no longer valid."},
	"closed":  {"Back soon", "This site is being worked on. Please come back in a little while."},
	"missing": {"Page not found", "There is nothing at this address."},
	"limited": {"Too many requests", "Please wait a moment and try again. Your basket is kept."},
	"request": {"Request not understood", "The request is not valid HTTP for this server."},
	"slow":    {"Request too slow", "The rest of the request did not come in time. Please try again."},
	"large":   {"Request too large", "The request is larger than this server takes."},
	"method":  {"Method not supported", "This server does not do what the request asks for."},
	"busy":    {"Very busy just now", "The site has more visitors than it can take. Please try again in a moment. Your basket is kept."},
	"origin":  {"The site does not answer", "The server of this site failed to answer. Please try again in a moment."},
	"other":   {"Something went wrong", "This is our fault, not yours. Please try again in a moment."},
}

var frenchWords = map[string][2]string{
	"site":    {"Site inconnu", "Cette adresse n’est pas connue de ce serveur."},
	"denied":  {"Requête bloquée", "La protection de ce site a refusé la requête. Si vous n’avez rien fait d’inhabituel, donnez au propriétaire du site l’identifiant ci-dessous : il dit pourquoi."},
	"signin":  {"Connectez-vous", "Cette adresse est réservée aux personnes connectées ; la connexion manque ou n’est plus valable."},
	"closed":  {"De retour bientôt", "Ce site est en maintenance. Revenez dans un petit moment."},
	"missing": {"Page introuvable", "Il n’y a rien à cette adresse."},
	"limited": {"Trop de requêtes", "Patientez un instant puis réessayez. Votre panier est conservé."},
	"request": {"Requête incomprise", "La requête n’est pas du HTTP valable pour ce serveur."},
	"slow":    {"Requête trop lente", "La suite de la requête n’est pas arrivée à temps. Réessayez."},
	"large":   {"Requête trop grande", "La requête est plus grande que ce que ce serveur accepte."},
	"method":  {"Méthode non prise en charge", "Ce serveur ne fait pas ce que la requête demande."},
	"busy":    {"Beaucoup de monde en ce moment", "Le site reçoit plus de visiteurs qu’il n’en peut servir. Réessayez dans un instant. Votre panier est conservé."},
	"origin":  {"Le site ne répond pas", "Le serveur de ce site n’a pas répondu. Réessayez dans un instant."},
	"other":   {"Un incident s’est produit", "C’est de notre fait, pas du vôtre. Réessayez dans un instant."},
}
