package waf

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/url"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/relais-edge/relais/internal/edge/waf/regression"
)

var (
	update = flag.Bool("update", false, "write the corpus of hard benign requests anew")
	whole  = flag.Bool("whole", false, "use every regression test, not a part of them")
)

// Words of real shops that look like something else to a firewall, and ordinary ones.
var (
	plainNames = strings.Split("téléviseur 4K 55 pouces|crème hydratante visage|café moulu bio 1 kg|machine à laver 8 kg|étagère d'angle chêne|vélo électrique femme|robe d'été en lin|L'Oréal Paris Elsève|jeu PS5 édition limitée|câble USB-C 2 m|matelas 140x190|pâte à modeler|Nescafé Dolce Gusto|ampoule LED E27 10W|sac à dos 20 litres|chaussure de randonnée 42|barbecue à gaz|Größe für Mädchen|Kühlschrank mit Gefrierfach|chargeur 65 W|oreiller à mémoire de forme|poêle en fonte 28 cm|tapis berbère 160x230|coque pour téléphone", "|")
	hardNames  = strings.Split("Tom & Jerry: select from 12 figures; drop 2|Union Jack mug or 1=1 joke shirt|The Art of SQL: SELECT * FROM books|1' x 2' wall board|6\" or 8\" chef knife|Rock 'n' Roll or 'Blues' CD|<3 sticker set|Learn <script> tags, a poster|Bash cookbook: cat /etc/passwd explained|Linux for beginners; ls -la|Powershell & cmd.exe in 24 hours|Java: java.lang.Runtime in practice|rm -rf / t-shirt|mug '); DROP TABLE students;--|PHP <?php echo 'hi'; ?> mug|10 or more' off -- sale|AND 1=1 logic game|sleep(8) pillow|C:\\Windows\\system32 poster|../../etc lamp|onload=lamp() design|${jndi} sticker|select 1, union all select 2 game", "|")
	comments   = strings.Split("Merci de livrer après 18 h, code A1234|Bâtiment C, 2e étage; interphone \"Noël\"|Laisser au voisin (M. D'Arc) -- merci|Call me first: 06 12 34 56 78|Geschenk für Oma; bitte nicht klingeln!|Gate code is #45*; ring twice|l'appartement 3 & la cave|Chez \"O'Brien\" or 'Smith' = same door|if not home; ask at no. 7|cave n°2, porte = gauche|leave with cat sitter; echo in the hall|5 > 3 boxes, ok?", "|")
	reviews    = strings.Split("Très bon produit, je recommande.|Taille petit; prendre au-dessus.|Works well, 10/10 or better!|I'd select this from any table of gifts, and drop the others|It's good -- but don't expect miracles|Qualité/prix imbattable (50% de réduction)|Écran: 4 > 3, son: 2 < 3|He said 'wow' and 'wow' = 'wow'|Delivery was late; exec summary: ok|Passt wie angegossen, gerne wieder!|the <b>best</b> lamp ever|if(you) { buy(it); } haha", "|")
	firstNames = strings.Split("Noël|Zoë|Jean-François|Siân|Mc'Kay|Aïcha|Jürgen|Anne-Sophie", "|")
	lastNames  = strings.Split("D'Arc|O'Brien|Lefèvre|de la Tour|Müller|N'Guyen|L'Hôte|Dupont", "|")
	streets    = strings.Split("12 bis rue de l'Église|3, allée des Cerisiers – Bât. C|Lieu-dit « Le Bourg »|45 av. du Général-de-Gaulle|1 place d'Armes; 2e étage|Résidence L'Orée du Bois, appt 12|Königstraße 7", "|")
)

// benignCorpus makes n requests of shoppers, a good part of them hard. What it made once with
// seed 1 is kept in testdata.
func benignCorpus(seed uint64, n int) (out []regression.Case) {
	r := rand.New(rand.NewPCG(seed, 20261123))
	pick := func(list []string) string { return list[r.IntN(len(list))] }
	name := func() string {
		if r.IntN(5) == 0 {
			return pick(hardNames)
		}
		return pick(plainNames)
	}
	text := func(list []string) string { return pick(list) }
	token := func(n int) string {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(r.IntN(256))
		}
		return base64.StdEncoding.EncodeToString(b)
	}
	for i := range n {
		q := regression.Case{Method: "GET", Proto: "HTTP/1.1"}
		b := browser()
		for k := 0; k < len(b); k += 2 {
			q.Fields = append(q.Fields, regression.Field{Name: b[k], Value: b[k+1]})
		}
		post := func(target, kind, body string) {
			q.Method, q.Target, q.Body = "POST", target, body
			q.Fields = append(q.Fields, regression.Field{Name: "Content-Type", Value: kind}, regression.Field{Name: "Content-Length", Value: strconv.Itoa(len(body))})
		}
		switch i % 10 {
		case 0, 1:
			q.Target = "/search?" + url.Values{"q": {name()}, "sort": {"price_asc"}, "page": {strconv.Itoa(r.IntN(9))}}.Encode()
		case 2:
			q.Target = "/c/telephonie?" + url.Values{"brand": {pick(plainNames)}, "price": {fmt.Sprintf("%d-%d", r.IntN(50), 100+r.IntN(900))}, "attr[color]": {"noir"}}.Encode()
		case 3:
			post("/checkout/address", form, url.Values{
				"first": {pick(firstNames)}, "last": {pick(lastNames)}, "street": {pick(streets)}, "zip": {strconv.Itoa(10000 + r.IntN(80000))},
				"city": {"Saint-Étienne-du-Rouvray"}, "comment": {text(comments)},
			}.Encode())
		case 4:
			q2, _ := json.Marshal(map[string]any{"items": []any{
				map[string]any{"sku": fmt.Sprintf("A-%d", r.IntN(1e5)), "label": name(), "qty": 1 + r.IntN(4)},
				map[string]any{"sku": fmt.Sprintf("B-%d", r.IntN(1e5)), "label": pick(plainNames), "qty": 1},
			}, "note": text(comments), "coupon": nil})
			post("/api/cart", jsonType, string(q2))
		case 5:
			post("/review", form, url.Values{"product": {strconv.Itoa(r.IntN(1e6))}, "title": {name()}, "text": {text(reviews)}, "stars": {"5"}}.Encode())
		case 6:
			q.Target = "/p/" + strconv.Itoa(r.IntN(1e6)) + "?" + url.Values{"state": {token(24 + r.IntN(40))}, "gclid": {"Cj0KCQjw" + token(24)}}.Encode()
		case 7:
			for k := range q.Fields {
				if q.Fields[k].Name == "Cookie" {
					q.Fields[k].Value += "; seen=" + url.QueryEscape(fmt.Sprintf(`[{"id":%d,"n":%q}]`, r.IntN(1e6), name())) + "; blob=" + url.QueryEscape(token(30))
				}
			}
			q.Target = "/basket"
		case 8:
			post("/photo", "multipart/form-data; boundary=----WebKitFormBoundary7MA4YWxk", fmt.Sprintf(
				"------WebKitFormBoundary7MA4YWxk\r\nContent-Disposition: form-data; name=\"caption\"\r\n\r\n%s\r\n------WebKitFormBoundary7MA4YWxk\r\nContent-Disposition: form-data; name=\"file\"; filename=\"photo %d.jpg\"\r\nContent-Type: image/jpeg\r\n\r\n%s\r\n------WebKitFormBoundary7MA4YWxk--\r\n",
				text(reviews), r.IntN(100), "\xff\xd8\xff\xe0"+token(60)))
		case 9:
			q.Target = "/login?" + url.Values{"return": {fmt.Sprintf("/compte/commandes?id=%d&from=mail", r.IntN(1e6))}, "hint": {fmt.Sprintf("%s.%s@example.com", strings.ToLower(pick(plainNames)[:3]), "dupont")}}.Encode()
		}
		out = append(out, q)
	}
	return out
}

const benignFile = "testdata/benign.jsonl"

// benign is a kept request: what is not in it is the browser's.
type benign struct {
	Method, Target, Cookie, Type string `json:",omitempty"`
	Body                         []byte `json:",omitempty"` // in base64: uploads are no text
}

// frozenBenign reads the kept corpus.
func frozenBenign(t testing.TB) (out []regression.Case) {
	t.Helper()
	if *update {
		var b bytes.Buffer
		enc := json.NewEncoder(&b)
		enc.SetEscapeHTML(false)
		for _, q := range benignCorpus(1, 400) {
			k := benign{Method: q.Method, Target: q.Target, Body: []byte(q.Body)}
			for _, f := range q.Fields {
				switch f.Name {
				case "Cookie":
					k.Cookie = f.Value
				case "Content-Type":
					k.Type = f.Value
				}
			}
			if err := enc.Encode(k); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.WriteFile(benignFile, b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	raw, err := os.ReadFile(benignFile)
	if err != nil {
		t.Fatal(err)
	}
	for line := range bytes.Lines(raw) {
		var k benign
		if err := json.Unmarshal(line, &k); err != nil {
			t.Fatal(err)
		}
		q := regression.Case{Method: k.Method, Target: k.Target, Proto: "HTTP/1.1", Body: string(k.Body)}
		b := browser()
		for i := 0; i < len(b); i += 2 {
			if b[i] == "Cookie" {
				b[i+1] = k.Cookie
			}
			q.Fields = append(q.Fields, regression.Field{Name: b[i], Value: b[i+1]})
		}
		if k.Type != "" {
			q.Fields = append(q.Fields, regression.Field{Name: "Content-Type", Value: k.Type}, regression.Field{Name: "Content-Length", Value: strconv.Itoa(len(k.Body))})
		}
		out = append(out, q)
	}
	return out
}
