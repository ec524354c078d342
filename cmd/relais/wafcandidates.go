package main

import (
	"fmt"
	"io"
	"net/url"
	"path/filepath"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/relais-edge/relais/internal/edge/admin"
	"github.com/relais-edge/relais/internal/edge/waf"
)

func wafCandidatesCommand() *cobra.Command {
	var output, data, site string
	cmd := &cobra.Command{
		Use:   "candidates",
		Short: "What the candidates of firewall policies would do otherwise",
		Long: "Candidates lists what the candidate of each WafPolicy would have refused and let through otherwise than the\n" +
			"policy, of the requests that both judged, by the rules that made the difference, with the id of a request of each.",
		Example: "  relais waf candidates\n  relais waf candidates --site shop -o json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var list []waf.Candidate
			if err := admin.NewClient(filepath.Join(data, adminSocket)).Get(cmd.Context(), "/waf/candidates?"+url.Values{"site": {site}}.Encode(), &list); err != nil {
				return failed(err)
			}
			return show(cmd.OutOrStdout(), output, list, func(w io.Writer) { showCandidates(w, list) })
		},
	}
	cmd.Flags().StringVar(&site, "site", "", "only this site")
	outputFlag(cmd, &output)
	dataFlag(cmd, &data)
	return cmd
}

func showCandidates(w io.Writer, list []waf.Candidate) {
	if len(list) == 0 {
		fmt.Fprintln(w, "no policy in service has a candidate")
		return
	}
	p := paintFor(w)
	for i := range list {
		c := &list[i]
		until := "until somebody moves it into the policy"
		switch {
		case c.Deciding:
			until = "which decides since " + c.From.Format(time.RFC3339)
		case c.From != nil:
			until = "which decides from " + c.From.Format(time.RFC3339) + " on"
		}
		fmt.Fprintf(w, "%s, candidate %s (%s), %s\n", p.bold("site "+c.Site+", WafPolicy "+c.Policy), c.Revision, c.RuleSet, until)
		both := c.Agreed + c.WouldDeny + c.WouldPass
		fmt.Fprintf(w, "  since %s: %d requests judged by both, %d alike, %d it would refuse, %d it would let pass; %d it could not judge\n",
			c.Since.UTC().Format(time.RFC3339), both, c.Agreed, c.WouldDeny, c.WouldPass, c.Skipped)
		if len(c.Rules) == 0 {
			continue
		}
		t := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
		fmt.Fprintln(t, "  rule\twould refuse\twould let pass\tlast request\t")
		for _, r := range c.Rules {
			if r.Rule == "" {
				r.Rule = "others"
			}
			fmt.Fprintf(t, "  %s\t%d\t%d\t%s\t\n", r.Rule, r.WouldDeny, r.WouldPass, r.Example)
		}
		_ = t.Flush()
	}
}
