package visitors

import (
	"bytes"
	"context"
	"math"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// searches is what visitors type; the last ones find nothing or need escaping.
func searches() []string {
	return []string{
		"lamp", "oak", "mug", "linen cushion", "green plant", "brass", "clock", "umbrella", "travel", "wool",
		"desk lamp", "notebook", "vase", "gift", "blue & white", "café", "100% cotton",
	}
}

// think waits as long as a person looks at a page. It returns false when the visit is over.
func (b *browser) think(ctx context.Context) bool {
	f := b.g.cfg.Funnel
	pause := float64(f.Think) * min(10, math.Exp(b.rng.NormFloat64()*f.Spread))
	return sleep(ctx, time.Duration(pause))
}

func sleep(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

func (b *browser) maybe(p float64) bool { return b.rng.Float64() < p }

func (b *browser) oneOf(all []string) string {
	if len(all) == 0 {
		return ""
	}
	return all[b.rng.IntN(len(all))]
}

// patience is the pause before a page is tried again: what Retry-After says, within reason.
func patience(out reply, pause time.Duration) time.Duration {
	if seconds, err := strconv.Atoi(out.header.Get("Retry-After")); err == nil && seconds >= 0 {
		return min(time.Duration(seconds)*time.Second, 5*time.Second)
	}
	return pause
}

// page goes somewhere like a person: when the site does not answer or is too busy, it is
// tried again (once; by one with a basket twice), and then the visitor leaves. The page
// must be given back with done.
func (b *browser) page(ctx context.Context, r request) (*bytes.Buffer, bool) {
	tries := 2
	if b.basket {
		tries = 3
	}
	for try := 1; ; try++ {
		out, page, err := b.visit(ctx, r)
		if err == nil && out.status < 400 {
			return page, true
		}
		b.done(page)
		again := err != nil || out.status >= 500 || out.status == 429
		if try >= tries || !again || !sleep(ctx, patience(out, time.Duration(try)*time.Second)) {
			if ctx.Err() == nil {
				b.g.stats.gaveUp.Add(1)
			}
			return nil, false
		}
	}
}

func goTo(target string) request {
	return request{method: "GET", target: target, kind: navigation}
}

// shop is the visit of a person.
func (b *browser) shop(ctx context.Context) {
	f := b.g.cfg.Funnel
	home := goTo("/")
	home.reload = b.reload
	page, ok := b.page(ctx, home)
	if !ok {
		return
	}
	categories := under(links(page.Bytes(), "href"), "/c/")
	b.done(page)
	stop := 1 / (f.Pages + 1) // a geometric number of pages has this chance to end each time
	for !b.maybe(stop) {
		if !b.think(ctx) || !b.browse(ctx, categories) {
			return
		}
	}
	if !b.basket || !b.maybe(f.Checkout) || !b.think(ctx) {
		return
	}
	b.checkout(ctx)
}

// browse looks at one list and perhaps at a product of it.
func (b *browser) browse(ctx context.Context, categories []string) bool {
	f := b.g.cfg.Funnel
	target := b.oneOf(categories)
	if target == "" || b.maybe(f.Search) {
		target = "/search?q=" + url.QueryEscape(b.oneOf(searches()))
	}
	page, ok := b.page(ctx, goTo(target))
	if !ok {
		return false
	}
	all := links(page.Bytes(), "href")
	b.done(page)
	path, _, _ := strings.Cut(target, "?")
	if more := under(all, path+"?"); len(more) > 0 && b.maybe(.2) {
		if !b.think(ctx) {
			return false
		}
		if page, ok = b.page(ctx, goTo(b.oneOf(more))); !ok {
			return false
		}
		all = links(page.Bytes(), "href")
		b.done(page)
	}
	product := b.oneOf(under(all, "/p/"))
	if product == "" || !b.maybe(f.Product) {
		return true
	}
	if !b.think(ctx) {
		return false
	}
	if page, ok = b.page(ctx, goTo(product)); !ok {
		return false
	}
	sku := field(page.Bytes(), "sku")
	b.done(page)
	if sku == "" || !b.maybe(f.Basket) {
		return true
	}
	return b.think(ctx) && b.fill(ctx, sku)
}

// fill puts something into the basket.
func (b *browser) fill(ctx context.Context, sku string) bool {
	form := url.Values{"action": {"add"}, "sku": {sku}, "quantity": {strconv.Itoa(1 + b.rng.IntN(2))}}
	page, ok := b.page(ctx, request{
		method: "POST", target: "/basket", kind: submission,
		form: form.Encode(), media: "application/x-www-form-urlencoded",
	})
	if !ok {
		return false
	}
	b.done(page)
	if !b.basket {
		b.basket = true
		b.g.stats.baskets.Add(1)
	}
	return true
}

// crawl is the visit of a machine: page after page, no files, no cookies, no pauses to speak
// of.
func (b *browser) crawl(ctx context.Context) {
	targets := []string{"/robots.txt", "/"}
	seen := map[string]bool{}
	pause := b.g.cfg.Funnel.Think / 10
	for count := 5 + b.rng.IntN(40); count > 0 && len(targets) > 0; count-- {
		target := targets[0]
		targets = targets[1:]
		_, page, err := b.visit(ctx, goTo(target))
		if err == nil {
			for _, t := range append(under(links(page.Bytes(), "href"), "/c/"), under(links(page.Bytes(), "href"), "/p/")...) {
				if !seen[t] && len(targets) < maxLinks && b.maybe(.5) {
					seen[t] = true
					targets = append(targets, t)
				}
			}
		}
		b.done(page)
		if err != nil || !sleep(ctx, pause) {
			return
		}
	}
}

// attack is the visit of one who tries a few known attacks.
func (b *browser) attack(ctx context.Context) {
	all := Attacks()
	for range 1 + b.rng.IntN(5) {
		a := all[b.rng.IntN(len(all))]
		r := request{method: a.Method, target: a.Target, kind: navigation, form: a.Body, media: a.ContentType, extra: a.Header}
		out, err := b.send(ctx, 0, r, nil)
		b.g.stats.attacks.Add(1)
		if err == nil && out.status == 403 {
			b.g.stats.attacksBlocked.Add(1)
		}
		if !b.think(ctx) {
			return
		}
	}
}
