package waitroom

import (
	"html"
	"strconv"
	"strings"
	"time"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/edge/notice"
	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/stage"
)

// view is what a page shows.
type view struct {
	position uint64        // 0: the visitor was called, or has no place
	wait     time.Duration // less than 0 when nobody knows
	refresh  int           // seconds until the page asks again
	ticket   bool          // the visitor has a place
}

// pages are a tenant's own.
type pages struct{ html, json, text []v1.Segment }

func compilePages(p *v1.Page) pages {
	return pages{v1.Template(p.HTML), v1.Template(p.JSON), v1.Template(p.Text)}
}

// Bounds of when a page asks again, in seconds.
const (
	soonest  = 2
	latest   = 120
	pollLoad = 1000 // pages a second that those who wait ask for together, at most
)

// next is when a page asks again: soon near the front, and never so often that the line itself is a flood.
func (p *policy) next(wait time.Duration, waiting uint64, called bool) int {
	n := p.refresh
	if wait >= 0 {
		n = min(n, max(soonest, int(wait.Seconds()/3)))
	}
	if called {
		n = soonest + 1
	}
	if crowd := int(waiting / pollLoad); wait < 0 || wait > time.Minute {
		n = max(n, crowd)
	}
	return min(max(n, soonest), latest)
}

// page is the answer to one who waits.
func (p *policy) page(x *stage.Exchange, v *visit, w view) *message.Response {
	r := &x.Response
	r.Reset()
	r.Status = 503
	r.AddString(message.CacheControl, "no-store")
	r.AddInt(message.RetryAfter, int64(w.refresh))
	r.AddLine([]byte("Relais-Room"), strconv.AppendUint([]byte("waiting; position="), w.position, 10))
	if w.ticket {
		life := int64(placeLife)
		if v.kind == kindPass {
			life = max(1, int64(v.expires)-p.clock.Unix(x.Start))
		}
		p.write(x, &r.Fields, &v.ticket, v.asked, life)
	}
	var b []byte
	switch notice.FormFor(x.In) {
	case notice.HTML:
		r.AddString(message.ContentType, "text/html; charset=utf-8")
		if p.pages.html != nil {
			// The tenant's page may hold no refresh of its own: the field does it for every browser.
			r.AddLine([]byte("Refresh"), strconv.AppendInt(nil, int64(w.refresh), 10))
			b = expand(p.pages.html, x, w, html.EscapeString)
			break
		}
		nonce := notice.Nonce()
		r.AddString(message.ContentSecurityPolicy, notice.Policy(nonce))
		b = writeHTML(x, w, nonce)
	case notice.JSON:
		r.AddString(message.ContentType, "application/json")
		if b = expand(p.pages.json, x, w, plain); b == nil {
			b = writeJSON(x, w)
		}
	default:
		r.AddString(message.ContentType, "text/plain; charset=utf-8")
		if b = expand(p.pages.text, x, w, plain); b == nil {
			t := wordsFor(x)
			b = append(b, t.title+"\n"+t.say(w)+"\n"+t.id+": "+x.ID.String()+"\n"...)
		}
	}
	r.SetBytes(b)
	return r
}

func plain(s string) string { return s }

// expand writes a tenant's form with its variables.
func expand(segments []v1.Segment, x *stage.Exchange, w view, esc func(string) string) []byte {
	var out []byte
	for i := range segments {
		switch segments[i].Variable {
		case v1.VarRequestID:
			out = append(out, x.ID.String()...)
		case v1.VarRequestHost:
			out = append(out, esc(string(x.Host))...)
		case v1.VarResponseStatus:
			out = append(out, "503"...)
		case v1.VarRoomPosition:
			out = strconv.AppendUint(out, w.position, 10)
		case v1.VarRoomWait:
			if w.wait >= 0 {
				out = strconv.AppendInt(out, int64(w.wait.Seconds()+0.5), 10)
			}
		case v1.VarRoomRefresh:
			out = strconv.AppendInt(out, int64(w.refresh), 10)
		case "":
			out = append(out, segments[i].Text...)
		default: // a variable of header values only: as it was written
			out = append(append(append(out, "${"...), segments[i].Variable...), '}')
		}
	}
	return out
}

func writeJSON(x *stage.Exchange, w view) []byte {
	b := []byte(`{"room":"waiting","position":`)
	b = strconv.AppendUint(b, w.position, 10)
	b = append(b, `,"wait":`...)
	if w.wait < 0 {
		b = append(b, "null"...)
	} else {
		b = strconv.AppendInt(b, int64(w.wait.Seconds()+0.5), 10)
	}
	b = append(b, `,"retryAfter":`...)
	b = strconv.AppendInt(b, int64(w.refresh), 10)
	b = append(b, `,"text":`...)
	b = notice.Quote(b, wordsFor(x).say(w))
	b = append(b, `,"id":"`...)
	b = append(b, x.ID.String()...)
	return append(b, "\"}\n"...)
}

// script asks for the place without loading the page anew, so that who hears the page is told what changed and
// nothing else. Without scripts the page loads itself.
const script = `(function(){var s=document.getElementById("state"),n=document.getElementById("place"),t=%REFRESH%;function again(){setTimeout(ask,t*1000*(0.9+Math.random()*0.2))}function ask(){fetch(location.href,{headers:{Accept:"application/json"},credentials:"same-origin",cache:"no-store"}).then(function(r){if(r.headers.get("Relais-Room")===null){location.reload();return}return r.json().then(function(j){if(s.textContent!==j.text)s.textContent=j.text;if(n)n.textContent=j.position||"";t=Math.max(2,j.retryAfter||t);again()})}).catch(again)}again()})();`

func writeHTML(x *stage.Exchange, w view, nonce string) []byte {
	t := wordsFor(x)
	refresh := strconv.Itoa(w.refresh)
	// A request that changes something is not repeated by itself.
	safe := x.In.Method.Safe()
	head, foot := "", ""
	if safe {
		head = `<noscript><meta http-equiv="refresh" content="` + refresh + `"></noscript>`
	}
	body := ""
	if w.position > 0 {
		body = `<p>` + t.place + ` <strong class="n" id="place">` + strconv.FormatUint(w.position, 10) + `</strong></p>`
	}
	body += `<p id="state" role="status" aria-live="polite">` + html.EscapeString(t.say(w)) + `</p><p>` + t.keep + `</p>`
	if safe {
		body += `<p><a href="">` + t.now + `</a></p>`
		foot = `<script nonce="` + nonce + `">` + strings.Replace(script, "%REFRESH%", refresh, 1) + `</script>`
	} else {
		body += `<p>` + t.form + `</p>`
	}
	p := notice.Page{Lang: t.lang, Title: t.title, Head: head, Body: body, Foot: t.id + ": <code>" + x.ID.String() + "</code>" + foot}
	return p.Append(make([]byte, 0, 4096))
}

// words are a page's, in one language.
type words struct {
	lang, title, place, keep, now, form, id string
	called, unknown, capped                 string
	seconds, minutes                        string
}

func wordsFor(x *stage.Exchange) words {
	if notice.French(x.In) {
		return french
	}
	return english
}

var english = words{
	lang: "en", title: "You are in the line", place: "Your place:", now: "Ask now", id: "Request id",
	keep:   "The page asks by itself. You keep your place if you close it and come back within the hour.",
	form:   "What you sent was not taken. Please send it again from the page before, in a moment.",
	called: "It is your turn. The site opens in a moment.", unknown: "The line has just begun; how long it takes is known in a moment.",
	capped:  "Very many visitors come from your network. Please try again in a minute.",
	seconds: "Less than a minute to go.", minutes: "About %d minutes to go.",
}

var french = words{
	lang: "fr", title: "Vous êtes dans la file d’attente", place: "Votre place :", now: "Demander maintenant", id: "Identifiant de la requête",
	keep:   "La page s’actualise d’elle-même. Votre place est gardée si vous la fermez et revenez dans l’heure.",
	form:   "Votre envoi n’a pas été pris. Renvoyez-le dans un instant depuis la page précédente.",
	called: "C’est votre tour. Le site s’ouvre dans un instant.", unknown: "La file vient de commencer ; la durée sera connue dans un instant.",
	capped:  "De très nombreux visiteurs viennent de votre réseau. Réessayez dans une minute.",
	seconds: "Moins d’une minute d’attente.", minutes: "Environ %d minutes d’attente.",
}

// say is the one sentence that changes.
func (t words) say(w view) string {
	switch {
	case !w.ticket:
		return t.capped
	case w.position == 0:
		return t.called
	case w.wait < 0:
		return t.unknown
	case w.wait < time.Minute:
		return t.seconds
	}
	return strings.Replace(t.minutes, "%d", strconv.Itoa(int((w.wait+time.Minute-1)/time.Minute)), 1)
}
