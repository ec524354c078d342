package v1

import (
	"strings"
	"testing"
)

func TestPURGEIsNeverOpenToEverybody(t *testing.T) {
	for _, c := range []struct {
		purge *CachePurge
		want  string
	}{
		{nil, ""},
		{&CachePurge{Addresses: []string{"10.0.0.0/8"}}, ""},
		{&CachePurge{Tokens: []string{"0123456789abcdef"}}, ""},
		{&CachePurge{}, "everybody"},
		{&CachePurge{Tokens: []string{"short"}}, "too short"},
		{&CachePurge{Addresses: []string{"x"}}, "x"},
	} {
		d := &CachePolicy{Metadata: Metadata{Name: "c"}, Spec: CachePolicySpec{Purge: c.purge}}
		Default(d)
		var text strings.Builder
		for _, p := range Validate(d) {
			text.WriteString(p.String())
		}
		if got := text.String(); (got == "") != (c.want == "") || !strings.Contains(got, c.want) || strings.Contains(got, "0123") {
			t.Errorf("%+v: %q, want %q", c.purge, got, c.want)
		}
	}
}
