package main

import (
	"fmt"
	"io"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/relais-edge/relais/internal/edge/admin"
	"github.com/relais-edge/relais/internal/edge/cache"
)

func cacheKeysCommand() *cobra.Command {
	var output, data, site string
	cmd := &cobra.Command{
		Use:   "keys",
		Short: "Which parameters change no answer, with the policy that leaves them out",
		Long: "Keys tells what the edge saw of parameters since it started. Two answers of one path whose requests differ in\n" +
			"some parameters only, fetched within five minutes and the lifetime of the first, are the same or are not. Where\n" +
			"they are the same, for many values and paths, and never were different, it proposes to leave the parameter out\n" +
			"of the key, and tells what that would have done for the hit ratio. Nothing is changed: the policy is yours.\n" +
			"A parameter that an origin only counts, or that matters to few visitors, looks the same: read the list first.\n\n" +
			"It also lists what came back in answers and is in no key, so that these were not stored: a cookie's value on a\n" +
			"page for all, or what somebody tried to put there.",
		Example: "  relais cache keys\n  relais cache keys --site shop -o json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var list []cache.KeyReport
			if err := admin.NewClient(filepath.Join(data, adminSocket)).Get(cmd.Context(), "/cache/keys?"+url.Values{"site": {site}}.Encode(), &list); err != nil {
				return failed(err)
			}
			return show(cmd.OutOrStdout(), output, list, func(w io.Writer) { showKeys(w, list) })
		},
	}
	cmd.Flags().StringVar(&site, "site", "", "only this site")
	outputFlag(cmd, &output)
	dataFlag(cmd, &data)
	return cmd
}

func showKeys(w io.Writer, list []cache.KeyReport) {
	p := paintFor(w)
	if len(list) == 0 {
		fmt.Fprintln(w, "no fetch with parameters was seen yet")
	}
	for i := range list {
		k := &list[i]
		fmt.Fprintf(w, "%s\n", p.bold("site "+k.Site+", policy "+k.Policy))
		fmt.Fprintf(w, "  since %s %d requests of the site were looked up, hit ratio %.3f\n", k.Began.UTC().Format("2006-01-02 15:04:05"), k.LookedUp, k.HitRatio)
		if len(k.Propose) == 0 {
			fmt.Fprintln(w, "  nothing to propose")
		} else {
			fmt.Fprintf(w, "  proposal, with which it would have been up to %.3f (%d fetches brought what was there):\n", k.WouldBe, k.Spare)
			showProposal(w, k)
		}
		showEvidence(w, k)
		for _, e := range k.Echoes {
			fmt.Fprintf(w, "  not stored, as it repeated the %s %q: %d answers, the last at %s of %q\n", e.Kind, e.Name, e.Times, e.Last.UTC().Format("15:04:05 MST"), e.Path)
		}
	}
}

// showProposal writes the lines of the policy.
func showProposal(w io.Writer, k *cache.KeyReport) {
	fmt.Fprintf(w, "      key:\n        query: %s\n", k.QueryWould)
	if len(k.KeyWould) > 0 {
		quoted := make([]string, len(k.KeyWould))
		for i, s := range k.KeyWould {
			quoted[i] = strconv.Quote(s)
		}
		fmt.Fprintf(w, "        parameters: [%s]\n", strings.Join(quoted, ", "))
	}
}

func showEvidence(w io.Writer, k *cache.KeyReport) {
	if len(k.Evidence) == 0 {
		return
	}
	t := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	fmt.Fprintln(t, "  parameter\tverdict\tsame answers\tvalues\tpaths\tother answers\tunclear\tspare fetches\talone")
	for _, e := range k.Evidence {
		verdict := e.Verdict
		if e.Path != "" {
			verdict += fmt.Sprintf(" (at %s, %q)", e.Path, e.Value)
		}
		fmt.Fprintf(t, "  %q\t%s\t%d\t%d\t%d\t%d\t%d\t%d\t%d\n", e.Name, verdict, e.Same, e.Values, e.Paths, e.Differ, e.Mixed, e.Spare, e.Alone)
	}
	_ = t.Flush()
}
