package semantics

// kind is the type of a structured value (RFC 9651 section 3).
type kind uint8

const (
	kindOther kind = iota // a type that no directive has: decimal, byte sequence, date, display string
	kindBool
	kindInteger
	kindString
	kindToken
	kindList
)

// member is a member of a structured Dictionary.
type member struct {
	key  []byte
	kind kind
	num  int64
	yes  bool
	text []byte // of a string (escapes kept) or token
	// Of an inner list, where the parser keeps them: its strings, and whether it has other items.
	list  []string
	mixed bool
}

// sfParser reads RFC 9651 section 4.2.
type sfParser struct {
	b   []byte
	i   int
	n   int  // members read
	bad bool // the field is not well-formed
	// keep says that the strings of inner lists are wanted.
	keep bool
}

func (p *sfParser) peek() byte {
	if p.i < len(p.b) {
		return p.b[p.i]
	}
	return 0
}

func (p *sfParser) take(c byte) bool {
	if p.i < len(p.b) && p.b[p.i] == c {
		p.i++
		return true
	}
	return false
}

func (p *sfParser) skip(also byte) {
	for p.i < len(p.b) && (p.b[p.i] == ' ' || p.b[p.i] == also) {
		p.i++
	}
}

// next reads the next member of a Dictionary; false at the end, or with bad set.
func (p *sfParser) next(m *member) bool {
	if !p.separator() {
		return false
	}
	*m = member{key: p.key(), kind: kindBool, yes: true}
	p.bad = m.key == nil || p.take('=') && !p.item(m, true) || !p.parameters()
	return !p.bad
}

// separator goes to the next member; false at the end, or with bad set.
func (p *sfParser) separator() bool {
	if p.n == 0 {
		p.skip(' ')
		if p.i == len(p.b) {
			return false
		}
	} else {
		p.skip('\t')
		if p.i == len(p.b) {
			return false
		}
		if !p.take(',') {
			p.bad = true
			return false
		}
		p.skip('\t')
	}
	p.n++
	return true
}

// key reads a key, or returns nil.
func (p *sfParser) key() []byte {
	start := p.i
	if c := p.peek(); (c < 'a' || c > 'z') && c != '*' {
		return nil
	}
	for p.i < len(p.b) {
		c := p.b[p.i]
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '_' && c != '-' && c != '.' && c != '*' {
			break
		}
		p.i++
	}
	return p.b[start:p.i]
}

func (p *sfParser) parameters() bool {
	for p.take(';') {
		p.skip(' ')
		if p.key() == nil {
			return false
		}
		var m member
		if p.take('=') && !p.item(&m, false) {
			return false
		}
	}
	return true
}

// item reads a bare item, or an inner list where that may stand.
func (p *sfParser) item(m *member, list bool) bool {
	c := p.peek()
	switch {
	case c == '(' && list:
		return p.innerList(m)
	case c == '-' || '0' <= c && c <= '9':
		return p.number(m)
	case c == '"':
		return p.str(m)
	case c == '?':
		p.i++
		m.kind, m.yes = kindBool, p.peek() == '1'
		return p.take('0') || p.take('1')
	case c == ':':
		return p.bytes()
	case c == '@':
		p.i++
		return p.number(m) && m.kind == kindInteger && m.as(kindOther)
	case c == '%':
		p.i++
		return p.displayString()
	case c == '*' || 'a' <= lower(c) && lower(c) <= 'z':
		start := p.i
		for p.i < len(p.b) && (isToken(p.b[p.i]) || p.b[p.i] == ':' || p.b[p.i] == '/') {
			p.i++
		}
		m.kind, m.text = kindToken, p.b[start:p.i]
		return true
	}
	return false
}

func (m *member) as(k kind) bool { m.kind = k; return true }

func (p *sfParser) innerList(m *member) bool {
	p.i++
	for {
		p.skip(' ')
		if p.take(')') {
			m.kind = kindList
			return true
		}
		var inner member
		if !p.item(&inner, false) || !p.parameters() {
			return false
		}
		m.mixed = m.mixed || inner.kind != kindString
		if p.keep && len(m.list) <= maxSearchNames {
			m.list = append(m.list, string(unescape(nil, inner.text)))
		}
		if c := p.peek(); c != ' ' && c != ')' {
			return false
		}
	}
}

// number reads an integer of 15 digits at most, or a decimal.
func (p *sfParser) number(m *member) bool {
	neg := p.take('-')
	digits, fraction, decimal := 0, 0, false
	for p.i < len(p.b) {
		c := p.b[p.i]
		if c == '.' && !decimal && digits > 0 {
			if digits > 12 {
				return false
			}
			decimal = true
		} else if '0' <= c && c <= '9' {
			if decimal {
				fraction++
			} else {
				digits++
				m.num = m.num*10 + int64(c-'0')
			}
		} else {
			break
		}
		if digits > 15 || fraction > 3 {
			return false
		}
		p.i++
	}
	if digits == 0 || decimal && fraction == 0 {
		return false
	}
	if neg {
		m.num = -m.num
	}
	m.kind = kindInteger
	if decimal {
		m.kind = kindOther
	}
	return true
}

func (p *sfParser) str(m *member) bool {
	p.i++
	start := p.i
	for p.i < len(p.b) {
		c := p.b[p.i]
		p.i++
		switch {
		case c == '"':
			m.kind, m.text = kindString, p.b[start:p.i-1]
			return true
		case c == '\\':
			if !p.take('"') && !p.take('\\') {
				return false
			}
		case c < 0x20 || c > 0x7e:
			return false
		}
	}
	return false
}

func (p *sfParser) bytes() bool {
	p.i++
	for p.i < len(p.b) {
		c := p.b[p.i]
		p.i++
		if c == ':' {
			return true
		}
		if l := lower(c); (l < 'a' || l > 'z') && (c < '0' || c > '9') && c != '+' && c != '/' && c != '=' {
			return false
		}
	}
	return false
}

func (p *sfParser) displayString() bool {
	if !p.take('"') {
		return false
	}
	for p.i < len(p.b) {
		c := p.b[p.i]
		p.i++
		switch {
		case c == '"':
			return true
		case c == '%':
			if !p.hexDigit() || !p.hexDigit() {
				return false
			}
		case c < 0x20 || c > 0x7e:
			return false
		}
	}
	return false
}

func (p *sfParser) hexDigit() bool {
	c := p.peek()
	p.i++
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'f'
}
