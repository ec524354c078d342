package balance

import (
	"strings"
	"testing"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/stage"
)

func TestConsistentHashHashesWhatTheSpecSays(t *testing.T) {
	x := &stage.Exchange{In: &message.Request{}}
	x.Visitor.Key = 77
	x.Path = []byte("/a")
	x.In.AddString(message.UserAgent, "u")
	x.In.AddString(message.Cookie, "sid2=no; sid=yes")
	spec := poolSpec(v1.ConsistentHash, tierSpec("home", 1, 0, 0))
	for _, c := range []struct {
		on, name string
		want     uint64
	}{
		{"client", "", 77},
		{"path", "", hashString("/a")},
		{"header", "user-agent", hashString("u")},
		{"header", "absent", 77},
		{"cookie", "sid", hashString("yes")},
		{"cookie", "absent", 77},
	} {
		spec.Hash = v1.HashSpec{On: c.on, Name: c.name}
		if got := hashOf(x, spec); got != c.want {
			t.Errorf("%s %s: %d, want %d", c.on, c.name, got, c.want)
		}
	}
}

func FuzzCookie(f *testing.F) {
	for _, s := range []string{"", "sid=a", "a=b; sid=c", "sid", "sid=", ";;sid=1;", "sid2=x;  sid=\"q\"", "=sid; sid =1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, line string) {
		var fields message.Fields
		fields.AddString(message.Cookie, line)
		want, found := "", false
		for _, pair := range strings.Split(line, ";") {
			if k, v, ok := strings.Cut(strings.TrimLeft(pair, " \t"), "="); ok && k == "sid" {
				want, found = v, true
				break
			}
		}
		if got := cookie(&fields, "sid"); string(got) != want || (got != nil) != found {
			t.Errorf("%q: %q, want %q", line, got, want)
		}
	})
}
