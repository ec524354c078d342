package encode

import (
	"bytes"
	"testing"

	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/http/syntax"
)

func FuzzAcceptEncoding(f *testing.F) {
	for _, s := range []string{"gzip, br;q=0.5", "*;q=0", "identity;q=0, *;q=0.001", "gzip;q=1.0000", ";;,=,q=", "br;q=0.;v"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		var h message.Fields
		h.AddString(message.AcceptEncoding, s)
		w, ok := weigh(&h)
		if !ok {
			t.Fatal("there is a field")
		}
		for c, q := range w {
			if q < -1 || q > 1000 {
				t.Errorf("%q: weight %d of %s", s, q, codingNames[c])
			}
		}
		prefer := []coding{zstdCoding, brCoding, gzipCoding}
		for _, shared := range []bool{true, false} {
			if c := choose(&h, prefer, shared); c != identity && w[c] <= 0 {
				t.Errorf("%q: %s is not accepted", s, codingNames[c])
			}
		}
	})
}

func FuzzEntityTags(f *testing.F) {
	for _, s := range []string{`"a"`, `W/"a~gzip.w", "b"`, `*`, `"a~br`, `,,"",`, `"~~~"`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		var l local
		var sent message.Fields
		sent.AddString(message.IfNoneMatch, s)
		l.restore(&sent, message.IfNoneMatch)
		for c := zstdCoding; c < codings; c++ {
			opaque, weak, ok := syntax.EntityTag([]byte(s))
			if !ok {
				return
			}
			marked, _, ok := syntax.EntityTag(appendMarked(nil, []byte(s), c))
			if !ok {
				t.Fatalf("the mark of %q is no tag", s)
			}
			own, got, was := unmark(marked)
			if !bytes.Equal(own, opaque) || got != c || was != weak {
				t.Errorf("%q came back as %q %v %v", s, own, got, was)
			}
		}
	})
}
