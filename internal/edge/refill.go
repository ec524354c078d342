package edge

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/edge/cache"
	"github.com/relais-edge/relais/internal/edge/cache/feed"
	"github.com/relais-edge/relais/internal/edge/cache/purge"
	"github.com/relais-edge/relais/internal/edge/cache/refill"
	"github.com/relais-edge/relais/internal/edge/image"
	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/snapshot"
	"github.com/relais-edge/relais/internal/stage"
)

// refiller makes the requests that nobody waits for. It implements refill.Fetcher, refill.Finder and
// cache.Witness.
type refiller struct {
	e *Edge
	// chain is that of visitors from maintenance on, without what is about who asks: addresses, limits by
	// visitor, the firewall's rules for requests, copies to other pools.
	chain stage.Handler
}

// ofSite goes on only where the route is of the site that the request was made for.
type ofSite struct {
	site string
	next stage.Handler
}

var errOtherSite = errors.New("the host is another site's")

// Serve implements stage.Handler.
func (o *ofSite) Serve(ctx context.Context, x *stage.Exchange) (*message.Response, error) {
	if string(x.Site.Key) != o.site {
		return nil, errOtherSite
	}
	return o.next.Serve(ctx, x)
}

// Fetch implements refill.Fetcher.
func (r *refiller) Fetch(ctx context.Context, t *refill.Target) (out refill.Outcome) {
	defer func() {
		if p := recover(); p != nil {
			r.e.front.panics.Inc()
			out = refill.Outcome{Why: fmt.Sprintf("panic: %v", p)}
		}
	}()
	x, err := r.imagine(t)
	if err != nil {
		return refill.Outcome{Why: err.Error()}
	}
	end := message.Outcome{}
	defer func() { x.End(end) }()
	resp, err := stage.Chain(&ofSite{t.Site, r.chain}, r.e.routes).Serve(ctx, x)
	switch {
	case errors.Is(err, stage.ErrFull):
		return refill.Outcome{Result: refill.NoRoom}
	case err != nil:
		end.Err = err
		return refill.Outcome{Why: err.Error()}
	}
	end.Status = resp.Status
	out = judge(x, resp)
	if resp.Body != nil {
		if out.Result != refill.Stored {
			resp.Body.Close(errUnwanted)
		} else if err := readAll(ctx, resp.Body); err != nil {
			end.Err = err
			return refill.Outcome{Why: err.Error()}
		}
	}
	return out
}

var errUnwanted = errors.New("nobody waits for the body")

// imagine makes the exchange of a target.
func (r *refiller) imagine(t *refill.Target) (*stage.Exchange, error) {
	x, err := r.e.imagine(&CacheQuestion{URL: t.URL, Fields: t.Fields})
	if err != nil {
		return nil, err
	}
	x.ID, x.Client = newID(), netip.AddrFrom4([4]byte{127, 0, 0, 1})
	x.Visitor.Background = true
	if t.Variant != "" {
		x.SetVariant([]byte(t.Variant))
	}
	return x, nil
}

// judge tells what the cache did.
func judge(x *stage.Exchange, resp *message.Response) refill.Outcome {
	stored := strings.Contains(string(resp.Get(message.CacheStatus)), "; stored")
	out := refill.Outcome{Result: refill.NotStored}
	switch {
	case x.CacheStatus == "hit":
		out.Result = refill.Fresh
	case x.CacheStatus == "stale" && x.Full != "":
		out.Result = refill.NoRoom
	case x.CacheStatus == "stale", resp.Status >= 400:
		return refill.Outcome{Why: "status " + strconv.Itoa(resp.Status) + " " + x.CacheStatus}
	case stored:
		out.Result = refill.Stored
	}
	if resp.Has(message.Link) && resp.Status == 200 {
		var values []string
		for i := resp.Next(message.Link, 0); i >= 0; i = resp.Next(message.Link, i+1) {
			_, _, v := resp.At(i)
			values = append(values, string(v))
		}
		scheme := "http://"
		if x.In.Secure {
			scheme = "https://"
		}
		out.Links = refill.Links(scheme+string(x.In.Authority())+string(x.In.Path()), values)
	}
	return out
}

// readAll reads a body to its end.
func readAll(ctx context.Context, b message.Body) error {
	for {
		_, err := b.Next(ctx)
		if err == io.EOF {
			b.Close(nil)
			return nil
		}
		if err != nil {
			b.Close(err)
			return err
		}
	}
}

// Ended implements refill.Finder.
func (r *refiller) Ended(site string, number uint64, n int) []refill.Target {
	var out []refill.Target
	for _, k := range r.e.cache.Top(site, false, maxTop) {
		t := refill.Target{Site: site}
		t.URL, t.Variant, _ = strings.Cut(k.URL, " ")
		if len(k.Site)+1+len(k.URL) >= cache.MaxTopKey || t.Variant != "" && !image.IsVariant(t.Variant) {
			continue // it is cut, or has a rule in the place of its query
		}
		x, err := r.imagine(&t)
		if err != nil {
			continue
		}
		look := &looker{f: func(x *stage.Exchange) any { return r.e.cache.Ended(x, number) }}
		_, _ = stage.Chain(&ofSite{site, look}, r.e.routes).Serve(context.Background(), x) // it ends in errLooked
		variants, _ := look.out.([][]string)
		for _, fields := range variants {
			if len(out) == n {
				return out
			}
			t.Fields = fields
			out = append(out, t)
		}
	}
	return out
}

// Purged implements cache.Witness.
func (r *refiller) Purged(list []purge.Entry) {
	first := map[string]uint64{}
	for i := range list {
		for _, site := range r.e.purgedSites(&list[i]) {
			if n, ok := first[site]; !ok || list[i].Number < n {
				first[site] = list[i].Number
			}
		}
	}
	for site, number := range first {
		if w, _ := r.e.warmOf(site); w != nil && w.AfterPurge != "never" {
			r.e.refill.After(site, limitsOf(w), number)
		}
	}
}

// warmPurged has the hottest of what a purge ended fetched again, and returns the jobs.
func (e *Edge) warmPurged(r *cache.Receipt) []uint64 {
	first := map[string]uint64{}
	for i := range r.Purged {
		for _, site := range e.purgedSites(&r.Purged[i]) {
			if n, ok := first[site]; !ok || r.Purged[i].Number < n {
				first[site] = r.Purged[i].Number
			}
		}
	}
	var jobs []uint64
	for _, site := range slices.Sorted(maps.Keys(first)) {
		w, _ := e.warmOf(site)
		jobs = append(jobs, e.refill.After(site, limitsOf(w), first[site]))
	}
	return jobs
}

// Left implements cache.Witness.
func (r *refiller) Left(site string, number, born uint64, at time.Time) {
	r.e.feed.Left(site, number, born, at)
}

// purgedSites are the sites that a purge is about: of a wide one those that were asked for since the start.
func (e *Edge) purgedSites(p *purge.Entry) []string {
	if p.Kind != purge.All && p.Kind != purge.Organization {
		return []string{p.Site}
	}
	var out []string
	for _, s := range e.cache.SiteStats("").Sites {
		if org, _, _ := strings.Cut(s.Site, "/"); p.Kind == purge.All || org == p.Site {
			out = append(out, s.Site)
		}
	}
	return out
}

// warmOf is the first CacheWarm of a site's policies by name, or nil.
func (e *Edge) warmOf(key string) (*v1.CacheWarm, *snapshot.Site) {
	s, err := e.siteOf(key)
	if err != nil {
		return nil, nil
	}
	for _, name := range slices.Sorted(maps.Keys(s.Spec.Caches)) {
		if w := s.Spec.Caches[name].Warm; w != nil {
			return w, s
		}
	}
	return nil, s
}

// limitsOf are the bounds that a CacheWarm says, or those of a site without.
func limitsOf(w *v1.CacheWarm) refill.Limits {
	if w == nil {
		return refill.Limits{Rate: 20, InFlight: 2, Objects: 100}
	}
	return refill.Limits{Rate: w.Rate, InFlight: w.InFlight, Objects: w.Objects, Links: w.Links == "follow"}
}

// feedPurger purges for the feed. It implements feed.Purger.
type feedPurger struct{ e *Edge }

// Mapping implements feed.Purger: that of all of the site's policies together.
func (f feedPurger) Mapping(key string) (*feed.Mapping, error) {
	s, err := f.e.siteOf(key)
	if err != nil {
		return nil, err
	}
	var m *feed.Mapping
	for _, name := range slices.Sorted(maps.Keys(s.Spec.Caches)) {
		c := s.Spec.Caches[name].Feed
		if c == nil {
			continue
		}
		if m == nil {
			m = &feed.Mapping{Soft: true}
		}
		m.Tags, m.URLs = append(m.Tags, c.Tags...), append(m.URLs, c.URLs...)
		m.Soft = m.Soft && c.Purge == "soft" // where they differ nothing that is old is served
	}
	if m == nil {
		return nil, fmt.Errorf("no CachePolicy of site %s has a feed", key)
	}
	slices.Sort(m.Tags)
	slices.Sort(m.URLs)
	m.Tags, m.URLs = slices.Compact(m.Tags), slices.Compact(m.URLs)
	return m, nil
}

// Check implements feed.Purger.
func (f feedPurger) Check(key string, t feed.Thing) error {
	p, err := entryOf(key, t)
	if err != nil {
		return err
	}
	if p.Host != "" {
		s, err := f.e.siteOf(key)
		if err != nil {
			return err
		}
		if !serves(s, p.Host) {
			return fmt.Errorf("the site does not serve the host %q", p.Host)
		}
	}
	return p.Check()
}

// Purge implements feed.Purger.
func (f feedPurger) Purge(ctx context.Context, key string, things []feed.Thing, soft bool) (*feed.Receipt, error) {
	list := make([]purge.Entry, 0, len(things))
	for _, t := range things {
		p, err := entryOf(key, t)
		if err != nil {
			return nil, err
		}
		p.Soft = soft
		list = append(list, p)
	}
	r, err := f.e.cache.Purge(ctx, nil, list...)
	if r == nil {
		return nil, err
	}
	out := &feed.Receipt{Holds: r.Holds, Kept: r.Kept}
	for i := range r.Purged {
		out.Numbers = append(out.Numbers, r.Purged[i].Number)
	}
	return out, err
}

func entryOf(key string, t feed.Thing) (purge.Entry, error) {
	if t.Tag != "" {
		return purge.Entry{Kind: purge.Tag, Site: key, Value: t.Tag}, nil
	}
	host, path, query, err := splitURL(t.URL)
	if err == nil && query != "" {
		err = fmt.Errorf("%q has a query: leave it away, every query is purged", t.URL)
	}
	return purge.Entry{Kind: purge.Path, Site: key, Host: host, Value: path}, err
}

// CacheWarmup is what POST /cache/warm of the admin socket reads: URLs of a site to fetch.
type CacheWarmup struct {
	Site string   `json:"site"`
	URLs []string `json:"urls"`
	// Fields of the requests, "Name: value".
	Fields []string `json:"fields,omitempty"`
	// Job is that of an earlier call, to which the URLs are added; 0 for a new one.
	Job uint64 `json:"job,omitempty"`
}

// WarmupAnswer is the answer to it.
type WarmupAnswer struct {
	Job uint64 `json:"job"`
	// Refused are URLs that are not taken, with the reason, and how many they are: the first twenty are named.
	Refused  []string `json:"refused,omitempty"`
	RefusedN int      `json:"refusedCount,omitempty"`
}

// Warmup has URLs fetched in the background.
func (e *Edge) Warmup(q *CacheWarmup) (*WarmupAnswer, error) {
	key := siteKey(q.Site)
	w, s := e.warmOf(key)
	if s == nil {
		_, err := e.siteOf(key)
		return nil, err
	}
	if len(q.URLs) == 0 {
		return nil, errors.New("give URLs")
	}
	out := &WarmupAnswer{}
	targets := make([]refill.Target, 0, len(q.URLs))
	for _, u := range q.URLs {
		err := error(nil)
		if !strings.Contains(u, "://") {
			err = errors.New("is no whole URL, such as https://shop.example/a")
		} else if host, path, _, e := splitURL(u); e != nil || path == "" {
			err = errors.New("cannot be read")
		} else if !serves(s, host) {
			err = errors.New("the site does not serve the host")
		}
		if err == nil {
			targets = append(targets, refill.Target{Site: key, URL: u, Fields: q.Fields})
			continue
		}
		if out.RefusedN++; out.RefusedN <= 20 {
			out.Refused = append(out.Refused, u+": "+err.Error())
		}
	}
	out.Job = e.refill.Add(key, limitsOf(w), q.Job, targets)
	return out, nil
}

// refillDoor answers for the admin socket what is below /cache/warm and /cache/feed.
func (e *Edge) refillDoor(mux *http.ServeMux) {
	mux.HandleFunc("POST /cache/warm", func(w http.ResponseWriter, r *http.Request) {
		var q CacheWarmup
		if !question(w, r, &q) {
			return
		}
		a, err := e.Warmup(&q)
		if err != nil {
			reply(w, http.StatusBadRequest, nil, err)
			return
		}
		reply(w, http.StatusOK, a, nil)
	})
	mux.HandleFunc("GET /cache/warm", func(w http.ResponseWriter, r *http.Request) {
		if id := r.FormValue("job"); id != "" {
			n, _ := strconv.ParseUint(id, 10, 64)
			p, ok := e.refill.Job(n)
			if !ok {
				reply(w, http.StatusNotFound, nil, fmt.Errorf("no job %s is known; the last 1,000 are", id))
				return
			}
			reply(w, http.StatusOK, p, nil)
			return
		}
		reply(w, http.StatusOK, e.refill.Jobs(siteKey(r.FormValue("site"))), nil)
	})
	mux.HandleFunc("POST /cache/feed", func(w http.ResponseWriter, r *http.Request) {
		lines, err := readLines(http.MaxBytesReader(w, r.Body, maxFeed))
		if err != nil {
			reply(w, http.StatusBadRequest, nil, err)
			return
		}
		ack, err := e.feed.Take(r.Context(), siteKey(r.FormValue("site")), siteKey, lines)
		if err != nil && ack == nil {
			reply(w, http.StatusBadRequest, nil, err)
			return
		}
		if err != nil {
			reply(w, http.StatusServiceUnavailable, nil, err)
			return
		}
		reply(w, http.StatusOK, ack, nil)
	})
	mux.HandleFunc("GET /cache/trial", func(w http.ResponseWriter, r *http.Request) {
		key := siteKey(r.FormValue("site"))
		report, ok := e.trial.Report(key)
		if !ok {
			reply(w, http.StatusNotFound, nil, fmt.Errorf("no CachePolicy of site %q has a trial, or nobody asked for the site yet", key))
			return
		}
		reply(w, http.StatusOK, report, nil)
	})
	mux.HandleFunc("GET /cache/feed", func(w http.ResponseWriter, r *http.Request) {
		reply(w, http.StatusOK, e.feed.Status(siteKey(r.FormValue("site"))), nil)
	})
}

// maxFeed bounds one request with events, in bytes.
const maxFeed = feed.MaxLines * feed.MaxLine

// readLines parts what r has at line feeds.
func readLines(r io.Reader) ([][]byte, error) {
	text, err := io.ReadAll(r)
	if err != nil {
		return nil, fmt.Errorf("the events cannot be read: %w", err)
	}
	var lines [][]byte
	for line := range strings.Lines(string(text)) {
		lines = append(lines, []byte(line))
		if len(lines) > feed.MaxLines {
			return nil, fmt.Errorf("more than %d lines: send them in several requests", feed.MaxLines)
		}
	}
	return lines, nil
}
