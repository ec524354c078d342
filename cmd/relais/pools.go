package main

import (
	"fmt"
	"io"
	"path/filepath"
	"strconv"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/relais-edge/relais/internal/edge/admin"
	"github.com/relais-edge/relais/internal/edge/balance"
)

func poolsCommand() *cobra.Command {
	var output, data string
	cmd := &cobra.Command{
		Use:   "pools",
		Short: "How the origins are: who is well, and why others are not",
		Long: "Pools asks the edge that runs on this machine how the origins of its pools are. A pool is there\n" +
			"from the first request for it on. An origin is well, starting (slowStart), ejected (by what\n" +
			"requests showed) or down (by its checks).",
		Example: "  relais pools\n  relais pools -o json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var list []balance.PoolStatus
			if err := admin.NewClient(filepath.Join(data, adminSocket)).Get(cmd.Context(), "/pools", &list); err != nil {
				return failed(err)
			}
			return show(cmd.OutOrStdout(), output, list, func(w io.Writer) { listPools(w, list) })
		},
	}
	outputFlag(cmd, &output)
	dataFlag(cmd, &data)
	return cmd
}

func listPools(w io.Writer, list []balance.PoolStatus) {
	if len(list) == 0 {
		fmt.Fprintln(w, "no pool is in use yet")
		return
	}
	p := paintFor(w)
	for _, pool := range list {
		fmt.Fprint(w, p.bold(string(pool.Key)))
		if pool.Panicked {
			fmt.Fprint(w, "  ", p.red("too few are well, so all are used"))
		}
		fmt.Fprintln(w)
		for _, n := range pool.Names {
			fmt.Fprintf(w, "  name %s: %d origins %s\n", n.Name, n.Found, p.red(n.Error))
		}
		t := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
		for _, tier := range pool.Tiers {
			fmt.Fprintf(t, "  tier %s\t%s\t%d in flight\t%s\t\n", tier.Name, tier.State, tier.InFlight, tierTakes(&tier, pool.Panicked))
			for _, o := range tier.Origins {
				took := ""
				if o.LatencyMS > 0 {
					took = fmt.Sprintf("%.1f ms", o.LatencyMS)
				}
				fmt.Fprintf(t, "    %s\t%s\t%d in flight\t%s\t%s\n", o.Address, o.State, o.InFlight, took, o.Why)
			}
		}
		_ = t.Flush()
	}
}

// tierTakes says what a tier takes at once.
func tierTakes(t *balance.TierStatus, panicked bool) string {
	switch {
	case t.State == "down" && !panicked:
		return "takes nothing"
	case t.Limit > 0:
		return "limit " + strconv.FormatInt(t.Limit, 10)
	}
	return "no limit"
}
