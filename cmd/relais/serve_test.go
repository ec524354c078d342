package main

import (
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/relais-edge/relais/internal/edge/cache"
)

func TestOneSiteIsNotOneSites(t *testing.T) {
	for _, tt := range []struct {
		sites, services int
		want            string
	}{
		{0, 0, "0 sites"},
		{1, 0, "1 site"},
		{2, 1, "2 sites and 1 service"},
		{1, 10_000, "1 site and 10000 services"},
	} {
		if got := counted(tt.sites, tt.services); got != tt.want {
			t.Errorf("%q, not %q", got, tt.want)
		}
	}
}

func TestSizesOfTheCacheAreChecked(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ memory, disk, size, want string }{
		{"256MiB", "", "", ""},
		{"256MiB", t.TempDir(), "64MiB", ""},
		{"256MiB", "not there yet", "1GiB", ""},
		{"much", "", "", "--cache-memory"},
		{"1KiB", "", "", "--cache-memory 1KiB: give at least 256KiB"},
		{"256MiB", t.TempDir(), "1MiB", "--cache-disk-size 1MiB: give at least 64MiB"},
		{"256MiB", t.TempDir(), "x", "--cache-disk-size"},
		{"256MiB", file, "1GiB", "is a file"},
	} {
		_, _, err := cacheSizes(&serveFlags{cacheMemory: tt.memory, cacheDisk: tt.disk, cacheSize: tt.size})
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%+v: %v", tt, err)
		}
	}
}

func TestQuotasOfTheCacheAreRead(t *testing.T) {
	got, err := cacheQuotas(&serveFlags{cacheDisk: "d", quotas: []string{"acme=2MiB", "*=1MiB"}, diskQuotas: []string{"acme=1GiB"}})
	want := map[string]cache.Quota{"acme": {Memory: 2 << 20, Disk: 1 << 30}, "*": {Memory: 1 << 20}}
	if err != nil || !maps.Equal(got, want) {
		t.Errorf("%v, %v; want %v", got, err, want)
	}
	for text, f := range map[string]serveFlags{
		"such as acme=2GiB":      {quotas: []string{"acme"}},
		"--cache-quota =1MiB":    {quotas: []string{"=1MiB"}},
		"--cache-quota acme=x":   {quotas: []string{"acme=x"}},
		"more than nothing":      {quotas: []string{"acme=0"}},
		"there is no disk":       {diskQuotas: []string{"acme=1GiB"}},
		"--cache-disk-quota a=-": {diskQuotas: []string{"a=-"}, cacheDisk: "d"},
	} {
		if _, err := cacheQuotas(&f); err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("%+v: %v, want %q", f, err, text)
		}
	}
}
