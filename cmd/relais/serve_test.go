package main

import "testing"

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
