package visitor

import (
	"strings"
	"testing"

	"github.com/relais-edge/relais/internal/stage"
)

func FuzzParse(f *testing.F) {
	c := newCodec("o/shop", "rv", []byte(secret))
	f.Add(c.append(nil, &token{class: stage.Protected, expires: 1 << 31, id: 7}))
	f.Add([]byte(strings.Repeat("0", textLen)))
	f.Add([]byte("\r\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		if tk, err := c.parse(text, 1); err == nil && tk.id != 7 {
			t.Fatalf("%q verified: %+v", text, tk)
		}
	})
}
