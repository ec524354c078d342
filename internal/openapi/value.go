package openapi

import (
	"errors"
	"math"
	"math/big"
	"slices"
	"strconv"
	"strings"
)

// bound reads a number of a schema.
func (t *tree) bound(i int) (*float64, error) {
	if t.nodes[i].kind != kindNumber {
		return nil, errors.New("is not a number")
	}
	f := t.float(i)
	return &f, nil
}

// count reads a length of a schema.
func (t *tree) count(i int) (int, error) {
	f := t.float(i)
	if t.nodes[i].kind != kindNumber || !t.whole(i) || f < 0 {
		return 0, errors.New("is not a whole number from 0")
	}
	return int(min(f, math.MaxInt32)), nil
}

// rational reads a number exactly. Those with many digits or a large exponent, which would take much memory, are
// not read.
func (t *tree) rational(i int) (*big.Rat, bool) {
	raw := string(t.raw(i))
	if t.nodes[i].kind != kindNumber || len(raw) > 64 {
		return nil, false
	}
	if e := strings.IndexAny(raw, "eE"); e >= 0 {
		if n, err := strconv.Atoi(raw[e+1:]); err != nil || n < -400 || n > 400 {
			return nil, false
		}
	}
	return new(big.Rat).SetString(raw)
}

// constant reads a value of enum or const.
func (t *tree) constant(i int) constant {
	c := constant{kind: t.nodes[i].kind}
	switch c.kind {
	case kindNumber:
		c.number = t.float(i)
	case kindString:
		c.text = string(t.str(i, nil))
	default:
		c.text = string(t.canonical(i, nil))
	}
	return c
}

// sameAs says whether the value of node i is one of some constants. What it stands for is worked out once.
func (c *checker) sameAs(i int, list []constant) bool {
	n := &c.nodes[i]
	var number float64
	var text []byte
	known := false
	for k := range list {
		o := &list[k]
		if o.kind != n.kind {
			continue
		}
		if n.kind == kindNull {
			return true
		}
		if !known {
			known = true
			switch n.kind {
			case kindNumber:
				number = c.float(i)
			case kindString:
				if text = c.str(i, c.buf); n.escaped {
					c.buf = text
				}
			default:
				if c.spent(int(n.next) - i + int(n.end-n.start)/16) {
					return false
				}
				text = c.canonical(i, nil)
			}
		}
		if n.kind == kindNumber && number == o.number || n.kind != kindNumber && string(text) == o.text {
			return true
		}
	}
	return false
}

// canonical writes a value in a form that two equal values share: members sorted by name, numbers in one form.
func (t *tree) canonical(i int, dst []byte) []byte {
	switch n := &t.nodes[i]; n.kind {
	case kindNumber:
		return strconv.AppendFloat(dst, t.float(i), 'g', -1, 64)
	case kindString:
		return strconv.AppendQuote(dst, string(t.str(i, nil)))
	case kindArray:
		dst = append(dst, '[')
		for k := i + 1; k < int(n.next); k = int(t.nodes[k].next) {
			dst = append(t.canonical(k, dst), ',')
		}
		return append(dst, ']')
	case kindObject:
		parts := make([]string, 0, n.size)
		for k := i + 1; k < int(n.next); k = int(t.nodes[k+1].next) {
			parts = append(parts, string(t.canonical(k+1, append(strconv.AppendQuote(nil, string(t.str(k, nil))), ':'))))
		}
		slices.Sort(parts)
		dst = append(dst, '{')
		for _, p := range parts {
			dst = append(append(dst, p...), ',')
		}
		return append(dst, '}')
	}
	return append(dst, t.raw(i)...)
}

// pointer writes where a node stands, as a JSON pointer (RFC 6901) without the values of a visitor: of a name that
// no schema knows only the beginning is shown.
func (t *tree) pointer(target int) string { return t.place(target, shown) }

// path writes where a node of a document stands, as a JSON pointer.
func (t *tree) path(target int) string {
	return strings.TrimSuffix(t.place(target, func(name []byte) string {
		return strings.ReplaceAll(strings.ReplaceAll(string(name), "~", "~0"), "/", "~1")
	}), "/")
}

func (t *tree) place(target int, write func([]byte) string) string {
	var b strings.Builder
	for i := 0; i != target; {
		n := &t.nodes[i]
		index, k := 0, i+1
		for k < int(n.next) {
			v := k
			if n.kind == kindObject {
				v = k + 1
			}
			if target < int(t.nodes[v].next) {
				b.WriteByte('/')
				if n.kind == kindObject {
					b.WriteString(write(t.str(k, nil)))
				} else {
					b.WriteString(strconv.Itoa(index))
				}
				if target < v { // the name itself
					return b.String()
				}
				k = v
				break
			}
			index++
			k = int(t.nodes[v].next)
		}
		if k >= int(n.next) {
			break
		}
		i = k
	}
	if b.Len() == 0 {
		return "/"
	}
	return b.String()
}

// shown makes a name from outside fit for a log.
func shown(name []byte) string {
	s := strings.ToValidUTF8(string(name[:min(len(name), 64)]), "?")
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r == '/' {
			return '.'
		}
		return r
	}, s)
}
