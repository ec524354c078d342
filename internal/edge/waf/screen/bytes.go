package screen

import (
	"math/bits"
	"regexp/syntax"
	"slices"
	"strings"
	"unicode"
)

// byteSet is a set of bytes; all bytes beyond ASCII are one member, bit 0 of the last word.
type byteSet [3]uint64

func (b *byteSet) add(r rune) {
	if r >= 0x80 {
		b[2] = 1
		return
	}
	b[r>>6] |= 1 << (r & 63)
}

func (b *byteSet) addFold(r rune) {
	b.add(r)
	for f := unicode.SimpleFold(r); f != r; f = unicode.SimpleFold(f) {
		b.add(f)
	}
}

func (b *byteSet) or(o byteSet) {
	for i := range b {
		b[i] |= o[i]
	}
}

func (b *byteSet) meets(o *byteSet) bool {
	return b[0]&o[0]|b[1]&o[1]|b[2]&o[2] != 0
}

// common guesses how often a short text of ordinary traffic holds one of the bytes, in percent.
func (b *byteSet) common() int {
	n := 0
	for r := range rune(0x80) {
		if b[r>>6]>>(r&63)&1 == 0 {
			continue
		}
		switch {
		case r >= 'a' && r <= 'z' || r >= '0' && r <= '9':
			n += 40
		case r >= 'A' && r <= 'Z':
			n += 20
		case strings.ContainsRune("./-_= ", r):
			n += 25
		case strings.ContainsRune(":,;%&?+()", r):
			n += 8
		default:
			n++
		}
	}
	return n + 5*bits.OnesCount64(b[2])
}

const (
	maxNeeds = 3  // sets kept of an expression
	rare     = 90 // a set that is more common saves nothing
)

// neededBytes returns at most maxNeeds sets; every text that the parsed expression matches holds
// a byte of each. Bytes beyond ASCII are one, so that what folds beyond ASCII is covered.
func neededBytes(re *syntax.Regexp) []byteSet {
	return rarest(needs(re, 0))
}

func rarest(list []byteSet) []byteSet {
	slices.SortStableFunc(list, func(a, b byteSet) int { return a.common() - b.common() })
	list = slices.Compact(list)
	for len(list) > 0 && (len(list) > maxNeeds || list[len(list)-1].common() > rare) {
		list = list[:len(list)-1]
	}
	return list
}

func needs(re *syntax.Regexp, depth int) []byteSet {
	if depth > 200 {
		return nil
	}
	switch re.Op {
	case syntax.OpLiteral:
		var out []byteSet
		for _, r := range re.Rune[:min(len(re.Rune), maxLength)] {
			var b byteSet
			if re.Flags&syntax.FoldCase != 0 {
				b.addFold(r)
			} else {
				b.add(r)
			}
			out = append(out, b)
		}
		return rarest(out)
	case syntax.OpCharClass:
		var b byteSet
		for i := 0; i+1 < len(re.Rune); i += 2 {
			for r := re.Rune[i]; r <= re.Rune[i+1] && r < 0x80; r++ {
				b.add(r)
			}
			if re.Rune[i+1] >= 0x80 {
				b.add(0x80)
			}
		}
		return []byteSet{b}
	case syntax.OpCapture, syntax.OpPlus:
		return needs(re.Sub[0], depth+1)
	case syntax.OpRepeat:
		if re.Min > 0 {
			return needs(re.Sub[0], depth+1)
		}
	case syntax.OpConcat:
		var out []byteSet
		for _, s := range re.Sub {
			if out = append(out, needs(s, depth+1)...); len(out) > 8*maxNeeds {
				out = rarest(out)
			}
		}
		return rarest(out)
	case syntax.OpAlternate:
		return needsOfAny(re.Sub, depth)
	}
	return nil
}

// needsOfAny joins the rarest sets of all branches, then the next ones where all have more.
func needsOfAny(subs []*syntax.Regexp, depth int) []byteSet {
	var of [][]byteSet
	most := 0
	for _, s := range subs {
		n := rarest(needs(s, depth+1))
		if len(n) == 0 {
			return nil
		}
		of, most = append(of, n), max(most, len(n))
	}
	out := make([]byteSet, most)
	for k := range out {
		for _, n := range of {
			out[k].or(n[min(k, len(n)-1)])
		}
	}
	return rarest(out)
}

// bytesOf returns the bytes in v and their kinds. A lone dash is no remark.
func (t *kindTable) bytesOf(v []byte) (has byteSet, kinds uint16) {
	var in [4]uint64
	kinds = kindAlways
	last := byte(0)
	for _, c := range v {
		e := t[c]
		if c == '-' && last != '-' {
			e &^= kindRemark
		}
		kinds |= e
		last = c
		in[c>>6] |= 1 << (c & 63)
	}
	has[0], has[1] = in[0], in[1]
	if in[2]|in[3] != 0 {
		has[2] = 1
	}
	return has, kinds
}
