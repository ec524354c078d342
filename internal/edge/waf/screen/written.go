package screen

import (
	"regexp"
	"regexp/syntax"
	"slices"
	"strings"
)

// written makes the conditions of a rule that is one question to all TX variables whose names
// an expression finds, such as TX:/multipart_headers_content_types_*/. Any one of them makes the
// rule match. Such variables come from earlier rules, and their names may hold what the client
// sent: the name of an argument or of a field. ok is false when that cannot be followed.
func (c *compiler) written(at int, r *secRule) (any []condition, ok bool, err error) {
	l := &r.links[0]
	words := namesOf(&l.targets[0])
	if words == nil {
		return nil, false, nil
	}
	for i := range c.source[:at] {
		w := &c.source[i]
		if w.marker != "" || w.phase > r.phase {
			continue
		}
		for j := range w.links {
			for _, sv := range w.links[j].setvars {
				name, val := splitSetvar(sv)
				cond, may, err := c.writer(w, j, name, val, l, words)
				if err != nil || may && cond.link < 0 {
					return nil, false, err
				}
				if may {
					any = append(any, cond)
				}
			}
		}
	}
	for name := range c.set.values {
		if holdsWord(name, words) {
			return nil, false, nil
		}
	}
	return any, true, nil
}

// namesOf are words of which one is in every name that the target's expression finds.
func namesOf(t *target) []string {
	re, err := syntax.Parse(strings.ToLower(t.key), syntax.Perl)
	if err != nil {
		return nil
	}
	cs := requiredWords(re.Simplify())
	if len(cs) == 0 || len(cs[0]) > 16 || slices.ContainsFunc(cs[0], func(w string) bool { return strings.Contains(w, ":") }) {
		return nil
	}
	return cs[0]
}

func holdsWord(s string, words []string) bool {
	return slices.ContainsFunc(words, func(w string) bool { return strings.Contains(s, w) })
}

// across says that a word may begin in a and end in what follows it.
func across(a string, words []string) bool {
	return slices.ContainsFunc(words, func(w string) bool {
		for n := 1; n < len(w); n++ {
			if strings.HasSuffix(a, w[:n]) {
				return true
			}
		}
		return false
	})
}

// writer says whether link j of w may write a name with one of the words, and when; a condition
// without a link means that it is not known.
func (c *compiler) writer(w *secRule, j int, name, val string, l *link, words []string) (cond condition, may bool, err error) {
	unknown := condition{link: -1}
	from := strings.IndexByte(name, '%')
	if from < 0 {
		return unknown, holdsWord(name, words), nil
	}
	wl := &w.links[j]
	prefix, m := name[:from], name[from:]
	if holdsWord(prefix, words) {
		return c.writtenGroup(w, wl, val, l)
	}
	whole := macro.FindString(m) == m
	if !whole || across(prefix, words) {
		return unknown, true, nil
	}
	chain := []string{"lowercase"}
	var targets []target
	switch {
	case groupOf(m[2:len(m)-1]) >= 0:
		chain = append(slices.Clone(wl.trans), chain...)
	case m == "%{matched_var_name}":
	case c.numbers(m[2 : len(m)-1]):
		return unknown, false, nil // digits hold no word
	default:
		return unknown, true, nil
	}
	for _, t := range wl.targets {
		if v := fed[t.variable]; t.count || t.minus || v == varNone || v != varArgsNames && v != varHeadersNames && v != varCookiesNames && len(chain) == 1 {
			return unknown, true, nil
		}
		targets = append(targets, t)
	}
	find := link{op: "pm", arg: strings.Join(words, " "), trans: chain, dir: wl.dir}
	no, err := c.probes(w.id, &find, targets, nil, nil)
	if no < 0 {
		return unknown, true, err
	}
	return condition{link: no}, true, err
}

// numbers says that all that is ever written to a variable is a number.
func (c *compiler) numbers(name string) bool {
	name, ok := strings.CutPrefix(name, "tx.")
	if _, given := c.set.values[name]; !ok || given && !c.set.isDynamic(name) {
		return false
	}
	for i := range c.source {
		for j := range c.source[i].links {
			for _, sv := range c.source[i].links[j].setvars {
				n, v := splitSetvar(sv)
				if (n == name || strings.Contains(n, "%")) && strings.Trim(v, "+-0123456789") != "" && (n == name || strings.HasPrefix(n, "%")) {
					return false
				}
			}
		}
	}
	return true
}

// writtenGroup is the condition that a group of w's only link is written and that l finds it.
func (c *compiler) writtenGroup(w *secRule, wl *link, val string, l *link) (condition, bool, error) {
	unknown := condition{link: -1}
	m := macro.FindString(val)
	if len(w.links) != 1 || !wl.capture || wl.op != "rx" || wl.neg || wl.multi || m != val || val == "" || groupOf(m[2:len(m)-1]) < 0 || arbitraryBytes("(?sm)"+wl.arg) {
		return unknown, true, nil
	}
	g := &capture{neg: l.neg, template: newTemplate(val)}
	for _, n := range l.trans {
		f := findTransform(n)
		if f == nil {
			return unknown, true, nil
		}
		g.chain = append(g.chain, f)
	}
	var err error
	if g.re, err = regexp.Compile("(?sm)" + wl.arg); err != nil || groupOf(m[2:len(m)-1]) > g.re.NumSubexp() {
		return unknown, true, nil
	}
	arg, ok := c.set.expand(l.arg)
	if l.op == "rx" {
		arg, ok = l.arg, true
	}
	if !ok {
		return unknown, true, nil
	}
	if g.judge, err = newOperator(c.fsys, l, arg); err != nil || l.neg && !g.judge.exact {
		return unknown, true, err
	}
	for _, t := range wl.targets {
		if t.count || fed[t.variable] == varNone {
			return unknown, true, nil
		}
	}
	no, err := c.probes(w.id, wl, wl.targets, nil, g)
	if no < 0 {
		return unknown, true, err
	}
	return condition{link: no}, true, err
}

// groups recognises "@rx with capture, perhaps setvar:tx.n=..%{tx.k}.." before a link that
// judges only a group, or only tx.n.
func (c *compiler) groups(l, next *link) *capture {
	if !l.capture || l.op != "rx" || l.neg || len(next.targets) != 1 || next.op == "" || arbitraryBytes("(?sm)"+l.arg) {
		return nil
	}
	t := &next.targets[0]
	if t.variable != "TX" || t.count || t.minus {
		return nil
	}
	text := c.template(l, t)
	if text == "" {
		return nil
	}
	g := &capture{neg: next.neg, template: newTemplate(text)}
	for _, n := range next.trans {
		f := findTransform(n)
		if f == nil {
			return nil
		}
		g.chain = append(g.chain, f)
	}
	var err error
	if g.re, err = regexp.Compile("(?sm)" + l.arg); err != nil {
		return nil
	}
	for _, m := range macro.FindAllString(text+next.arg, -1) {
		if groupOf(m[2:len(m)-1]) > g.re.NumSubexp() {
			return nil // it would be what an earlier rule captured
		}
	}
	if arg, ok := c.set.expand(next.arg); ok {
		g.judge, err = newOperator(c.fsys, next, arg)
		if err != nil || !g.judge.exact {
			return nil
		}
		return g
	}
	if m := macro.FindString(next.arg); next.op != "streq" || m != next.arg || groupOf(m[2:len(m)-1]) < 0 {
		return nil
	}
	g.arg = newTemplate(next.arg)
	return g
}

// template is what t holds after l has matched, as a text with groups, or empty.
func (c *compiler) template(l *link, t *target) string {
	key := strings.ToLower(t.key)
	if g := "tx." + key; !t.regex && groupOf(g) >= 0 {
		return "%{" + g + "}"
	}
	found := ""
	for _, sv := range l.setvars {
		name, val := splitSetvar(sv)
		prefix := strings.TrimPrefix(key, "^")
		if name != key && (!t.regex || !strings.HasPrefix(key, "^") || regexp.QuoteMeta(prefix) != prefix || !strings.HasPrefix(name, prefix)) {
			continue
		}
		for _, m := range macro.FindAllString(val, -1) {
			if groupOf(m[2:len(m)-1]) < 0 {
				return ""
			}
		}
		if found != "" || c.writers(name) != 1 {
			return ""
		}
		found = val
	}
	return found
}
