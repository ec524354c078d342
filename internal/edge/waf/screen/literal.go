package screen

import (
	"regexp/syntax"
	"slices"
	"strings"
	"unicode"
)

const (
	maxClauses  = 3    // clauses kept of an expression
	maxExact    = 512  // strings that a part may be
	maxWords    = 3000 // words of a clause
	maxLength   = 64   // bytes of such a string
	maxFolded   = 24   // members of a character class that are spelled out
	weakestGood = 8    // below it a clause costs more in the scan than it saves
)

// known is what is known of every match of a part of an expression. Words are lower case and
// ASCII; "to hold a word" means without regard to case.
type known struct {
	// exact lists all strings the part can be, nil when that is not known.
	exact []string
	// clauses each list words of which one must be in every match.
	clauses [][]string
}

// requiredWords returns at most maxClauses lists of words; every text that the parsed
// expression matches holds one word of each list, without regard to ASCII case. Folding beyond
// ASCII (U+017F, U+212A) is not covered: the scan answers "all may match" for texts with these.
// It returns nil when nothing useful is known.
func requiredWords(re *syntax.Regexp) [][]string {
	cs := walk(re).all()
	for len(cs) > 0 && worth(cs[len(cs)-1]) < weakestGood {
		cs = cs[:len(cs)-1]
	}
	return cs
}

func shortest(words []string) int {
	m := 1 << 30
	for _, s := range words {
		m = min(m, len(s))
	}
	return m
}

func longest(words []string) int {
	m := 0
	for _, s := range words {
		m = max(m, len(s))
	}
	return m
}

func usable(words []string) bool {
	return len(words) > 0 && len(words) <= maxWords && shortest(words) > 0
}

// worth estimates how rarely ordinary text holds one of the words.
func worth(words []string) float64 {
	if !usable(words) {
		return -1
	}
	short := shortest(words)
	w := float64(min(short, 5)) * 10
	if short == 1 {
		for _, s := range words {
			if len(s) == 1 && (s[0] >= 'a' && s[0] <= 'z' || s[0] >= '0' && s[0] <= '9' || strings.IndexByte(" /.-_=;,:%&", s[0]) >= 0) {
				w -= 3
			}
		}
		w = max(w, 0.1)
	}
	return w - float64(len(words))/300
}

func unique(words []string) []string {
	slices.Sort(words)
	return slices.Compact(words)
}

func best(cs [][]string) [][]string {
	slices.SortStableFunc(cs, func(a, b []string) int {
		switch x, y := worth(a), worth(b); {
		case x > y:
			return -1
		case x < y:
			return 1
		}
		return 0
	})
	return cs[:min(len(cs), maxClauses)]
}

func (k known) all() [][]string {
	cs := slices.Clone(k.clauses)
	if usable(k.exact) {
		cs = append(cs, k.exact)
	}
	return best(cs)
}

func walk(re *syntax.Regexp) known {
	switch re.Op {
	case syntax.OpLiteral:
		if len(re.Rune) > maxLength {
			re = &syntax.Regexp{Op: re.Op, Flags: re.Flags, Rune: re.Rune[:maxLength]}
			return known{clauses: walk(re).all()}
		}
		for _, r := range re.Rune {
			if r > unicode.MaxASCII {
				return known{}
			}
		}
		return known{exact: []string{strings.ToLower(string(re.Rune))}}
	case syntax.OpCharClass:
		return walkClass(re.Rune)
	case syntax.OpEmptyMatch, syntax.OpBeginLine, syntax.OpEndLine, syntax.OpBeginText, syntax.OpEndText,
		syntax.OpWordBoundary, syntax.OpNoWordBoundary:
		return known{exact: []string{""}}
	case syntax.OpCapture:
		return walk(re.Sub[0])
	case syntax.OpPlus:
		return known{clauses: walk(re.Sub[0]).all()}
	case syntax.OpRepeat:
		if re.Min > 0 {
			return known{clauses: walk(re.Sub[0]).all()}
		}
	case syntax.OpQuest:
		if k := walk(re.Sub[0]); k.exact != nil && len(k.exact) < 40 {
			return known{exact: unique(append([]string{""}, k.exact...))}
		}
	case syntax.OpConcat:
		return walkConcat(re.Sub)
	case syntax.OpAlternate:
		return walkAlternate(re.Sub)
	}
	return known{}
}

// walkClass leaves out the two runes that fold into ASCII, as the scan takes care of them. A
// class with any other rune beyond ASCII tells nothing: its other members cannot be dropped.
func walkClass(ranges []rune) known {
	var words []string
	for i := 0; i+1 < len(ranges); i += 2 {
		for r := ranges[i]; r <= ranges[i+1]; r++ {
			if r == 'ſ' || r == '\u212a' {
				continue
			}
			if r > unicode.MaxASCII || len(words) > 2*maxFolded {
				return known{}
			}
			words = append(words, strings.ToLower(string(r)))
		}
	}
	if words = unique(words); len(words) == 0 || len(words) > maxFolded {
		return known{}
	}
	return known{exact: words}
}

func walkConcat(subs []*syntax.Regexp) known {
	cur, whole := []string{""}, true
	var cs [][]string
	flush := func(next []string) {
		whole = false
		if usable(cur) {
			cs = append(cs, slices.Clone(cur))
		}
		cur = next
	}
	for _, sub := range subs {
		k := walk(sub)
		if cs = append(cs, k.clauses...); len(cs) > 8*maxClauses {
			cs = best(cs) // a long expression would keep a clause for each part
		}
		switch {
		case k.exact == nil:
			flush([]string{""})
		case longest(cur)+longest(k.exact) > maxLength:
			flush(k.exact)
		case len(cur)*len(k.exact) > maxExact:
			flush(k.exact)
		default:
			joined := make([]string, 0, len(cur)*len(k.exact))
			for _, a := range cur {
				for _, b := range k.exact {
					joined = append(joined, a+b)
				}
			}
			cur = unique(joined)
		}
	}
	if whole {
		return known{exact: cur, clauses: best(cs)}
	}
	flush(nil)
	return known{clauses: best(cs)}
}

func walkAlternate(subs []*syntax.Regexp) known {
	var exact, union []string
	exactOK, unionOK := true, true
	for _, sub := range subs {
		k := walk(sub)
		if exactOK = exactOK && k.exact != nil && len(exact) <= maxWords; exactOK {
			exact = append(exact, k.exact...)
		}
		cs := k.all()
		if unionOK = unionOK && len(cs) > 0 && len(union) <= maxWords; unionOK {
			union = append(union, cs[0]...)
		}
	}
	var out known
	if exactOK && len(exact) <= maxWords {
		out.exact = unique(exact)
	}
	if unionOK && usable(union) {
		out.clauses = [][]string{unique(union)}
	}
	return out
}
