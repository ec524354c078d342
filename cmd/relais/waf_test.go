package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/edge/record"
	"github.com/relais-edge/relais/internal/edge/waf"
	"github.com/relais-edge/relais/internal/edge/waf/learn"
)

const exclusionLine = `{rules: ["942100"], target: "ARGS:q", path: "/search", exact: true, methods: [GET]}`

func TestExplainShowsTheExclusionAsLinesOfThePolicy(t *testing.T) {
	var b bytes.Buffer
	explainOne(&b, record.Explanation{Method: "GET", Status: 403, Decisions: []record.Decision{
		{Stage: "waf", Code: "policy", Detail: "core, revision 0123456789ab"},
		{Stage: "waf", Code: "exclusion", Detail: exclusionLine},
		{Stage: "waf", Code: "deny", Detail: "score 5 ≥ 5: 942100 SQL (ARGS:q)"},
	}})
	for _, want := range []string{"in spec.exclusions of WafPolicy core let such requests pass:\n  - " + exclusionLine + "\n", "core, revision 0123456789ab", "score 5 ≥ 5"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("%q is not in\n%s", want, b.String())
		}
	}
}

func TestProposalsAreLinesOfThePolicyWithTheirLosses(t *testing.T) {
	lost := strings.Fields(strings.Repeat("942100-1 ", 20))
	list := []*waf.Learned{{Site: "o/shop", Proposals: []waf.Proposal{{
		Policy: "core", Exclusion: v1.WafExclusion{}, YAML: exclusionLine, Evidence: learn.Evidence{Buyers: 12, Baskets: 20},
		Proof: &waf.Proof{Tests: 4680, Denied: 2700, Lost: lost[:1], Aimed: lost[:14]},
	}, {
		Policy: "core", YAML: exclusionLine, Wide: "the whole site", Proof: &waf.Proof{Denied: 100, Lost: lost[:2]},
	}}}}
	var b bytes.Buffer
	showProposals(&b, list, false)
	for _, want := range []string{
		"# site o/shop, WafPolicy core, spec.exclusions\n", "# 12 buyers from as many networks, of 20 visitors",
		"# lost: 1 of 2700 attack tests that are denied (0.04 %): 942100-1\n", "# lost when aimed: 14 (0.52 %): 942100-1", " and 2 more (-o json)\n",
		"# wide: the whole site\n", "# more than 1 % lost: 2 of 100", "\n- " + exclusionLine + "\n",
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("%q is not in\n%s", want, b.String())
		}
	}
	for line := range strings.Lines(b.String()) {
		if !strings.HasPrefix(line, "#") && !strings.HasPrefix(line, "- {") {
			t.Errorf("%q is no YAML of a list", line)
		}
	}
	b.Reset()
	showProposals(&b, list, true)
	if b.String() != strings.Repeat("- "+exclusionLine+"\n", 2) {
		t.Errorf("%q", b.String())
	}
	b.Reset()
	showProposals(&b, nil, false)
	if !strings.Contains(b.String(), "no proposals") {
		t.Errorf("%q", b.String())
	}
}

func TestValidateFindsExclusionsThatDoNothing(t *testing.T) {
	docs := `
apiVersion: relais/v1
kind: Site
metadata: {name: shop}
spec: {hostnames: [shop.example], waf: core, routes: [{pool: shop}]}
---
apiVersion: relais/v1
kind: OriginPool
metadata: {name: shop}
spec: {tiers: [{origins: [{address: "127.0.0.1:1"}]}]}
---
apiVersion: relais/v1
kind: Listener
metadata: {name: web}
spec: {address: "127.0.0.1:0"}
---
apiVersion: relais/v1
kind: WafPolicy
metadata: {name: core}
spec: {exclusions: [{rules: ["942100"], target: "ARGS:q", path: /search, exact: true}, {rules: ["942998"]}]}
`
	var out, errs bytes.Buffer
	cmd := root(&out, &errs)
	cmd.SetArgs([]string{"validate", "-f", writeFile(t, docs)})
	if err := cmd.Execute(); err == nil || !strings.Contains(out.String(), `spec.exclusions[1].rules[0]`) || !strings.Contains(out.String(), `"942998" is no detection rule`) {
		t.Errorf("%v\n%s%s", err, out.String(), errs.String())
	}
}

func writeFile(t *testing.T, text string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "docs.yaml")
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}
