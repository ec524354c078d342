package screen

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"
)

// Bounds of what is read, so that hostile rules end the reading and not the process.
const (
	maxIncludes = 100
	maxRules    = 20_000
	maxRuleText = 1 << 20
	maxTargets  = 200 // of a link
)

// target is one variable of a rule: REQUEST_HEADERS:Host, &ARGS, !ARGS:/re/.
type target struct {
	variable string // upper case
	key      string // as written, without slashes when regex
	regex    bool
	count    bool
	minus    bool
}

// link is one SecRule, or one SecAction, of a chain.
type link struct {
	targets  []target
	op, arg  string // op is lower case; empty in a SecAction
	neg      bool
	trans    []string // lower case
	capture  bool
	multi    bool
	tags     []string
	setvars  []string
	ctls     []string
	chained  bool // another link follows
	dir      string
	metaID   int
	metaPhas int
	pass     bool
	nolog    bool
	disrupt  bool
	skip     string // skipAfter
	jumps    bool   // skip
}

// secRule is a rule with all links of its chain, or a marker.
type secRule struct {
	id, phase int
	links     []link
	marker    string
	where     string
}

func (r *secRule) tags() []string {
	if r.marker != "" {
		return nil
	}
	return r.links[0].tags
}

// directives is what was read of a configuration.
type directives struct {
	rules     []secRule
	argLimit  int // SecArgumentsLimit
	jsonDepth int // SecRequestBodyJsonDepthLimit
	includes  int
	open      bool // the last rule expects another link
}

// ignored are directives that change nothing of what the request rules match.
var ignored = map[string]bool{
	"secruleengine": true, "secauditengine": true, "secauditlog": true, "secauditlogparts": true,
	"secauditlogtype": true, "secauditlogformat": true, "secauditlogrelevantstatus": true,
	"secresponsebodyaccess": true, "secresponsebodymimetype": true, "secresponsebodylimit": true,
	"secresponsebodylimitaction": true, "secdatadir": true, "secdebuglog": true, "secdebugloglevel": true,
	"seccomponentsignature": true, "secrxprefilter": true, "secrequestbodylimit": true,
	"secrequestbodyinmemorylimit": true, "secrequestbodylimitaction": true, "secrequestbodyaccess": true,
	"seccollectiontimeout": true, "secdefaultaction": true,
}

// readDirectives reads SecLang as the engine does: lines, continued by a backslash, comments by
// line. A directive that it does not know is an error: nothing may be proved from half a
// configuration.
func readDirectives(fsys fs.FS, texts []string) (*directives, error) {
	d := &directives{argLimit: 1000, jsonDepth: 1024}
	for i, t := range texts {
		if err := d.read(fsys, t, ".", fmt.Sprintf("directives[%d]", i)); err != nil {
			return nil, err
		}
	}
	if d.open {
		return nil, errors.New("the last rule is chained to a rule that does not come")
	}
	return d, nil
}

func (d *directives) read(fsys fs.FS, text, dir, file string) error {
	var cur strings.Builder
	no := 0
	for line := range strings.SplitSeq(text, "\n") {
		no++
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		if cont, ok := strings.CutSuffix(line, "\\"); ok {
			cur.WriteString(cont)
			if cur.Len() > maxRuleText {
				return fmt.Errorf("%s:%d: a rule of more than %d bytes", file, no, maxRuleText)
			}
			continue
		}
		cur.WriteString(line)
		full := cur.String()
		cur.Reset()
		if err := d.directive(fsys, full, dir, file+":"+strconv.Itoa(no)); err != nil {
			return fmt.Errorf("%s:%d: %w", file, no, err)
		}
	}
	if cur.Len() > 0 {
		return fmt.Errorf("%s: the last line ends in a backslash", file)
	}
	return nil
}

func (d *directives) directive(fsys fs.FS, line, dir, where string) error {
	name, opts, _ := strings.Cut(line, " ")
	name = strings.ToLower(name)
	if name != "secrule" && len(opts) >= 2 && opts[0] == '"' && opts[len(opts)-1] == '"' {
		opts = opts[1 : len(opts)-1]
	}
	opts = strings.TrimSpace(opts)
	if d.open && name != "secrule" && name != "secaction" {
		return fmt.Errorf("%s stands between the rules of a chain", name)
	}
	switch name {
	case "include":
		return d.include(fsys, opts, dir)
	case "secmarker":
		marker := strings.Trim(opts, `"'`)
		if marker == "" {
			return errors.New("a marker without a name")
		}
		d.rules = append(d.rules, secRule{marker: marker, where: where})
		return nil
	case "secaction":
		l := link{dir: dir}
		if err := l.actions(opts); err != nil {
			return err
		}
		return d.add(l, where)
	case "secrule":
		l := link{dir: dir}
		if err := l.rule(opts); err != nil {
			return err
		}
		return d.add(l, where)
	case "secruleremovebyid":
		return d.removeByID(strings.Fields(opts))
	case "secruleremovebytag":
		d.remove(func(r *secRule) bool { return slices.Contains(r.tags(), opts) })
		return nil
	case "secruleupdatetargetbyid":
		return d.updateTargetByID(strings.Fields(opts))
	case "secruleupdatetargetbytag":
		words := strings.Fields(opts)
		if len(words) != 2 {
			return errors.New("SecRuleUpdateTargetByTag wants a tag and one list of targets")
		}
		return d.updateTarget(words[1], func(r *secRule) bool { return slices.Contains(r.tags(), strings.Trim(words[0], `"`)) })
	case "secargumentslimit":
		return number(opts, &d.argLimit)
	case "secrequestbodyjsondepthlimit":
		return number(opts, &d.jsonDepth)
	}
	if ignored[name] {
		return nil
	}
	return fmt.Errorf("the directive %s is not known to the screen", name)
}

func number(s string, to *int) error {
	n, err := strconv.Atoi(strings.TrimSpace(s))
	if err != nil {
		return fmt.Errorf("%q is not a number", s)
	}
	*to = n
	return nil
}

// updateTarget takes targets out of the first link of the rules that pick chooses, as the engine
// does. What adds targets is refused.
func (d *directives) updateTarget(list string, pick func(*secRule) bool) error {
	var l link
	if err := l.variables(strings.Trim(list, `"`)); err != nil {
		return err
	}
	for _, t := range l.targets {
		if !t.minus || t.count {
			return fmt.Errorf("%s is added to a rule: not known to the screen", t.variable)
		}
	}
	for i := range d.rules {
		if r := &d.rules[i]; r.marker == "" && pick(r) {
			if len(r.links[0].targets)+len(l.targets) > maxTargets {
				return fmt.Errorf("a rule with more than %d targets", maxTargets)
			}
			r.links[0].targets = append(slices.Clip(r.links[0].targets), l.targets...)
		}
	}
	return nil
}

// updateTargetByID reads one id or range, and targets.
func (d *directives) updateTargetByID(words []string) error {
	if len(words) != 2 {
		return errors.New("SecRuleUpdateTargetById wants one id or range and one list of targets")
	}
	a, b, err := idRange(words[0])
	if err != nil {
		return err
	}
	return d.updateTarget(words[1], func(r *secRule) bool { return r.id >= a && r.id <= b })
}

// idRange reads an id, or two with a dash between.
func idRange(s string) (a, b int, err error) {
	from, to, ok := strings.Cut(strings.Trim(s, `"`), "-")
	if !ok {
		to = from
	}
	a, err1 := strconv.Atoi(from)
	b, err2 := strconv.Atoi(to)
	if err1 != nil || err2 != nil {
		return 0, 0, fmt.Errorf("%q is no id and no range", s)
	}
	return a, b, nil
}

func (d *directives) include(fsys fs.FS, name, dir string) error {
	if d.includes++; d.includes > maxIncludes {
		return fmt.Errorf("more than %d includes", maxIncludes)
	}
	files := []string{path.Join(dir, name)}
	if strings.Contains(name, "*") {
		var err error
		if files, err = fs.Glob(fsys, name); err != nil {
			return err
		}
	}
	for _, f := range files {
		b, err := fs.ReadFile(fsys, f)
		if err != nil {
			return err
		}
		if err := d.read(fsys, string(b), path.Dir(f), path.Base(f)); err != nil {
			return err
		}
	}
	return nil
}

func (d *directives) add(l link, where string) error {
	if d.open {
		r := &d.rules[len(d.rules)-1]
		r.links = append(r.links, l)
		d.open = l.chained
		return nil
	}
	if len(d.rules) >= maxRules {
		return fmt.Errorf("more than %d rules", maxRules)
	}
	d.rules = append(d.rules, secRule{id: l.metaID, phase: l.metaPhas, links: []link{l}, where: where})
	d.open = l.chained
	return nil
}

// removeByID takes rules out by ids and ranges.
func (d *directives) removeByID(ids []string) error {
	for _, s := range ids {
		a, b, err := idRange(s)
		if err != nil {
			return err
		}
		d.remove(func(r *secRule) bool { return r.id >= a && r.id <= b })
	}
	return nil
}

func (d *directives) remove(pick func(*secRule) bool) {
	d.rules = slices.DeleteFunc(d.rules, func(r secRule) bool { return r.marker == "" && pick(&r) })
}

// rule reads VARIABLES "OPERATOR" "ACTIONS".
func (l *link) rule(s string) error {
	vars, rest, ok := strings.Cut(strings.TrimSpace(s), " ")
	rest = strings.TrimSpace(rest)
	if !ok || rest == "" || rest[0] != '"' {
		return errors.New("a rule without an operator in quotes")
	}
	end := closingQuote(rest)
	if end < 0 {
		return errors.New("an operator whose quotes do not end")
	}
	if err := l.variables(strings.Trim(vars, `"`)); err != nil {
		return err
	}
	l.operator(strings.ReplaceAll(rest[1:end], `\"`, `"`))
	rest = strings.TrimSpace(rest[end+1:])
	if rest == "" {
		l.metaPhas = 2
		return nil
	}
	if len(rest) < 2 || rest[0] != '"' || rest[len(rest)-1] != '"' {
		return errors.New("actions without quotes")
	}
	return l.actions(rest[1 : len(rest)-1])
}

// closingQuote finds the quote that ends s[0]: one with an even number of backslashes before it.
func closingQuote(s string) int {
	slashes := 0
	for i := 1; i < len(s); i++ {
		switch s[i] {
		case '\\':
			slashes++
			continue
		case '"':
			if slashes%2 == 0 {
				return i
			}
		}
		slashes = 0
	}
	return -1
}

func (l *link) variables(s string) error {
	for s != "" {
		var t target
		for s != "" && (s[0] == '!' || s[0] == '&') {
			t.minus = t.minus || s[0] == '!'
			t.count = t.count || s[0] == '&'
			s = s[1:]
		}
		end := strings.IndexAny(s, ":|")
		if end < 0 {
			end = len(s)
		}
		t.variable = strings.ToUpper(s[:end])
		s = s[end:]
		if s != "" && s[0] == ':' {
			s = t.readKey(s[1:])
		}
		if t.variable == "" {
			return errors.New("an empty variable")
		}
		l.targets = append(l.targets, t)
		s = strings.TrimPrefix(s, "|")
	}
	if len(l.targets) == 0 {
		return errors.New("no variables")
	}
	return nil
}

// readKey reads a key, an expression between slashes or in quotes, or a path of XML.
func (t *target) readKey(s string) (rest string) {
	quoted := strings.HasPrefix(s, "'")
	s = strings.TrimPrefix(s, "'")
	if t.variable != "XML" && strings.HasPrefix(s, "/") {
		for i := 1; i < len(s); i++ {
			if s[i] == '\\' {
				i++
				continue
			}
			if s[i] == '/' {
				t.regex, t.key = true, s[1:i]
				s = s[i+1:]
				if quoted {
					s = strings.TrimPrefix(s, "'")
				}
				return s
			}
		}
	}
	end := strings.IndexByte(s, '|')
	if end < 0 {
		end = len(s)
	}
	t.key = strings.Trim(s[:end], "'")
	return s[end:]
}

func (l *link) operator(s string) {
	switch {
	case strings.HasPrefix(s, "!@"):
		l.neg, s = true, s[1:]
	case strings.HasPrefix(s, "!"):
		l.neg, s = true, "@rx "+s[1:]
	case !strings.HasPrefix(s, "@"):
		s = "@rx " + s
	}
	op, arg, _ := strings.Cut(s[1:], " ")
	l.op, l.arg = strings.ToLower(strings.TrimSpace(op)), strings.TrimSpace(arg)
}

func (l *link) actions(s string) error {
	l.metaPhas = 2
	for _, a := range splitActions(s) {
		k, v, _ := strings.Cut(a, ":")
		k, v = strings.ToLower(strings.TrimSpace(k)), strings.TrimSpace(v)
		if n := len(v); n >= 2 && (v[0] == '\'' || v[0] == '"') && v[n-1] == v[0] {
			v = v[1 : n-1]
		}
		if err := l.action(k, v); err != nil {
			return err
		}
	}
	return nil
}

func (l *link) action(k, v string) error {
	switch k {
	case "id":
		return number(v, &l.metaID)
	case "phase":
		switch strings.ToLower(v) {
		case "request":
			l.metaPhas = 2
		case "response":
			l.metaPhas = 4
		case "logging":
			l.metaPhas = 5
		default:
			return number(v, &l.metaPhas)
		}
	case "t":
		if v = strings.ToLower(v); v == "none" {
			l.trans = nil
		} else {
			l.trans = append(l.trans, v)
		}
	case "capture":
		l.capture = true
	case "multimatch":
		l.multi = true
	case "tag":
		l.tags = append(l.tags, v)
	case "chain":
		l.chained = true
	case "pass":
		l.pass = true
	case "nolog":
		l.nolog = true
	case "deny", "block", "drop", "redirect":
		l.disrupt = true
	case "skipafter":
		l.skip = v
	case "skip":
		l.jumps = true
	case "allow", "exec":
		return fmt.Errorf("the action %s is not known to the screen", k)
	case "setvar":
		l.setvars = append(l.setvars, v)
	case "ctl":
		l.ctls = append(l.ctls, v)
	}
	return nil
}

// splitActions splits at commas outside single quotes.
func splitActions(s string) (out []string) {
	in, from := false, 0
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '\\':
			i++
		case s[i] == '\'':
			in = !in
		case s[i] == ',' && !in:
			out = append(out, s[from:i])
			from = i + 1
		}
	}
	return append(out, s[from:])
}
