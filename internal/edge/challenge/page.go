package challenge

import (
	"html"
	"strconv"
	"strings"

	"github.com/relais-edge/relais/internal/edge/notice"
	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/stage"
)

// state is why the page is shown.
type state uint8

const (
	stateNew   state = iota
	stateAgain       // what was sent did not hold
	stateEarly       // the button was pressed before its time
)

// sheet is what a page shows.
type sheet struct {
	text   []byte // of the puzzle
	effort int
	to     string
	state  state
	left   int // seconds until the button counts, of stateEarly
}

// worker looks for the numbers. It has SHA-256 of its own: that of WebCrypto answers each hash by way of the
// browser's event loop, which takes many times as long as the hash, and is not there without TLS. A try is one
// block, of which the seed's part is the same each time.
const worker = `onmessage=function(e){var seed=e.data.seed,bits=e.data.bits,K=[],H=[],n=2,i,j;function f(x){return(x-Math.floor(x))*4294967296|0}for(i=0;K.length<64;n++){for(j=2;j*j<=n&&n%j;j++);if(j*j>n){if(i<8)H[i]=f(Math.pow(n,1/2));K[i++]=f(Math.pow(n,1/3))}}
var W=new Int32Array(64),out=[];function top(len){var a=H[0],b=H[1],c=H[2],d=H[3],e=H[4],f=H[5],g=H[6],h=H[7],t,x,y,i;for(i=0;i<64;i++){if(i>15){x=W[i-15];y=W[i-2];W[i]=W[i-16]+W[i-7]+((x>>>7|x<<25)^(x>>>18|x<<14)^x>>>3)+((y>>>17|y<<15)^(y>>>19|y<<13)^y>>>10)|0}t=h+((e>>>6|e<<26)^(e>>>11|e<<21)^(e>>>25|e<<7))+(e&f^~e&g)+K[i]+W[i]|0;h=g;g=f;f=e;e=d+t|0;d=c;c=b;b=a;a=t+((b>>>2|b<<30)^(b>>>13|b<<19)^(b>>>22|b<<10))+(b&c^b&d^c&d)|0}return a+H[0]|0}
for(var part=0;part<8;part++){for(n=0;;n++){var s=seed+"."+part+"."+n,l=s.length;for(i=0;i<16;i++)W[i]=0;for(i=0;i<l;i++)W[i>>2]|=s.charCodeAt(i)<<24-(i&3)*8;W[l>>2]|=128<<24-(l&3)*8;W[15]=l*8;if(Math.clz32(top())>=bits){out.push(n);break}}postMessage({done:part+1})}postMessage({s:out.join("-")})}`

// script starts the worker, shows how far it is, and sends the form.
const script = `(function(){var f=document.forms[0],b=document.getElementById("bar"),s=document.getElementById("state"),d=f.dataset;document.getElementById("manual").hidden=true;document.getElementById("auto").hidden=false;try{var w=new Worker(URL.createObjectURL(new Blob([document.getElementById("worker").textContent])));w.onmessage=function(e){if(e.data.done){b.value=e.data.done;return}f.elements.s.value=e.data.s;s.textContent=d.ready;f.submit()};w.onerror=fail;w.postMessage({seed:d.seed,bits:+d.bits})}catch(e){fail()}function fail(){document.getElementById("manual").hidden=false;document.getElementById("auto").hidden=true}})();`

// page is the puzzle in the form that the visitor takes.
func (p *part) page(x *stage.Exchange, w sheet) *message.Response {
	r := &x.Response
	r.Reset()
	r.Status = 403
	r.AddString(message.CacheControl, "no-store")
	r.AddLine([]byte("Relais-Challenge"), []byte("required"))
	if w.state == stateEarly {
		r.AddInt(message.RetryAfter, int64(w.left))
	}
	s := string(seed(w.text))
	switch notice.FormFor(x.In) {
	case notice.HTML:
		nonce := notice.Nonce()
		r.AddString(message.ContentType, "text/html; charset=utf-8")
		r.AddString(message.ContentSecurityPolicy, notice.Policy(nonce))
		r.SetBytes(p.html(x, w, s, nonce))
	case notice.JSON:
		r.AddString(message.ContentType, "application/json")
		b := []byte(`{"challenge":"work","puzzle":"` + string(w.text) + `","seed":"` + s + `","parts":` + strconv.Itoa(Parts) +
			`,"bits":` + strconv.Itoa(w.effort-partBits) + `,"submit":"` + Path + `","header":"` + p.header + `","id":"` + x.ID.String() + "\"}\n")
		r.SetBytes(b)
	default:
		t := wordsFor(x)
		r.AddString(message.ContentType, "text/plain; charset=utf-8")
		r.SetBytes([]byte(t.title + "\n" + t.plain + "\n" + t.id + ": " + x.ID.String() + "\n"))
	}
	return r
}

func (p *part) html(x *stage.Exchange, w sheet, seed, nonce string) []byte {
	t := wordsFor(x)
	wait := strconv.FormatInt(p.wait, 10)
	state := ""
	switch w.state {
	case stateAgain:
		state = `<p role="alert">` + t.again + `</p>`
	case stateEarly:
		state = `<p role="alert">` + strings.Replace(t.early, "%d", strconv.Itoa(w.left), 1) + `</p>`
	}
	run := `<script nonce="` + nonce + `">` + script + `</script>`
	if w.state == stateEarly { // who presses the button runs no scripts, or was failed by them
		run = ""
	}
	body := `<p>` + t.why + `</p>` + state +
		`<form method="post" action="` + Path + `" data-seed="` + seed + `" data-bits="` + strconv.Itoa(w.effort-partBits) + `" data-ready="` + html.EscapeString(t.ready) + `">` +
		`<input type="hidden" name="p" value="` + string(w.text) + `"><input type="hidden" name="s" value=""><input type="hidden" name="to" value="` + html.EscapeString(w.to) + `">` +
		`<div id="auto" hidden><p id="state" role="status" aria-live="polite">` + t.working + `</p><progress id="bar" max="` + strconv.Itoa(Parts) + `" value="0" aria-label="` + html.EscapeString(t.progress) + `"></progress></div>` +
		`<div id="manual"><p>` + strings.Replace(t.manual, "%d", wait, 1) + `</p><p><button type="submit">` + t.button + `</button></p></div></form>` +
		`<script type="text/plain" id="worker" nonce="` + nonce + `">` + worker + `</script>` + run
	page := notice.Page{Lang: t.lang, Title: t.title, Body: body, Foot: t.id + ": <code>" + x.ID.String() + "</code>"}
	return page.Append(make([]byte, 0, 6<<10))
}

// words are a page's, in one language.
type words struct {
	lang, title, why, working, progress, ready, manual, button, again, early, plain, id string
}

func wordsFor(x *stage.Exchange) words {
	if notice.French(x.In) {
		return french
	}
	return english
}

var english = words{
	lang: "en", title: "One moment, please", id: "Request id",
	why:     "The site has unusually many requests just now. Your browser does a small calculation to show that you mean it. There is nothing for you to solve, and nothing about you is passed on.",
	working: "Your browser is calculating. This takes a moment.", progress: "How far the calculation is", ready: "Done. The page opens.",
	manual: "Without scripts: wait %d seconds, then press the button.", button: "Go on",
	again: "That did not work. Please try once more.", early: "That was too early. Please press the button again in %d seconds.",
	plain: "The site has unusually many requests just now. Ask with Accept: application/json for a puzzle that a program can solve.",
}

var french = words{
	lang: "fr", title: "Un instant, s’il vous plaît", id: "Identifiant de la requête",
	why:     "Le site reçoit en ce moment un nombre inhabituel de requêtes. Votre navigateur fait un petit calcul pour montrer que vous êtes bien là. Vous n’avez rien à résoudre et rien sur vous n’est transmis.",
	working: "Votre navigateur calcule. Cela prend un instant.", progress: "Avancement du calcul", ready: "C’est fait. La page s’ouvre.",
	manual: "Sans scripts : attendez %d secondes, puis appuyez sur le bouton.", button: "Continuer",
	again: "Cela n’a pas abouti. Essayez encore une fois.", early: "C’était trop tôt. Appuyez de nouveau dans %d secondes.",
	plain: "Le site reçoit en ce moment un nombre inhabituel de requêtes. Demandez avec Accept: application/json une énigme qu’un programme peut résoudre.",
}
