package secret_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/relais-edge/relais/internal/control/store"
	"github.com/relais-edge/relais/internal/control/tenant/secret"
)

func fresh(t *testing.T) (*store.Store, string) {
	t.Helper()
	dir := t.TempDir()
	s, err := store.OpenSQLite(t.Context(), filepath.Join(dir, "relais.db"), store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s, dir
}

func newKey(t *testing.T) (private, public string) {
	t.Helper()
	private, public, err := secret.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	return private, public
}

func vault(t *testing.T, keys ...string) *secret.Vault {
	t.Helper()
	v, err := secret.NewVault("# keys of the control plane\n" + strings.Join(keys, "\n") + "\n")
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func at(org, name string) store.Key {
	return store.Key{Organization: org, Kind: secret.Kind, Name: name}
}

func put(t *testing.T, s *store.Store, v *secret.Vault, key store.Key, value string) {
	t.Helper()
	_, err := s.Update(t.Context(), store.Change{Author: "ann"}, func(tx *store.Tx) error {
		_, err := v.Put(t.Context(), tx, key, []byte(value), store.Any)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func get(t *testing.T, s *store.Store, v *secret.Vault, key store.Key) (value string, err error) {
	t.Helper()
	err = s.View(t.Context(), func(r *store.Reader) error {
		b, err := v.Get(t.Context(), r, key)
		value = string(b)
		return err
	})
	return value, err
}

func TestASecretIsNowhereInClear(t *testing.T) {
	s, dir := fresh(t)
	private, _ := newKey(t)
	v := vault(t, private)
	const value = "hunter2-hunter2-hunter2"
	put(t, s, v, at("acme", "tls"), value)
	if got, err := get(t, s, v, at("acme", "tls")); err != nil || got != value {
		t.Fatal(got, err)
	}
	if err := s.BackupFile(t.Context(), filepath.Join(dir, "backup")); err != nil {
		t.Fatal(err)
	}
	files, err := os.ReadDir(dir)
	if err != nil || len(files) < 2 {
		t.Fatal(files, err)
	}
	for _, f := range files {
		b, err := os.ReadFile(filepath.Join(dir, f.Name()))
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(b, []byte(value)) || bytes.Contains(b, []byte("aHVudGVyMi1odW50ZXIy")) || bytes.Contains(b, []byte(private)) {
			t.Errorf("%s holds it", f.Name())
		}
	}
	other, _ := newKey(t)
	if _, err := get(t, s, vault(t, other), at("acme", "tls")); !errors.Is(err, secret.ErrKey) {
		t.Errorf("another key opens it: %v", err)
	}
}

// What is copied under another name, or into another organization, does not open there.
func TestASecretStaysWhereItWasPut(t *testing.T) {
	s, _ := fresh(t)
	private, _ := newKey(t)
	v := vault(t, private)
	put(t, s, v, at("acme", "tls"), "value")
	d, err := s.Get(t.Context(), at("acme", "tls"))
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range []store.Key{at("zeta", "tls"), at("acme", "other"), {Organization: "acme", Project: "p", Kind: secret.Kind, Name: "tls"}} {
		_, err := s.Update(t.Context(), store.Change{Author: "mallory"}, func(tx *store.Tx) error {
			_, err := tx.Put(t.Context(), k, d.Body, store.Any)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		if got, err := get(t, s, v, k); !errors.Is(err, secret.ErrMoved) {
			t.Errorf("%s opens: %q, %v", k, got, err)
		}
	}
}

func TestOnlyThePoPsThatNeedItOpenASecret(t *testing.T) {
	s, _ := fresh(t)
	private, _ := newKey(t)
	v := vault(t, private)
	put(t, s, v, at("acme", "tls"), "value")
	keys := map[string]string{}
	for _, pop := range []string{"fra", "ams", "nyc"} {
		priv, pub := newKey(t)
		keys[pop], keys[pop+" public"] = priv, pub
	}
	seal := func(key store.Key, pops ...string) (sealed []byte, err error) {
		err = s.View(t.Context(), func(r *store.Reader) error {
			sealed, err = v.SealFor(t.Context(), r, key, pops)
			return err
		})
		return sealed, err
	}
	sealed, err := seal(at("acme", "tls"), keys["fra public"], keys["ams public"], keys["fra public"])
	if err != nil || bytes.Contains(sealed, []byte("value")) {
		t.Fatal(err)
	}
	for _, pop := range []string{"fra", "ams"} {
		if got, err := secret.OpenAt(keys[pop], at("acme", "tls"), sealed); err != nil || string(got) != "value" {
			t.Errorf("%s: %q, %v", pop, got, err)
		}
	}
	if _, err := secret.OpenAt(keys["nyc"], at("acme", "tls"), sealed); !errors.Is(err, secret.ErrKey) {
		t.Errorf("a PoP that has no need: %v", err)
	}
	if _, err := secret.OpenAt(private, at("acme", "tls"), sealed); !errors.Is(err, secret.ErrKey) {
		t.Errorf("the control plane's own key: %v", err)
	}
	if _, err := secret.OpenAt(keys["fra"], at("acme", "other"), sealed); !errors.Is(err, secret.ErrMoved) {
		t.Errorf("under another name: %v", err)
	}
	for i := range sealed {
		b := bytes.Clone(sealed)
		b[i] ^= 1
		if got, err := secret.OpenAt(keys["fra"], at("acme", "tls"), b); err == nil && string(got) != "value" {
			t.Fatalf("with another byte %d it opens as %q", i, got)
		}
	}
	for _, pops := range [][]string{nil, {"nonsense"}, {keys["fra"]}, make([]string, 2001)} {
		if _, err := seal(at("acme", "tls"), pops...); err == nil {
			t.Errorf("sealed for %d that are no PoPs", len(pops))
		}
	}
	if _, err := seal(at("acme", "none"), keys["fra public"]); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("a secret that is not there: %v", err)
	}
}

func TestRotation(t *testing.T) {
	s, _ := fresh(t)
	old, _ := newKey(t)
	_, err := s.Update(t.Context(), store.Change{Author: "ann"}, func(tx *store.Tx) error {
		for i := range 250 { // more than two pages
			if _, err := vault(t, old).Put(t.Context(), tx, at(fmt.Sprint("org", i%3), fmt.Sprint("s", i)), fmt.Append(nil, "value", i), store.Absent); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	young, public := newKey(t)
	both := vault(t, young, old)
	put(t, s, both, at("org0", "new"), "new")
	for _, want := range []int{250, 0} {
		if n, err := both.Rotate(t.Context(), s, "operator"); err != nil || n != want {
			t.Errorf("closed %d anew, not %d: %v", n, want, err)
		}
	}
	for i := range 250 {
		k := at(fmt.Sprint("org", i%3), fmt.Sprint("s", i))
		if got, err := get(t, s, vault(t, young), k); err != nil || got != fmt.Sprint("value", i) {
			t.Fatalf("%s: %q, %v", k, got, err)
		}
		if _, err := get(t, s, vault(t, old), k); !errors.Is(err, secret.ErrKey) {
			t.Fatalf("the old key still opens %s: %v", k, err)
		}
	}
	d, err := s.Get(t.Context(), at("org0", "s0"))
	if err != nil {
		t.Fatal(err)
	}
	var b secret.Body
	if err := json.Unmarshal(d.Body, &b); err != nil || b.Recipient != public || both.Outdated(b) {
		t.Errorf("%+v, %v", b, err)
	}
}

func TestKeysThatAreNone(t *testing.T) {
	private, public := newKey(t)
	for _, keys := range []string{"", "# nothing", public, private + "x", strings.Repeat(private+"\n", 17)} {
		if _, err := secret.NewVault(keys); err == nil || strings.Contains(err.Error(), private) {
			t.Errorf("%d bytes of keys: %v", len(keys), err)
		}
	}
	v := vault(t, private)
	var l *store.LimitError
	if _, err := v.Close(at("acme", "big"), make([]byte, 256<<10+1)); !errors.As(err, &l) {
		t.Errorf("a secret without a bound: %v", err)
	}
}
