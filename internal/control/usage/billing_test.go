package usage_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/relais-edge/relais/internal/control/store"
	"github.com/relais-edge/relais/internal/control/tenant"
	control "github.com/relais-edge/relais/internal/control/usage"
	"github.com/relais-edge/relais/internal/usage"
	"github.com/relais-edge/relais/internal/usage/invoice"
	"github.com/relais-edge/relais/internal/usage/price"
)

func prices(gb string) tenant.Plan {
	return tenant.Plan{Limits: map[string]tenant.Limit{}, Prices: &price.List{Currency: "EUR", Gigabyte: amount(gb)}}
}

const gigabyte = 1_000_000_000

func TestResellersAndMargins(t *testing.T) {
	engines(t, func(t *testing.T, b *bed) {
		ctx, month := t.Context(), invoice.MonthOf(b.now)
		b.plan("op", "wholesale", "east", prices("0.02"))
		b.plan("op", "direct", "deli", prices("0.1"))
		b.must(b.tenants.CreateOrganization(ctx, b.op, "op", "free", ""))
		b.plan("east", "retail", "shop", prices("0.05"))
		b.plan("east", "friends", "cafe", prices("0.01"))
		b.ingest(rec("shop", "web", b.now, usage.Counts{BytesOut: 100 * gigabyte}), rec("cafe", "web", b.now, usage.Counts{BytesOut: 50 * gigabyte}),
			rec("deli", "web", b.now, usage.Counts{BytesOut: 10 * gigabyte, RefusedBytesIn: 15 * gigabyte}), rec("free", "web", b.now, usage.Counts{BytesIn: 25 * gigabyte}),
			rec("shop", "web", b.now.Add(-31*24*time.Hour), usage.Counts{BytesOut: 999 * gigabyte}))
		seller := b.user("east", "sam", tenant.RoleBilling)
		r, err := b.Resale(ctx, seller, "east", month)
		if err != nil || r.Pays.Due != amount("3") || len(r.Earns) != 2 || r.Margin != amount("2.5") {
			t.Fatalf("%+v, %v", r, err)
		}
		v, err := b.Invoice(ctx, seller, "shop", "1", month)
		if err != nil || v.Due != amount("5") || v.Issuer != "east" || v.Rows[0].ProviderName != "Title of east" || *v.Rows[0].RegionID != "eu" {
			t.Errorf("%+v, %v", v, err)
		}
		if _, err := b.Invoice(ctx, seller, "deli", "1", month); !errors.Is(err, tenant.ErrDenied) {
			t.Error(err)
		}
		if _, err := b.Invoice(ctx, b.op, "op", "1", month); !errors.Is(err, control.ErrNoPrices) {
			t.Error(err)
		}
		b.is(b.PutCosts(ctx, seller, "op", nil), tenant.ErrDenied)
		b.must(b.PutCosts(ctx, b.op, "op", map[string]invoice.Cost{"fra1": {Hour: amount("0.001"), Gigabyte: amount("0.01")}}))
		if _, err := b.Margins(ctx, seller, "op", month); !errors.Is(err, tenant.ErrDenied) {
			t.Error(err)
		}
		list, err := b.Margins(ctx, b.op, "op", month)
		if err != nil || len(list) != 4 {
			t.Fatalf("%+v, %v", list, err)
		}
		// 150 x 0.02 + 10 x 0.1 = 4; 200 GB x 0.01 = 2; 720 hours = 0.72
		if all := list[0]; all.Pop != "fra1" || all.Organization != "" || all.Revenue != amount("4") || all.Traffic != amount("2") || all.Hours != amount("0.72") || all.Margin != amount("1.28") {
			t.Errorf("%+v", all)
		}
		if d := list[1]; d.Organization != "deli" || d.Traffic != amount("0.25") || d.Hours != amount("0.09") {
			t.Errorf("%+v", d)
		}
		if d := list[3]; d.Organization != "free" || d.Revenue != 0 || d.Margin != -amount("0.34") {
			t.Errorf("%+v", d)
		}
	})
}

func TestADeletedOrganizationIsStillPaidFor(t *testing.T) {
	engines(t, func(t *testing.T, b *bed) {
		b.plan("op", "wholesale", "east", prices("1"))
		b.ingest(rec("shop", "web", b.now, usage.Counts{BytesOut: 3 * gigabyte}))
		b.must(b.tenants.DeleteOrganization(t.Context(), b.op, "shop"))
		if v, err := b.Invoice(t.Context(), b.op, "east", "1", invoice.MonthOf(b.now)); err != nil || v.Due != amount("3") {
			t.Errorf("%+v, %v", v, err)
		}
	})
}

func (b *bed) standing(org string) tenant.State {
	b.t.Helper()
	var s tenant.Standing
	b.must(b.store.View(b.t.Context(), func(r *store.Reader) (err error) {
		s, err = tenant.StandingOf(b.t.Context(), r, org)
		return err
	}))
	return s.State
}

func TestBudgets(t *testing.T) {
	engines(t, func(t *testing.T, b *bed) {
		ctx := t.Context()
		b.must(b.store.Subscribe(ctx, "test"))
		owner := b.user("shop", "ann", tenant.RoleAdmin)
		reseller := b.user("east", "sam", tenant.RoleAdmin)
		b.plan("op", "retail", "shop", prices("1"))
		budget := control.Budget{Amount: amount("10"), Currency: "EUR", Thresholds: []int{50, 80}, Action: control.Suspend}
		b.is(b.PutBudget(ctx, reseller, "shop", budget), tenant.ErrDenied) // it is not his shop
		b.is(b.PutBudget(ctx, b.user("cafe", "joe", tenant.RoleAdmin), "shop", budget), tenant.ErrDenied)
		b.must(b.PutBudget(ctx, owner, "shop", budget))
		spend := func(gb int64) []string {
			t.Helper()
			b.ingest(rec("shop", "web", b.now, usage.Counts{BytesOut: gb * gigabyte}))
			b.must(b.Budgets(ctx, nil, b.clock()))
			b.must(b.Budgets(ctx, nil, b.clock()))
			return b.messages(control.TopicBudget)
		}
		if m := spend(4); len(m) != 0 {
			t.Errorf("%v", m)
		}
		if m := spend(1); len(m) != 1 || !strings.Contains(m[0], `"threshold":50`) {
			t.Errorf("%v", m)
		}
		if m := spend(1); len(m) != 0 || b.standing("shop") != tenant.Active {
			t.Errorf("%v", m)
		}
		if m := spend(9); len(m) != 2 || !strings.Contains(m[1], `"action":"suspend"`) || b.standing("shop") != tenant.Suspended || b.standing("east") != tenant.Active {
			t.Errorf("%v, %s", m, b.standing("shop"))
		}
		budget.Amount = amount("20")
		b.must(b.PutBudget(ctx, owner, "shop", budget))
		if b.standing("shop") != tenant.Active {
			t.Error("a budget that is larger does not lift the suspension")
		}
		if m := spend(5); len(m) != 3 || b.standing("shop") != tenant.Suspended {
			t.Errorf("%v", m)
		}
		b.must(b.tenants.Resume(ctx, owner, "shop"))
		if m := spend(1); len(m) != 0 || b.standing("shop") != tenant.Active {
			t.Errorf("resumed by its owner, and suspended again: %v", m)
		}
		b.pass(30 * 24 * time.Hour)
		if m := spend(25); len(m) != 3 || b.standing("shop") != tenant.Suspended {
			t.Errorf("another month: %v", m)
		}
		b.pass(30 * 24 * time.Hour)
		if m := spend(0); len(m) != 0 || b.standing("shop") != tenant.Active {
			t.Errorf("the month after: %v, %s", m, b.standing("shop"))
		}
		// What a person set is not the budget's to change.
		b.must(b.tenants.Suspend(ctx, b.op, "shop", tenant.Degraded, false, "unpaid bills"))
		if m := spend(30); len(m) != 3 || b.standing("shop") != tenant.Degraded {
			t.Errorf("%v, %s", m, b.standing("shop"))
		}
		b.is(b.tenants.Resume(ctx, owner, "shop"), tenant.ErrDenied)
		b.must(b.DeleteBudget(ctx, owner, "shop"))
		if b.standing("shop") != tenant.Degraded {
			t.Error("a budget that is removed takes a person's measure with it")
		}
		for name, bad := range map[string]control.Budget{
			"nothing": {Amount: 0, Thresholds: []int{1}, Action: control.Alert}, "no thresholds": {Amount: 1, Action: control.Alert},
			"twice": {Amount: 1, Thresholds: []int{1, 1}, Action: control.Alert}, "action": {Amount: 1, Thresholds: []int{1}, Action: "stop"},
		} {
			if err := b.PutBudget(ctx, owner, "shop", bad); !errors.Is(err, invoice.ErrInvalid) {
				t.Errorf("%s: %v", name, err)
			}
		}
	})
}

func TestABudgetThatCannotBeMadeOutKeepsNobodyFromHis(t *testing.T) {
	engines(t, func(t *testing.T, b *bed) {
		ctx := t.Context()
		b.must(b.store.Subscribe(ctx, "test"))
		b.plan("op", "retail", "shop", prices("1"))
		x := control.Budget{Amount: amount("1"), Currency: "EUR", Thresholds: []int{100}, Action: control.Degrade}
		b.must(b.PutBudget(ctx, b.op, "cafe", x)) // which has no plan
		b.must(b.PutBudget(ctx, b.op, "shop", x))
		b.ingest(rec("shop", "web", b.now, usage.Counts{BytesOut: 2 * gigabyte}))
		b.is(b.Budgets(ctx, nil, b.clock()), control.ErrNoPrices)
		if m := b.messages(control.TopicBudget); len(m) != 1 || b.standing("shop") != tenant.Degraded {
			t.Errorf("%v", m)
		}
	})
}

func TestStandings(t *testing.T) {
	engines(t, func(t *testing.T, b *bed) {
		ctx := t.Context()
		b.must(b.tenants.Suspend(ctx, b.op, "east", tenant.Suspended, false, "bills"))
		if b.standing("east") != tenant.Suspended || b.standing("shop") != tenant.Active {
			t.Error("a reseller alone")
		}
		b.must(b.tenants.Suspend(ctx, b.op, "east", tenant.Suspended, true, "bills"))
		if b.standing("shop") != tenant.Suspended || b.standing("deli") != tenant.Active {
			t.Error("a reseller and those below him")
		}
		b.is(b.tenants.Suspend(ctx, b.user("shop", "ann", tenant.RoleAdmin), "shop", tenant.Degraded, false, "x"), tenant.ErrDenied)
		b.is(b.tenants.Suspend(ctx, b.op, "east", tenant.Suspended, true, ""), tenant.ErrInvalid)
		b.is(b.tenants.Suspend(ctx, b.op, "op", tenant.Suspended, true, "himself"), tenant.ErrDenied)
		b.must(b.tenants.Resume(ctx, b.op, "east"))
		if b.standing("shop") != tenant.Active {
			t.Error("resumed")
		}
		b.must(b.tenants.Suspend(ctx, b.op, "cafe", tenant.Suspended, false, "gone"))
		b.must(b.tenants.DeleteOrganization(ctx, b.op, "cafe"))
		if b.standing("cafe") != tenant.Suspended {
			t.Error("deleted")
		}
	})
}

func TestErasure(t *testing.T) {
	for name, keep := range map[string]bool{"all": false, "keeping receipts": true} {
		t.Run(name, func(t *testing.T) {
			engines(t, func(t *testing.T, b *bed) {
				ctx := t.Context()
				b.ingest(rec("shop", "secret-project", b.now.Add(-72*time.Hour), usage.Counts{Requests: 5}), rec("shop", "web", b.now, usage.Counts{Requests: 6}))
				if _, err := b.Compact(ctx, nil, usage.DayOf(b.now)-1); err != nil {
					t.Fatal(err)
				}
				b.is(b.Erase(ctx, b.op, "shop", keep), tenant.ErrInUse)
				b.must(b.tenants.DeleteOrganization(ctx, b.op, "shop"))
				b.is(b.Erase(ctx, b.op, "shop", keep), control.ErrOpen)
				b.pass(48 * time.Hour)
				if n, err := b.Seal(ctx, nil, b.clock()); err != nil || n != 2 {
					t.Fatal(n, err)
				}
				b.is(b.Erase(ctx, b.user("cafe", "joe", tenant.RoleAdmin), "shop", keep), tenant.ErrDenied)
				b.must(b.Erase(ctx, b.op, "shop", keep))
				b.ingest(rec("shop", "secret-project", b.now, usage.Counts{Requests: 7})) // late
				if n, err := b.Seal(ctx, nil, b.clock().Add(96*time.Hour)); err != nil || n != 0 {
					t.Errorf("%d receipts for nobody, %v", n, err)
				}
				var sites, sum []string
				read := func(column string) (list []string) {
					b.must(b.store.View(ctx, func(r *store.Reader) (err error) {
						list, err = store.Rows(ctx, r, "look", scanText, "SELECT DISTINCT CAST("+column+" AS TEXT) FROM (SELECT organization, site, requests FROM usage_hours UNION ALL SELECT organization, site, requests FROM usage_days) AS u")
						return err
					}))
					return list
				}
				sites, sum = read("site"), read("(SELECT sum(requests) FROM (SELECT requests FROM usage_hours UNION ALL SELECT requests FROM usage_days) AS v)")
				orgs := read("organization")
				if len(sites) != 1 || sites[0] != "erased" || len(orgs) != 1 || !strings.HasPrefix(orgs[0], "~erased-") || len(sum) != 1 || sum[0] != "18" {
					t.Errorf("%v %v %v", orgs, sites, sum)
				}
				list, err := b.store.List(ctx, store.Query{Organization: "shop"})
				b.must(err)
				for _, d := range list.Documents {
					if d.Kind != tenant.KindOrganization {
						t.Errorf("%s is left", d.Key)
					}
				}
				var backup bytes.Buffer
				b.must(b.store.View(ctx, func(r *store.Reader) (err error) {
					bodies, err := store.Rows(ctx, r, "look", scanText, "SELECT CAST(body AS TEXT) FROM usage_receipts")
					if b.store.Engine() == "postgres" { // where bytes are no text
						bodies, err = store.Rows(ctx, r, "look", scanText, "SELECT convert_from(body, 'UTF8') FROM usage_receipts")
					}
					for _, s := range bodies {
						backup.WriteString(s + "\n")
					}
					return err
				}))
				if strings.Contains(backup.String(), "secret-project") {
					t.Error("a site of who was erased stands in a receipt")
				}
				s, err := usage.VerifyFile(&backup, usage.NewVerifier(nil))
				if want := map[bool]int{true: 2}[keep]; err != nil || s.Receipts != want || s.Erased != want || keep && s.Total.Requests != 11 {
					t.Errorf("%+v, %v", s, err)
				}
			})
		})
	}
}
