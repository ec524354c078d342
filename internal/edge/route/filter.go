package route

import (
	v1 "github.com/relais-edge/relais/api/v1"
)

// headerFilter is a compiled v1.HeaderFilter.
type headerFilter struct {
	remove   []string
	set, add []line
}

type line struct {
	name     string
	bytes    []byte // the name
	value    template
	statuses statuses
}

func compileHeaders(f *v1.HeaderFilter) *headerFilter {
	if f == nil {
		return nil
	}
	return &headerFilter{remove: f.Remove, set: lines(f.Set), add: lines(f.Add)}
}

func lines(in []v1.HeaderValue) []line {
	out := make([]line, len(in))
	for i, h := range in {
		out[i] = line{h.Name, []byte(h.Name), compileTemplate(h.Value), compileStatuses(h.Statuses)}
	}
	return out
}

// forwardPool is one share of a route.
type forwardPool struct {
	name     string
	weight   uint64
	request  []*headerFilter
	response *headerFilter
	host     []byte
	path     rewrite
	query    []*queryRewrite
}

// rewrite is a compiled v1.Rewrite or the path part of a v1.Redirect.
type rewrite struct {
	path   string  // in place of the whole path
	prefix *string // in place of the matched prefix
	regex  *pattern
}

// append appends the path that the rewrite makes of path. Matched is the prefix that the
// route's match named, without its last slash.
func (w *rewrite) append(dst, path []byte, matched string) []byte {
	switch {
	case w.path != "":
		return append(dst, w.path...)
	case w.prefix != nil && underPrefix(path, matched):
		base, rest := len(dst), path[len(matched):]
		dst = append(dst, *w.prefix...)
		if n := len(dst); n > base && dst[n-1] == '/' && len(rest) > 0 {
			dst = dst[:n-1]
		}
		if dst = append(dst, rest...); len(dst) == base || dst[base] != '/' {
			dst = append(dst, 0)
			copy(dst[base+1:], dst[base:])
			dst[base] = '/'
		}
		return dst
	}
	return append(dst, path...)
}

func (w *rewrite) changes() bool { return w.path != "" || w.prefix != nil }

func compilePools(c *compiled, spec *v1.Route) error {
	pools := spec.Pools
	if spec.Pool != "" {
		one := 1
		pools = []v1.WeightedPool{{Pool: spec.Pool, Weight: &one}}
	}
	for i := range pools {
		f := forwardPool{name: pools[i].Pool, weight: uint64(v1.Value(pools[i].Weight))}
		f.response = compileHeaders(pools[i].Filters.ResponseHeaders)
		for _, filters := range []*v1.Filters{&spec.Filters, &pools[i].Filters} {
			if h := compileHeaders(filters.RequestHeaders); h != nil {
				f.request = append(f.request, h)
			}
			if w := filters.Rewrite; w != nil {
				if err := f.rewrite(w); err != nil {
					return err
				}
			}
		}
		c.weights += f.weight
		c.forward = append(c.forward, f)
	}
	return nil
}

// rewrite adds a rewrite: the host and the path in place of an earlier one's, the query after it.
func (f *forwardPool) rewrite(w *v1.Rewrite) error {
	if w.Hostname != "" {
		f.host = []byte(w.Hostname)
	}
	switch {
	case w.Regex != nil:
		p, err := compilePattern(w.Regex)
		if err != nil {
			return err
		}
		f.path = rewrite{regex: p}
	case w.Path != "" || w.Prefix != nil:
		f.path = rewrite{path: w.Path, prefix: w.Prefix}
	}
	if q := compileQuery(w.Query); q != nil {
		f.query = append(f.query, q)
	}
	return nil
}

// redirect is a compiled v1.Redirect.
type redirect struct {
	spec *v1.Redirect
	path rewrite
}

func compileRedirect(spec *v1.Route) *redirect {
	r := spec.Redirect
	if r == nil {
		return nil
	}
	return &redirect{r, rewrite{path: r.Path, prefix: r.Prefix}}
}
