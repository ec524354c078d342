package semantics

import (
	"bytes"
	"strings"
	"testing"

	"github.com/relais-edge/relais/internal/http/message"
)

func TestARequestThatAskMakesSelectsTheSameAnswer(t *testing.T) {
	for _, c := range []struct {
		name     string
		vary     string
		coding   string
		cookie   string // of the policy
		fields   []string
		possible bool
	}{
		{"nothing", "", "", "", nil, true},
		{"browser", "Accept-Encoding, Accept-Language", "br", "", []string{"Accept-Encoding: gzip, deflate, br, zstd", "Accept-Language: de-CH, de;q=0.9, en;q=0.5"}, true},
		{"no coding", "Accept-Encoding", "", "", nil, true},
		{"identity only", "Accept-Encoding", "", "", []string{"Accept-Encoding: identity"}, true},
		{"identity refused", "Accept-Encoding", "gzip", "", []string{"Accept-Encoding: gzip, identity;q=0"}, true},
		{"any", "Accept-Encoding", "", "", []string{"Accept-Encoding: *"}, true},
		{"unusual coding", "Accept-Encoding", "compress", "", []string{"Accept-Encoding: compress;q=1, gzip;q=0.5"}, true},
		{"own field", "X-Device", "", "", []string{"X-Device: phone,  x"}, true},
		{"policy's cookie", "", "", "currency", []string{"Cookie: a=b; currency=EUR"}, true},
		{"absent cookie", "", "", "currency", nil, true},
		{"whole cookie", "Cookie", "", "", []string{"Cookie: session=1"}, false},
		{"credentials", "Authorization", "", "", []string{"Authorization: x"}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			var answer, req, again message.Fields
			if c.vary != "" {
				answer.AddLine([]byte("Vary"), []byte(c.vary))
			}
			if c.coding != "" {
				answer.AddLine([]byte("Content-Encoding"), []byte(c.coding))
			}
			add := func(f *message.Fields, lines []string) {
				for _, l := range lines {
					n, v, _ := strings.Cut(l, ":")
					f.AddLine([]byte(n), []byte(strings.TrimSpace(v)))
				}
			}
			add(&req, c.fields)
			var selector []byte
			if c.cookie != "" {
				selector = AppendCookie(selector, c.cookie)
			}
			selector, _ = AppendSelector(selector, &answer, "")
			selected := AppendSelected(nil, selector, &req)
			lines, ok := Ask(selector, selected)
			if ok != c.possible {
				t.Fatalf("%v: %q", ok, lines)
			}
			if !ok {
				return
			}
			add(&again, lines)
			if got := AppendSelected(nil, selector, &again); !bytes.Equal(got, selected) {
				t.Errorf("%q selects %q, want %q", lines, got, selected)
			}
		})
	}
}
