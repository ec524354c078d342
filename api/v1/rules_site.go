package v1

import (
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/relais-edge/relais/internal/http/syntax"
)

func (c *checker) site(s *SiteSpec) {
	c.distinct("hostnames", s.Hostnames)
	c.distinct("listeners", s.Listeners)
	c.distinct("rateLimits", s.RateLimits)
	c.siteDelivery(s)
	names := make(map[string]int, len(s.Routes))
	c.each("routes", len(s.Routes), func(i int) {
		r := &s.Routes[i]
		if r.Name != "" {
			if j, twice := names[r.Name]; twice {
				c.add("name", quote(r.Name)+" is the name of routes["+strconv.Itoa(j)+"] too", "give each route its own name")
			} else {
				names[r.Name] = i
			}
			if n, ok := strings.CutPrefix(r.Name, "route-"); ok && n != strconv.Itoa(i+1) && isNumber(n) {
				c.add("name", quote(r.Name)+" is the name that another route without one would get", "choose another name")
			}
		}
		for j, l := range r.Listeners {
			if len(s.Listeners) > 0 && !slices.Contains(s.Listeners, l) {
				c.add("listeners["+strconv.Itoa(j)+"]", quote(l)+" is not a listener of the site", "add it to spec.listeners, or remove it here")
			}
		}
		c.route(r)
	})
}

func isNumber(s string) bool {
	n, err := strconv.Atoi(s)
	return err == nil && n > 0
}

func (c *checker) route(r *Route) {
	var given []string
	for _, t := range []struct {
		name string
		is   bool
	}{{"pool", r.Pool != ""}, {"pools", len(r.Pools) > 0}, {"redirect", r.Redirect != nil}, {"respond", r.Respond != nil}} {
		if t.is {
			given = append(given, t.name)
		}
	}
	switch {
	case len(given) == 0:
		c.add("", "sends its requests nowhere", "give one of pool, pools, redirect and respond")
	case len(given) > 1:
		c.add("", "has "+strings.Join(given, " and ")+" at once", "give exactly one of them")
	}
	c.distinct("rateLimits", r.RateLimits)
	c.compression(r.Compression)
	if r.Mirror != nil {
		c.within("mirror", func() { c.mirror(r.Mirror, r) })
	}
	c.each("match", len(r.Match), func(i int) { c.match(&r.Match[i]) })
	c.within("filters", func() { c.filters(&r.Filters, r) })
	c.each("pools", len(r.Pools), func(i int) {
		c.within("filters", func() { c.filters(&r.Pools[i].Filters, r) })
	})
	if len(r.Pools) > 0 && !slices.ContainsFunc(r.Pools, func(p WeightedPool) bool { return p.Weight == nil || *p.Weight > 0 }) {
		c.add("pools", "have all weight 0, so that none is used", "give one of them a weight")
	}
	if (r.Redirect != nil || r.Respond != nil) && (r.Filters.Rewrite != nil || r.Filters.RequestHeaders != nil) {
		c.add("filters", "change a request that is sent to no pool", "keep only responseHeaders")
	}
	if r.Redirect != nil {
		c.within("redirect", func() { c.redirect(r.Redirect, r) })
	}
	if r.Respond != nil {
		c.within("respond", func() { c.respond(r.Respond) })
	}
	if t := r.Timeouts; t.Request != nil && *t.Request > 0 && t.Try > *t.Request {
		c.add("timeouts.try", t.Try.String()+" is longer than the whole request may take, "+t.Request.String(), "write less, or raise timeouts.request")
	}
}

func (c *checker) match(m *RouteMatch) {
	if p := m.Path; p != nil {
		n := 0
		for _, s := range []string{p.Exact, p.Prefix, p.Regex} {
			if s != "" {
				n++
			}
		}
		if n != 1 {
			c.add("path", "gives "+strconv.Itoa(n)+" ways to compare", "give exactly one of exact, prefix and regex")
		}
	}
	c.each("headers", len(m.Headers), func(i int) {
		c.valueMatch(&m.Headers[i])
		if what, fix := checkToken(m.Headers[i].Name); what != "" {
			c.add("name", what, fix)
		}
	})
	c.each("query", len(m.Query), func(i int) { c.valueMatch(&m.Query[i]) })
}

func (c *checker) valueMatch(m *ValueMatch) {
	n := 0
	for _, given := range []bool{m.Exact != nil, m.Regex != "", m.Present != nil} {
		if given {
			n++
		}
	}
	if n != 1 {
		c.add("", "gives "+strconv.Itoa(n)+" ways to compare", "give exactly one of exact, regex and present")
	}
}

// framing lists the fields by which connections and messages are kept apart. The edge writes them
// itself; a rule that set one could split a message in two (RFC 9112 section 11.2).
var framing = [...]string{
	"connection", "content-length", "host", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade",
}

func (c *checker) filters(f *Filters, r *Route) {
	for _, h := range []struct {
		name string
		f    *HeaderFilter
		at   place
	}{{"requestHeaders", f.RequestHeaders, inRequest}, {"responseHeaders", f.ResponseHeaders, inResponse}} {
		if h.f != nil {
			c.within(h.name, func() { c.headerFilter(h.f, h.at) })
		}
	}
	w := f.Rewrite
	if w == nil {
		return
	}
	c.within("rewrite", func() {
		if w.Hostname == "" && w.Path == "" && w.Prefix == nil && w.Regex == nil && w.Query == nil {
			c.add("", "changes nothing", "give hostname, path, prefix, regex or query")
		}
		c.rewrite(w)
		c.pathOrPrefix(w.Path, w.Prefix, r)
	})
}

func (c *checker) headerFilter(f *HeaderFilter, at place) {
	for i, name := range f.Remove {
		c.framingField("remove["+strconv.Itoa(i)+"]", name)
	}
	for _, list := range []struct {
		name   string
		values []HeaderValue
	}{{"set", f.Set}, {"add", f.Add}} {
		c.each(list.name, len(list.values), func(i int) {
			v := &list.values[i]
			c.framingField("name", v.Name)
			c.fieldValue("value", v.Value)
			c.template("value", v.Value, at)
			if len(v.Statuses) > 0 && at == inRequest {
				c.add("statuses", "has no meaning before there is an answer", "move the line to responseHeaders, or remove statuses")
			} else {
				c.statuses(v.Statuses, "2345")
			}
			if list.name == "set" && slices.ContainsFunc(list.values[:i], func(o HeaderValue) bool {
				return strings.EqualFold(o.Name, v.Name) && (len(o.Statuses) == 0 || len(v.Statuses) == 0)
			}) {
				c.add("name", quote(v.Name)+" is set twice", "put further values under add")
			}
		})
	}
	if len(f.Remove)+len(f.Set)+len(f.Add) == 0 {
		c.add("", "changes nothing", "give remove, set or add")
	}
}

func (c *checker) framingField(field, name string) {
	if !slices.Contains(framing[:], strings.ToLower(name)) {
		return
	}
	fix := "remove this rule; the edge writes the field as the message needs it"
	if strings.EqualFold(name, "Host") {
		fix = "write rewrite: {hostname: NAME} to send another host to the origin"
	}
	c.add(field, quote(name)+" may not be changed by a rule", fix)
}

// fieldValue holds s against the grammar of a field value (RFC 9110 section 5.5).
func (c *checker) fieldValue(field, s string) {
	if strings.Trim(s, " \t") != s {
		c.add(field, "begins or ends with white space", "write "+quote(strings.Trim(s, " \t\r\n")))
		return
	}
	for i := range len(s) {
		if !syntax.Is(s[i], syntax.Value) {
			c.add(field, "may not hold the control character "+quote(s[i:i+1]), "write one line of text")
			return
		}
	}
}

// pathOrPrefix holds the pair that rewrites and redirects have.
func (c *checker) pathOrPrefix(path string, prefix *string, r *Route) {
	if prefix == nil {
		return
	}
	if path != "" {
		c.add("prefix", "and path exclude each other", "give one of them")
	}
	if *prefix != "" {
		if what, fix := checkPath(*prefix); what != "" {
			c.add("prefix", what, fix)
		}
	}
	for i := range r.Match {
		if p := r.Match[i].Path; p != nil && p.Prefix == "" {
			c.add("prefix", "needs a prefix to replace, and match["+strconv.Itoa(i)+"] has another kind of path", "match by path.prefix, or give path in place of prefix")
		}
	}
}

func (c *checker) redirect(d *Redirect, r *Route) {
	if d.Scheme == "" && d.Hostname == "" && d.Port == 0 && d.Path == "" && d.Prefix == nil {
		c.add("", "leads back to where the visitor comes from", "give scheme, hostname, port, path or prefix")
	}
	c.pathOrPrefix(d.Path, d.Prefix, r)
}

func (c *checker) respond(r *Respond) {
	c.fieldValue("contentType", r.ContentType)
	if r.Body != "" && (r.Status == http.StatusNoContent || r.Status == http.StatusResetContent || r.Status == http.StatusNotModified) {
		c.add("body", "cannot be sent with status "+strconv.Itoa(r.Status), "remove it, or choose another status")
	}
}
