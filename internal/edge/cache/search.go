package cache

import (
	"bytes"
	"fmt"
	"math/rand/v2"

	"github.com/relais-edge/relais/internal/edge/cache/semantics"
	"github.com/relais-edge/relais/internal/edge/cache/store"
	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/http/syntax"
	"github.com/relais-edge/relais/internal/stage"
)

// searchRule is what the last answer under a path said of its query (No-Vary-Search). It is noted
// under the path, and its text is in the keys that it makes, so that answers with another rule are
// never found by it. A rule that is learned anew has another text: what was stored under the one that is forgotten
// could not be invalidated meanwhile.
type searchRule struct {
	semantics.Search
	said, text string
}

// maxPairs bounds the parameters of a query that a rule is applied to.
const maxPairs = 64

// appendPath appends the key under which the rule of x's path is.
func appendPath(dst []byte, x *stage.Exchange, path []byte) []byte {
	dst = append(appendOrigin(dst, x), path...)
	return append(dst, " search"...) // no path has a space
}

// searchOf is the rule of a path, or nil.
func (s *Stage) searchOf(scratch []byte, x *stage.Exchange, path []byte) (*searchRule, []byte) {
	scratch = appendPath(scratch[:0], x, path)
	if n := s.notes.Get(s.tiers.HashOf(scratch), scratch); n != nil {
		return n.search, scratch
	}
	return nil, scratch
}

// alias makes l's key the one under which answers with the rule of x's path are, if there is one.
func (s *Stage) alias(l *local, x *stage.Exchange) bool {
	if !s.searches.Load() || s.passUntil(l.hash, l.key) != 0 {
		return false
	}
	var r *searchRule
	if r, l.scratch = s.searchOf(l.scratch, x, x.In.Path()); r == nil {
		return false
	}
	key, ok := r.append(l.scratch[:0], l.rule.keyer, x, x.In.Path(), x.Query())
	l.scratch = key
	if !ok {
		return false
	}
	l.key, l.scratch = l.scratch, l.key
	l.hash = s.tiers.HashOf(l.key)
	l.aliased = true
	return true
}

// append appends the key of a target under the rule; false when its query has too many parameters.
func (r *searchRule) append(dst []byte, k *keyer, x *stage.Exchange, path, query []byte) ([]byte, bool) {
	dst = append(appendOrigin(dst, x), path...)
	dst = append(dst, ' ')
	dst = append(dst, r.text...)
	at := len(dst)
	dst = k.appendTarget(dst, nil, query) // what the policy leaves of the query
	var pairs [maxPairs]span
	n := 0
	for i := at + 1; i < len(dst); {
		end := len(dst)
		if j := bytes.IndexByte(dst[i:], '&'); j >= 0 {
			end = i + j
		}
		if p := dst[i:end]; len(p) > 0 && !r.ignores(p) {
			if n == maxPairs {
				return dst, false
			}
			pairs[n] = span{i, end}
			n++
		}
		i = end + 1
	}
	if r.AnyOrder {
		for i := 1; i < n; i++ {
			for j := i; j > 0 && bytes.Compare(pairs[j].name(dst), pairs[j-1].name(dst)) < 0; j-- {
				pairs[j], pairs[j-1] = pairs[j-1], pairs[j]
			}
		}
	}
	// What counts is written behind, then over what came.
	end := len(dst)
	for _, p := range pairs[:n] {
		dst = append(dst, '&')
		dst = append(dst, dst[p.from:p.to]...)
	}
	return appendVariant(dst[:at+copy(dst[at:], dst[end:])], x), true
}

type span struct{ from, to int }

func (s span) name(b []byte) []byte {
	name, _, _ := bytes.Cut(b[s.from:s.to], []byte{'='})
	return name
}

// ignores says whether the parameter, name=value, does not count.
func (r *searchRule) ignores(p []byte) bool {
	for _, n := range r.Names {
		if formName(p, n) {
			return !r.All
		}
	}
	return r.All
}

// formName says whether the name of a parameter is n, which may be encoded too, once both are decoded
// (application/x-www-form-urlencoded).
func formName(p []byte, n string) bool {
	i, j := 0, 0
	for i < len(p) && p[i] != '=' && j < len(n) {
		a, ai := formByte(string(p[i:min(i+3, len(p))]))
		b, bi := formByte(n[j:min(j+3, len(n))])
		if a != b {
			return false
		}
		i, j = i+ai, j+bi
	}
	return j == len(n) && (i == len(p) || p[i] == '=')
}

// formByte decodes the first byte of s, and says how many bytes it took.
func formByte(s string) (byte, int) {
	switch {
	case s[0] == '+':
		return ' ', 1
	case s[0] == '%' && len(s) == 3:
		if v, ok := syntax.UnhexPair(s[1], s[2]); ok {
			return v, 3
		}
	}
	return s[0], 1
}

// home is where an answer to x is stored: under x's own key, or that of the rule it gives.
type home struct {
	key  []byte
	hash store.Hash
	rule *searchRule
}

// homeOf finds the home of an answer with these fields. Key is that under which x was looked up, and
// exact says that it is x's own.
func (s *Stage) homeOf(x *stage.Exchange, r *rule, kept *message.Fields, key []byte, h store.Hash, exact bool) home {
	if kept.Has(message.NoVarySearch) {
		if sr := (&searchRule{Search: semantics.ParseSearch(kept)}); !sr.Exact() {
			sr.said = fmt.Sprintf("%t %t %q", sr.AnyOrder, sr.All, sr.Names)
			if old, _ := s.searchOf(nil, x, x.In.Path()); old != nil && old.said == sr.said {
				sr = old
			} else {
				sr.text = fmt.Sprintf("%s %x", sr.said, rand.Uint64())
			}
			if k, ok := sr.append(nil, r.keyer, x, x.In.Path(), x.Query()); ok {
				return home{k, s.tiers.HashOf(k), sr}
			}
		}
	}
	if exact {
		return home{key: key, hash: h}
	}
	k := r.append(nil, x)
	return home{key: k, hash: s.tiers.HashOf(k)}
}
