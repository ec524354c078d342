package screen

import (
	"strconv"
	"strings"
)

// variable is a collection or a value of a request that the screen feeds to the rules.
type variable uint8

const (
	varNone variable = iota
	varArgs
	varArgsNames
	varArgsGet
	varArgsGetNames
	varArgsPost
	varArgsPostNames
	varCookies
	varCookiesNames
	varHeaders
	varHeadersNames
	varFiles
	varFilesNames
	varPartHeaders
	varXML
	varLine
	varMethod
	varProtocol
	varURI
	varURIRaw
	varFilename
	varBasename
	varQuery
	varBody
	varBodyLength
	varProcessor
	varQuiet // of a request without error: empty
	varCount
)

// fed gives the variables by name.
var fed = map[string]variable{
	"ARGS": varArgs, "ARGS_NAMES": varArgsNames, "ARGS_GET": varArgsGet, "ARGS_GET_NAMES": varArgsGetNames,
	"ARGS_POST": varArgsPost, "ARGS_POST_NAMES": varArgsPostNames,
	"REQUEST_COOKIES": varCookies, "REQUEST_COOKIES_NAMES": varCookiesNames, "REQUEST_HEADERS": varHeaders,
	"REQUEST_HEADERS_NAMES": varHeadersNames, "REQUEST_LINE": varLine, "REQUEST_METHOD": varMethod,
	"REQUEST_PROTOCOL": varProtocol, "REQUEST_URI": varURI, "REQUEST_URI_RAW": varURIRaw,
	"REQUEST_FILENAME": varFilename, "REQUEST_BASENAME": varBasename, "QUERY_STRING": varQuery,
	"REQUEST_BODY": varBody, "REQUEST_BODY_LENGTH": varBodyLength, "REQBODY_PROCESSOR": varProcessor,
	"REQBODY_ERROR": varQuiet, "MULTIPART_STRICT_ERROR": varQuiet, "ARGUMENTS_LIMIT_REACHED": varQuiet,
	"URLENCODED_ERROR": varQuiet,
	"FILES":            varFiles, "FILES_NAMES": varFilesNames, "MULTIPART_PART_HEADERS": varPartHeaders, "XML": varXML,
}

// settings are the TX variables, as far as the configuration alone fixes them.
type settings struct {
	values  map[string]string
	dynamic map[string]bool // a name, or with * at the end the start of names
	writes  map[string]int  // how many actions write a name, as written

	// counter is what counts names of arguments, and counters how many actions write names
	// that begin with paramcounter or hold a macro in front.
	counter  string
	counters int
}

// newSettings finds what is written elsewhere than by an unconditional set-up rule: such
// variables prove nothing. given are set before the first rule.
func newSettings(rules []secRule, given map[string]string, unknown []string) *settings {
	s := &settings{values: map[string]string{}, dynamic: map[string]bool{}, writes: map[string]int{}}
	for k, v := range given {
		s.values[strings.ToLower(k)] = v
	}
	for _, u := range unknown {
		s.dynamic[strings.ToLower(u)] = true
	}
	for i := range rules {
		for j := range rules[i].links {
			for _, sv := range rules[i].links[j].setvars {
				name, val := splitSetvar(sv)
				s.writes[name]++
				s.noteCounter(&rules[i].links[j], name, val)
				if !setsUp(&rules[i], name) || strings.HasPrefix(val, "+") || strings.HasPrefix(val, "-") {
					if k := strings.IndexByte(name, '%'); k >= 0 {
						name = name[:k] + "*"
					}
					s.dynamic[name] = true
				}
			}
		}
	}
	return s
}

// noteCounter notes who counts names of arguments.
func (s *settings) noteCounter(l *link, name, val string) {
	if !strings.HasPrefix(name, "paramcounter") && !strings.HasPrefix(name, "%") {
		return
	}
	s.counters++
	if len(l.targets) == 1 && l.targets[0] == (target{variable: "ARGS_NAMES"}) && len(l.trans) == 0 && val == "+1" {
		s.counter = name
	}
}

// splitSetvar reads tx.name=value; a leading ! deletes, which makes the variable dynamic.
func splitSetvar(sv string) (name, value string) {
	name, value, _ = strings.Cut(sv, "=")
	name = strings.ToLower(strings.TrimSpace(name))
	if rest, ok := strings.CutPrefix(name, "!"); ok {
		return strings.TrimPrefix(rest, "tx."), "-"
	}
	return strings.TrimPrefix(name, "tx."), value
}

// setsUp says that a rule sets name without a condition on the request: a SecAction, or a
// default for a variable that is not set, of phase 1.
func setsUp(r *secRule, name string) bool {
	if len(r.links) != 1 || r.phase > 1 {
		return false
	}
	l := &r.links[0]
	if l.op == "" {
		return true
	}
	return l.op == "eq" && l.arg == "0" && !l.neg && len(l.targets) == 1 && l.targets[0].variable == "TX" &&
		l.targets[0].count && !l.targets[0].regex && strings.EqualFold(l.targets[0].key, name)
}

func (s *settings) isDynamic(name string) bool {
	if s.dynamic[name] {
		return true
	}
	for d := range s.dynamic {
		if p, ok := strings.CutSuffix(d, "*"); ok && strings.HasPrefix(name, p) {
			return true
		}
	}
	return false
}

// run takes over what a set-up rule sets. certain is false when it stands where a condition on
// the request may skip it.
func (s *settings) run(r *secRule, certain bool) {
	l := &r.links[0]
	for _, sv := range l.setvars {
		name, val := splitSetvar(sv)
		if s.isDynamic(name) || !setsUp(r, name) {
			continue
		}
		if _, set := s.values[name]; set && l.op != "" {
			continue
		}
		v, ok := s.expand(val)
		if !ok || !certain {
			s.dynamic[name] = true
			continue
		}
		s.values[name] = v
	}
}

// maxValue bounds what macros are expanded to, since each may double what another holds.
const maxValue = 16 << 10

// expand puts in the variables that are fixed; ok is false when another one is named, or when
// the result is too long.
func (s *settings) expand(v string) (string, bool) {
	ok, room := true, maxValue-len(v)
	out := macro.ReplaceAllStringFunc(v, func(m string) string {
		name, tx := strings.CutPrefix(strings.ToLower(m[2:len(m)-1]), "tx.")
		c, set := s.values[name]
		room -= len(c)
		if ok = ok && tx && set && room >= 0 && !s.isDynamic(name); !ok {
			return ""
		}
		return c
	})
	return out, ok
}

// constant judges a link over a TX variable that the configuration fixes.
func (s *settings) constant(l *link) (result, ok bool) {
	if len(l.targets) != 1 || l.op == "" {
		return false, false
	}
	t := &l.targets[0]
	name := strings.ToLower(t.key)
	if _, err := strconv.Atoi(name); err == nil || t.variable != "TX" || t.regex || name == "" || s.isDynamic(name) || t.count && len(l.trans) > 0 {
		return false, false
	}
	v, set := s.values[name]
	arg, known := s.expand(l.arg)
	if !known {
		return false, false
	}
	cmp, err := newCompare(l.op, arg)
	switch {
	case t.count && err == nil:
		n := 0
		if set {
			n = 1
		}
		return cmp(n) != l.neg, true
	case t.count:
		return false, false
	case !set:
		return false, true // a variable that is not there is no value to judge
	case err != nil:
		return false, false
	}
	b := []byte(v)
	for _, n := range l.trans {
		f := findTransform(n)
		if f == nil {
			return false, false
		}
		b = f.apply(nil, b)
	}
	return cmp(atoi(b)) != l.neg, true
}
