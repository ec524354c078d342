package store_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/relais-edge/relais/internal/control/store"
	"github.com/relais-edge/relais/internal/control/store/storetest"
	"github.com/relais-edge/relais/test/postgres"
)

// server starts at the first test that wants it.
type server struct {
	once sync.Once
	pg   *postgres.Server
	err  error
}

func (s *server) get() (*postgres.Server, error) {
	s.once.Do(func() { s.pg, s.err = postgres.Start(context.Background(), os.Stderr) })
	return s.pg, s.err
}

var shared = &server{}

func TestMain(m *testing.M) {
	if is, err := storetest.Child(openTarget); is {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(3)
	}
	code := m.Run()
	if shared.pg != nil {
		if err := shared.pg.Stop(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

func openTarget(target string) (*store.Store, error) {
	engine, at, _ := strings.Cut(target, " ")
	if engine == "sqlite" {
		return store.OpenSQLite(context.Background(), at, store.Options{})
	}
	return store.OpenPostgres(context.Background(), at, store.Options{})
}

func sqliteFixture(t *testing.T) storetest.Fixture {
	path := filepath.Join(t.TempDir(), "relais.db")
	return storetest.Fixture{
		Target: "sqlite " + path,
		Open: func(o store.Options) (*store.Store, error) {
			return store.OpenSQLite(context.WithoutCancel(t.Context()), path, o)
		},
		SQL: func(statement string) error {
			db, err := sql.Open("sqlite", "file:"+path+"?_pragma=busy_timeout(10000)")
			if err != nil {
				return err
			}
			_, err = db.Exec(statement)
			return errors.Join(err, db.Close())
		},
		Fill: func() (func(), error) { return func() {}, nil }, // FileBytes is the file's disk
	}
}

func postgresFixture(t *testing.T) storetest.Fixture {
	pg, err := shared.get()
	if err != nil {
		t.Fatal(err)
	}
	dsn, err := pg.Database(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	db := func(statement string) error {
		c, err := sql.Open("pgx", dsn)
		if err != nil {
			return err
		}
		_, err = c.Exec(statement)
		return errors.Join(err, c.Close())
	}
	return storetest.Fixture{
		Target: "postgres " + dsn,
		Open: func(o store.Options) (*store.Store, error) {
			return store.OpenPostgres(context.WithoutCancel(t.Context()), dsn, o)
		},
		SQL: db,
		Fill: func() (func(), error) { // what a server says whose disk is full, at the same place
			err := errors.Join(
				db(`CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN RAISE EXCEPTION 'could not extend file: No space left on device' USING ERRCODE = '53100'; END $$`),
				db("CREATE TRIGGER full_disk BEFORE INSERT ON documents FOR EACH ROW EXECUTE FUNCTION full_disk()"))
			return func() {
				if err := db("DROP TRIGGER full_disk ON documents"); err != nil {
					t.Error(err)
				}
			}, err
		},
	}
}

func TestSQLite(t *testing.T)   { storetest.Run(t, sqliteFixture) }
func TestPostgres(t *testing.T) { storetest.Run(t, postgresFixture) }

func TestABackupGoesIntoEitherEngine(t *testing.T) {
	engines := map[string]func(*testing.T) storetest.Fixture{"sqlite": sqliteFixture, "postgres": postgresFixture}
	for from, a := range engines {
		for to, b := range engines {
			t.Run(from+" to "+to, func(t *testing.T) {
				t.Parallel()
				var ends []*store.Store
				for _, f := range []storetest.Fixture{a(t), b(t)} {
					s, err := f.Open(store.Options{})
					if err != nil {
						t.Fatal(err)
					}
					t.Cleanup(func() { _ = s.Close() })
					ends = append(ends, s)
				}
				storetest.Populate(t, ends[0])
				storetest.CheckRestore(t, ends[0], ends[1])
			})
		}
	}
}

// A server that is killed and comes back has what it acknowledged, and the stores that used it go on. Who led knows that
// he may no longer.
func TestAServerThatIsKilled(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	pg, err := postgres.Start(ctx, os.Stderr)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := pg.Stop(); err != nil {
			t.Error(err)
		}
	}()
	dsn, err := pg.Database(ctx)
	if err != nil {
		t.Fatal(err)
	}
	s, err := store.OpenPostgres(ctx, dsn, store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := s.Subscribe(ctx, "pop"); err != nil {
		t.Fatal(err)
	}
	acked := writeUnderKills(ctx, t, s, pg)
	list, err := s.List(ctx, store.Query{Organization: "acme"})
	if err != nil {
		t.Fatal(err)
	}
	have := map[string]bool{}
	for _, d := range list.Documents {
		have[d.Name] = true
	}
	for _, name := range acked {
		if !have[name] {
			t.Errorf("%s was acknowledged and is gone", name)
		}
	}
	messages, err := s.Messages(ctx, "pop", 0)
	if err != nil || len(messages) != len(have) {
		t.Errorf("%d messages of %d changes, %v", len(messages), len(have), err)
	}
}

func writeUnderKills(ctx context.Context, t *testing.T, s *store.Store, pg *postgres.Server) (acked []string) {
	t.Helper()
	write := func(name string) error {
		_, err := s.Update(ctx, store.Change{Author: "ann"}, func(tx *store.Tx) error {
			_, err := tx.Put(ctx, store.Key{Organization: "acme", Kind: "Site", Name: name}, []byte(`{}`), store.Any)
			return err
		})
		return err
	}
	for round := range 3 {
		lease, err := s.Lead(ctx, "rollout", "a")
		if err != nil {
			t.Fatal(err)
		}
		killed := make(chan error, 1)
		for n := 0; ; n++ {
			if n == 10 {
				go func() { killed <- pg.Kill() }()
			}
			name := fmt.Sprint(round, "-", n)
			err := write(name)
			if err == nil {
				acked = append(acked, name)
				continue
			}
			if !errors.Is(err, store.ErrUnavailable) && !errors.Is(err, store.ErrUncertain) {
				t.Errorf("a server that is gone: %v", err)
			}
			break
		}
		if err := <-killed; err != nil {
			t.Fatal(err)
		}
		<-lease.Done()
		if err := pg.Run(ctx); err != nil {
			t.Fatal(err)
		}
		for err := write(fmt.Sprint(round, "-again")); err != nil; err = write(fmt.Sprint(round, "-again")) {
			if !errors.Is(err, store.ErrUnavailable) && !errors.Is(err, store.ErrUncertain) {
				t.Fatal(err)
			}
		}
	}
	return acked
}
