package seal

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

func TestDirMakesASecretOnce(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	var wg sync.WaitGroup
	got := make([][][]byte, 8)
	for i := range got {
		wg.Go(func() {
			var err error
			if got[i], err = Dir(dir).Secrets("visitor"); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for _, s := range got {
		if len(s) != 1 || len(s[0]) != secretLen || !bytes.Equal(s[0], got[0][0]) {
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
	for _, bad := range []string{"not hex", "", strings.Repeat(strings.Repeat("ab", 16)+"\n", 9)} {
		if err := os.WriteFile(path, []byte(bad), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Dir(dir).Secrets("visitor"); err == nil {
			t.Errorf("a file with %q was taken, or replaced unasked", bad)
		}
	}
	for _, n := range []string{"", "../x", ".x", "a/b"} {
		if _, err := Dir(dir).Secrets(n); err == nil {
			t.Errorf("name %q was taken", n)
		}
	}
	if _, err := Dir("/dev/null/x").Secrets("visitor"); err == nil {
		t.Error("a directory that cannot be made gave a secret")
	}
}

func TestANewFirstLineRotates(t *testing.T) {
	dir := t.TempDir()
	old, err := Dir(dir).Secrets("visitor")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "visitor.secret")
	b, _ := os.ReadFile(path)
	if err := os.WriteFile(path, append([]byte(strings.Repeat("5a", 32)+"\n"), b...), 0o600); err != nil {
		t.Fatal(err)
	}
	now, err := Dir(dir).Secrets("visitor")
	if err != nil || len(now) != 2 || !bytes.Equal(now[1], old[0]) || now[0][0] != 0x5a {
		t.Errorf("%x, %v", now, err)
	}
}
