package main

import (
	"cmp"
	"fmt"
	"io"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/relais-edge/relais/internal/edge"
	"github.com/relais-edge/relais/internal/edge/admin"
	"github.com/relais-edge/relais/internal/edge/flood"
)

func shieldCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "shield",
		Short: "What is done against a flood, what it costs visitors, and a hand on it",
		Long: "Shield shows the measures that the edge on this machine takes against floods, and lets a person take\n" +
			"or forbid them for a time. It needs a FloodPolicy on the site. Visitors with a basket are never\n" +
			"challenged or refused, whatever is ordered here.",
		Example: "  relais shield status\n  relais shield on --site shop --for 30m\n  relais shield off --site shop\n  relais shield auto",
	}
	cmd.AddCommand(shieldStatus(),
		shieldOrder("on", "Take a step now, against all visitors that are unknown",
			"On takes a step for a time, whether or not an attack was found: all visitors without signed state\ncount as suspects. Step challenge has them show that a browser is there."),
		shieldOrder("off", "Take no step for a time", "Off lets everything through for a time, whatever the detector finds."),
		shieldOrder("auto", "Leave it to the detector again", "Auto ends what on or off ordered."))
	return cmd
}

func shieldOrder(order, short, long string) *cobra.Command {
	var output, data string
	q := edge.ShieldOrder{Order: order}
	cmd := &cobra.Command{
		Use: order, Short: short, Long: long, Args: cobra.NoArgs,
		Example: "  relais shield " + order + " --site shop\n  relais shield " + order + " -o json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			var list []flood.Status
			if err := admin.NewClient(filepath.Join(data, adminSocket)).Post(cmd.Context(), "/flood/shield", &q, &list); err != nil {
				return failed(err)
			}
			return show(cmd.OutOrStdout(), output, list, func(w io.Writer) { listShield(w, list) })
		},
	}
	cmd.Flags().StringVar(&q.Site, "site", "", "site, as organization/name; all when it is not given")
	if order != "auto" {
		cmd.Flags().StringVar(&q.For, "for", "1h", "how long the order holds")
	}
	if order == "on" {
		cmd.Flags().StringVar(&q.Step, "step", "challenge", "stale, cache, challenge or limit")
	}
	outputFlag(cmd, &output)
	dataFlag(cmd, &data)
	return cmd
}

func shieldStatus() *cobra.Command {
	var output, data, site string
	cmd := &cobra.Command{
		Use: "status", Short: "What is done now, why, and what it costs", Args: cobra.NoArgs,
		Long: "Status shows for each watched site the step that is taken, what is saturated, how far what comes is\n" +
			"from what used to come, and what each step did to visitors with signed state.",
		Example: "  relais shield status\n  relais shield status --site shop -o json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			var list []flood.Status
			if err := admin.NewClient(filepath.Join(data, adminSocket)).Get(cmd.Context(), "/flood/status?site="+url.QueryEscape(site), &list); err != nil {
				return failed(err)
			}
			return show(cmd.OutOrStdout(), output, list, func(w io.Writer) { listShield(w, list) })
		},
	}
	cmd.Flags().StringVar(&site, "site", "", "site, as organization/name; all when it is not given")
	outputFlag(cmd, &output)
	dataFlag(cmd, &data)
	return cmd
}

func listShield(w io.Writer, list []flood.Status) {
	if len(list) == 0 {
		fmt.Fprintln(w, "no site is watched: a site needs a FloodPolicy, and a first request")
		return
	}
	p := paintFor(w)
	for i := range list {
		s := &list[i]
		step := p.green(s.Step)
		if s.Step != flood.Calm.String() {
			step = p.red(s.Step)
		}
		fmt.Fprintf(w, "%s  %s  mode %s, %s", p.bold(string(s.Site)), step, s.Mode, s.Hand)
		if s.Until != nil {
			fmt.Fprintf(w, " until %s", s.Until.Format(time.RFC3339))
		}
		if s.Since != nil {
			fmt.Fprintf(w, ", attack since %s", s.Since.Format(time.RFC3339))
		}
		fmt.Fprintf(w, "\n  %.0f requests/s, of suspects %.0f, expected up to %.0f; %s\n", s.Rate, s.Suspects, s.Expected, s.Saturated)
		if !s.Learned {
			fmt.Fprintln(w, "  the site is still being learned: an attack cannot be told yet")
		}
		if s.Denied > 0 {
			fmt.Fprintf(w, "  the packet filter drops what %s\n", plural(s.Denied, "source")+" sends")
		}
		fmt.Fprintf(w, "  distance %.2f of %.2f%s\n", s.Distance, s.Bound, dimensionsOf(s.Dimensions))
		t := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
		for _, m := range s.Measures {
			state := "allowed"
			switch {
			case !m.Allowed:
				state = "not in the policy"
			case m.Banned:
				state = "taken back: it harmed known visitors"
			}
			fmt.Fprintf(t, "  %s\t%s\t%d requests of known visitors hit\t%.2f%% of theirs lately\n", m.Step, state, m.Harmed, 100*m.HarmShare)
		}
		_ = t.Flush()
	}
}

// dimensionsOf lists what the distance is made of, the most first.
func dimensionsOf(m map[string]float64) string {
	var names []string
	for n, v := range m {
		if v >= 0.01 {
			names = append(names, n)
		}
	}
	slices.SortFunc(names, func(a, b string) int { return cmp.Or(cmp.Compare(m[b], m[a]), strings.Compare(a, b)) })
	var out strings.Builder
	for i, n := range names {
		out.WriteString([]string{" (", ", "}[min(i, 1)])
		fmt.Fprintf(&out, "%s %.2f", n, m[n])
	}
	if len(names) > 0 {
		out.WriteString(")")
	}
	return out.String()
}

func unblockCommand() *cobra.Command {
	var output, data string
	var q edge.Pardon
	cmd := &cobra.Command{
		Use:   "unblock ADDRESS",
		Short: "Spare an address or a network from limits for a time",
		Long: "Unblock has the edge on this machine spare an address or a network from rate limits and from the measures\n" +
			"against floods for a time, and forget what was held against it. What an AccessPolicy denies stays denied.",
		Example: "  relais unblock 192.0.2.7\n  relais unblock 2001:db8::/48 --for 24h -o json",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			q.Address = args[0]
			var r edge.Pardoned
			if err := admin.NewClient(filepath.Join(data, adminSocket)).Post(cmd.Context(), "/flood/unblock", &q, &r); err != nil {
				return failed(err)
			}
			return show(cmd.OutOrStdout(), output, r, func(w io.Writer) {
				fmt.Fprintf(w, "%s is spared from limits until %s\n", r.Network, r.Until.Format(time.RFC3339))
			})
		},
	}
	cmd.Flags().StringVar(&q.For, "for", "1h", "how long")
	outputFlag(cmd, &output)
	dataFlag(cmd, &data)
	return cmd
}
