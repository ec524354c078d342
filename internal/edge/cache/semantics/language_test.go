package semantics

import (
	"testing"

	"github.com/relais-edge/relais/internal/http/message"
)

func TestRFC4647_Section3_4_LookupOfLanguages(t *testing.T) {
	list := [][]byte{[]byte("en"), []byte("de"), []byte("zh-Hant"), []byte("de-CH"), []byte("pt-BR")}
	for _, c := range []struct {
		want   string
		fields []string
	}{
		{"en", nil},
		{"de", []string{"de"}},
		{"de", []string{"DE-at"}},
		{"de-CH", []string{"de-ch-1996"}},
		{"zh-Hant", []string{"zh-Hant-CN-x-private1-private2"}},
		{"zh-Hant", []string{"zh-hant-x-a"}},
		{"en", []string{"zh"}}, // a range does not match what is narrower
		{"en", []string{"pt"}},
		{"de", []string{"fr, de;q=0.5"}},
		{"pt-BR", []string{"de;q=0.5, pt-BR;q=0.9, en;q=0.1"}},
		{"de", []string{"de, en"}}, // of two of one weight the first
		{"en", []string{"en, de"}},
		{"de", []string{"fr", "de"}}, // several lines
		{"en", []string{"*"}},
		{"de", []string{"*, de;q=0.5"}}, // * is skipped while another range fits
		{"en", []string{"de;q=0"}},
		{"de", []string{"de-CH, de-CH;q=0"}}, // refused, so that what is wider is taken
		{"en", []string{"de-AT, de;q=0"}},
		{"en", []string{"de;q=x, en;q=0.1"}},
		{"de", []string{"de;q=0.001"}},
		{"de", []string{"en;q=0.0009, de;q=0.5"}},
		{"de", []string{" ,, de ; q=1.000 ,"}},
		{"en", []string{"-, --"}},
		{"en", []string{""}},
	} {
		var f message.Fields
		for _, v := range c.fields {
			f.AddString(message.AcceptLanguage, v)
		}
		if got := string(list[Language(&f, list)]); got != c.want {
			t.Errorf("%q: %s, want %s", c.fields, got, c.want)
		}
	}
}

func FuzzLanguage(f *testing.F) {
	for _, s := range []string{"de, en;q=0.5", "de-AT-x-a;q=0", "*;q=0.1,,-", "a-b-c-d-e-f-g", "de;q=1.0000;q=0"} {
		f.Add(s)
	}
	list := [][]byte{[]byte("en"), []byte("de"), []byte("de-AT")}
	f.Fuzz(func(t *testing.T, value string) {
		var h message.Fields
		h.AddString(message.AcceptLanguage, value)
		i := Language(&h, list)
		if i < 0 || i >= len(list) {
			t.Fatal(i)
		}
		// What was chosen, sent on in its place, is chosen again.
		h.Set(message.AcceptLanguage, list[i])
		if j := Language(&h, list); j != i {
			t.Fatalf("%q: %d, and then %d", value, i, j)
		}
	})
}

func TestDevices(t *testing.T) {
	for _, c := range []struct{ want, agent, hint string }{
		{"desktop", "", ""},
		{"desktop", "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 Chrome/120.0 Safari/537.36", "?0"},
		{"desktop", "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 Version/17.0 Safari/605.1.15", ""},
		{"desktop", "curl/8.5.0", ""},
		{"desktop", "Mozilla/5.0 (Linux; Android 11; BRAVIA 4K Smart TV) AppleWebKit/537.36", ""},
		{"mobile", "Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 Chrome/120.0 Mobile Safari/537.36", ""},
		{"mobile", "Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 Chrome/120.0 Safari/537.36", "?1"},
		{"mobile", "Mozilla/5.0 (iPhone; CPU iPhone OS 17_0 like Mac OS X) AppleWebKit/605.1.15 Mobile/15E148", ""},
		{"mobile", "Mozilla/5.0 (Android 13; Mobile; rv:120.0) Gecko/120.0 Firefox/120.0", ""},
		{"mobile", "Opera/9.80 (J2ME/MIDP; Opera Mini/7.1) Presto/2.8", ""},
		{"tablet", "Mozilla/5.0 (iPad; CPU OS 12_2 like Mac OS X) AppleWebKit/605.1.15 Mobile/15E148 Safari/604.1", ""},
		{"tablet", "Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 Chrome/120.0 Safari/537.36", "?0"},
		{"tablet", "Mozilla/5.0 (Android 13; Tablet; rv:120.0) Gecko/120.0 Firefox/120.0", ""},
	} {
		var f message.Fields
		if c.agent != "" {
			f.AddString(message.UserAgent, c.agent)
		}
		if c.hint != "" {
			f.AddLine([]byte("sec-ch-ua-mobile"), []byte(c.hint))
		}
		if got := string(Device(&f)); got != c.want {
			t.Errorf("%s %s: %s, want %s", c.agent, c.hint, got, c.want)
		}
	}
}
