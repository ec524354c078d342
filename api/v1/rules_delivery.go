package v1

import (
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// siteDelivery holds what a site says of its visitors' way to it.
func (c *checker) siteDelivery(s *SiteSpec) {
	c.compression(s.Compression)
	c.within("https", func() { c.https(&s.HTTPS) })
	if m := s.Maintenance; m != nil {
		c.within("maintenance", func() {
			c.distinct("allow", m.Allow)
			c.within("page", func() { c.page(&m.Page) })
		})
	}
	if h := s.Challenge; h != nil {
		c.within("challenge", func() { c.secrets(h.Secret, h.PreviousSecrets) })
	}
	seen := map[string]int{}
	c.each("errorPages", len(s.ErrorPages), func(i int) {
		p := &s.ErrorPages[i]
		c.statuses(p.Statuses, "45")
		for _, st := range p.Statuses {
			if j, twice := seen[st]; twice {
				c.add("statuses", quote(st)+" has a page in errorPages["+strconv.Itoa(j)+"] too", "remove one")
			}
			seen[st] = i
		}
		if p.HTML == "" && p.JSON == "" && p.Text == "" {
			c.add("", "has no content", "give html, json or text")
		}
		c.page(&p.Page)
	})
}

func (c *checker) https(h *HTTPS) {
	if h.Port != 0 && !h.Redirect {
		c.add("port", "has no effect without redirect", "write redirect: true, or remove it")
	}
	s := h.HSTS
	if s == nil || !s.Preload {
		return
	}
	c.within("hsts", func() {
		const year = 365 * 24 * time.Hour
		if age := s.MaxAge; age != nil && age.Std() < year {
			c.add("preload", "needs a maxAge of at least a year", "write maxAge: 8760h or more, or remove preload")
		}
		if !s.IncludeSubDomains {
			c.add("preload", "needs includeSubDomains", "write includeSubDomains: true, or remove preload")
		}
	})
}

func (c *checker) page(p *Page) {
	c.template("html", p.HTML, inPage)
	c.template("json", p.JSON, inPage)
	c.template("text", p.Text, inPage)
}

// mediaType is a type to compress: type/subtype, type/* or *+suffix.
var mediaType = regexp.MustCompile("^(?:[!#$%&'+.^_`|~0-9A-Za-z-]+/(?:\\*|[!#$%&'+.^_`|~0-9A-Za-z-]+)|\\*\\+[0-9A-Za-z.-]+)$")

func (c *checker) compression(s *Compression) {
	if s == nil {
		return
	}
	c.within("compression", func() {
		c.distinct("algorithms", s.Algorithms)
		c.distinct("types", s.Types)
		for i, t := range s.Types {
			if !mediaType.MatchString(t) {
				c.add("types["+strconv.Itoa(i)+"]", quote(t)+" is not a type of content", "write type/subtype, such as text/html, or text/* or *+json")
			}
		}
	})
}

// statuses holds a list of codes and classes whose first digit is one of first.
func (c *checker) statuses(list []string, first string) {
	c.distinct("statuses", list)
	for i, s := range list {
		digits := strings.TrimSuffix(s, "xx")
		_, err := strconv.Atoi(digits)
		if err != nil || len(s) != 3 || strings.IndexByte(first, s[0]) < 0 || len(digits) == 2 {
			c.add("statuses["+strconv.Itoa(i)+"]", quote(s)+" is not a status of such an answer",
				"write a code or a class that begins with "+strings.Join(strings.Split(first, ""), ", ")+", such as "+first[len(first)-1:]+"xx")
		}
	}
}

func (c *checker) mirror(m *Mirror, r *Route) {
	if m.Pool != "" && (m.Pool == r.Pool || slices.ContainsFunc(r.Pools, func(p WeightedPool) bool { return p.Pool == m.Pool })) {
		c.add("pool", quote(m.Pool)+" is a pool of the route itself", "name another pool; a copy to the same one only doubles its load")
	}
	if r.Redirect != nil || r.Respond != nil {
		c.add("", "copies requests that are sent to no pool", "remove it")
	}
}

// rewrite holds the parts of a rewrite beside its path and prefix.
func (c *checker) rewrite(w *Rewrite) {
	if w.Regex != nil {
		if w.Path != "" || w.Prefix != nil {
			c.add("regex", "excludes path and prefix", "give one of them")
		}
		c.within("regex", func() { c.regexRewrite(w.Regex) })
	}
	q := w.Query
	if q == nil {
		return
	}
	c.within("query", func() {
		if !q.Strip && len(q.Remove)+len(q.Set) == 0 {
			c.add("", "changes nothing", "give strip, remove or set")
		}
		if q.Strip && len(q.Remove) > 0 {
			c.add("remove", "has no effect with strip, which removes all", "give one of them")
		}
		c.distinct("remove", q.Remove)
		for i, p := range q.Remove {
			if j := strings.IndexByte(p, '*'); p == "" || j >= 0 && j != len(p)-1 {
				c.add("remove["+strconv.Itoa(i)+"]", quote(p)+" is not a parameter", "write a name, or * as its last character, such as utm_*")
			}
		}
		c.each("set", len(q.Set), func(i int) {
			if n := q.Set[i].Name; slices.ContainsFunc(q.Set[:i], func(o Parameter) bool { return o.Name == n }) {
				c.add("name", quote(n)+" is set twice", "remove one")
			}
		})
	})
}

func (c *checker) regexRewrite(r *RegexRewrite) {
	groups := 0
	if re, err := regexp.Compile(r.Pattern); err == nil {
		groups = re.NumSubexp()
	} else {
		return // the format has told
	}
	for i := 0; i < len(r.Replacement); i++ {
		b := r.Replacement[i]
		switch {
		case b == '$':
			i++
			if i == len(r.Replacement) || r.Replacement[i] != '$' && (r.Replacement[i] < '0' || r.Replacement[i] > '9') {
				c.add("replacement", "has a $ without a number", "write $1 to $9 for a group, $0 for the whole match, or $$ for the character itself")
				return
			}
			if n := r.Replacement[i]; n != '$' && int(n-'0') > groups {
				c.add("replacement", "names group $"+string(n)+" of a pattern with "+strconv.Itoa(groups), "put what is meant into ( ) in the pattern")
				return
			}
		case b <= ' ' || b >= 0x7f || b == '?' || b == '#' || b == '"' || b == '<' || b == '>' || b == '\\':
			c.add("replacement", "may not hold "+quote(string(rune(b))), "percent-encode it; a query is changed by query")
			return
		}
	}
}
