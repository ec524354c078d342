package visitor

import (
	"strings"
	"testing"

	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/stage"
)

func FuzzParse(f *testing.F) {
	c := newCodec([]byte(secret), "o/shop", "rv")
	f.Add(c.append(nil, &token{class: stage.Protected, expires: 1 << 31, id: 7}))
	f.Add([]byte(strings.Repeat("0", textLen)))
	f.Add([]byte("\r\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		if tk, err := c.parse(text, 1); err == nil && tk.id != 7 {
			t.Fatalf("%q verified: %+v", text, tk)
		}
	})
}

func FuzzStrip(f *testing.F) {
	f.Add("a=1; rv=2; b=3")
	f.Add(";;rv=;rv=1;rv")
	f.Fuzz(func(t *testing.T, line string) {
		var h message.Fields
		h.AddString(message.Cookie, line)
		out, found := strip(nil, &h, []string{"rv"})
		var again message.Fields
		again.Add(message.Cookie, out)
		if v, _ := nextCookie(out, "rv"); v != nil {
			t.Fatalf("%q left %q", line, out)
		}
		if v, _ := nextCookie([]byte(line), "rv"); v != nil && !found {
			t.Fatalf("%q: the cookie was read and not removed", line)
		}
	})
}
