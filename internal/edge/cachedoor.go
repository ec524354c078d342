package edge

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/relais-edge/relais/internal/bundle"
	"github.com/relais-edge/relais/internal/edge/cache"
	"github.com/relais-edge/relais/internal/edge/cache/purge"
	"github.com/relais-edge/relais/internal/edge/route"
	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/snapshot"
	"github.com/relais-edge/relais/internal/stage"
)

// CachePurge is what POST /cache/purge of the admin socket reads: what to purge of a site.
type CachePurge struct {
	// Site is its key, organization/name; a name alone is of the organization default.
	Site string `json:"site,omitempty"`
	// URLs are https://host/path?query, host/path?query, or /path?query for all hosts of the site. With
	// AnyQuery each goes with every query.
	URLs     []string `json:"urls,omitempty"`
	AnyQuery bool     `json:"anyQuery,omitempty"`
	// Prefixes are host/path or /path: what is the path or lies below it.
	Prefixes []string `json:"prefixes,omitempty"`
	Tags     []string `json:"tags,omitempty"`
	// Groups are cache groups (RFC 9875), as they stand between the quotation marks of Cache-Groups.
	Groups []string `json:"groups,omitempty"`
	Hosts  []string `json:"hosts,omitempty"`
	// All of the site; Organization is one whose sites go; Everything is all sites of the edge.
	All          bool   `json:"all,omitempty"`
	Organization string `json:"organization,omitempty"`
	Everything   bool   `json:"everything,omitempty"`
	Soft         bool   `json:"soft,omitempty"`
	// Warm has the hottest of what it ends fetched again, also where no policy says so.
	Warm bool `json:"warm,omitempty"`
}

// PurgeAnswer is the answer to it.
type PurgeAnswer struct {
	cache.Receipt
	// Jobs fetch again what was purged; GET /cache/warm?job= tells how far they are.
	Jobs []uint64 `json:"jobs,omitempty"`
}

// CacheQuestion is what POST /cache/why and /cache/inspect read: a request that is not sent.
type CacheQuestion struct {
	URL    string `json:"url"`
	Method string `json:"method,omitempty"` // GET when it is empty
	// Fields are "Name: value".
	Fields []string `json:"fields,omitempty"`
	// Listener is the key of the Listener that it comes to; the first one that serves the host otherwise.
	Listener string `json:"listener,omitempty"`
}

// Bounds of questions.
const (
	maxQuestion = 1 << 20
	maxTop      = 1000
	maxFields   = 64
)

// CacheDoor answers for the admin socket what people ask of the cache, and purges.
func (e *Edge) CacheDoor() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /cache/purge", func(w http.ResponseWriter, r *http.Request) {
		var q CachePurge
		if !question(w, r, &q) {
			return
		}
		receipt, err := e.Purge(r.Context(), &q)
		if err != nil && receipt == nil {
			reply(w, http.StatusBadRequest, nil, err)
			return
		}
		a := PurgeAnswer{Receipt: *receipt}
		if q.Warm {
			a.Jobs = e.warmPurged(receipt)
		}
		reply(w, http.StatusOK, a, nil)
	})
	e.refillDoor(mux)
	mux.HandleFunc("POST /cache/why", func(w http.ResponseWriter, r *http.Request) {
		e.look(w, r, func(x *stage.Exchange) any { return e.cache.Why(x) })
	})
	mux.HandleFunc("POST /cache/inspect", func(w http.ResponseWriter, r *http.Request) {
		e.look(w, r, func(x *stage.Exchange) any { return e.cache.Inspect(x) })
	})
	mux.HandleFunc("GET /cache/stats", func(w http.ResponseWriter, r *http.Request) {
		reply(w, http.StatusOK, e.cache.SiteStats(siteKey(r.FormValue("site"))), nil)
	})
	mux.HandleFunc("GET /cache/keys", func(w http.ResponseWriter, r *http.Request) {
		reply(w, http.StatusOK, e.cache.Keys(siteKey(r.FormValue("site"))), nil)
	})
	mux.HandleFunc("GET /cache/top", func(w http.ResponseWriter, r *http.Request) {
		n, err := strconv.Atoi(r.FormValue("n"))
		if err != nil || n < 1 {
			n = 20
		}
		reply(w, http.StatusOK, e.cache.Top(siteKey(r.FormValue("site")), r.FormValue("by") == "bytes", min(n, maxTop)), nil)
	})
	return mux
}

func question(w http.ResponseWriter, r *http.Request, q any) bool {
	d := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxQuestion))
	d.DisallowUnknownFields()
	if err := d.Decode(q); err != nil {
		reply(w, http.StatusBadRequest, nil, fmt.Errorf("the question cannot be read: %w", err))
		return false
	}
	return true
}

func reply(w http.ResponseWriter, status int, v any, err error) {
	if err != nil {
		v = map[string]string{"error": err.Error()}
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // the client is gone
}

// siteKey is the key that a person means.
func siteKey(name string) string {
	if name == "" || strings.Contains(name, "/") {
		return name
	}
	return string(bundle.NewKey("default", name))
}

// Purge purges what q names. A receipt beside an error says that it holds, but would not after a restart.
func (e *Edge) Purge(ctx context.Context, q *CachePurge) (*cache.Receipt, error) {
	if err := q.sound(); err != nil {
		return nil, err
	}
	var site *snapshot.Site
	if q.Site != "" {
		s, err := e.siteOf(siteKey(q.Site))
		if err != nil {
			return nil, err
		}
		site = s
	}
	list, err := q.entries()
	if err != nil {
		return nil, err
	}
	for i := range list {
		if h := list[i].Host; h != "" && !serves(site, h) {
			return nil, fmt.Errorf("site %s does not serve the host %q: nothing of it is stored", siteKey(q.Site), h)
		}
	}
	return e.cache.Purge(ctx, site, list...)
}

// serves says whether a host is one of the site's.
func serves(site *snapshot.Site, host string) bool {
	return slices.ContainsFunc(site.Spec.Hostnames, func(name string) bool {
		rest, wild := strings.CutPrefix(name, "*")
		return name == host || wild && strings.HasSuffix(host, rest)
	})
}

// sound refuses what contradicts itself and what is empty, so that a slip does not purge more than was meant.
func (q *CachePurge) sound() error {
	named := slices.Concat(q.URLs, q.Prefixes, q.Tags, q.Groups, q.Hosts)
	switch {
	case q.Everything && (q.Site != "" || q.Organization != "" || q.All || len(named) > 0):
		return errors.New("everything is all sites of this edge: name nothing else beside it")
	case q.Organization != "" && (q.Site != "" || q.All || len(named) > 0):
		return errors.New("an organization is all of its sites: name nothing else beside it")
	case q.All && len(named) > 0:
		return errors.New("all is the whole site: name nothing else beside it")
	case q.AnyQuery && len(q.URLs) == 0:
		return errors.New("any query is of URLs, and there is none")
	case slices.Contains(named, ""):
		return errors.New("an empty name would be taken for the whole site; is a variable not set? Say all if you mean it")
	}
	return nil
}

func (e *Edge) siteOf(key string) (*snapshot.Site, error) {
	if t := e.current.Load(); t != nil {
		if entry := t.Entry(bundle.Key(key)); entry != nil {
			s, err := entry.Site()
			if s != nil {
				return s, nil
			}
			return nil, err
		}
	}
	return nil, fmt.Errorf("no site %s is in service here; relais cache stats lists those that were asked for", key)
}

func (q *CachePurge) entries() ([]purge.Entry, error) {
	var list []purge.Entry
	key := siteKey(q.Site)
	add := func(k purge.Kind, host, value string) {
		list = append(list, purge.Entry{Kind: k, Site: key, Host: host, Value: value, Soft: q.Soft})
	}
	for _, u := range q.URLs {
		host, path, query, err := splitURL(u)
		if err != nil {
			return nil, err
		}
		switch {
		case q.AnyQuery:
			add(purge.Path, host, path)
		case query != "":
			add(purge.URL, host, path+"?"+query)
		default:
			add(purge.URL, host, path)
		}
	}
	for _, p := range q.Prefixes {
		host, path, query, err := splitURL(p)
		if err != nil || query != "" {
			return nil, errors.Join(err, fmt.Errorf("%q: a prefix is /path or host/path, without query", p))
		}
		add(purge.Prefix, host, path)
	}
	for _, t := range q.Tags {
		add(purge.Tag, "", t)
	}
	for _, g := range q.Groups {
		add(purge.Group, "", g)
	}
	for _, h := range q.Hosts {
		host, path, _, err := splitURL(h)
		if err != nil || path != "/" || strings.Contains(host, "*") {
			return nil, fmt.Errorf("%q is no host", h)
		}
		add(purge.Host, host, "")
	}
	if q.All {
		add(purge.Site, "", "")
	}
	if key == "" && len(list) > 0 {
		return nil, errors.New("say of which site: all keys begin with it")
	}
	if q.Organization != "" {
		list = append(list, purge.Entry{Kind: purge.Organization, Site: q.Organization, Soft: q.Soft})
	}
	if q.Everything {
		list = append(list, purge.Entry{Kind: purge.All, Soft: q.Soft})
	}
	if len(list) == 0 {
		return nil, errors.New("say what to purge: URLs, prefixes, tags, groups, hosts, or all")
	}
	return list, nil
}

// splitURL reads https://host/path?query, host/path?query and /path?query; host and path in their
// normal form.
func splitURL(s string) (host, path, query string, err error) {
	rest := s
	if i := strings.Index(s, "://"); i >= 0 && !strings.ContainsAny(s[:i], "/?") {
		if scheme := strings.ToLower(s[:i]); scheme != "http" && scheme != "https" {
			return "", "", "", fmt.Errorf("%q: the scheme is http or https", s)
		}
		rest = s[i+3:]
	}
	rest, _, _ = strings.Cut(rest, "#")
	rest, query, _ = strings.Cut(rest, "?")
	if rest == "" {
		return "", "", "", fmt.Errorf("%q names no host and no path", s)
	}
	host, path, _ = strings.Cut(rest, "/")
	normal, ok := route.NormalizePath(nil, []byte("/"+path))
	if !ok {
		return "", "", "", fmt.Errorf("%q: the path cannot be read", s)
	}
	u := url.URL{Host: host}
	return strings.TrimSuffix(strings.ToLower(u.Hostname()), "."), string(normal), query, nil
}

// look finds the route of a request that is not sent, and answers what f says of it.
func (e *Edge) look(w http.ResponseWriter, r *http.Request, f func(*stage.Exchange) any) {
	var q CacheQuestion
	if !question(w, r, &q) {
		return
	}
	x, err := e.imagine(&q)
	if err != nil {
		reply(w, http.StatusBadRequest, nil, err)
		return
	}
	looker := &looker{f: f}
	if _, err = stage.Chain(looker, e.routes, e.images.Ask()).Serve(r.Context(), x); err != nil && !errors.Is(err, errLooked) {
		reply(w, http.StatusBadRequest, nil, fmt.Errorf("no route takes this request: %w", err))
		return
	}
	if looker.out == nil {
		reply(w, http.StatusBadRequest, nil, errors.New("the site sends such a request elsewhere before the cache is asked (https.redirect); ask with https://"))
		return
	}
	reply(w, http.StatusOK, looker.out, nil)
}

// looker is the handler in the place of all stages behind the route.
type looker struct {
	f   func(*stage.Exchange) any
	out any
}

var errLooked = errors.New("the request was only looked at")

// Serve implements stage.Handler.
func (l *looker) Serve(_ context.Context, x *stage.Exchange) (*message.Response, error) {
	l.out = l.f(x)
	return nil, errLooked
}

// imagine makes an exchange of a question.
func (e *Edge) imagine(q *CacheQuestion) (*stage.Exchange, error) {
	u, err := url.Parse(q.URL)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, fmt.Errorf("%q is no URL; write it whole, such as https://shop.example/a?b", q.URL)
	}
	if len(q.Fields) > maxFields {
		return nil, fmt.Errorf("%d fields are more than %d", len(q.Fields), maxFields)
	}
	in := &message.Request{Proto: message.HTTP11, Secure: u.Scheme == "https"}
	method := q.Method
	if method == "" {
		method = http.MethodGet
	}
	in.SetMethod([]byte(method))
	in.SetAuthority([]byte(u.Host))
	in.SetPath([]byte("/" + strings.TrimPrefix(u.EscapedPath(), "/")))
	if u.RawQuery != "" || u.ForceQuery {
		in.SetQuery([]byte(u.RawQuery))
	}
	in.AddLine([]byte("Host"), []byte(u.Host))
	for _, f := range q.Fields {
		name, value, ok := strings.Cut(f, ":")
		if !ok || name == "" || strings.ContainsAny(f, "\r\n\x00") {
			return nil, fmt.Errorf("%q is no field; write Name: value", f)
		}
		in.AddLine([]byte(name), []byte(strings.TrimSpace(value)))
	}
	in.Conn = &message.Conn{Listener: q.Listener}
	if q.Listener == "" {
		in.Conn.Listener = e.listenerFor(strings.ToLower(u.Hostname()))
	}
	x := &stage.Exchange{In: in}
	x.Start = e.front.now()
	return x, nil
}

// listenerFor is the key of the first listener on which a host is served.
func (e *Edge) listenerFor(host string) string {
	t := e.current.Load()
	if t == nil {
		return ""
	}
	e.apply.Lock()
	b := e.bundle
	e.apply.Unlock()
	if b == nil {
		return ""
	}
	keys := make([]string, 0, len(b.Listeners))
	for i := range b.Listeners {
		keys = append(keys, string(b.Listeners[i].Key))
	}
	slices.Sort(keys)
	for _, k := range keys {
		if t.Lookup([]byte(host), bundle.Key(k)) != nil {
			return k
		}
	}
	return ""
}

// openPurges opens the log of purges.
func openPurges(cfg *Config) (*purge.File, error) {
	name := filepath.Join(cfg.Data, "purge", "log")
	f, err := purge.OpenFile(name, purge.DefaultEntries)
	if err == nil && f.Damaged() {
		cfg.Logger.Warn("the purge log was damaged: what is older than its next good entry counts as purged", "file", name)
	}
	return f, err
}
