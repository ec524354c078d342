package usage

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"io"
	"time"

	"github.com/relais-edge/relais/internal/control/store"
	"github.com/relais-edge/relais/internal/control/tenant"
	"github.com/relais-edge/relais/internal/usage"
)

// Seal makes receipts of days that are over by some hours at now, and of what came late for those before: a correction, never
// a rewrite. It gives the number of receipts. The leader calls it each hour.
func (s *Service) Seal(ctx context.Context, lease *store.Lease, now time.Time) (made int, err error) {
	before := usage.DayOf(now.Add(-grace)).First()
	for {
		var orgs []string
		_, err := s.store.Update(ctx, job("receipts", lease), func(tx *store.Tx) (err error) {
			orgs, err = store.Rows(ctx, &tx.Reader, "look for use without a receipt", scanText,
				"SELECT organization FROM usage_open WHERE hour < $1 ORDER BY organization LIMIT 1", int64(before))
			if err != nil || len(orgs) == 0 {
				return err
			}
			n, err := s.sealPart(ctx, tx, orgs[0], before, now.UTC().Truncate(time.Microsecond))
			made += n
			return err
		})
		if err != nil || len(orgs) == 0 {
			return made, err
		}
	}
}

// sealPart makes receipts of an organization's oldest lines.
func (s *Service) sealPart(ctx context.Context, tx *store.Tx, org string, before usage.Hour, made time.Time) (n int, err error) {
	rows, err := store.Rows(ctx, &tx.Reader, "read use without a receipt", scanRow, "SELECT organization, site, pop, hour, "+join(counters())+
		" FROM usage_open WHERE organization = $1 AND hour < $2 ORDER BY hour, site, pop LIMIT $3", org, int64(before), sealLines)
	if err != nil {
		return 0, err
	}
	last, closed, err := chainEnd(ctx, &tx.Reader, org)
	if err != nil {
		return 0, err
	}
	for len(rows) > 0 {
		r := &usage.Receipt{Organization: org, Number: last.Number + 1, Day: usage.Hour(rows[0].at).Day(), Made: made, Former: last.Hash}
		for len(rows) > 0 && len(r.Sums) < usage.MaxLines && usage.Hour(rows[0].at).Day() == r.Day {
			x := &rows[0]
			r.Sums = append(r.Sums, usage.Line{Site: x.site, Pop: x.pop, Hour: usage.Hour(x.at), Counts: x.Counts})
			rows = rows[1:]
		}
		switch {
		case r.Day > closed:
			r.Kind, closed = usage.KindUsage, r.Day
		case r.Day == last.Day && last.Kind != usage.KindCorrection && last.Made.Equal(made):
			r.Kind = usage.KindContinued
		default:
			r.Kind = usage.KindCorrection
		}
		if err := s.writeReceipt(ctx, tx, r); err != nil {
			return n, err
		}
		last = r
		n++
	}
	return n, nil
}

func (s *Service) writeReceipt(ctx context.Context, tx *store.Tx, r *usage.Receipt) error {
	if err := r.Seal(s.key); err != nil {
		return err
	}
	body, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("usage: %w", err)
	}
	_, err = tx.Exec(ctx, "write a receipt", "INSERT INTO usage_receipts (organization, number, day, kind, made, hash, body) VALUES ($1, $2, $3, $4, $5, $6, $7)",
		r.Organization, r.Number, int64(r.Day), r.Kind, r.Made.UnixMicro(), r.Hash, body)
	if err != nil {
		return err
	}
	// The lines are in their order, so those of the receipt are the oldest up to its last one.
	end := r.Sums[len(r.Sums)-1]
	gone, err := tx.Exec(ctx, "close lines", `DELETE FROM usage_open WHERE organization = $1 AND (hour < $2 OR hour = $2 AND (site < $3 OR site = $3 AND pop <= $4))`,
		r.Organization, int64(end.Hour), end.Site, end.Pop)
	if err == nil && gone != int64(len(r.Sums)) {
		err = fmt.Errorf("usage: receipt %d of %s has %d lines, and %d were closed", r.Number, r.Organization, len(r.Sums), gone)
	}
	return err
}

// chainEnd gives the newest receipt, without its sums, and the newest day that was closed.
func chainEnd(ctx context.Context, r *store.Reader, org string) (last *usage.Receipt, closed usage.Day, err error) {
	list, err := store.Rows(ctx, r, "read the newest receipt", func(rows *sql.Rows) (x usage.Receipt, err error) {
		var day, made int64
		err = rows.Scan(&x.Number, &day, &x.Kind, &made, &x.Hash)
		x.Day, x.Made = usage.Day(day), time.UnixMicro(made).UTC()
		return x, err
	}, "SELECT number, day, kind, made, hash FROM usage_receipts WHERE organization = $1 ORDER BY number DESC LIMIT 1", org)
	if err != nil || len(list) == 0 {
		return &usage.Receipt{}, 0, err
	}
	days, err := store.Rows(ctx, r, "read the newest day that was closed", scanInt, "SELECT coalesce(max(day), 0) FROM usage_receipts WHERE organization = $1 AND kind = $2", org, usage.KindUsage)
	if err != nil {
		return nil, 0, err
	}
	return &list[0], usage.Day(days[0]), nil
}

// Receipts writes an organization's receipts after a number, one to a line as JSON, as `relais usage verify` reads them.
func (s *Service) Receipts(ctx context.Context, actor tenant.Actor, org string, after int64, w io.Writer) error {
	for {
		var list [][]byte
		err := s.store.View(ctx, func(r *store.Reader) (err error) {
			if err := s.tenants.Authorize(ctx, r, actor, tenant.Access{Verb: tenant.VerbRead, Kind: tenant.KindUsage, Organization: org}); err != nil {
				return err
			}
			list, err = receiptBodies(ctx, r, org, after)
			return err
		})
		if err != nil || len(list) == 0 {
			return err
		}
		for _, b := range list {
			if _, err := w.Write(append(b, '\n')); err != nil {
				return err
			}
			after++
		}
	}
}

// receiptBodies reads a few receipts after a number. Numbers have no gaps.
func receiptBodies(ctx context.Context, r *store.Reader, org string, after int64) ([][]byte, error) {
	return store.Rows(ctx, r, "read receipts", func(rows *sql.Rows) (b []byte, err error) {
		return b, rows.Scan(&b)
	}, "SELECT body FROM usage_receipts WHERE organization = $1 AND number > $2 ORDER BY number LIMIT 8", org, after)
}
