// Package invoice makes invoices of use and a price list, as rows with the columns of FOCUS 1.2, and writes them as CSV, JSON
// and Parquet. What a PoP costs the operator is set against them in margins.
package invoice

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/relais-edge/relais/internal/usage"
	"github.com/relais-edge/relais/internal/usage/price"
)

// maxRows bounds an invoice.
const maxRows = 2_000_000

// ErrInvalid says that an invoice cannot be made of what was given.
var ErrInvalid = errors.New("not well formed")

// Use is what a site used on a day at a PoP.
type Use struct {
	Organization string // that used it: the billed one, or one below it
	Site         string
	Pop          string
	Day          usage.Day
	usage.Counts
}

// Party is an organization with its title.
type Party struct{ ID, Title string }

func (p Party) name() string { return cmp.Or(p.Title, p.ID) }

// Month is a calendar month of UTC.
type Month struct {
	Year  int
	Month time.Month
}

// MonthOf is the month that t is in.
func MonthOf(t time.Time) Month { t = t.UTC(); return Month{t.Year(), t.Month()} }

// Start is when the month begins, End when the next does.
func (m Month) Start() time.Time { return time.Date(m.Year, m.Month, 1, 0, 0, 0, 0, time.UTC) }

// End is when the next month begins.
func (m Month) End() time.Time { return m.Start().AddDate(0, 1, 0) }

// String writes the month as 2026-11.
func (m Month) String() string { return m.Start().Format("2006-01") }

// Input is what an invoice is made of.
type Input struct {
	ID      string // of the invoice
	Issuer  Party
	Account Party // who pays
	Month   Month
	Prices  price.List
	Regions map[string]string // of PoPs
	Titles  map[string]string // of organizations and sites below the account, where known
	// Use of the month. What is of a day before it is a correction of an earlier month, and billed with this one.
	Use []Use
}

// Invoice is rows that add up to what is due.
type Invoice struct {
	ID       string       `json:"id"`
	Issuer   string       `json:"issuer"`
	Account  string       `json:"account"`
	Currency string       `json:"currency"`
	Month    string       `json:"month"`
	Exact    price.Amount `json:"exact"` // sum of the rows' BilledCost
	Due      price.Amount `json:"due"`   // rounded once, to the currency's minor unit
	Rows     []Row        `json:"rows"`
}

// Row is a charge. The names of the fields are those of FOCUS 1.2; what begins with X is ours. Costs and quantities have nine
// places; times are exclusive at their end.
type Row struct {
	BilledCost          price.Amount  `json:"BilledCost" parquet:"BilledCost,decimal(9:18)"`
	BillingAccountID    string        `json:"BillingAccountId" parquet:"BillingAccountId"`
	BillingAccountName  string        `json:"BillingAccountName" parquet:"BillingAccountName"`
	BillingCurrency     string        `json:"BillingCurrency" parquet:"BillingCurrency"`
	BillingPeriodEnd    time.Time     `json:"BillingPeriodEnd" parquet:"BillingPeriodEnd,timestamp(millisecond)"`
	BillingPeriodStart  time.Time     `json:"BillingPeriodStart" parquet:"BillingPeriodStart,timestamp(millisecond)"`
	ChargeCategory      string        `json:"ChargeCategory" parquet:"ChargeCategory"`
	ChargeClass         *string       `json:"ChargeClass" parquet:"ChargeClass,optional"`
	ChargeDescription   string        `json:"ChargeDescription" parquet:"ChargeDescription"`
	ChargeFrequency     string        `json:"ChargeFrequency" parquet:"ChargeFrequency"`
	ChargePeriodEnd     time.Time     `json:"ChargePeriodEnd" parquet:"ChargePeriodEnd,timestamp(millisecond)"`
	ChargePeriodStart   time.Time     `json:"ChargePeriodStart" parquet:"ChargePeriodStart,timestamp(millisecond)"`
	ConsumedQuantity    *price.Amount `json:"ConsumedQuantity" parquet:"ConsumedQuantity,optional,decimal(9:18)"`
	ConsumedUnit        *string       `json:"ConsumedUnit" parquet:"ConsumedUnit,optional"`
	ContractedCost      price.Amount  `json:"ContractedCost" parquet:"ContractedCost,decimal(9:18)"`
	ContractedUnitPrice *price.Amount `json:"ContractedUnitPrice" parquet:"ContractedUnitPrice,optional,decimal(9:18)"`
	EffectiveCost       price.Amount  `json:"EffectiveCost" parquet:"EffectiveCost,decimal(9:18)"`
	InvoiceID           string        `json:"InvoiceId" parquet:"InvoiceId"`
	InvoiceIssuerName   string        `json:"InvoiceIssuerName" parquet:"InvoiceIssuerName"`
	ListCost            price.Amount  `json:"ListCost" parquet:"ListCost,decimal(9:18)"`
	ListUnitPrice       *price.Amount `json:"ListUnitPrice" parquet:"ListUnitPrice,optional,decimal(9:18)"`
	PricingCategory     *string       `json:"PricingCategory" parquet:"PricingCategory,optional"`
	PricingQuantity     *price.Amount `json:"PricingQuantity" parquet:"PricingQuantity,optional,decimal(9:18)"`
	PricingUnit         *string       `json:"PricingUnit" parquet:"PricingUnit,optional"`
	ProviderName        string        `json:"ProviderName" parquet:"ProviderName"`
	PublisherName       string        `json:"PublisherName" parquet:"PublisherName"`
	RegionID            *string       `json:"RegionId" parquet:"RegionId,optional"`
	RegionName          *string       `json:"RegionName" parquet:"RegionName,optional"`
	ResourceID          *string       `json:"ResourceId" parquet:"ResourceId,optional"`
	ResourceName        *string       `json:"ResourceName" parquet:"ResourceName,optional"`
	ResourceType        *string       `json:"ResourceType" parquet:"ResourceType,optional"`
	ServiceCategory     string        `json:"ServiceCategory" parquet:"ServiceCategory"`
	ServiceName         string        `json:"ServiceName" parquet:"ServiceName"`
	ServiceSubcategory  string        `json:"ServiceSubcategory" parquet:"ServiceSubcategory"`
	SkuID               *string       `json:"SkuId" parquet:"SkuId,optional"`
	SkuMeter            *string       `json:"SkuMeter" parquet:"SkuMeter,optional"`
	SkuPriceID          *string       `json:"SkuPriceId" parquet:"SkuPriceId,optional"`
	SubAccountID        *string       `json:"SubAccountId" parquet:"SubAccountId,optional"`
	SubAccountName      *string       `json:"SubAccountName" parquet:"SubAccountName,optional"`
	XPop                *string       `json:"x_Pop" parquet:"x_Pop,optional"`
}

// sku is a thing that is sold.
type sku struct {
	id, meter, unit, pricingUnit string
	per                          int64 // of what is counted for one pricing unit
	count                        func(*usage.Counts) int64
	included                     func(*price.Included) *int64
	price                        func(l *price.List, pop, region string) price.Amount
	says                         string
}

func skus() []sku {
	return []sku{
		{
			"requests", "Requests", "Requests", "1000000 Requests", 1_000_000,
			func(c *usage.Counts) int64 { return c.Requests }, func(i *price.Included) *int64 { return &i.Requests },
			func(l *price.List, _, _ string) price.Amount { return l.Requests }, "requests served",
		},
		{
			"traffic", "Data Transfer", "GB", "GB", 1_000_000_000,
			func(c *usage.Counts) int64 { return c.BytesOut }, func(i *price.Included) *int64 { return &i.Bytes },
			func(l *price.List, pop, region string) price.Amount { return l.Traffic(pop, region) }, "bytes sent to visitors",
		},
		{
			"orders", "Orders", "Orders", "Orders", 1,
			func(c *usage.Counts) int64 { return c.Orders }, func(i *price.Included) *int64 { return &i.Orders },
			func(l *price.List, _, _ string) price.Amount { return l.Order }, "orders placed",
		},
		{
			"refused", "Refused Requests", "Requests", "1000000 Requests", 1_000_000,
			func(c *usage.Counts) int64 { return c.Refused }, nil,
			func(*price.List, string, string) price.Amount { return 0 }, "requests that protections refused: never billed",
		},
	}
}

func text(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

// Make makes an invoice. The same input makes the same invoice, in whatever order its use is.
func Make(in Input) (*Invoice, error) {
	if err := in.Prices.Check(); err != nil {
		return nil, err
	}
	if in.ID == "" || in.Issuer.ID == "" || in.Account.ID == "" {
		return nil, fmt.Errorf("%w: an invoice has a number, who issues and who pays it", ErrInvalid)
	}
	uses := slices.Clone(in.Use)
	slices.SortFunc(uses, func(a, b Use) int {
		return cmp.Or(cmp.Compare(a.Day, b.Day), cmp.Compare(a.Organization, b.Organization), cmp.Compare(a.Site, b.Site), cmp.Compare(a.Pop, b.Pop))
	})
	v := &Invoice{ID: in.ID, Issuer: in.Issuer.ID, Account: in.Account.ID, Currency: in.Prices.Currency, Month: in.Month.String(), Rows: []Row{}}
	m := &maker{in: in, out: v}
	if err := m.base(); err != nil {
		return nil, err
	}
	for _, k := range skus() {
		if err := m.sell(k, uses); err != nil {
			return nil, err
		}
	}
	v.Due = v.Exact.Round(price.Places(v.Currency))
	return v, nil
}

type maker struct {
	in  Input
	out *Invoice
}

// add ends a row and adds it up.
func (m *maker) add(r Row) (err error) {
	if len(m.out.Rows) >= maxRows {
		return fmt.Errorf("%w: more than %d rows", ErrInvalid, maxRows)
	}
	r.BillingAccountID, r.BillingAccountName, r.BillingCurrency = m.in.Account.ID, m.in.Account.name(), m.in.Prices.Currency
	r.BillingPeriodStart, r.BillingPeriodEnd = m.in.Month.Start(), m.in.Month.End()
	r.EffectiveCost = r.BilledCost
	r.InvoiceID, r.InvoiceIssuerName, r.ProviderName, r.PublisherName = m.in.ID, m.in.Issuer.name(), m.in.Issuer.name(), m.in.Issuer.name()
	r.ServiceCategory, r.ServiceName, r.ServiceSubcategory = "Networking", "Relais Edge", "Content Delivery"
	m.out.Rows = append(m.out.Rows, r)
	m.out.Exact, err = m.out.Exact.Add(r.BilledCost)
	return err
}

// base is the month's own price.
func (m *maker) base() error {
	p := m.in.Prices.Base
	if p == 0 {
		return nil
	}
	one := price.One
	return m.add(Row{
		BilledCost: p, ContractedCost: p, ListCost: p, ContractedUnitPrice: &p, ListUnitPrice: &p,
		ChargeCategory: "Purchase", ChargeFrequency: "Recurring", ChargeDescription: "plan, for a month",
		ChargePeriodStart: m.in.Month.Start(), ChargePeriodEnd: m.in.Month.End(),
		PricingCategory: text("Standard"), PricingQuantity: &one, PricingUnit: text("Months"),
		SkuID: text("plan"), SkuMeter: text("Plan"), SkuPriceID: text("plan"),
	})
}

// sell makes the rows of one sku, and the credit for what is included.
func (m *maker) sell(k sku, uses []Use) error {
	left := int64(0)
	if k.included != nil {
		left = *k.included(&m.in.Prices.Included)
	}
	var credit price.Amount
	for i := range uses {
		u := &uses[i]
		n := k.count(&u.Counts)
		if n == 0 {
			continue
		}
		p := k.price(&m.in.Prices, u.Pop, m.in.Regions[u.Pop])
		if err := m.row(k, u, n, p); err != nil {
			return err
		}
		if u.Day < usage.DayOf(m.in.Month.Start()) {
			continue // what an earlier month included was given with it
		}
		free := min(n, left)
		left -= free
		c, err := p.Of(free, k.per)
		if err == nil {
			credit, err = credit.Add(c)
		}
		if err != nil {
			return err
		}
	}
	if credit == 0 {
		return nil
	}
	return m.add(Row{
		BilledCost: -credit, ContractedCost: -credit, ListCost: -credit,
		ChargeCategory: "Credit", ChargeFrequency: "Recurring", ChargeDescription: k.meter + " included in the plan",
		ChargePeriodStart: m.in.Month.Start(), ChargePeriodEnd: m.in.Month.End(), SkuID: text(k.id), SkuMeter: text(k.meter),
	})
}

func (m *maker) row(k sku, u *Use, n int64, p price.Amount) error {
	start := usage.DayOf(m.in.Month.Start())
	if u.Day.Time().Compare(m.in.Month.End()) >= 0 {
		return fmt.Errorf("%w: use of %s is not of %s", ErrInvalid, u.Day.Time().Format(time.DateOnly), m.in.Month)
	}
	cost, err := p.Of(n, k.per)
	if err != nil {
		return err
	}
	priced, err := price.One.Of(n, k.per)
	if err != nil {
		return err
	}
	consumed := priced
	if k.unit != k.pricingUnit {
		if consumed, err = price.One.Of(n, 1); err != nil {
			return err
		}
	}
	class := (*string)(nil)
	if u.Day < start {
		class = text("Correction")
	}
	region := m.in.Regions[u.Pop]
	kind := "Site"
	if len(u.Site) > len(usage.ServicePrefix) && u.Site[:len(usage.ServicePrefix)] == usage.ServicePrefix {
		kind = "Service"
	}
	id := u.Organization + "/" + u.Site
	return m.add(Row{
		BilledCost: cost, ContractedCost: cost, ListCost: cost, ContractedUnitPrice: &p, ListUnitPrice: &p,
		ChargeCategory: "Usage", ChargeClass: class, ChargeFrequency: "Usage-Based", ChargeDescription: k.says,
		ChargePeriodStart: u.Day.Time(), ChargePeriodEnd: (u.Day + 1).Time(),
		ConsumedQuantity: &consumed, ConsumedUnit: text(k.unit),
		PricingCategory: text("Standard"), PricingQuantity: &priced, PricingUnit: text(k.pricingUnit),
		RegionID: text(region), RegionName: text(region),
		ResourceID: &id, ResourceName: text(cmp.Or(m.in.Titles[id], u.Site)), ResourceType: &kind,
		SkuID: text(k.id), SkuMeter: text(k.meter), SkuPriceID: text(k.id + "/" + u.Pop),
		SubAccountID: text(u.Organization), SubAccountName: text(cmp.Or(m.in.Titles[u.Organization], u.Organization)), XPop: text(u.Pop),
	})
}
