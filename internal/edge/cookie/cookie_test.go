package cookie

import (
	"strings"
	"testing"

	"github.com/relais-edge/relais/internal/http/message"
)

func fields(lines ...string) *message.Fields {
	f := &message.Fields{}
	for _, l := range lines {
		f.AddString(message.Cookie, l)
	}
	return f
}

func TestReadFindsEveryCookieOfTheNameAndNoOther(t *testing.T) {
	for _, c := range []struct {
		lines []string
		want  string
	}{
		{nil, ""},
		{[]string{"a=1"}, ""},
		{[]string{"rv=1"}, "1"},
		{[]string{"arv=1; rvx=2;rv=3 ; rv=4", "b=1;\trv=5"}, "3,4,5"},
		{[]string{"rv", "rv="}, ""},
		{[]string{"rv=1;rv=2;rv=3;rv=4;rv=5"}, "1,2,3,4"},
		{[]string{";;;", "x", "rv=9;"}, "9"},
	} {
		var got []string
		r := Read(fields(c.lines...), "rv")
		for v := r.Next(); v != nil; v = r.Next() {
			if len(v) > 0 {
				got = append(got, string(v))
			}
		}
		if s := strings.Join(got, ","); s != c.want {
			t.Errorf("%q: %q, want %q", c.lines, s, c.want)
		}
	}
}

func FuzzStrip(f *testing.F) {
	f.Add("a=1; rv=2; b=3")
	f.Add(";;rv=;rv=1;rv")
	f.Fuzz(func(t *testing.T, line string) {
		var h message.Fields
		h.AddString(message.Cookie, line)
		out, found := strip(nil, &h, []string{"rv"})
		if v, _ := value(out, "rv"); v != nil {
			t.Fatalf("%q left %q", line, out)
		}
		if v, _ := value([]byte(line), "rv"); v != nil && !found {
			t.Fatalf("%q: the cookie was read and not removed", line)
		}
	})
}
