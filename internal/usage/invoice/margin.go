package invoice

import (
	"cmp"
	"fmt"
	"math/bits"
	"slices"

	"github.com/relais-edge/relais/internal/usage"
	"github.com/relais-edge/relais/internal/usage/price"
)

// Cost is what a PoP costs the operator: for each hour of the month, and for 10^9 bytes in or out.
type Cost struct {
	Hour     price.Amount `json:"hour"`
	Gigabyte price.Amount `json:"gigabyte"`
}

// Margin is what is earned at a PoP with an organization, or with all where Organization is empty. A cost by hours is split by bytes.
type Margin struct {
	Pop          string       `json:"pop"` // empty: base prices and credits, which are of no PoP
	Organization string       `json:"organization,omitempty"`
	Revenue      price.Amount `json:"revenue"`
	Traffic      price.Amount `json:"trafficCost"`
	Hours        price.Amount `json:"hoursCost"`
	Margin       price.Amount `json:"margin"`
}

// Margins sets invoices of one month and currency against what the PoPs cost, with the use that the costs are of: refused
// traffic, which nobody pays for, is in it too. It gives each PoP, then each PoP with each account.
func Margins(month Month, costs map[string]Cost, invoices []*Invoice, uses map[string][]Use) ([]Margin, error) {
	cells := map[[2]string]*Margin{}
	at := func(pop, org string) *Margin {
		k := [2]string{pop, org}
		if cells[k] == nil {
			cells[k] = &Margin{Pop: pop, Organization: org}
		}
		return cells[k]
	}
	for _, v := range invoices {
		if v.Currency != invoices[0].Currency || v.Month != month.String() {
			return nil, fmt.Errorf("%w: invoice %s is of %s in %s; margins are of one month and currency", ErrInvalid, v.ID, v.Month, v.Currency)
		}
		for i := range v.Rows {
			r := &v.Rows[i]
			pop := ""
			if r.XPop != nil {
				pop = *r.XPop
			}
			c := at(pop, v.Account)
			var err error
			if c.Revenue, err = c.Revenue.Add(r.BilledCost); err != nil {
				return nil, err
			}
		}
	}
	bytes := map[string]map[string]int64{} // by PoP and account
	for account, list := range uses {
		for i := range list {
			u := &list[i]
			if bytes[u.Pop] == nil {
				bytes[u.Pop] = map[string]int64{}
			}
			n := &u.Counts
			bytes[u.Pop][account] += n.BytesIn + n.BytesOut + n.RefusedBytesIn + n.RefusedBytesOut
		}
	}
	for pop, cost := range costs {
		if err := share(month, pop, cost, bytes[pop], at); err != nil {
			return nil, err
		}
	}
	return sum(cells)
}

// share gives each account its part of a PoP's cost. What nobody used stands without an account.
func share(month Month, pop string, cost Cost, bytes map[string]int64, at func(pop, org string) *Margin) error {
	hours := int64(usage.HourOf(month.End()) - usage.HourOf(month.Start()))
	whole, err := cost.Hour.Of(hours, 1)
	if err != nil {
		return err
	}
	accounts := make([]string, 0, len(bytes))
	var all uint64
	for a, n := range bytes {
		if n > 0 {
			accounts = append(accounts, a)
			all += uint64(n)
		}
	}
	if all == 0 {
		at(pop, nobody).Hours = whole
		return nil
	}
	slices.Sort(accounts)
	// Each gets the difference of what is given away before and after it, so that the parts add up to the whole.
	var before uint64
	given := price.Amount(0)
	for _, a := range accounts {
		before += uint64(bytes[a])
		hi, lo := bits.Mul64(uint64(whole), before)
		q, _ := bits.Div64(hi, lo, all)
		c := at(pop, a)
		c.Hours, given = price.Amount(q)-given, price.Amount(q)
		if c.Traffic, err = cost.Gigabyte.Of(bytes[a], 1_000_000_000); err != nil {
			return err
		}
	}
	return nil
}

// nobody stands for hours in which nobody used a PoP.
const nobody = "~nobody"

func sum(cells map[[2]string]*Margin) ([]Margin, error) {
	pops := map[string]*Margin{}
	var list []Margin
	for _, c := range cells {
		p := pops[c.Pop]
		if p == nil {
			p = &Margin{Pop: c.Pop}
			pops[c.Pop] = p
		}
		for _, add := range []struct{ to, n *price.Amount }{{&p.Revenue, &c.Revenue}, {&p.Traffic, &c.Traffic}, {&p.Hours, &c.Hours}} {
			s, err := add.to.Add(*add.n)
			if err != nil {
				return nil, err
			}
			*add.to = s
		}
		list = append(list, *c)
	}
	for _, p := range pops {
		list = append(list, *p)
	}
	for i := range list {
		list[i].Margin = list[i].Revenue - list[i].Traffic - list[i].Hours
	}
	slices.SortFunc(list, func(a, b Margin) int {
		return cmp.Or(cmp.Compare(a.Pop, b.Pop), cmp.Compare(a.Organization, b.Organization))
	})
	return list, nil
}
