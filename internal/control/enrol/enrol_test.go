package enrol_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/relais-edge/relais/internal/control/enrol"
	"github.com/relais-edge/relais/internal/control/store"
	"github.com/relais-edge/relais/internal/control/tenant/audit"
	"github.com/relais-edge/relais/internal/identity"
)

// bench is a service on SQLite with a clock of its own.
type bench struct {
	*enrol.Service
	t     *testing.T
	store *store.Store
	mu    sync.Mutex
	now   time.Time
}

func newBench(t *testing.T) *bench {
	t.Helper()
	b := &bench{t: t, now: time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)}
	s, err := store.OpenSQLite(t.Context(), filepath.Join(t.TempDir(), "store.db"), store.Options{Clock: b.clock})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	b.store, b.Service = s, enrol.New(s)
	return b
}

func (b *bench) clock() time.Time {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.now
}

func (b *bench) pass(d time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.now = b.now.Add(d)
}

func (b *bench) token(pop string) identity.Token {
	b.t.Helper()
	tok, err := b.NewToken(b.t.Context(), "ann", pop, time.Hour, []string{"https://cp.example:8443"}, sha256.Sum256([]byte("root")))
	if err != nil {
		b.t.Fatal(err)
	}
	return tok
}

func (b *bench) issued(pop string, n int) identity.Issued {
	return identity.Issued{Identity: identity.Identity{Domain: "relais.test", Kind: identity.Pop, Name: pop}, Serial: fmt.Sprintf("%x", 4096+n), NotAfter: b.clock().Add(24 * time.Hour)}
}

// redeem shows a token with a key, and says how often a certificate was issued.
func (b *bench) redeem(tok identity.Token, key string) (answer string, issues int, err error) {
	got, err := b.Redeem(b.t.Context(), identity.Redemption{ID: tok.ID, Hash: tok.Hash(), Key: sha256.Sum256([]byte(key))}, func(pop string) (identity.Issued, []byte, error) {
		issues++
		return b.issued(pop, len(key)), []byte("welcome " + pop + " with " + key), nil
	})
	return string(got), issues, err
}

func TestATokenIsGoodOnce(t *testing.T) {
	b := newBench(t)
	tok := b.token("paris")
	if got, n, err := b.redeem(tok, "k1"); err != nil || got != "welcome paris with k1" || n != 1 {
		t.Fatalf("%q, %d, %v", got, n, err)
	}
	b.pass(identity.RetryTime - time.Second)
	if got, n, err := b.redeem(tok, "k1"); err != nil || got != "welcome paris with k1" || n != 0 {
		t.Errorf("a lost answer: %q, %d, %v", got, n, err)
	}
	if _, n, err := b.redeem(tok, "k2"); !errors.Is(err, identity.ErrToken) || n != 0 {
		t.Errorf("another key: %d, %v", n, err)
	}
	b.pass(time.Second)
	if _, n, err := b.redeem(tok, "k1"); !errors.Is(err, identity.ErrToken) || n != 0 {
		t.Errorf("later: %d, %v", n, err)
	}
	list, err := b.Tokens(t.Context())
	if err != nil || len(list) != 1 || list[0].Pop != "paris" || list[0].Used.IsZero() || list[0].Answer != nil {
		t.Errorf("%+v, %v", list, err)
	}
	if _, err := audit.Verify(t.Context(), b.store, enrol.Organization); err != nil {
		t.Error(err)
	}
	entries := b.entries()
	if len(entries) != 2 || entries[0].Action != "pop.token.create" || entries[1].Action != "pop.join" || entries[1].Target != "paris" {
		t.Errorf("the audit log: %+v", entries)
	}
}

func (b *bench) entries() (list []audit.Entry) {
	err := b.store.View(b.t.Context(), func(r *store.Reader) (err error) {
		list, err = audit.Entries(b.t.Context(), r, enrol.Organization, 0, 100)
		return err
	})
	if err != nil {
		b.t.Fatal(err)
	}
	return list
}

func TestWhatIsNoTokenIsOneError(t *testing.T) {
	b := newBench(t)
	tok := b.token("paris")
	unknown, wrong := tok, tok
	unknown.ID = "aaaaaaaaaaaaaaaa"
	wrong.Secret = []byte("guess")
	odd := tok
	odd.ID = "../etc"
	for name, bad := range map[string]identity.Token{"unknown": unknown, "wrong secret": wrong, "no id": odd} {
		if _, n, err := b.redeem(bad, "k"); !errors.Is(err, identity.ErrToken) || n != 0 {
			t.Errorf("%s: %d, %v", name, n, err)
		}
	}
	b.pass(time.Hour)
	if _, n, err := b.redeem(tok, "k"); !errors.Is(err, identity.ErrToken) || n != 0 {
		t.Errorf("expired: %d, %v", n, err)
	}
	dropped := b.token("rome")
	if err := b.DropToken(t.Context(), "ann", dropped.ID); err != nil {
		t.Fatal(err)
	}
	if _, n, err := b.redeem(dropped, "k"); !errors.Is(err, identity.ErrToken) || n != 0 {
		t.Errorf("taken back: %d, %v", n, err)
	}
}

func TestWhereNothingIsIssuedNothingIsBurnt(t *testing.T) {
	b := newBench(t)
	tok := b.token("paris")
	fails := errors.New("the authority is away")
	_, err := b.Redeem(t.Context(), identity.Redemption{ID: tok.ID, Hash: tok.Hash()}, func(string) (identity.Issued, []byte, error) {
		return identity.Issued{}, nil, fails
	})
	if !errors.Is(err, fails) {
		t.Errorf("%v", err)
	}
	gone, end := context.WithCancel(t.Context())
	_, err = b.Redeem(gone, identity.Redemption{ID: tok.ID, Hash: tok.Hash()}, func(pop string) (identity.Issued, []byte, error) {
		end() // the caller goes away before the commit
		return b.issued(pop, 1), []byte("lost"), nil
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	if got, n, err := b.redeem(tok, "k1"); err != nil || n != 1 {
		t.Errorf("%q, %d, %v", got, n, err)
	}
}

func TestOfManyAtOnceOneWins(t *testing.T) {
	b := newBench(t)
	tok := b.token("paris")
	var all sync.WaitGroup
	won := make(chan string, 20)
	for i := range 20 {
		all.Go(func() {
			key := sha256.Sum256(fmt.Append(nil, i))
			got, err := b.Redeem(t.Context(), identity.Redemption{ID: tok.ID, Hash: tok.Hash(), Key: key}, func(pop string) (identity.Issued, []byte, error) {
				return b.issued(pop, i), fmt.Append(nil, i), nil
			})
			if err == nil {
				won <- string(got)
			} else if !errors.Is(err, identity.ErrToken) {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if len(won) != 1 {
		t.Errorf("%d machines became one PoP", len(won))
	}
}

func TestWhoIsRevokedGetsNothingUntilItJoinsAgain(t *testing.T) {
	b := newBench(t)
	ctx := t.Context()
	if n, list, err := b.Revoked(ctx); n != 0 || len(list) != 0 || err != nil {
		t.Errorf("%d, %v, %v", n, list, err)
	}
	if err := b.Record(ctx, b.issued("paris", 1)); !errors.Is(err, enrol.ErrRevoked) {
		t.Errorf("a PoP that never joined: %v", err)
	}
	if _, _, err := b.redeem(b.token("paris"), "k"); err != nil {
		t.Fatal(err)
	}
	if err := b.Record(ctx, b.issued("paris", 100)); err != nil {
		t.Fatal(err)
	}
	unused := b.token("paris")
	if err := b.Revoke(ctx, "ann", "paris", "stolen"); err != nil {
		t.Fatal(err)
	}
	first, list, err := b.Revoked(ctx)
	if err != nil || len(list) != 2 || list[1].Serial != b.issued("paris", 100).Serial {
		t.Errorf("%v, %v", list, err)
	}
	if err := b.Record(ctx, b.issued("paris", 101)); !errors.Is(err, enrol.ErrRevoked) {
		t.Errorf("renewed: %v", err)
	}
	if _, _, err := b.redeem(unused, "k"); !errors.Is(err, identity.ErrToken) {
		t.Errorf("with a token from before: %v", err)
	}
	b.pass(time.Hour)
	if _, _, err := b.redeem(b.token("paris"), "new"); err != nil {
		t.Fatal(err)
	}
	if err := b.Record(ctx, b.issued("paris", 102)); err != nil {
		t.Errorf("after it joined again: %v", err)
	}
	if _, list, _ := b.Revoked(ctx); len(list) != 2 {
		t.Errorf("what was revoked came back: %v", list)
	}
	b.pass(23 * time.Hour)
	if err := b.Revoke(ctx, "ann", "paris", "again"); err != nil {
		t.Fatal(err)
	}
	second, list, err := b.Revoked(ctx)
	if err != nil || second <= first || len(list) != 2 {
		t.Errorf("%d after %d, %v, %v", second, first, list, err)
	}
	if err := b.Revoke(ctx, "ann", "nowhere", ""); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("%v", err)
	}
}

func TestBounds(t *testing.T) {
	b := newBench(t)
	ctx := t.Context()
	for name, fn := range map[string]func() error{
		"name": func() error {
			_, err := b.NewToken(ctx, "ann", "Paris!", time.Hour, []string{"https://a"}, [32]byte{})
			return err
		},
		"life": func() error {
			_, err := b.NewToken(ctx, "ann", "paris", 8*24*time.Hour, []string{"https://a"}, [32]byte{})
			return err
		},
		"url": func() error {
			_, err := b.NewToken(ctx, "ann", "paris", time.Hour, []string{"http://a"}, [32]byte{})
			return err
		},
	} {
		if err := fn(); !errors.Is(err, enrol.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, _, err := b.redeem(b.token("paris"), "k"); err != nil {
		t.Fatal(err)
	}
	var limit *store.LimitError
	for i := 1; ; i++ {
		if err := b.Record(ctx, b.issued("paris", i)); err != nil {
			if !errors.As(err, &limit) || i != 64 {
				t.Errorf("certificate %d: %v", i, err)
			}
			break
		}
	}
	b.pass(25 * time.Hour)
	if err := b.Record(ctx, b.issued("paris", 1)); err != nil {
		t.Errorf("those that ended still count: %v", err)
	}
	old := b.token("old")
	b.pass(26 * time.Hour)
	b.token("new")
	list, err := b.Tokens(ctx)
	if err != nil || len(list) != 1 || list[0].ID == old.ID {
		t.Errorf("%v, %v", list, err)
	}
}
