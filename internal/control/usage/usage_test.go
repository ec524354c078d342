package usage_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/relais-edge/relais/internal/control/store"
	"github.com/relais-edge/relais/internal/control/tenant"
	"github.com/relais-edge/relais/internal/control/tenant/auth"
	"github.com/relais-edge/relais/internal/control/tenant/secret"
	control "github.com/relais-edge/relais/internal/control/usage"
	"github.com/relais-edge/relais/internal/usage"
	"github.com/relais-edge/relais/internal/usage/price"
	"github.com/relais-edge/relais/test/postgres"
)

const password = "correct horse battery"

// server starts at the first test that wants it.
type server struct {
	once sync.Once
	pg   *postgres.Server
	err  error
}

var shared = &server{}

func TestMain(m *testing.M) {
	code := m.Run()
	if shared.pg != nil {
		if err := shared.pg.Stop(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

// bed is a control plane with an operator, a reseller with two sellers, and a seller of the operator's:
//
//	op ── east ── shop, cafe
//	   └─ deli
type bed struct {
	*control.Service
	t       *testing.T
	store   *store.Store
	tenants *tenant.Service
	op      tenant.Actor
	key     ed25519.PrivateKey
	numbers map[usage.SpoolID]int64

	mu  sync.Mutex
	now time.Time
}

func (b *bed) clock() time.Time {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.now
}

func (b *bed) pass(d time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.now = b.now.Add(d)
}

// engines runs a test over both databases.
func engines(t *testing.T, test func(t *testing.T, b *bed)) {
	t.Run("sqlite", func(t *testing.T) {
		t.Parallel()
		path := filepath.Join(t.TempDir(), "relais.db")
		test(t, newBed(t, func(o store.Options) (*store.Store, error) {
			return store.OpenSQLite(context.WithoutCancel(t.Context()), path, o)
		}))
	})
	t.Run("postgres", func(t *testing.T) {
		t.Parallel()
		shared.once.Do(func() { shared.pg, shared.err = postgres.Start(context.Background(), os.Stderr) })
		if shared.err != nil {
			t.Fatal(shared.err)
		}
		dsn, err := shared.pg.Database(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		test(t, newBed(t, func(o store.Options) (*store.Store, error) {
			return store.OpenPostgres(context.WithoutCancel(t.Context()), dsn, o)
		}))
	})
}

func newBed(t *testing.T, open func(store.Options) (*store.Store, error)) *bed {
	t.Helper()
	b := &bed{t: t, now: time.Date(2026, 11, 10, 12, 0, 0, 0, time.UTC), numbers: map[usage.SpoolID]int64{}, key: ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, 32))}
	var err error
	if b.store, err = open(store.Options{Clock: b.clock, Schemas: []store.Schema{control.Schema()}}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.store.Close(); err != nil {
			t.Error(err)
		}
	})
	private, _, err := secret.NewKey()
	b.must(err)
	vault, err := secret.NewVault(private)
	b.must(err)
	b.tenants = tenant.New(tenant.Config{
		Store: b.store, Vault: vault, Hasher: auth.NewHasher(auth.Cost{Passes: 1, MemoryKiB: 64, Lanes: 1}, 2), Issuer: "Relais", Clock: b.clock,
	})
	b.op, err = b.tenants.Setup(t.Context(), "op", "root", password)
	b.must(err)
	for _, o := range [][2]string{{"op", "east"}, {"op", "deli"}, {"east", "shop"}, {"east", "cafe"}} {
		b.must(b.tenants.CreateOrganization(t.Context(), b.op, o[0], o[1], "Title of "+o[1]))
	}
	b.Service, err = control.New(control.Config{Store: b.store, Tenants: b.tenants, Key: b.key, Regions: map[string]string{"fra1": "eu"}})
	b.must(err)
	return b
}

func (b *bed) must(err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
}

func (b *bed) is(err, want error) {
	b.t.Helper()
	if !errors.Is(err, want) {
		b.t.Errorf("%v, not %v", err, want)
	}
}

// user makes a user with a role in his organization.
func (b *bed) user(org, login, role string) tenant.Actor {
	b.t.Helper()
	b.must(b.tenants.CreateUser(b.t.Context(), b.op, org, login, password, false))
	u := tenant.Actor{Organization: org, Login: login}
	b.must(b.tenants.Bind(b.t.Context(), b.op, org, "", u, role, nil))
	return u
}

// plan gives an organization a plan of another.
func (b *bed) plan(of, name, to string, p tenant.Plan) {
	b.t.Helper()
	b.must(b.tenants.PutPlan(b.t.Context(), b.op, of, name, p))
	b.must(b.tenants.AssignPlan(b.t.Context(), b.op, to, tenant.PlanRef{Organization: of, Name: name}))
}

func rec(org, site string, at time.Time, c usage.Counts) usage.Record {
	return usage.Record{Slot: usage.Slot{Organization: org, Site: site, Hour: usage.HourOf(at)}, Counts: c}
}

// batch numbers records as a spool does.
func (b *bed) batch(pop string, spool byte, records ...usage.Record) *usage.Batch {
	x := &usage.Batch{Pop: pop, Spool: usage.SpoolID{spool}, Records: records}
	for i := range x.Records {
		b.numbers[x.Spool]++
		x.Records[i].Sequence = b.numbers[x.Spool]
	}
	return x
}

// ingest delivers records of PoP fra1.
func (b *bed) ingest(records ...usage.Record) {
	b.t.Helper()
	b.must(b.Ingest(b.t.Context(), "fra1", b.batch("fra1", 1, records...)))
}

// total adds up what an organization used.
func (b *bed) total(org string, below bool) (sum usage.Counts) {
	b.t.Helper()
	list, err := b.Use(b.t.Context(), b.op, org, below, usage.DayOf(b.now)-400, usage.DayOf(b.now)+400)
	b.must(err)
	for i := range list {
		sum.Add(&list[i].Counts)
	}
	return sum
}

// receipts verifies an organization's chain.
func (b *bed) receipts(org string) (usage.Summary, []*usage.Receipt) {
	b.t.Helper()
	var file bytes.Buffer
	b.must(b.Receipts(b.t.Context(), b.op, org, 0, &file))
	var list []*usage.Receipt
	b.must(usage.ReadReceipts(bytes.NewReader(file.Bytes()), func(r *usage.Receipt) error {
		list = append(list, r)
		return nil
	}))
	sum, err := usage.VerifyFile(&file, usage.NewVerifier([]ed25519.PublicKey{b.PublicKey()}))
	b.must(err)
	return sum, list
}

// messages are those of a topic since the last call.
func (b *bed) messages(topic string) (list []string) {
	b.t.Helper()
	for {
		m, err := b.store.Messages(b.t.Context(), "test", 1000)
		b.must(err)
		if len(m) == 0 {
			return list
		}
		for i := range m {
			if m[i].Topic == topic {
				list = append(list, string(m[i].Payload))
			}
		}
		b.must(b.store.Acknowledge(b.t.Context(), "test", m[len(m)-1].ID))
	}
}

func TestRecordsAreCountedOnce(t *testing.T) {
	engines(t, func(t *testing.T, b *bed) {
		ctx := t.Context()
		one := b.batch("fra1", 1, rec("shop", "web", b.now, usage.Counts{Requests: 5, BytesOut: 50}), rec("shop", "web", b.now, usage.Counts{Requests: 1}))
		two := b.batch("fra1", 1, rec("cafe", "web", b.now, usage.Counts{Requests: 7}))
		other := b.batch("fra1", 2, rec("shop", "web", b.now, usage.Counts{Requests: 100}))
		var gap *usage.GapError
		if err := b.Ingest(ctx, "fra1", two); !errors.As(err, &gap) || gap.Want != 1 || gap.Have != 3 {
			t.Errorf("out of order: %v", err)
		}
		for range 3 {
			b.must(b.Ingest(ctx, "fra1", one))
		}
		b.must(b.Ingest(ctx, "fra1", two))
		b.must(b.Ingest(ctx, "fra1", one))
		b.must(b.Ingest(ctx, "fra1", other)) // a disk that was wiped: the numbers begin anew
		both := &usage.Batch{Pop: "fra1", Spool: one.Spool, Records: append(append([]usage.Record{}, one.Records...), two.Records...)}
		more := rec("shop", "web", b.now, usage.Counts{Orders: 1})
		more.Sequence = 4
		both.Records = append(both.Records, more) // a part of it is new
		b.must(b.Ingest(ctx, "fra1", both))
		b.is(b.Ingest(ctx, "nyc1", one), control.ErrDenied)
		b.is(b.Ingest(ctx, "fra1", &usage.Batch{Pop: "fra1"}), usage.ErrInvalid)
		if n := b.total("shop", false); n != (usage.Counts{Requests: 106, BytesOut: 50, Orders: 1}) {
			t.Errorf("%+v", n)
		}
		if n := b.total("east", true); n.Requests != 113 {
			t.Errorf("%+v", n)
		}
		b.numbers[usage.SpoolID{1}] = 9
		lost := b.batch("fra1", 1, rec("shop", "web", b.now, usage.Counts{Requests: 1}))
		lost.Gap = true
		for range 2 {
			b.must(b.Ingest(ctx, "fra1", lost))
		}
		list, err := b.Deliveries(ctx, "fra1")
		if err != nil || len(list) != 2 || list[0].Sequence != 10 || list[0].Lost != 5 || list[1].Sequence != 1 {
			t.Errorf("%+v, %v", list, err)
		}
		if n := b.total("shop", false); n.Requests != 107 {
			t.Errorf("%+v", n)
		}
	})
}

func TestManyDeliverAtOnce(t *testing.T) {
	engines(t, func(t *testing.T, b *bed) {
		const pops, batches, size = 4, 5, 40
		var all sync.WaitGroup
		for p := range pops {
			pop := fmt.Sprint("pop", p)
			for i := range batches {
				x := b.batch(pop, byte(p+1))
				for j := range size {
					r := rec([]string{"shop", "cafe", "deli"}[j%3], fmt.Sprint("s", j%7), b.now.Add(time.Duration(-j%5)*time.Hour), usage.Counts{Requests: 1})
					r.Sequence = int64(i*size + j + 1)
					x.Records = append(x.Records, r)
				}
				for range 2 { // twice each, in whatever order they come
					all.Go(func() {
						for {
							err := b.Ingest(t.Context(), pop, x)
							var gap *usage.GapError
							if !errors.As(err, &gap) {
								if err != nil {
									t.Error(err)
								}
								return
							}
						}
					})
				}
			}
		}
		all.Wait()
		if n := b.total("op", true); n.Requests != pops*batches*size {
			t.Errorf("%d of %d", n.Requests, pops*batches*size)
		}
	})
}

func TestSumsThatAreFullKeepNobodyFromDelivering(t *testing.T) {
	engines(t, func(t *testing.T, b *bed) {
		for range 3 {
			var list []usage.Record
			for range usage.MaxRecords {
				list = append(list, rec("shop", "web", b.now, usage.Counts{BytesOut: usage.MaxCount}))
			}
			b.ingest(list...)
		}
		if n := b.total("shop", false); n.BytesOut < 1<<62 {
			t.Errorf("%d", n.BytesOut)
		}
	})
}

func TestAPopWhoseClockIsAhead(t *testing.T) {
	engines(t, func(t *testing.T, b *bed) {
		b.ingest(rec("shop", "web", b.now.Add(300*24*time.Hour), usage.Counts{Requests: 1}))
		list, err := b.Use(t.Context(), b.op, "shop", false, usage.DayOf(b.now), usage.DayOf(b.now)+1)
		if err != nil || len(list) != 1 || list[0].Requests != 1 {
			t.Errorf("%+v, %v", list, err)
		}
	})
}

func TestReceipts(t *testing.T) {
	engines(t, func(t *testing.T, b *bed) {
		ctx, day := t.Context(), usage.DayOf(b.now)
		seal := func(want int) {
			t.Helper()
			if n, err := b.Seal(ctx, nil, b.clock()); err != nil || n != want {
				t.Fatalf("%d receipts, not %d: %v", n, want, err)
			}
		}
		at := func(d usage.Day, hour int) time.Time { return d.Time().Add(time.Duration(hour) * time.Hour) }
		b.ingest(rec("shop", "web", at(day, 3), usage.Counts{Requests: 5}), rec("shop", "web", at(day, 4), usage.Counts{Requests: 6}),
			rec("shop", "api", at(day-1, 4), usage.Counts{Requests: 7}), rec("deli", "web", at(day, 4), usage.Counts{Requests: 1}))
		seal(1) // the day before
		b.pass(17 * time.Hour)
		seal(0) // the day is over, and PoPs may be late
		b.pass(2 * time.Hour)
		seal(2)
		seal(0)
		b.ingest(rec("shop", "web", at(day, 3), usage.Counts{Requests: 100}), rec("shop", "web", at(day-3, 3), usage.Counts{Requests: 1000}))
		seal(2)
		b.pass(24 * time.Hour)
		b.ingest(rec("shop", "web", at(day+1, 3), usage.Counts{Requests: 10}))
		seal(1)
		sum, list := b.receipts("shop")
		kinds := []string{}
		for _, r := range list {
			kinds = append(kinds, r.Kind)
		}
		if fmt.Sprint(kinds) != "[usage usage correction correction usage]" || sum.Total.Requests != 1128 || sum.Corrections != 2 {
			t.Errorf("%v, %+v", kinds, sum)
		}
		if sum.Total != b.total("shop", false) {
			t.Errorf("receipts say %+v, the roll-up %+v", sum.Total, b.total("shop", false))
		}
		stranger := b.user("cafe", "joe", tenant.RoleAdmin)
		b.is(b.Receipts(ctx, stranger, "shop", 0, &bytes.Buffer{}), tenant.ErrDenied)
		if _, err := b.Use(ctx, stranger, "shop", false, day, day+1); !errors.Is(err, tenant.ErrDenied) {
			t.Error(err)
		}
		own := b.user("shop", "ann", tenant.RoleBilling)
		b.must(b.Receipts(ctx, own, "shop", 3, &bytes.Buffer{}))
	})
}

func TestADayOfManyLinesHasSeveralReceipts(t *testing.T) {
	engines(t, func(t *testing.T, b *bed) {
		const sites = usage.MaxLines + 10
		var list []usage.Record
		for i := range sites {
			list = append(list, rec("shop", fmt.Sprint("s", i), b.now, usage.Counts{Requests: 1}))
			if len(list) == usage.MaxRecords || i == sites-1 {
				b.ingest(list...)
				list = nil
			}
		}
		b.pass(48 * time.Hour)
		if n, err := b.Seal(t.Context(), nil, b.clock()); err != nil || n != 2 {
			t.Fatalf("%d, %v", n, err)
		}
		sum, receipts := b.receipts("shop")
		if sum.Total.Requests != sites || receipts[1].Kind != usage.KindContinued || receipts[1].Lines != 10 {
			t.Errorf("%+v", sum)
		}
	})
}

func TestOldHoursBecomeDays(t *testing.T) {
	engines(t, func(t *testing.T, b *bed) {
		ctx, day := t.Context(), usage.DayOf(b.now)
		for d := range usage.Day(5) {
			for h := range 4 {
				b.ingest(rec("shop", "web", (day-d).Time().Add(time.Duration(h)*time.Hour), usage.Counts{Requests: 1, Refused: 2}), rec("deli", "web", (day-d).Time(), usage.Counts{Orders: 1}))
			}
		}
		before, err := b.Use(ctx, b.op, "op", true, day-10, day+1)
		b.must(err)
		if n, err := b.Compact(ctx, nil, day-2); err != nil || n != 2*4+2 {
			t.Errorf("%d rows, %v", n, err)
		}
		b.ingest(rec("shop", "web", (day - 4).Time(), usage.Counts{Requests: 1})) // late, for a day that was summed up
		after, err := b.Use(ctx, b.op, "op", true, day-10, day+1)
		b.must(err)
		if _, err := b.Compact(ctx, nil, day-2); err != nil {
			t.Error(err)
		}
		last, err := b.Use(ctx, b.op, "op", true, day-10, day+1)
		b.must(err)
		late := 0
		for i := range before {
			if after[i] != before[i] {
				late++
				before[i].Requests++
			}
			if after[i] != before[i] || last[i] != after[i] {
				t.Errorf("%+v became %+v and %+v", before[i], after[i], last[i])
			}
		}
		if late != 1 || len(after) != 10 || len(last) != 10 {
			t.Errorf("%d late, %d and %d rows", late, len(after), len(last))
		}
	})
}

func TestABackupHoldsUse(t *testing.T) {
	engines(t, func(t *testing.T, b *bed) {
		b.ingest(rec("shop", "web", b.now, usage.Counts{Requests: 5}))
		b.pass(48 * time.Hour)
		if _, err := b.Seal(t.Context(), nil, b.clock()); err != nil {
			t.Fatal(err)
		}
		var backup bytes.Buffer
		b.must(b.store.Backup(t.Context(), &backup))
		s, err := store.OpenSQLite(t.Context(), filepath.Join(t.TempDir(), "new.db"), store.Options{Schemas: []store.Schema{control.Schema()}})
		b.must(err)
		defer s.Close()
		b.must(s.Restore(t.Context(), &backup))
		next, err := control.New(control.Config{Store: s, Tenants: b.tenants, Key: b.key})
		b.must(err)
		b.numbers = map[usage.SpoolID]int64{}
		again := b.batch("fra1", 1, rec("shop", "web", b.now, usage.Counts{Requests: 5}))
		b.must(next.Ingest(t.Context(), "fra1", again)) // it is known
		use, err := next.Use(t.Context(), b.op, "shop", false, 0, usage.DayOf(b.now)+1)
		if err != nil || len(use) != 1 || use[0].Requests != 5 {
			t.Errorf("%+v, %v", use, err)
		}
		var receipts bytes.Buffer
		b.must(next.Receipts(t.Context(), b.op, "shop", 0, &receipts))
		if sum, err := usage.VerifyFile(&receipts, usage.NewVerifier([]ed25519.PublicKey{next.PublicKey()})); err != nil || sum.Receipts != 1 {
			t.Errorf("%+v, %v", sum, err)
		}
	})
}

func TestQuotas(t *testing.T) {
	engines(t, func(t *testing.T, b *bed) {
		ctx := t.Context()
		b.must(b.store.Subscribe(ctx, "test"))
		b.plan("east", "small", "shop", tenant.Plan{Limits: map[string]tenant.Limit{tenant.MetricRequests: {Most: 100, AtLimit: tenant.Refuse}, tenant.MetricOrders: {Most: 2, AtLimit: tenant.Bill}}})
		quotas := func() []string {
			t.Helper()
			b.must(b.Quotas(ctx, nil))
			return b.messages(tenant.TopicQuota)
		}
		used := func(org, metric string) int64 {
			t.Helper()
			n, _, err := b.tenants.Usage(ctx, b.op, org, metric)
			b.must(err)
			return n
		}
		b.ingest(rec("shop", "web", b.now, usage.Counts{Requests: 50, BytesOut: 9}))
		if m := quotas(); len(m) != 0 || used("shop", "requests") != 50 || used("op", "bytes") != 9 {
			t.Errorf("%v", m)
		}
		b.ingest(rec("shop", "web", b.now, usage.Counts{Requests: 40}))
		if m := quotas(); len(m) != 1 || used("shop", "requests") != 90 {
			t.Errorf("near: %v", m)
		}
		b.ingest(rec("shop", "web", b.now, usage.Counts{Requests: 40, Orders: 5})) // served, whatever the plan says
		if m := quotas(); len(m) != 2 || used("shop", "requests") != 130 || used("east", "requests") != 130 {
			t.Errorf("beyond: %v", m)
		}
		if m := quotas(); len(m) != 0 || used("shop", "requests") != 130 {
			t.Errorf("counted twice: %v", m)
		}
		b.pass(30 * 24 * time.Hour)
		b.ingest(rec("shop", "web", b.now, usage.Counts{Requests: 3}), rec("shop", "web", b.now.Add(-30*24*time.Hour), usage.Counts{Requests: 1000}))
		if m := quotas(); used("shop", "requests") != 3 || len(m) != 1 {
			t.Errorf("another month: %v, %d", m, used("shop", "requests"))
		}
	})
}

func amount(s string) price.Amount {
	a, err := price.Parse(s)
	if err != nil {
		panic(err)
	}
	return a
}

func scanText(rows *sql.Rows) (s string, err error) { return s, rows.Scan(&s) }
