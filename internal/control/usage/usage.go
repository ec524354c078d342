// Package usage takes in what PoPs counted, once and for good, rolls it up, and makes of it what organizations ask for and are
// asked to pay: receipts, quotas, invoices, budgets and margins. Its rows are tables of their own in the store's database.
package usage

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/relais-edge/relais/internal/control/store"
	"github.com/relais-edge/relais/internal/control/tenant"
	"github.com/relais-edge/relais/internal/usage"
)

// Bounds.
const (
	// grace is how long after a day's end its receipt waits for PoPs that are late.
	grace = 6 * time.Hour
	// ahead is how far a PoP's clock may be ahead. Beyond it, its use counts for the hour in which it came.
	ahead = 2 * time.Hour
	// sealLines are those that one transaction makes receipts of, jobRows the organizations or rows of one transaction of
	// other work.
	sealLines = 4 * usage.MaxLines
	jobRows   = 500
	// chunk is how many rows one statement writes. SQLite looks each place of a value up among all before it, so that a
	// statement of many is slow.
	chunk       = 40
	maxAccounts = 10_000 // organizations below one that is billed
)

// ErrDenied says that a PoP sent what is another's.
var ErrDenied = errors.New("not allowed")

// Store is what usage needs of control/store.
type Store interface {
	View(ctx context.Context, fn func(*store.Reader) error) error
	Update(ctx context.Context, c store.Change, fn func(*store.Tx) error) (store.Commit, error)
}

// Tenants says who may.
type Tenants interface {
	Authorize(ctx context.Context, r *store.Reader, actor tenant.Actor, access tenant.Access) error
}

// Service does what PoPs, tenants and operators ask of usage.
type Service struct {
	store   Store
	tenants Tenants
	key     ed25519.PrivateKey
	regions map[string]string
}

// Config is what a Service is made of.
type Config struct {
	Store   Store // opened with Schema
	Tenants Tenants
	// Key signs receipts: the operator's, whose public half tenants know from elsewhere.
	Key     ed25519.PrivateKey
	Regions map[string]string // of PoPs
}

// New makes a Service.
func New(c Config) (*Service, error) {
	if len(c.Key) != ed25519.PrivateKeySize {
		return nil, errors.New("usage: the operator's key is missing; give an ed25519 key that signs receipts")
	}
	return &Service{c.Store, c.Tenants, c.Key, c.Regions}, nil
}

// PublicKey is what receipts are verified with.
func (s *Service) PublicKey() ed25519.PublicKey {
	k, _ := s.key.Public().(ed25519.PublicKey)
	return k
}

// job is the change of work that nobody asked for. A lease, where there is one, ends it when another process leads.
func job(name string, lease *store.Lease) store.Change {
	return store.Change{Author: "usage " + name, Lease: lease}
}

// counters are the columns of what is counted, in the order of usage.Counts.List.
func counters() []string {
	return strings.Fields("requests bytes_in bytes_out cache_hits fetches orders refused refused_bytes_in refused_bytes_out")
}

// Schema is the tables that the store is to be opened with.
func Schema() store.Schema {
	sums := ""
	for _, c := range counters() {
		sums += ", " + c + " BIGINT NOT NULL"
	}
	const slot = "organization {text} NOT NULL, site {text} NOT NULL, pop {text} NOT NULL, "
	table := func(name, columns, types string) store.Table {
		return store.Table{Name: "usage_" + name, Columns: append(strings.Fields(columns), counters()...), Types: types + strings.Repeat("i", usage.Fields)}
	}
	hours, open, days := table("hours", "organization site pop hour", "ttti"), table("open", "organization site pop hour", "ttti"), table("days", "organization site pop day", "ttti")
	hours.Key, open.Key, days.Key = "organization, hour, site, pop", "organization, hour, site, pop", "organization, day, site, pop"
	return store.Schema{
		Name: "usage",
		Steps: [][]string{{
			`CREATE TABLE usage_spools (pop {text} NOT NULL, spool {text} NOT NULL, sequence BIGINT NOT NULL, lost BIGINT NOT NULL, time BIGINT NOT NULL,
PRIMARY KEY (pop, spool))`,
			"CREATE TABLE usage_hours (" + slot + "hour BIGINT NOT NULL" + sums + ", PRIMARY KEY (organization, hour, site, pop))",
			"CREATE INDEX usage_hours_hour ON usage_hours (hour)",
			"CREATE TABLE usage_open (" + slot + "hour BIGINT NOT NULL" + sums + ", PRIMARY KEY (organization, hour, site, pop))",
			"CREATE INDEX usage_open_hour ON usage_open (hour)",
			"CREATE TABLE usage_days (" + slot + "day BIGINT NOT NULL" + sums + ", PRIMARY KEY (organization, day, site, pop))",
			`CREATE TABLE usage_months (organization {text} NOT NULL, month {text} NOT NULL, requests BIGINT NOT NULL, bytes BIGINT NOT NULL,
orders BIGINT NOT NULL, counted_requests BIGINT NOT NULL, counted_bytes BIGINT NOT NULL, counted_orders BIGINT NOT NULL, PRIMARY KEY (organization, month))`,
			`CREATE TABLE usage_receipts (organization {text} NOT NULL, number BIGINT NOT NULL, day BIGINT NOT NULL, kind {text} NOT NULL,
made BIGINT NOT NULL, hash {text} NOT NULL, body {bytes} NOT NULL, PRIMARY KEY (organization, number))`,
			`CREATE TABLE usage_told (organization {text} NOT NULL, month {text} NOT NULL, threshold BIGINT NOT NULL, time BIGINT NOT NULL,
PRIMARY KEY (organization, month, threshold))`,
			"CREATE TABLE usage_erased (digest {text} PRIMARY KEY, pseudonym {text} NOT NULL, time BIGINT NOT NULL)",
		}},
		Tables: []store.Table{
			{Name: "usage_spools", Columns: strings.Fields("pop spool sequence lost time"), Types: "ttiii", Key: "pop, spool"},
			hours, open, days,
			{Name: "usage_months", Columns: strings.Fields("organization month requests bytes orders counted_requests counted_bytes counted_orders"), Types: "ttiiiiii", Key: "organization, month"},
			{Name: "usage_receipts", Columns: strings.Fields("organization number day kind made hash body"), Types: "tiitit" + "b", Key: "organization, number"},
			{Name: "usage_told", Columns: strings.Fields("organization month threshold time"), Types: "ttii", Key: "organization, month, threshold"},
			{Name: "usage_erased", Columns: strings.Fields("digest pseudonym time"), Types: "tti", Key: "digest"},
		},
	}
}

// plus adds columns in an upsert. A sum that is near the end of what a column holds stays there: an error would keep a PoP
// from ever delivering anything again.
func plus(table string, columns []string) string {
	parts := make([]string, len(columns))
	for i, c := range columns {
		parts[i] = fmt.Sprintf("%s = CASE WHEN %s.%s > 4611686018427387904 THEN %s.%s ELSE %s.%s + excluded.%s END", c, table, c, table, c, table, c, c)
	}
	return strings.Join(parts, ", ")
}

// marks are the places of so many rows of so many values.
func marks(rows, width int) string {
	var b strings.Builder
	for i := range rows {
		if i > 0 {
			b.WriteString(", ")
		}
		for j := range width {
			b.WriteString([2]string{", ", "("}[b2i(j == 0)])
			fmt.Fprintf(&b, "$%d", i*width+j+1)
		}
		b.WriteByte(')')
	}
	return b.String()
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

func join(columns []string) string { return strings.Join(columns, ", ") }
