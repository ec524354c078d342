package loadreport

// scanner reads the JSON of a report without allocating: an object of numbers, and objects of numbers in
// it. Strings, lists and words are valid values that say nothing.
type scanner struct {
	left  []byte
	names int
	r     Report
	key   [64]byte // a name with that of its object in front
}

func parseJSON(v []byte) (Report, error) {
	s := scanner{left: v, r: none()}
	s.space()
	if err := s.object("", 0); err != nil {
		return none(), err
	}
	if s.space(); len(s.left) > 0 {
		return none(), ErrSyntax
	}
	return s.r.finish()
}

func (s *scanner) space() {
	for len(s.left) > 0 && isSpace(s.left[0]) {
		s.left = s.left[1:]
	}
}

// next takes a character if it is there.
func (s *scanner) next(c byte) bool {
	s.space()
	if len(s.left) == 0 || s.left[0] != c {
		return false
	}
	s.left = s.left[1:]
	return true
}

// object reads an object that has the name in.
func (s *scanner) object(in string, depth int) error {
	if depth > maxDepth || !s.next('{') {
		return ErrSyntax
	}
	if s.next('}') {
		return nil
	}
	for {
		s.space()
		name, err := s.text()
		if err != nil {
			return err
		}
		if s.names++; s.names > maxNames || !s.next(':') {
			return ErrSyntax
		}
		if err := s.value(in, name, depth); err != nil {
			return err
		}
		if s.next('}') {
			return nil
		}
		if !s.next(',') {
			return ErrSyntax
		}
	}
}

// value reads what a name stands for. Numbers are taken at the top and in named_metrics.
func (s *scanner) value(in string, name []byte, depth int) error {
	s.space()
	if len(s.left) == 0 {
		return ErrSyntax
	}
	switch c := s.left[0]; {
	case c == '{':
		inner := "other"
		if in == "" && depth == 0 && (string(name) == "named_metrics" || string(name) == "namedMetrics") {
			inner = "named_metrics"
		}
		return s.object(inner, depth+1)
	case c == '[':
		return s.list(depth)
	case c == '"':
		_, err := s.text()
		return err
	case c == '-' || c >= '0' && c <= '9':
		n, rest, err := number(s.left)
		if err != nil {
			return err
		}
		s.left = rest
		return s.take(in, name, n)
	}
	return s.word()
}

func (s *scanner) take(in string, name []byte, n float64) error {
	switch in {
	case "":
		return s.r.orca(name, n)
	case "named_metrics":
		if len(in)+1+len(name) > len(s.key) {
			return nil
		}
		key := append(append(append(s.key[:0], in...), '.'), name...)
		return s.r.orca(key, n)
	}
	return nil
}

// text reads a string. One with an escape is no name that is known, so escapes are left as they are.
func (s *scanner) text() ([]byte, error) {
	if len(s.left) == 0 || s.left[0] != '"' {
		return nil, ErrSyntax
	}
	for i := 1; i < len(s.left); i++ {
		switch c := s.left[i]; {
		case c == '"':
			t := s.left[1:i]
			s.left = s.left[i+1:]
			return t, nil
		case c == '\\':
			i++
		case c < ' ':
			return nil, ErrSyntax
		}
	}
	return nil, ErrSyntax
}

func (s *scanner) list(depth int) error {
	if depth >= maxDepth || !s.next('[') {
		return ErrSyntax
	}
	if s.next(']') {
		return nil
	}
	for {
		if err := s.value("other", nil, depth+1); err != nil {
			return err
		}
		if s.next(']') {
			return nil
		}
		if !s.next(',') {
			return ErrSyntax
		}
		if s.names++; s.names > maxNames {
			return ErrSyntax
		}
	}
}

func (s *scanner) word() error {
	for _, w := range [...]string{"true", "false", "null"} {
		if len(s.left) >= len(w) && string(s.left[:len(w)]) == w {
			s.left = s.left[len(w):]
			return nil
		}
	}
	return ErrSyntax
}
