package record

import (
	"bytes"
	"encoding/json"
	"net/netip"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/relais-edge/relais/internal/http/message"
)

func hider() *masker { return newMasker([32]byte{1, 2, 3}) }

// shape is what of a text stays when it is masked.
func shape(s []byte) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r >= '0' && r <= '9':
			return '9'
		case r >= 'a' && r <= 'z':
			return 'a'
		case r >= 'A' && r <= 'Z':
			return 'A'
		}
		return r
	}, string(s))
}

func TestEqualValuesStayEqualAndKeepTheirShape(t *testing.T) {
	m := hider()
	first, second := string(m.cookies(nil, []byte("sid=Ab12-xYz; t=1"))), string(m.cookies(nil, []byte("q=2; sid=Ab12-xYz")))
	a, _, _ := strings.Cut(first[4:], ";")
	_, b, _ := strings.Cut(second, "sid=")
	if a != b || a == "Ab12-xYz" || shape([]byte(a)) != shape([]byte("Ab12-xYz")) {
		t.Errorf("%q %q", first, second)
	}
	other := newMasker([32]byte{9})
	if string(other.cookies(nil, []byte("sid=Ab12-xYz"))) == string(m.cookies(nil, []byte("sid=Ab12-xYz"))) {
		t.Error("another key gives the same")
	}
	hex := []byte("0f3a-99be")
	if m.mask(hex, true); strings.Trim(string(hex), "0123456789abcdef-") != "" {
		t.Errorf("a hexadecimal number became %s", hex)
	}
}

func TestWhatIsHiddenOfAQuery(t *testing.T) {
	for _, c := range []struct {
		name, in string
		kept     bool // as it is
		gone     string
	}{
		{"an attack with quotes", "id=1%27%20or%20%271%27=%271", true, ""},
		{"an attack of words", "q=1+union+select+2", true, ""},
		{"a path", "f=../../etc/passwd", true, ""},
		{"a script", "q=<script>alert(1)</script>", true, ""},
		{"a short word and number", "page=12&lang=fr", true, ""},
		{"a name", "n=Elisabeth", false, "Elisabeth"},
		{"a search", "q=blue+winterjacket", false, "winterjacket"},
		{"a password with an attack in it", "password=x%27+or+secretword--", false, "secretword"},
		{"an e-mail address in an attack", "q=%27mary.miller@mail.example.com%27", false, "miller"},
		{"an escaped e-mail address", "q=%27mary.miller%40mail.example.com%27", false, "miller"},
		{"a card in an attack", "q=%274111111111111111%27", false, "4111111111111111"},
		{"a card in groups", "q=4111-1111+1111-1111", false, "4111-1111"},
		{"an escaped card", "q=%34%31%31%31%31%31%31%31%31%31%31%31%31%31%31%31", false, "%34%31%31%31%31"},
		{"a telephone number", "p=(0170)123456789", false, "123456789"},
		{"a key", "u=/x/a81jd92kd01ls93kdm22", false, "a81jd92kd01ls93kdm22"},
		{"a name without a value", "Elisabeth", false, "Elisabeth"},
		{"nothing", "", true, ""},
		{"an end of an escape", "a=%4&b=%", true, ""},
	} {
		out := string(hider().pairs(nil, []byte(c.in)))
		if c.kept && out != c.in {
			t.Errorf("%s: %q became %q", c.name, c.in, out)
		}
		if c.gone != "" && strings.Contains(out, c.gone) {
			t.Errorf("%s: %q is still in %q", c.name, c.gone, out)
		}
		if len(out) != len(c.in) {
			t.Errorf("%s: %q became %q, of another length", c.name, c.in, out)
		}
	}
}

func TestWhatIsHiddenOfABody(t *testing.T) {
	const card = "4111111111111111"
	multipart := "--B\r\nContent-Disposition: form-data; name=\"password\"\r\n\r\nhunter22\r\n" +
		"--B\r\nContent-Disposition: form-data; name=\"f\"; filename=\"elisabeth.jpg\"\r\nContent-Type: image/jpeg\r\n\r\n\xff\xd8hello elisabeth\r\n--B--\r\n"
	for _, c := range []struct {
		name, kind, in string
		gone           []string
		there          []string
	}{
		{"form", "application/x-www-form-urlencoded", "card=" + card + "&q=%27or+1=1--", []string{card}, []string{"%27or+1=1--"}},
		{
			"json", "application/json; charset=utf-8", `{"name":"Elisabeth","n":` + card + `,"password":"a'b","q":"' or 1=1 --","a":[true,null,12.5,"fr"],"pin":1234}`,
			[]string{"Elisabeth", card, "a'b", "1234"},
			[]string{`"' or 1=1 --"`, `[true,null,12.5,"fr"]`, `"name":`},
		},
		{"json with escapes", "application/json", `{"name":"Elis\u0061beth Miller\n"}`, []string{"Elis", "Miller"}, nil},
		{"json that is none", "application/json", `{"name":"Elisabeth`, []string{"Elisabeth"}, nil},
		{"xml", "text/xml", `<a><name>Elisabeth</name><q>' or 1=1 --</q><password>x'y12</password></a>`, []string{"Elisabeth", "x'y12"}, []string{"<q>' or 1=1 --</q>"}},
		{"multipart", "multipart/form-data; boundary=B", multipart, []string{"hunter22", "elisabeth"}, []string{"filename=\"", ".jpg\"", "--B--"}},
		{"text", "text/plain", "Elisabeth " + card, []string{"Elisabeth", card}, nil},
	} {
		out := hider().body([]byte(c.kind), []byte(c.in))
		for _, g := range c.gone {
			if bytes.Contains(out, []byte(g)) {
				t.Errorf("%s: %q is still in %q", c.name, g, out)
			}
		}
		for _, g := range c.there {
			if !bytes.Contains(out, []byte(g)) {
				t.Errorf("%s: %q is not in %q", c.name, g, out)
			}
		}
		if json.Valid([]byte(c.in)) && !json.Valid(out) {
			t.Errorf("%s: %s is no JSON any more", c.name, out)
		}
	}
	if out := hider().body([]byte("image/png"), []byte("\x89PNG\x00")); out != nil {
		t.Errorf("an image is kept: %q", out)
	}
}

func TestWhatIsHiddenOfFields(t *testing.T) {
	client := netip.MustParseAddr("192.0.2.9")
	for _, c := range []struct{ name, in, want string }{
		{"x-forwarded-for", "203.0.113.7, 10.0.0.1", "192.0.2.9"},
		{"accept", "text/html;q=0.9", "text/html;q=0.9"},
		{"user-agent", "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36", ""},
		{"if-none-match", `"8a7bc61f25d04e6e9ad1"`, `"8a7bc61f25d04e6e9ad1"`},
		{"referer", "https://shop.example/a?page=2", "https://shop.example/a?page=2"},
	} {
		if c.want == "" {
			c.want = c.in
		}
		if out := string(hider().field(nil, c.name, []byte(c.in), client)); out != c.want {
			t.Errorf("%s: %q became %q", c.name, c.in, out)
		}
	}
	for name, in := range map[string]string{
		"authorization": "Bearer abcd1234", "x-api-key": "'abcd1234'", "cookie": "a=abcd1234; b=\"abcd1234\"", "set-cookie": "a=abcd1234; Path=/",
		"referer": "https://shop.example/?email=abcd1234", "x-note": "for mary@abcd1234.example",
	} {
		if out := string(hider().field(nil, name, []byte(in), client)); strings.Contains(out, "abcd1234") || len(out) != len(in) {
			t.Errorf("%s: %q became %q", name, in, out)
		}
	}
	if out := string(hider().field(nil, "set-cookie", []byte("a=abcd1234; Path=/; HttpOnly"), client)); !strings.HasSuffix(out, "; Path=/; HttpOnly") {
		t.Errorf("attributes: %q", out)
	}
}

func TestWhatIsHiddenOfAnAddress(t *testing.T) {
	m := hider()
	for _, c := range []struct {
		in   string
		how  Clients
		want string
	}{
		{"203.0.113.77", ClientsTruncated, "203.0.113.0"},
		{"::ffff:203.0.113.77", ClientsTruncated, "203.0.113.0"},
		{"2001:db8:1:2:3::4", ClientsTruncated, "2001:db8:1::"},
		{"203.0.113.77", ClientsFull, "203.0.113.77"},
	} {
		if got := m.client(netip.MustParseAddr(c.in), c.how); got.String() != c.want {
			t.Errorf("%s %s: %s", c.in, c.how, got)
		}
	}
	a, b := m.client(netip.MustParseAddr("2001:db8:1::1"), ClientsHashed), m.client(netip.MustParseAddr("2001:db8:1::2"), ClientsHashed)
	if a == b || a != m.client(netip.MustParseAddr("2001:db8:1::1"), ClientsHashed) || !netip.MustParsePrefix("2001:db8:1::/48").Contains(a) {
		t.Errorf("%s %s", a, b)
	}
}

// cardOf makes a card number of a seed.
func cardOf(seed uint64) string {
	d := []byte("4000000000000000")
	for i := 1; i < 15; i++ {
		d[i] = '0' + byte(seed%10)
		seed /= 10
	}
	for c := byte('0'); c <= '9'; c++ {
		d[15] = c
		sum := 0
		for i := range d {
			n := int(d[i] - '0')
			if i%2 == 0 {
				if n *= 2; n > 9 {
					n -= 9
				}
			}
			sum += n
		}
		if sum%10 == 0 {
			break
		}
	}
	return string(d)
}

func FuzzNothingSecretSurvives(f *testing.F) {
	f.Add("sid=abc", "Basic dXNlcjpwYXNz", uint64(1234567890), "a=", "&b", "application/json", byte(0))
	f.Add(`a="b c"; d`, "secret", uint64(1), `{"n":"`, `"}`, "text/xml", byte('-'))
	f.Add("=;=", "Bearer ", uint64(99), "%", "%4", "multipart/form-data; boundary=B", byte(' '))
	f.Fuzz(func(t *testing.T, cookie, auth string, seed uint64, before, after, kind string, sep byte) {
		m := hider()
		// Cookies: no letter and no digit of a value is what it was.
		out := m.cookies(nil, []byte(cookie))
		ins, outs := strings.Split(cookie, ";"), strings.Split(string(out), ";")
		if len(ins) != len(outs) {
			t.Fatalf("%q became %q", cookie, out)
		}
		for i := range ins {
			n, v, ok := strings.Cut(ins[i], "=")
			n2, v2, _ := strings.Cut(outs[i], "=")
			if !ok {
				v, v2 = n, n2
			}
			different(t, v, v2)
		}
		different(t, afterScheme(auth), afterScheme(string(m.credentials(nil, []byte(auth)))))
		card := cardOf(seed)
		if strings.ContainsRune(" -.+_/", rune(sep)) && sep != 0 {
			card = card[:4] + string(sep) + card[4:8] + string(sep) + card[8:12] + string(sep) + card[12:]
		}
		text := []byte(before + card + after)
		for what, out := range map[string][]byte{
			"query": m.pairs(nil, text), "path": m.path(nil, text), "url": m.url(nil, text), "body": m.body([]byte(kind), text),
			"json": m.json(nil, text), "xml": m.xml(bytes.Clone(text)), "field": m.field(nil, "x-note", text, netip.Addr{}),
		} {
			if bytes.Contains(out, []byte(card)) {
				t.Errorf("%s: the card %s is still in %q", what, card, out)
			}
		}
		if json.Valid(text) && utf8.Valid(text) {
			if out := m.json(nil, text); !json.Valid(out) {
				t.Errorf("%q became %q, which is no JSON", text, out)
			}
		}
	})
}

// afterScheme is what of Authorization is secret.
func afterScheme(s string) string {
	scheme, rest, ok := strings.Cut(s, " ")
	switch strings.ToLower(scheme) {
	case "basic", "bearer", "digest", "negotiate", "dpop", "hoba", "mutual", "ntlm":
		if ok {
			return rest
		}
	}
	return s
}

// different fails when a letter or digit of a masked value is what it was.
func different(t *testing.T, was, is string) {
	t.Helper()
	if len(was) != len(is) {
		t.Fatalf("%q became %q", was, is)
	}
	for i := range len(was) {
		if alphanumeric(was[i]) && was[i] == is[i] {
			t.Fatalf("%q became %q: byte %d is the same", was, is, i)
		}
	}
}

func FuzzARecordIsRead(f *testing.F) {
	f.Add([]byte(`{"v":1,"id":"x","time":"2031-01-02T03:04:05Z","method":"GET","path":"/","client":"","proto":"HTTP/1.1","authority":"a","answer":{"status":200,"bytes":1},"outcome":{},"ms":1}` + "\n{torn"))
	f.Add([]byte("{\"v\":2}\n\n\nnull\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		err := ReadRequests(bytes.NewReader(text), func(q *Request) error {
			line, err := q.AppendJSON(nil)
			if err != nil {
				return nil // such as a time that JSON cannot have
			}
			return ReadRequests(bytes.NewReader(line), func(back *Request) error {
				if back.Path != q.Path || back.Method != q.Method || len(back.Fields) != len(q.Fields) {
					t.Errorf("%+v became %+v", q, back)
				}
				return nil
			}, func(e *LineError) error { t.Errorf("%s: %v", line, e); return nil })
		}, func(*LineError) error { return nil })
		if err != nil {
			t.Error(err)
		}
	})
}

func TestBytesThatAreNoTextAreKept(t *testing.T) {
	raw := "/a\xff\xc3\xa9"
	q := &Request{Format: 1, Method: "GET", Time: Request{}.Time.AddDate(2000, 0, 0), Path: raw, Query: &raw, Fields: []Field{{"X", raw}}}
	line, err := q.AppendJSON(nil)
	if err != nil || q.Path != raw || q.Raw {
		t.Fatalf("%v %+v", err, q)
	}
	n := 0
	err = ReadRequests(bytes.NewReader(line), func(back *Request) error {
		n++
		if back.Path != raw || *back.Query != raw || back.Fields[0][1] != raw {
			t.Errorf("%+v", back)
		}
		return nil
	}, func(e *LineError) error { return e })
	if err != nil || n != 1 {
		t.Errorf("%d, %v", n, err)
	}
}

var _ message.Body = (*tee)(nil)
