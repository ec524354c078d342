package visitors

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Report is what happened in a run.
type Report struct {
	Stats
	Started time.Time
	Elapsed time.Duration
	// Answers is the time of all requests, Pages that of pages and forms alone.
	Answers, Pages Latency
	// Orders is every order that visitors tried to place, in the order of their start.
	Orders []Order
}

func (g *Generator) report(start time.Time) Report {
	g.mu.Lock()
	defer g.mu.Unlock()
	orders := slices.Clone(g.orders)
	slices.SortFunc(orders, func(a, b Order) int {
		return cmp.Or(a.Started.Compare(b.Started), strings.Compare(a.Key, b.Key))
	})
	return Report{
		Stats: g.stats.snapshot(), Started: start, Elapsed: time.Since(start),
		Answers: g.stats.all.summary(), Pages: g.stats.pages.summary(), Orders: orders,
	}
}

// String is the report in a few lines for people.
func (r Report) String() string {
	var s strings.Builder
	seconds := max(r.Elapsed.Seconds(), 1e-9)
	fmt.Fprintf(&s, "visitors  %d in %s (%.1f/s), %d returning, %d bots, %d dropped, %d gave up\n",
		r.Arrivals, r.Elapsed.Round(time.Millisecond), float64(r.Arrivals)/seconds, r.Returning, r.Bots, r.Dropped, r.GaveUp)
	fmt.Fprintf(&s, "requests  %d (%.1f/s): 2xx %d, 3xx %d, 4xx %d, 5xx %d, errors %v; %d files from browsers' caches, %d not modified, %d edge hits\n",
		r.Requests, float64(r.Requests)/seconds, r.ByClass[2], r.ByClass[3], r.ByClass[4], r.ByClass[5], r.Errors,
		r.FromBrowser, r.NotModified, r.EdgeHits)
	fmt.Fprintf(&s, "latency   all p50 %s p99 %s max %s; pages p50 %s p99 %s max %s\n",
		r.Answers.P50, r.Answers.P99, r.Answers.Most, r.Pages.P50, r.Pages.P99, r.Pages.Most)
	fmt.Fprintf(&s, "baskets   %d filled, holders refused %d %v\n", r.Baskets, r.HoldersRefused, r.RefusedBy)
	fmt.Fprintf(&s, "orders    %d tried, %d confirmed, %d failed, %d abandoned\n",
		r.OrdersTried, r.OrdersConfirmed, r.OrdersFailed, r.OrdersAbandoned)
	if r.Attacks > 0 {
		fmt.Fprintf(&s, "attacks   %d sent, %d blocked\n", r.Attacks, r.AttacksBlocked)
	}
	return s.String()
}

// Ledger is what a shop wrote down. EachOrder calls visit for every order that it holds and
// stops at the first error.
type Ledger interface {
	EachOrder(ctx context.Context, visit func(id, key string, placed time.Time) error) error
}

// Loss is an order that was confirmed to a buyer and is not in the ledger exactly once.
type Loss struct {
	Order  Order
	Reason string
}

// Verdict is the comparison of a report with a ledger.
type Verdict struct {
	// Kept is the number of confirmed orders that are in the ledger exactly once.
	Kept int
	// Lost are those that are not.
	Lost []Loss
	// Duplicates are keys of this run that the ledger holds more than once, confirmed or not.
	Duplicates []string
	// Failed are orders that no try brought through; Written says how many failed or
	// abandoned ones are in the ledger all the same (the buyer never heard of them, which
	// is a pity but no loss: the key protects whoever asks again).
	Failed  []Order
	Written int
	// Phantoms are ids of orders which the ledger got during the run and no visitor of it
	// sent. Other people who use the shop at the same time are phantoms too.
	Phantoms []string
}

// OK reports whether nothing is lost and nothing is there twice.
func (v Verdict) OK() bool { return len(v.Lost) == 0 && len(v.Duplicates) == 0 }

// String is the verdict in one line.
func (v Verdict) String() string {
	return fmt.Sprintf("ledger: %d kept, %d lost, %d duplicates, %d failed at the buyer, %d written unseen, %d phantoms",
		v.Kept, len(v.Lost), len(v.Duplicates), len(v.Failed), v.Written, len(v.Phantoms))
}

// Verify compares what buyers were told with what ledger holds.
func (r Report) Verify(ctx context.Context, ledger Ledger) (Verdict, error) {
	sent := make(map[string]bool, len(r.Orders))
	for _, o := range r.Orders {
		if o.Key != "" {
			sent[o.Key] = true
		}
	}
	var v Verdict
	written := make(map[string][]string, len(sent)) // key: ids
	err := ledger.EachOrder(ctx, func(id, key string, placed time.Time) error {
		switch {
		case sent[key]:
			written[key] = append(written[key], id)
		case !placed.Before(r.Started):
			v.Phantoms = append(v.Phantoms, id)
		}
		return nil
	})
	if err != nil {
		return Verdict{}, fmt.Errorf("visitors: compare with the ledger: %w", err)
	}
	for key, ids := range written {
		if len(ids) > 1 {
			v.Duplicates = append(v.Duplicates, key)
		}
	}
	slices.Sort(v.Duplicates)
	told := map[string]string{} // order id: key
	for _, o := range r.Orders {
		v.judge(o, written[o.Key], told)
	}
	return v, nil
}

func (v *Verdict) judge(o Order, ids []string, told map[string]string) {
	if o.State != Confirmed {
		if o.State == Failed {
			v.Failed = append(v.Failed, o)
		}
		v.Written += min(len(ids), 1)
		return
	}
	other, twice := told[o.ID]
	told[o.ID] = o.Key
	reason := ""
	switch {
	case len(ids) == 0:
		reason = "the ledger has no order with this key"
	case len(ids) > 1:
		reason = fmt.Sprintf("the ledger has %d orders with this key", len(ids))
	case ids[0] != o.ID:
		reason = "the ledger's order has another number: " + ids[0]
	case twice:
		reason = "the buyer with the key " + other + " was told the same number"
	default:
		v.Kept++
		return
	}
	v.Lost = append(v.Lost, Loss{o, reason})
}
