package semantics

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/relais-edge/relais/internal/http/message"
)

func one(id message.ID, v string) *message.Fields {
	f := &message.Fields{}
	f.AddString(id, v)
	return f
}

func TestRFC9875_2_GroupsAreStrings(t *testing.T) {
	for v, want := range map[string]string{
		`"a", "b";x=1`: "a|b", `"a\"b\\c"`: `a"b\c`, ``: "", `"a" "b"`: "bad", `a`: "bad", `"a", 1`: "bad", `("a")`: "bad", `"a`: "bad", `"a",`: "bad",
		strings.Repeat(`"x",`, 127) + `"x"`: strings.Repeat("x|", 127) + "x", strings.Repeat(`"x",`, 128) + `"x"`: "bad",
	} {
		var got []string
		text := "bad"
		if Groups(one(message.CacheGroups, v), message.CacheGroups, func(g []byte) { got = append(got, string(g)) }) {
			text = strings.Join(got, "|")
		}
		if text != want {
			t.Errorf("%.40s: %.60s, want %.60s", v, text, want)
		}
	}
}

func TestRFC9110_14_4_ContentRange(t *testing.T) {
	for v, want := range map[string]string{
		"bytes 0-4/10": "0-4/10", "BYTES  9-9/10": "9-9/10", "bytes 0-10/10": "bad", "bytes 4-3/10": "bad", "bytes */10": "bad", "bytes 0-4/*": "bad",
		"bytes -4/10": "bad", "bytes 0-/10": "bad", "bytes 0-4": "bad", "items 0-4/10": "bad", "": "bad", "bytes 0-4/99999999999999999999999": "0-4/922337203685477580",
	} {
		text := "bad"
		if s, size, ok := ContentRange(one(message.ContentRange, v)); ok {
			text = fmt.Sprintf("%d-%d/%d", s.First, s.Last, size)
		}
		if text != want {
			t.Errorf("%q: %s, want %s", v, text, want)
		}
	}
}

// FuzzRanges: what is sent for a range set is in order, without overlap, inside the body, and holds
// every byte that a satisfiable range of the set asks for.
func FuzzRanges(f *testing.F) {
	for _, s := range []string{"0-1", "-5", "3-", "0-1,500-501,-2", "5-1", "0-0,0-0", "900-,100-200", ",,1-2", "a-b", "99999999999999999999-"} {
		f.Add(s, int64(1000))
	}
	f.Fuzz(func(t *testing.T, set string, size int64) {
		size = max(size%100_000, 0)
		req := one(message.Range, "bytes="+set)
		stored := &message.Fields{}
		now := time.Unix(2e9, 0)
		kind, first, last := Range(req, stored, size, now)
		spans := []Span{{first, last}}
		switch kind {
		case Several:
			if spans = Spans(nil, req, size); len(spans) < 2 {
				t.Fatalf("several, and yet %v", spans)
			}
		case Part:
		default:
			return
		}
		at := int64(-1)
		for _, s := range spans {
			if s.First <= at || s.First > s.Last || s.Last >= size {
				t.Fatalf("%v of %d bytes", spans, size)
			}
			at = s.Last
		}
		for _, one := range strings.Split(set, ",") {
			r, ok := rangeSpec([]byte(one))
			if !ok {
				continue
			}
			if want, ok := r.in(size); ok && !slices.ContainsFunc(spans, func(s Span) bool { return s.First <= want.First && want.Last <= s.Last }) {
				t.Fatalf("%q asks for %v of %d bytes, and gets %v", set, want, size, spans)
			}
		}
	})
}

// FuzzSearch: No-Vary-Search never panics, and what is not a dictionary says nothing.
func FuzzSearch(f *testing.F) {
	for _, s := range []string{`key-order, params=("a" "b"), except=("c")`, `params`, `params=?0`, `params=("a";x=1)`, `params=()`, `key-order=?1, params, except=("x\"y")`, "", `=`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, v string) {
		fields := one(message.NoVarySearch, v)
		s := ParseSearch(fields)
		fields.AddString(message.NoVarySearch, "&")
		if !s.Exact() && !func() bool { b := ParseSearch(fields); return b.Exact() }() {
			t.Fatalf("%q with a bad line is %+v", v, s)
		}
		if len(s.Names) > maxSearchNames {
			t.Fatalf("%d names", len(s.Names))
		}
	})
}
