package screen

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/corazawaf/coraza/v3"
)

var made = flag.Int("made", 800, "how many made requests the screen and the engine are compared on")

// mutator makes requests of a shop that hold pieces of attacks, changed in ways that encodings,
// case and comments allow.
type mutator struct {
	r    *rand.Rand
	reqs []crsRequest
}

func (m *mutator) piece() string {
	src := &m.reqs[m.r.IntN(len(m.reqs))].req
	p := string(src.Body)
	if p == "" || m.r.IntN(3) == 0 {
		p = string(src.Target)
	}
	if m.r.IntN(6) == 0 && len(src.Fields) > 0 {
		p = string(src.Fields[m.r.IntN(len(src.Fields))].Value)
	}
	if u, err := url.QueryUnescape(p); err == nil && m.r.IntN(2) == 0 {
		p = u
	}
	if len(p) > 4 {
		a := m.r.IntN(len(p) - 2)
		p = p[a:min(len(p), a+2+m.r.IntN(24))]
	}
	odd := []string{"İ", "\u212a", "ſ", "\x00", "\xbc", "%00", "%u0069", "&#x69;", "\\u0069", "/**/", "é", "\xa0", "\u0085", "+", "//", "\\x69", "`", "\n", "\v", "%uff1c", "&lt", "=", "1", "'", " "}
	for range m.r.IntN(3) {
		i := m.r.IntN(len(p) + 1)
		p = p[:i] + odd[m.r.IntN(len(odd))] + p[i:]
	}
	if m.r.IntN(4) == 0 {
		p = strings.ToUpper(p)
	}
	return p
}

// lean is a request with no more fields than the rules ask for, which costs the engine least.
func (m *mutator) lean(kind string) Request {
	q := Request{Method: []byte("GET"), Target: []byte("/a"), Proto: []byte("HTTP/1.1"), Fields: []Field{
		{[]byte("Host"), []byte("shop.example")}, {[]byte("User-Agent"), []byte("x")}, {[]byte("Accept"), []byte("*/*")}, {[]byte("Cookie"), []byte("a=b")},
	}}
	body, ct := "", ""
	switch kind {
	case "form":
		body, ct = "name=Dupont&b=1", "application/x-www-form-urlencoded"
	case "json":
		body, ct = `{"name":"Casque","b":[1,{"c":"d"}]}`, "application/json"
	case "multipart":
		body, ct = "--xX\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\nDupont\r\n--xX\r\nContent-Disposition: form-data; name=\"f\"; filename=\"photo.jpg\"\r\nContent-Type: image/jpeg\r\n\r\n\xff\xd8\x00\r\n--xX--\r\n", "multipart/form-data; boundary=xX"
	case "xml":
		body, ct = `<?xml version="1.0"?><o a="Dupont"><i n="1">Dupont</i><![CDATA[x]]></o>`, "application/xml"
	}
	if body != "" {
		q.Method, q.Body = []byte("POST"), []byte(body)
		q.Fields = append(q.Fields, Field{[]byte("Content-Type"), []byte(ct)}, Field{[]byte("Content-Length"), fmt.Append(nil, len(body))})
	}
	return q
}

func (m *mutator) request(n int) Request {
	kind := []string{"page", "static", "form", "json", "fresh", "multipart", "xml", "static"}[m.r.IntN(8)]
	var q Request
	if m.r.IntN(10) == 0 && kind != "multipart" && kind != "xml" {
		q = shopRequest(kind, n)
	} else {
		q = m.lean(kind)
	}
	p := m.piece()
	at := 6 * m.r.IntN(2)
	if len(q.Body) == 0 {
		at = 0
	}
	if at == 0 || m.r.IntN(4) == 0 {
		m.head(&q, p)
		p = m.piece()
	}
	if at > 0 {
		m.body(&q, kind, p)
	}
	return q
}

func (m *mutator) head(q *Request, p string) {
	field := func(name string) *[]byte {
		for i := range q.Fields {
			if string(q.Fields[i].Name) == name {
				return &q.Fields[i].Value
			}
		}
		return &q.Fields[0].Value
	}
	sep := "?"
	if bytes.IndexByte(q.Target, '?') >= 0 {
		sep = "&"
	}
	switch m.r.IntN(9) {
	case 0:
		q.Target = append(q.Target, (sep + "x=" + url.QueryEscape(p))...)
	case 1:
		q.Target = append(q.Target, (sep + p)...)
	case 2:
		*field("Cookie") = append(*field("Cookie"), ("; x=" + p)...)
	case 3:
		q.Fields[m.r.IntN(len(q.Fields))].Value = []byte(p)
	case 4:
		*field("Cookie") = append(*field("Cookie"), ("; " + p + "=1")...)
	case 5:
		q.Target = append([]byte("/"+url.PathEscape(p)), q.Target...)
	case 6:
		q.Fields = append(q.Fields, Field{[]byte(strings.Trim(p, " :\r\n") + "x"), []byte("1")})
	case 7:
		q.Fields = append(q.Fields[:m.r.IntN(len(q.Fields))], Field{[]byte("Referer"), []byte("https://www.shop.example/" + p)})
	case 8:
		q.Target = append(q.Target, (sep + url.QueryEscape(p) + "=1")...)
	}
}

// body puts a piece into a value, a name or the structure of a body.
func (m *mutator) body(q *Request, kind, p string) {
	raw := p
	switch kind {
	case "form":
		p = url.QueryEscape(p)
	case "json":
		quoted, _ := json.Marshal(p)
		p = string(quoted[1 : len(quoted)-1])
	case "xml":
		if m.r.IntN(2) == 0 {
			p = strings.NewReplacer("&", "&amp;", "<", "&lt;", `"`, "&quot;").Replace(p)
		}
	}
	places := map[string][]string{
		"form": {"Dupont", "Jean", "Paris", "name", "zip", "=1"}, "json": {"Casque", "Dupont", "name", "sku", "1"},
		"multipart": {"Dupont", `"a"`, "photo.jpg", "image/jpeg", "form-data", "Content-Type", "\xff\xd8"}, "xml": {"Dupont", "CDATA[x", `"1"`, "i n", "<?xml"},
	}[kind]
	if len(places) == 0 {
		return
	}
	at := places[m.r.IntN(len(places))]
	switch m.r.IntN(4) {
	case 0:
		p = at + p
	case 1:
		p += at
	case 2:
		if strings.HasPrefix(at, `"`) {
			p = `"` + p + `"`
		}
	case 3:
		p = at[:1] + raw + at[1:]
	}
	q.Body = bytes.Replace(q.Body, []byte(at), []byte(p), 1)
	for i := range q.Fields {
		if string(q.Fields[i].Name) == "Content-Length" {
			q.Fields[i].Value = fmt.Append(nil, len(q.Body))
		}
	}
}

// TestMadeRequestsThatAreProvedCleanAreQuietInTheEngine compares on -made requests, a quarter
// at each level; the engine is asked about those that are proved clean, since it has the last
// word on all others.
func TestMadeRequestsThatAreProvedCleanAreQuietInTheEngine(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	if raced {
		*made = min(*made, 120)
	}
	for pl := 1; pl <= 4; pl++ {
		t.Run(fmt.Sprint("paranoia", pl), func(t *testing.T) {
			t.Parallel()
			s, w := newScreen(t, pl, 0), newEngine(t, pl, "")
			m := mutator{rand.New(rand.NewPCG(seed, uint64(pl))), crsRequests(t)}
			clean := map[string]int{}
			all := 0
			for n := range *made / 4 {
				if n > 0 && n%20_000 == 0 {
					t.Logf("%d requests, %d proved clean and compared", n, all)
				}
				q := m.request(n)
				if s.Check(&q, nil).Reason != Clean {
					continue
				}
				kind := "none"
				if len(q.Body) > 0 {
					for _, f := range q.Fields {
						if string(f.Name) == "Content-Type" {
							kind = string(f.Value)
						}
					}
				}
				clean[kind]++
				all++
				compare(t, w, &q)
			}
			t.Logf("seed %d: %d requests, %d proved clean and compared; by type of body %v", seed, *made/4, all, clean)
			if *made > 400 && (all < *made/40 || clean["application/xml"] == 0 || clean["multipart/form-data; boundary=xX"] == 0) {
				t.Error("too few are proved clean to compare anything")
			}
		})
	}
}

func compare(t *testing.T, w coraza.WAF, q *Request) {
	t.Helper()
	if f := judge(w, q); !f.quiet() {
		t.Errorf("proved clean, the engine says %+v: %s %q %q %q", f, q.Method, q.Target, q.Fields, q.Body)
	}
}

// FuzzCheck: what is proved clean is quiet in the engine. The input is a request in wire form.
func FuzzCheck(f *testing.F) {
	for i, r := range crsRequests(f) {
		if i%40 == 0 {
			f.Add(wire(&r.req))
		}
	}
	for i, k := range []string{"page", "static", "form", "json"} {
		q := shopRequest(k, i)
		f.Add(wire(&q))
	}
	s, w := newScreen(f, 1, 0), newEngine(f, 1, "")
	f.Fuzz(func(t *testing.T, raw []byte) {
		if len(raw) > 4096 {
			return
		}
		q := rawRequest(string(raw))
		if s.Check(&q, nil).Reason == Clean {
			compare(t, w, &q)
		}
	})
}

func wire(r *Request) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s %s %s\r\n", r.Method, r.Target, r.Proto)
	for _, f := range r.Fields {
		fmt.Fprintf(&b, "%s: %s\r\n", f.Name, f.Value)
	}
	fmt.Fprintf(&b, "\r\n%s", r.Body)
	return b.Bytes()
}

// FuzzDirectives: hostile rules end in an error or a screen, never in a panic.
func FuzzDirectives(f *testing.F) {
	f.Add(before)
	f.Add(`SecRule ARGS|!ARGS:a|&ARGS:/x|y/ "!@rx a\"b" "id:1,phase:2,t:none,deny,msg:'a,b',chain"` + "\n" + `SecRule MATCHED_VARS "@pm a b" "t:lowercase"`)
	f.Add("SecAction \"id:1,phase:1,nolog,pass,setvar:tx.a=%{tx.b}\"\nSecMarker END\nSecRuleRemoveById 1-2 3")
	f.Add(`SecRule REQUEST_HEADERS:Range "@rx (\d+)-(\d+)" "id:2,capture,chain,block"` + "\n" + `SecRule TX:2 "@lt %{tx.1}" "setvar:'tx.score=+1'"`)
	f.Fuzz(func(t *testing.T, text string) {
		if len(text) > 2000 {
			return
		}
		s, err := Compile(Config{FS: none{}, Directives: []string{text}, MemoBytes: -1})
		if err == nil {
			s.Check(&Request{Method: []byte("GET"), Target: []byte("/?a=b"), Proto: []byte("HTTP/1.1"), Fields: []Field{{[]byte("Host"), []byte("a")}}}, nil)
		}
	})
}

// none is a file system without files.
type none struct{}

func (none) Open(string) (fs.File, error) { return nil, fs.ErrNotExist }
