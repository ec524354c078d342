package main

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/relais-edge/relais/internal/edge/waf"
)

func TestCandidatesAreShownWithWhatTheyWouldDo(t *testing.T) {
	from := time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
	list := []waf.Candidate{
		{
			Site: "o/shop", Policy: "core", Revision: "0123", RuleSet: "OWASP_CRS/4", Agreed: 90, WouldDeny: 7, WouldPass: 3, Skipped: 1,
			Rules: []waf.Differing{{Rule: "942100", WouldDeny: 7, Example: "abc"}, {WouldPass: 3, Example: "xyz"}},
		},
		{Site: "o/a", From: &from},
		{Site: "o/b", From: &from, Deciding: true},
	}
	var b bytes.Buffer
	showCandidates(&b, list)
	text := strings.Join(strings.Fields(b.String()), " ")
	for _, want := range []string{
		"site o/shop, WafPolicy core, candidate 0123 (OWASP_CRS/4), until somebody moves it",
		"100 requests judged by both, 90 alike, 7 it would refuse, 3 it would let pass; 1 it could not judge",
		"942100 7 0 abc", "others 0 3 xyz", "which decides from 2030-01-02T03:04:05Z on", "which decides since 2030-01-02T03:04:05Z",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in\n%s", want, b.String())
		}
	}
	b.Reset()
	showCandidates(&b, nil)
	if !strings.Contains(b.String(), "no policy") {
		t.Error(b.String())
	}
}
