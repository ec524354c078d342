package visitors

import (
	"bytes"
	"context"
	"math/rand/v2"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Limits of one browser's memory.
const (
	maxCookies     = 30
	maxCookieBytes = 4 << 10
	maxCached      = 200
)

// copied is what a browser remembers of a file in its cache; the bytes themselves are not
// kept.
type copied struct {
	etag, modified string
	fresh          time.Time // until then it is used without asking
}

// memory is what a browser keeps between visits.
type memory struct {
	persona persona
	source  netip.Addr
	basket  bool // something is in it, as far as the visitor knows

	mu      sync.Mutex // several connections of one visit
	cookies []*http.Cookie
	cache   map[string]copied
}

// browser is one visit: a memory and its open connections.
type browser struct {
	*memory
	g      *Generator
	rng    *rand.Rand
	wires  []*wire
	reload bool // check every cached file with the server
	here   string
}

func (b *browser) close() {
	for i, w := range b.wires {
		b.g.client.close(w)
		b.wires[i] = nil
	}
}

// send does one request on connection i, and reads the page into page when it is not nil.
// A connection that the server closed between two requests is opened again once, as
// browsers do (not for a request that says once); every other failure is the caller's.
func (b *browser) send(ctx context.Context, i int, r request, page *bytes.Buffer) (reply, error) {
	r.cookie = b.cookieField()
	head := b.persona.appendHead(make([]byte, 0, 1536+len(r.form)), &b.g.client.origin, &r)
	message := append(head, r.form...)
	start := time.Now()
	var out reply
	var err error
	for {
		var keep bool
		if w := b.wires[i]; w != nil && w.stale() {
			b.g.client.close(w)
			b.wires[i] = nil
		}
		if b.wires[i] == nil {
			b.g.stats.dials.Add(1)
			if b.wires[i], err = b.g.client.open(ctx, b.source); err != nil {
				break
			}
		}
		w := b.wires[i]
		reused := !w.used.IsZero()
		out, keep, err = b.g.client.exchange(ctx, w, r.method, message, page)
		if !keep {
			b.g.client.close(w)
			b.wires[i] = nil
		}
		if err != nil && !r.once && reused && w.read == 0 && ctx.Err() == nil && time.Since(start) < time.Second {
			continue
		}
		break
	}
	b.g.stats.requests.Add(1)
	b.tell(r.kind, out.status, err, start)
	if err != nil {
		b.g.stats.fail(trouble(ctx, err))
		return out, err
	}
	b.g.stats.answered(r.kind, out, time.Since(start))
	b.learn(out)
	if b.basket && (out.status == 403 || out.status == 429 || out.status == 503) {
		b.g.stats.refuse(out.status)
	}
	return out, nil
}

// tell lets whoever wants to know see a request.
func (b *browser) tell(k kind, status int, err error, start time.Time) {
	if b.g.cfg.Seen == nil {
		return
	}
	if err != nil {
		status = 0
	}
	b.g.cfg.Seen(Seen{Page: k <= submission, Holder: b.basket, Status: status, Start: start, Took: time.Since(start)})
}

// learn takes the cookies of an answer.
func (b *browser) learn(out reply) {
	if len(out.header["Set-Cookie"]) == 0 || b.persona.engine >= crawler {
		return
	}
	fresh := (&http.Response{Header: out.header}).Cookies()
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, c := range fresh {
		if len(c.Name)+len(c.Value) > maxCookieBytes || c.Secure && !b.g.client.origin.secure {
			continue
		}
		gone := c.MaxAge < 0 || !c.Expires.IsZero() && c.MaxAge == 0 && c.Expires.Before(time.Now())
		at := -1
		for i, old := range b.cookies {
			if old.Name == c.Name {
				at = i
			}
		}
		switch {
		case at >= 0 && gone:
			b.cookies = append(b.cookies[:at], b.cookies[at+1:]...)
		case at >= 0:
			b.cookies[at] = c
		case !gone && len(b.cookies) < maxCookies:
			b.cookies = append(b.cookies, c)
		}
	}
}

func (b *browser) cookieField() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.cookies) == 0 {
		return ""
	}
	var out strings.Builder
	for i, c := range b.cookies {
		if i > 0 {
			out.WriteString("; ")
		}
		out.WriteString(c.Name + "=" + c.Value)
	}
	return out.String()
}

// visit goes to a page, follows redirects like a browser, and loads what the page shows.
// The returned page belongs to the caller, who gives it back with done.
func (b *browser) visit(ctx context.Context, r request) (out reply, page *bytes.Buffer, err error) {
	page, _ = b.g.client.pools.pages.Get().(*bytes.Buffer)
	if page == nil {
		page = new(bytes.Buffer)
	}
	r.referer = b.here
	for range 5 {
		page.Reset()
		if out, err = b.send(ctx, 0, r, page); err != nil {
			return out, page, err
		}
		target, moved := b.redirect(out)
		if !moved {
			break
		}
		r.target = target
		if out.status != http.StatusTemporaryRedirect && out.status != http.StatusPermanentRedirect {
			r.method, r.kind, r.form, r.media = "GET", navigation, "", ""
		}
	}
	if out.status < 400 {
		b.here = r.target
	}
	if b.persona.engine < crawler {
		b.load(ctx, links(page.Bytes(), "src"), picture)
		b.load(ctx, stylesheets(page.Bytes()), stylesheet)
	}
	return out, page, nil
}

func (b *browser) done(page *bytes.Buffer) { b.g.client.pools.pages.Put(page) }

// redirect returns where an answer sends the browser, if it stays on the site.
func (b *browser) redirect(out reply) (string, bool) {
	if out.status < 301 || out.status > 308 || out.status == http.StatusNotModified {
		return "", false
	}
	target := out.header.Get("Location")
	o := b.g.client.origin
	target = strings.TrimPrefix(target, o.scheme+"://"+o.host)
	return target, safeTarget(target)
}

// load fetches the files of a page over all connections at once, those apart that the
// browser's cache has.
func (b *browser) load(ctx context.Context, targets []string, k kind) {
	var wanted []request
	b.mu.Lock()
	now := time.Now()
	for _, target := range targets {
		r := request{method: "GET", target: target, kind: k, referer: b.here}
		if c, ok := b.cache[target]; ok {
			if now.Before(c.fresh) && !b.reload {
				b.g.stats.fromCache.Add(1)
				continue
			}
			r.etag, r.modified = c.etag, c.modified
		}
		wanted = append(wanted, r)
	}
	b.mu.Unlock()
	workers := min(len(b.wires), (len(wanted)+1)/2)
	if workers <= 1 {
		for _, r := range wanted {
			b.fetch(ctx, 0, r)
		}
		return
	}
	var wg sync.WaitGroup
	for i := range workers {
		wg.Go(func() {
			for k := i; k < len(wanted); k += workers {
				b.fetch(ctx, i, wanted[k])
			}
		})
	}
	wg.Wait()
}

// fetch gets one file and remembers it. A file that fails is a hole in the page, as in a
// browser; it is counted and not tried again.
func (b *browser) fetch(ctx context.Context, i int, r request) {
	if ctx.Err() != nil {
		return
	}
	out, err := b.send(ctx, i, r, nil)
	if err != nil || out.status != http.StatusOK && out.status != http.StatusNotModified {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.cache == nil {
		b.cache = map[string]copied{}
	}
	_, known := b.cache[r.target]
	if !known && len(b.cache) >= maxCached {
		return
	}
	fresh := time.Duration(0)
	for part := range strings.SplitSeq(out.header.Get("Cache-Control"), ",") {
		switch name, value, _ := strings.Cut(strings.TrimSpace(part), "="); name {
		case "no-store":
			return
		case "max-age":
			if n, err := strconv.ParseInt(value, 10, 32); err == nil {
				fresh = time.Duration(n) * time.Second
			}
		}
	}
	if age, err := strconv.ParseInt(out.header.Get("Age"), 10, 32); err == nil {
		fresh -= time.Duration(age) * time.Second
	}
	c := copied{out.header.Get("Etag"), out.header.Get("Last-Modified"), time.Now().Add(fresh)}
	if old := b.cache[r.target]; out.status == http.StatusNotModified && c.etag == "" {
		c.etag, c.modified = old.etag, old.modified
	}
	b.cache[r.target] = c
}
