package acme

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

func TestTheSameDirectoryIsTheSameCA(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "ca")
	first, err := OpenCA(dir)
	if err != nil {
		t.Fatal(err)
	}
	second, err := OpenCA(dir)
	if err != nil {
		t.Fatal(err)
	}
	if string(first.CertPEM()) != string(second.CertPEM()) {
		t.Error("the second OpenCA made another CA")
	}
	for name, want := range map[string]os.FileMode{".": 0o700, keyFile: 0o600, certFile: 0o644} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: mode %v, %v, want %v", name, info.Mode().Perm(), err, want)
		}
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "*.tmp")); len(left) > 0 {
		t.Errorf("temporary files stayed: %v", left)
	}
}

func TestProcessesThatOpenAtOnceGetOneCA(t *testing.T) {
	dir := t.TempDir()
	var wg sync.WaitGroup
	got := make([]string, 8)
	for i := range got {
		wg.Go(func() {
			ca, err := OpenCA(dir)
			if err != nil {
				t.Error(err)
				return
			}
			got[i] = string(ca.CertPEM())
		})
	}
	wg.Wait()
	for _, g := range got {
		if g != got[0] {
			t.Fatal("two CAs were made")
		}
	}
}

func TestLeavesVerifyForEachName(t *testing.T) {
	ca, err := OpenCA(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	cert, err := ca.Issue([]string{"Shop.example", "*.shop.example", "127.0.0.1", "::1"})
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(ca.CertPEM()) {
		t.Fatal("CertPEM is no certificate")
	}
	for _, name := range []string{"shop.example", "www.shop.example", "127.0.0.1", "::1"} {
		if _, err := cert.Leaf.Verify(x509.VerifyOptions{DNSName: name, Roots: roots}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := cert.Leaf.Verify(x509.VerifyOptions{DNSName: "other.example", Roots: roots}); err == nil {
		t.Error("the leaf is good for a name that it was not issued for")
	}
	if life := cert.Leaf.NotAfter.Sub(cert.Leaf.NotBefore); life != leafLife+backdate {
		t.Errorf("the leaf lives %v", life)
	}
}

func TestLeavesAreKeptUntilHalfTheirLife(t *testing.T) {
	now := time.Now()
	ca, err := openCA(t.TempDir(), func() time.Time { return now })
	if err != nil {
		t.Fatal(err)
	}
	issue := func() *tls.Certificate {
		t.Helper()
		c, err := ca.Issue([]string{"a.example"})
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	first := issue()
	now = now.Add(leafRenew - time.Second)
	if issue() != first {
		t.Error("a leaf was renewed before half its life")
	}
	now = now.Add(2 * time.Second)
	if issue() == first {
		t.Error("a leaf was not renewed after half its life")
	}
}

func TestLeavesAreBounded(t *testing.T) {
	ca, err := OpenCA(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	keep, err := ca.Issue([]string{"keep.example"})
	if err != nil {
		t.Fatal(err)
	}
	for i := range maxLeaves + 10 {
		if _, err := ca.Issue([]string{fmt.Sprintf("n%d.example", i)}); err != nil {
			t.Fatal(err)
		}
		if c, _ := ca.Issue([]string{"keep.example"}); c != keep {
			t.Fatal("a leaf in use was given up")
		}
	}
	if len(ca.leaves) != maxLeaves || ca.recent.Len() != maxLeaves {
		t.Errorf("%d leaves are kept, want %d", len(ca.leaves), maxLeaves)
	}
}

func TestACAThatEndsSoonIsMadeAnewFromItsKey(t *testing.T) {
	dir, now := t.TempDir(), time.Now()
	old, err := openCA(dir, func() time.Time { return now })
	if err != nil {
		t.Fatal(err)
	}
	now = now.Add(caLife - caRenew + time.Hour)
	renewed, err := openCA(dir, func() time.Time { return now })
	if err != nil {
		t.Fatal(err)
	}
	if !renewed.key.Equal(old.key) || !renewed.cert.NotAfter.After(old.cert.NotAfter) {
		t.Error("the certificate was not renewed with the same key")
	}
}

func TestNamesThatAreRefused(t *testing.T) {
	ca, err := OpenCA(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []string{"", "a b", "a..b", "-a.b", "*", "a.*.b", "fe80::1%eth0", strings.Repeat("a", 64), "a/b", "a\x00b"} {
		if _, err := ca.Issue([]string{n}); err == nil {
			t.Errorf("%q was taken", n)
		}
	}
	if _, err := ca.Issue(nil); err == nil {
		t.Error("no names were taken")
	}
}

func TestErrorsSayWhatToDo(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, keyFile), []byte("nonsense"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenCA(dir); err == nil || !strings.Contains(err.Error(), "restore it from a backup") {
		t.Errorf("damaged key: %v", err)
	}
	if _, err := OpenCA(filepath.Join(dir, keyFile, "x")); err == nil || !strings.Contains(err.Error(), "a part of the path is a file") {
		t.Errorf("a file in the path: %v", err)
	}
	for err, want := range map[error]string{
		syscall.ENOSPC: "the disk is full", syscall.EROFS: "read-only", syscall.EACCES: "uid", syscall.EIO: "healthy",
	} {
		if got := explain("write", "/x", &os.PathError{Op: "open", Path: "/x", Err: err}).Error(); !strings.Contains(got, want) {
			t.Errorf("%v: %q does not say %q", err, got, want)
		}
	}
}

func TestKeyAndCertificateMustBelongTogether(t *testing.T) {
	a, b := t.TempDir(), t.TempDir()
	for _, d := range []string{a, b} {
		if _, err := OpenCA(d); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Rename(filepath.Join(b, certFile), filepath.Join(a, certFile)); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenCA(a); err == nil || !strings.Contains(err.Error(), errNotPair.Error()) {
		t.Errorf("got %v", err)
	}
}
