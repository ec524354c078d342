package visitor

import (
	"bytes"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/relais-edge/relais/internal/observe"
)

func TestDirMakesASecretOnce(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	var wg sync.WaitGroup
	got := make([][]byte, 8)
	for i := range got {
		wg.Go(func() {
			var err error
			if got[i], err = Dir(dir).Secret("visitor"); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for _, s := range got {
		if len(s) != secretLen || !bytes.Equal(s, got[0]) {
			t.Fatalf("secrets differ: %x %x", s, got[0])
		}
	}
	files, _ := os.ReadDir(dir)
	if len(files) != 1 {
		t.Errorf("%d files, want 1", len(files))
	}
	path := filepath.Join(dir, "visitor.secret")
	if fi, err := os.Stat(path); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", fi, err)
	}
	if err := os.WriteFile(path, []byte("not hex"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Dir(dir).Secret("visitor"); err == nil {
		t.Error("a spoilt secret was taken, or replaced unasked")
	}
	for _, n := range []string{"", "../x", ".x", "a/b"} {
		if _, err := Dir(dir).Secret(n); err == nil {
			t.Errorf("name %q was taken", n)
		}
	}
}

func TestPolicyWithoutSecretUsesTheKeptOne(t *testing.T) {
	dir := Dir(t.TempDir())
	spec := policySpec()
	spec.Secret = ""
	a, err := New(4, Config{}, dir, observe.New()).Compile(newSite("o/shop", spec), nil)
	if err != nil {
		t.Fatal(err)
	}
	b, err := New(4, Config{}, dir, observe.New()).Compile(newSite("o/shop", spec), nil)
	if err != nil {
		t.Fatal(err)
	}
	text := a.(*part).routes[0].codec.append(nil, &token{class: 1, expires: 10})
	if _, err := b.(*part).routes[0].codec.parse(text, 1); err != nil {
		t.Errorf("after a restart: %v", err)
	}
	if _, err := New(4, Config{}, Dir("/dev/null/x"), observe.New()).Compile(newSite("o/shop", spec), nil); err == nil {
		t.Error("a directory that cannot be made gave a secret")
	}
}
