package visitors

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// An order is tried this often, within this time, under one key.
const (
	orderTries  = 3
	orderWindow = 30 * time.Second
	// maxNameBytes bounds the keys and order ids that are kept.
	maxNameBytes = 200
)

// OrderState is how an order ended for the buyer.
type OrderState string

// The states of an order.
const (
	// Confirmed: the buyer was shown a success with an order id.
	Confirmed OrderState = "confirmed"
	// Failed: three tries, or thirty seconds, or a final refusal.
	Failed OrderState = "failed"
	// Abandoned: the run ended while the order was tried; the buyer was told nothing.
	Abandoned OrderState = "abandoned"
)

// Order is one order as the buyer saw it.
type Order struct {
	Key     string        // idempotency key
	ID      string        // what the buyer was told, when confirmed
	State   OrderState    //
	Tries   int           // requests sent
	Status  int           // of the last answer; 0 for none
	Problem string        // the last thing that went wrong
	Started time.Time     // of the first try
	Took    time.Duration // until the state was known
}

// checkout goes to the checkout page and, mostly, sends its form.
func (b *browser) checkout(ctx context.Context) {
	if b.g.stats.ordersTried.Load() >= int64(b.g.cfg.MaxOrders) {
		return
	}
	page, ok := b.page(ctx, goTo("/checkout"))
	if !ok {
		return
	}
	key := field(page.Bytes(), "idempotency_key")
	if len(key) > maxNameBytes {
		key = ""
	}
	b.done(page)
	if !b.maybe(b.g.cfg.Funnel.Order) || !b.think(ctx) {
		return
	}
	if key == "" {
		// There was a basket and there is no form: for the buyer the order failed. It is
		// not abandoned silently, because a lost basket looks just like this.
		b.g.record(Order{State: Failed, Problem: "the checkout page had no form: the basket is gone or it is another page", Started: time.Now()})
		return
	}
	b.g.record(b.place(ctx, key))
}

// place sends the order form until its fate is known. The end of ctx does not cut a try
// short, because a buyer who is paying does not close the window; but no new one is begun.
func (b *browser) place(ctx context.Context, key string) Order {
	b.g.stats.ordersOpen.Add(1)
	defer b.g.stats.ordersOpen.Add(-1)
	o := Order{Key: key, State: Failed, Started: time.Now()}
	paying, cancel := context.WithTimeout(context.WithoutCancel(ctx), orderWindow)
	defer cancel()
	n := b.rng.IntN(1_000_000)
	form := url.Values{
		"idempotency_key": {key},
		"name":            {fmt.Sprintf("Visitor %d", n)},
		"email":           {fmt.Sprintf("visitor%d@example.org", n)},
		"address":         {fmt.Sprintf("%d Harbour Street, Port %d", n%200+1, n%97)},
	}
	r := request{
		method: "POST", target: "/checkout", kind: submission, referer: "/checkout", once: true,
		form: form.Encode(), media: "application/x-www-form-urlencoded",
	}
	page, _ := b.g.client.pools.pages.Get().(*bytes.Buffer)
	if page == nil {
		page = new(bytes.Buffer)
	}
	defer b.done(page)
	for o.Tries < orderTries {
		o.Tries++
		page.Reset()
		out, err := b.send(paying, 0, r, page)
		o.Status = out.status
		id, final, problem := verdictOf(out, err, page.Bytes())
		if id != "" {
			o.ID, o.State, o.Problem = id, Confirmed, ""
			b.basket = false
			break
		}
		if o.Problem = problem; final {
			break
		}
		if ctx.Err() != nil {
			o.State = Abandoned
			break
		}
		if o.Tries < orderTries && !sleep(paying, patience(out, time.Duration(o.Tries)*time.Second)) {
			break
		}
	}
	o.Took = time.Since(o.Started)
	return o
}

// verdictOf reads what an answer to the order form means to the buyer. id is not empty when
// it is a success; final says that trying again is of no use.
func verdictOf(out reply, err error, page []byte) (id string, final bool, problem string) {
	if err != nil {
		return "", false, err.Error()
	}
	switch {
	case out.status == http.StatusOK || out.status == http.StatusCreated || out.status == http.StatusSeeOther:
		location := out.header.Get("Location")
		_, named, _ := strings.Cut(location, "/order/")
		if named == "" {
			_, rest, _ := bytes.Cut(page, []byte(`data-order="`))
			shown, _, _ := bytes.Cut(rest, []byte(`"`))
			named = string(shown)
		}
		if len(named) > maxNameBytes {
			return "", true, "an order number of absurd length"
		}
		if named != "" {
			return named, true, ""
		}
		if out.status == http.StatusSeeOther {
			return "", true, "sent back to " + location
		}
		// Some page, but no confirmation: a waiting room, for example.
		return "", false, fmt.Sprintf("status %d without an order number", out.status)
	case out.status >= 500, out.status == http.StatusTooManyRequests, out.status == http.StatusRequestTimeout,
		out.status == http.StatusTooEarly, out.status == http.StatusForbidden:
		return "", false, fmt.Sprintf("status %d", out.status)
	default:
		return "", true, fmt.Sprintf("status %d", out.status)
	}
}

// record keeps an order for the report.
func (g *Generator) record(o Order) {
	g.stats.ordersTried.Add(1)
	switch o.State {
	case Confirmed:
		g.stats.ordersConfirmed.Add(1)
	case Failed:
		g.stats.ordersFailed.Add(1)
	case Abandoned:
		g.stats.ordersAbandoned.Add(1)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.orders = append(g.orders, o)
}
