package usage

import (
	"cmp"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/relais-edge/relais/internal/control/store"
	"github.com/relais-edge/relais/internal/control/tenant"
	"github.com/relais-edge/relais/internal/usage"
	"github.com/relais-edge/relais/internal/usage/invoice"
)

func isGone(err error) bool { return errors.Is(err, store.ErrNotFound) }

// sumColumns asks for sums as integers: PostgreSQL's sum of BIGINT is NUMERIC.
func sumColumns() string {
	parts := make([]string, 0, usage.Fields)
	for _, c := range counters() {
		parts = append(parts, "CAST(sum("+c+") AS BIGINT)")
	}
	return strings.Join(parts, ", ")
}

// scanRow reads organization, site, pop, time and counters.
func scanRow(rows *sql.Rows) (r row, err error) {
	var v [usage.Fields]int64
	to := []any{&r.organization, &r.site, &r.pop, &r.at}
	for i := range v {
		to = append(to, &v[i])
	}
	err = rows.Scan(to...)
	r.Counts = usage.CountsOf(v)
	return r, err
}

// useOf reads what an organization used on days from one to before another, by site, PoP and day.
func useOf(ctx context.Context, r *store.Reader, org string, from, to usage.Day) ([]invoice.Use, error) {
	hours, err := store.Rows(ctx, r, "read use", scanRow, "SELECT organization, site, pop, hour / 24, "+sumColumns()+
		" FROM usage_hours WHERE organization = $1 AND hour >= $2 AND hour < $3 GROUP BY organization, site, pop, hour / 24", org, int64(from.First()), int64(to.First()))
	if err != nil {
		return nil, err
	}
	days, err := store.Rows(ctx, r, "read use", scanRow, "SELECT organization, site, pop, day, "+join(counters())+
		" FROM usage_days WHERE organization = $1 AND day >= $2 AND day < $3", org, int64(from), int64(to))
	if err != nil {
		return nil, err
	}
	return merge(append(hours, days...)), nil
}

// merge adds up rows of the same site, PoP and day.
func merge(rows []row) (list []invoice.Use) {
	slices.SortFunc(rows, compareRows)
	for i := range rows {
		r := &rows[i]
		if n := len(list); n > 0 && i > 0 && compareRows(rows[i-1], *r) == 0 {
			list[n-1].Add(&r.Counts)
			continue
		}
		list = append(list, invoice.Use{Organization: r.organization, Site: r.site, Pop: r.pop, Day: usage.Day(r.at), Counts: r.Counts})
	}
	return list
}

// Use gives what an organization, and where below is set all below it, used on days from one to before another.
func (s *Service) Use(ctx context.Context, actor tenant.Actor, org string, below bool, from, to usage.Day) (list []invoice.Use, err error) {
	err = s.store.View(ctx, func(r *store.Reader) error {
		if err := s.tenants.Authorize(ctx, r, actor, tenant.Access{Verb: tenant.VerbRead, Kind: tenant.KindUsage, Organization: org}); err != nil {
			return err
		}
		orgs := []tenant.Organization{{Name: org}}
		if below {
			if orgs, err = subtree(ctx, r, org); err != nil {
				return err
			}
		}
		for _, o := range orgs {
			part, err := useOf(ctx, r, o.Name, from, to)
			if err != nil {
				return err
			}
			list = append(list, part...)
		}
		return nil
	})
	return list, err
}

// subtree lists an organization and all below it, those that were deleted too: what they used is still to be paid.
func subtree(ctx context.Context, r *store.Reader, top string) (list []tenant.Organization, err error) {
	q := store.Query{Kind: tenant.KindOrganization}
	for {
		p, err := r.List(ctx, q)
		if err != nil {
			return nil, err
		}
		for _, d := range p.Documents {
			var o tenant.Organization
			if err := json.Unmarshal(d.Body, &o); err != nil {
				return nil, fmt.Errorf("usage: %s is damaged: %w", d.Key, err)
			}
			if slices.Contains(o.Path, top) {
				list = append(list, o)
			}
		}
		if len(list) > maxAccounts {
			return nil, &store.LimitError{What: "organizations below " + top, Have: int64(len(list)), Most: maxAccounts}
		}
		if q.Cursor = p.Next; q.Cursor == "" {
			break
		}
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("organization %s: %w", top, store.ErrNotFound)
	}
	slices.SortFunc(list, func(a, b tenant.Organization) int {
		return cmp.Or(cmp.Compare(len(a.Path), len(b.Path)), cmp.Compare(a.Name, b.Name))
	})
	return list, nil
}

// Compact sums roll-ups by the hour before a day to roll-ups by the day. Receipts keep the hours. It gives the number of rows
// that went. The leader calls it each day.
func (s *Service) Compact(ctx context.Context, lease *store.Lease, before usage.Day) (gone int64, err error) {
	for {
		var orgs []string
		_, err = s.store.Update(ctx, job("compact", lease), func(tx *store.Tx) (err error) {
			orgs, err = store.Rows(ctx, &tx.Reader, "look for old use", scanText, "SELECT DISTINCT organization FROM usage_hours WHERE hour < $1 ORDER BY organization LIMIT 1", int64(before.First()))
			if err != nil || len(orgs) == 0 {
				return err
			}
			_, err = tx.Exec(ctx, "sum up days", "INSERT INTO usage_days (organization, site, pop, day, "+join(counters())+
				") SELECT organization, site, pop, hour / 24, "+sumColumns()+" FROM usage_hours WHERE organization = $1 AND hour < $2 GROUP BY organization, site, pop, hour / 24"+
				" ON CONFLICT (organization, day, site, pop) DO UPDATE SET "+plus("usage_days", counters()), orgs[0], int64(before.First()))
			if err != nil {
				return err
			}
			n, err := tx.Exec(ctx, "remove hours", "DELETE FROM usage_hours WHERE organization = $1 AND hour < $2", orgs[0], int64(before.First()))
			gone += n
			return err
		})
		if err != nil || len(orgs) == 0 {
			return gone, err
		}
	}
}
