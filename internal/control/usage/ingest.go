package usage

import (
	"cmp"
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"github.com/relais-edge/relais/internal/control/store"
	"github.com/relais-edge/relais/internal/control/tenant"
	"github.com/relais-edge/relais/internal/usage"
	"github.com/relais-edge/relais/internal/usage/invoice"
)

// row is a line of the roll-up.
type row struct {
	organization, site, pop string
	at                      int64 // hour, or day
	usage.Counts
}

func compareRows(a, b row) int {
	return cmp.Or(cmp.Compare(a.organization, b.organization), cmp.Compare(a.at, b.at), cmp.Compare(a.site, b.site), cmp.Compare(a.pop, b.pop))
}

// Ingest takes in a batch of a PoP that proved who it is. When it returns nil, the records are counted and on disk; records that
// came before are not counted again, so that a batch may be sent as often as need be. *usage.GapError says that records before it
// are missing: the PoP sends those first, or says by Batch.Gap that it has them no more.
func (s *Service) Ingest(ctx context.Context, pop string, b *usage.Batch) error {
	if err := b.Check(); err != nil {
		return err
	}
	if b.Pop != pop {
		return fmt.Errorf("%w: PoP %s sent records of PoP %s", ErrDenied, pop, b.Pop)
	}
	_, err := s.store.Update(ctx, store.Change{Author: "pop " + pop}, func(tx *store.Tx) error {
		last, err := spoolEnd(ctx, &tx.Reader, b)
		if err != nil {
			return err
		}
		if b.Last() <= last {
			return nil
		}
		lost := b.First() - last - 1
		if lost > 0 && !b.Gap {
			return &usage.GapError{Want: last + 1, Have: b.First()}
		}
		fresh := b.Records[max(last+1-b.First(), 0):]
		if err := count(ctx, tx, pop, fresh); err != nil {
			return err
		}
		_, err = tx.Exec(ctx, "note what a PoP has delivered", `INSERT INTO usage_spools (pop, spool, sequence, lost, time) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (pop, spool) DO UPDATE SET sequence = excluded.sequence, lost = usage_spools.lost + excluded.lost, time = excluded.time`,
			pop, b.Spool.String(), b.Last(), max(lost, 0), tx.Now().UnixMicro())
		return err
	})
	return err
}

func spoolEnd(ctx context.Context, r *store.Reader, b *usage.Batch) (last int64, err error) {
	list, err := store.Rows(ctx, r, "read what a PoP has delivered", scanInt, "SELECT sequence FROM usage_spools WHERE pop = $1 AND spool = $2", b.Pop, b.Spool.String())
	if err != nil || len(list) == 0 {
		return 0, err
	}
	return list[0], nil
}

func scanInt(rows *sql.Rows) (n int64, err error) { return n, rows.Scan(&n) }

func scanText(rows *sql.Rows) (s string, err error) { return s, rows.Scan(&s) }

// count adds records to all sums.
func count(ctx context.Context, tx *store.Tx, pop string, records []usage.Record) error {
	pseudonyms, err := pseudonymsOf(ctx, &tx.Reader, records)
	if err != nil {
		return err
	}
	latest := int64(usage.HourOf(tx.Now().Add(ahead)))
	sums := map[row]usage.Counts{}
	for i := range records {
		r := &records[i]
		k := row{organization: r.Organization, site: r.Site, pop: pop, at: int64(r.Hour)}
		if k.at > latest {
			k.at = int64(usage.HourOf(tx.Now()))
		}
		if p, ok := pseudonyms[r.Organization]; ok {
			k.organization, k.site = p, erasedSite
		}
		n := sums[k]
		n.Add(&r.Counts)
		sums[k] = n
	}
	var all, open []row
	for k, n := range sums {
		k.Counts = n
		all = append(all, k)
		if !strings.HasPrefix(k.organization, erasedPrefix) {
			open = append(open, k)
		}
	}
	if err := addRows(ctx, tx, "usage_hours", "hour", all); err != nil {
		return err
	}
	if err := addRows(ctx, tx, "usage_open", "hour", open); err != nil {
		return err
	}
	return addMonths(ctx, tx, open)
}

// addRows adds to a table of sums, in the order of its key.
func addRows(ctx context.Context, tx *store.Tx, table, at string, rows []row) error {
	slices.SortFunc(rows, compareRows)
	for part := range slices.Chunk(rows, chunk) {
		var args []any
		for i := range part {
			r := &part[i]
			args = append(args, r.organization, r.site, r.pop, r.at)
			for _, n := range r.List() {
				args = append(args, n)
			}
		}
		_, err := tx.Exec(ctx, "add up use", "INSERT INTO "+table+" (organization, site, pop, "+at+", "+join(counters())+") VALUES "+
			marks(len(part), 4+usage.Fields)+" ON CONFLICT (organization, "+at+", site, pop) DO UPDATE SET "+plus(table, counters()), args...)
		if err != nil {
			return err
		}
	}
	return nil
}

// addMonths adds up what plans have limits for.
func addMonths(ctx context.Context, tx *store.Tx, rows []row) error {
	type key struct{ organization, month string }
	sums := map[key]usage.Counts{}
	for i := range rows {
		k := key{rows[i].organization, invoice.MonthOf(usage.Hour(rows[i].at).Time()).String()}
		n := sums[k]
		n.Add(&rows[i].Counts)
		sums[k] = n
	}
	keys := make([]key, 0, len(sums))
	for k := range sums {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, func(a, b key) int {
		return cmp.Or(cmp.Compare(a.organization, b.organization), cmp.Compare(a.month, b.month))
	})
	for part := range slices.Chunk(keys, chunk) {
		var args []any
		for _, k := range part {
			n := sums[k]
			args = append(args, k.organization, k.month, n.Requests, n.BytesOut, n.Orders, 0, 0, 0)
		}
		_, err := tx.Exec(ctx, "add up a month's use", `INSERT INTO usage_months (organization, month, requests, bytes, orders, counted_requests, counted_bytes, counted_orders)
VALUES `+marks(len(part), 8)+" ON CONFLICT (organization, month) DO UPDATE SET "+plus("usage_months", []string{"requests", "bytes", "orders"}), args...)
		if err != nil {
			return err
		}
	}
	return nil
}

// Quotas holds what came since the last call against plans (tenant.Meter): what was served is counted whatever they say.
// The leader calls it every minute or so.
func (s *Service) Quotas(ctx context.Context, lease *store.Lease) error {
	type month struct {
		organization, month string
		n, counted          [3]int64
	}
	for after := ""; ; {
		var list []month
		_, err := s.store.Update(ctx, job("quotas", lease), func(tx *store.Tx) (err error) {
			list, err = store.Rows(ctx, &tx.Reader, "read what plans limit", func(rows *sql.Rows) (m month, err error) {
				return m, rows.Scan(&m.organization, &m.month, &m.n[0], &m.n[1], &m.n[2], &m.counted[0], &m.counted[1], &m.counted[2])
			}, `SELECT organization, month, requests, bytes, orders, counted_requests, counted_bytes, counted_orders FROM usage_months
WHERE (requests <> counted_requests OR bytes <> counted_bytes OR orders <> counted_orders) AND organization || '/' || month > $1
ORDER BY organization || '/' || month LIMIT $2`, after, jobRows)
			for _, m := range list {
				if err == nil {
					err = meterMonth(ctx, tx, m.organization, m.month, m.n, m.counted)
				}
			}
			return err
		})
		if err != nil || len(list) < jobRows {
			return err
		}
		after = list[len(list)-1].organization + "/" + list[len(list)-1].month
	}
}

func meterMonth(ctx context.Context, tx *store.Tx, org, month string, n, counted [3]int64) error {
	for i, metric := range []string{tenant.MetricRequests, tenant.MetricBytes, tenant.MetricOrders} {
		if n[i] <= counted[i] {
			continue
		}
		// An organization that is gone has no quota, and its use no less.
		if _, err := tenant.Meter(ctx, tx, org, metric, month, n[i]-counted[i]); err != nil && !isGone(err) {
			return err
		}
	}
	_, err := tx.Exec(ctx, "note what was held against plans", "UPDATE usage_months SET counted_requests = $1, counted_bytes = $2, counted_orders = $3 WHERE organization = $4 AND month = $5",
		n[0], n[1], n[2], org, month)
	return err
}

// pseudonymsOf finds organizations that were erased: what comes late of them is counted under a name that is nobody's.
func pseudonymsOf(ctx context.Context, r *store.Reader, records []usage.Record) (map[string]string, error) {
	names := map[string]string{} // by digest
	for i := range records {
		names[digest(records[i].Organization)] = records[i].Organization
	}
	found := map[string]string{}
	digests := make([]any, 0, len(names))
	for d := range names {
		digests = append(digests, d)
	}
	for part := range slices.Chunk(digests, chunk) {
		list, err := store.Rows(ctx, r, "read who was erased", func(rows *sql.Rows) (p [2]string, err error) {
			return p, rows.Scan(&p[0], &p[1])
		}, "SELECT digest, pseudonym FROM usage_erased WHERE digest IN "+marks(1, len(part)), part...)
		if err != nil {
			return nil, err
		}
		for _, p := range list {
			found[names[p[0]]] = p[1]
		}
	}
	return found, nil
}

func digest(organization string) string {
	sum := sha256.Sum256([]byte("relais erased organization\n" + organization))
	return hex.EncodeToString(sum[:])
}

// Delivery is how far a spool of a PoP was delivered.
type Delivery struct {
	Pop, Spool string
	Sequence   int64 // the newest record that is here
	Lost       int64 // records that the PoP had no more
}

// Deliveries lists the spools of a PoP, or of all where it is empty.
func (s *Service) Deliveries(ctx context.Context, pop string) (list []Delivery, err error) {
	err = s.store.View(ctx, func(r *store.Reader) error {
		list, err = store.Rows(ctx, r, "read deliveries", func(rows *sql.Rows) (d Delivery, err error) {
			return d, rows.Scan(&d.Pop, &d.Spool, &d.Sequence, &d.Lost)
		}, "SELECT pop, spool, sequence, lost FROM usage_spools WHERE pop = $1 OR $1 = '' ORDER BY pop, spool LIMIT 100000", pop)
		return err
	})
	return list, err
}
