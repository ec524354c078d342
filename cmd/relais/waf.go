package main

import (
	"context"
	"fmt"
	"io"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/bundle"
	"github.com/relais-edge/relais/internal/document"
	"github.com/relais-edge/relais/internal/edge/admin"
	"github.com/relais-edge/relais/internal/edge/waf"
)

func wafCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "waf",
		Short:   "What the firewall learned of visitors who ordered, and what its candidates would do",
		Long:    "Waf asks the edge that runs on this machine about its firewall.",
		Example: "  relais waf proposals --site shop\n  relais waf proposals --site shop --yaml\n  relais waf findings\n  relais waf candidates",
	}
	cmd.AddCommand(wafProposalsCommand(), wafFindingsCommand(), wafCandidatesCommand())
	return cmd
}

func wafProposalsCommand() *cobra.Command {
	var output, data, site string
	var noProof, yaml bool
	cmd := &cobra.Command{
		Use:   "proposals",
		Short: "Exclusions that hits on buyers ask for, each with what it would lose",
		Long: "Proposals lists the narrowest exclusions by which visitors with a basket, who were hit by a rule and then\n" +
			"ordered, would not have been hit, with the evidence. Each is replayed in this process, not in the edge,\n" +
			"against the attack tests of the Core Rule Set, sent to its path: lost are those that would pass because of\n" +
			"it. Lost when aimed are those that would pass if an attacker who knows the exclusion sent them as its\n" +
			"target. Nothing is applied: put the lines you want into the exclusions of the WafPolicy, best with an\n" +
			"expires. With --yaml only those lines are printed.",
		Example: "  relais waf proposals --site shop\n  relais waf proposals --site shop --yaml\n  relais waf proposals -o json --no-proof",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			list, err := learned(cmd.Context(), data, site)
			if err != nil {
				return failed(err)
			}
			if !noProof {
				if err := prove(cmd.Context(), list, cmd.ErrOrStderr()); err != nil {
					return failed(err)
				}
			}
			if output == "json" {
				for _, l := range list {
					l.Findings = nil
				}
			}
			return show(cmd.OutOrStdout(), output, list, func(w io.Writer) { showProposals(w, list, yaml) })
		},
	}
	cmd.Flags().StringVar(&site, "site", "", "only this site")
	cmd.Flags().BoolVar(&noProof, "no-proof", false, "do not replay the attack tests")
	cmd.Flags().BoolVar(&yaml, "yaml", false, "print only the lines for the WafPolicy")
	outputFlag(cmd, &output)
	dataFlag(cmd, &data)
	return cmd
}

func learned(ctx context.Context, data, site string) (list []*waf.Learned, err error) {
	err = admin.NewClient(filepath.Join(data, adminSocket)).Get(ctx, "/waf/learned?"+url.Values{"site": {site}}.Encode(), &list)
	return list, err
}

// prove replays the attack tests against each proposal, as if those before it for the same policy
// were in force.
func prove(ctx context.Context, list []*waf.Learned, errs io.Writer) error {
	var prover *waf.Prover
	for _, l := range list {
		specs := map[string]*v1.WafPolicySpec{}
		for i := range l.Policies {
			specs[l.Policies[i].Name] = l.Policies[i].Spec
		}
		for i := range l.Proposals {
			p := &l.Proposals[i]
			spec := specs[p.Policy]
			if spec == nil {
				continue
			}
			if prover == nil {
				fmt.Fprintln(errs, "replaying the attack tests of the Core Rule Set, which takes some 20 s of CPU ...")
				trial, err := waf.NewTrial()
				if err != nil {
					return err
				}
				if prover, err = waf.NewProver(trial, 1); err != nil {
					return err
				}
			}
			proof, err := prover.Prove(ctx, spec, []v1.WafExclusion{p.Exclusion})
			if err != nil {
				return err
			}
			p.Proof = proof
		}
	}
	return nil
}

func showProposals(w io.Writer, list []*waf.Learned, yaml bool) {
	p := paintFor(w)
	none := true
	for _, l := range list {
		policy := ""
		for i := range l.Proposals {
			r := &l.Proposals[i]
			none = false
			if r.Policy != policy && !yaml {
				policy = r.Policy
				fmt.Fprintf(w, "# %s\n", p.bold("site "+l.Site+", WafPolicy "+policy+", spec.exclusions"))
			}
			if yaml {
				fmt.Fprintf(w, "- %s\n", r.YAML)
				continue
			}
			showExclusion(w, p, r)
		}
	}
	if none && !yaml {
		fmt.Fprintln(w, "no proposals: no rule hit enough visitors who then ordered. relais waf findings lists what is known so far.")
	}
}

func showExclusion(w io.Writer, p paint, r *waf.Proposal) {
	e := &r.Evidence
	fmt.Fprintf(w, "# %d buyers from as many networks, of %d visitors with a basket who were hit; %d requests hit, %d over the threshold,\n", e.Buyers, e.Baskets, e.Hits, e.Denied)
	fmt.Fprintf(w, "# from about %d networks, %s to %s\n", e.Networks, e.First.UTC().Format(time.RFC3339), e.Last.UTC().Format(time.RFC3339))
	if r.Covered > 0 {
		fmt.Fprintf(w, "# of the buyers %d wrote values of these shapes; w is a run of words, 9 a number\n", r.Covered)
	}
	if r.Wide != "" {
		fmt.Fprintf(w, "# %s\n", p.red("wide: "+r.Wide))
	}
	if f := r.Proof; f != nil {
		line := fmt.Sprintf("lost: %d of %d attack tests that are denied (%.2f %%)%s", len(f.Lost), f.Denied, 100*f.Share(), ids(f.Lost))
		if f.Share() > waf.MuchLost {
			line = p.red("more than 1 % " + line)
		}
		fmt.Fprintf(w, "# %s\n", line)
		line = fmt.Sprintf("lost when aimed: %d (%.2f %%)%s", len(f.Aimed), 100*f.AimedShare(), ids(f.Aimed))
		if f.AimedShare() > waf.MuchLost {
			line = p.red("more than 1 % " + line)
		}
		fmt.Fprintf(w, "# %s\n", line)
	}
	fmt.Fprintf(w, "- %s\n", r.YAML)
}

// maxIDs bounds the tests that a line names; -o json names all.
const maxIDs = 12

func ids(list []string) string {
	if len(list) == 0 {
		return ""
	}
	if len(list) > maxIDs {
		return ": " + strings.Join(list[:maxIDs], " ") + fmt.Sprintf(" and %d more (-o json)", len(list)-maxIDs)
	}
	return ": " + strings.Join(list, " ")
}

func wafFindingsCommand() *cobra.Command {
	var output, data, site string
	cmd := &cobra.Command{
		Use:   "findings",
		Short: "Which rules hit visitors with a basket, and how many of them ordered",
		Long: "Findings lists what the firewall remembers: the rule, the target, the place, how many visitors with a basket\n" +
			"were hit, how many of them ordered, and until when a rule only logs there because of that.",
		Example: "  relais waf findings\n  relais waf findings --site shop -o json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			list, err := learned(cmd.Context(), data, site)
			if err != nil {
				return failed(err)
			}
			return show(cmd.OutOrStdout(), output, list, func(w io.Writer) { showFindings(w, list) })
		},
	}
	cmd.Flags().StringVar(&site, "site", "", "only this site")
	outputFlag(cmd, &output)
	dataFlag(cmd, &data)
	return cmd
}

func showFindings(w io.Writer, list []*waf.Learned) {
	if !slices.ContainsFunc(list, func(l *waf.Learned) bool { return len(l.Findings) > 0 }) {
		fmt.Fprintln(w, "nothing yet: no rule hit a visitor with a basket")
		return
	}
	t := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	fmt.Fprintln(t, "site\tpolicy\trule\ttarget\tplace\tbuyers\tbaskets\thits\tdenied\tlast\t")
	for _, l := range list {
		for _, f := range l.Findings {
			demoted := ""
			if f.Demoted != nil {
				demoted = "only logs until " + f.Demoted.UTC().Format(time.RFC3339)
			}
			fmt.Fprintf(t, "%s\t%s\t%d\t%s\t%s %s\t%d\t%d\t%d\t%d\t%s\t%s\n", l.Site, f.Policy, f.Rule, f.Target, f.Method, f.Path, f.Buyers, f.Baskets, f.Hits, f.Denied, f.Last.UTC().Format(time.RFC3339), demoted)
		}
	}
	_ = t.Flush()
}

// checkExclusions lists the firewall exclusions that match nothing or everything.
func checkExclusions(b *bundle.Bundle, files string) (out []document.Problem, err error) {
	trial, err := waf.NewTrial()
	if err != nil {
		return nil, err
	}
	const all = 1 << 30
	list := trial.Check(b, all)
	for i := range list {
		p := &list[i]
		out = append(out, document.Problem{File: files, Document: "WafPolicy " + p.Policy + " of site " + p.Site, Field: p.Field, What: p.What, Fix: p.Fix})
	}
	return out, nil
}
